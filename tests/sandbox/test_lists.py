"""Lists, their pages and filters; the balance and its fees."""

import operator
from typing import Any

import httpx
import pytest
import stripe

from guthaben.sandbox.errors import ApiError
from tests.sandbox.harness import Account, buy, charge

LISTS: dict[str, Any] = {
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "event": stripe.Event,
    "checkout.session": stripe.checkout.Session,
    "balance_transaction": stripe.BalanceTransaction,
    "radar.early_fraud_warning": stripe.radar.EarlyFraudWarning,
}

SIGNS = {"gte": operator.ge, "gt": operator.gt, "lt": operator.lt, "lte": operator.le}


def five_of_everything(account: Account) -> None:
    """Let five payments be made, an hour apart, with all that can follow."""
    customer, method = account.saved()
    for _ in range(5):
        account.pass_s(3600)
        buy()
        intent = charge(customer, method)
        stripe.Refund.create(payment_intent=intent.id, amount=100)
        account.control(f"/charges/{intent.latest_charge}/dispute")
        account.control(f"/charges/{intent.latest_charge}/fraud_warning")


def test_every_list_pages_both_ways_and_by_creation(account: Account) -> None:
    five_of_everything(account)
    for kind, cls in LISTS.items():
        oldest_first = [(o["id"], o["created"]) for o in account.objects(kind)]
        newest_first = [object_id for object_id, _ in reversed(oldest_first)]
        assert len(newest_first) >= 5, kind
        assert [o.id for o in cls.list(limit=2).auto_paging_iter()] == newest_first, kind
        first = cls.list(limit=3)
        assert first.has_more
        then = cls.list(limit=100, starting_after=first.data[-1].id)
        assert [o.id for o in then.data] == newest_first[3:]
        assert not then.has_more
        back = cls.list(limit=2, ending_before=newest_first[3])
        assert ([o.id for o in back.data], back.has_more) == (newest_first[1:3], True)

        cut = oldest_first[len(oldest_first) // 2][1]
        for sign, holds in SIGNS.items():
            found = cls.list(limit=100, created={sign: cut}).auto_paging_iter()
            wanted = [i for i, at in reversed(oldest_first) if holds(at, cut)]
            assert [o.id for o in found] == wanted, (kind, sign)


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": 101},
        {"limit": 0},
        {"starting_after": "pi_unknown"},
        {"created": {"around": 1}},
        {"status": "succeeded"},
    ],
)
def test_bad_filters_are_refused(account: Account, asked: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.list(**asked)


def test_both_cursors_at_once_are_refused(account: Account) -> None:
    ids = [stripe.Customer.create().id for _ in range(2)]
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Customer.list(starting_after=ids[0], ending_before=ids[1])


def test_events_by_types_and_for_thirty_days(account: Account) -> None:
    account.paid()
    wanted = ["charge.succeeded", "payment_intent.succeeded"]
    found = stripe.Event.list(types=wanted).data
    assert [event.type for event in reversed(found)] == wanted
    assert {e.type for e in stripe.Event.list(type="setup_intent.*").data} == {
        "setup_intent.created", "setup_intent.succeeded"
    }  # fmt: skip
    for asked in ({"types": ["a"] * 21}, {"type": "charge.*", "types": wanted}):
        with pytest.raises(stripe.InvalidRequestError):
            stripe.Event.list(**asked)
    account.pass_s(30 * 86_400 - 60)
    assert len(stripe.Event.list(types=wanted).data) == 2
    account.pass_s(61)
    assert stripe.Event.list(types=wanted).data == []


def test_what_is_asked_for_is_expanded(account: Account) -> None:
    account.paid()
    page = stripe.PaymentIntent.list(
        expand=["data.latest_charge.balance_transaction", "data.customer"]
    )
    [intent] = page.data
    assert intent.latest_charge.balance_transaction.net == 3000 - 117  # type: ignore[union-attr]
    assert intent.customer["object"] == "customer"  # type: ignore[index]
    booked = stripe.BalanceTransaction.list(expand=["data.source"]).data
    assert booked[0].source["object"] == "charge"  # type: ignore[index]


def test_the_balance_explains_every_franc(account: Account) -> None:
    five_of_everything(account)
    booked = stripe.BalanceTransaction.list(limit=100).data
    assert all(b.net == b.amount - b.fee for b in booked)
    assert all(b.fee == sum(d.amount for d in b.fee_details) for b in booked)
    assert sum(b.amount for b in booked) == 5 * (3000 - 100 - 3000)
    assert sum(b.fee for b in booked) == 5 * (117 + 2000)
    assert {b.type for b in booked} == {"charge", "refund", "adjustment"}
    sources = {o["id"] for kind in ("charge", "refund", "dispute") for o in account.objects(kind)}
    assert {b.source for b in booked} == sources


def test_fees_are_data(account: Account) -> None:
    account.control("/fees", {"card": {"basis_points": 1, "fixed": 0}})
    account.paid()
    [booked] = stripe.BalanceTransaction.list().data
    assert booked.fee == 1  # a fraction is rounded up
    wrong: list[dict[str, Any]] = [
        {"cash": {}},
        {"card": {"basis_points": 0.5}},
        {"card": {"fixed": -1}},
    ]
    for bad in wrong:
        with pytest.raises((ApiError, httpx.HTTPStatusError)):
            account.control("/fees", bad)


def test_money_is_available_after_a_week(account: Account) -> None:
    account.paid()
    assert stripe.BalanceTransaction.list().data[0].status == "pending"
    account.pass_s(7 * 86_400)
    assert stripe.BalanceTransaction.list().data[0].status == "available"
