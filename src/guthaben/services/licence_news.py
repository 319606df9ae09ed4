"""News of licences: events about subscriptions and invoices, and the questions they lead to.

Law: an event is a hint. The provider is asked what the subscription is now, outside transactions,
and that counts; what the event itself says was so earlier counts for its own period only. An
invoice never credits money: it only says that there is something to ask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from guthaben.errors import InvalidInput, PaymentUnavailable
from guthaben.payments.facts import CheckoutFacts
from guthaben.payments.gateway import PaymentGateway, SubscriptionFacts
from guthaben.payments.subscriptions import invoice_subscription, subscription_facts
from guthaben.services import licence_state
from guthaben.services.licence_owner import Told, named
from guthaben.services.netting import Verdict
from guthaben.store import licences as rows
from guthaben.store import plans as plan_rows
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

_SUBSCRIPTION: Final = frozenset(
    f"customer.subscription.{what}"
    for what in (
        "created updated deleted paused resumed trial_will_end pending_update_applied "
        "pending_update_expired"
    ).split()
)
_INVOICE: Final = frozenset(
    f"invoice.{what}"
    for what in "paid payment_failed payment_action_required marked_uncollectible voided".split()
)
LICENCE_EVENTS: Final = _SUBSCRIPTION | _INVOICE

_MOST_QUESTIONS: Final = 5
_NOBODY: Final = Told()


class LicenceNews:
    """Asks the provider about subscriptions and applies what it says."""

    def __init__(self, store: Store, gateway: PaymentGateway) -> None:
        self._store = store
        self._gateway = gateway

    def event(self, kind: str, source: Mapping[str, Any]) -> Verdict:
        """Apply an event about a subscription, or about an invoice of one."""
        if kind in _INVOICE:
            subscription_id = invoice_subscription(source)
            if subscription_id is None:
                return "ignored", "no_subscription"
            return self.ask(subscription_id)
        said = subscription_facts(source)
        return self.ask(said.subscription_id, said=said)

    def page(self, kind: str, page: CheckoutFacts) -> Verdict:
        """Apply an event about the page where a licence is bought."""
        told = named(page.metadata, page.client_reference_id)
        if kind.endswith(".expired"):
            return self._store.run(lambda space: _expired(space, told))
        if page.subscription_id is None:
            return "done", "no_subscription_yet"
        return self.ask(page.subscription_id, told)

    def ask(
        self,
        subscription_id: str,
        told: Told = _NOBODY,
        *,
        said: SubscriptionFacts | None = None,
        practice_id: str | None = None,
    ) -> Verdict:
        """Ask the provider what a subscription is now, and apply that.

        Raises `PaymentError` when it can't be asked; `practice_id` is an operator's word.
        """
        for _ in range(_MOST_QUESTIONS):
            known = self._store.read(lambda cur: rows.find_subscription(cur, subscription_id))
            version = known.version if known else 0
            facts = self._gateway.retrieve_subscription(subscription_id)
            if facts.subscription_id != subscription_id:
                raise InvalidInput("the provider told another subscription than was asked for")
            verdict = self._store.run(
                lambda space, facts=facts, version=version: licence_state.hear(  # type: ignore[misc]
                    space,
                    facts,
                    told,
                    seen_before=said,
                    expected_version=version,
                    practice_id=practice_id,
                )
            )
            if verdict is not None:
                return verdict
        raise PaymentUnavailable("Others keep changing this subscription; try later.")

    def assign(self, subscription_id: str, practice_id: str) -> Verdict:
        """Take an operator's word on whose a subscription is."""
        return self.ask(subscription_id, practice_id=practice_id)


def _expired(space: Workspace, told: Told) -> Verdict:
    closed = [plan_rows.cancel_order(space.cursor, ref, "expired") for ref in told.order_ids]
    return ("done", "expired") if any(closed) else ("ignored", "not_ours")
