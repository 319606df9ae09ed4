"""Fifty kinds of bad input from Stripe and from people, and what each must come to.

`TABLE` names every case by its number with the outcome that is expected. A case is either a test in
this file or one elsewhere that is named by its path; the last test sees that all fifty are there
and that what is named exists.
"""

from __future__ import annotations

import ast
import gzip
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import stripe

from guthaben.domain.commands import SetPolicy
from guthaben.domain.practice import CLOSED, FROZEN
from guthaben.errors import InvalidAmount, InvalidInput, PaymentUnavailable, WebhookRejected
from guthaben.payments.facts import payment_facts
from guthaben.payments.gateway import check_idempotency_key
from guthaben.services.reconcile import Reconciler
from guthaben.services.webhooks import Inbox
from tests.services.house import (
    CHF_30,
    COMPLETED,
    INTENT,
    OTHER,
    PRACTICE,
    SECRET,
    SUCCEEDED,
    TEN_USD,
    USD,
    House,
    in_parallel,
    metadata_of,
    page_of,
    sign,
)

ROOT = Path(__file__).parents[2]
CHARGE = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"}
DAY_S = 86_400

TABLE: dict[int, tuple[str, ...]] = {}
"""Per case: the expected outcome, then the tests elsewhere that see to it (none: it is here)."""


def case(number: int, outcome: str) -> Callable[[Any], Any]:
    """Say which case a test is, and what is expected."""
    assert number not in TABLE
    TABLE[number] = (outcome,)
    return lambda test: test


def elsewhere(number: int, outcome: str, *tests: str) -> None:
    """Say which tests elsewhere see to a case."""
    assert number not in TABLE
    TABLE[number] = (outcome, *tests)


