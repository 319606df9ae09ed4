"""The browser itself: if this fails, the failures of the other browser tests mean nothing."""

from playwright.sync_api import Page, expect


def test_the_browser_shows_a_page_and_runs_scripts(page: Page) -> None:
    page.set_content("<p id=p>off</p><script>p.textContent = 'on'</script>")
    expect(page.locator("#p")).to_have_text("on")
