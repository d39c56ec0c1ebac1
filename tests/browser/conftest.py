"""The browser, started once for all tests that need one."""

import shutil

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium = next(
        filter(
            None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
        ),
        None,
    )
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.fail(
            "These tests need chromium and chromedriver: apt-get install chromium "
            "chromium-driver (Debian)."
        )
    try:
        from selenium import webdriver
    except ImportError:
        pytest.fail("These tests need selenium: pip install 'descent-jax[browser]'.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()
