"""The published client against our server, unchanged, over a real socket that loses answers."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from runcycles import (
    Action,
    Amount,
    AsyncCyclesClient,
    BudgetExceededError,
    CyclesClient,
    CyclesConfig,
    CyclesProtocolError,
    OverdraftLimitExceededError,
    cycles,
    get_cycles_context,
)
from runcycles.models import (
    BalanceResponse,
    CommitResponse,
    DecisionResponse,
    EventCreateResponse,
    ReleaseResponse,
    ReservationCreateResponse,
    ReservationDetail,
    ReservationExtendResponse,
    ReservationListResponse,
)

from tests.cycles.conftest import TENANT, Server, planned, told, usd
from tests.cycles.sockets import Wire, listening, until


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """Serve with credit for a while."""
    server.fund(1_000_000)
    with listening(server.app) as opened:
        yield opened


def config(wire: Wire, key: str, folder: Path) -> CyclesConfig:
    return CyclesConfig(
        base_url=f"http://127.0.0.1:{wire.port}/cycles",
        api_key=key,
        tenant=TENANT,
        agent="bot",
        retry_initial_delay=0.01,
        retry_max_delay=0.05,
        journal_dir=str(folder / "journal"),
    )


@pytest.fixture
def client(wire: Wire, server: Server, tmp_path: Path) -> Iterator[CyclesClient]:
    """Connect the published client."""
    with CyclesClient(config(wire, server.key(), tmp_path)) as made:
        yield made


def read(model: Any, answer: Any, status: int = 200) -> Any:
    """Read an answer with the client's own model, strictly."""
    assert answer.status == status, answer
    return model.model_validate(answer.body)


def test_every_method_of_the_client(client: CyclesClient, server: Server) -> None:
    made = read(ReservationCreateResponse, client.create_reservation(planned("a", 5_000)))
    assert made.is_allowed()
    name = made.reservation_id
    more = {"idempotency_key": "e", "extend_by_ms": 1_000}
    extended = read(ReservationExtendResponse, client.extend_reservation(name, more))
    assert extended.expires_at_ms == made.expires_at_ms + 1_000
    found = read(ReservationDetail, client.get_reservation(name))
    assert found.reserved.amount == 5_000
    commit = {"idempotency_key": "c", "actual": usd(4_000)}
    done = read(CommitResponse, client.commit_reservation(name, commit))
    assert (done.charged.amount, done.released.amount) == (4_000, 1_000)
    other = read(ReservationCreateResponse, client.create_reservation(planned("b", 10)))
    key = {"idempotency_key": "r"}
    gone = client.release_reservation(other.reservation_id, key)
    assert read(ReleaseResponse, gone).released.amount == 10
    assert read(DecisionResponse, client.decide(planned("d", 10))).is_allowed()
    assert not read(DecisionResponse, client.decide(planned("D", 10**9))).is_allowed()
    assert read(EventCreateResponse, client.create_event(told("v", 1_000)), 201).event_id
    (row,) = read(BalanceResponse, client.get_balances(tenant=TENANT)).balances
    assert row.remaining.amount == 1_000_000 - 5_000
    # Its model of a row knows fewer fields than the file demands, so the rows are read as they are.
    listed = client.list_reservations(status="COMMITTED")
    assert [row["reservation_id"] for row in listed.body["reservations"]] == [name]
    assert read(ReservationListResponse, client.list_reservations(agent="x")).reservations == []
    # Of errors too: the file demands a trace_id, of which its model does not know.
    assert client.get_reservation("rsv_x").get_body_attribute("error") == "NOT_FOUND"


@pytest.mark.parametrize("lost", [[], ["/v1/reservations "], ["/commit"], ["/commit"] * 3,
                                  ["/v1/reservations ", "/commit"]])  # fmt: skip
