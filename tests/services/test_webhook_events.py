"""What each event comes to: a hint, which is judged by our own record and by the payment itself."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from guthaben.payments.facts import SetupFacts
from tests.services.house import (
    CHF_30,
    COMPLETED,
    INTENT,
    NOON,
    OTHER,
    PRACTICE,
    SUCCEEDED,
    TEN_USD,
    House,
    metadata_of,
    page_of,
)

PAID_LATER = "checkout.session.async_payment_succeeded"
NOT_PAID = "checkout.session.async_payment_failed"
EXPIRED = "checkout.session.expired"
UNPAID: dict[str, Any] = {"payment_status": "unpaid"}
ABSENT: dict[str, Any] = {"payment_status": "unpaid", "payment_intent": None, "status": "expired"}


@pytest.fixture
def bought(house: House) -> House:
    """A purchase of ours whose payment the provider has."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    return house


# ---------------------------------------------------------------- both events of one payment


@pytest.mark.parametrize("order", list(itertools.permutations([COMPLETED, SUCCEEDED, PAID_LATER])))
@pytest.mark.parametrize("known", [True, False], ids=["our record", "no record"])
def test_the_events_of_one_payment_make_one_credit_in_every_order(
    house: House, order: tuple[str, ...], known: bool
) -> None:
    if known:
        house.open_purchase()
    named = metadata_of("tu_1" if known else "")
    house.gateway.put("pi_1", metadata=named)
    page = page_of(metadata=named)
    words = [house.tell(kind, INTENT if kind == SUCCEEDED else page) for kind in order]
    assert words == ["done:credited", "done:duplicate", "done:duplicate"]
    assert (house.credit(), house.statuses(), house.alarms()) == (TEN_USD, ["succeeded"], [])


def test_a_page_that_is_not_paid_yet_is_credited_when_it_is(bought: House) -> None:
    bought.gateway.put("pi_1", status="processing", amount_received_rappen=0)
    assert bought.tell(COMPLETED, page_of(**UNPAID)) == "done:not_paid_yet"
    assert bought.credit() == 0
    bought.gateway.put("pi_1", status="succeeded", amount_received_rappen=CHF_30)
    assert bought.tell(PAID_LATER, page_of()) == "done:credited"


def test_a_payment_that_came_without_the_page_being_completed_is_credited(bought: House) -> None:
    assert bought.tell(PAID_LATER, page_of()) == "done:credited"


@pytest.mark.parametrize("known", [True, False], ids=["our record", "no record"])
@pytest.mark.parametrize("first", [NOT_PAID, EXPIRED])
def test_a_page_that_failed_first_and_is_paid_later_is_credited(
    house: House, first: str, known: bool
) -> None:
    if known:
        house.open_purchase()
    named = metadata_of("tu_1" if known else "")
    house.gateway.put("pi_1", metadata=named)
    assert house.tell(first, page_of(**ABSENT, metadata=named)).startswith("done:")
    assert house.credit() == 0
    assert house.tell(COMPLETED, page_of(metadata=named)) == "done:credited"
    assert house.credit() == TEN_USD


@pytest.mark.parametrize("known", [True, False], ids=["our record", "no record"])
@pytest.mark.parametrize("late", [NOT_PAID, EXPIRED])
@pytest.mark.parametrize("success", [COMPLETED, SUCCEEDED])
def test_a_late_word_of_failure_changes_nothing(
    house: House, success: str, late: str, known: bool
) -> None:
    if known:
        house.open_purchase()
    named = metadata_of("tu_1" if known else "")
    house.gateway.put("pi_1", metadata=named)
    house.tell(success, INTENT if success == SUCCEEDED else page_of(metadata=named))
    assert house.tell(late, page_of(**ABSENT, metadata=named)).startswith("done:")
    assert house.credit() == TEN_USD
    assert [word for word in house.statuses() if word != "canceled"] == ["succeeded"]
    assert known <= (house.statuses() == ["succeeded"])


