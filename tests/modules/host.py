"""What a host application does and has: licences, settings, Stripe's objects."""

from __future__ import annotations

import sqlite3
from typing import Any

from aza_ai_budget import LicenseBudgetRow, insert_usage_event
from aza_ai_credit import TopupSettings, insert_ledger_event, save_topup_settings

START = 1_700_000_000
MONTH = 30 * 86_400


def create_licenses(con: sqlite3.Connection) -> None:
    con.execute(
        "CREATE TABLE licenses (subscription_id TEXT PRIMARY KEY, customer_id TEXT, status TEXT,"
        " lookup_key TEXT, customer_email TEXT, current_period_end INTEGER,"
        " current_period_start INTEGER, updated_at INTEGER NOT NULL, license_key TEXT,"
        " practice_id TEXT)"
    )
    for name in ("top", "other"):
        con.execute(
            "INSERT INTO licenses VALUES (?, ?, 'active', 'aza_basic_monthly', ?, ?, ?, ?, ?, ?)",
            (
                f"sub_{name}", f"cus_{name}", f"{name}@example.test", START + MONTH, START, START,
                f"KEY-{name}", f"prac_{name}",
            ),
        )  # fmt: skip
    con.commit()


def license_row(**changes: Any) -> LicenseBudgetRow:
    fields: dict[str, Any] = {
        "subscription_id": "sub_top",
        "customer_email": "top@example.test",
        "customer_id": "cus_top",
        "practice_id": "prac_top",
        "lookup_key": "aza_basic_monthly",
        "status": "active",
        "period_start": START,
        "period_end": START + MONTH,
    }
    return LicenseBudgetRow(**(fields | changes))


def period(number: int, **changes: Any) -> LicenseBudgetRow:
    start = START + number * MONTH
    return license_row(period_start=start, period_end=start + MONTH, **changes)


def use(
    con: sqlite3.Connection, usd: float, lic: LicenseBudgetRow | None = None, **more: Any
) -> int:
    lic = lic or license_row()
    fields: dict[str, Any] = {
        "lic": lic,
        "device_id": None,
        "period_start": lic.period_start,
        "period_end": lic.period_end,
        "operation_type": "chat",
        "model": "gpt-4o-mini",
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
        "audio_seconds": 0.0,
        "estimated_cost_usd": usd,
        "request_id": "r1",
        "status": "success",
    }
    return insert_usage_event(con, **(fields | more))


def ledger(con: sqlite3.Connection, usd: float, **more: Any) -> int:
    fields: dict[str, Any] = {
        "practice_id": "prac_top",
        "subscription_id": "sub_top",
        "customer_email": None,
        "event_type": "topup_purchase",
        "amount_internal_usd": usd,
        "status": "succeeded",
    }
    return insert_ledger_event(con, **(fields | more))


def save(con: sqlite3.Connection, **changes: Any) -> TopupSettings:
    fields: dict[str, Any] = {
        "practice_id": "prac_top",
        "auto_topup_enabled": True,
        "topup_amount_chf": 30.0,
        "internal_credit_usd": 10.0,
        "trigger_below_percent": 10,
        "monthly_limit_chf": 300.0,
        "stripe_customer_id": "cus_top",
        "default_payment_method_id": "pm_top",
    }
    settings = TopupSettings(**(fields | changes))
    save_topup_settings(con, settings)
    return settings


def metadata(purpose: str = "ai_topup", **changes: str) -> dict[str, str]:
    fields = {
        "aza_purpose": purpose,
        "practice_id": "prac_top",
        "subscription_id": "sub_top",
        "internal_credit_usd": "20",
        "paid_chf": "30",
    }
    return fields | changes


def checkout(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "cs_1",
        "object": "checkout.session",
        "payment_status": "paid",
        "metadata": metadata(),
    }
    return fields | changes


def payment(purpose: str = "ai_topup", **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "pi_1",
        "object": "payment_intent",
        "customer": "cus_top",
        "metadata": metadata(purpose),
    }
    return fields | changes


def setup_intent(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "seti_1",
        "object": "setup_intent",
        "customer": "cus_new",
        "payment_method": "pm_new",
        "metadata": {"aza_purpose": "ai_topup_setup", "practice_id": "prac_top"},
    }
    return fields | changes


def setup_checkout(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "cs_setup",
        "object": "checkout.session",
        "mode": "setup",
        "customer": "cus_new",
        "setup_intent": "seti_1",
        "metadata": {"aza_purpose": "ai_topup_setup", "practice_id": "prac_top"},
    }
    return fields | changes


def rows(con: sqlite3.Connection, where: str = "1 = 1") -> list[dict[str, Any]]:
    """Read the old ledger through its view."""
    cursor = con.cursor()
    cursor.row_factory = None
    cursor.execute(f"SELECT * FROM ai_credit_ledger WHERE {where} ORDER BY id")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def usage_rows(con: sqlite3.Connection) -> list[dict[str, Any]]:
    cursor = con.cursor()
    cursor.row_factory = None
    cursor.execute("SELECT * FROM ai_usage_events ORDER BY id")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def extra(con: sqlite3.Connection, practice_id: str = "prac_top") -> float:
    from aza_ai_credit import compute_extra_credit_remaining

    return compute_extra_credit_remaining(
        con, practice_id=practice_id, subscription_id="sub_top", monthly_budget_usd=20.0
    )


def alarms(con: sqlite3.Connection) -> list[str]:
    return [code for (code,) in con.execute("SELECT code FROM credit_alarm ORDER BY alarm_no")]
