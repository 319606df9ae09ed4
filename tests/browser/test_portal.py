"""The practice's portal as a person uses it, in four languages, on a phone, without scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from guthaben.texts import LANGUAGES, text
from tests.programs import Demo, demo

SLOWLY_MS = 15_000

CONTRAST = """
() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (node) => {
    for (let e = node; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const ink = light(parse(getComputedStyle(e).color)), paper = light(ground(e));
    const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    if (ratio < 4.5) weak.push(`${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return weak;
}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with demo(tmp_path_factory.mktemp("portal")) as started:
        yield started


def pay(page: Page, button: str = "pay") -> None:
    page.wait_for_url("**/c/pay/**")
    page.locator(f"button[value={button}]").click()
    page.wait_for_url("**/portal/**")


def test_a_person_buys_saves_a_card_and_agrees_to_limits(running: Demo, page: Page) -> None:
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto(f"{running.url}/demo/portal?lang=de")
    expect(page.locator("h2").first).to_have_text("Verfügbar für KI-Funktionen")

    # Any Rappen; what it buys is told at once; turning back buys nothing and can be given up.
    page.get_by_label("Betrag in CHF").fill("1'234.55")
    expect(page.locator("#gives")).to_have_text("Das ergibt 411.5167 USD Guthaben.")
    page.get_by_role("button", name="Weiter zur Zahlung").click()
    pay(page, "cancel")
    expect(page.locator("h1")).to_have_text("Nicht bezahlt")
    page.get_by_role("button", name="Kauf abbrechen").click()
    expect(page.locator("h1")).to_have_text("Kauf abgebrochen")

    page.get_by_role("link", name="Neu beginnen").click()
    page.get_by_role("button", name="30", exact=True).click()
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Weiter zur Zahlung").click()
    pay(page)
    expect(page.locator("h1")).to_have_text("Vielen Dank, das Guthaben ist da", timeout=SLOWLY_MS)
    page.get_by_role("link", name="Zur Guthaben-Seite").click()
    expect(page.locator(".facts").first).to_contain_text("10.00")
    expect(page.locator(".events tbody tr")).to_have_count(2)

    # The card is kept and switches nothing on; the consent names its numbers.
    expect(page.locator(".auto .chip")).to_have_text("aus")
    page.get_by_label("Betrag je Aufladung, CHF").fill("60")
    page.get_by_role("button", name="Einschalten").click()
    expect(page.locator(".consent")).to_contain_text("mit CHF 60.00 zu belasten")
    page.get_by_role("checkbox", name="Ich bin einverstanden.").check()
    page.get_by_role("button", name="Einschalten").click()
    expect(page.locator(".auto .chip")).to_have_text("ein")
    page.get_by_role("button", name="Ausschalten").click()
    expect(page.locator(".auto .chip")).to_have_text("aus")
    assert problems == []


def test_it_works_without_scripts(running: Demo, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False, locale="fr-CH")
    page = context.new_page()
    page.goto(f"{running.url}/demo/portal?lang=fr")
    page.get_by_label("Montant en CHF").fill("45,50")
    page.get_by_role("button", name="Continuer vers le paiement").click()
    pay(page)
    expect(page.locator("h1")).to_have_text("Merci, le crédit est là", timeout=SLOWLY_MS)
    page.get_by_role("link", name="Italiano").click()
    expect(page.locator("h1")).to_have_text("Grazie, il credito è arrivato")
    context.close()


@pytest.mark.parametrize("width", [375, 768, 1280])
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_hangs_over_and_all_can_be_read(
    running: Demo, page: Page, language: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{running.url}/demo/portal?lang={language}")
    expect(page.locator("#h-buy")).to_have_text(text("portal.buy", language))
    wide = page.locator("html").evaluate("html => html.scrollWidth - html.clientWidth")
    assert wide <= 0
    assert page.evaluate(CONTRAST) == []


def test_everything_has_a_name_and_is_reached_by_keyboard(running: Demo, page: Page) -> None:
    page.goto(f"{running.url}/demo/portal?lang=en")
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('input:not([type=hidden]), button, a')]"
        ".filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"
    )
    assert nameless == 0
    page.keyboard.press("Tab")
    focus = page.locator(":focus")
    expect(focus).to_have_text("Skip to content")
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        if focus.count():
            reached.add(focus.evaluate("e => e.id || e.textContent.trim()"))
    assert {"amount", "Continue to payment", "30"} <= reached
