"""Automatic charges: their size, what a failure leads to, what is asked right before sending."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guthaben.domain.apply import apply
from guthaben.domain.auto_topup import (
    BACK_OFF_S,
    PAUSE,
    RETRY,
    AutoTopup,
    Consent,
    Consequence,
    Price,
    after_failure,
    agreed,
    price_of,
    why_not_send,
)
from guthaben.domain.commands import CloseEvent, Command, ConfirmCancelled, SendAttempt
from guthaben.domain.declines import Verdict
from guthaben.domain.money import nano_usd_for_rappen, rappen_for_nano_usd
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent

NOW_S = 1_700_000_000
USD = 1_000_000_000
READY = AutoTopup(
    enabled=True,
    customer_id="cus_1",
    payment_method_id="pm_1",
    consent=Consent(1, 3_000, 30_000, 9_000),
    largest_rappen=9_000,
    cap_month="2023-11",
    cap_zone="Europe/Zurich",
    on_decline=RETRY,
    tries_of_need=1,
    failures_in_row=1,
    tries_of_card=1,
)
ATTEMPT = CreditEvent(
    1, "auto_topup_purchase", "pending", 10 * USD, 3_000, method_id="pm_1", need_no=1
)


# ---------------------------------------------------------------- the size of a charge


@example(3_320_000)  # one Rappen buys 0.0033 USD, not a third of a cent
@example(6_690_000)  # two buy 0.0067 USD, rounded up
@given(st.one_of(st.integers(1, 10**15), st.integers(1, 10**9)))
def test_the_price_of_a_shortfall_is_the_least_that_buys_it(missing: int) -> None:
    price = rappen_for_nano_usd(missing)
    assert nano_usd_for_rappen(price) >= missing
    assert nano_usd_for_rappen(price - 1) < missing


@pytest.mark.parametrize(("changes", "missing", "rappen"), [
    ({}, 0, 3_000),
    ({}, 10 * USD, 3_000),  # the ordinary amount closes it
    ({}, 10 * USD + 1, 3_001),
    ({}, 25 * USD, 7_500),
    ({}, 30 * USD, 9_000),  # the largest the customer agreed to
    ({}, 30 * USD + 10**8, 3_000),  # no charge closes it: the ordinary one
    ({"spent_rappen": 22_500}, 25 * USD, 7_500),  # what the month still allows
    ({"spent_rappen": 22_501}, 25 * USD, 3_000),
    ({"largest_rappen": 0}, 25 * USD, 3_000),
    ({"largest_rappen": 3_000}, 10 * USD + 1, 3_000),
])  # fmt: skip
def test_a_charge_is_ordinary_or_closes_the_whole_shortfall(
    changes: dict[str, Any], missing: int, rappen: int
) -> None:
    credit = 10 * USD if rappen == 3_000 else nano_usd_for_rappen(rappen)
    assert price_of(READY._replace(**changes), missing) == Price(rappen, credit)


# ---------------------------------------------------------------- what a failure leads to


@pytest.mark.parametrize(("verdict", "changes", "expected"), [
    (Verdict.NEVER, {}, Consequence(pause="lost")),
    (Verdict.SOON, {}, Consequence(retry_at_s=NOW_S + 3_600)),
    (Verdict.LATER, {}, Consequence(retry_at_s=NOW_S + 86_400)),
    (Verdict.SOON, {"tries_of_need": 2, "failures_in_row": 2},
     Consequence(retry_at_s=NOW_S + 6 * 3_600)),
    (Verdict.LATER, {"tries_of_need": 2, "failures_in_row": 2},
     Consequence(retry_at_s=NOW_S + 3 * 86_400)),
    (Verdict.LATER, {"tries_of_need": 1, "failures_in_row": 2},
     Consequence(retry_at_s=NOW_S + 3 * 86_400)),
    (Verdict.LATER, {"tries_of_need": 0, "failures_in_row": 0},
     Consequence(retry_at_s=NOW_S + 86_400)),
    (Verdict.LATER, {"failures_in_row": 3}, Consequence(pause="three_failures")),
    (Verdict.SOON, {"failures_in_row": 3}, Consequence(pause="three_failures")),
    (Verdict.SOON, {"tries_of_need": 3}, Consequence(pause="three_failures")),
    (Verdict.SOON, {"tries_of_card": 15}, Consequence(pause="card_tried_too_often")),
    (Verdict.SOON, {"tries_of_card": 14}, Consequence(retry_at_s=NOW_S + 3_600)),
    (Verdict.SOON, {"on_decline": PAUSE}, Consequence(pause="lost")),
    (Verdict.LATER, {"on_decline": PAUSE}, Consequence(pause="lost")),
    (Verdict.UNSENT, {"on_decline": PAUSE, "failures_in_row": 9},
     Consequence(retry_at_s=NOW_S + 3_600)),
])  # fmt: skip
def test_a_failure_leads_to(
    verdict: Verdict, changes: dict[str, Any], expected: Consequence
) -> None:
    assert after_failure(READY._replace(**changes), verdict, "lost", NOW_S) == expected


def test_every_verdict_that_may_pass_has_its_pauses() -> None:
    assert set(BACK_OFF_S) == {Verdict.SOON, Verdict.LATER}
    assert all(first < second for first, second in BACK_OFF_S.values())


# ---------------------------------------------------------------- right before it is sent


@pytest.mark.parametrize(("changes", "why"), [
    ({}, ""),
    ({"enabled": False}, "switched_off"),
    ({"stopped": True}, "topups_stopped"),
    ({"practice_active": False}, "practice_not_active"),
    ({"consent": None}, "no_consent"),
    ({"consent": Consent(1, 2_999, 30_000)}, "no_consent"),
    ({"consent": Consent(1, 1_000, 30_000, 3_000)}, ""),
    ({"payment_method_id": "pm_2"}, "card_changed"),
    ({"spent_rappen": 30_000}, ""),  # the attempt is part of it
    ({"spent_rappen": 30_001}, "auto_topup_monthly_limit_reached"),
    ({"spent_rappen": 30_001, "cap_month": "2023-12"}, ""),  # that is another month's
])  # fmt: skip
def test_what_changed_since_the_claim_counts(changes: dict[str, Any], why: str) -> None:
    context = READY._replace(**changes)
    assert why_not_send(context, 3_000, "pm_1", "2023-11") == why


def test_a_single_charge_is_agreed_to_up_to_the_larger_amount() -> None:
    assert agreed(Consent(1, 3_000, 30_000, 9_000), 9_000)
    assert not agreed(Consent(1, 3_000, 30_000, 9_000), 9_001)
    assert agreed(Consent(1, 3_000, 30_000), 3_000)
    assert not agreed(None, 1)


# ---------------------------------------------------------------- the commands


def done(event: CreditEvent | None, command: Command) -> Any:
    return apply(Practice(1, "p", b""), event, command, NOW_S * 1000)


def test_an_attempt_is_marked_as_sent_once_with_its_mode() -> None:
    first = done(ATTEMPT, SendAttempt(1, True))
    assert first.outcome.applied
    assert (first.subject.sent_at_s, first.subject.livemode) == (NOW_S, True)
    assert not done(first.subject, SendAttempt(1, True)).outcome.applied


@pytest.mark.parametrize("status", ["unknown", "succeeded", "failed", "canceled", "quarantined"])
def test_what_is_not_pending_is_not_sent(status: str) -> None:
    told = done(ATTEMPT._replace(status=status), SendAttempt(1, True))
    assert (told.outcome.applied, told.subject.sent_at_s) == (False, 0)


def test_a_failed_payment_counts_until_it_is_confirmed_as_cancelled() -> None:
    failed = done(ATTEMPT, CloseEvent(1, "failed", "failed_auto_topup", "pi_1", "", "poor",
                                      "later", 3_000)).subject  # fmt: skip
    assert (failed.verdict, failed.open_minor) == ("later", 3_000)
    confirmed = done(failed, ConfirmCancelled(1))
    assert (confirmed.outcome.applied, confirmed.subject.open_minor) == (True, 0)
    assert confirmed.subject.status == "failed"
    assert not done(confirmed.subject, ConfirmCancelled(1)).outcome.applied


def test_commands_on_attempts_that_are_not_there_are_refused() -> None:
    for command in (SendAttempt(1, True), ConfirmCancelled(1)):
        assert done(None, command).outcome.reason == "event_not_found"
