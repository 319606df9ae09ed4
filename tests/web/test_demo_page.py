"""The demo's page: its session counts for its own page on this machine, and for nobody else."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from guthaben.demo import PRACTICE, prepare
from guthaben.errors import InvalidInput
from guthaben.web.demo_outbox import add_demo_outbox
from guthaben.web.demo_page import add_demo_page
from tests.web.conftest import Web

HOME = "http://127.0.0.1:8000"


class Visitor:
    """A browser that has seen the page."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self.client = client
        self.token = token

    async def change(self, **headers: str) -> httpx.Response:
        body = {"amount_usd": "0.25", "key": "k"}
        headers = {"X-CSRF-Token": self.token, "Origin": HOME, **headers}
        headers = {name: value for name, value in headers.items() if value != "-"}
        return await self.client.post("/v1/reservations", json=body, headers=headers)


@pytest.fixture
async def visitor(open_web: Callable[..., Web]):
    web = open_web()
    add_demo_page(web.app, web.services, "prac_demo", HOME)
    add_demo_outbox(web.app, web.services, "prac_demo", HOME)
    async with web.services:
        web.give(1_000_000_000, "prac_demo")
        transport = httpx.ASGITransport(web.app)
        async with httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            page = await client.get("/")
            assert page.status_code == 200
            (token,) = re.findall(r'name="csrf-token" content="([^"]+)"', page.text)
            yield Visitor(client, token)


async def test_the_page_may_do_what_it_shows(visitor: Visitor) -> None:
    assert (await visitor.client.get("/v1/balance")).json()["practice_id"] == "prac_demo"
    assert (await visitor.change()).status_code == 201
    assert (await visitor.change(Origin="-")).status_code == 200
    assert (await visitor.change(Origin="http://localhost:8000")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": "-"},
        {"X-CSRF-Token": "wrong"},
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example.com"},
        {"Host": "127.0.0.1:9000"},
        {"Cookie": "guthaben_demo_8000=wrong"},
    ],
    ids=str,
)
async def test_nobody_else_may(visitor: Visitor, headers: dict[str, str]) -> None:
    answer = await visitor.change(**headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert (await visitor.client.get("/v1/calls")).json()["calls"] == []


async def test_another_host_sees_neither_page_nor_data(visitor: Visitor) -> None:
    for path in ("/", "/v1/balance"):
        answer = await visitor.client.get(path, headers={"Host": "evil.example.com"})
        assert answer.status_code in {401, 421}
        assert "set-cookie" not in answer.headers


async def test_a_key_counts_more_than_the_session(visitor: Visitor) -> None:
    headers = {"Authorization": "Bearer gh_live_wrong"}
    assert (await visitor.client.get("/v1/balance", headers=headers)).status_code == 401
    other = {"X-Practice-Id": "prac_1"}
    assert (await visitor.client.get("/v1/balance", headers=other)).status_code == 403


async def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(
    visitor: Visitor,
) -> None:
    page = await visitor.client.get("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", page.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/")
        found = await visitor.client.get(address)
        assert found.status_code == (303 if address == "/demo/portal" else 200)
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


async def test_without_the_demo_there_is_no_page(web: Web) -> None:
    client = web.client(scopes=())
    assert (await client.get("/")).status_code == 404
    assert (await client.get("/static/demo.css")).status_code == 404
    assert web.services.access.session is None


async def test_the_outbox_shows_e_mails_instead_of_sending_them(web: Web) -> None:
    from guthaben.services.notices import Notice, tell

    add_demo_outbox(web.app, web.services, "prac_1", "http://127.0.0.1:8000")
    store = web.services.core.store
    store.run(lambda space: tell(space, "prac_1", Notice.EMPTY, "a", {"debt_nano_usd": 0}))
    store.run(
        lambda space: tell(space, "prac_2", Notice.DISPUTE_OPENED, "b", {"price_rappen": 2027})
    )
    client = web.client(scopes=())
    headers = {"Host": "127.0.0.1:8000"}
    german = await client.get("/outbox", headers=headers)
    assert "Ihr KI-Guthaben ist aufgebraucht" in german.text
    assert "20.27" not in german.text, "another practice's are not shown"
    french = await client.get("/outbox", params={"language": "fr"}, headers=headers)
    assert "est épuisé" in french.text
    assert (await client.get("/outbox", headers={"Host": "evil.example"})).status_code == 403


async def test_the_demos_practice_is_one_of_test_mode(web: Web, tmp_path: Path) -> None:
    """No real money stands behind it; the card that it saves is one of test mode, and is found."""
    prepare(web.services, tmp_path)
    listed = await web.client(None, ("admin",)).get("/v1/admin/practices")
    modes = {row["practice_id"]: row["mode"] for row in listed.json()["practices"]}
    assert modes[PRACTICE] == "test"
    web.save_card(PRACTICE)
    assert web.services.payments.topups.settings(PRACTICE).card_saved
    web.services.guthaben.set_policy(PRACTICE, mode="live")
    assert not web.services.payments.topups.settings(PRACTICE).card_saved
    with pytest.raises(InvalidInput, match="live or test"):
        web.services.guthaben.set_policy(PRACTICE, mode="demo")  # type: ignore[arg-type]
