"""Laws of the page of a ledger in a browser, from disk: by mouse and by keyboard."""

import json

import jax.numpy as jnp
import pytest

from research.derivatives import explain

WIDTHS = (1200, 400)


@pytest.fixture(scope="module")
def ledger():
    def loss(w, b):
        return jnp.tanh(w * 2.0 + b) ** 2 + jnp.sin(w)

    return explain(loss, 0.3, 0.1)


@pytest.fixture
def page(browser, ledger, tmp_path):
    """The browser with the page."""
    (tmp_path / "ledger.html").write_text(ledger.html(), "utf-8")
    browser.execute_cdp_cmd("Network.enable", {})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get((tmp_path / "ledger.html").as_uri())
    return browser


def marked(page, kind="marked"):
    """The first cells of the marked rows."""
    return page.execute_script(
        f"return Array.from(document.querySelectorAll('tr.{kind}'))"
        ".map(row => row.cells[0].textContent)"
    )


def detail(page):
    return page.execute_script("return document.getElementById('detail').innerText")


def point_at(page, selector):
    page.execute_script(
        "arguments[0].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))",
        page.find_element("css selector", selector),
    )


def press(page, key):
    for kind in ("keyDown", "keyUp"):
        event = {"type": kind, "key": key, "code": key}
        event |= {"windowsVirtualKeyCode": {"Tab": 9, "Enter": 13}.get(key, 0)}
        page.execute_cdp_cmd("Input.dispatchKeyEvent", event)


def test_pointing_at_an_input_shows_what_flows_into_its_gradient(page, ledger):
    point_at(page, 'tr[data-value="0"]')
    assert marked(page) == ["w"]
    readers = [row.name for row in ledger.rows if "w" in row.inputs]
    assert marked(page, "reader") == readers
    shown = detail(page)
    for row in ledger.rows:
        if "w" in row.inputs:
            assert f"from {row.name} = {row.expression}" in shown
            assert row.rule in shown
    lines = page.execute_script(
        "return document.querySelectorAll('svg path.marked').length"
    )
    assert lines == len(readers)


def test_a_box_of_the_drawing_marks_its_row(page, ledger):
    number = len(ledger.inputs)
    values = json.loads(
        page.execute_script("return document.getElementById('ledger').textContent")
    )["values"]
    point_at(page, f'svg [data-node="{values[number]["nodes"][0]}"]')
    assert marked(page) == [ledger.rows[0].name]


def test_the_keyboard_reaches_every_row_and_folds_scopes(page, ledger):
    page.execute_script("document.querySelector('tr[data-value]').focus()")
    names = [*ledger.inputs, *(row.name for row in ledger.rows)]
    for name in names:
        assert marked(page) == [name]
        press(page, "ArrowDown")
    press(page, "Escape")
    assert marked(page) == []
    assert detail(page) == ""
    page.execute_script("document.querySelector('summary').focus()")
    press(page, "Enter")
    open_ = page.execute_script("return document.querySelector('details').open")
    # Chromium folds at the character that Enter types.
    if open_:
        page.execute_cdp_cmd(
            "Input.dispatchKeyEvent", {"type": "char", "text": "\r", "key": "Enter"}
        )
    assert not page.execute_script("return document.querySelector('details').open")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_and_asks_for_nothing(page, width):
    size = {
        "width": width,
        "height": 900,
        "deviceScaleFactor": 1,
        "mobile": width < 500,
    }
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    messages = [
        json.loads(entry["message"])["message"] for entry in page.get_log("performance")
    ]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert all(url.startswith("file:") for url in asked)
    assert not [e for e in page.get_log("browser") if e["level"] == "SEVERE"]
