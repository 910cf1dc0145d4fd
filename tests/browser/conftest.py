"""A real Chromium."""

import os
import shutil

import pytest
from django.db import connection

# The first is Chromium without windows of its own: it takes a third less processor time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture
def browser(monkeypatch):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make check installs it")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    # Playwright runs an event loop in this thread, in which Django refuses database queries.
    monkeypatch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
        connection.close()  # The connection of the event loop's thread; the test's own thread has another.


def follow(page, selector):
    """Click, and wait until the next page has loaded: a click alone may return while the old page is still shown."""
    with page.expect_navigation():
        page.click(selector)
