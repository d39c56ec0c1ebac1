"""Laws of a report in a real browser, opened as a file: it sorts, fits a phone, and
runs nothing it was told.
"""

import struct
import zlib

import pytest

from research import report, runs

NASTY = (
    "<script>window.owned = 1</script>\"'&amp;<img src=x onerror='window.owned = "
    "1'></td></style>"
)
LONG = NASTY + 50 * "long"
SVG = """<svg xmlns="http://www.w3.org/2000/svg"
 width="900" height="420" viewBox="0 0 900 420">
<script>window.owned = 1</script></svg>"""
ROWS = (
    ("run 10", 9, 1e-9, NASTY),
    ("run 2", None, 0.5, None),
    ("run 1", 1437, float("nan"), "b"),
    ("Run 3", 80, float("inf"), 3),
    ("run 4", -5, -1e-10, "a"),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    tables = (runs.Table(LONG, ("name", "steps", "loss", NASTY), ROWS, LONG),)
    run = runs.open_run("trajectory", {LONG: LONG}, folder)
    run = runs.finish(
        run,
        runs.Result(f"{LONG}. It was {LONG}.", tables, {}, {}),
        seconds=1.5,
        programs={LONG: LONG},
    )
    (folder / "still.svg").write_text(SVG)
    (folder / "still.png").write_bytes(png(40, 20))
    (folder / "motion.apng").write_bytes(png(80, 40))
    pictures = [
        report.ReportPicture(LONG, LONG, folder / "still.svg"),
        report.ReportPicture(
            "Moving", "It moves.", folder / "still.png", folder / "motion.apng"
        ),
    ]
    return report.write_report(run.path, pictures, question=LONG)


@pytest.fixture
def page(browser, path):
    show(browser, width=1200)
    browser.get(path.as_uri())
    browser.get_log(
        "browser"
    )  # Reading it empties it of what an earlier test had provoked.
    browser.get(path.as_uri())
    return browser


def png(width, height):
    """A white picture, byte by byte as the PNG specification has it."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(height * (b"\0" + width * b"\xff"))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def show(browser, width, **media):
    size = {
        "width": width,
        "height": 800,
        "deviceScaleFactor": 1,
        "mobile": width < 500,
    }
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": name.replace("_", "-"), "value": value}
        for name, value in media.items()
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def headings(page):
    return page.find_elements("css selector", ".tall thead button")


def column(page, index):
    script = (
        "return [...document.querySelector('.tall').tBodies[0].rows].map(row => "
        "row.cells[arguments[0]].innerText)"
    )
    return page.execute_script(script, index)


def sorting(page):
    return page.execute_script(
        "return [...document.querySelectorAll('thead th')].map(th => th.ariaSort)"
    )


def test_page_opens_without_complaint_and_runs_nothing_it_was_told(page):
    assert page.get_log("browser") == []
    assert page.execute_script(
        "return [window.owned, document.scripts.length, document.images.length]"
    ) == [None, 1, 2]
    assert page.find_element("tag name", "h1").text == f"{LONG}."


def test_policy_stops_what_an_injection_would_do(page):
    # By the page's own policy: the driver's scripts are exempt from it, what they
    # insert is not.
    page.execute_script("""
        const script = document.createElement("script");
        script.textContent = "window.owned = 1";
        document.body.append(script);
        const image = "<img src=x onerror='window.owned = 1'>";
        document.body.insertAdjacentHTML("beforeend", image);
        """)
    attempt = (
        "const done = arguments[0]; fetch('https://example.invalid').then(() => "
        "done('sent'), () => done('no'))"
    )
    assert page.execute_async_script(attempt) == "no"
    assert page.execute_script("return window.owned") is None
    complaints = " ".join(entry["message"] for entry in page.get_log("browser"))
    assert all(word in complaints for word in ("script-src", "img-src", "default-src"))


def test_images_load_and_hold_their_place(page):
    assert page.execute_script(
        "return [...document.images].map(image => image.naturalWidth)"
    ) == [900, 80]
    ratios = page.execute_script(
        "return [...document.images].map(image => getComputedStyle(image).aspectRatio)"
    )
    assert ratios == [
        "auto 900 / 420",
        "auto 80 / 40",
    ]  # Known before the image is decoded, so that nothing shifts.


def test_motion_stops_for_those_who_ask(browser, page):
    from selenium.webdriver.support.wait import WebDriverWait

    current = (
        "return document.images[1].currentSrc === "
        "document.querySelector('source').srcset"
    )
    assert not page.execute_script(current)
    button = page.find_element("css selector", ".still")
    for still, word in ((True, "Play"), (False, "Pause")):
        button.click()
        WebDriverWait(page, 2).until(
            lambda _, still=still: page.execute_script(current) == still
        )
        assert button.text == word
    show(browser, 1200, prefers_reduced_motion="reduce")
    WebDriverWait(page, 2).until(lambda _: page.execute_script(current))
    assert not button.is_displayed()


def test_click_sorts_numbers_by_value_with_the_missing_last(page):
    steps = headings(page)[1]
    steps.click()
    assert column(page, 1) == ["−5", "9", "80", "1,437", "not reached"]
    assert sorting(page) == [None, "ascending", None, None]
    steps.click()
    assert column(page, 1) == ["1,437", "80", "9", "−5", "not reached"]
    assert sorting(page) == [None, "descending", None, None]
    headings(page)[2].click()
    assert column(page, 2) == ["−1.00×10⁻¹⁰", "1.00×10⁻⁹", "0.5", "∞", "NaN"]
    assert sorting(page) == [None, None, "ascending", None]
    headings(page)[2].click()
    assert column(page, 2) == ["∞", "0.5", "1.00×10⁻⁹", "−1.00×10⁻¹⁰", "NaN"]


def test_words_sort_as_people_count_and_after_numbers(page):
    headings(page)[0].click()
    assert column(page, 0) == ["run 1", "run 2", "Run 3", "run 4", "run 10"]
    headings(page)[3].click()
    assert column(page, 3) == ["3", NASTY, "a", "b", "not reached"]
    headings(page)[3].click()
    assert column(page, 3) == ["b", "a", NASTY, "3", "not reached"]


def test_keyboard_sorts_as_the_mouse_does(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.find_element("css selector", ".still").send_keys(Keys.TAB, Keys.TAB)
    assert page.switch_to.active_element == headings(page)[1]
    ActionChains(page).send_keys(Keys.ENTER).perform()
    assert column(page, 1) == ["−5", "9", "80", "1,437", "not reached"]
    ActionChains(page).send_keys(Keys.SPACE).perform()
    assert column(page, 1) == ["1,437", "80", "9", "−5", "not reached"]
    assert page.switch_to.active_element == headings(page)[1]


@pytest.mark.parametrize("width", [320, 360, 768, 1200])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_never_scrolls_sideways_but_a_wide_table_does(browser, page, width, theme):
    show(browser, width, prefers_color_scheme=theme)
    page.refresh()
    assert page.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )
    assert page.execute_script("return window.innerWidth") == width
    box = page.find_element("css selector", ".scroll")
    assert page.execute_script(
        "return arguments[0].scrollWidth > arguments[0].clientWidth", box
    ) == (width < 768)
    page_colour = "return getComputedStyle(document.body).backgroundColor"
    card_colour = (
        "return getComputedStyle(document.querySelector('.picture')).backgroundColor"
    )
    assert (
        page.execute_script(page_colour)
        == {"light": "rgb(246, 245, 241)", "dark": "rgb(18, 21, 24)"}[theme]
    )
    assert page.execute_script(card_colour) == "rgb(255, 255, 255)"


def test_command_is_copied_or_selected(page):
    from selenium.webdriver.support.wait import WebDriverWait

    button = page.find_element("css selector", ".command button")
    button.click()
    WebDriverWait(page, 2).until(lambda _: button.text in ("Copied", "Selected"))
    WebDriverWait(page, 4).until(lambda _: button.text == "Copy")
