"""Purchases: from a payment that somebody told us of to credit, once for ever.

Law: the payment is the identity, under whichever of its names it was told. Amount, currency and
practice come from our own record where there is one; what contradicts it is quarantined: nothing
credited, an alarm raised, nothing lost. Runs inside the caller's transaction and calls nobody.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.commands import CloseEvent, Fulfil, OpenEvent
from guthaben.domain.money import is_amount
from guthaben.domain.period import month_of
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    FAILED,
    FAILED_AUTO_TOPUP,
    IN_FLIGHT,
    PENDING,
    QUARANTINED,
    SUCCEEDED,
    CreditEvent,
    may_move,
)
from guthaben.services import telling
from guthaben.store import cases, practices, settings, topups
from guthaben.store.topups import Located
from guthaben.store.workspace import EventNote, Workspace

AUTOMATIC = frozenset({AUTO_TOPUP_PURCHASE, FAILED_AUTO_TOPUP})


class PaymentNotice(NamedTuple):
    """What we were told of one payment; prices in Rappen, credit in nano-USD."""

    practice_id: str
    event_type: str
    credit_nano_usd: int
    price_rappen: int | None
    license: str = ""
    currency: str = "chf"
    payment_id: str = ""
    session_id: str = ""
    topup_id: str = ""
    livemode: bool | None = None
    customer_email: str | None = None
    meta_json: str | None = None


class PurchaseResult(NamedTuple):
    """What became of it."""

    credited: bool
    duplicate: bool
    quarantined: bool
    reason: str
    practice_id: str
    event: CreditEvent | None
    grant_no: int = 0


def credit_payment(space: Workspace, notice: PaymentNotice) -> PurchaseResult:
    """Turn a succeeded payment into credit, unless that was done before under any of its names."""
    space.flush()
    hold_still(space, notice)
    owner = registered(space, notice) or _unnamed(space, notice)
    if owner is not None:
        return _duplicate(space, notice, owner)
    decided = _decided(space, notice)
    if decided is not None:
        return decided
    record = own_record(space, notice)
    why = _why_not(space, notice, record)
    if why:
        return quarantine(space, notice, why, record)
    if record is None:
        practice_id, event_no = notice.practice_id, open_purchase(space, notice).event_no
    else:
        practice_id, event_no = record.practice_id, record.event.event_no
    outcome = space.apply(
        practice_id,
        Fulfil(
            event_no,
            notice.payment_id,
            notice.session_id,
            notice.price_rappen or 0,
            notice.livemode,
        ),
    )
    if not outcome.ok:
        return quarantine(space, notice, outcome.reason, record)
    if outcome.applied and outcome.event is not None:
        telling.topped_up(space, practice_id, outcome.event)
    return PurchaseResult(
        outcome.applied, not outcome.applied, False, "", practice_id, outcome.event,
        outcome.grant_no,
    )  # fmt: skip


def _decided(space: Workspace, notice: PaymentNotice) -> PurchaseResult | None:
    """Tell what a person decided about this payment, which no later telling changes."""
    case = cases.of_payment(space.cursor, notice.payment_id) if notice.payment_id else None
    if case is None or case.status in (cases.OPEN, cases.CREDITED):
        return None
    return PurchaseResult(False, False, False, f"case_{case.status}", case.practice_id, None)


def _why_not(space: Workspace, notice: PaymentNotice, record: Located | None) -> str:
    """Say what speaks against crediting; empty when nothing does."""
    if record is not None and record.event.status == QUARANTINED:  # only an operator lets it out
        return record.event.reason or "quarantined"
    if len(_named_events(space, notice)) > 1:
        return "names_differ"
    if record is not None:
        return _contradiction(record, notice)
    if topup_taken(space, notice):
        return "second_payment_for_topup"
    return "" if is_amount(notice.credit_nano_usd, 1) else "credit_not_credible"


def fail_purchase(
    space: Workspace, notice: PaymentNotice, *, status: str = FAILED, reason: str = "not_paid"
) -> PurchaseResult:
    """Record that a payment did not succeed; a later success of it is credited all the same.

    Without a record of ours a row is kept that shows the price and no credit.
    """
    space.flush()
    hold_still(space, notice)
    owner = registered(space, notice)
    if owner is not None:  # a late word of failure about a payment that succeeded
        return _duplicate(space, notice, owner)
    record = own_record(space, notice) or _named(space, notice)
    if record is None:
        # Without its top-up id: that names the purchase, which may still succeed.
        note = notice._replace(credit_nano_usd=0, topup_id="")
        event = open_purchase(space, note, status=status, reason=reason)
        return PurchaseResult(False, False, False, reason, notice.practice_id, event)
    if record.event.status == QUARANTINED:
        return _held_back(record)
    if record.event.method_id and record.event.status in IN_FLIGHT:
        # An attempt of ours: whoever charges it learns the reason, and what that leads to.
        return PurchaseResult(False, False, False, "attempt", record.practice_id, record.event)
    close = CloseEvent(
        record.event.event_no, status, "", notice.payment_id, notice.session_id, reason
    )
    outcome = space.apply(record.practice_id, close)
    return PurchaseResult(
        False, not outcome.applied, False, reason, record.practice_id, outcome.event
    )


def quarantine(
    space: Workspace, notice: PaymentNotice, reason: str, record: Located | None = None
) -> PurchaseResult:
    """Credit nothing, keep everything, raise an alarm; an automatic top-up is paused.

    Told again of the same payment, it changes nothing. Another payment gets a row of its own.
    """
    space.flush()
    known = _quarantined(space, notice) or _alone(space, notice, record)
    if known is not None and known.event.status == QUARANTINED and _same(known, notice):
        return _held_back(known)
    practice_id = known.practice_id if known else notice.practice_id
    if known is not None and may_move(known.event.status, QUARANTINED):
        close = CloseEvent(
            known.event.event_no, QUARANTINED, "", notice.payment_id, notice.session_id, reason
        )
        event = space.apply(practice_id, close).event
    else:
        event = open_purchase(
            space, _kept(space, notice, practice_id), status=QUARANTINED, reason=reason
        )
    space.flush()
    _alarm(space, practice_id, notice, event, reason)
    return PurchaseResult(False, False, True, reason, practice_id, event)


def _kept(space: Workspace, notice: PaymentNotice, practice_id: str) -> PaymentNotice:
    """Say what a quarantined row of its own holds: nothing that another row or a limit forbids."""
    credible = is_amount(notice.credit_nano_usd, 0)
    return notice._replace(
        practice_id=practice_id,
        credit_nano_usd=notice.credit_nano_usd if credible else 0,
        topup_id="" if topup_taken(space, notice) else notice.topup_id,
        session_id="" if _page_taken(space, notice) else notice.session_id,
    )


def _alone(space: Workspace, notice: PaymentNotice, record: Located | None) -> Located | None:
    """Give the purchase that a contradiction is about, where the payment's names agree on one."""
    if len(_named_events(space, notice)) > 1:
        return None
    return record or own_record(space, notice)


