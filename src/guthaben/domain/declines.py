"""What a refusal to charge a saved card means for the next attempt: a table, nothing else.

Law: only what passes by itself is tried again; a code nobody knows counts as one that never
passes. After Stripe's list of decline codes and its advice codes (docs.stripe.com/declines/codes
and docs.stripe.com/declines/card): where it says to try again, or the funds are what is missing,
a later attempt may help; where the customer must act or ask the bank, it can't.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """What a failed attempt means for the next one."""

    NEVER = "never"
    """The customer must act: another card, a word with the bank, an authentication."""
    SOON = "soon"
    """The bank or the network had trouble; hours help."""
    LATER = "later"
    """The money or a limit was missing; days help."""
    UNSENT = "unsent"
    """Nothing reached the card: it says nothing about it."""


NEVER_AGAIN: Final = frozenset(
    {
        "authentication_not_handled",
        "authentication_required",
        "call_issuer",
        "card_not_supported",
        "currency_not_supported",
        "do_not_honor",
        "do_not_try_again",
        "expired_card",
        "fraudulent",
        "generic_decline",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_pin",
        "incorrect_zip",
        "invalid_account",
        "invalid_amount",
        "invalid_cvc",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "invalid_pin",
        "live_mode_test_card",
        "lost_card",
        "merchant_blacklist",
        "mobile_device_authentication_required",
        "new_account_information_available",
        "no_action_taken",
        "not_permitted",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "pickup_card",
        "pin_try_exceeded",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "security_violation",
        "service_not_allowed",
        "stolen_card",
        "stop_payment_order",
        "testmode_decline",
        "transaction_not_allowed",
    }
)
TROUBLE: Final = frozenset(
    {
        "approve_with_id",
        "issuer_not_available",
        "lock_timeout",
        "processing_error",
        "rate_limit",
        "reenter_transaction",
        "try_again_later",
    }
)
SHORT_OF_MONEY: Final = frozenset(
    {"card_velocity_exceeded", "insufficient_funds", "withdrawal_count_limit_exceeded"}
)
ADVICE_AGAINST: Final = frozenset({"confirm_card_data", "do_not_try_again"})
ADVICE_FOR: Final = "try_again_later"
_SAYS_NOTHING: Final = frozenset({"", "card_declined", "generic_decline", "do_not_honor"})
"""Words of banks that give no reason: here an advice to try again counts."""


def judge(code: str | None, decline_code: str | None, advice_code: str | None) -> Verdict:
    """Judge a decline by its error code, its decline code and the network's advice.

    The narrower word counts before the wider one, and a no before a maybe.
    """
    codes = {code or "", decline_code or ""}
    if advice_code in ADVICE_AGAINST or codes & (NEVER_AGAIN - _SAYS_NOTHING):
        return Verdict.NEVER
    if codes & SHORT_OF_MONEY:
        return Verdict.LATER
    if codes & TROUBLE:
        return Verdict.SOON
    if advice_code == ADVICE_FOR and codes <= _SAYS_NOTHING:
        return Verdict.LATER
    return Verdict.NEVER