@pytest.mark.parametrize("status", [
    "processing", "requires_payment_method", "requires_action", "requires_capture", "canceled",
    "something_new", None,
])  # fmt: skip
def test_the_payment_itself_is_believed_and_not_the_event(
    bought: House, status: str | None
) -> None:
    bought.gateway.put("pi_1", status=status)
    assert bought.tell(COMPLETED, page_of()) == f"done:payment_{status}"
    assert bought.tell(SUCCEEDED, {**INTENT, "status": "succeeded"}) == f"done:payment_{status}"
    assert bought.credit() == 0


def test_what_the_event_says_of_amounts_and_practices_is_not_believed(bought: House) -> None:
    lies = page_of(
        amount_total=999_999, currency="usd", client_reference_id="tu_9",
        metadata=metadata_of("tu_9", practice_id=OTHER, internal_credit_usd="9999"),
    )  # fmt: skip
    assert bought.tell(COMPLETED, lies) == "done:credited"
    assert (bought.credit(), bought.credit(OTHER)) == (TEN_USD, 0)


# ---------------------------------------------------------------- contradictions

LIES: dict[str, tuple[dict[str, Any], str]] = {
    "paid less": ({"amount_received_rappen": 2_900}, "amount_mismatch"),
    "paid more": ({"amount_received_rappen": 3_100}, "amount_mismatch"),
    "paid nothing": ({"amount_received_rappen": 0}, "amount_mismatch"),
    "another currency": ({"currency": "eur"}, "currency_mismatch"),
    "yen": ({"currency": "jpy"}, "currency_mismatch"),
    "the other mode": ({"livemode": False}, "livemode_mismatch"),
    "another practice": (
        {"metadata": metadata_of(practice_id=OTHER)}, "practice_mismatch",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "reason"), LIES.values(), ids=LIES)
def test_a_payment_that_contradicts_our_record_is_quarantined_for_good(
    bought: House, facts: dict[str, Any], reason: str
) -> None:
    bought.gateway.put("pi_1", **facts)
    assert bought.tell(COMPLETED, page_of()) == f"quarantined:{reason}"
    bought.gateway.put("pi_1", currency="chf", amount_received_rappen=CHF_30, livemode=True,
                       metadata=metadata_of())  # fmt: skip
    for kind, about in [(SUCCEEDED, INTENT), (COMPLETED, page_of()), (EXPIRED, page_of(**ABSENT)),
                        (COMPLETED, page_of())]:  # fmt: skip
        bought.tell(kind, about)
    assert bought.statuses() == ["quarantined"]
    assert (bought.credit(), bought.credit(OTHER)) == (0, 0)
    assert bought.alarms("payment_quarantined") == ["payment_quarantined"]


WITHOUT_RECORD: dict[str, tuple[dict[str, Any], str]] = {
    "paid less than stated": ({"amount_received_rappen": 2_900}, "quarantined"),
    "another currency": ({"currency": "eur"}, "quarantined"),
    "no credit stated": ({"metadata": metadata_of("", internal_credit_usd="")}, "quarantined"),
    "no price stated": ({"metadata": metadata_of("", paid_chf="")}, "quarantined"),
    "credit in words": ({"metadata": metadata_of("", internal_credit_usd="ten")}, "quarantined"),
    "an exponent": ({"metadata": metadata_of("", internal_credit_usd="1e3")}, "quarantined"),
    "NaN": ({"metadata": metadata_of("", internal_credit_usd="NaN")}, "quarantined"),
    "no credit": ({"metadata": metadata_of("", internal_credit_usd="0")}, "quarantined"),
    "credit below zero": ({"metadata": metadata_of("", internal_credit_usd="-10")}, "quarantined"),
    "credit beyond all limits": (
        {"metadata": metadata_of("", internal_credit_usd="9999999999.999999999")}, "quarantined",
    ),
    "a price of nothing": (
        {"metadata": metadata_of("", paid_chf="0"), "amount_received_rappen": 1}, "quarantined",
    ),
    "another purpose": ({"metadata": metadata_of(aza_purpose="abo")}, "ignored"),
    "no purpose": ({"metadata": metadata_of(aza_purpose="")}, "ignored"),
    "nothing of ours": ({"metadata": {}}, "ignored"),
    "foreign metadata": ({"metadata": {"order": "5", "practice": PRACTICE}}, "ignored"),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "word"), WITHOUT_RECORD.values(), ids=WITHOUT_RECORD)
