"""The inbox: verified and stored before it is answered, then applied until it is done.

What can't be applied blocks nobody; it is tried again with growing pauses, and ends dead with an
alarm. Nothing is deleted.
"""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from guthaben.errors import PaymentRejected, PaymentUnavailable, StoreUnavailable, WebhookRejected
from guthaben.services.webhooks import MOST_ATTEMPTS, Inbox
from tests.services.conftest import Build
from tests.services.house import (
    PRACTICE,
    SECRET,
    TEN_USD,
    House,
    in_parallel,
    metadata_of,
    page_of,
    sign,
)

DAY_S = 86_400


@pytest.fixture
def paid(house: House) -> House:
    """A purchase whose payment succeeded; nobody has told of it."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    return house


def reason_of(house: House, body: bytes, header: str | None) -> WebhookRejected:
    """Receive something that must be rejected, and see that nothing is stored."""
    with pytest.raises(WebhookRejected) as caught:
        house.inbox.receive(body, header)
    assert house.letters() == {}
    return caught.value


def letter(house: House, event_id: str) -> dict[str, Any]:
    """One stored event."""
    return house.letters()[event_id]


def completed(house: House, **fields: Any) -> dict[str, Any]:
    """The event that the page was paid."""
    return house.envelope("checkout.session.completed", page_of(), **fields)


# ---------------------------------------------------------------- receiving


def test_an_event_is_stored_before_it_is_answered_and_nobody_is_asked(paid: House) -> None:
    event = completed(paid)
    body = json.dumps(event).encode()
    assert paid.post(body) is True
    row = letter(paid, event["id"])
    assert (row["status"], row["attempts"], row["event_type"]) == ("new", 0, event["type"])
    assert bytes(row["payload"]) == body
    assert row["received_at_s"] == paid.clock.at_s
    assert (paid.gateway.asked, paid.credit()) == ([], 0)


def test_an_event_that_comes_again_is_stored_once(paid: House) -> None:
    event = completed(paid)
    assert [paid.post(event) for _ in range(3)] == [True, False, False]
    paid.inbox.work_once()
    assert paid.post(event) is False
    assert paid.inbox.work_once() == 0
    assert (len(paid.letters()), paid.credit()) == (1, TEN_USD)


def test_an_event_that_comes_twenty_times_at_once_is_stored_once(paid: House) -> None:
    event = completed(paid)
    found = in_parallel(20, lambda _i: paid.post(event))
    assert sorted(found, key=bool) == [False] * 19 + [True]


def test_an_event_signed_again_after_three_days_is_the_same_event(paid: House) -> None:
    event = completed(paid)
    paid.post(event)
    paid.clock.wait(3 * DAY_S)
    assert paid.post(event) is False


def test_two_endpoints_that_tell_of_one_payment_make_one_credit(paid: House) -> None:
    for _ in range(2):
        paid.post(completed(paid))  # two events with two ids
    paid.inbox.work_once()
    assert paid.credit() == TEN_USD


@pytest.mark.parametrize("secret", ["whsec_other", SECRET + "x"])
def test_a_wrong_signature_stores_nothing(paid: House, secret: str) -> None:
    body = json.dumps(completed(paid)).encode()
    error = reason_of(paid, body, sign(body, paid.clock.at_s, secret))
    assert (error.reason, error.authentic) == ("wrong_signature", False)


@pytest.mark.parametrize("header", [None, "", "garbage", "t=1", "v1=abc", "t=1,v0=abc", "t=,v1="])
def test_a_header_that_is_none_stores_nothing(paid: House, header: str | None) -> None:
    assert reason_of(paid, b"{}", header).authentic is False


@pytest.mark.parametrize(("late_s", "reason"), [
    (301, "signature_too_old"), (-301, "signature_from_future"),
])  # fmt: skip
def test_a_signature_of_another_time_stores_nothing(paid: House, late_s: int, reason: str) -> None:
    body = json.dumps(completed(paid)).encode()
    assert reason_of(paid, body, sign(body, paid.clock.at_s - late_s)).reason == reason


@pytest.mark.parametrize("late_s", [300, -300, 0])
def test_a_signature_within_five_minutes_is_taken(paid: House, late_s: int) -> None:
    body = json.dumps(completed(paid)).encode()
    assert paid.inbox.receive(body, sign(body, paid.clock.at_s - late_s)) is True


def test_a_changed_body_stores_nothing(paid: House) -> None:
    body = json.dumps(completed(paid)).encode()
    header = sign(body, paid.clock.at_s)
    assert reason_of(paid, body.replace(b"cs_1", b"cs_2"), header).reason == "wrong_signature"
    assert reason_of(paid, body + b" ", header).reason == "wrong_signature"


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b'{"a":1}', b"{", b'{"id":1,"id":2}'])
def test_a_signed_body_that_is_no_event_stores_nothing(house: House, body: bytes) -> None:
    assert reason_of(house, body, sign(body, house.clock.at_s)).authentic is True


def test_without_a_secret_nothing_is_taken(house: House) -> None:
    bare = Inbox(house.guthaben, house.gateway, secrets=lambda: ("", " "), livemode_expected=True)
    with pytest.raises(WebhookRejected) as caught:
        bare.receive(b"{}", sign(b"{}", house.clock.at_s, " "))
    assert caught.value.reason == "no_secret_configured"


def test_the_secrets_are_asked_for_at_each_event(paid: House) -> None:
    secrets = ["whsec_old"]
    inbox = Inbox(
        paid.guthaben, paid.gateway, secrets=lambda: tuple(secrets), livemode_expected=True
    )
    body = json.dumps(completed(paid)).encode()
    header = sign(body, paid.clock.at_s, "whsec_new")
    with pytest.raises(WebhookRejected):
        inbox.receive(body, header)
    secrets.append("whsec_new")
    assert inbox.receive(body, header) is True


@pytest.mark.parametrize(("expected", "told", "taken"), [
    (True, True, True), (True, False, False), (False, False, True), (False, True, False),
    (None, True, True), (None, False, True),
])  # fmt: skip
def test_an_event_of_the_other_mode_is_refused(
    build: Build, expected: bool | None, told: bool, taken: bool
) -> None:
    house = build(livemode=expected)
    event = completed(house, livemode=told)
    if taken:
        assert house.post(event) is True
        return
    with pytest.raises(WebhookRejected) as caught:
        house.post(event)
    assert (caught.value.reason, caught.value.authentic) == ("wrong_livemode", True)
    kept_apart(house, event, "wrong_livemode")


def kept_apart(house: House, event: dict[str, Any], reason: str) -> None:
    """See that an event is kept, is never applied, and that somebody hears of it."""
    with pytest.raises(WebhookRejected):  # and it stays so
        house.post(event)
    row = letter(house, event["id"])
    assert (row["status"], row["reason"]) == ("quarantined", reason)
    house.inbox.work_once()
    assert letter(house, event["id"])["status"] == "quarantined"
    assert (house.gateway.asked, house.alarms()) == ([], ["webhook_not_for_us"])


def test_an_event_of_a_connected_account_is_refused(house: House) -> None:
    event = completed(house, account="acct_1")
    with pytest.raises(WebhookRejected, match="wrong_account"):
        house.post(event)
    kept_apart(house, event, "wrong_account")


@pytest.mark.parametrize(("told", "taken"), [
    (None, True), ("acct_ours", True), ("acct_theirs", False), ("", False),
])  # fmt: skip
def test_an_event_may_name_our_own_account(
    paid: House, told: str | None, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTHABEN_STRIPE_ACCOUNT", "acct_ours")
    event = completed(paid) if told is None else completed(paid, account=told)
    if taken:
        assert paid.post(event) is True
        return
    with pytest.raises(WebhookRejected, match="wrong_account"):
        paid.post(event)


def test_a_store_that_is_down_answers_nothing(paid: House) -> None:
    event = completed(paid)
    paid.guthaben.close()
    with pytest.raises(StoreUnavailable):
        paid.post(event)


# ---------------------------------------------------------------- working


def test_events_are_closed_one_by_one_and_counted(paid: House) -> None:
    for _ in range(3):
        paid.post(completed(paid))
    assert paid.inbox.work_once(limit=2) == 2
    assert paid.inbox.work_once() == 1
    assert paid.inbox.work_once() == 0
    assert {row["status"] for row in paid.letters().values()} == {"done"}


def test_no_transaction_is_open_while_the_provider_is_asked(paid: House) -> None:
    paid.post(completed(paid))
    paid.inbox.work_once()
    assert [seen.others_could_write for seen in paid.gateway.asked] == [True]


def test_four_threads_that_work_at_once_apply_once(paid: House) -> None:
    for number in range(6):
        paid.open_purchase(f"tu_x{number}", session_id=f"cs_x{number}")
        paid.gateway.put(f"pi_x{number}", metadata=metadata_of(f"tu_x{number}"))
        page = page_of(f"cs_x{number}", f"pi_x{number}")
        paid.post(paid.envelope("checkout.session.completed", page))
    found = in_parallel(4, lambda _i: paid.inbox.work_once())
    assert not [one for one in found if isinstance(one, BaseException)]
    assert paid.credit() == 6 * TEN_USD
    rows = paid.letters().values()
    assert {row["status"] for row in rows} == {"done"}
    assert paid.alarms() == []


def test_a_worker_that_fails_late_does_not_undo_what_another_did(paid: House) -> None:
    event = completed(paid)
    paid.post(event)
    asked, go = threading.Event(), threading.Event()
    real = paid.gateway.retrieve_payment

    def slow(payment_id: str) -> Any:
        asked.set()
        go.wait(10)
        raise PaymentRejected("late")

    paid.gateway.retrieve_payment = slow  # type: ignore[method-assign]
    worker = threading.Thread(target=paid.inbox.work_once)
    worker.start()
    assert asked.wait(10)
    paid.gateway.retrieve_payment = real  # type: ignore[method-assign]
    paid.inbox.work_once()
    go.set()
    worker.join(10)
    row = letter(paid, event["id"])
    assert (row["status"], row["reason"]) == ("done", "credited")


def test_kinds_that_move_no_money_are_ignored(house: House) -> None:
    for kind in ("invoice.created", "customer.created", "payment_intent.created", "x.y"):
        assert house.tell(kind, {"id": "in_1", "object": "invoice"}) == "ignored:type"
    about = {"id": "in_1", "object": "invoice"}
    assert house.tell("invoice.paid", about) == "ignored:no_subscription"
    assert house.gateway.asked == []


# ---------------------------------------------------------------- trying again


def test_while_the_provider_is_down_an_event_is_tried_again_with_growing_pauses(
    paid: House,
) -> None:
    event = completed(paid)
    paid.post(event)
    paid.gateway.down = PaymentUnavailable("down")
    pauses = []
    for attempt in range(1, 9):
        assert paid.inbox.work_once() == 0
        row = letter(paid, event["id"])
        assert (row["status"], row["attempts"], row["reason"]) == (
            "new", attempt, "payment_unavailable",
        )  # fmt: skip
        pause_s = row["next_try_at_s"] - paid.clock.at_s
        pauses.append(pause_s)
        paid.clock.wait(pause_s - 1)
        asked = len(paid.gateway.asked)
        paid.inbox.work_once()  # not due yet
        assert len(paid.gateway.asked) == asked
        paid.clock.wait(1)
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640]
    paid.gateway.down = None
    assert paid.inbox.work_once() == 1
    assert (letter(paid, event["id"])["status"], paid.credit()) == ("done", TEN_USD)


def test_a_provider_that_is_down_for_a_day_loses_nothing(paid: House) -> None:
    event = completed(paid)
    paid.post(event)
    paid.gateway.down = PaymentUnavailable("down")
    for _ in range(24 * 60):
        paid.clock.wait(60)
        paid.inbox.work_once()
    paid.gateway.down = None
    paid.clock.wait(6 * 3_600)
    paid.inbox.work_once()
    assert (letter(paid, event["id"])["status"], paid.credit()) == ("done", TEN_USD)


def test_a_provider_that_is_down_for_a_week_loses_nothing(paid: House) -> None:
    event = completed(paid)
    paid.post(event)
    paid.gateway.down = PaymentUnavailable("down")
    for _ in range(7 * 24 * 4):
        paid.clock.wait(900)
        paid.inbox.work_once()
    assert letter(paid, event["id"])["attempts"] > MOST_ATTEMPTS
    paid.gateway.down = None
    paid.clock.wait(900)
    paid.inbox.work_once()
    assert (letter(paid, event["id"])["status"], paid.credit()) == ("done", TEN_USD)


def test_a_key_that_was_revoked_stops_the_batch(paid: House) -> None:
    for _ in range(5):
        paid.post(completed(paid))
    paid.gateway.down = PaymentUnavailable("no", http_status=401)
    assert paid.inbox.work_once() == 0
    assert len(paid.gateway.asked) == 1
    assert sorted(row["attempts"] for row in paid.letters().values()) == [0, 0, 0, 0, 1]
    paid.gateway.down = None
    paid.clock.wait(5)
    assert paid.inbox.work_once() == 5


def test_an_event_that_waits_long_raises_an_alarm_long_before_it_is_given_up(paid: House) -> None:
    paid.post(completed(paid))
    paid.gateway.down = PaymentUnavailable("down")
    for _ in range(60):
        paid.clock.wait(60)
        paid.inbox.work_once()
    assert paid.alarms() == ["webhook_waiting"]


POISON: dict[str, tuple[str, Any]] = {
    "a page without an id": ("checkout.session.completed", {"object": "checkout.session"}),
    "a page with another's id": ("checkout.session.completed", {"id": "pi_1"}),
    "a payment without an id": ("payment_intent.succeeded", {}),
    "a payment nobody knows": ("payment_intent.succeeded", {"id": "pi_gone"}),
    "a refund of nothing": ("charge.refunded", {"id": 5}),
    "a set-up nobody knows": (
        "checkout.session.completed", {**page_of(), "mode": "setup", "setup_intent": "seti_gone"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "about"), POISON.values(), ids=POISON)
def test_a_poisoned_event_ends_dead_with_an_alarm_and_blocks_nobody(
    paid: House, kind: str, about: Any
) -> None:
    poison = paid.envelope(kind, about)
    paid.post(poison)
    paid.post(completed(paid))
    paid.inbox.work_once()
    assert paid.credit() == TEN_USD  # the neighbour
    for _ in range(MOST_ATTEMPTS):
        paid.clock.wait(DAY_S)
        paid.inbox.work_once()
    row = letter(paid, poison["id"])
    assert (row["status"], row["attempts"]) == ("dead", MOST_ATTEMPTS)
    assert bytes(row["payload"]) != b""  # nothing is lost
    assert paid.alarms("webhook_dead") == ["webhook_dead"]
    assert paid.inbox.work_once() == 0


def test_a_hundred_poisoned_events_block_nobody(paid: House) -> None:
    for _ in range(100):
        paid.post(paid.envelope("payment_intent.succeeded", {}))
    paid.clock.wait(1)
    paid.post(completed(paid))
    for _ in range(3):
        paid.inbox.work_once()
    assert paid.credit() == TEN_USD


def test_a_handler_that_breaks_is_tried_again(paid: House) -> None:
    paid.gateway.down = RuntimeError("a bug")  # type: ignore[assignment]
    event = completed(paid)
    paid.post(event)
    assert paid.inbox.work_once() == 0
    assert letter(paid, event["id"])["reason"] == "internal"
    paid.gateway.down = None
    paid.clock.wait(5)
    assert paid.inbox.work_once() == 1
    assert paid.credit() == TEN_USD


def test_what_the_inbox_does_is_in_the_journal(paid: House) -> None:
    paid.post(completed(paid))
    paid.inbox.work_once()
    (line,) = paid.guthaben.statement(PRACTICE).entries
    assert (line.what, line.source, line.target) == ("fulfil", "purchased", "paid")
