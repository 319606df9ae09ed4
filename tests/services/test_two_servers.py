"""Two servers on one PostgreSQL at once: what one decides, it decides of what is so by then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import psycopg
import pytest

from guthaben.domain.commands import GrantCredit, OpenEvent, Reserve
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent
from guthaben.errors import (
    PaymentRejected,
    PaymentUnavailable,
    Refused,
)
from guthaben.payments.gateway import CheckoutFacts, PaymentFacts
from guthaben.services import licence_state
from guthaben.services.checkouts import close_record
from guthaben.services.closing import PageCloser
from guthaben.services.guthaben import Guthaben
from guthaben.services.licence_news import LicenceNews
from guthaben.services.licences import Licences, held, show
from guthaben.services.plans import PlanBook
from guthaben.services.quarantine import Decision, Quarantine
from guthaben.services.refunds import Refunds, Wish
from guthaben.services.settling import Settler
from guthaben.services.topup_stops import TopupStops
from guthaben.services.topups import Topups
from guthaben.services.webhooks import MOST_ATTEMPTS, Inbox
from guthaben.store import attempts, cases, payment_states, practices, restored
from guthaben.store.postgres_session import PostgresSession
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests import postgres
from tests.meanwhile import Meanwhile
from tests.services.fakes import Elsewhere, FakeGateway
from tests.services.house import (
    CHF_30,
    NOON,
    OTHER,
    PRACTICE,
    SECRET,
    SUCCEEDED,
    USD,
    Clock,
    metadata_of,
    sign,
)
from tests.services.test_licences import subscription


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def both(clock: Clock) -> Iterator[tuple[Guthaben, Guthaben]]:
    url = postgres.fresh()
    with Guthaben.open(url, clock_ms=clock) as here, Guthaben.open(url, clock_ms=clock) as there:
        yield here, there


@pytest.fixture
def servers(both: tuple[Guthaben, Guthaben]) -> tuple[Store, Store]:
    here, there = both
    return here.core.store, there.core.store


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway(Elsewhere())


@pytest.fixture
def meanwhile(servers: tuple[Store, Store]) -> Meanwhile:
    return Meanwhile(servers[0].url)


def quarantine_of(store: Store, gateway: FakeGateway) -> Quarantine:
    settler = Settler(store, gateway)
    return Quarantine(store, gateway, settler, Refunds(store, gateway, settler))


def restored_again(store: Store) -> None:
    store.run(lambda space: restored.mark(space.cursor, space.now_s))


def reconciled(store: Store) -> None:
    def work(space: Workspace) -> None:
        run_no = payment_states.begin_run(
            space.cursor, 0, space.now_s, fixes=True, now_s=space.now_s
        )
        payment_states.end_run(
            space.cursor, run_no, payments=0, differences=0, remaining=0, now_s=space.now_s
        )

    store.run(work)


def shown(sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in postgres.rows(0, sql, ())]


# ---- what was read of a payment before another server booked it


def test_a_case_that_went_back_is_not_opened_again_by_an_older_reading(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    assert here.settle("pi_1") == ("quarantined", "amount_mismatch")
    meanwhile.at(
        monkeypatch, gateway, "retrieve_payment", lambda: there.refund(1, Decision("twice"))
    )
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status FROM credit_case") == [("refunded",)]


def test_a_case_is_opened_again_once_if_its_refund_fails_and_not_by_an_older_reading(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    here.settle("pi_1")
    there.refund(1, Decision("twice"))

    def fails_and_is_refunded_again() -> None:
        gateway.refund_fails("re_1")
        Settler(servers[1], gateway).settle("pi_1")

    meanwhile.at(monkeypatch, gateway, "retrieve_payment", fails_and_is_refunded_again)
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
    monkeypatch: pytest.MonkeyPatch,
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

    meanwhile.at(monkeypatch, gateway, "payment_disputes", the_end_is_told)
    here.settle("pi_1")
    meanwhile.end()
    assert shown("SELECT status, is_closed FROM credit_dispute") == [(newer, 1)]


# ---- stops of all charges, and databases from a backup


def test_a_stop_of_all_stands_though_another_server_lifts_the_one_before(
    both: tuple[Guthaben, Guthaben], meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = map(TopupStops, both)
    here.stop(None, reason="a test")
    meanwhile.at(monkeypatch, attempts, "lift_stop", lambda: there.stop(None, reason="a fire"))
    assert here.resume(None)
    meanwhile.end()
    assert meanwhile.answers == [True]
    assert shown("SELECT practice_no, reason FROM credit_topup_stop") == [(0, "a fire")]


def test_of_two_stops_at_once_the_first_stands(
    both: tuple[Guthaben, Guthaben], meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = map(TopupStops, both)
    meanwhile.at(monkeypatch, attempts, "put_stop", lambda: there.stop(None, reason="later"))
    assert here.stop(None, reason="first")
    meanwhile.end()
    assert meanwhile.answers == [False]
    assert shown("SELECT reason FROM credit_topup_stop") == [("first",)]


@pytest.mark.parametrize("was_marked", [True, False])
def test_who_goes_on_does_not_lift_the_mark_of_a_backup_restored_in_this_moment(
    both: tuple[Guthaben, Guthaben],
    servers: tuple[Store, Store],
    clock: Clock,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
    was_marked: bool,
) -> None:
    (here, there), stops = servers, TopupStops(both[0])
    if was_marked:
        restored_again(there)
        clock.wait(60)
        reconciled(here)
        clock.wait(60)
    else:
        stops.stop(None, reason="a test")
    meanwhile.at(monkeypatch, restored, "mark_of", lambda: restored_again(there))
    stops.resume(None)
    meanwhile.end()
    found = there.read(restored.mark_of)
    assert found is not None
    assert found.at_s == clock.at_s
    assert shown("SELECT reason FROM credit_topup_stop") == [(restored.REASON,)]


# ---- licences


@pytest.fixture
def sellers(
    both: tuple[Guthaben, Guthaben], gateway: FakeGateway
) -> tuple[LicenceNews, LicenceNews]:
    PlanBook(both[0].core).set("basic", 20 * USD)
    here, there = (LicenceNews(each.core.store, gateway) for each in both)
    return here, there


@pytest.mark.parametrize("place", ["owner_of", "named"])
def test_of_a_new_subscription_the_newer_answer_stands(
    both: tuple[Guthaben, Guthaben],
    sellers: tuple[LicenceNews, LicenceNews],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    here, there = sellers
    gateway.subscriptions["sub_1"] = subscription("basic")

    def it_has_ended() -> None:
        gateway.subscriptions["sub_1"] = subscription("basic", status="canceled", ended_at=NOON)
        there.ask("sub_1")

    meanwhile.at(monkeypatch, licence_state, place, it_has_ended)
    here.ask("sub_1")
    meanwhile.end()
    assert shown("SELECT status, is_over FROM credit_subscription") == [("canceled", 1)]
    assert not show(both[0].core, PRACTICE).active


def test_an_operator_hears_that_it_was_bound_to_another_practice_meanwhile(
    both: tuple[Guthaben, Guthaben],
    sellers: tuple[LicenceNews, LicenceNews],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway.subscriptions["sub_1"] = subscription("basic")
    licences = Licences(both[0], gateway, livemode=True)
    meanwhile.at(monkeypatch, licences, "_owner", lambda: sellers[1].ask("sub_1"))
    with pytest.raises(Refused, match="another practice"):
        licences.assign(OTHER, "sub_1")
    meanwhile.end()


def test_what_is_held_in_the_moment_of_its_assignment_does_not_wait_for_ever(
    both: tuple[Guthaben, Guthaben],
    sellers: tuple[LicenceNews, LicenceNews],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = sellers
    gateway.subscriptions["sub_1"] = subscription("basic", metadata={})
    meanwhile.at(monkeypatch, licence_state, "owner_of", lambda: there.assign("sub_1", PRACTICE))
    here.ask("sub_1")
    meanwhile.end()
    here.ask("sub_1")
    assert held(both[0].core) == []
    assert shown("SELECT code FROM credit_alarm WHERE cleared_at_s = 0") == []


# ---- what is told of what another server has done by then


class Late(FakeGateway):
    """Answers with an error, after another server has done what the test says."""

    meanwhile: Callable[[], None]

    def retrieve_payment(self, payment_id: str) -> PaymentFacts:
        self.meanwhile()
        raise PaymentRejected("There is no such payment yet.")

    def expire_checkout(self, session_id: str) -> CheckoutFacts:
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


# ---- nobody waits in a circle: practices in the order of their numbers, other rows after them


@pytest.fixture
def circles(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Every circle that PostgreSQL had to break."""
    found, roll_back = list[BaseException](), PostgresSession.roll_back

    def noting(session: PostgresSession, error: BaseException) -> None:
        if isinstance(error, psycopg.errors.DeadlockDetected):
            found.append(error)
        roll_back(session, error)

    monkeypatch.setattr(PostgresSession, "roll_back", noting)
    return found


