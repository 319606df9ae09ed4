"""A real Chromium for the tests in this folder: skipped aloud where there is none, failed in CI."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.ensure_browser import find_chromium, in_ci

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium_path() -> str:
    """Return a Chromium that starts."""
    path = find_chromium()
    if path is None:
        reason = "no Chromium here: install one, or set CHROMIUM"
        if in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
    return path


# Not wider than a module: playwright keeps an event loop running in its thread for as long as it
# lives, and asynchronous tests of another module in the same process could not start theirs.
@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    """Start one Chromium per test module."""
    with sync_playwright() as playwright:
        # As root, and in containers, Chromium's own sandbox can't start.
        switches = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=chromium_path, args=switches)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Open a page in a fresh context, and fail the test if a script on it raised an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not errors, f"scripts on the page raised: {errors}"
