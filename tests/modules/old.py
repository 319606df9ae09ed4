"""The old application's tables, as they lie in its databases, and rows for them."""

from __future__ import annotations

import sqlite3
from typing import Any

from tests.modules.host import START, period

LEDGER = (
    "CREATE TABLE ai_credit_ledger (id INTEGER PRIMARY KEY AUTOINCREMENT, practice_id TEXT,"
    " subscription_id TEXT, customer_email TEXT, event_type TEXT NOT NULL,"
    " amount_internal_usd REAL, amount_paid_chf REAL, stripe_checkout_session_id TEXT,"
    " stripe_payment_intent_id TEXT, status TEXT NOT NULL, meta_json TEXT,"
    " created_at INTEGER NOT NULL)"
)
USAGE = (
    "CREATE TABLE ai_usage_events (id INTEGER PRIMARY KEY AUTOINCREMENT, subscription_id TEXT,"
    " practice_id TEXT, device_id TEXT, period_start INTEGER, period_end INTEGER,"
    " operation_type TEXT, model TEXT, input_tokens INTEGER, output_tokens INTEGER,"
    " total_tokens INTEGER, audio_seconds REAL, estimated_cost_usd REAL, request_id TEXT,"
    " status TEXT, created_at INTEGER)"
)
SETTINGS = (
    "CREATE TABLE ai_topup_prefs (practice_id TEXT PRIMARY KEY, auto_topup_enabled INTEGER,"
    " topup_amount_chf REAL, internal_credit_usd REAL, trigger_below_percent INTEGER,"
    " monthly_limit_chf REAL, stripe_customer_id TEXT, default_payment_method_id TEXT,"
    " updated_at INTEGER)"
)


def old_entry(con: sqlite3.Connection, usd: Any = 10.0, **changes: Any) -> None:
    row: dict[str, Any] = {
        "practice_id": "prac_top",
        "subscription_id": "sub_top",
        "customer_email": None,
        "event_type": "topup_purchase",
        "amount_internal_usd": usd,
        "amount_paid_chf": 30.0,
        "stripe_checkout_session_id": None,
        "stripe_payment_intent_id": None,
        "status": "succeeded",
        "meta_json": "{}",
        "created_at": START,
    } | changes
    _insert(con, "ai_credit_ledger", row)


def old_usage(con: sqlite3.Connection, usd: Any = 1.0, number: int = 0, **changes: Any) -> None:
    lic = period(number)
    row: dict[str, Any] = {
        "subscription_id": "sub_top",
        "practice_id": "prac_top",
        "device_id": "dev-1",
        "period_start": lic.period_start,
        "period_end": lic.period_end,
        "operation_type": "chat",
        "model": "gpt-4o-mini",
        "input_tokens": 3,
        "output_tokens": 4,
        "total_tokens": 7,
        "audio_seconds": 0.25,
        "estimated_cost_usd": usd,
        "request_id": "r-1",
        "status": "success",
        "created_at": START + 60,
    } | changes
    _insert(con, "ai_usage_events", row)


def old_settings(con: sqlite3.Connection, **changes: Any) -> None:
    row: dict[str, Any] = {
        "practice_id": "prac_top",
        "auto_topup_enabled": 1,
        "topup_amount_chf": 45.5,
        "internal_credit_usd": 15.1667,
        "trigger_below_percent": 8,
        "monthly_limit_chf": 200.0,
        "stripe_customer_id": "cus_old",
        "default_payment_method_id": "pm_old",
        "updated_at": START,
    } | changes
    _insert(con, "ai_topup_prefs", row)


def _insert(con: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    marks = ", ".join("?" * len(row))
    con.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
    con.commit()


def dump(con: sqlite3.Connection) -> str:
    return "\n".join(con.iterdump())


def tables(con: sqlite3.Connection) -> set[str]:
    return {name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
