"""The shortfall of a refused call: what a charge must bring at least."""

from __future__ import annotations

import pytest

from guthaben.domain.calls import Overage
from guthaben.domain.commands import (
    Command,
    LeaseCommit,
    LeaseRelease,
    Outcome,
    RecordUsage,
    Reserve,
)
from guthaben.domain.journal import genesis
from guthaben.domain.practice import Practice
from guthaben.domain.shortfall import LACK_OF_CREDIT, shortfall_nano_usd

OWING = Practice(1, "prac_1", genesis("prac_1"), debt_nano_usd=30)
LEASE = int(Overage.REJECT)


def refused(reason: str = "insufficient_credit", available: int = 0) -> Outcome:
    return Outcome(False, reason, False, available_nano_usd=available)


@pytest.mark.parametrize(
    ("command", "available", "missing"),
    [
        (Reserve("k", 100), 0, 130),
        (Reserve("k", 100), 40, 90),
        (Reserve("k", 100, overage_policy=LEASE), 40, 60),
        (Reserve("k", 100, overage_policy=LEASE), 100, 1),
        (Reserve("k", 100, is_tentative=True), 40, 0),
        (RecordUsage("k", 100, overage_policy=LEASE), 40, 60),
        (RecordUsage("k", 100, overage_policy=LEASE), 100, 1),
        (LeaseCommit("k", 7, 100), 0, 1),
        (LeaseRelease("k", 7), 0, 0),
    ],
)
def test_what_a_refused_call_lacked(command: Command, available: int, missing: int) -> None:
    assert shortfall_nano_usd(OWING, command, refused(available=available)) == missing


@pytest.mark.parametrize("reason", sorted(LACK_OF_CREDIT))
def test_every_reason_that_credit_prevents_counts(reason: str) -> None:
    assert shortfall_nano_usd(OWING, Reserve("k", 100), refused(reason)) == 130


@pytest.mark.parametrize("reason", ["cap_exceeded", "practice_frozen", "idempotency_conflict"])
def test_what_credit_would_not_have_prevented_lacks_none(reason: str) -> None:
    assert shortfall_nano_usd(OWING, Reserve("k", 100), refused(reason)) == 0


def test_an_accepted_call_lacks_nothing() -> None:
    assert shortfall_nano_usd(OWING, Reserve("k", 100), Outcome(True)) == 0