def _alarm(
    space: Workspace,
    practice_id: str,
    notice: PaymentNotice,
    event: CreditEvent | None,
    reason: str,
) -> None:
    practice_no = space.practice_no(practice_id)
    event_no = event.event_no if event else 0
    cases.open_case(
        space.cursor, practice_no=practice_no, event_no=event_no, payment_id=notice.payment_id,
        session_id=notice.session_id, livemode=notice.livemode, amount_minor=notice.price_rappen,
        currency=notice.currency, reason=reason, now_s=space.now_s,
    )  # fmt: skip
    subject = f"{reason}:{event_no}"
    settings.raise_alarm(space.cursor, "payment_quarantined", subject, space.now_s, practice_no)
    telling.quarantined(space, practice_id, event, reason)
    if event is not None and event.event_type in AUTOMATIC:
        # Else the next low balance would charge the card again, and again.
        settings.pause_auto_topup(space.cursor, practice_no, "payment_quarantined", space.now_s)


def open_purchase(
    space: Workspace,
    notice: PaymentNotice,
    *,
    status: str = PENDING,
    reason: str = "",
    params: str = "",
    idempotency_key: str = "",
) -> CreditEvent:
    """Record a purchase before, or without, its outcome."""
    practice = space.practice(notice.practice_id)
    automatic = notice.event_type == AUTO_TOPUP_PURCHASE
    event = CreditEvent(
        0, notice.event_type, status, notice.credit_nano_usd, notice.price_rappen,
        notice.currency, notice.license, space.now_s, space.now_s,
        month_of(practice.time_zone, space.now_s) if automatic else "",
        practice.time_zone if automatic else "",
        livemode=notice.livemode, payment_id=notice.payment_id, session_id=notice.session_id,
        topup_id=notice.topup_id, idempotency_key=idempotency_key, params=params, reason=reason,
    )  # fmt: skip
    note = EventNote(notice.customer_email, meta_json=notice.meta_json)
    opened = space.apply(notice.practice_id, OpenEvent(event), note).event
    assert opened is not None
    return opened


def own_record(space: Workspace, notice: PaymentNotice) -> Located | None:
    """Find our own record of the purchase: by its id, else by its session, else by its payment."""
    names = (
        ("topup_id", notice.topup_id),
        ("session_id", notice.session_id),
        ("payment_id", notice.payment_id),
    )
    for column, value in names:
        found = topups.locate_event(space.cursor, column, value) if value else None
        if found is not None and _is_ours(found.event):
            return found
    return None


def hold_still(space: Workspace, notice: PaymentNotice) -> None:
    """Lock the practices that a payment's names lead to, before anything is concluded from them.

    Another server that books the same payment waits here; else it might read the registry before
    our booking and the record after it, and take the one for a contradiction of the other.
    """
    owner = registered(space, notice)
    numbers = {number for number, _event_no in _named_events(space, notice)}
    numbers |= set() if owner is None else {owner.practice_no}
    names = {topups.practice_id_of(space.cursor, number) for number in numbers}
    for practice_id in practices.in_order(space.cursor, (names | {notice.practice_id}) - {""}):
        space.practice(practice_id)


