"""How PostgreSQL answers the statements of the hot path: by an index, one practice per row.

The statements are those that the store really sends, recorded on the wire; the tables hold enough
for the planner to prefer an index where there is one that fits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from guthaben.domain.calls import NO_ORIGIN, Told
from guthaben.domain.caps import Cap
from guthaben.domain.commands import (
    ClaimTopup,
    Extend,
    LeaseAsk,
    LeaseCommit,
    LeaseExtend,
    LeaseRelease,
    Outcome,
    RecordUsage,
    Release,
    Reserve,
    Settle,
    StepKind,
)
from guthaben.store import caps, queries
from guthaben.store.postgres import PostgresCursor, connect
from guthaben.store.postgres_session import LEAN
from guthaben.store.postgres_wire import Wire, written
from guthaben.store.postgres_writing import numbered
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests import postgres
from tests.store.bank import T0_S, Clock, pay

pytestmark = pytest.mark.cut

KEYED = {
    "credit_call": ("call_no", "key", "expires_at_ms"),
    "credit_transfer": ("seq",),
    "credit_cycles_step": ("key",),
    "credit_cycles_call": ("call_no",),
    "credit_cap_counter": ("subject",),
}
"""Big tables of a practice: an index must narrow them down further than to the practice."""

_FILL = """
INSERT INTO credit_practice (practice_id, head)
    SELECT 'other' || n, decode(repeat('00', 32), 'hex') FROM generate_series(1, 2000) n;
INSERT INTO credit_call (practice_no, call_no, operation, key, body_hash, status, ended_by,
    created_at_ms, expires_at_ms, reserved_nano_usd, cost_nano_usd, license, period_start_s, slices,
    on_expiry, on_exception, grace_ms, overage_policy, ended_at_s, first_seq, input_tokens,
    output_tokens, total_tokens, audio_us)
    SELECT practice_no, 1000 + n, 1, 'k' || n, 0, CASE WHEN n = 1 THEN 1 ELSE 2 END, 1, 1, 1, 1, 1,
    '', 0, '', 1, 1, 0, 0, 1, 1, 0, 0, 0, 0
    FROM credit_practice, generate_series(1, 5) n;
INSERT INTO credit_transfer (practice_no, seq, source, target, amount_nano_usd, grant_no, call_no,
    event_no, code, reverses_seq, at_s, hash)
    SELECT practice_no, 1000 + n, 1, 2, 1, 1, 1, 0, 1, 0, 1, decode(repeat('00', 32), 'hex')
    FROM credit_practice, generate_series(1, 5) n;
INSERT INTO credit_grant (practice_no, grant_no, kind, free_nano_usd, held_nano_usd,
    granted_nano_usd, expires_at_s, license, period_start_s, period_end_s, provisional,
    period_used_nano_usd, event_no, created_at_s, is_open)
    SELECT practice_no, 1000 + n, 3, n / 4, 0, 1, 1, '', 0, 0, 0, 0, 0, 1, n / 4
    FROM credit_practice, generate_series(1, 4) n;
INSERT INTO credit_cap_counter SELECT practice_no, 'key:' || n, '2023-11', 1
    FROM credit_practice, generate_series(1, 5) n;
INSERT INTO credit_cycles_step SELECT practice_no, 2, 'k' || n, 0, 1000 + n, 1, 0, ''
    FROM credit_practice, generate_series(1, 5) n;
