"""What is told at each change of money: once, to the right practice, with the right amounts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guthaben.payments.gateway import Declined, NeedsCustomer, NotSent
from tests.services.house import CHF_30, PRACTICE, TEN_USD, House, metadata_of, page_of


def told(house: House) -> list[tuple[str, Any]]:
    """Everything told so far: kind and facts."""
    rows = house.rows("SELECT kind, facts FROM credit_notice ORDER BY told_at_s, kind")
    return [(row["kind"], json.loads(row["facts"])) for row in rows]


def kinds(house: House) -> list[str]:
    return [kind for kind, _facts in told(house)]


@pytest.fixture
def bought(house: House) -> House:
    """30 CHF were paid for 10 USD."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.tell("checkout.session.completed", page_of()) == "done:credited"
    return house


def test_a_purchase_is_told_once_however_often_it_is_heard_of(bought: House) -> None:
    for _ in range(3):
        bought.tell("checkout.session.completed", page_of())
        bought.tell("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent"})
    facts = {"price_rappen": CHF_30, "credit_nano_usd": TEN_USD, "automatic": 0}
    assert told(bought) == [("topped_up", facts)]


def test_an_automatic_charge_says_that_it_was_one(house: House) -> None:
    house.arm()
    house.charge(house.claim())
    (paid,) = [facts for kind, facts in told(house) if kind == "topped_up"]
    assert (paid["automatic"], paid["price_rappen"]) == (1, CHF_30)


def test_a_refund_tells_what_went_back_each_time(bought: House) -> None:
    for refunded in (1_000, 1_000, 3_000):
        bought.gateway.put("pi_1", refunded_rappen=refunded)
        bought.clock.wait(1)
        for _ in range(2):
            bought.tell("charge.refunded", {"id": "ch_1", "payment_intent": "pi_1"})
    refunds = [facts for kind, facts in told(bought) if kind == "refunded"]
    assert [facts["price_rappen"] for facts in refunds] == [1_000, 2_000]
    assert sum(facts["credit_nano_usd"] for facts in refunds) == TEN_USD


def test_each_stand_of_a_dispute_is_told_once_and_without_its_id(bought: House) -> None:
    steps = [("created", "needs_response"), ("funds_withdrawn", "needs_response"),
             ("closed", "won"), ("funds_reinstated", "won")]  # fmt: skip
    for kind, status in steps * 2:
        bought.clock.wait(1)
        bought.gateway.dispute("pi_1", status)
        about = {"id": "dp_1", "object": "dispute", "payment_intent": "pi_1", "amount": CHF_30,
                 "currency": "chf", "status": status, "livemode": True}  # fmt: skip
        bought.tell(f"charge.dispute.{kind}", about)
    assert kinds(bought) == ["topped_up", "dispute_opened", "dispute_won"]
    assert "dp_1" not in str(bought.rows("SELECT * FROM credit_notice"))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Declined("pi_1", "card_declined", "lost_card", None, True), "auto_topup_paused"),
        (NeedsCustomer("pi_1", "requires_action"), "authentication_needed"),
        (NeedsCustomer(None, "authentication_required"), "authentication_needed"),
    ],
)
def test_a_pause_says_whether_its_owner_is_wanted(house: House, answer: Any, kind: str) -> None:
    house.arm()
    house.gateway.then(answer)
    house.charge(house.claim())
    assert [told for told in kinds(house) if told != "consent_changed"] == [kind]


def test_that_the_provider_refuses_us_is_told_the_operator_once_a_day(house: House) -> None:
    house.arm()
    for wait_s in (0, 7_200, 86_400):
        house.clock.wait(wait_s)
        house.change("UPDATE credit_practice SET auto_topup_next_s = 0")
        house.gateway.then(NotSent("auth"))
        house.charge(house.claim())
    rows = house.rows("SELECT practice_no, kind FROM credit_notice WHERE practice_no = 0")
    assert rows == [{"practice_no": 0, "kind": "charges_not_sent"}] * 2


def test_quarantine_is_told_to_the_operator(house: House) -> None:
    house.open_purchase()
    house.paid(price_rappen=1)
    house.paid(price_rappen=1)
    (row,) = house.rows("SELECT kind, facts FROM credit_notice")
    assert row["kind"] == "quarantined"
    assert json.loads(row["facts"])["reason"] == "amount_mismatch"


def test_what_was_undone_is_not_told(house: House) -> None:
    house.open_purchase()

    def broken(space: Any) -> None:
        from guthaben.services.purchases import credit_payment
        from tests.services.house import notice_of

        assert credit_payment(space, notice_of()).credited
        raise RuntimeError("undone")

    with pytest.raises(RuntimeError):
        house.run(broken)
    assert told(house) == []
    assert house.credit(PRACTICE) == 0
