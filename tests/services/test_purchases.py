"""A payment becomes credit once for ever, whoever tells of it, in any order and by any name.

What contradicts our own record is quarantined: nothing credited, an alarm, nothing lost.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from guthaben.domain.commands import SetPolicy
from guthaben.domain.practice import CLOSED, FROZEN
from guthaben.services.purchases import PaymentNotice, PurchaseResult, credit_payment
from tests.services.house import (
    OTHER,
    PRACTICE,
    TEN_USD,
    USD,
    House,
    in_parallel,
    notice_of,
)

SESSION: dict[str, Any] = {"payment_id": ""}  # told by the page alone
INTENT: dict[str, Any] = {"session_id": ""}  # told by the payment alone
BOTH: dict[str, Any] = {}
UNNAMED: dict[str, Any] = {"topup_id": ""}  # nothing of ours in the metadata


def verdict(result: PurchaseResult) -> str:
    """Say in a word what became of a payment."""
    told = {"credited": result.credited, "duplicate": result.duplicate,
            "quarantined": result.quarantined}  # fmt: skip
    return next((word for word, holds in told.items() if holds), "nothing")


def ledger(house: House, practice_id: str = PRACTICE) -> int:
    """What the journal's purchases sum up to."""
    found = house.guthaben.statement(practice_id, limit=500).entries
    return sum(line.amount_nano_usd for line in found if line.what == "fulfil")


# ---------------------------------------------------------------- once


@pytest.mark.parametrize("tellings", [
    pytest.param([SESSION], id="the page"),
    pytest.param([INTENT], id="the payment"),
    pytest.param([BOTH, BOTH, BOTH], id="the same three times"),
    pytest.param([SESSION, BOTH], id="the page, then both"),
    pytest.param([INTENT, BOTH], id="the payment, then both"),
    pytest.param([BOTH, SESSION], id="both, then the page"),
    pytest.param([BOTH, INTENT], id="both, then the payment"),
    pytest.param([SESSION, BOTH, INTENT], id="page, both, payment"),
    pytest.param([INTENT, BOTH, SESSION], id="payment, both, page"),
    pytest.param([INTENT, SESSION], id="payment, page: bound by our record"),
])  # fmt: skip
def test_one_payment_is_credited_once_under_all_its_names(
    house: House, tellings: list[dict[str, Any]]
) -> None:
    house.open_purchase()
    words = [verdict(house.paid(**names)) for names in tellings]
    assert words == ["credited"] + ["duplicate"] * (len(tellings) - 1)
    assert (house.credit(), ledger(house)) == (TEN_USD, TEN_USD)
    assert house.statuses() == ["succeeded"]
    assert house.alarms() == []


def test_a_page_that_named_no_payment_is_not_credited_again_by_its_payment(house: House) -> None:
    house.open_purchase()
    words = [verdict(house.paid(**names)) for names in (SESSION, INTENT, BOTH, INTENT)]
    assert words.count("credited") == 1
    assert ledger(house) == TEN_USD


@pytest.mark.parametrize("tellings", [
    pytest.param([BOTH, SESSION, INTENT], id="both first"),
    pytest.param([SESSION, BOTH, INTENT], id="page, both, payment"),
    pytest.param([INTENT, BOTH, SESSION], id="payment, both, page"),
])  # fmt: skip
def test_without_a_record_of_ours_a_payment_is_credited_once(
    house: House, tellings: list[dict[str, Any]]
) -> None:
    words = [verdict(house.paid(**UNNAMED, **names)) for names in tellings]
    assert words == ["credited", "duplicate", "duplicate"]
    assert ledger(house) == TEN_USD


