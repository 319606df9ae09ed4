"""What a decline means for the next attempt: code by code, and what counts when words disagree."""

from __future__ import annotations

import pytest

from guthaben.domain.declines import (
    ADVICE_AGAINST,
    NEVER_AGAIN,
    SHORT_OF_MONEY,
    TROUBLE,
    Verdict,
    judge,
)


@pytest.mark.parametrize("code", sorted(NEVER_AGAIN))
def test_what_only_the_customer_can_mend_is_never_tried_again(code: str) -> None:
    assert judge("card_declined", code, None) is Verdict.NEVER
    assert judge(code, None, None) is Verdict.NEVER


@pytest.mark.parametrize("code", sorted(SHORT_OF_MONEY))
def test_where_money_is_missing_days_help(code: str) -> None:
    assert judge("card_declined", code, None) is Verdict.LATER
    assert judge("card_declined", code, "try_again_later") is Verdict.LATER


@pytest.mark.parametrize("code", sorted(TROUBLE))
def test_where_the_bank_has_trouble_hours_help(code: str) -> None:
    assert judge("card_declined", code, None) is Verdict.SOON
    assert judge(code, None, None) is Verdict.SOON


@pytest.mark.parametrize("advice", sorted(ADVICE_AGAINST))
@pytest.mark.parametrize("code", ["insufficient_funds", "processing_error", None, "never_seen"])
def test_the_networks_no_counts_before_everything(code: str | None, advice: str) -> None:
    assert judge("card_declined", code, advice) is Verdict.NEVER


@pytest.mark.parametrize("code", ["lost_card", "expired_card", "stop_payment_order", "never_seen"])
def test_an_advice_to_try_again_saves_no_card_that_is_gone(code: str) -> None:
    assert judge("card_declined", code, "try_again_later") is Verdict.NEVER


@pytest.mark.parametrize("code", ["do_not_honor", "generic_decline", "", None])
def test_a_bank_that_gives_no_reason_is_believed_its_networks_advice(code: str | None) -> None:
    assert judge("card_declined", code, "try_again_later") is Verdict.LATER
    assert judge("card_declined", code, None) is Verdict.NEVER


@pytest.mark.parametrize("codes", [("never_seen", None), (None, "never_seen"), (None, None)])
def test_a_word_that_nobody_knows_is_a_no(codes: tuple[str | None, str | None]) -> None:
    assert judge(*codes, None) is Verdict.NEVER


def test_no_code_is_in_two_lists() -> None:
    assert not NEVER_AGAIN & TROUBLE
    assert not NEVER_AGAIN & SHORT_OF_MONEY
    assert not TROUBLE & SHORT_OF_MONEY
