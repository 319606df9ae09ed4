"""A call that is refused for lack of credit claims a top-up, whichever door it came through.

The claim is committed with the refusal: when the answer arrives, the attempt is on record.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from guthaben import AsyncGuthaben, InsufficientCredit
from guthaben.openai import wrap
from guthaben.payments.gateway import ChargeOrder
from guthaben.services.request_bounds import DEFAULT_OUTPUT_TOKENS
from guthaben.services.topup_settings import AutoTopupChange
from guthaben.store import settings
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace
from tests.databases import File
from tests.gateway.served import MODEL, PRACTICE, Served
from tests.services.fakes import FakeGateway

USD = 1_000_000_000
MESSAGES = [{"role": "user", "content": "hi"}]


class House:
    """Every door of one server, and a provider that charges saved cards."""

    def __init__(self, folder: Path, wait_s: float = 0) -> None:
        self.provider = FakeGateway(File(folder / "gateway.db"))
        self.allowed = threading.Event()
        """While it is not set no charge comes to its end."""
        self.provider.during = self._held_up
        payments = {"gateway": self.provider, "livemode": True, "topup_wait_s": wait_s,
                    "charges_allowed": lambda: True}  # fmt: skip
        self.served = Served(folder, {}, payments)
        self.key = self.served.key()

    def _held_up(self, _order: ChargeOrder) -> None:
        self.allowed.wait(10)

    def arm(self, trigger_nano_usd: int = 0) -> None:
        """Switch the top-up on; with 0 for refused calls only: no balance is below the trigger."""

        def card(space: Workspace) -> None:
            number, mode = space.practice_no(PRACTICE), space.practice(PRACTICE).mode
            row = TopupSettingsRow(customer_id="cus_1", payment_method_id="pm_1")
            settings.save_settings(space.cursor, number, mode, row, space.now_s)

        self.served.credit.core.store.run(card)
        topups = self.served.services.payments.topups
        topups.change_settings(
            PRACTICE,
            AutoTopupChange(
                True, trigger_below_nano_usd=trigger_nano_usd, consent_text_version="2026-11"
            ),
        )

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Ask the server."""
        headers = {"Authorization": f"Bearer {self.key}", "X-Cycles-API-Key": self.key}
        url = f"{self.served.gateway.url}{path}"
        return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=20)

    def attempts(self) -> list[str]:
        """The attempts on record."""
        return [topup.status for topup in self.served.credit.topups(PRACTICE)]

    def close(self) -> None:
        self.allowed.set()
        self.served.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Open houses; each is armed and closed."""
    houses: list[House] = []

    def make(wait_s: float = 0) -> House:
        houses.append(House(tmp_path, wait_s))
        houses[-1].arm()
        return houses[-1]

    yield make
    for house in houses:
        house.close()


def lease(key: str, microcents: int, **more: Any) -> dict[str, Any]:
    """Write what a client of the Cycles protocol asks for."""
    return {
        "idempotency_key": key,
        "subject": {"tenant": PRACTICE, "agent": "bot"},
        "action": {"kind": "llm.completion", "name": "gpt-4o-mini"},
        "estimate": {"unit": "USD_MICROCENTS", "amount": microcents},
        **more,
    }


def chat(house: House) -> httpx.Response:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 1_000}
    return house.post("/openai/v1/chat/completions", body)


def endless_chat(house: House) -> httpx.Response:
    return house.post("/openai/v1/chat/completions", {"model": MODEL, "messages": MESSAGES})


def wrapped(house: House) -> None:
    client = wrap(house.served.client(house.served.key("prac_free")), house.served.credit, PRACTICE)
    client.chat.completions.create(model=MODEL, messages=MESSAGES)


def wrapped_async(house: House) -> None:
    async def work() -> None:
        credit = AsyncGuthaben(house.served.credit.core)
        async with house.served.async_client(house.served.key("prac_free")) as bare:
            client = wrap(bare, credit, PRACTICE)
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)

    asyncio.run(work())


def own(house: House) -> httpx.Response:
    return house.post("/v1/reservations", {"amount_usd": "0.5", "key": "k"})


def cycles(house: House) -> httpx.Response:
    return house.post("/cycles/v1/reservations", lease("k", 50_000_000))


def in_debt(house: House) -> httpx.Response:
    house.served.credit.record_usage(PRACTICE, USD, key="spent")
    assert house.attempts() == []
    return house.post("/cycles/v1/reservations", lease("k", 1))


def event(house: House) -> httpx.Response:
    body = lease("k", 0, overage_policy="REJECT")
    body["actual"] = {**body.pop("estimate"), "amount": 50_000_000}
    return house.post("/cycles/v1/events", body)


def commit(house: House) -> httpx.Response:
    """A lease whose cost would go beyond what the practice may owe."""
    house.served.credit.grant(PRACTICE, USD // 10, key="a tenth")
    house.served.credit.set_policy(PRACTICE, overdraft_limit_nano_usd=USD)
    asked = lease("k", 10_000_000, overage_policy="ALLOW_WITH_OVERDRAFT")
    made = house.post("/cycles/v1/reservations", asked)
    path = f"/cycles/v1/reservations/{made.json()['reservation_id']}/commit"
    actual = {"unit": "USD_MICROCENTS", "amount": 210_000_000}
    return house.post(path, {"idempotency_key": "c", "actual": actual})


@pytest.mark.parametrize(
    ("door", "status"),
    [(chat, 402), (endless_chat, 402), (own, 402), (cycles, 409), (in_debt, 409), (event, 409),
     (commit, 409)],
)  # fmt: skip
def test_a_refusal_claims_a_topup(
    opened: Callable[..., House], door: Callable[[House], httpx.Response], status: int
) -> None:
    house = opened()
    refused = door(house)
    assert refused.status_code == status, refused.text
    assert house.attempts() == ["pending"]


@pytest.mark.parametrize("door", [chat, endless_chat, own, cycles, in_debt, event])
def test_the_call_goes_on_where_credit_comes_in_time(
    opened: Callable[..., House], door: Callable[[House], httpx.Response]
) -> None:
    house = opened(wait_s=10)
    house.allowed.set()
    passed = door(house)
    assert passed.status_code in (200, 201), passed.text
    assert house.attempts() == ["succeeded"]
    assert len(house.provider.charges) == 1


ENDLESS = [endless_chat, wrapped, wrapped_async]


@pytest.mark.parametrize("door", ENDLESS)
def test_credit_that_came_in_time_makes_room_for_the_longest_answer(
    opened: Callable[..., House], door: Callable[[House], object]
) -> None:
    """What was asked for last, the shortest answer, is not what is asked for then."""
    house = opened(wait_s=10)
    house.served.give(10 * USD, "prac_free")
    house.allowed.set()
    door(house)
    limits = {seen["body"]["max_completion_tokens"] for seen in house.served.provider.seen}
    assert limits == {DEFAULT_OUTPUT_TOKENS}
    assert house.attempts() == ["succeeded"]


@pytest.mark.parametrize("door", ENDLESS)
@pytest.mark.parametrize(("trigger_nano_usd", "charged"), [(0, []), (USD, ["pending"])])
def test_an_answer_that_is_shortened_charges_only_who_is_low(
    opened: Callable[..., House], door: Callable[[House], object], trigger_nano_usd: int,
    charged: list[str],
) -> None:  # fmt: skip
    """The longest answer is refused inside, and a shorter one passes: nothing was lacking."""
    house = opened()
    house.arm(trigger_nano_usd)
    house.served.give(USD // 1_000)
    house.served.give(10 * USD, "prac_free")
    door(house)
    call = house.served.settled()
    assert (call.status, call.reserved_nano_usd <= USD // 1_000) == ("settled", True)
    assert house.attempts() == charged


@pytest.mark.parametrize("door", ENDLESS[1:])
def test_what_is_refused_for_good_claims_a_topup_through_a_wrapped_client(
    opened: Callable[..., House], door: Callable[[House], object]
) -> None:
    house = opened()
    with pytest.raises(InsufficientCredit):
        door(house)
    assert house.attempts() == ["pending"]


def test_nobody_waits_longer_than_agreed(opened: Callable[..., House]) -> None:
    house = opened(wait_s=0.05)
    assert chat(house).status_code == 402
    assert house.attempts() == ["pending"]