@pytest.mark.parametrize("named", [True, False], ids=["with our record", "without"])
@pytest.mark.parametrize(
    "modes", list(itertools.product([None, False, True], repeat=2)),
    ids=lambda pair: f"{pair[0]}-{pair[1]}",
)  # fmt: skip
def test_a_payment_is_one_payment_whatever_the_teller_knows_of_its_mode(
    house: House, modes: tuple[bool | None, bool | None], named: bool
) -> None:
    if named:
        house.open_purchase(livemode=None)
    more = {} if named else UNNAMED
    words = [verdict(house.paid(livemode=mode, **more)) for mode in modes]
    assert words == ["credited", "duplicate"]
    assert ledger(house) == TEN_USD


@pytest.mark.parametrize("named", [True, False], ids=["with our record", "without"])
def test_twenty_threads_that_tell_of_one_payment_make_one_credit(house: House, named: bool) -> None:
    if named:
        house.open_purchase(livemode=None)
    names = [BOTH, BOTH, SESSION, INTENT] if named else [BOTH]
    modes = [None, True]
    found = in_parallel(
        20,
        lambda i: house.paid(
            **names[i % len(names)], livemode=modes[i % 2], **({} if named else UNNAMED)
        ),
    )
    words = [verdict(one) for one in found if isinstance(one, PurchaseResult)]
    assert sorted(words) == ["credited"] + ["duplicate"] * 19
    assert ledger(house) == TEN_USD


def test_two_processes_that_tell_of_one_payment_make_one_credit(house: House) -> None:
    house.open_purchase()
    others = [house.open() for _ in range(3)]
    stores = [house.store, *(other.core.store for other in others)]
    found = in_parallel(
        12, lambda i: stores[i % 4].run(lambda space: credit_payment(space, notice_of()))
    )
    for other in others:
        other.close()
    assert sorted(verdict(one) for one in found if isinstance(one, PurchaseResult)) == (
        ["credited"] + ["duplicate"] * 11
    )
    assert ledger(house) == TEN_USD


def test_every_name_told_later_is_registered_for_ever(house: House) -> None:
    house.open_purchase(session_id="")
    house.paid(**INTENT)
    house.paid(**BOTH)
    found = house.rows("SELECT kind, ref, event_no FROM credit_payment ORDER BY kind")
    assert [tuple(row.values()) for row in found] == [
        ("payment", "pi_1", 1),
        ("session", "cs_1", 1),
    ]
    assert verdict(house.paid(**SESSION, **UNNAMED)) == "duplicate"
    assert (house.event()["payment_id"], house.event()["session_id"]) == ("pi_1", "cs_1")


def test_forty_days_later_a_payment_is_still_known(house: House) -> None:
    house.open_purchase()
    house.paid()
    house.clock.wait(40 * 86_400)
    assert verdict(house.paid(**UNNAMED)) == "duplicate"
    assert ledger(house) == TEN_USD


def test_the_credit_is_what_was_frozen_when_the_purchase_was_made(house: House) -> None:
    house.open_purchase(amount_nano_usd=7 * USD)
    assert verdict(house.paid(credit_nano_usd=99 * USD)) == "credited"
    assert house.credit() == 7 * USD


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("status", ["failed", "canceled"])
@pytest.mark.parametrize("named", [True, False], ids=["with our record", "without"])
def test_a_payment_that_failed_first_and_succeeds_later_is_credited(
    house: House, status: str, named: bool
) -> None:
    if named:
        house.open_purchase()
    more = {} if named else UNNAMED
    house.failed(status=status, **more)
    assert house.credit() == 0
    assert verdict(house.paid(**more)) == "credited"
    assert ledger(house) == TEN_USD


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_lost_record_that_failed_first_and_succeeds_later_is_credited(
    house: House, status: str
) -> None:
    house.failed(status=status, **SESSION)
    assert verdict(house.paid()) == "credited"


@pytest.mark.parametrize("status", ["failed", "canceled"])
@pytest.mark.parametrize("names", [SESSION, INTENT, BOTH], ids=["page", "payment", "both"])
def test_a_late_word_of_failure_changes_nothing(
    house: House, status: str, names: dict[str, Any]
) -> None:
    house.open_purchase()
    house.paid()
    before = house.events()
    assert verdict(house.failed(status=status, **names)) == "duplicate"
    assert (house.events(), house.credit()) == (before, TEN_USD)