def test_a_decorated_call_is_charged_once_whatever_gets_lost(
    client: CyclesClient, server: Server, wire: Wire, tmp_path: Path, lost: list[str]
) -> None:
    wire.to_lose = list(lost)
    ran = []

    @cycles(estimate=10_000, actual=len, action_kind="llm.completion", client=client)
    def ask(prompt: str) -> str:
        context = get_cycles_context()
        assert context is not None
        assert context.reservation_id.startswith("rsv_")
        ran.append(prompt)
        return prompt * 100

    ask("hello")
    until(lambda: not wire.to_lose and not list((tmp_path / "journal").rglob("*.json")))
    assert (len(ran), wire.lost) == (1, len(lost))
    (call,) = server.guthaben.calls(TENANT)
    assert (call.status, call.cost_nano_usd) == ("settled", 500 * 10)
    assert server.guthaben.balance(TENANT).available_nano_usd == (1_000_000 - 500) * 10


def test_a_failure_releases(client: CyclesClient, server: Server) -> None:
    @cycles(estimate=10_000, client=client)
    def broken() -> None:
        raise ValueError("the model broke")

    with pytest.raises(ValueError, match="the model broke"):
        broken()
    (call,) = server.guthaben.calls(TENANT)
    assert call.status == "released"


def test_too_late_a_commit_becomes_an_event(client: CyclesClient, server: Server) -> None:
    @cycles(estimate=10_000, actual=7_000, ttl_ms=60_000, client=client)
    def slow() -> str:
        server.clock.now_ms += 3_600_000
        return "at last"

    assert slow() == "at last"
    until(lambda: len(server.guthaben.calls(TENANT)) == 2)
    event, reservation = server.guthaben.calls(TENANT)
    assert server.guthaben.balance(TENANT).available_nano_usd == (1_000_000 - 7_000) * 10
    assert (event.status, event.cost_nano_usd) == ("settled", 70_000)
    assert reservation.cost_nano_usd == 0


def test_refusals_are_the_clients_own_errors(client: CyclesClient, server: Server) -> None:
    @cycles(estimate=2_000_000, client=client)
    def dear() -> None:
        raise AssertionError("it must not run")

    with pytest.raises(BudgetExceededError):
        dear()
    client.create_event(told("all", 2_000_000))
    with pytest.raises(OverdraftLimitExceededError):
        dear()


def test_a_stream_is_metered(client: CyclesClient, server: Server) -> None:
    action = Action(kind="llm.completion", name="gpt-4o-mini")
    estimate = Amount(unit="USD_MICROCENTS", amount=9_000)
    with client.stream_reservation(action=action, estimate=estimate) as stream:
        stream.usage.add_input_tokens(10)
        stream.usage.set_actual_cost(4_321)
    until(lambda: server.guthaben.balance(TENANT).held_nano_usd == 0)
    (call,) = server.guthaben.calls(TENANT)
    assert (call.cost_nano_usd, call.input_tokens) == (43_210, 10)


@pytest.fixture
async def quick(wire: Wire, server: Server, tmp_path: Path) -> AsyncIterator[AsyncCyclesClient]:
    """Connect the published asynchronous client."""
    async with AsyncCyclesClient(config(wire, server.key(), tmp_path)) as made:
        yield made


async def test_the_asynchronous_client_too(quick: AsyncCyclesClient, server: Server) -> None:
    @cycles(estimate=10_000, actual=1_234, client=quick)
    async def ask() -> str:
        return "yes"

    assert await ask() == "yes"
    until(lambda: server.guthaben.balance(TENANT).held_nano_usd == 0)
    (call,) = server.guthaben.calls(TENANT)
    assert call.cost_nano_usd == 12_340
    dry = await quick.create_reservation(planned("dry", dry_run=True))
    assert read(ReservationCreateResponse, dry).is_allowed()


def test_a_wrong_key_is_the_clients_own_error(wire: Wire, server: Server, tmp_path: Path) -> None:
    with CyclesClient(config(wire, "gh_live_x", tmp_path)) as stranger:

        @cycles(estimate=1, client=stranger)
        def never() -> None:
            raise AssertionError("it must not run")

        with pytest.raises(CyclesProtocolError):
            never()
