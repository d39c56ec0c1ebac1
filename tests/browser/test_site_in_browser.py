"""Laws of the built site in a browser, from disk: it fits a phone, offline."""

import json
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "docs/_build/html"
PAGES = (
    "index.html",
    "gallery.html",
    "gallery/batch_stochastic_minibatch.html",
    "api/index.html",
    "api/losses.huber.html",
    "api/update_rules.html",
    "docs/howto/your_data.html",
    "docs/rules/adam.html",
    "docs/article.html",
    "experiments/README.html",
    "notebooks/what_is_a_derivative.html",
)
WIDTHS = (1200, 400)
LOCAL = ("file:", "data:", "blob:", "about:")


@pytest.fixture
def show(browser):
    """(page, width) -> the browser with this page; its logs begin with the page."""
    if not SITE.is_dir():
        pytest.fail("There is no site. Build it first: make docs.")

    def show(page, width):
        size = {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 500,
        }
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.execute_cdp_cmd("Network.enable", {})
        for log in ("browser", "performance"):
            browser.get_log(log)
        path, _, query = page.partition("?")
        browser.get(f"{(SITE / path).as_uri()}?{query}".rstrip("?"))
        return browser

    return show


def requests(browser):
    """The addresses that the page has asked for."""
    entries = [
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    ]
    return [
        entry["params"]["request"]["url"]
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_page_fits_complains_of_nothing_and_asks_nothing_of_the_network(
    show, page, width
):
    browser = show(page, width)
    assert browser.execute_script("return window.innerWidth") == width
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth - window.innerWidth"
    )
    assert wide <= 0, f"{page} is {wide} px too wide"
    complaints = [one for one in browser.get_log("browser") if one["level"] != "INFO"]
    assert complaints == []  # The theme's script says at INFO which colours it chose.
    asked = requests(browser)
    assert asked
    assert not [address for address in asked if not address.startswith(LOCAL)]
    assert browser.execute_script(
        "return [...document.querySelectorAll('article img')]"
        ".every(image => image.naturalWidth && image.alt)"
    )


def test_formula_is_drawn(show):
    browser = show("docs/rules/adam.html", 1200)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('math')]"
        ".map(formula => formula.getBoundingClientRect().height)"
    )
    assert sizes
    assert min(sizes) > 5


def test_search_finds_a_name_without_a_server(show):
    from selenium.webdriver.support.wait import WebDriverWait

    browser = show("search.html?q=huber", 1200)
    found = "return document.querySelector('#search-results a')?.textContent"
    WebDriverWait(browser, 20).until(lambda _: browser.execute_script(found))
    links = browser.execute_script(
        "return [...document.querySelectorAll('#search-results a')].map(a => a.href)"
    )
    assert any("api/losses.huber.html" in link for link in links)


def test_line_of_a_source_file_is_shown(show):
    browser = show("api/losses.huber.html", 1200)
    browser.execute_script("document.querySelector('a.source').click()")
    assert "/source/research/losses/regression.py.html#L-" in browser.current_url
    line = browser.execute_script(
        "return document.querySelector(':target').parentElement.textContent"
    )
    assert "def huber(" in line