def test_a_late_failure_under_a_name_never_told_before_changes_nothing(house: House) -> None:
    house.paid(**INTENT)
    assert not house.failed(**SESSION).credited
    assert (house.statuses(), house.credit()) == (["succeeded"], TEN_USD)


def test_a_failure_without_a_record_is_shown_with_its_price_and_no_credit(house: House) -> None:
    house.failed(**UNNAMED)
    house.failed(**UNNAMED)
    row = house.event()
    assert (row["status"], row["price_minor"], row["amount_nano_usd"]) == ("failed", 3_000, 0)
    assert house.credit() == 0


# ---------------------------------------------------------------- contradictions

CONTRADICTIONS = {
    "amount_mismatch": {"price_rappen": 2_999},
    "currency_mismatch": {"currency": "eur"},
    "practice_mismatch": {"practice_id": OTHER},
    "livemode_mismatch": {"livemode": False},
}
MORE_AMOUNTS = [0, 1, -3_000, 3_001, 300_000, 10**12]


@pytest.mark.parametrize(("reason", "changes"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_a_contradiction_is_quarantined_with_an_alarm_and_no_credit(
    house: House, reason: str, changes: dict[str, Any]
) -> None:
    house.open_purchase()
    result = house.paid(**changes)
    assert (verdict(result), result.reason) == ("quarantined", reason)
    row = house.event()
    assert (row["status"], row["reason"], row["payment_id"]) == ("quarantined", reason, "pi_1")
    assert (house.credit(), house.credit(OTHER)) == (0, 0)
    assert house.alarms() == ["payment_quarantined"]
    assert house.rows("SELECT * FROM credit_payment") == []


@pytest.mark.parametrize("rappen", MORE_AMOUNTS)
def test_an_amount_that_is_not_ours_is_not_credited(house: House, rappen: int) -> None:
    house.open_purchase()
    assert verdict(house.paid(price_rappen=rappen)) == "quarantined"
    assert house.credit() == 0


@pytest.mark.parametrize("currency", ["", "eur", "usd", "jpy", "CHF", "chf "])
def test_a_currency_that_is_not_ours_is_not_credited(house: House, currency: str) -> None:
    house.open_purchase()
    assert verdict(house.paid(currency=currency)) == "quarantined"


LATER: dict[str, dict[str, Any]] = {
    "the right payment": {},
    "the same contradiction": {"price_rappen": 2_999},
    "told by the page": SESSION,
    "told by the payment": INTENT,
    "without our id": UNNAMED,
    "another mode unknown": {"livemode": None},
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
@pytest.mark.parametrize(("reason", "changes"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_what_is_quarantined_stays_there_at_every_later_success(
    house: House, reason: str, changes: dict[str, Any], later: dict[str, Any]
) -> None:
    house.open_purchase()
    house.paid(**changes)
    assert verdict(house.paid(**later)) == "quarantined"
    assert (house.statuses(), house.event()["reason"]) == (["quarantined"], reason)
    assert (house.credit(), len(house.alarms())) == (0, 1)


def test_a_failure_told_later_does_not_lift_a_quarantine(house: House) -> None:
    house.open_purchase()
    house.paid(price_rappen=1)
    house.failed(status="failed")
    assert house.statuses() == ["quarantined"]


def test_an_expiry_told_later_does_not_lift_a_quarantine(house: House) -> None:
    house.open_purchase()
    house.paid(price_rappen=1)
    house.failed(status="canceled")
    assert house.statuses() == ["quarantined"]
    assert verdict(house.paid()) == "quarantined"


def test_each_practice_has_its_own_alarm(house: House) -> None:
    for number, practice_id in enumerate([PRACTICE, OTHER], 1):
        names = {"topup_id": f"tu_{number}", "session_id": f"cs_{number}"}
        house.open_purchase(practice_id=practice_id, **names)
        house.paid(practice_id=practice_id, payment_id=f"pi_{number}", price_rappen=1, **names)
    assert house.alarms() == ["payment_quarantined", "payment_quarantined"]


def test_another_payment_for_a_quarantined_top_up_is_not_lost(house: House) -> None:
    house.open_purchase()
    house.paid(price_rappen=1)
    assert verdict(house.paid(payment_id="pi_2", session_id="")) == "quarantined"
    assert {row["payment_id"] for row in house.events()} == {"pi_1", "pi_2"}
    assert len(house.alarms()) == 2


# ---------------------------------------------------------------- a second payment


def test_a_second_payment_for_one_top_up_is_quarantined_and_not_lost(house: House) -> None:
    house.open_purchase()
    house.paid()
    second = {"payment_id": "pi_2", "session_id": "cs_2"}
    for _ in range(3):  # and it stays there
        result = house.paid(**second)
        assert (verdict(result), result.reason) == ("quarantined", "second_payment_for_topup")
    first, kept = house.events()
    assert (first["status"], first["payment_id"]) == ("succeeded", "pi_1")
    assert (kept["status"], kept["payment_id"], kept["session_id"], kept["price_minor"]) == (
        "quarantined", "pi_2", "cs_2", 3_000,
    )  # fmt: skip
    assert (house.credit(), len(house.alarms())) == (TEN_USD, 1)


def test_two_payments_at_once_for_one_top_up_give_one_credit_and_one_quarantine(
    house: House,
) -> None:
    house.open_purchase()
    found = in_parallel(2, lambda i: house.paid(payment_id=f"pi_{i}", session_id=f"cs_{i}"))
    words = [verdict(one) for one in found if isinstance(one, PurchaseResult)]
    assert sorted(words) == ["credited", "quarantined"]
    assert ledger(house) == TEN_USD


# ---------------------------------------------------------------- odd amounts without our record


def test_credit_below_zero_is_quarantined_and_leaves_nothing_pending(house: House) -> None:
    assert verdict(house.paid(credit_nano_usd=-5, **UNNAMED)) == "quarantined"
    assert set(house.statuses()) == {"quarantined"}


def test_a_payment_for_no_credit_is_quarantined(house: House) -> None:
    assert verdict(house.paid(credit_nano_usd=0, **UNNAMED)) == "quarantined"


@pytest.mark.parametrize("amount", [10**15 + 1, 3 * 10**18])
def test_credit_beyond_the_limit_of_a_command_is_quarantined(house: House, amount: int) -> None:
    assert verdict(house.paid(credit_nano_usd=amount, **UNNAMED)) == "quarantined"
    assert house.credit() == 0


# ---------------------------------------------------------------- practices


@pytest.mark.parametrize("status", [FROZEN, CLOSED], ids=["frozen", "closed"])
def test_a_practice_that_may_not_spend_still_gets_what_it_paid_for(
    house: House, status: int
) -> None:
    house.open_purchase()
    house.store.execute(PRACTICE, SetPolicy(status))
    assert verdict(house.paid()) == "credited"
    assert house.credit() == TEN_USD


def test_a_purchase_repays_debt_first(house: House) -> None:
    house.guthaben.record_usage(PRACTICE, 3 * USD, key="u")
    house.open_purchase()
    house.paid()
    assert house.figures() == (7 * USD, 0, 0)


def test_practices_never_see_each_others_purchases(house: House) -> None:
    house.open_purchase()
    house.paid()
    assert (house.credit(OTHER), house.events(OTHER), house.guthaben.topups(OTHER)) == (0, [], [])


def test_a_notice_says_by_default_as_little_as_possible() -> None:
    notice = PaymentNotice(PRACTICE, "topup_purchase", TEN_USD, None)
    assert (notice.livemode, notice.payment_id, notice.topup_id) == (None, "", "")
