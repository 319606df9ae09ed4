"""Owns the test cards: which number saves, pays and is charged later with which outcome.

An outcome is one word: `succeeds`, `slow`, `processing`, `authentication_required`, or the name of
a decline. It touches no state; an outcome set for one saved card through the control API is kept
beside that payment method.
"""

from dataclasses import dataclass
from typing import Final

SUCCEEDS: Final = "succeeds"
SLOW: Final = "slow"
PROCESSING: Final = "processing"
AUTHENTICATION: Final = "authentication_required"
PROVIDER: Final = "payment_method_provider_decline"


@dataclass(frozen=True, slots=True)
class Decline:
    """How a refused charge is told."""

    code: str
    decline_code: str | None
    advice_code: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Card:
    """One test number: what happens on the hosted page, and when it is charged later.

    TWINT is one more means of payment, of another type, whose number is its name.
    """

    number: str
    label: str
    on_page: str = SUCCEEDS
    later: str = SUCCEEDS
    type: str = "card"

    @property
    def brand(self) -> str:
        """Return the card's brand."""
        return "mastercard" if self.number[0] in "25" else "visa"

    @property
    def last4(self) -> str:
        """Return the card's last four digits."""
        return self.number[-4:]


def _declined(decline_code: str, advice_code: str = "try_again_later") -> Decline:
    return Decline("card_declined", decline_code, advice_code, "The card was declined.")


_NEVER = "do_not_try_again"
_CHECK = "confirm_card_data"

DECLINES: Final[dict[str, Decline]] = {
    "generic_decline": _declined("generic_decline"),
    "do_not_honor": _declined("do_not_honor"),
    "insufficient_funds": Decline(
        "card_declined", "insufficient_funds", "try_again_later", "The card's funds do not suffice."
    ),
    "lost_card": _declined("lost_card", _NEVER),
    "stolen_card": _declined("stolen_card", _NEVER),
    "pickup_card": _declined("pickup_card", _NEVER),
    "fraudulent": _declined("fraudulent", _NEVER),
    "transaction_not_allowed": _declined("transaction_not_allowed", _NEVER),
    "card_velocity_exceeded": _declined("card_velocity_exceeded"),
    "issuer_not_available": _declined("issuer_not_available"),
    "try_again_later": _declined("try_again_later"),
    "expired_card": Decline("expired_card", None, _CHECK, "The card has expired."),
    "incorrect_cvc": Decline("incorrect_cvc", None, _CHECK, "The security code is wrong."),
    "processing_error": Decline(
        "processing_error", None, "try_again_later", "An error occurred while charging the card."
    ),
    PROVIDER: Decline(
        PROVIDER, None, None, "The payment was declined or given up in the TWINT app."
    ),
    AUTHENTICATION: Decline(
        AUTHENTICATION, AUTHENTICATION, _CHECK, "The card wants its holder to authenticate."
    ),
}
OUTCOMES: Final = (SUCCEEDS, SLOW, PROCESSING, *DECLINES)


def _always(number: str, label: str, outcome: str) -> Card:
    return Card(number, label, outcome, outcome)


CARDS: Final[dict[str, Card]] = {
    card.number: card
    for card in (
        Card("4242424242424242", "succeeds"),
        Card("5555555555554444", "succeeds (Mastercard)"),
        _always("4000000000000002", "is declined", "generic_decline"),
        Card("4000000000000341", "pays and saves now, is declined later", later="generic_decline"),
        _always("4000000000009995", "has insufficient funds", "insufficient_funds"),
        _always("4000000000009987", "is reported lost", "lost_card"),
        _always("4000000000009979", "is reported stolen", "stolen_card"),
        _always("4000000000000069", "has expired", "expired_card"),
        _always("4000000000000127", "has a wrong security code", "incorrect_cvc"),
        _always("4000000000000119", "meets a processing error", "processing_error"),
        Card("4000002500003155", "wants authentication when charged later", later=AUTHENTICATION),
        Card("4000002760003184", "wants authentication every time", later=AUTHENTICATION),
        Card("4000000000007726", "succeeds; its refunds stay pending"),
        _always("4000000000006009", "answers late", SLOW),
        _always("4000000000006108", "stays in processing", PROCESSING),
        Card("4000000000006207", "pays now, stays in processing later", later=PROCESSING),
        Card("4000000000006306", "pays now, answers late later", later=SLOW),
        Card("4000000000006405", "pays now, has no funds later", later="insufficient_funds"),
        Card("4000000000006504", "pays now, has expired later", later="expired_card"),
        Card("4000000000006603", "pays now, is stolen later", later="stolen_card"),
    )
}
TWINT: Final = Card("twint", "TWINT", type="twint")
TWINT_LIMIT: Final = 500_000  # CHF 5,000
PENDING_REFUNDS: Final = "4000000000007726"

_SUFFIXES: Final = {
    "chargeDeclined": "4000000000000002",
    "chargeDeclinedInsufficientFunds": "4000000000009995",
    "chargeDeclinedLostCard": "4000000000009987",
    "chargeDeclinedStolenCard": "4000000000009979",
    "chargeDeclinedExpiredCard": "4000000000000069",
    "chargeDeclinedIncorrectCvc": "4000000000000127",
    "chargeDeclinedProcessingError": "4000000000000119",
}

TOKENS: Final[dict[str, str]] = {
    "pm_card_visa": "4242424242424242",
    "pm_card_mastercard": "5555555555554444",
    "pm_card_chargeCustomerFail": "4000000000000341",
    "pm_card_authenticationRequired": "4000002760003184",
    "pm_card_authenticationRequiredOnSetup": "4000002500003155",
    "pm_card_threeDSecure2Required": "4000002760003184",
    "pm_card_pendingRefund": "4000000000007726",
    "pm_card_slow": "4000000000006009",
    "pm_card_processing": "4000000000006108",
    **{f"pm_card_{suffix}": number for suffix, number in _SUFFIXES.items()},
    **{f"pm_card_visa_{suffix}": number for suffix, number in _SUFFIXES.items()},
}


def card_of(number: str) -> Card | None:
    """Return the test card with that number, written with or without spaces, or TWINT."""
    return TWINT if number == TWINT.number else CARDS.get("".join(number.split()))
