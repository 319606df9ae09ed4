"""What the commands on money do: purchases, attempts without credit, refunds.

Law: credit for a payment is granted once for ever, and what is left of it follows one equation per
payment. An attempt is recorded before anybody charges. A refusal is raised and changes nothing.
"""

from __future__ import annotations

from guthaben.domain.applied import Applied
from guthaben.domain.apply_credit import finished, take_back
from guthaben.domain.commands import (
    CloseEvent,
    Fulfil,
    NetPayment,
    OpenEvent,
    Outcome,
    TakeCredit,
)
from guthaben.domain.draft import Draft, Refusal, require_amount
from guthaben.domain.grants import NEVER_S, PAID, PROMOTIONAL, burn_down
from guthaben.domain.journal import Account, Code
from guthaben.domain.money import is_amount
from guthaben.domain.practice import Practice
from guthaben.domain.topup import (
    AUTO_TOPUP_PURCHASE,
    FAILED_AUTO_TOPUP,
    IN_FLIGHT,
    PENDING,
    SUCCEEDED,
    CreditEvent,
    credit_target,
    may_move,
)

CLAWED_BACK = int(Account.CLAWED_BACK)


def open_event(practice: Practice, command: OpenEvent) -> Applied:
    """Number a purchase, an attempt or a plain record, and keep it."""
    event = command.event._replace(event_no=practice.next_event_no)
    after = practice._replace(next_event_no=practice.next_event_no + 1)
    return Applied(after, None, [], Outcome(True, event=event), event)


def fulfil(practice: Practice, event: CreditEvent | None, command: Fulfil, now_s: int) -> Applied:
    """Turn a succeeded payment into a grant, once for ever; also for a closed practice."""
    if event is None:
        raise Refusal("event_not_found")
    if event.status == SUCCEEDED:
        return Applied(practice, event, [], Outcome(True, applied=False, event=event))
    credible = is_amount(event.amount_nano_usd, 0) and is_amount(event.bonus_nano_usd, 0)
    if not credible or not may_move(event.status, SUCCEEDED):
        raise Refusal("cannot_fulfil")
    draft = Draft(practice, now_s)
    draft.event_no = event.event_no
    grant_no = bonus_no = 0
    if event.amount_nano_usd:
        grant_no = draft.add_grant(PAID, event.amount_nano_usd, NEVER_S, Code.FULFIL).grant_no
    if event.bonus_nano_usd:
        bonus = draft.add_grant(PROMOTIONAL, event.bonus_nano_usd, NEVER_S, Code.FULFIL)
        bonus_no = bonus.grant_no
    failed_before = event.event_type == FAILED_AUTO_TOPUP
    # The cooldown counts from here: a charge that we sent may have been in processing for days.
    happens_now = event.status != PENDING or failed_before or event.sent_at_s > 0
    captured = command.captured_rappen or max(event.price_minor or 0, 0)
    done = event._replace(
        status=SUCCEEDED,
        event_type=AUTO_TOPUP_PURCHASE if failed_before else event.event_type,
        payment_id=command.payment_id or event.payment_id,
        session_id=command.session_id or event.session_id,
        captured_minor=captured,
        net_minor=captured,
        event_at_s=now_s if happens_now else event.event_at_s,
        livemode=command.livemode if event.livemode is None else event.livemode,
        grant_no=grant_no,
        bonus_grant_no=bonus_no,
        reason="",
        verdict="",
        open_minor=0,
    )
    return finished(draft, Outcome(True, grant_no=grant_no, event=done), done)


def close_event(practice: Practice, event: CreditEvent | None, command: CloseEvent) -> Applied:
    """Move a purchase or attempt that gave no credit to another status; the first answer stands."""
    if event is None:
        raise Refusal("event_not_found")
    named = event.status == command.status and _names_more(event, command)
    if not named and not may_move(event.status, command.status):
        return Applied(practice, event, [], Outcome(True, applied=False, event=event))
    moved = event._replace(
        status=command.status,
        event_type=command.event_type or event.event_type,
        payment_id=command.payment_id or event.payment_id,
        session_id=command.session_id or event.session_id,
        reason=command.reason or event.reason,
        amount_nano_usd=event.amount_nano_usd,
        verdict=command.verdict or event.verdict,
        open_minor=command.open_minor,
    )
    return Applied(practice, moved, [], Outcome(True, event=moved))


