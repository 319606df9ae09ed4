"""Nobody waits in a circle: practices in the order of their numbers, other rows after them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from guthaben.channels.results import Never
from guthaben.config import MailSettings
from guthaben.domain.commands import GrantCredit, OpenEvent, Reserve
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent
from guthaben.errors import Refused
from guthaben.services.delivery import Dispatcher
from guthaben.services.notices import Notice, tell
from guthaben.services.quarantine import Decision
from guthaben.services.settling import Settler
from guthaben.services.targets import Targets
from guthaben.store import cases, outbox, practices
from guthaben.store.postgres_session import PostgresSession
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests.meanwhile import Meanwhile
from tests.services.fakes import FakeGateway
from tests.services.house import CHF_30, PRACTICE, USD, metadata_of
from tests.services.test_two_servers import quarantine_of, shown

MAIL = MailSettings("127.0.0.1", 25, "none", None, None, "a@b.example", "G")


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
    circles: list[BaseException],
) -> None:
    here, there = servers
    for name in ("z", "a"):  # "z" has the lower number
        topup = CreditEvent(0, "topup_purchase", "pending", USD, CHF_30, topup_id=f"tu_{name}")
        there.execute(name, OpenEvent(topup))
    gateway.put("pi_1", metadata=metadata_of("tu_a", practice_id="z"))
    asked = [("a", Reserve("k", 1)), ("z", Reserve("k", 1))]
    meanwhile.at(
        practices, "load_practice",
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

    meanwhile.at(cases, "of_payment", decided)
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


def test_who_gives_a_message_up_waits_for_its_practice_first(
    servers: tuple[Store, Store],
    meanwhile: Meanwhile,
    circles: list[BaseException],
) -> None:
    here, there = servers
    contact = Targets(there).add_contact(PRACTICE, "ana@example.com")
    here.run(lambda space: tell(space, PRACTICE, Notice.EMPTY, "k", {"debt_nano_usd": 0}))
    refused = Never("no_such_mailbox")
    dispatcher = Dispatcher(here, mail=lambda: MAIL, send=lambda *_message: refused)
    here.run(dispatcher._spread_some)
    meanwhile.at(
        outbox, "close",
        lambda: Targets(there).erase_contact(PRACTICE, contact.contact_id),
    )  # fmt: skip
    with ThreadPoolExecutor(1) as senders:
        assert dispatcher.send_due(senders) == 1
    meanwhile.end()
    assert circles == []
    assert shown("SELECT status FROM credit_delivery") == [("dead",)]