@pytest.fixture
def paid(house: House) -> House:
    """A purchase of ours whose payment the provider has; nobody has told of it."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    return house


@pytest.fixture
def bought(paid: House) -> House:
    """The same, told and credited."""
    assert paid.tell(COMPLETED, page_of()) == "done:credited"
    return paid


# ---------------------------------------------------------------- repetition and order


@case(1, "one credit; the second delivery is not even stored")
def test_01_the_same_event_twice(paid: House) -> None:
    event = paid.envelope(COMPLETED, page_of())
    assert [paid.post(event), paid.post(event)] == [True, False]
    paid.inbox.work_once()
    assert paid.credit() == TEN_USD


@case(2, "one row, one credit")
def test_02_the_same_event_twenty_times_at_once(paid: House) -> None:
    event = paid.envelope(COMPLETED, page_of())
    found = in_parallel(20, lambda _i: paid.post(event))
    in_parallel(4, lambda _i: paid.inbox.work_once())
    assert (sorted(found, key=bool)[-2:], paid.credit()) == ([False, True], TEN_USD)


@case(3, "one credit for the payment, whichever event is first")
@pytest.mark.parametrize("order", [(COMPLETED, SUCCEEDED), (SUCCEEDED, COMPLETED)])
def test_03_two_events_of_one_payment(paid: House, order: tuple[str, str]) -> None:
    for kind in order:
        paid.post(paid.envelope(kind, page_of() if kind == COMPLETED else INTENT))
    paid.inbox.work_once()
    assert (paid.credit(), paid.statuses()) == (TEN_USD, ["succeeded"])


elsewhere(
    4, "credited by the event; the answer of the call adds nothing",
    "tests/services/test_auto_topup_charges.py::"
    "test_a_success_told_by_webhook_before_the_answer_is_credited_once",
    "tests/services/test_topups.py::test_a_payment_told_before_the_page_was_noted_is_credited_once",
)  # fmt: skip


@case(5, "nothing is taken back and nothing paused")
@pytest.mark.parametrize("kind", [
    "payment_intent.payment_failed", "checkout.session.async_payment_failed",
    "payment_intent.canceled",
])  # fmt: skip
def test_05_a_failure_told_after_the_success(bought: House, kind: str) -> None:
    bought.arm()
    about = INTENT if kind.startswith("payment_intent") else page_of(payment_status="unpaid")
    bought.tell(kind, {**about, "status": "requires_payment_method"})
    assert (bought.credit(), bought.topups.settings(PRACTICE).enabled) == (TEN_USD, True)


@case(6, "no credit until it is paid; then credit, or a failed purchase")
@pytest.mark.parametrize("ends", ["succeeded", "failed"])
def test_06_completed_but_unpaid(paid: House, ends: str) -> None:
    paid.gateway.put("pi_1", status="processing", amount_received_rappen=0)
    assert paid.tell(COMPLETED, page_of(payment_status="unpaid")) == "done:not_paid_yet"
    assert paid.credit() == 0
    done = ends == "succeeded"
    paid.gateway.put("pi_1", status="succeeded" if done else "requires_payment_method",
                     amount_received_rappen=CHF_30 if done else 0)  # fmt: skip
    kind = f"checkout.session.async_payment_{ends}"
    paid.tell(kind, page_of(payment_status="paid" if done else "unpaid"))
    assert (paid.credit(), paid.statuses()) == (TEN_USD if done else 0, [ends])


@case(7, "credited")
def test_07_paid_later_without_having_been_completed(paid: House) -> None:
    told = paid.tell("checkout.session.async_payment_succeeded", page_of())
    assert (told, paid.credit()) == ("done:credited", TEN_USD)


@case(8, "our id on it: credited from our record, or kept for a person; never dropped")
@pytest.mark.parametrize("recorded", [True, False])
def test_08_a_page_that_our_books_do_not_know(house: House, recorded: bool) -> None:
    if recorded:  # the crash came between the record and the note of its page
        house.open_purchase(session_id="")
    house.gateway.put("pi_1", metadata=metadata_of())
    told = house.tell(COMPLETED, page_of("cs_unknown"))
    assert told == ("done:credited" if recorded else "quarantined:topup_unknown")
    assert house.credit() == (TEN_USD if recorded else 0)


@case(9, "a duplicate, for ever: the payment is known, not the event")
def test_09_replayed_after_the_inbox_was_emptied(bought: House) -> None:
    bought.clock.wait(31 * DAY_S)
    bought.change("DELETE FROM credit_inbox")
    assert bought.tell(COMPLETED, page_of()) == "done:duplicate"
    assert bought.credit() == TEN_USD


# ---------------------------------------------------------------- signatures and bodies


@case(10, "rejected both ways; at 300 s taken")
@pytest.mark.parametrize(("off_s", "taken"), [
    (-301, False), (-300, True), (300, True), (301, False), (10 * 365 * DAY_S, False),
])  # fmt: skip
def test_10_old_and_future_signatures(paid: House, off_s: int, taken: bool) -> None:
    body = json.dumps(paid.envelope(COMPLETED, page_of())).encode()
    header = sign(body, paid.clock.at_s + off_s)
    if taken:
        assert paid.inbox.receive(body, header)
        return
    with pytest.raises(WebhookRejected):
        paid.inbox.receive(body, header)


@case(11, "rejected; of two secrets either one is enough")
def test_11_signature_headers(paid: House) -> None:
    body = json.dumps(paid.envelope(COMPLETED, page_of())).encode()
    good = sign(body, paid.clock.at_s)
    bad = [None, "", "garbage", good.replace("v1=", "v0="), "t=1", good + ",t=5"]
    for header in bad:
        with pytest.raises(WebhookRejected):
            paid.inbox.receive(body, header)
    for secrets, taken in [(("",), False), ((), False), (("whsec_new", SECRET), True)]:
        inbox = Inbox(paid.guthaben, paid.gateway, secrets=lambda s=secrets: s,  # type: ignore[misc]
                      livemode_expected=True)  # fmt: skip
        if taken:
            assert inbox.receive(body, good)
            continue
        with pytest.raises(WebhookRejected):
            inbox.receive(body, sign(body, paid.clock.at_s, secrets[0] if secrets else ""))


@case(12, "rejected before anything is read of it")
@pytest.mark.parametrize("change", [
    lambda body: json.dumps(json.loads(body), indent=1).encode(), gzip.compress,
    lambda body: b"\xef\xbb\xbf" + body, lambda body: body + b"\xff\xfe",
    lambda body: body + b" " * 10_000_000, lambda _body: b"",
], ids=["re-serialised", "gzip", "BOM", "not UTF-8", "10 MB", "empty"])  # fmt: skip
def test_12_other_bytes_than_were_signed(paid: House, change: Callable[[bytes], bytes]) -> None:
    body = json.dumps(paid.envelope(COMPLETED, page_of())).encode()
    with pytest.raises(WebhookRejected):
        paid.inbox.receive(change(body), sign(body, paid.clock.at_s))
    assert paid.letters() == {}


@case(13, "answered as authentic, stored nowhere")
@pytest.mark.parametrize("body", [
    b"[]", b'"evt"', b"null", b"7", b"{}", b'{"id":"evt_1"}', b'{"id":"evt_1","type":"x.y"}',
    b'{"id":"e","type":"x.y","created":1,"livemode":true,"data":{"object":[]}}',
])  # fmt: skip
def test_13_signed_json_that_is_no_event(house: House, body: bytes) -> None:
    with pytest.raises(WebhookRejected) as caught:
        house.inbox.receive(body, sign(body, house.clock.at_s))
    assert (caught.value.authentic, house.letters()) == (True, {})


@case(14, "kept apart in the inbox, never applied, alarmed")
def test_14_an_event_of_the_other_mode(paid: House) -> None:
    with pytest.raises(WebhookRejected, match="wrong_livemode"):
        paid.post(paid.envelope(COMPLETED, page_of(), livemode=False))
    paid.inbox.work_once()
    assert (paid.credit(), paid.alarms()) == (0, ["webhook_not_for_us"])
    assert [row["status"] for row in paid.letters().values()] == ["quarantined"]


@case(15, "unknown kinds ignored, thin events refused, another account kept apart, the rest read")
def test_15_kinds_of_events_we_do_not_expect(paid: House) -> None:
    assert paid.tell("tomorrow.invented", {"id": "x_1"}) == "ignored:type"
    thin = {"id": "evt_t", "object": "v2.core.event", "type": "v1.billing.x", "created": 1,
            "livemode": True, "related_object": {}}  # fmt: skip
    with pytest.raises(WebhookRejected):
        paid.post(thin)
    with pytest.raises(WebhookRejected, match="wrong_account"):
        paid.post(paid.envelope(COMPLETED, page_of(), account="acct_9"))
    odd = {"api_version": "2031-01-01.hops", "brand_new": {"x": [1]}}
    assert paid.tell(COMPLETED, page_of(also=[{}]), **odd) == "done:credited"


@case(16, "read alike; a null payment in set-up mode is none")
def test_16_expanded_or_plain(paid: House) -> None:
    page = page_of(payment_intent={"id": "pi_1", "object": "payment_intent"},
                   customer={"id": "cus_1", "object": "customer"})  # fmt: skip
    assert paid.tell(COMPLETED, page) == "done:credited"
    setup = page_of("cs_2", None, mode="setup", setup_intent=None, payment_status=None)
    assert paid.tell(COMPLETED, setup) == "ignored:no_setup"


# ---------------------------------------------------------------- amounts, metadata, currency


@case(17, "our record decides; another practice is held back; without a practice a case")
@pytest.mark.parametrize(("metadata", "expected"), [
    ({}, "done:credited"), ({"topup_id": "tu_1"}, "done:credited"),
    (metadata_of(practice_id=OTHER), "quarantined:practice_mismatch"),
    (metadata_of(practice_id="x" * 501), "done:credited"),
    (metadata_of(internal_credit_usd="9999"), "done:credited"),
    (metadata_of("", practice_id=OTHER, paid_chf="30.00"), "quarantined:practice_mismatch"),
], ids=["missing", "our id", "another's", "too long", "edited", "to another"])  # fmt: skip
def test_17_metadata(paid: House, metadata: dict[str, str], expected: str) -> None:
    paid.gateway.put("pi_1", metadata=metadata)
    assert paid.tell(COMPLETED, page_of()) == expected
    assert (paid.credit() == TEN_USD) == (expected == "done:credited")
    assert paid.credit(OTHER) == 0


@case(18, "held back")
@pytest.mark.parametrize("received", [2_999, 3_001, 1, 100])
def test_18_another_amount_than_ordered(paid: House, received: int) -> None:
    paid.gateway.put("pi_1", amount_received_rappen=received)
    assert paid.tell(COMPLETED, page_of()) == "quarantined:amount_mismatch"
    assert paid.credit() == 0


@case(19, "held back; the case of the letters does not matter")
@pytest.mark.parametrize(("currency", "expected"), [
    ("eur", "quarantined:currency_mismatch"), ("jpy", "quarantined:currency_mismatch"),
    ("CHF", "done:credited"),
])  # fmt: skip
def test_19_other_currencies(paid: House, currency: str, expected: str) -> None:
    read = payment_facts({**INTENT, "currency": currency, "status": "succeeded"})
    paid.gateway.put("pi_1", currency=read.currency)
    assert paid.tell(COMPLETED, page_of()) == expected


@case(20, "refused before the provider hears of it")
@pytest.mark.parametrize("amount", [
    0, -1, 49, 999, 500_001, 10**12, True, 20.005, float("nan"), "1e3", "3000", None,
])  # fmt: skip
def test_20_amounts_that_are_none(house: House, amount: Any) -> None:
    with pytest.raises(InvalidAmount):
        house.topups.start_checkout(
            PRACTICE, amount, success_url="https://x", cancel_url="https://x"
        )
    assert (house.gateway.asked, house.events()) == ([], [])


# ---------------------------------------------------------------- answers that were lost

CHARGES = "tests/services/test_auto_topup_charges.py::"
elsewhere(
    21, "unknown; found out by the same key within 12 h, then looked up; one charge",
    CHARGES + "test_a_lost_answer_is_unknown_and_blocks_every_new_attempt",
    CHARGES + "test_within_twelve_hours_the_same_key_is_sent_again",
    CHARGES + "test_after_twelve_hours_the_payment_is_looked_up_and_never_sent_again",
)  # fmt: skip
elsewhere(
    22, "the attempt stays pending and is resolved; charged once",
    CHARGES
    + "test_a_store_that_is_down_after_the_charge_hears_of_it_later_without_a_second_charge",
)  # fmt: skip
elsewhere(
    23, "the recorded parameters are sent; a mismatch is unknown, its key is not changed",
    CHARGES + "test_a_retry_sends_what_was_recorded_even_when_the_settings_changed_since",
    "tests/payments/test_charge.py::test_exceptions",
)  # fmt: skip
elsewhere(
    24, "looked up, never sent",
    CHARGES + "test_after_twelve_hours_the_payment_is_looked_up_and_never_sent_again",
    "tests/services/test_operator_refunds.py::"
    "test_after_twelve_hours_it_is_looked_up_and_never_sent",
)  # fmt: skip


@case(25, "refused: the SDK would invent one, and charge again")
@pytest.mark.parametrize("key", ["", None, " ", "a b", "k" * 256, 5])
def test_25_an_empty_key(key: Any) -> None:
    with pytest.raises(InvalidInput):
        check_idempotency_key(key)


elsewhere(
    26, "409 and 500 leave the outcome unknown, 429 is certainly no charge",
    "tests/payments/test_charge.py::test_over_the_wire",
    "tests/sandbox/test_idempotency.py::test_a_500_is_replayed_though_the_charge_was_made",
)  # fmt: skip
CLAIMS = "tests/services/test_auto_topup_claims.py::"
elsewhere(
    27, "one attempt",
    CLAIMS + "test_fifty_threads_that_claim_at_once_get_one_attempt",
    CLAIMS + "test_the_database_itself_refuses_a_second_attempt_in_flight",
    CHARGES + "test_a_processing_payment_is_credited_when_it_succeeds",
)  # fmt: skip
elsewhere(
    28, "one charge per cooldown: no loop",
    CLAIMS + "test_the_watch_does_not_claim_again_in_the_cooldown",
    CLAIMS + "test_a_crowd_that_claims_again_and_again_gets_exactly_what_fits_the_cap",
)  # fmt: skip
elsewhere(
    29, "not charged",
    CHARGES + "test_switched_off_before_the_attempt_was_sent_the_card_is_not_charged",
    "tests/services/test_charger.py::test_what_is_not_wanted_any_more_when_its_turn_comes_is_not_charged",
    CLAIMS + "test_a_frozen_practice_is_metered_and_not_claimed_for",
)  # fmt: skip


@case(30, "credit for succeeded only; a status never seen is waited for")
@pytest.mark.parametrize("status", [
    "processing", "requires_action", "requires_confirmation", "requires_capture",
    "requires_payment_method", "canceled", "made_up_tomorrow",
])  # fmt: skip
def test_30_every_status_of_a_payment(paid: House, status: str) -> None:
    paid.gateway.put("pi_1", status=status)
    assert paid.tell(SUCCEEDED, {**INTENT, "status": "succeeded"}) == f"done:payment_{status}"
    assert paid.credit() == 0
    paid.gateway.put("pi_1", status="succeeded")
    assert paid.tell(SUCCEEDED, INTENT) == "done:credited"


elsewhere(
    31, "declined, with whatever is known",
    "tests/payments/test_charge.py::test_exceptions",
    CHARGES + "test_each_answer_has_its_state_its_pause_and_its_alarm",
)  # fmt: skip


@case(32, "the first payment is credited, the second held back")
def test_32_the_old_payment_and_the_new_page_both_paid(bought: House) -> None:
    bought.gateway.put("pi_old", metadata=metadata_of())
    told = bought.tell(SUCCEEDED, {"id": "pi_old", "object": "payment_intent"})
    assert told == "quarantined:second_payment_for_topup"
    assert (bought.credit(), len(bought.rows("SELECT * FROM credit_case"))) == (TEN_USD, 1)


elsewhere(
    33, "certainly not charged, and paused until the customer acts",
    "tests/payments/test_charge.py::test_exceptions",
    CHARGES + "test_a_card_that_was_declined_is_not_charged_again_until_the_customer_acts",
)  # fmt: skip
elsewhere(
    34, "nothing is saved of a set-up that is not whole or not ours",
    "tests/services/test_consent.py::test_a_set_up_is_kept_only_when_it_is_whole_and_ours",
    "tests/services/test_consent.py::test_a_new_card_keeps_the_settings_as_they_are",
)  # fmt: skip
elsewhere(
    35, "certainly not charged; another method is asked for",
    "tests/payments/test_charge.py::test_exceptions",
)  # fmt: skip


@case(36, "reading changes nothing; another's purchase is not found")
def test_36_the_success_page(paid: House) -> None:
    from guthaben.errors import Refused

    for _ in range(3):
        assert paid.topups.one(PRACTICE, "tu_1").status == "pending"
    with pytest.raises(Refused) as caught:
        paid.topups.one(OTHER, "tu_1")
    assert (caught.value.reason, paid.credit(), paid.gateway.asked) == ("topup_not_found", 0, [])


@case(37, "paid wins over expired and canceled, whichever was told first")
@pytest.mark.parametrize("first", ["checkout.session.expired", "payment_intent.canceled"])
def test_37_paid_after_it_was_closed(paid: House, first: str) -> None:
    paid.gateway.put("pi_1", status="canceled" if first.startswith("payment") else "succeeded")
    about = INTENT if first.startswith("payment") else page_of(
        status="expired", payment_status="unpaid", payment_intent=None
    )  # fmt: skip
    paid.tell(first, about)
    assert paid.statuses() == ["canceled"]
    paid.gateway.put("pi_1", status="succeeded")
    assert paid.tell(COMPLETED, page_of()) == "done:credited"
    paid.tell("checkout.session.expired", page_of(status="expired", payment_intent=None,
                                                  payment_status="unpaid"))  # fmt: skip
    assert paid.credit() == TEN_USD


# ---------------------------------------------------------------- money back


@case(38, "the credit of the money that is left, in every order")
def test_38_partial_refunds_out_of_order(bought: House) -> None:
    bought.guthaben.record_usage(PRACTICE, 9 * USD, key="used")
    for rappen in (500, 1_500, 3_000):
        bought.gateway.put("pi_1", refunded_rappen=rappen)
    for told_rappen in (3_000, 500, 1_500):  # what events say is old; the payment says 3000
        bought.tell("charge.refunded", {**CHARGE, "amount_refunded": told_rappen})
    assert bought.figures() == (0, 0, 9 * USD)


@case(39, "pending counts, failed gives back, larger than what is left becomes debt")
def test_39_refunds_of_every_status(bought: House) -> None:
    receipt = bought.gateway.give_back("pi_1", 1_500, "pending")
    about = {"id": receipt.refund_id, "object": "refund", "payment_intent": "pi_1"}
    bought.tell("refund.created", {**about, "status": "pending"})
    assert bought.credit() == TEN_USD // 2
    bought.gateway.refund_fails(receipt.refund_id)
    bought.tell("refund.failed", {**about, "status": "failed"})
    assert bought.credit() == TEN_USD
    bought.guthaben.record_usage(PRACTICE, 8 * USD, key="used")
    bought.gateway.give_back("pi_1", 3_000)  # in the dashboard
    bought.tell("charge.refunded", CHARGE)
    assert bought.figures() == (0, 0, 8 * USD)


elsewhere(
    40, "withheld while open or lost, given back when won; a warning takes nothing",
    "tests/services/test_disputes.py::test_whatever_an_event_says_the_dispute_itself_decides",
    "tests/services/test_disputes.py::test_a_dispute_that_is_opened_again_withholds_again",
    "tests/services/test_disputes.py::test_a_dispute_and_a_refund_are_netted_together",
    "tests/services/test_disputes.py::test_a_dispute_of_a_charge_without_a_payment_is_ignored",
)  # fmt: skip


@case(41, "credited and netted in one go")
@pytest.mark.parametrize("kind", ["charge.refunded", "charge.dispute.created"])
def test_41_money_back_before_its_own_success(paid: House, kind: str) -> None:
    if kind == "charge.refunded":
        paid.gateway.put("pi_1", refunded_rappen=3_000)
        about = CHARGE
    else:
        paid.gateway.dispute("pi_1", "needs_response")
        about = {"id": "dp_1", "object": "dispute", "payment_intent": "pi_1"}
    assert paid.tell(kind, about) == "done:credited"
    assert paid.credit() == 0
    assert paid.tell(COMPLETED, page_of()).startswith("done:d")
    assert paid.credit() == 0


@case(42, "debt, repaid first; what a running call holds is not touched")
def test_42_credit_that_is_spent_already(bought: House) -> None:
    call = bought.guthaben.reserve(PRACTICE, 4 * USD, key="running")
    bought.guthaben.record_usage(PRACTICE, 5 * USD, key="used")
    bought.gateway.put("pi_1", refunded_rappen=3_000)
    bought.tell("charge.refunded", CHARGE)
    assert bought.figures() == (0, 4 * USD, 9 * USD)
    assert call.settle(3 * USD).status == "settled"
    assert bought.figures() == (0, 0, 8 * USD)


@case(43, "read alike; what is absent or a Mock is nothing")
@pytest.mark.parametrize("wrap", [
    dict, lambda found: stripe.PaymentIntent.construct_from(found, "sk_test_x"),
    lambda found: MagicMock(**found),
], ids=["dict", "StripeObject", "Mock"])  # fmt: skip
def test_43_whatever_the_sdk_hands_over(wrap: Callable[[dict[str, Any]], object]) -> None:
    found = payment_facts(wrap({"id": "pi_1", "status": "succeeded", "amount": 3_000,
                                "currency": "chf"}))  # fmt: skip
    assert (found.payment_id, found.status, found.amount_rappen) == ("pi_1", "succeeded", 3_000)
    assert (found.amount_received_rappen, found.livemode, found.charge_id) == (None, None, None)


@case(44, "the batch stops; nothing is taken for a decline, nothing is given up")
@pytest.mark.parametrize("status", [401, 403])
def test_44_a_key_that_was_revoked(paid: House, status: int) -> None:
    for _ in range(4):
        paid.post(paid.envelope(COMPLETED, page_of()))
    paid.gateway.down = PaymentUnavailable("no", http_status=status)
    paid.inbox.work_once()
    assert len(paid.gateway.asked) == 1
    assert {row["status"] for row in paid.letters().values()} == {"new"}
    assert paid.statuses() == ["pending"]


# ---------------------------------------------------------------- time and neighbours


@case(45, "filled in by reconciliation")
def test_45_the_webhook_was_down_for_four_days(paid: House) -> None:
    paid.gateway.put("pi_1", created_at_s=paid.clock.at_s)
    paid.clock.wait(4 * DAY_S)
    report = Reconciler(paid.store, paid.gateway, paid.inbox).run(
        paid.clock.at_s - 5 * DAY_S, fix=True
    )
    assert (report.found, report.remaining, paid.credit()) == (1, 0, TEN_USD)


@case(46, "every second belongs to a window; overlap is harmless")
def test_46_windows_that_meet(house: House) -> None:
    start = house.clock.at_s
    house.clock.wait(3 * DAY_S)
    for number, created in enumerate([start, start + DAY_S - 1, start + DAY_S, start + DAY_S + 1]):
        house.open_purchase(f"tu_{number}", session_id=f"cs_{number}")
        house.gateway.put(f"pi_{number}", metadata=metadata_of(f"tu_{number}"),
                          created_at_s=created)  # fmt: skip
    reconciler = Reconciler(house.store, house.gateway, house.inbox)
    for since in (start, start + DAY_S):
        reconciler.run(since, since + DAY_S, fix=True)
    assert house.credit() == 4 * TEN_USD


@case(47, "one credit for two endpoints; another installation's payments are left alone")
def test_47_two_endpoints_and_two_installations(
    paid: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        paid.post(paid.envelope(COMPLETED, page_of()))
    paid.inbox.work_once()
    assert paid.credit() == TEN_USD
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    paid.gateway.put("pi_2", metadata={**metadata_of("tu_2"), "installation": "bern"})
    told = paid.tell(SUCCEEDED, {"id": "pi_2", "object": "payment_intent"})
    assert (told, len(paid.rows("SELECT * FROM credit_case"))) == ("ignored:other_installation", 0)


@case(48, "floor(granted x left / captured), for the credit and for its bonus")
@pytest.mark.parametrize("rappen", [1, 7, 1_000, 2_999, 3_000])
def test_48_rounding_with_a_bonus(house: House, rappen: int) -> None:
    house.open_purchase(amount_nano_usd=TEN_USD + 1, bonus_nano_usd=USD + 1)
    house.gateway.put("pi_1", metadata=metadata_of())
    house.tell(COMPLETED, page_of())
    house.gateway.put("pi_1", refunded_rappen=rappen)
    house.tell("charge.refunded", CHARGE)
    left = CHF_30 - rappen
    assert house.credit() == (TEN_USD + 1) * left // CHF_30 + (USD + 1) * left // CHF_30


@case(49, "no secret, address or whole id in a log or an exception")
def test_49_nothing_leaks(paid: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ["sk_live_51Habcdefgh", "pi_1_secret_abcdef", "jo@praxis.example"]
    page = page_of(client_secret=secrets[1], customer_details={"email": secrets[2]})
    paid.gateway.down = PaymentUnavailable("down")
    paid.tell(COMPLETED, page)
    paid.gateway.down = RuntimeError("a bug")  # type: ignore[assignment]
    paid.clock.wait(10)
    paid.inbox.work_once()
    with pytest.raises(WebhookRejected) as caught:
        paid.inbox.receive(json.dumps(page).encode(), "t=1,v1=" + secrets[0])
    told = caplog.text + str(caught.value) + repr(caught.value)
    assert not [secret for secret in secrets if secret in told]


@case(
    50,
    "each start is a record of its own and nothing is granted; cards are saved on our pages only",
)
def test_50_a_thousand_open_pages(house: House) -> None:
    chosen = random.Random(50)
    for _ in range(200):
        house.topups.start_checkout(
            PRACTICE, chosen.randrange(1_000, 500_000), success_url="https://x",
            cancel_url="https://x",
        )  # fmt: skip
    assert set(house.statuses()) == {"pending"}
    assert (house.credit(), house.guthaben.verify().ok) == (0, True)


@pytest.mark.parametrize("status", [FROZEN, CLOSED])
def test_a_frozen_or_closed_practice_gets_what_it_paid_for(paid: House, status: int) -> None:
    """Belongs to 29: between decision and charge is tested there, after the charge here."""
    paid.store.execute(PRACTICE, SetPolicy(status))
    assert paid.tell(COMPLETED, page_of()) == "done:credited"


def test_all_fifty_are_here_and_what_is_named_exists() -> None:
    assert sorted(TABLE) == list(range(1, 51))
    for number, (outcome, *tests) in TABLE.items():
        assert len(outcome) > 5, number
        for named in tests:
            path, _, name = named.partition("::")
            tree = ast.parse((ROOT / path).read_text("utf-8"))
            assert name in {
                node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
            }