def test_a_payment_without_a_record_must_bear_out_its_own_metadata(
    house: House, facts: dict[str, Any], word: str
) -> None:
    house.gateway.put("pi_1", **{"metadata": metadata_of(""), **facts})
    for kind, about in [(COMPLETED, page_of()), (SUCCEEDED, INTENT), (COMPLETED, page_of())]:
        assert house.tell(kind, about).split(":")[0] == word
    assert house.credit() == 0
    kept = word == "quarantined"
    assert house.statuses() == ["quarantined"] * kept
    assert house.alarms() == ["payment_quarantined"] * kept


def test_a_payment_without_our_id_is_credited_by_its_metadata(house: House) -> None:
    house.gateway.put("pi_1", metadata=metadata_of(""))
    assert house.tell(COMPLETED, page_of()) == "done:credited"
    row = house.event()
    assert (row["topup_id"], row["session_id"], row["payment_id"]) == ("", "cs_1", "pi_1")
    assert house.credit() == TEN_USD


@pytest.mark.parametrize("kind", [COMPLETED, SUCCEEDED])
def test_our_id_without_our_record_is_kept_for_a_person(house: House, kind: str) -> None:
    """Ours was lost, or another installation made it: metadata alone says too little then."""
    house.gateway.put("pi_1", metadata=metadata_of())
    for _ in range(2):
        told = house.tell(kind, INTENT if kind == SUCCEEDED else page_of())
        assert told == "quarantined:topup_unknown"
    assert (house.credit(), house.statuses()) == (0, ["quarantined"])
    assert house.alarms() == ["payment_quarantined"]


def test_a_payment_for_credit_that_names_no_practice_is_kept_for_a_person(house: House) -> None:
    house.gateway.put("pi_1", metadata=metadata_of("", practice_id=""))
    for _ in range(2):
        assert house.tell(SUCCEEDED, INTENT) == "quarantined:practice_unknown"
    (case,) = house.rows("SELECT * FROM credit_case")
    assert (case["payment_id"], case["event_no"], case["status"]) == ("pi_1", 0, "open")
    assert house.alarms() == ["payment_quarantined"]


@pytest.mark.parametrize("metadata", [
    {}, {"aza_purpose": "ai_topup"}, {"topup_id": "tu_1"}, metadata_of(practice_id=""),
    metadata_of("", internal_credit_usd="", paid_chf=""), metadata_of(internal_credit_usd="9999"),
], ids=str)  # fmt: skip
def test_our_own_record_counts_where_the_metadata_is_gone_or_changed(
    house: House, metadata: dict[str, str]
) -> None:
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata)
    assert house.tell(COMPLETED, page_of()) == "done:credited"
    assert house.credit() == TEN_USD


def test_a_payment_that_does_not_tell_its_amount_is_asked_again(bought: House) -> None:
    bought.gateway.put("pi_1", amount_received_rappen=None)
    assert bought.tell(COMPLETED, page_of()).startswith("new:")
    bought.gateway.put("pi_1", amount_received_rappen=CHF_30)
    bought.clock.wait(5)
    bought.inbox.work_once()
    assert bought.credit() == TEN_USD


@pytest.mark.parametrize("kind", [COMPLETED, SUCCEEDED])
def test_foreign_payments_are_ignored_without_an_alarm(house: House, kind: str) -> None:
    house.gateway.put("pi_1", metadata={"shop": "other"})
    about = INTENT if kind == SUCCEEDED else page_of(metadata={})
    assert house.tell(kind, about) == "ignored:not_ours"
    assert (house.rows("SELECT * FROM credit_practice"), house.alarms()) == ([], [])


@pytest.mark.parametrize("kind", [NOT_PAID, EXPIRED])
def test_a_foreign_page_that_failed_is_ignored(house: House, kind: str) -> None:
    assert house.tell(kind, page_of(**ABSENT, metadata={})) == "ignored:not_ours"


