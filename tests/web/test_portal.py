"""The practice's portal over HTTP: who is let in, what it shows, what its forms may do."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx
import pytest

from guthaben.services.closing import PageCloser
from guthaben.services.portal import Portal
from guthaben.texts import LANGUAGES
from guthaben.web import background
from tests.web.conftest import Web

pytestmark = pytest.mark.edge

HOME = "https://credit.example.com/portal/"


@dataclass
class Visitor:
    """A browser in a session of prac_1."""

    web: Web
    http: httpx.AsyncClient

    async def page(self, path: str = "/portal/") -> str:
        """Look at a page of the portal."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def send(self, path: str, **fields: str) -> httpx.Response:
        """Send a form as the page itself would."""
        found = re.search(r'name="token" value="([0-9a-f]{64})"', await self.page())
        assert found, "no form here"
        return await self.http.post(f"/portal/{path}", data={"token": found[1], **fields})


async def enter(web: Web, practice_id: str = "prac_1", **options: str) -> Visitor:
    """Ask for a link by API and follow it."""
    made = (await web.client(practice_id).post("/v1/portal-sessions", json=options)).json()
    assert made["url"].startswith(f"{HOME}enter?t=")
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(web.app), base_url="https://credit.example.com"
    )
    web.opened.append(http)
    answer = await http.get(made["url"])
    assert (answer.status_code, answer.headers["location"]) == (303, ".")
    return Visitor(web, http)


@pytest.fixture
async def visitor(web: Web) -> Visitor:
    return await enter(web, language="de", return_url="https://app.example.com/home")


# ---------------------------------------------------------------- who is let in


async def test_without_a_session_there_is_nothing_to_see(web: Web) -> None:
    client = web.client(scopes=())
    for path in ("/portal/", "/portal/enter?t=", "/portal/enter?t=x.y", "/portal/leave"):
        answer = await client.get(path, headers={"Accept-Language": "fr"})
        assert answer.status_code in {200, 401}
        assert "La session est terminée" in answer.text
        assert "prac_1" not in answer.text


async def test_an_api_key_opens_no_page_and_a_session_no_api(visitor: Visitor) -> None:
    client = visitor.web.client()
    assert (await client.get("/portal/")).status_code == 401
    assert (await visitor.http.get("/v1/balance")).status_code == 401


async def test_a_link_lives_ten_minutes_and_a_session_two_hours(web: Web) -> None:
    class Later:
        """The same database, some time later."""

        def __init__(self, seconds: int) -> None:
            self.core = type("Core", (), {"store": self})
            self._seconds = seconds
            self.read = web.services.core.store.read

        def now_s(self) -> int:
            return web.services.core.store.now_s() + self._seconds

    def at(seconds: int) -> Portal:
        return Portal(Later(seconds))  # type: ignore[arg-type]

    token = at(0).link("prac_1", actor="k")
    assert at(590).enter(token)
    assert at(601).enter(token) is None
    session = at(0).enter(token)
    assert session
    cookie = at(0).token(session)
    assert at(7_190).session(cookie) == session
    assert at(7_201).session(cookie) is None


async def test_what_is_signed_can_not_be_changed_or_used_for_another_thing(web: Web) -> None:
    portal = web.services.portal
    link = portal.link("prac_1", actor="k")
    session = portal.enter(link)
    assert session
    cookie = portal.token(session)
    assert portal.session(link) is None, "a link is no session"
    assert portal.enter(cookie) is None, "a session is no link"
    body, seal = cookie.split(".")
    other = portal.token(session._replace(practice_id="prac_2")).split(".")
    for forged in (f"{other[0]}.{seal}", f"{body}.{other[1]}", f"{body}.", body, "", ".", "é.é"):
        assert portal.session(forged) is None
    assert portal.form_token(session) != portal.form_token(session._replace(practice_id="prac_2"))