ANALYZE;
"""

Said = tuple[str, Sequence[Any]]


@pytest.fixture
def store(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("GUTHABEN_WRITER_LANES", "1")
    opened = Store(postgres.fresh(), clock_ms=clock, on_claim=lambda _name, _outcome: None)
    yield opened
    opened.close()


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Said]:
    """Listen to what writers and readers say."""
    said: list[Said] = []
    send, ask = Wire.send, PostgresCursor.execute

    def listening(self: Wire, sql: str, values: Sequence[Any] = (), **more: bool) -> int:
        said.append((sql, values))
        return send(self, sql, values, **more)

    def asking(self: PostgresCursor, sql: str, values: Sequence[Any] = (), /) -> PostgresCursor:
        said.append((numbered(sql), values))
        return ask(self, sql, values)

    monkeypatch.setattr(Wire, "send", listening)
    monkeypatch.setattr(PostgresCursor, "execute", asking)
    return said


def set_up(store: Store) -> None:
    """Two practices with everything that the hot path may look at."""

    def work(space: Workspace) -> None:
        for name in ("p", "q"):
            number = space.practice(name).practice_no
            caps.put(space.cursor, number, Cap("key:k1", 10**12, 10**12), T0_S)
            space.cursor.execute(
                "INSERT INTO credit_topup_settings (practice_no, enabled, amount_minor,"
                " credit_nano_usd, trigger_percent, cap_minor, updated_at_s, need_no)"
                " VALUES (?, 1, 3000, 10, 5, 9000, 1, 1)",
                (number,),
            )
            space.cursor.execute(
                "INSERT INTO credit_provider_customer VALUES (?, 'stripe', 1, 'cus', 'pm', 1)",
                (number,),
            )
            space.cursor.execute(
                "UPDATE credit_practice SET auto_topup_armed = 1 WHERE practice_no = ?", (number,)
            )

    for name in ("p", "q"):
        pay(store, name, 10**9)
    store.run(work)
    with connect(store.url) as con:
        for statement in _FILL.split(";\n"):
            con.execute(statement.encode())


def hot_path(store: Store, clock: Clock) -> None:
    """Everything that comes with every call, alone and in batches, kept and read anew."""
    origin = NO_ORIGIN._replace(api_key_id="k1")
    commit = store._writers[0]._transaction

    def batch(asked: Callable[[str, str], list[Any]], tag: str) -> list[Outcome]:
        every = [(name, one) for name in ("p", "q") for one in asked(name, tag)]

        def work(space: Workspace) -> list[Outcome]:
            space.prepare(every)
            return [space.apply(*one) for one in every]

        answers: list[Outcome] = commit(work)
        assert all(answer.ok for answer in answers), answers
        return answers

    def reserves(_name: str, tag: str) -> list[Any]:
        return [
            Reserve(f"{tag}1", 5),
            Reserve(f"{tag}2", 5, origin=origin),
            Reserve(f"{tag}3", 5, ttl_ms=1000),
            Reserve(f"{tag}4", 5, overage_policy=1, told=Told(*"abcdefghij")),
            Reserve(f"{tag}5", 5, overage_policy=1),
            Reserve(f"{tag}6", 5, overage_policy=1),
            RecordUsage(f"{tag}u", 3),
            RecordUsage(f"{tag}v", 3, origin=origin),
            LeaseAsk(f"{tag}7", int(StepKind.DRY_RUN), 5),
        ]

    for tag in ("a", "b"):
        first = {}
        for name in ("p", "q"):
            answers = [store.execute(name, one) for one in reserves(name, tag)]
            first[name] = [answer.call.call_no for answer in answers if answer.call is not None]

        def ends(name: str, tag: str, first: dict[str, list[int]] = first) -> list[Any]:
            return [
                Extend(first[name][1], 10_000),
                Settle(first[name][0], 4),
                Release(first[name][1]),
                LeaseExtend(f"{tag}8", first[name][3], 60_000),
                LeaseCommit(f"{tag}9", first[name][3], 4),
                LeaseRelease(f"{tag}10", first[name][4]),
            ]

        batch(ends, tag)
        batch(reserves, f"{tag}-together")
        assert store.execute("p", Reserve(f"{tag}1", 5)).replayed
        clock.wait(20_000)
        store.run(lambda space: space.sweep("q"), "q")
        assert store.execute("p", Reserve(f"{tag}-late", 5)).ok  # it sweeps what is due first
    store.execute("p", Reserve("much", 10**12))  # it lacks credit: a top-up is claimed
    store.run(lambda space: space.apply("q", ClaimTopup("tu_1")), "q")
    store.read(lambda cursor: queries.balance(cursor, "p", None, T0_S))


def plan_of(cursor: Any, number: int, said: Said) -> dict[str, Any]:
    """Ask for the generic plan of a statement."""
    sql, values = said
    texts = [written(value)[1] for value in values]
    given = ", ".join("NULL" if text is None else _quoted(text.decode()) for text in texts)
    cursor.execute(f"PREPARE s{number} AS {sql}".encode())
    run = f"s{number}({given})" if texts else f"s{number}"
    (found,) = cursor.execute(f"EXPLAIN (FORMAT JSON) EXECUTE {run}".encode()).fetchone()
    plan = (found if isinstance(found, list) else json.loads(found))[0]["Plan"]
    assert isinstance(plan, dict)
    return plan


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def offences(plan: dict[str, Any]) -> Iterator[str]:
    """Find what would touch other practices, or more of one than is asked for."""
    for node in nodes(plan):
        kind, table = node["Node Type"], node.get("Relation Name", "")
        if kind == "Seq Scan":
            yield f"reads all of {table}"
        if kind in ("Hash Join", "Merge Join"):
            yield f"a {kind}"
        if kind not in ("Index Scan", "Index Only Scan", "Bitmap Index Scan"):
            continue
        index, condition = node["Index Name"], node.get("Index Cond", "")
        if "practice_no" not in condition and "practice_id" not in condition:
            yield f"{index} is not asked for one practice: {condition!r}"
        for big, keys in KEYED.items():
            if index.startswith(f"{big}_") and not any(key in condition for key in keys):
                yield f"{index} is asked for all of a practice: {condition}"


def test_every_statement_of_the_hot_path_reads_by_an_index_and_by_practice(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(store)
    said = recorded(monkeypatch)
    hot_path(store, clock)
    monkeypatch.undo()
    statements = {sql: (sql, values) for sql, values in said if sql.split()[0] in _PLANNED}
    found: list[str] = []
    with connect(store.url) as con:
        for setting in LEAN:
            con.execute(setting.encode())
        for number, one in enumerate(statements.values()):
            found += [f"{what}: {one[0]}" for what in offences(plan_of(con, number, one))]
    assert not found, "\n".join(found)
    touched = " ".join(statements)
    for table in (*KEYED, "credit_practice", "credit_grant", "credit_cap", "credit_topup_settings"):
        assert table in touched, f"the scenario never spoke to {table}"
    assert len(statements) > 40, len(statements)


_PLANNED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


def test_the_reading_of_plans_finds_what_is_wrong(store: Store) -> None:
    set_up(store)
    wrong = {
        "SELECT * FROM credit_call WHERE model = $1": "reads all of credit_call",
        "SELECT * FROM credit_call WHERE practice_no = $1 AND model = 'x'": "all of a practice",
        "SELECT * FROM credit_practice WHERE auto_topup_armed = $1 AND auto_topup_armed = 1": (
            "credit_practice_armed is not asked for one practice"
        ),
    }
    with connect(store.url) as con:
        for setting in LEAN:
            con.execute(setting.encode())
        for number, (sql, what) in enumerate(wrong.items()):
            assert what in "\n".join(offences(plan_of(con, number, (sql, (1,))))), sql