def test_a_page_of_a_foreign_subscription_is_ignored_without_an_alarm(house: House) -> None:
    about = page_of(mode="subscription", payment_intent=None, metadata={}, subscription="sub_1")
    item = {"current_period_start": 1, "current_period_end": 2, "price": {"lookup_key": "other"}}
    house.gateway.subscriptions["sub_1"] = {
        "id": "sub_1", "status": "active", "created": 1, "livemode": True, "customer": "cus_9",
        "items": {"data": [item]},
    }  # fmt: skip
    assert house.tell(COMPLETED, about) == "ignored:not_ours"
    assert (house.rows("SELECT * FROM credit_practice"), house.alarms()) == ([], [])


def test_expanded_objects_are_read_like_plain_ids(bought: House) -> None:
    about = page_of(payment_intent={"id": "pi_1", "object": "payment_intent"},
                    customer={"id": "cus_1"}, unknown_field={"x": [1]})  # fmt: skip
    assert bought.tell(COMPLETED, about) == "done:credited"


def test_a_second_payment_for_one_top_up_is_kept_apart(bought: House) -> None:
    bought.tell(COMPLETED, page_of())
    bought.gateway.put("pi_2", metadata=metadata_of())
    for _ in range(2):
        told = bought.tell(SUCCEEDED, {"id": "pi_2"})
        assert told == "quarantined:second_payment_for_topup"
    assert bought.statuses() == ["succeeded", "quarantined"]
    assert (bought.credit(), len(bought.alarms())) == (TEN_USD, 1)


def test_a_saved_card_page_saves_the_card_and_pays_nothing(house: House) -> None:
    metadata = {"aza_purpose": "ai_topup_setup", "practice_id": PRACTICE}
    house.gateway.setups["seti_1"] = SetupFacts(
        "seti_1", "succeeded", "cus_9", "pm_9", True, metadata
    )
    about = page_of(mode="setup", setup_intent="seti_1", payment_intent=None, metadata=metadata)
    assert house.tell(COMPLETED, about) == "done:"
    view = house.topups.settings(PRACTICE)
    assert (view.card_saved, view.enabled, house.events()) == (True, False, [])
    bare = page_of(mode="setup", setup_intent=None, payment_intent=None)
    assert house.tell(COMPLETED, bare) == "ignored:no_setup"


@pytest.mark.parametrize("order", list(itertools.permutations([("a", 10), ("b", 20), ("c", 30)])))
def test_the_card_that_counts_is_the_one_that_was_saved_last(
    house: House, order: tuple[tuple[str, int], ...]
) -> None:
    """However late an event of an older card comes, nobody is charged on that card again."""
    for card, second in order:
        assert house.set_up(card, NOON - 100 + second) in {"done:", "done:older_card"}

    assert house.card() == "pm_c"


def test_the_same_card_may_be_told_twice(house: House) -> None:
    for _ in range(2):
        assert house.set_up("a", NOON - 50) == "done:"
    assert house.card() == "pm_a"


@pytest.mark.parametrize("name", ["", "p" * 201, "prac\n7", "prac\u202e7"])
def test_a_card_for_what_can_be_no_practice_is_not_ours(house: House, name: str) -> None:
    about = {
        "id": "seti_9", "object": "setup_intent", "status": "succeeded", "customer": "cus_9",
        "payment_method": "pm_9",
        "metadata": {"aza_purpose": "ai_topup_setup", "practice_id": name},
    }  # fmt: skip
    assert house.tell("setup_intent.succeeded", about) == "ignored:not_ours"
    assert house.rows("SELECT * FROM credit_provider_customer WHERE customer_id = 'cus_9'") == []


def test_a_card_saved_by_another_installation_is_left_to_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTHABEN_INSTALLATION", "zurich")
    mine = {"aza_purpose": "ai_topup_setup", "practice_id": PRACTICE}
    for name, theirs in (("bern", {"installation": "bern"}), ("nobody", {})):
        house.gateway.setups[f"seti_{name}"] = SetupFacts(
            f"seti_{name}", "succeeded", "cus_9", "pm_9", True, {**mine, **theirs}
        )
        about = page_of(mode="setup", setup_intent=f"seti_{name}", payment_intent=None)
        assert house.tell(COMPLETED, about) == "ignored:other_installation"
    assert not house.topups.settings(PRACTICE).card_saved
