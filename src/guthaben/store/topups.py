"""Rows of credit events, the payment registry, settings of the automatic top-up and consents.

Law: a payment is registered once for ever; the automatic top-up's counters are read from the credit
events themselves, in the transaction that claims.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from guthaben.domain.auto_topup import COOLDOWN_S, AutoTopup, Consent
from guthaben.domain.topup import CreditEvent
from guthaben.store.session import NEXT_ROW_ID, Cursor

PAYMENT, SESSION = "payment", "session"

_STORED = CreditEvent._fields[:-1]
SELECTED = ", ".join(_STORED)
_LIVEMODE = _STORED.index("livemode")
_CHANGING = (
    "event_type", "status", "amount_nano_usd", "event_at_s", "livemode", "payment_id", "session_id",
    "captured_minor", "net_minor", "clawed_back_nano_usd",
    "bonus_clawed_back_nano_usd", "grant_no", "bonus_grant_no", "reason", "verdict", "open_minor",
    "sent_at_s",
)  # fmt: skip
_INSERT = (
    f"INSERT INTO credit_event (practice_no, row_id, {SELECTED}) VALUES"
    f" (?, COALESCE(?, {NEXT_ROW_ID}), " + ", ".join("?" * len(_STORED)) + ")"
)
_UPDATE = (
    f"UPDATE credit_event SET {', '.join(f'{name} = ?' for name in _CHANGING)}"
    " WHERE practice_no = ? AND event_no = ?"
)


class Located(NamedTuple):
    """A credit event and the practice it belongs to."""

    practice_no: int
    practice_id: str
    event: CreditEvent


def event_from_row(row: tuple[Any, ...]) -> CreditEvent:
    """Make a credit event of the columns in `SELECTED`."""
    fields = list(row)
    fields[_LIVEMODE] = None if fields[_LIVEMODE] is None else bool(fields[_LIVEMODE])
    return CreditEvent(*fields)


def load_event(cursor: Cursor, practice_no: int, event_no: int) -> CreditEvent | None:
    """Read one credit event."""
    row = cursor.execute(
        f"SELECT {SELECTED} FROM credit_event WHERE practice_no = ? AND event_no = ?",
        (practice_no, event_no),
    ).fetchone()
    return event_from_row(row) if row else None


def insert_event(
    cursor: Cursor, practice_no: int, event: CreditEvent, row_id: int | None = None
) -> None:
    """Store a new credit event; what the host said about it goes to the erasable notes.

    Whoever gives a `row_id` sees to it that later ones go on behind it.
    """
    cursor.execute(_INSERT, (practice_no, row_id, *event[:-1]))


def update_event(cursor: Cursor, practice_no: int, event: CreditEvent) -> None:
    """Store what changed on a credit event."""
    values = tuple(getattr(event, name) for name in _CHANGING)
    cursor.execute(_UPDATE, (*values, practice_no, event.event_no))


def locate_event(cursor: Cursor, column: str, value: str) -> Located | None:
    """Find the newest credit event by `topup_id`, `session_id` or `payment_id`, of any practice."""
    if column not in {"topup_id", "session_id", "payment_id"}:
        raise ValueError(f"credit events are not looked up by {column!r}")
    fields = ", ".join(f"e.{name}" for name in _STORED)
    row = cursor.execute(
        f"SELECT p.practice_no, p.practice_id, {fields} FROM credit_event e"
        f" JOIN credit_practice_name p ON p.practice_no = e.practice_no WHERE e.{column} = ?"
        f" AND e.{column} <> '' AND e.parent_event_no = 0 AND e.amount_nano_usd >= 0"
        " ORDER BY e.row_id DESC LIMIT 1",
        (value,),
    ).fetchone()
    return Located(row[0], row[1], event_from_row(row[2:])) if row else None


def waiting_events(
    cursor: Cursor, event_type: str, recorded_before_s: int, after: tuple[int, int, int]
) -> list[Located]:
    """Read one page of attempts that were claimed by us and have no outcome, the oldest first.

    `after` is the (recorded_at_s, practice_no, event_no) of the last one read before.
    """
    fields = ", ".join(f"e.{name}" for name in _STORED)
    rows = cursor.execute(
        f"SELECT p.practice_no, p.practice_id, {fields} FROM credit_event e"
        " JOIN credit_practice_name p ON p.practice_no = e.practice_no"
        " WHERE e.status IN ('pending', 'unknown') AND e.recorded_at_s <= ?"
        " AND e.event_type = ? AND e.params <> '' AND e.idempotency_key <> ''"
        " AND (e.recorded_at_s, e.practice_no, e.event_no) > (?, ?, ?)"
        " ORDER BY e.recorded_at_s, e.practice_no, e.event_no LIMIT 50",
        (recorded_before_s, event_type, *after),
    ).fetchall()
    return [Located(row[0], row[1], event_from_row(row[2:])) for row in rows]


def put_note(
    cursor: Cursor,
    practice_no: int,
    event_no: int,
    *,
    customer_email: str | None = None,
    author: str | None = None,
    note: str | None = None,
    meta_json: str | None = None,
) -> None:
    """Keep what a person wrote about a credit event, where it can be erased."""
    cursor.execute(
        "INSERT INTO credit_note (practice_no, event_no, customer_email, author, note, meta_json)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (practice_no, event_no) DO NOTHING",
        (practice_no, event_no, customer_email, author, note, meta_json),
    )


class Registered(NamedTuple):
    """Whose payment it was."""

    practice_no: int
    event_no: int


def find_payment(cursor: Cursor, provider: str, kind: str, ref: str) -> Registered | None:
    """Look a payment or a checkout session up in the registry.

    In both modes: a provider's ids never repeat, and who told of a payment may not know its mode.
    """
    row = cursor.execute(
        "SELECT practice_no, event_no FROM credit_payment"
        " WHERE provider = ? AND livemode IN (0, 1) AND kind = ? AND ref = ?",
        (provider, kind, ref),
    ).fetchone()
    return Registered(*row) if row else None


def register_payments(cursor: Cursor, practice_no: int, event: CreditEvent, at_s: int) -> None:
    """Register the payment and the session of a fulfilled purchase, for ever."""
    refs = [(PAYMENT, event.payment_id), (SESSION, event.session_id)]
    cursor.executemany(
        "INSERT INTO credit_payment (provider, kind, ref, livemode, practice_no, event_no, at_s)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                event.provider, kind, ref, int(event.livemode is not False), practice_no,
                event.event_no, at_s,
            )
            for kind, ref in refs
            if ref
        ],
    )  # fmt: skip


def register_alias(
    cursor: Cursor,
    event: CreditEvent,
    owner: Registered,
    refs: Iterable[tuple[str, str]],
    at_s: int,
) -> None:
    """Register another name of a fulfilled payment; a known one stays as it is."""
    mode = int(event.livemode is not False)
    for kind, ref in refs:
        if ref and find_payment(cursor, event.provider, kind, ref) is None:
            cursor.execute(
                "INSERT INTO credit_payment (provider, kind, ref, livemode, practice_no,"
                " event_no, at_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (event.provider, kind, ref, mode, *owner, at_s),
            )


def practice_id_of(cursor: Cursor, practice_no: int) -> str:
    """Tell the public id of a practice by its internal number."""
    row = cursor.execute(
        "SELECT practice_id FROM credit_practice_name WHERE practice_no = ?", (practice_no,)
    ).fetchone()
    return str(row[0])


def name_event(cursor: Cursor, owner: Registered, *, payment_id: str, session_id: str) -> None:
    """Note the names of a payment on its event where they were not known yet."""
    cursor.execute(
        "UPDATE credit_event SET payment_id = CASE payment_id WHEN '' THEN ? ELSE payment_id END,"
        " session_id = CASE session_id WHEN '' THEN ? ELSE session_id END"
        " WHERE practice_no = ? AND event_no = ?",
        (payment_id, session_id, *owner),
    )


def claim_context(
    cursor: Cursor, practice_no: int, mode: int, cap_month: str, cap_zone: str
) -> AutoTopup | None:
    """Read all that the automatic top-up's decision looks at; none where it was never set up."""
    row = cursor.execute(
        "SELECT s.enabled, s.amount_minor, s.credit_nano_usd, s.trigger_percent,"
        " s.trigger_below_nano_usd, s.cap_minor, s.cooldown_s, c.customer_id, c.payment_method_id"
        " FROM credit_topup_settings s LEFT JOIN credit_provider_customer c"
        " ON c.practice_no = s.practice_no AND c.provider = 'stripe' AND c.livemode = ?"
        " WHERE s.practice_no = ?",
        (int(mode == 1), practice_no),
    ).fetchone()
    if row is None:
        return None
    return AutoTopup(
        enabled=bool(row[0]),
        amount_rappen=row[1],
        credit_nano_usd=row[2],
        trigger_percent=row[3],
        trigger_below_nano_usd=row[4],
        cap_rappen=row[5],
        cooldown_s=row[6],
        customer_id=row[7] or "",
        payment_method_id=row[8] or "",
        consent=standing_consent(cursor, practice_no),
        spent_rappen=spent_rappen(cursor, practice_no, cap_month),
        in_flight=in_flight(cursor, practice_no),
        last_success_at_s=last_success_at_s(cursor, practice_no),
        cap_month=cap_month,
        cap_zone=cap_zone,
    )


