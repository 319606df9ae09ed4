"""The demo as a person uses it: buy credit, make calls, set up a card, agree to automatic top-up,
read the history. Real Chromium, real server, real sandbox."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from guthaben.services.consent_texts import (
    CARD_TEXT_VERSION,
    VERSION,
    Terms,
    card_text,
    consent_text,
)
from tests.programs import Demo, demo

SLOWLY_MS = 15_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with demo(tmp_path_factory.mktemp("demo")) as started:
        yield started


def available(page: Page) -> float:
    return float(page.locator("#available").inner_text())


def stored(running: Demo, question: str) -> list[tuple[object, ...]]:
    """Ask the demo's database something."""
    with closing(sqlite3.connect(running.folder / "demo.db", timeout=10)) as con:
        return con.execute(question).fetchall()


def pay(page: Page, demo_url: str, card: str = "4242424242424242", button: str = "pay") -> None:
    """Do on the hosted page what it offers, and come back."""
    page.wait_for_url("**/c/pay/**")
    page.locator(f"input[value='{card}']").check()
    page.locator(f"button[value={button}]").click()
    page.wait_for_url(f"{demo_url}/**")


def test_a_person_clicks_through_the_demo(running: Demo, page: Page, tmp_path: Path) -> None:
    elsewhere: list[str] = []
    page.on("request", lambda r: elsewhere.append(r.url) if "127.0.0.1" not in r.url else None)
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)

    page.goto(f"{running.url}/")
    expect(page.locator("#available")).to_have_text("2.00")
    expect(page.locator("#list")).to_contain_text("Nothing was bought yet")
    expect(page.get_by_role("button", name="Switch on")).to_be_disabled()

    # Turning back buys nothing; paying brings the credit.
    page.get_by_role("button", name="Pay", exact=True).click()
    pay(page, running.url, button="cancel")
    expect(page.locator("#notices")).to_contain_text("Nothing was paid")
    page.get_by_text("50 CHF").click()
    expect(page.locator("#buys")).to_have_text("16.6667 USD")
    page.get_by_text("30 CHF", exact=True).click()
    page.get_by_role("button", name="Pay", exact=True).click()
    pay(page, running.url)
    expect(page.locator("#credit")).to_have_text("10.00", timeout=SLOWLY_MS)
    expect(page.locator("#list tbody tr").first).to_contain_text("succeeded")
    expect(page.locator("#list")).to_contain_text(re.compile(r"pi_…\w{4}"))

    # One call, then twenty at once.
    page.get_by_role("button", name="Make a simulated AI call").click()
    expect(page.locator("#call-result")).to_contain_text("1 settled for 0.", timeout=SLOWLY_MS)
    assert 11 < available(page) < 12
    page.get_by_role("button", name="20 calls at once").click()
    expect(page.locator("#call-result")).to_contain_text("20 settled", timeout=SLOWLY_MS)
    expect(page.locator("#held")).to_have_text("0.00")

    # A card, then the automatic top-up, which needs the consent.
    page.get_by_role("button", name="Set up a card").click()
    pay(page, running.url)
    expect(page.locator("#card-state")).to_contain_text("A card is saved", timeout=SLOWLY_MS)
    page.get_by_role("button", name="Switch on").click()
    expect(page.locator("#notices")).to_contain_text("agree to the text")
    page.locator("#auto-trigger").fill("100")
    expect(page.locator("#consent-text")).to_have_text(consent_text("en", Terms(3_000, 9_000, 100)))
    page.locator("#auto-consent").check()
    page.get_by_role("button", name="Switch on").click()
    expect(page.locator("#auto-state")).to_have_text("on")
    amounts = "text_version, language, amount_minor, cap_minor, trigger_percent"
    agreed = stored(running, f"SELECT {amounts} FROM credit_consent")
    assert agreed == [(VERSION, "en", 3_000, 9_000, 100)]

    # Use it up until the card is charged.
    for _ in range(12):
        page.get_by_role("button", name="20 calls at once").click()
        expect(page.locator("#call-many")).to_be_enabled(timeout=SLOWLY_MS)
        if page.locator("#list").get_by_text("Automatic top-up").count():
            break
    expect(page.locator("#list")).to_contain_text("Automatic top-up", timeout=SLOWLY_MS)
    expect(page.locator("#card-state")).to_contain_text("30.00 of 90.00 CHF", timeout=SLOWLY_MS)

    page.get_by_role("tab", name="Ledger").click()
    expect(page.locator("#list tbody tr").first).to_contain_text("used")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Calls")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#list tbody tr").first).to_contain_text("demo-model")
    page.get_by_role("button", name="Switch off").click()
    expect(page.locator("#auto-state")).to_have_text("off")

    page.get_by_role("tab", name="Payments").click()
    page.screenshot(path=tmp_path / "demo.png", full_page=True)
    assert (tmp_path / "demo.png").stat().st_size > 20_000
    assert elsewhere == [], "nothing is loaded from elsewhere"
    assert [p for p in problems if "402" not in p] == []