async def test_the_cookie_is_kept_from_scripts_and_from_other_paths(web: Web) -> None:
    made = (await web.client().post("/v1/portal-sessions")).json()
    answer = await web.client(scopes=()).get(made["url"])
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/portal/"):
        assert part in cookie
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("kind", ["no token", "wrong token", "other site", "foreign token"])
async def test_a_form_of_another_site_does_nothing(visitor: Visitor, kind: str) -> None:
    token = re.findall(r'name="token" value="([0-9a-f]{64})"', await visitor.page())[0]
    fields, headers = {"amount": "30", "token": token}, {}
    if kind == "no token":
        del fields["token"]
    elif kind == "wrong token":
        fields["token"] = token[::-1]
    elif kind == "foreign token":
        other = await enter(visitor.web, "prac_2")
        fields["token"] = re.findall(r'"token" value="([0-9a-f]{64})"', await other.page())[0]
    else:
        headers = {"Sec-Fetch-Site": "cross-site"}
    for path in ("buy", "card", "auto", "purchase/tu_1/close"):
        answer = await visitor.http.post(f"/portal/{path}", data=fields, headers=headers)
        assert answer.status_code == 401, path
    assert visitor.web.gateway.orders == []


async def test_leaving_ends_the_session_and_leads_back(visitor: Visitor) -> None:
    answer = await visitor.http.get("/portal/leave")
    assert answer.headers["location"] == "https://app.example.com/home"
    assert (await visitor.http.get("/portal/")).status_code == 401


async def test_only_a_web_address_leads_back(web: Web) -> None:
    for bad in ("javascript:alert(1)", "//evil.example", "data:text/html,x"):
        answer = await web.client().post("/v1/portal-sessions", json={"return_url": bad})
        assert answer.status_code == 400


# ---------------------------------------------------------------- what it shows


async def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline(visitor: Visitor) -> None:
    for path in ("/portal/", "/portal/purchase/tu_x"):
        answer = await visitor.http.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", answer.text)
        for address in re.findall(r'(?:src|href)="([^"#?]+)"', answer.text):
            assert not re.match(r"[a-z]+:|//", address)
    for name in ("portal.css", "portal.js", "icon.svg"):
        assert (await visitor.http.get(f"/portal/static/{name}")).status_code == 200
    for name in ("demo.js", "../portal.py", "%2e%2e%2fapp.py"):
        assert (await visitor.http.get(f"/portal/static/{name}")).status_code == 404


async def test_it_shows_balance_usage_and_payments_of_its_practice_alone(visitor: Visitor) -> None:
    credit = visitor.web.services.guthaben
    visitor.web.give(1_234_560_000_000)
    credit.grant("prac_2", 777_000_000_000, key="theirs")
    credit.record_usage("prac_1", 4_560_000_000, key="u1", model="gpt-4o-mini")
    credit.record_usage("prac_1", 440_000_000, key="u2", model="<b>bold</b>")
    await visitor.send("buy", amount="30")
    page = (await visitor.page()).replace("&#39;", "'")
    assert "1'229.56" in page
    assert "4.5600" in page
    assert "gpt-4o-mini" in page
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert "777" not in page
    assert "offen" in page
    assert "cs_" not in page


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_language_fills_every_page(web: Web, language: str) -> None:
    visitor = await enter(web, language=language)
    web.switch_on()
    page = await visitor.page()
    assert f'<html lang="{language}-CH">' in page
    answer = await visitor.send("auto", enabled="1", amount="60", trigger="20", cap="600")
    assert answer.status_code == 200
    assert 'name="agreed"' in answer.text
    assert (await visitor.http.get("/portal/purchase/tu_x")).status_code == 404


async def test_the_language_is_changed_by_a_link(visitor: Visitor) -> None:
    assert "KI-Guthaben" in await visitor.page()
    assert "Credito IA" in await visitor.page("/portal/?lang=it")
    assert "Credito IA" in await visitor.page()
    assert "Credito IA" in await visitor.page("/portal/?lang=xx")
    assert (await visitor.send("buy", amount="30")).status_code == 303, "its forms still count"
    assert visitor.web.gateway.orders[0].locale == "it"


