"""A caller's connection: its transaction, its isolation level and its factories stay its own."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aza_ai_budget as budget
import aza_ai_credit as credit
from guthaben import Guthaben
from guthaben.errors import StoreUnavailable
from tests.modules.host import (
    checkout,
    create_licenses,
    extra,
    ledger,
    license_row,
    payment,
    rows,
    save,
    setup_checkout,
    setup_intent,
    use,
)
from tests.modules.test_budget import gate

Do = Callable[[sqlite3.Connection], Any]

WRITERS: dict[str, Do] = {
    "ensure_ai_budget_schema": budget.ensure_ai_budget_schema,
    "ensure_ai_credit_schema": credit.ensure_ai_credit_schema,
    "insert_usage_event": lambda con: use(con, 1.0),
    "insert_usage_event_blocked": lambda con: use(con, 1.0, status="blocked"),
    "gate": lambda con: (use(con, 30.0), gate(con)),
    "insert_ledger_event": lambda con: ledger(con, 1.0, meta={"a": 1}),
    "insert_ledger_event_refund": lambda con: ledger(con, -1.0, event_type="refund"),
    "save_topup_settings": lambda con: save(con),
    "apply_auto_topup_user_settings": lambda con: credit.apply_auto_topup_user_settings(
        con, practice_id="prac_top", enabled=True, topup_amount_chf=30.0,
        monthly_limit_chf=60.0, consent_text_version="v1",
    ),
    "checkout_completed": lambda con: credit.process_topup_checkout_completed(
        con, session=checkout()
    ),
    "payment_succeeded": lambda con: credit.process_topup_payment_intent_succeeded(
        con, payment_intent=payment()
    ),
    "auto_payment_succeeded": lambda con: credit.process_auto_topup_payment_intent_succeeded(
        con, payment_intent=payment("ai_auto_topup")
    ),
    "setup_checkout": lambda con: credit.process_setup_checkout_completed(
        con, session=setup_checkout()
    ),
    "setup_intent": lambda con: credit.process_setup_intent_succeeded(
        con, setup_intent=setup_intent()
    ),
}  # fmt: skip
READERS: dict[str, Do] = {
    "snapshot": lambda con: budget.compute_budget_snapshot(con, license_row()),
    "check": lambda con: budget.check_allows_openai_call(con, license_row()),
    "extra": extra,
    "exists_checkout": lambda con: credit.ledger_exists_for_checkout(con, "cs_1"),
    "exists_payment": lambda con: credit.ledger_exists_for_payment_intent(con, "pi_1"),
    "history": lambda con: credit.list_user_credit_history(con, practice_id="prac_top"),
    "admin": lambda con: credit.list_ledger_for_practice(con, "prac_top"),
    "settings": lambda con: credit.get_topup_settings(con, "prac_top"),
    "status": lambda con: credit.auto_topup_settings_status(con, practice_id="prac_top"),
    "sum": lambda con: credit.sum_auto_topups_chf_this_month(con, "prac_top"),
    "last": lambda con: credit.last_successful_auto_topup_ts(con, "prac_top"),
    "dry_run": lambda con: credit.maybe_run_auto_topup_for_practice(
        con, practice_id="prac_top", available_percent=0, dry_run=True
    ),
    "pending": lambda con: credit.has_pending_auto_topup(con, "prac_top"),
}
ALL = WRITERS | READERS


def dump(con: sqlite3.Connection) -> str:
    return "\n".join(con.iterdump())


@pytest.mark.parametrize("name", WRITERS)
def test_in_a_callers_transaction_nothing_is_committed(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], name: str
) -> None:
    ledger(con, 5.0)
    save(con)
    before = dump(con)
    con.execute("UPDATE licenses SET updated_at = 7")
    WRITERS[name](con)
    assert con.in_transaction
    assert dump(connect()) == before
    con.rollback()
    assert dump(con) == before


@pytest.mark.parametrize("name", ALL)
def test_without_a_transaction_none_is_left_open(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], name: str
) -> None:
    ledger(con, 5.0)
    save(con)
    ALL[name](con)
    assert not con.in_transaction
    assert dump(con) == dump(connect())


@pytest.mark.parametrize("name", READERS)
def test_readers_write_nothing(con: sqlite3.Connection, name: str) -> None:
    ledger(con, 5.0)
    save(con)
    before = dump(con)
    con.execute("PRAGMA query_only = ON")
    READERS[name](con)
    con.execute("PRAGMA query_only = OFF")
    assert dump(con) == before


@pytest.mark.parametrize("level", [None, "", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_every_isolation_level_works(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], level: str | None
) -> None:
    own = connect(isolation_level=level)
    for do in ALL.values():
        do(own)
        if own.in_transaction:
            own.commit()
    assert own.isolation_level == level


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit came with Python 3.12")
@pytest.mark.parametrize("autocommit", [True, False])
def test_autocommit_works(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection], autocommit: bool
) -> None:
    own = connect(autocommit=autocommit)
    for do in ALL.values():
        do(own)
    assert own.in_transaction is not autocommit
    own.rollback()


def _upper(value: bytes) -> str:
    return value.decode().upper()


@pytest.mark.parametrize("name", ALL)
def test_factories_are_neither_used_nor_changed(con: sqlite3.Connection, name: str) -> None:
    con.row_factory = sqlite3.Row
    con.text_factory = _upper
    ALL[name](con)
    assert con.row_factory is sqlite3.Row
    assert con.text_factory is _upper
    con.row_factory, con.text_factory = None, str
    assert {row["practice_id"] for row in rows(con)} <= {"prac_top"}


def test_pragmas_are_the_callers(path: Path) -> None:
    con = sqlite3.connect(path)
    con.execute("PRAGMA synchronous = NORMAL")
    names = ("journal_mode", "synchronous", "foreign_keys", "legacy_alter_table", "busy_timeout")
    before = [con.execute(f"PRAGMA {name}").fetchone() for name in names]
    create_licenses(con)
    for do in ALL.values():
        do(con)
    assert [con.execute(f"PRAGMA {name}").fetchone() for name in names] == before
    con.close()


def test_a_refusal_inside_a_transaction_undoes_only_itself(con: sqlite3.Connection) -> None:
    ledger(con, 10.0, stripe_payment_intent_id="pi_a")
    con.execute("BEGIN")
    ledger(con, 1.0)
    with pytest.raises(sqlite3.IntegrityError):
        ledger(con, 10.0, stripe_payment_intent_id="pi_a")
    ledger(con, 2.0)
    con.commit()
    assert [row["amount_internal_usd"] for row in rows(con)] == [10.0, 1.0, 2.0]
    assert extra(con) == 13.0


def test_a_stale_snapshot_and_a_lock_are_said_as_such(
    con: sqlite3.Connection, connect: Callable[..., sqlite3.Connection]
) -> None:
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("BEGIN")
    con.execute("SELECT COUNT(*) FROM licenses").fetchone()
    ledger(connect(), 1.0)
    with pytest.raises(StoreUnavailable):
        ledger(con, 1.0)
    con.rollback()
    other = connect(timeout=0)
    con.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        ledger(other, 1.0)
    con.rollback()
    assert len(rows(con)) == 1


def test_what_the_caller_wrote_is_seen(con: sqlite3.Connection) -> None:
    con.execute("BEGIN")
    ledger(con, 3.0)
    assert extra(con) == 3.0
    con.rollback()
    assert extra(con) == 0.0


@pytest.mark.parametrize("order", ["budget", "credit", "both", "engine"])
def test_the_schema_is_ensured_in_any_order(path: Path, order: str) -> None:
    con = sqlite3.connect(path)
    create_licenses(con)
    if order == "engine":
        with Guthaben.open(f"sqlite:///{path}") as guthaben:
            guthaben.grant("prac_top", 10**9, key="welcome")
    for _ in range(3):
        if order != "credit":
            budget.ensure_ai_budget_schema(con)
        if order != "budget":
            credit.ensure_ai_credit_schema(con)
    use(con, 1.0)
    ledger(con, 2.0)
    assert extra(con) == (3.0 if order == "engine" else 2.0)
    assert con.execute("PRAGMA table_info(licenses)").fetchall() != []
    con.close()


def test_the_licences_are_never_made_or_changed(con: sqlite3.Connection, tmp_path: Path) -> None:
    before = con.execute("SELECT * FROM licenses").fetchall()
    for do in ALL.values():
        do(con)
    assert con.execute("SELECT * FROM licenses").fetchall() == before
    bare = sqlite3.connect(tmp_path / "bare.sqlite")
    for do in ALL.values():
        do(bare)
    assert bare.execute("PRAGMA table_info(licenses)").fetchall() == []
    bare.close()
