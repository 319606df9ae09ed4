"""Tariffs: what a practice pays is by its own plan, as it was when the call was reserved."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from guthaben.domain.licences import Item
from guthaben.errors import ConfigError
from guthaben.openai import wrap
from guthaben.services.asynchronous import AsyncGuthaben
from guthaben.services.guthaben import Guthaben
from guthaben.services.plans import PlanBook
from guthaben.services.prices import NOTICE_S
from guthaben.services.tariffs import Tariffs
from guthaben.store import licences
from guthaben.store.session import Cursor
from guthaben.store.workspace import Workspace
from tests.gateway.served import MODEL, Served

USED = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
PLAIN = 150_000_000
"""What the provider takes for it, in nano-USD."""
BASIC, PRO, EVERY = PLAIN * 2, PLAIN * 5 // 4, PLAIN * 3
SIZED: dict[str, Any] = {"model": MODEL, "input_tokens": 1_000_000, "max_output_tokens": 0}
Serve = Callable[..., Served]


def versions(served: Served) -> list[str]:
    """Read the plans that the calls' price versions name, in the order of the calls."""

    def question(cursor: Cursor) -> list[str]:
        rows = cursor.execute("SELECT price_version FROM credit_call ORDER BY practice_no, call_no")
        return [(row[0] or "").partition("+")[2] for row in rows]

    return served.credit.core.ask(question)


