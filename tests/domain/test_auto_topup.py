"""The automatic top-up's decision: every reason, the order of the checks, and their boundaries."""

from __future__ import annotations

from itertools import combinations

import pytest

from guthaben.domain.auto_topup import (
    COOLDOWN_S,
    AutoTopup,
    Consent,
    Decision,
    Reason,
    below_trigger,
    decide,
)

NOW_S = 1_700_000_000
READY = AutoTopup(
    enabled=True,
    customer_id="cus_1",
    payment_method_id="pm_1",
    consent=Consent(1, 3_000, 30_000),
    cap_month="2023-11",
    cap_zone="Europe/Zurich",
)
# In the order of the checks: the reason, and what brings it about.
OBSTACLES: list[tuple[Reason, dict[str, object]]] = [
    (Reason.DISABLED, {"enabled": False}),
    (Reason.STOPPED, {"stopped": True}),
    (Reason.ABOVE_TRIGGER, {"is_low": False}),
    (Reason.PRACTICE_NOT_ACTIVE, {"practice_active": False}),
    (Reason.NO_PAYMENT_METHOD, {"payment_method_id": ""}),
    (Reason.MONTHLY_LIMIT_REACHED, {"spent_rappen": 27_001}),
    (Reason.PENDING, {"in_flight": True}),
    (Reason.COOLDOWN, {"last_success_at_s": NOW_S - 1}),
    (Reason.BACKING_OFF, {"retry_at_s": NOW_S + 1}),
    (Reason.NEED_EXHAUSTED, {"tries_of_need": 3}),
    (Reason.CARD_EXHAUSTED, {"tries_of_card": 15}),
    (Reason.NO_CONSENT, {"consent": None}),
    (Reason.MISCONFIGURED, {"credit_nano_usd": 0}),
]


def decided(**changes: object) -> Decision:
    is_low = bool(changes.pop("is_low", True))
    return decide(READY._replace(**changes), is_low, NOW_S)  # type: ignore[arg-type]


def test_with_nothing_in_its_way_it_charges() -> None:
    assert decided() == Decision(Reason.CHARGE)
    assert decided().charges


@pytest.mark.parametrize(("reason", "change"), OBSTACLES, ids=lambda value: str(value))
def test_each_obstacle_has_its_reason(reason: Reason, change: dict[str, object]) -> None:
    told = decided(**change)
    assert told.reason is reason
    assert not told.charges


@pytest.mark.parametrize(("first", "second"), list(combinations(OBSTACLES, 2)), ids=str)
def test_of_two_obstacles_the_earlier_is_the_reason(
    first: tuple[Reason, dict[str, object]], second: tuple[Reason, dict[str, object]]
) -> None:
    assert decided(**{**second[1], **first[1]}).reason is first[0]


def test_all_reasons_but_charging_are_covered() -> None:
    assert {reason for reason, _ in OBSTACLES} == set(Reason) - {Reason.CHARGE}


def test_reasons_keep_their_words() -> None:
    assert [reason.value for reason in Reason] == [
        "charge", "disabled", "topups_stopped", "above_trigger", "no_payment_method",
        "auto_topup_monthly_limit_reached", "pending_auto_topup", "cooldown_24h",
        "waiting_to_retry", "need_exhausted", "card_exhausted", "practice_not_active",
        "no_consent", "misconfigured",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spent_rappen": 27_000}, Reason.CHARGE),  # sum + amount == cap
        ({"spent_rappen": 27_001}, Reason.MONTHLY_LIMIT_REACHED),
        ({"cap_rappen": 3_000}, Reason.CHARGE),
        ({"cap_rappen": 2_999}, Reason.MONTHLY_LIMIT_REACHED),
        ({"last_success_at_s": NOW_S - COOLDOWN_S}, Reason.CHARGE),
        ({"last_success_at_s": NOW_S - COOLDOWN_S + 1}, Reason.COOLDOWN),
        ({"last_success_at_s": 0}, Reason.CHARGE),
        ({"last_success_at_s": NOW_S, "cooldown_s": 0}, Reason.CHARGE),
        ({"consent": Consent(1, 2_999, 30_000)}, Reason.NO_CONSENT),
        ({"consent": Consent(1, 3_000, 29_999)}, Reason.NO_CONSENT),
        ({"consent": Consent(1, 9_000, 90_000)}, Reason.CHARGE),
        ({"customer_id": ""}, Reason.NO_PAYMENT_METHOD),
        ({"retry_at_s": NOW_S}, Reason.CHARGE),
        ({"tries_of_need": 2, "tries_of_card": 14}, Reason.CHARGE),
        ({"largest_rappen": 3_001}, Reason.NO_CONSENT),
        ({"largest_rappen": 9_000, "consent": Consent(1, 3_000, 30_000, 9_000)}, Reason.CHARGE),
        ({"amount_rappen": 0}, Reason.MISCONFIGURED),
        ({"amount_rappen": -1}, Reason.MISCONFIGURED),
        ({"credit_nano_usd": -1}, Reason.MISCONFIGURED),
    ],
)
def test_boundaries(changes: dict[str, object], reason: Reason) -> None:
    assert decided(**changes).reason is reason


def test_a_cooldown_says_when_it_ends() -> None:
    told = decided(last_success_at_s=NOW_S - 100)
    assert told == Decision(Reason.COOLDOWN, NOW_S - 100 + COOLDOWN_S)


@pytest.mark.parametrize(
    ("available", "allowance", "shortfall", "is_low"),
    [
        (51, 1000, False, False),
        (50, 1000, False, False),  # 5 % is not below 5 %
        (49, 1000, False, True),
        (0, 1, False, True),
        (10**15, 1000, True, True),  # a call was refused
        (9, 0, False, True),  # without an allowance: strictly below the amount
        (10, 0, False, False),
    ],
)
def test_the_trigger(available: int, allowance: int, shortfall: bool, is_low: bool) -> None:
    context = READY._replace(trigger_percent=5, trigger_below_nano_usd=10)
    assert below_trigger(context, available, allowance, shortfall) is is_low