async def test_without_a_provider_the_page_only_shows(tmp_path) -> None:
    from guthaben.web.app import create_app
    from guthaben.web.deps import Services

    services = Services.open(f"sqlite:///{tmp_path / 'bare.db'}")
    async with services:
        transport = httpx.ASGITransport(create_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            token = services.portal.link("prac_1", actor="k", language="en")
            assert (await http.get(f"/portal/enter?t={token}")).status_code == 303
            page = (await http.get("/portal/")).text
            assert "Purchases are switched off" in page
            assert "<form" not in page
            assert (await http.get("/portal/purchase/tu_1")).status_code == 404


# ---------------------------------------------------------------- what its forms do


async def test_buying_leads_to_the_page_and_back_to_the_purchase(visitor: Visitor) -> None:
    answer = await visitor.send("buy", amount="1'234.55", save_card="1")
    assert (answer.status_code, answer.headers["location"]) == (303, "https://pay.example.com/1")
    (order,) = visitor.web.gateway.orders
    assert (order.amount_rappen, order.locale, order.save_payment_method) == (123_455, "de", True)
    topup_id = order.client_reference_id
    assert order.success_url == f"{HOME}purchase/{topup_id}"
    assert order.cancel_url == f"{HOME}purchase/{topup_id}?back=1"


@pytest.mark.parametrize("amount", ["9.99", "5000.01", "", "abc", "-30", "1e3", "30.005", "٣٠"])
async def test_a_bad_amount_is_told_and_kept_in_the_field(visitor: Visitor, amount: str) -> None:
    answer = await visitor.send("buy", amount=amount)
    assert answer.status_code == 400
    assert "Ein Kauf kostet 10.00 bis 5000.00 CHF" in answer.text
    assert visitor.web.gateway.orders == []


async def test_the_automatic_top_up_asks_for_consent_to_its_very_numbers(visitor: Visitor) -> None:
    web = visitor.web
    web.save_card()
    wish = {"enabled": "1", "amount": "60", "below": "2.50", "cap": "600"}
    asked = await visitor.send("auto", **wish)
    assert asked.status_code == 200
    for part in ("CHF 60.00", "USD 2.50", "je Kalendermonat höchstens CHF 600.00"):
        assert part in asked.text
    topups = web.services.payments.topups
    assert not topups.settings("prac_1").enabled
    agreed = await visitor.send("auto", **wish, agreed="1")
    assert (agreed.status_code, agreed.headers["location"]) == (303, "./?done=auto_on")
    view = topups.settings("prac_1")
    assert (view.enabled, view.amount_rappen, view.cap_rappen) == (True, 6_000, 60_000)
    assert view.trigger_below_nano_usd == 2_500_000_000
    # Less needs no new consent, more does, and off is off at once.
    assert (await visitor.send("auto", **{**wish, "cap": "300"})).status_code == 303
    assert "agreed" in (await visitor.send("auto", **{**wish, "cap": "900"})).text
    assert (await visitor.send("auto", enabled="0")).headers["location"] == "./?done=auto_off"
    assert not topups.settings("prac_1").enabled


async def test_the_consent_names_who_gave_it(visitor: Visitor) -> None:
    visitor.web.save_card()
    wish = {"enabled": "1", "amount": "60", "below": "2", "cap": "600", "agreed": "1"}
    await visitor.send("auto", **wish)

    def look(cursor):
        return cursor.execute("SELECT language, actor FROM credit_consent").fetchall()

    ((language, actor),) = visitor.web.services.core.store.read(look)
    assert language == "de"
    assert actor.startswith("gh_test_")


# ---------------------------------------------------------------- the page of a purchase


async def test_it_needs_no_session_refreshes_itself_and_credits_nothing(visitor: Visitor) -> None:
    await visitor.send("buy", amount="30")
    topup_id = visitor.web.gateway.orders[0].client_reference_id
    stranger = visitor.web.client(scopes=())
    before = visitor.web.seq()
    answer = await stranger.get(f"/portal/purchase/{topup_id}", headers={"Accept-Language": "it"})
    assert 'data-state="open"' in answer.text
    assert "Non ancora pagato" in answer.text
    assert "Annulla questo acquisto" not in answer.text, "a stranger can't give it up"
    assert answer.headers["refresh"] == "2; url=?look=1&lang=it"
    assert visitor.web.seq() == before
    last = await stranger.get(f"/portal/purchase/{topup_id}?look=40")
    assert "refresh" not in last.headers, "it doesn't go on for ever"
    back = await visitor.http.get(f"/portal/purchase/{topup_id}?back=1")
    assert 'data-state="turned_back"' in back.text


async def test_its_practice_can_give_a_purchase_up(visitor: Visitor) -> None:
    await visitor.send("buy", amount="30")
    topup_id = visitor.web.gateway.orders[0].client_reference_id
    other = await enter(visitor.web, "prac_2")
    await other.send(f"purchase/{topup_id}/close")
    assert 'data-state="open"' in await visitor.page(f"/portal/purchase/{topup_id}")
    assert (await visitor.send(f"purchase/{topup_id}/close")).status_code == 303
    assert 'data-state="closed"' in await visitor.page(f"/portal/purchase/{topup_id}")


async def test_the_server_closes_pages_as_a_job(web: Web) -> None:
    assert isinstance(web.services.payments.closer, PageCloser)
    services = web.services
    jobs = background.jobs(services.guthaben, services.payments, services.dispatcher)
    assert "close_pages" in {job.name for job in jobs}


# ---------------------------------------------------------------- the API beside it


@pytest.mark.parametrize(
    ("language", "title"),
    [
        ("de-CH,de;q=0.9", "Der Betrag ist ungültig"),
        ("fr", "Le montant n'est pas valable"),
        ("it", "L'importo non è valido"),
        ("en", "Not an exact amount in range"),
        ("es", "Not an exact amount in range"),
    ],
)
async def test_a_refusal_speaks_the_language_that_is_asked_for(
    web: Web, language: str, title: str
) -> None:
    headers = {"Accept-Language": language}
    answer = await web.client().post("/v1/topups", json={"amount_chf": "1"}, headers=headers)
    found = answer.json()
    assert (found["title"], found["code"], found["field"]) == (
        title, "invalid_amount", "amount_chf",
    )  # fmt: skip
    assert "10.00" in found["detail"]
    assert "5000.00" in found["detail"]
    assert answer.headers["content-language"] == (language[:2] if language != "es" else "en")


async def test_a_refusal_speaks_the_practices_language_where_none_is_asked_for(web: Web) -> None:
    client = web.client()
    assert (await client.get("/v1/language")).json() == {"language": "de"}
    nothing_chosen = await client.put("/v1/auto-topup", json={"enabled": True})
    assert nothing_chosen.json()["title"] == "Save a card first"
    assert (await client.put("/v1/language", json={"language": "fr"})).status_code == 200
    chosen = await client.put("/v1/auto-topup", json={"enabled": True})
    assert chosen.json()["title"] == "Aucune carte n'est enregistrée"
    assert chosen.json()["code"] == "no_payment_method"
    other = await web.client("prac_2").put("/v1/auto-topup", json={"enabled": True})
    assert other.json()["title"] == "Save a card first"


async def test_usage_is_told_by_day_and_model(web: Web) -> None:
    web.give(10_000_000_000)
    for number, (model, cost) in enumerate([("a", 5), ("b", 70), ("a", 6)]):
        web.services.guthaben.record_usage("prac_1", cost * 10**9, key=str(number), model=model)
    found = (await web.client().get("/v1/usage")).json()
    assert [(m["name"], m["calls"], m["cost_usd"]) for m in found["models"]] == [
        ("b", 1, "70.00"), ("a", 2, "11.00"),
    ]  # fmt: skip
    assert [day["cost_usd"] for day in found["days"]] == ["81.00"]
    assert (found["calls"], found["cost_usd"], found["cut"]) == (3, "81.00", False)
