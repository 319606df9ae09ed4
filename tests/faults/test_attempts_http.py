"""Automatic charges against the sandbox over real HTTP: lost answers, late completions, crowds."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
import stripe

from guthaben.errors import InsufficientCredit
from guthaben.services.guthaben import Guthaben
from tests.faults.bank import POOR, PRACTICE, USD, ZURICH, Bank, bank, sandbox, server
from tests.sandbox.harness import Running
from tests.services.house import in_parallel

pytestmark = pytest.mark.faults

__all__ = ["bank", "sandbox", "server"]

INTENTS = "/v1/payment_intents"


@pytest.mark.parametrize(
    "kind", ["commit_then_drop", "commit_then_500", "drop_before", "error_500"]
)
@pytest.mark.parametrize("hours", [1, 13])
def test_a_lost_answer_ends_in_one_charge_and_one_credit(
    bank: Bank, sandbox: Running, kind: str, hours: int
) -> None:
    bank.arm()
    sandbox.control(
        "/faults/calls", {"fault": kind, "match": {"method": "POST", "path": INTENTS}, "times": 1}
    )
    bank.refused(bank.credit, "k")
    assert bank.charger.janitor.check_once() == 0  # one is in flight
    bank.charger.start()
    end = time.monotonic() + 20
    while bank.events()[0][0] == "pending" and time.monotonic() < end:
        time.sleep(0.01)
    assert bank.events()[0][0] == "unknown"
    bank.wait(hours * 3_600)
    assert bank.charger.janitor.resolve_once() == 1
    made = kind.startswith("commit") or hours == 1
    assert sandbox.charges() == int(made)
    assert bank.credit.balance(PRACTICE).credit_nano_usd == (10 * USD if made else 0)


def test_a_customer_who_completes_the_old_payment_before_it_is_cancelled_is_credited(
    bank: Bank, sandbox: Running
) -> None:
    method = bank.arm(POOR)
    fault = {"method": "POST", "path": f"{INTENTS}/*/cancel"}
    sandbox.control("/faults/calls", {"fault": "error_500", "match": fault, "times": 1})
    bank.refused(bank.credit, "k")
    bank.charger.start()
    bank.until_ended()
    ((status, reason, still_open),) = bank.events()
    assert (status, reason, still_open) == ("failed", "insufficient_funds", 3_000)
    (intent,) = sandbox.objects("payment_intent")
    sandbox.control(f"/payment_methods/{method}/outcome", {"outcome": "succeeds"})
    paid = stripe.PaymentIntent.confirm(intent["id"], payment_method=method)
    assert paid.status == "succeeded"
    assert bank.charger.janitor.cancel_once() == 1
    assert bank.events() == [("succeeded", "", 0)]
    assert bank.credit.balance(PRACTICE).credit_nano_usd == 10 * USD
    assert sandbox.charges() == 1


def test_a_declined_payment_is_cancelled_there_and_can_not_be_completed(
    bank: Bank, sandbox: Running
) -> None:
    method = bank.arm(POOR)
    bank.refused(bank.credit, "k")
    bank.charger.start()
    bank.until_ended()
    end = time.monotonic() + 20
    while bank.events()[0][2] and time.monotonic() < end:
        time.sleep(0.01)
    assert bank.events() == [("failed", "insufficient_funds", 0)]
    (intent,) = sandbox.objects("payment_intent")
    assert intent["status"] == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        stripe.PaymentIntent.confirm(intent["id"], payment_method=method)


def test_fifty_that_are_refused_at_once_in_three_processes_make_one_charge(
    bank: Bank, sandbox: Running
) -> None:
    bank.arm()
    gates = [bank.credit, bank.open()[0], bank.open()[0]]
    for _credit, charger in bank.opened:
        charger.start()
    in_parallel(50, lambda index: _quietly(gates[index % 3], f"k{index}"))
    bank.until_ended()
    assert (len(bank.events()), sandbox.charges()) == (1, 1)
    balance = bank.credit.balance(PRACTICE)  # whoever came late may have used it already
    assert balance.credit_nano_usd + balance.held_nano_usd == 10 * USD


def test_fifty_that_cross_the_end_of_the_month_stay_below_the_cap_of_each(
    bank: Bank, sandbox: Running
) -> None:
    bank.arm(cap_rappen=3_000)
    now = datetime.fromtimestamp(bank.now_ms() / 1000, ZURICH)
    year, month = divmod(now.year * 12 + now.month, 12)
    end_s = int(datetime(year, month + 1, 1, tzinfo=ZURICH).timestamp())
    bank.wait(end_s - bank.now_ms() // 1000 - 2)  # 23:59:58
    gates = [bank.credit, bank.open()[0], bank.open()[0]]
    for _credit, charger in bank.opened:
        charger.start()

    def cross(index: int) -> None:
        for turn in range(4):
            if index == turn == 0:
                bank.until_ended()
            if index == 0 and turn == 2:
                bank.wait(60)
            _quietly(gates[index % 3], f"{index}-{turn}")

    in_parallel(50, cross)
    bank.ahead_s += 61
    left = bank.credit.balance(PRACTICE).available_nano_usd
    if len(bank.events()) < 2 and left:
        bank.credit.record_usage(PRACTICE, left, key="the rest")
    _quietly(bank.credit, "the last")
    # Whoever was about to send when the clock went ahead by a minute leaves it to the janitor.
    bank.until_ended(2, with_janitor=True)
    months = bank.credit.core.ask(
        lambda cur: cur.execute(
            "SELECT cap_month, SUM(price_minor) FROM credit_event WHERE status = 'succeeded'"
            " GROUP BY cap_month"
        ).fetchall()
    )
    assert [total for _month, total in months] == [3_000, 3_000]
    assert sandbox.charges() == 2


def _quietly(credit: Guthaben, key: str) -> None:
    try:
        credit.reserve(PRACTICE, USD, key=key)
    except InsufficientCredit:
        return