def test_a_declining_card_is_told_and_pauses(running: Demo, page: Page) -> None:
    page.goto(f"{running.url}/")
    page.locator("#setup-button").click()
    pay(page, running.url, card="4000000000006603")
    page.locator("#auto-consent").check()
    page.get_by_role("button", name="Switch on").click()
    expect(page.locator("#auto-state")).to_have_text("on")
    # The cooldown of the first test's top-up would hold this one back.
    with closing(sqlite3.connect(running.folder / "demo.db", timeout=10)) as con, con:
        con.execute("UPDATE credit_topup_settings SET cooldown_s = 0")
        con.execute("UPDATE credit_practice SET auto_topup_next_s = 0")
    for _ in range(12):
        page.get_by_role("button", name="20 calls at once").click()
        expect(page.locator("#call-many")).to_be_enabled(timeout=SLOWLY_MS)
        if page.locator("#auto-state").inner_text() == "paused":
            break
    expect(page.locator("#auto-state")).to_have_text("paused", timeout=SLOWLY_MS)
    expect(page.locator("#notices")).to_contain_text("paused: stolen card")
    expect(page.locator("#list")).to_contain_text("failed")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_hangs_over_the_edge(running: Demo, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{running.url}/")
    expect(page.locator("#available")).not_to_have_text("…")
    wide = page.locator("html").evaluate("html => html.scrollWidth - html.clientWidth")
    assert wide <= 0


def test_everything_can_be_reached_by_keyboard_and_has_a_name(running: Demo, page: Page) -> None:
    page.goto(f"{running.url}/")
    expect(page.locator("#available")).not_to_have_text("…")
    names = set()
    focus = page.locator(":focus")
    for _ in range(30):
        page.keyboard.press("Tab")
        if focus.count():
            names.add(focus.evaluate("e => e.textContent.trim() || e.value"))
    assert {"Make a simulated AI call", "20 calls at once", "Pay"} <= names


def test_a_page_of_an_older_process_begins_anew(running: Demo, page: Page) -> None:
    page.goto(f"{running.url}/")
    expect(page.locator("#available")).not_to_have_text("…")
    page.context.clear_cookies()
    page.locator("#call-one").click()
    expect(page.locator("#available")).not_to_have_text("…", timeout=SLOWLY_MS)
    page.get_by_role("button", name="Make a simulated AI call").click()
    expect(page.locator("#call-result")).not_to_have_text("No call made yet.")


def test_what_is_shown_is_what_is_agreed_to(running: Demo, page: Page) -> None:
    page.goto(f"{running.url}/")
    expect(page.locator("#card-text")).to_have_text(card_text("en"))
    page.locator("#save-card").check()
    page.get_by_role("button", name="Pay", exact=True).click()
    pay(page, running.url)
    agreed = stored(running, "SELECT text_version, language FROM credit_card_consent")
    assert agreed[-1] == (CARD_TEXT_VERSION, "en")

    # Numbers that can't be agreed to have no text, and nothing can be agreed to.
    page.locator("#auto-cap").fill("5")
    expect(page.locator("#auto-consent")).to_be_disabled()
    expect(page.locator("#consent-text")).to_contain_text("cap_chf")
    page.locator("#auto-cap").fill("60.00")
    expect(page.locator("#auto-consent")).to_be_enabled()
    expect(page.locator("#consent-text")).to_contain_text("at most CHF 60.00")


def look_until_first_mail_says(page: Page, words: str) -> None:
    """Load the outbox again until the newest e-mail is there: it is written after the payment."""
    mails = page.locator("article.mail")
    until_s = time.monotonic() + SLOWLY_MS / 1000
    while not any(words in text for text in mails.all_inner_texts()[:1]):
        assert time.monotonic() < until_s, f"no e-mail says {words}: {mails.all_inner_texts()}"
        page.wait_for_timeout(200)
        page.reload()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_outbox_looks_like_the_demo_and_leads_to_the_portal(
    running: Demo, page: Page, tmp_path: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{running.url}/")
    page.get_by_text("50 CHF").click()
    page.get_by_role("button", name="Pay", exact=True).click()
    pay(page, running.url)
    expect(page.locator("#list")).to_contain_text("+16.6667 USD", timeout=SLOWLY_MS)
    page.get_by_role("link", name="e-mails, not sent").click()
    look_until_first_mail_says(page, "USD 16.6667")
    page.get_by_role("link", name="English").click()
    expect(page.locator("article.mail").first).to_contain_text("credit")
    wide = page.locator("html").evaluate("html => html.scrollWidth - html.clientWidth")
    assert wide <= 0
    page.screenshot(path=tmp_path / f"outbox-{width}.png", full_page=True)
    page.locator("article.mail a").first.click()
    page.wait_for_url("**/portal/**")
    expect(page.locator("html")).to_have_attribute("lang", "en-CH")
    expect(page.locator("main")).to_contain_text("Buy credit")