class Seconds:
    """A clock of seconds that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def sell(credit: Guthaben) -> None:
    """Two plans with margins of their own, and one for everybody else."""
    plans, prices = PlanBook(credit.core), credit.core.prices
    for lookup_key, allowance, factor in (("basic", 0, "2"), ("pro", 1, "5/4")):
        plans.set(lookup_key, allowance)
        prices.set_margin(lookup_key, factor=factor)
    prices.set_margin("*", factor="3")


def subscribe(
    credit: Guthaben, practice_id: str, plan: str, status: str = "active", name: str = ""
) -> None:
    """Give a practice a subscription, or change the plan of its own."""
    begun_s = credit.core.now_ms() // 1000

    def work(space: Workspace) -> None:
        credit_no = space.practice_no(practice_id)
        items = licences.items_text((Item(plan, 1, begun_s, begun_s + 86_400),))
        licences.save_subscription(
            space.cursor,
            licences.SubscriptionRow(
                credit_no, name or f"sub_{practice_id}", False, "cus", status, items,
                1 << 40, begun_s, False, 1 << 40, 0, False, 1, 0,
            ),
        )  # fmt: skip

    credit.core.store.run(work)


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def served(serve: Serve, seconds: Seconds) -> Served:
    """Three practices with credit: on basic, on pro, and without a licence."""
    made = serve()
    core = made.credit.core
    core.tariffs = Tariffs(core.store, core.prices, clock_s=seconds)
    sell(made.credit)
    for practice_id in ("on-basic", "on-pro", "on-none"):
        made.give(100 * PLAIN, practice_id)
    subscribe(made.credit, "on-basic", "basic")
    subscribe(made.credit, "on-pro", "pro")
    return made


def test_each_practice_pays_its_own_plans_margin(served: Served) -> None:
    credit = served.credit
    for practice_id, cost in (("on-basic", BASIC), ("on-pro", PRO), ("on-none", EVERY)):
        call = credit.reserve(practice_id, **SIZED)
        assert call.reserved_nano_usd == cost
        assert call.settle(USED).cost_nano_usd == cost
        assert credit.reserve(practice_id, 1, model=MODEL).settle(USED).cost_nano_usd == cost
        view = credit.record_usage(practice_id, USED, key="after", model=MODEL)
        assert view.cost_nano_usd == cost
    assert versions(served) == ["basic"] * 3 + ["pro"] * 3 + [""] * 3
    own = credit.record_usage("on-pro", USED, key="own", model=MODEL, plan="basic")
    assert own.cost_nano_usd == BASIC, "the caller's own word stands above"


def test_asyncio_pays_the_same(served: Served) -> None:
    async def cost(practice_id: str) -> int:
        credit = AsyncGuthaben(served.credit.core)
        call = await credit.reserve(practice_id, **SIZED)
        settled = await call.settle(USED)
        after = await credit.record_usage(practice_id, USED, key="a", model=MODEL)
        assert call.reserved_nano_usd == after.cost_nano_usd
        return settled.cost_nano_usd

    assert asyncio.run(cost("on-basic")) == BASIC
    assert asyncio.run(cost("on-pro")) == PRO


def test_the_gateway_and_wrapped_clients_price_by_the_plan(served: Served) -> None:
    said: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
    costs = {}
    for practice_id in ("on-basic", "on-pro"):
        served.client(served.key(practice_id)).chat.completions.create(**said)
        through = served.settled(practice_id=practice_id)
        direct = served.client(served.key(practice_id)).with_options(
            base_url=f"{served.upstream.url}/v1"
        )
        wrap(direct, served.credit, practice_id).chat.completions.create(**said)
        wrapped = served.settled(practice_id=practice_id)
        assert wrapped.cost_nano_usd == through.cost_nano_usd
        assert versions(served)[-2:] == [practice_id[3:]] * 2
        costs[practice_id] = through.cost_nano_usd
    plain = costs["on-basic"] // 2
    assert costs == {"on-basic": plain * 2, "on-pro": -(-plain * 5 // 4)}, "rounded up once"


def test_a_call_keeps_plan_and_prices_of_its_reservation(served: Served, seconds: Seconds) -> None:
    credit = served.credit
    sized, by_amount = credit.reserve("on-pro", **SIZED), credit.reserve("on-pro", 10 * PLAIN)
    subscribe(credit, "on-pro", "basic")
    seconds.now_s += NOTICE_S
    assert credit.reserve("on-pro", **SIZED).reserved_nano_usd == BASIC
    credit.core.prices.set_margin("pro", factor="7")
    for call in (sized, by_amount):
        settled = call.settle(USED, model=MODEL)
        assert settled.cost_nano_usd == PRO
    assert versions(served)[:2] == ["pro", "pro"]


def test_a_stream_at_the_gateway_keeps_its_plan(served: Served, seconds: Seconds) -> None:
    said: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
    stream = served.client(served.key("on-pro")).chat.completions.create(**said, stream=True)
    next(stream)
    subscribe(served.credit, "on-pro", "basic")
    seconds.now_s += NOTICE_S
    assert list(stream)
    assert served.settled(practice_id="on-pro").status == "settled"
    assert versions(served) == ["pro"]


def test_a_plan_is_remembered_for_seconds_and_not_asked_for_again(
    served: Served, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    tariffs, asked = served.credit.core.tariffs, []

    def counting(cursor: Cursor, practice_no: int) -> Any:
        asked.append(practice_no)
        return original(cursor, practice_no)

    original = licences.subscriptions_of
    monkeypatch.setattr(licences, "subscriptions_of", counting)
    assert tariffs.recall("on-pro") is None, "nothing is known yet"
    for _ in range(20):
        assert tariffs.find("on-pro").plan == "pro"
    found = tariffs.recall("on-pro")
    assert found is not None
    assert found.plan == "pro"
    assert len(asked) == 1
    subscribe(served.credit, "on-pro", "basic")
    assert tariffs.find("on-pro").plan == "pro"
    seconds.now_s += NOTICE_S
    assert tariffs.recall("on-pro") is None
    assert tariffs.find("on-pro").plan == "basic"
    assert len(asked) == 2


def test_without_margins_of_plans_no_licence_is_read(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    served.credit.core.prices.set_margin("*", factor="3")
    monkeypatch.setattr(licences, "subscriptions_of", None)
    served.give()
    assert served.credit.reserve("prac_1", **SIZED).settle(USED).cost_nano_usd == EVERY


def test_the_leading_licence_decides_and_one_that_is_over_does_not(
    served: Served, seconds: Seconds
) -> None:
    credit, tariffs = served.credit, served.credit.core.tariffs

    def plan() -> str:
        seconds.now_s += NOTICE_S
        return tariffs.find("on-basic").plan

    subscribe(credit, "on-basic", "pro", name="sub_second")
    assert plan() == "pro", "it includes more"
    subscribe(credit, "on-basic", "pro", status="unpaid", name="sub_second")
    assert plan() == "basic"
    subscribe(credit, "on-basic", "basic", status="canceled")
    assert plan() == ""
    assert tariffs.find("nobody-yet").plan == ""


def test_without_prices_amounts_are_reserved_and_usage_is_refused() -> None:
    with Guthaben.open("sqlite://") as credit:
        credit.grant("p", PLAIN, key="g")
        assert credit.core.tariffs.recall("p") is None
        call = credit.reserve("p", 10)
        found = credit.core.tariffs.recall("p")
        assert found is not None
        assert found.known is None
        with pytest.raises(ConfigError, match="prices import"):
            credit.reserve("p", **SIZED)
        with pytest.raises(ConfigError, match="prices import"):
            call.settle(USED, model=MODEL)
        credit.core.prices.set_rates(MODEL, {"input_mtok": "0.15"}, provider="sandbox")
        assert call.settle(USED, model=MODEL).cost_nano_usd == PLAIN


def told_by_the_host(served: Served, *rows: tuple[str, str, str, str]) -> None:
    """Keep licences in the host's own table: subscription, practice, plan, status."""
    with closing(sqlite3.connect(served.database, timeout=10)) as con, con:
        con.execute(
            "CREATE TABLE IF NOT EXISTS licenses (subscription_id TEXT PRIMARY KEY, customer_id"
            " TEXT, status TEXT, lookup_key TEXT, customer_email TEXT, current_period_end INTEGER,"
            " current_period_start INTEGER, updated_at INTEGER, license_key TEXT, practice_id TEXT)"
        )
        con.executemany(
            "INSERT OR REPLACE INTO licenses (subscription_id, practice_id, lookup_key, status,"
            " current_period_start, current_period_end) VALUES (?, ?, ?, ?, 0, 2000000000)",
            rows,
        )


def test_a_licence_in_the_hosts_own_table_gives_a_plan(served: Served, seconds: Seconds) -> None:
    credit = served.credit
    told_by_the_host(
        served,
        ("sub_h1", "on-none", "pro", "active"),
        ("sub_h2", "on-basic", "pro", "active"),
        ("sub_h3", "over", "pro", "canceled"),
    )
    served.give(100 * PLAIN, "over")
    assert credit.reserve("on-none", **SIZED).reserved_nano_usd == PRO
    assert credit.reserve("on-basic", **SIZED).reserved_nano_usd == BASIC, "the engine's own leads"
    assert credit.reserve("over", **SIZED).reserved_nano_usd == EVERY
    told_by_the_host(served, ("sub_h1", "on-none", "pro", "unpaid"))
    seconds.now_s += NOTICE_S + 1
    assert credit.reserve("on-none", **SIZED).reserved_nano_usd == EVERY
    # A licence of the old application may name no practice: its subscription is one.
    told_by_the_host(served, ("sub_h4", "", "basic", "past_due"))
    served.give(100 * PLAIN, "sub_h4")
    assert credit.reserve("sub_h4", **SIZED).reserved_nano_usd == BASIC
