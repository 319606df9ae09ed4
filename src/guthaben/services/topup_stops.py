"""Operators' view of the automatic top-up: stops for one practice or for all, and its state.

Law: a stop is a row in the database, so that it holds for every server at once, from the next
attempt on, also for one that is claimed and not sent yet. It is apart from the customer's own
switch: lifting it switches nothing on. Who stopped and why is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from guthaben.domain.apply_topups import claim_decision
from guthaben.domain.commands import ClaimTopup
from guthaben.domain.topup import AUTO_TOPUP_PURCHASE, CreditEvent
from guthaben.errors import Refused
from guthaben.services.answers import TopupView, topup_view
from guthaben.services.checks import MAX_TEXT, checked_text, practice_id_of, reason_of
from guthaben.services.guthaben import Guthaben
from guthaben.store import attempts, restored, settings, topups
from guthaben.store.attempts import EVERYBODY, Stop
from guthaben.store.session import Cursor
from guthaben.store.settings import ConsentRow
from guthaben.store.workspace import Workspace

_MOST_SHOWN = 500


@dataclass(frozen=True, slots=True)
class PracticeTopups:
    """The automatic top-up of one practice as an operator sees it; no id of card or customer."""

    practice_id: str
    enabled: bool
    card_saved: bool
    amount_rappen: int
    largest_rappen: int
    cap_rappen: int
    spent_this_month_rappen: int
    on_decline: str
    paused_reason: str
    would: str
    """What claiming would decide now: `charge`, or the reason why not."""
    retry_at_s: int
    tries_of_need: int
    failures_in_row: int
    tries_of_card: int
    stop: Stop | None
    stop_of_all: Stop | None
    consent: ConsentRow | None


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt without an outcome, or a failed one whose payment is not cancelled yet."""

    practice_id: str
    attempt: TopupView
    open_rappen: int


@dataclass(frozen=True, slots=True)
class AllTopups:
    """What concerns all practices."""

    stop: Stop | None
    stopped_practices: tuple[tuple[str, Stop], ...]
    open_attempts: tuple[OpenAttempt, ...]


class TopupStops:
    """Stops, resumes and shows automatic charges."""

    def __init__(self, guthaben: Guthaben) -> None:
        self._store = guthaben.core.store

    def stop(self, practice_id: str | None, *, reason: str, actor: str = "") -> bool:
        """Stop automatic charges of one practice, or with None of all; tell whether it is new."""
        checked_text("actor", actor, MAX_TEXT)
        reason_of(reason)
        return self._store.run(lambda space: _stop(space, _known(practice_id), reason, actor))

    def resume(
        self, practice_id: str | None, *, actor: str = "", unreconciled: bool = False
    ) -> bool:
        """Lift a stop; tell whether there was one. What the customer switched off stays off.

        For all practices of a database that comes from a backup this is refused until it has been
        reconciled, unless `unreconciled` says that somebody knows better.
        """
        checked_text("actor", actor, MAX_TEXT)
        return self._store.run(
            lambda space: _resume(space, _known(practice_id), actor, unreconciled)
        )

    def show(self, practice_id: str) -> PracticeTopups:
        """Tell the state of one practice's automatic top-up."""
        practice_id_of(practice_id)
        return self._store.run(lambda space: _show(space, practice_id))

    def all(self, limit: int = 100) -> AllTopups:
        """Tell what is stopped, and which attempts have no end yet, the oldest first."""
        return self._store.read(lambda cur: _all(cur, min(limit, _MOST_SHOWN)))


def _known(practice_id: str | None) -> str | None:
    return None if practice_id is None else practice_id_of(practice_id)


def _number(space: Workspace, practice_id: str | None) -> int:
    return EVERYBODY if practice_id is None else space.practice_no(practice_id)


def _stop(space: Workspace, practice_id: str | None, reason: str, actor: str) -> bool:
    number = _number(space, practice_id)
    fresh = attempts.put_stop(space.cursor, number, Stop(reason, actor, space.now_s))
    if fresh:
        settings.audit(space.cursor, number, "topups_stopped", actor, reason, space.now_s)
    return fresh


def _resume(space: Workspace, practice_id: str | None, actor: str, unreconciled: bool) -> bool:
    number = _number(space, practice_id)
    # First, so that whoever stops or marks this database in this moment does it before or after.
    lifted = attempts.lift_stop(space.cursor, number)
    if number == EVERYBODY:
        _leave_the_backup(space, unreconciled)
    if lifted:
        settings.audit(space.cursor, number, "topups_resumed", actor, "", space.now_s)
    return lifted


def _leave_the_backup(space: Workspace, unreconciled: bool) -> None:
    mark = restored.mark_of(space.cursor)
    if mark is None:
        return
    if not unreconciled and not restored.is_reconciled(space.cursor, mark):
        day = datetime.fromtimestamp(mark.known_until_s, UTC).date().isoformat()
        raise Refused(
            "This database comes from a backup: what was charged since is not in it. First "
            f"guthaben reconcile --fix --since {day}, then resume.",
            reason="not_reconciled",
        )
    restored.lift(space.cursor, space.now_s)


def _show(space: Workspace, practice_id: str) -> PracticeTopups:
    context = space.claim_context(practice_id)
    practice = space.practice(practice_id)
    row = settings.load_settings(space.cursor, practice.practice_no, practice.mode)
    would = claim_decision(practice, context, ClaimTopup(""), space.now_s)
    return PracticeTopups(
        practice_id=practice_id,
        enabled=context.enabled,
        card_saved=bool(context.customer_id and context.payment_method_id),
        amount_rappen=context.amount_rappen,
        largest_rappen=context.largest_rappen,
        cap_rappen=context.cap_rappen,
        spent_this_month_rappen=context.spent_rappen,
        on_decline=context.on_decline,
        paused_reason=row.paused_reason if row else "",
        would=would.reason.value,
        retry_at_s=context.retry_at_s,
        tries_of_need=context.tries_of_need,
        failures_in_row=context.failures_in_row,
        tries_of_card=context.tries_of_card,
        stop=attempts.find_stop(space.cursor, practice.practice_no or -1),
        stop_of_all=attempts.find_stop(space.cursor, EVERYBODY),
        consent=settings.standing_consent_row(space.cursor, practice.practice_no),
    )


def _all(cursor: Cursor, limit: int) -> AllTopups:
    waiting = topups.waiting_events(cursor, AUTO_TOPUP_PURCHASE, 1 << 40, (0, 0, 0))
    left_open = attempts.open_payments(cursor, (0, 0), limit)
    found = sorted([*waiting, *left_open], key=lambda one: one.event.recorded_at_s)[:limit]
    return AllTopups(
        stop=attempts.find_stop(cursor, EVERYBODY),
        stopped_practices=tuple(attempts.stopped_practices(cursor, limit)),
        open_attempts=tuple(
            OpenAttempt(one.practice_id, topup_view(one.event), _open(one.event)) for one in found
        ),
    )


def _open(event: CreditEvent) -> int:
    return event.open_minor or event.price_minor or 0