def test_practices_of_a_payment_are_locked_in_the_order_of_a_batch(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
    circles: list[BaseException],
) -> None:
    here, there = servers
    for name in ("z", "a"):  # "z" has the lower number
        topup = CreditEvent(0, "topup_purchase", "pending", USD, CHF_30, topup_id=f"tu_{name}")
        there.execute(name, OpenEvent(topup))
    gateway.put("pi_1", metadata=metadata_of("tu_a", practice_id="z"))
    asked = [("a", Reserve("k", 1)), ("z", Reserve("k", 1))]
    meanwhile.at(
        monkeypatch, practices, "load_practice",
        lambda: there.run(lambda space: space.prepare(asked)),
    )  # fmt: skip
    assert Settler(here, gateway).settle("pi_1")[0] == "quarantined"
    meanwhile.end()
    assert circles == []


@pytest.mark.parametrize("decide", ["credit", "dismiss"])
def test_who_decides_about_a_case_waits_for_its_practice_first(
    servers: tuple[Store, Store],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
    circles: list[BaseException],
    decide: str,
) -> None:
    gateway.put("pi_1", metadata={**metadata_of(""), "paid_chf": "31"})
    here, there = Settler(servers[0], gateway), quarantine_of(servers[1], gateway)
    here.settle("pi_1")
    gateway.give_back("pi_1", CHF_30)

    decision = Decision("seen to")
    asked = {
        "credit": lambda: there.credit(1, PRACTICE, decision),
        "dismiss": lambda: there.dismiss(1, decision),
    }

    def decided() -> str:
        with pytest.raises(Refused) as refused:
            asked[decide]()
        return refused.value.reason

    meanwhile.at(monkeypatch, cases, "of_payment", decided)
    here.settle("pi_1")
    meanwhile.end()
    assert (circles, meanwhile.answers) == ([], ["case_resolved"])
    assert shown("SELECT status FROM credit_case") == [("refunded",)]


def test_new_practices_are_stored_in_one_order_by_everybody(
    servers: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, insert = list[str](), practices.insert_practice

    def noting(cursor: Cursor, practice: Practice) -> int:
        stored.append(practice.practice_id)
        return insert(cursor, practice)

    def give_all(space: Workspace) -> None:
        for number in range(20):
            space.apply(f"p{number % 7}{number}", GrantCredit("k", 3, USD))

    monkeypatch.setattr(practices, "insert_practice", noting)
    servers[0].run(give_all)
    assert stored == sorted(stored)
    assert len(stored) == 20