def load_triggers(cursor: Cursor, practice_no: int) -> AutoTopup:
    """Read when credit counts as low; whoever changes it writes the practice's row too."""
    row = cursor.execute(
        "SELECT trigger_percent, trigger_below_nano_usd FROM credit_topup_settings"
        " WHERE practice_no = ?",
        (practice_no,),
    ).fetchone()
    if row is None:
        return AutoTopup()
    return AutoTopup(trigger_percent=row[0], trigger_below_nano_usd=row[1])


def default_context(cap_month: str, cap_zone: str) -> AutoTopup:
    """Give the context of a practice that never set anything up."""
    return AutoTopup(cap_month=cap_month, cap_zone=cap_zone, cooldown_s=COOLDOWN_S)


def standing_consent(cursor: Cursor, practice_no: int) -> Consent | None:
    """Read the newest consent that was not revoked."""
    row = cursor.execute(
        "SELECT consent_no, amount_minor, cap_minor, largest_minor FROM credit_consent"
        " WHERE practice_no = ? AND revoked_at_s = 0 ORDER BY consent_no DESC LIMIT 1",
        (practice_no,),
    ).fetchone()
    return Consent(*row) if row else None


def spent_rappen(
    cursor: Cursor,
    practice_no: int,
    cap_month: str,
    statuses: tuple[str, ...] = ("pending", "unknown", "succeeded", "quarantined"),
) -> int:
    """Add up a month's automatic purchases in the given statuses, in Rappen.

    For the cap a quarantined one counts too: its money may well have moved.
    """
    row = cursor.execute(
        "SELECT COALESCE(SUM(price_minor), 0) FROM credit_event WHERE practice_no = ?"
        f" AND event_type = 'auto_topup_purchase' AND status IN ({', '.join('?' * len(statuses))})"
        " AND cap_month = ?",
        (practice_no, *statuses, cap_month),
    ).fetchone()
    return int(row[0])


def in_flight(cursor: Cursor, practice_no: int) -> bool:
    """Tell whether an automatic purchase has no outcome yet."""
    row = cursor.execute(
        "SELECT 1 FROM credit_event WHERE practice_no = ?"
        " AND event_type = 'auto_topup_purchase' AND status IN ('pending', 'unknown') LIMIT 1",
        (practice_no,),
    ).fetchone()
    return row is not None


def last_success_at_s(cursor: Cursor, practice_no: int) -> int | None:
    """Tell when the newest successful automatic purchase happened."""
    row = cursor.execute(
        "SELECT MAX(event_at_s) FROM credit_event WHERE practice_no = ?"
        " AND event_type = 'auto_topup_purchase' AND status = 'succeeded'",
        (practice_no,),
    ).fetchone()
    return row[0] if row[0] is None else int(row[0])