def _named_events(space: Workspace, notice: PaymentNotice) -> set[tuple[int, int]]:
    """Find the purchases that the payment's names lead to: more than one is a contradiction."""
    names = (
        ("topup_id", notice.topup_id),
        ("session_id", notice.session_id),
        ("payment_id", notice.payment_id),
    )
    found = (topups.locate_event(space.cursor, name, ref) for name, ref in names if ref)
    return {
        (one.practice_no, one.event.event_no)
        for one in found
        if one is not None and one.event.amount_nano_usd > 0
    }


def _unnamed(space: Workspace, notice: PaymentNotice) -> topups.Registered | None:
    """Find the top-up that was credited by a page which did not name its payment: this is it."""
    if not (notice.topup_id and notice.payment_id):
        return None
    found = topups.locate_event(space.cursor, "topup_id", notice.topup_id)
    if found is None or found.event.status != SUCCEEDED or found.event.payment_id:
        return None
    same_page = notice.session_id in ("", found.event.session_id)
    if not same_page or _contradiction(found, notice):
        return None
    return topups.Registered(found.practice_no, found.event.event_no)


def topup_taken(space: Workspace, notice: PaymentNotice) -> bool:
    """Tell whether the top-up has its payment already: this would be a second one."""
    return bool(notice.topup_id) and (
        topups.locate_event(space.cursor, "topup_id", notice.topup_id) is not None
    )


def _page_taken(space: Workspace, notice: PaymentNotice) -> bool:
    """Tell whether the page is another purchase's, which must go on being found by it."""
    return bool(notice.session_id) and (
        topups.locate_event(space.cursor, "session_id", notice.session_id) is not None
    )


def _held_back(record: Located) -> PurchaseResult:
    reason = record.event.reason
    return PurchaseResult(False, False, True, reason, record.practice_id, record.event)


def _named(space: Workspace, notice: PaymentNotice) -> Located | None:
    """Find the row that notes this very payment, page or top-up, whatever it holds."""
    pages = (("session_id", notice.session_id), ("payment_id", notice.payment_id))
    names = (*pages, ("topup_id", notice.topup_id))
    found = (topups.locate_event(space.cursor, name, ref) for name, ref in names if ref)
    return next((located for located in found if located is not None), None)


def _quarantined(space: Workspace, notice: PaymentNotice) -> Located | None:
    """Find the quarantined row of this very payment, or of its page."""
    for name, ref in (("payment_id", notice.payment_id), ("session_id", notice.session_id)):
        found = topups.locate_event(space.cursor, name, ref) if ref else None
        if found is not None and found.event.status == QUARANTINED:
            return found
    return None


def _same(record: Located, notice: PaymentNotice) -> bool:
    """Tell whether a quarantined row is about the payment that was told, not about another one."""
    known = record.event.payment_id
    return not notice.payment_id or known in ("", notice.payment_id)


def _is_ours(event: CreditEvent) -> bool:
    """A row that only notes a failed payment holds no credit to give."""
    return event.status != SUCCEEDED and event.amount_nano_usd > 0


def _contradiction(record: Located, notice: PaymentNotice) -> str:
    event = record.event
    if notice.practice_id and notice.practice_id != record.practice_id:
        return "practice_mismatch"
    if notice.currency != event.currency:
        return "currency_mismatch"
    if None not in (notice.price_rappen, event.price_minor) and (
        notice.price_rappen != event.price_minor
    ):
        return "amount_mismatch"
    if None not in (notice.livemode, event.livemode) and notice.livemode != event.livemode:
        return "livemode_mismatch"
    return ""


def registered(space: Workspace, notice: PaymentNotice) -> topups.Registered | None:
    """Tell whose payment it is if it was credited before, under any of its names.

    The payment itself decides. A page that was credited for another payment says nothing of this.
    """
    for kind, ref in _names(notice):
        owner = topups.find_payment(space.cursor, "stripe", kind, ref) if ref else None
        if owner is None:
            continue
        if kind == topups.PAYMENT or not notice.payment_id:
            return owner
        event = topups.load_event(space.cursor, owner.practice_no, owner.event_no)
        if event is None or event.payment_id in ("", notice.payment_id):
            return owner
    return None


def _names(notice: PaymentNotice) -> list[tuple[str, str]]:
    return [(topups.PAYMENT, notice.payment_id), (topups.SESSION, notice.session_id)]


def _duplicate(space: Workspace, notice: PaymentNotice, owner: topups.Registered) -> PurchaseResult:
    """Tell that it was credited before, and remember the other name of the payment."""
    event = topups.load_event(space.cursor, owner.practice_no, owner.event_no)
    if event is not None and not _leads_elsewhere(space, notice, owner):
        topups.register_alias(space.cursor, event, owner, _names(notice), space.now_s)
        topups.name_event(
            space.cursor, owner, payment_id=notice.payment_id, session_id=notice.session_id
        )
    return PurchaseResult(False, True, False, "duplicate", notice.practice_id, event)


def _leads_elsewhere(space: Workspace, notice: PaymentNotice, owner: topups.Registered) -> bool:
    """Tell whether a name belongs to another purchase, which then must keep it."""
    return bool(_named_events(space, notice) - {tuple(owner)})
