"""The inbox as an operator sees it."""

from __future__ import annotations

import pytest

from guthaben.errors import InvalidInput, Refused, WebhookRejected
from guthaben.services.letters import ALL, WAITING, Letters
from guthaben.services.webhooks import MOST_ATTEMPTS
from tests.services.house import TEN_USD, House, metadata_of, page_of

WHY = "the payment is there now"


@pytest.fixture
def dead(house: House) -> House:
    """An event whose payment nobody knew, given up after three days."""
    house.open_purchase()
    house.post(house.envelope("checkout.session.completed", page_of()))
    for _ in range(MOST_ATTEMPTS):
        house.clock.wait(86_400)
        house.inbox.work_once()
    return house


def test_a_dead_event_is_listed_and_heard_of(dead: House) -> None:
    (row,) = Letters(dead.store).page()
    assert (row.event_id, row.status, row.attempts) == ("evt_1", "dead", MOST_ATTEMPTS)
    assert dead.alarms("webhook_dead") == ["webhook_dead"]
    assert dead.rows("SELECT kind FROM credit_notice") == [{"kind": "dead_letter"}]
    assert Letters(dead.store).payload("evt_1")["data"]["object"]["id"] == "cs_1"


def test_a_dead_event_is_applied_when_it_is_asked_for_again(dead: House) -> None:
    dead.gateway.put("pi_1", metadata=metadata_of())
    row = Letters(dead.store).retry("evt_1", WHY, "ada")
    assert (row.status, row.attempts) == ("new", 0)
    assert dead.inbox.work_once() == 1
    assert dead.credit() == TEN_USD
    view = Letters(dead.store).show("evt_1")
    assert view.row.status == "done"
    assert [(one.action, one.author, one.reason) for one in view.notes] == [("retry", "ada", WHY)]
    assert Letters(dead.store).retry("evt_1", WHY).status == "done"  # and stays so
    assert dead.rows("SELECT 1 FROM credit_alarm WHERE cleared_at_s = 0") != []  # waited long


def test_a_discarded_event_is_kept_and_never_applied(dead: House) -> None:
    dead.gateway.put("pi_1", metadata=metadata_of())
    row = Letters(dead.store).discard("evt_1", "a test of ours")
    assert (row.status, row.reason) == ("ignored", "discarded")
    dead.clock.wait(86_400)
    assert dead.inbox.work_once() == 0
    assert Letters(dead.store).retry("evt_1", WHY).status == "ignored"
    assert (dead.credit(), len(Letters(dead.store).page(ALL))) == (0, 1)


def test_an_event_of_another_mode_is_never_applied(house: House) -> None:
    with pytest.raises(WebhookRejected):
        house.post(house.envelope("checkout.session.completed", page_of(), livemode=False))
    with pytest.raises(Refused) as caught:
        Letters(house.store).retry("evt_1", WHY)
    assert caught.value.reason == "event_not_for_us"
    assert Letters(house.store).discard("evt_1", "wrong endpoint").status == "ignored"


def test_a_waiting_event_can_be_hastened(house: House) -> None:
    house.open_purchase()
    house.post(house.envelope("checkout.session.completed", page_of()))
    house.inbox.work_once()  # the payment is not there yet
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.inbox.work_once() == 0
    assert [row.event_id for row in Letters(house.store).page(WAITING)] == ["evt_1"]
    Letters(house.store).retry("evt_1", WHY)
    assert house.inbox.work_once() == 1


def test_events_are_paged_in_the_order_of_their_arrival(house: House) -> None:
    for _ in range(5):
        house.post(house.envelope("customer.created", {"id": "cus_1"}))
    letters, seen, after = Letters(house.store), [], (-1, "")
    while page := letters.page(ALL, after, 2):
        seen += [row.event_id for row in page]
        after = (page[-1].received_at_s, page[-1].event_id)
    assert seen == [f"evt_{number}" for number in range(1, 6)]


def test_what_an_operator_does_says_why(dead: House) -> None:
    for change in (Letters(dead.store).retry, Letters(dead.store).discard):
        with pytest.raises(InvalidInput):
            change("evt_1", "")
    with pytest.raises(Refused) as caught:
        Letters(dead.store).show("evt_9")
    assert caught.value.reason == "event_not_found"
