"""One row of an old table, read and judged: a value of ours, or the reasons why it can't be one.

Law: nothing is guessed. What is missing, unknown or out of range is a problem that names the table,
the row and the column. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from guthaben.domain.calls import Origin, Usage
from guthaben.domain.money import micros_from_float, nano_usd_from_float, rappen_from_float
from guthaben.domain.period import Period
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, MOVES, CreditEvent
from guthaben.store.legacy.meta import clean_meta
from guthaben.store.legacy.rows import LicenseRow
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import EventNote

LONGEST_ID = 200
_LATEST_S = 1 << 33
"""An instant beyond this (the year 2242) is not in seconds."""

Licenses = Mapping[str, LicenseRow]


class OldEntry(NamedTuple):
    """A row of the old ledger."""

    row_id: int
    practice_id: str
    event: CreditEvent
    note: EventNote


class OldUsage(NamedTuple):
    """A row of the old usage; `period` lacks its allowance, which `lookup_key` tells."""

    row_id: int
    practice_id: str
    status: str
    at_s: int
    cost_nano_usd: int
    period: Period
    lookup_key: str
    usage: Usage
    origin: Origin


class OldSettings(NamedTuple):
    """A row of the old settings."""

    practice_id: str
    row: TopupSettingsRow


class _Row:
    """Reads columns of one row and remembers what was wrong."""

    def __init__(self, table: str, row: Mapping[str, Any]) -> None:
        self.row = row
        self.label = f"{table} {row.get('id', row.get('practice_id'))}"
        self.problems: list[str] = []

    def wrong(self, text: str) -> None:
        self.problems.append(f"{self.label}: {text}")

    def text(self, name: str) -> str:
        value = self.row.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.wrong(f"{name} is no text")
            return ""
        return value

    def whole(self, name: str, most: int, *, required: bool = False) -> int:
        value = self.row.get(name)
        if value is None and not required:
            return 0
        if type(value) is not int or not 0 <= value <= most:
            self.wrong(f"{name} is {value!r}, not an integer from 0 to {most}")
            return 0
        return value

    def number(self, name: str, convert: Callable[[Any], int], *, required: bool = True) -> int:
        value = self.row.get(name)
        if value is None:
            if required:
                self.wrong(f"{name} is NULL")
            return 0
        try:
            return convert(value)
        except ValueError as error:
            self.wrong(f"{name}: {error}")
            return 0

    def practice_id(self, licenses: Licenses) -> str:
        """The row's own practice, else its licence's, else the subscription itself."""
        license = self.text("subscription_id")
        known = licenses.get(license)
        found = self.text("practice_id") or (known and known.practice_id) or license
        if not found or len(found) > LONGEST_ID:
            self.wrong(f"practice_id must have 1 to {LONGEST_ID} characters")
        return found


def read_entry(row: Mapping[str, Any], licenses: Licenses) -> tuple[OldEntry, list[str]]:
    """Read one row of the old ledger."""
    told = _Row("ai_credit_ledger", row)
    status, event_type = told.text("status"), told.text("event_type")
    if status not in MOVES:
        told.wrong(f"unknown status {row.get('status')!r}")
    if not event_type:
        told.wrong("event_type is empty")
    at_s = told.whole("created_at", _LATEST_S, required=True)
    event = CreditEvent(
        0, event_type, status, told.number("amount_internal_usd", nano_usd_from_float),
        _price(told), "chf", told.text("subscription_id"), at_s, at_s,
        payment_id=told.text("stripe_payment_intent_id"),
        session_id=told.text("stripe_checkout_session_id"),
    )  # fmt: skip
    note = EventNote(
        told.text("customer_email") or None, meta_json=_meta(told), row_id=row.get("id")
    )
    entry = OldEntry(row["id"], told.practice_id(licenses), event, note)
    return entry, told.problems


def _price(told: _Row) -> int | None:
    if told.row.get("amount_paid_chf") is None:
        return None
    return told.number("amount_paid_chf", rappen_from_float)


def _meta(told: _Row) -> str | None:
    written = told.text("meta_json").strip()
    if not written:
        return None
    try:
        meta = json.loads(written)
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        told.wrong("meta_json is no JSON object")
        return None
    return clean_meta(meta)


def is_automatic(event: CreditEvent) -> bool:
    """Tell whether an entry counts toward the cap, the cooldown and the single flight."""
    return event.event_type == AUTO_TOPUP_PURCHASE


def read_usage(row: Mapping[str, Any], licenses: Licenses) -> tuple[OldUsage, list[str]]:
    """Read one row of the old usage."""
    told = _Row("ai_usage_events", row)
    license = told.text("subscription_id")
    if not license:
        told.wrong("subscription_id is empty")
    cost = told.number("estimated_cost_usd", nano_usd_from_float)
    if cost < 0:
        told.wrong("estimated_cost_usd is negative")
    known = licenses.get(license)
    usage = OldUsage(
        row["id"],
        told.practice_id(licenses),
        _usage_status(told),
        told.whole("created_at", _LATEST_S, required=True),
        cost,
        Period(
            license,
            told.whole("period_start", _LATEST_S, required=True),
            told.whole("period_end", _LATEST_S),
        ),
        told.text("lookup_key") or (known.lookup_key if known else None) or "",
        Usage(
            told.text("model"),
            told.text("operation_type"),
            told.whole("input_tokens", 1 << 60),
            told.whole("output_tokens", 1 << 60),
            told.whole("total_tokens", 1 << 60),
            told.number("audio_seconds", micros_from_float, required=False),
        ),
        Origin(device_id=told.text("device_id"), reference=told.text("request_id")),
    )
    return usage, told.problems


def _usage_status(told: _Row) -> str:
    if "status" not in told.row:
        return "success"
    status = told.text("status")
    if not status:
        told.wrong("status is empty")
    return status


def read_settings(row: Mapping[str, Any]) -> tuple[OldSettings, list[str]]:
    """Read one row of the old settings."""
    told = _Row("settings of", row)
    settings = OldSettings(
        told.practice_id({}),
        TopupSettingsRow(
            enabled=bool(told.whole("auto_topup_enabled", 1)),
            amount_rappen=told.number("topup_amount_chf", rappen_from_float),
            credit_nano_usd=told.number("internal_credit_usd", nano_usd_from_float),
            trigger_percent=told.number("trigger_below_percent", whole_percent),
            cap_rappen=told.number("monthly_limit_chf", rappen_from_float),
            customer_id=told.text("stripe_customer_id") or None,
            payment_method_id=told.text("default_payment_method_id") or None,
        ),
    )
    return settings, told.problems


def whole_percent(value: Any) -> int:
    """Take a percentage over the edge; raises `ValueError` unless it is a whole number."""
    try:
        percent = int(value)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not a percentage: {value!r}") from error
    if isinstance(value, bool | str) or percent != value or not 0 <= percent <= 1_000_000:
        raise ValueError(f"not a whole number of percent: {value!r}")
    return percent
