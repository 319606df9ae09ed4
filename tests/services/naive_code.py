"""The code of others: our guards taken out, one function for each way in which they were missing.

Each is given a `MonkeyPatch` and makes our own services as naive as theirs were, in this process.
See `test_mistakes_of_others`.
"""

from __future__ import annotations

from typing import Any

import pytest

from guthaben.domain.commands import GrantCredit
from guthaben.domain.draft import Draft
from guthaben.domain.grants import PAID
from guthaben.payments import facts, reading
from guthaben.services import applying, cards, netting, purchases, settling
from guthaben.services.licence_news import LicenceNews
from guthaben.services.purchases import PurchaseResult
from guthaben.services.webhooks import Inbox
from guthaben.store import inbox as inbox_rows
from guthaben.store import practices, topups, workspace
from tests.services.house import TEN_USD


def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dedupe by event ids alone: nothing remembers the payment."""
    nothing = lambda *_args, **_options: None  # noqa: E731
    monkeypatch.setattr(topups, "find_payment", nothing)
    monkeypatch.setattr(topups, "register_payments", nothing)
    monkeypatch.setattr(topups, "register_alias", nothing)
    monkeypatch.setattr(purchases, "own_record", nothing)
    monkeypatch.setattr(applying, "own_record", nothing)
    monkeypatch.setattr(purchases, "_named_events", lambda *_args: set())
    monkeypatch.setattr(purchases, "_why_not", lambda *_args: "")
    monkeypatch.setattr(applying, "topup_taken", lambda *_args: True)
    monkeypatch.setattr(purchases, "topup_taken", lambda *_args: True)
    real = purchases.open_purchase
    monkeypatch.setattr(
        purchases, "open_purchase",
        lambda space, notice, **more: real(space, notice._replace(topup_id=""), **more),
    )  # fmt: skip
    monkeypatch.setattr(workspace.Workspace, "_told_before", nothing)


def seen_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close an event as soon as it was looked at."""
    monkeypatch.setattr(
        inbox_rows, "try_again",
        lambda cursor, letter, at_s, reason: inbox_rows.finish(
            cursor, letter, "done", reason, at_s
        ),
    )  # fmt: skip


def disputes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take for a dispute and never give back."""
    real = netting.settle_net

    def only_down(space: Any, facts: Any, kind: str) -> Any:
        owner = topups.find_payment(space.cursor, "stripe", topups.PAYMENT, facts.payment_id)
        assert owner is not None
        event = topups.load_event(space.cursor, *owner)
        assert event is not None
        if kind == "dispute" and event.net_minor < event.captured_minor:
            return "done", "nothing_to_net"
        return real(space, facts, kind)

    monkeypatch.setattr(settling, "settle_net", only_down)
    monkeypatch.setattr("guthaben.services.netting.disputes.withdrawn_minor", lambda *_a: 3_000)


def balance_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer success, and keep the new balance in memory."""
    monkeypatch.setattr(practices, "upsert_grants", lambda *_args: None)


def debt_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what is left of the credit, and forget the rest."""
    monkeypatch.setattr(Draft, "owe", lambda *_args: None)


def objects_are_dicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read everything as the dict that it is in most tests."""
    get = lambda source, key: source.get(key)  # noqa: E731
    monkeypatch.setattr(reading, "read", get)
    monkeypatch.setattr(facts, "read", get)


def unknown_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer 200 for what leads to no record of ours, and think no more of it."""
    nobody = PurchaseResult(False, False, False, "unknown", "", None)
    monkeypatch.setattr(applying, "_nobodys", lambda *_args: ("ignored", "unknown"))
    for module in (applying, purchases):
        monkeypatch.setattr(module, "quarantine", lambda *_args: nobody)


def invoices_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credit what an invoice says was paid, once per event id."""

    def event(self: LicenceNews, kind: str, source: Any) -> tuple[str, str]:
        grant = GrantCredit(f"{kind}:{source['id']}", PAID, TEN_USD)
        self._store.run(lambda space: space.apply(source["metadata"]["practice_id"], grant))
        return "done", kind

    monkeypatch.setattr(LicenceNews, "event", event)


def any_card_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep whatever card a set-up names."""

    def save(self: Inbox, about: Any, happened_at_s: int | None) -> tuple[str, str]:
        customer_id = about.customer_id or "cus_unknown"
        self._store.run(
            lambda space: cards.save_card(
                space,
                about.metadata["practice_id"],
                cards.Card(customer_id, about.payment_method_id, happened_at_s),
            )
        )
        return "done", ""

    monkeypatch.setattr(Inbox, "_setup", save)
