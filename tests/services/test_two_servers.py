"""Two servers on one PostgreSQL at once: what one decides, it decides of what is so by then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from guthaben.errors import PaymentRejected, PaymentUnavailable
from guthaben.payments.gateway import CheckoutFacts, PaymentFacts, RefundReceipt
from guthaben.services.checkouts import close_record
from guthaben.services.closing import PageCloser
from guthaben.services.guthaben import Guthaben
from guthaben.services.quarantine import Decision, Quarantine
from guthaben.services.reconcile import Reconciler
from guthaben.services.refunds import Refunds, Wish
from guthaben.services.settling import Settler
from guthaben.services.topups import Topups
from guthaben.services.webhooks import MOST_ATTEMPTS, Inbox
from guthaben.store.store import Store
from tests import postgres
from tests.meanwhile import Meanwhile
from tests.services.fakes import Elsewhere, FakeGateway
from tests.services.house import PRACTICE, SECRET, SUCCEEDED, Clock, metadata_of, sign


def quarantine_of(store: Store, gateway: FakeGateway) -> Quarantine:
    settler = Settler(store, gateway)
    return Quarantine(store, gateway, settler, Refunds(store, gateway, settler))


def shown(sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in postgres.rows(0, sql, ())]


# ---- what was read of a payment before another server booked it


def test_a_case_that_went_back_is_not_opened_again_by_an_older_reading(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    assert here.settle("pi_1") == ("quarantined", "amount_mismatch")
    meanwhile.at(gateway, "retrieve_payment", lambda: there.refund(1, Decision("twice")))
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status FROM credit_case") == [("refunded",)]


def test_a_case_is_opened_again_once_if_its_refund_fails_and_not_by_an_older_reading(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    here.settle("pi_1")
    there.refund(1, Decision("twice"))

    def fails_and_is_refunded_again() -> None:
        gateway.refund_fails("re_1")
        Settler(servers[1], gateway).settle("pi_1")

    meanwhile.at(gateway, "retrieve_payment", fails_and_is_refunded_again)
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status FROM credit_case") == [("open",)]


@pytest.mark.parametrize(
    ("older", "newer"),
    [("warning_needs_response", "warning_closed"), ("needs_response", "lost")],
)
def test_an_older_reading_of_a_dispute_never_replaces_a_newer_one(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    older: str,
    newer: str,
) -> None:
    here, there = (Settler(store, gateway) for store in servers)
    gateway.put("pi_1", metadata=metadata_of(""))
    gateway.dispute("pi_1", older)
    here.settle("pi_1")

    def the_end_is_told() -> None:
        gateway.dispute("pi_1", newer)
        there.settle("pi_1")

    meanwhile.at(gateway, "payment_disputes", the_end_is_told)
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status, is_closed FROM credit_dispute") == [(newer, 1)]


# ---- what is told of what another server has done by then


class Late(FakeGateway):
    """Answers with an error, after another server has done what the test says."""

    meanwhile: Callable[[], object]

    def retrieve_payment(self, payment_id: str) -> PaymentFacts:
        self.meanwhile()
        raise PaymentRejected("There is no such payment yet.")

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
        self.meanwhile()
        raise PaymentUnavailable("The provider is down.")

    def refund(self, *_asked: Any, **_named: Any) -> RefundReceipt:
        self.meanwhile()
        raise PaymentUnavailable("The provider is down.")


@pytest.fixture
def late(meanwhile: Meanwhile) -> Late:
    return Late(Elsewhere())


@pytest.mark.parametrize("attempts_before", [MOST_ATTEMPTS - 1, 7])
def test_an_event_that_another_server_applied_is_not_told_as_dead_or_waiting(
    both: tuple[Guthaben, Guthaben],
    gateway: FakeGateway,
    late: Late,
    clock: Clock,
    attempts_before: int,
) -> None:
    here, there = (
        Inbox(each, how, secrets=lambda: (SECRET,), livemode_expected=True)
        for each, how in zip(both, (late, gateway), strict=True)
    )
    gateway.put("pi_1", metadata=metadata_of(""))
    about = {"id": "pi_1", "object": "payment_intent", "livemode": True}
    event = {"id": "evt_1", "object": "event", "type": SUCCEEDED, "created": clock.at_s}
    body = json.dumps({**event, "livemode": True, "data": {"object": about}}).encode()
    here.receive(body, sign(body, clock.at_s))
    postgres.change(0, "UPDATE credit_inbox SET attempts = ?", (attempts_before,))
    late.meanwhile = there.work_once
    here.work_once()
    assert shown("SELECT status FROM credit_inbox") == [("done",)]
    assert shown("SELECT code FROM credit_alarm") == []
    assert shown("SELECT kind FROM credit_notice") == [("topped_up",)]


def test_a_page_that_another_server_closed_is_no_alarm(
    both: tuple[Guthaben, Guthaben], gateway: FakeGateway, late: Late, clock: Clock
) -> None:
    topups = Topups(both[0], gateway, livemode=True)
    topups.start_checkout(PRACTICE, 3_000, success_url="https://x/ok", cancel_url="https://x/no")
    clock.wait(2 * 86_400)
    store = both[1].core.store
    late.meanwhile = lambda: store.run(
        lambda space: close_record(space, PRACTICE, 1, "page_expired")
    )
    PageCloser(both[0].core.store, late).run_once()
    assert shown("SELECT status FROM credit_event") == [("canceled",)]
    assert shown("SELECT code FROM credit_alarm") == []


def test_a_refund_that_has_its_answer_by_now_is_no_alarm(
    servers: tuple[Store, Store], gateway: FakeGateway, clock: Clock
) -> None:
    gateway.put("pi_1", metadata=metadata_of(""))
    settler = Settler(servers[0], gateway)
    settler.settle("pi_1")
    refunds = Refunds(servers[0], gateway, settler)
    gateway.refund_lost = True
    assert refunds.refund("pi_1", Wish(None, "r-1", "a test")).status == "unknown"
    clock.wait(25 * 3_600)
    assert refunds.resolve_waiting() == 1
    assert shown("SELECT status FROM credit_refund") == [("succeeded",)]
    assert shown("SELECT code FROM credit_alarm") == []


def test_a_refund_that_was_given_up_while_another_server_made_it_is_made(
    servers: tuple[Store, Store], gateway: FakeGateway, late: Late, clock: Clock
) -> None:
    """The first server slept before it asked, was refused for certain, and called it off."""
    gateway.put("pi_1", metadata=metadata_of(""))
    settler = Settler(servers[0], gateway)
    settler.settle("pi_1")
    given_up, asked, made = threading.Event(), threading.Event(), gateway.refund
    there = Refunds(servers[1], gateway, settler)
    resolving = threading.Thread(target=there.resolve_waiting)

    def answered_late(*args: Any) -> RefundReceipt:
        receipt = made(*args)
        asked.set()
        given_up.wait(10)
        return receipt

    def slept() -> None:
        clock.wait(120)
        resolving.start()
        asked.wait(10)

    gateway.refund, late.meanwhile = answered_late, slept  # type: ignore[assignment, method-assign]
    with pytest.raises(PaymentUnavailable):
        Refunds(servers[0], late, settler).refund("pi_1", Wish(None, "r-1", "a test"))
    given_up.set()
    resolving.join()
    assert shown("SELECT status, provider_refund_id FROM credit_refund") == [("succeeded", "re_1")]


@pytest.mark.parametrize("fix", [True, False])
def test_a_payment_made_and_credited_while_a_list_is_read_is_no_difference(
    both: tuple[Guthaben, Guthaben],
    gateway: FakeGateway,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    fix: bool,
) -> None:
    here, there = both
    gateway.put(
        "pi_1", metadata=metadata_of(""), status="requires_payment_method",
        amount_received_rappen=0, created_at_s=clock.at_s - 600,
    )  # fmt: skip
    listed = gateway.payments_between

    def paid_meanwhile(created_from_s: int, created_before_s: int) -> Iterator[PaymentFacts]:
        for facts in list(listed(created_from_s, created_before_s)):
            gateway.put("pi_1", status="succeeded", amount_received_rappen=3_000)
            Settler(there.core.store, gateway).settle("pi_1")
            yield facts

    monkeypatch.setattr(gateway, "payments_between", paid_meanwhile)
    inbox = Inbox(here, gateway, secrets=lambda: (SECRET,), livemode_expected=True)
    report = Reconciler(here.core.store, gateway, inbox).run(clock.at_s - 3_600, fix=fix)
    assert (report.payments, report.found) == (1, 0)
    assert shown("SELECT code FROM credit_alarm") == []
