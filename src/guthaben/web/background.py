"""The background jobs of a server, one line each; `services.jobs` says how they are run.

Law: a turn may be repeated, cut short or done by another server: what was not finished is found
again. The gate depends on none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guthaben.services.delivery import Dispatcher
from guthaben.services.guthaben import Guthaben
from guthaben.services.jobs import Job, Turn
from guthaben.services.low_balance import LowBalanceWatch
from guthaben.services.reconcile import Reconciler
from guthaben.services.retention import Retention
from guthaben.services.webhooks import Inbox

if TYPE_CHECKING:
    from guthaben.web.deps import Payments

INBOX: Final = "inbox"
_DAY_S: Final = 86_400
_LOOK_BACK_S: Final = 5 * _DAY_S


def jobs(guthaben: Guthaben, payments: Payments | None, dispatcher: Dispatcher) -> list[Job]:
    """List the jobs; those that need a payment provider only where there is one."""
    watch = LowBalanceWatch(guthaben.core.store)
    found = [
        Job("expire", 30, lambda _turn: guthaben.expire()),
        Job("low_balance", 30, watch.look),
        Job("outbox", 2, dispatcher.work),
        Job("retention", _DAY_S, Retention.from_environment().run),
        Job("months", 3600, lambda _turn: guthaben.core.store.grow()),
    ]
    if payments is not None:
        inbox, janitor, closer = payments.inbox, payments.charger.janitor, payments.closer
        licences = payments.licences
        found += [
            Job(INBOX, 2, lambda turn: _drain(inbox, turn)),
            Job("late_licences", 300, lambda _turn: licences.refresh_overdue()),
            Job("resolve_charges", 30, lambda _turn: janitor.resolve_once()),
            Job("cancel_payments", 60, lambda _turn: janitor.cancel_once()),
            Job("check_balances", 60, lambda _turn: janitor.check_once()),
            Job("resolve_refunds", 60, lambda _turn: inbox.refunds.resolve_waiting()),
            Job("reconcile", _DAY_S, lambda turn: _reconcile(guthaben, payments, turn)),
            Job("close_pages", 60, lambda _turn: closer.run_once()),
        ]
    return found


def _reconcile(guthaben: Guthaben, payments: Payments, turn: Turn) -> None:
    """Compare the last days with the provider, longer than it goes on repeating an event."""
    store = guthaben.core.store
    reconciler = Reconciler(store, payments.gateway, payments.inbox, may_go_on=turn.may_go_on)
    reconciler.run(store.now_s() - _LOOK_BACK_S, fix=True)


def _drain(inbox: Inbox, turn: Turn) -> None:
    while turn.may_go_on() and inbox.work_once():
        pass