def _names_more(event: CreditEvent, command: CloseEvent) -> bool:
    """Tell whether the command adds the payment or the session to an event without an outcome."""
    return event.status in IN_FLIGHT and (
        (command.payment_id not in ("", event.payment_id))
        or (command.session_id not in ("", event.session_id))
    )


def net_payment(
    practice: Practice, event: CreditEvent | None, command: NetPayment, now_s: int
) -> Applied:
    """Bring the credit of one payment in line with the money that is left of it."""
    if event is None:
        raise Refusal("event_not_found")
    if event.status != SUCCEEDED or event.captured_minor <= 0:
        raise Refusal("not_fulfilled")
    draft = Draft(practice, now_s)
    draft.event_no = practice.next_event_no
    net = min(max(command.net_rappen, 0), event.captured_minor)
    paid = _net_one(draft, event.grant_no, event.amount_nano_usd,
                    event.clawed_back_nano_usd, net, event)  # fmt: skip
    bonus = _net_one(draft, event.bonus_grant_no, event.bonus_nano_usd,
                     event.bonus_clawed_back_nano_usd, net, event)  # fmt: skip
    if paid == 0 and bonus == 0:
        # Too little money for a nano-dollar of credit has moved; what is left is noted too.
        same = event if net == event.net_minor else event._replace(net_minor=net)
        return Applied(practice, same, [], Outcome(True, applied=False, event=same))
    done = event._replace(
        clawed_back_nano_usd=event.clawed_back_nano_usd + paid,
        bonus_clawed_back_nano_usd=event.bonus_clawed_back_nano_usd + bonus,
        net_minor=net,
    )
    record = _refund_record(practice, event, done, command.event_type, now_s)
    after = draft.finish(next_event_no=practice.next_event_no + 1)
    outcome = Outcome(True, event=done, amount_nano_usd=-(paid + bonus))
    return Applied(after, done, draft.transfers, outcome, record)


def _net_one(
    draft: Draft, grant_no: int, granted: int, clawed: int, net: int, event: CreditEvent
) -> int:
    """Book the difference between what should be left and what is; tell what was clawed back."""
    if granted == 0:
        return 0
    excess = granted - clawed - credit_target(granted, net, event.captured_minor)
    if excess > 0:
        own = [draft.grants[grant_no]] if grant_no in draft.grants else []
        own = burn_down(own, draft.now_s)
        others = [g for g in draft.bought() if g.grant_no != grant_no and g.kind == PAID]
        take_back(draft, own + others, excess, CLAWED_BACK, Code.CLAWBACK)
    elif excess < 0:
        kind = draft.grants[grant_no].kind
        draft.move(CLAWED_BACK, kind, -excess, grant_no, Code.REINSTATE)
        draft.free(grant_no, -excess)
    return excess


def _refund_record(
    practice: Practice, before: CreditEvent, after: CreditEvent, event_type: str, now_s: int
) -> CreditEvent:
    """Make the history's line for money that went back, or came again."""
    amount = before.clawed_back_nano_usd - after.clawed_back_nano_usd
    bonus = before.bonus_clawed_back_nano_usd - after.bonus_clawed_back_nano_usd
    return CreditEvent(
        practice.next_event_no, event_type, SUCCEEDED, amount + bonus,
        after.net_minor - before.net_minor, before.currency, before.license, now_s, now_s,
        provider=before.provider, livemode=before.livemode, payment_id=before.payment_id,
        parent_event_no=before.event_no,
    )  # fmt: skip


def take_credit(practice: Practice, command: TakeCredit, now_s: int) -> Applied:
    """Take back credit for a refund that is told only by its amount."""
    amount = -command.event.amount_nano_usd
    require_amount(amount, 1)
    draft = Draft(practice, now_s)
    event = command.event._replace(event_no=practice.next_event_no)
    draft.event_no = event.event_no
    paid = [grant for grant in draft.bought() if grant.kind == PAID]
    take_back(draft, paid, amount, CLAWED_BACK, Code.CLAWBACK)
    after = draft.finish(next_event_no=practice.next_event_no + 1)
    return Applied(after, None, draft.transfers, Outcome(True, event=event), event)
