"""What Stripe says about a payment, as typed facts, from API answers and webhook payloads alike.

Law: a fact that the object doesn't state is None, never a guess: an unexpanded charge says
nothing about refunds, so `refunded_rappen` is None and not 0. Amounts are the smallest unit of
`currency`, which is lower case; they are Rappen only when `currency` is `chf`. Nothing here
decides whether credit is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from guthaben.errors import InvalidInput
from guthaben.payments.discreet import Discreet
from guthaben.payments.ids import normalize_stripe_id
from guthaben.payments.reading import flag, read, reference, text, texts, whole

__all__ = [
    "PaymentFacts",
    "CheckoutFacts",
    "SetupFacts",
    "RefundFacts",
    "RefundReceipt",
    "DisputeFacts",
    "WarningFacts",
    "BalanceEntry",
    "payment_facts",
    "checkout_facts",
    "setup_facts",
    "refund_facts",
    "refund_receipt",
    "dispute_facts",
    "warning_facts",
    "balance_entry",
]


@dataclass(frozen=True, slots=True, repr=False)
class BalanceEntry(Discreet):
    """A line of the provider's balance, in minor units of the balance's own `currency`."""

    entry_id: str
    kind: str | None
    source_id: str | None
    amount_minor: int
    fee_minor: int
    net_minor: int
    currency: str
    created_at_s: int | None


@dataclass(frozen=True, slots=True, repr=False)
class PaymentFacts(Discreet):
    """A payment intent; `refunded_rappen` is cumulative, over all refunds so far."""

    payment_id: str
    status: str | None
    amount_rappen: int | None
    amount_received_rappen: int | None
    refunded_rappen: int | None
    disputed: bool | None
    currency: str | None
    livemode: bool | None
    customer_id: str | None
    payment_method_id: str | None
    created_at_s: int | None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)
    charge_id: str | None = None
    balance: BalanceEntry | None = None  # only where it came expanded
    method_type: str | None = None
    """What paid, such as `card` or `twint`; only where the charge came expanded."""
    charged_at_s: int | None = None
    """When the customer paid; the intent may be older. Only where the charge came expanded."""


@dataclass(frozen=True, slots=True, repr=False)
class CheckoutFacts(Discreet):
    """A hosted page; `status` is open, complete or expired, `payment_status` says if it is paid."""

    session_id: str
    mode: str | None
    status: str | None
    payment_status: str | None
    payment_id: str | None
    setup_id: str | None
    setup_payment_method_id: str | None  # only where the set-up came expanded
    subscription_id: str | None
    customer_id: str | None
    amount_total_rappen: int | None
    currency: str | None
    livemode: bool | None
    client_reference_id: str | None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)
    created_at_s: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class SetupFacts(Discreet):
    """A saved payment method; without both customer and method it can't be charged."""

    setup_id: str
    status: str | None
    customer_id: str | None
    payment_method_id: str | None
    livemode: bool | None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)
    created_at_s: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class RefundFacts(Discreet):
    """A charge's refunds, summed up by Stripe; `refunded_rappen` is cumulative."""

    charge_id: str
    payment_id: str | None
    captured_rappen: int | None
    refunded_rappen: int | None
    disputed: bool | None
    currency: str | None
    livemode: bool | None
    customer_id: str | None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class RefundReceipt(Discreet):
    """One refund; `status` is pending, requires_action, succeeded, failed or canceled."""

    refund_id: str
    payment_id: str | None
    charge_id: str | None
    amount_rappen: int | None
    currency: str | None
    status: str | None
    created_at_s: int | None = None
    metadata: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class DisputeFacts(Discreet):
    """A dispute; while `status` starts with `warning_` no money has been taken."""

    dispute_id: str
    payment_id: str | None
    charge_id: str | None
    amount_rappen: int | None
    currency: str | None
    status: str | None
    reason: str | None
    livemode: bool | None
    created_at_s: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class WarningFacts(Discreet):
    """A card issuer's early warning of fraud; `actionable` as long as a refund would help."""

    warning_id: str
    payment_id: str | None
    charge_id: str | None
    fraud_type: str | None
    actionable: bool | None
    livemode: bool | None


def payment_facts(source: object) -> PaymentFacts:
    """Read a payment intent; raises InvalidInput if it has no id of its own."""
    received = whole(source, "amount_received")
    return PaymentFacts(
        payment_id=_own_id(source, "pi_"),
        status=text(source, "status"),
        amount_rappen=whole(source, "amount"),
        amount_received_rappen=received,
        refunded_rappen=_refunded(source, received),
        disputed=_disputed(source, received),
        currency=_currency(source),
        livemode=flag(source, "livemode"),
        customer_id=reference(source, "customer", "cus_"),
        payment_method_id=_payment_method(source),
        created_at_s=whole(source, "created"),
        charge_id=reference(source, "latest_charge", "ch_")
        or reference(source, "latest_charge", "py_"),
        balance=_balance(_expanded_charge(source)),
        metadata=texts(source, "metadata"),
        method_type=text(read(_expanded_charge(source), "payment_method_details"), "type"),
        charged_at_s=whole(_expanded_charge(source), "created"),
    )


def checkout_facts(source: object) -> CheckoutFacts:
    """Read a checkout session; raises InvalidInput if it has no id of its own."""
    setup = read(source, "setup_intent")
    return CheckoutFacts(
        session_id=_own_id(source, "cs_"),
        mode=text(source, "mode"),
        status=text(source, "status"),
        payment_status=text(source, "payment_status"),
        payment_id=reference(source, "payment_intent", "pi_"),
        setup_id=reference(source, "setup_intent", "seti_"),
        setup_payment_method_id=None if isinstance(setup, str) else _payment_method(setup),
        subscription_id=reference(source, "subscription", "sub_"),
        customer_id=reference(source, "customer", "cus_"),
        amount_total_rappen=whole(source, "amount_total"),
        currency=_currency(source),
        livemode=flag(source, "livemode"),
        client_reference_id=text(source, "client_reference_id"),
        metadata=texts(source, "metadata"),
        created_at_s=whole(source, "created"),
    )


def setup_facts(source: object) -> SetupFacts:
    """Read a setup intent; raises InvalidInput if it has no id of its own."""
    return SetupFacts(
        setup_id=_own_id(source, "seti_"),
        status=text(source, "status"),
        customer_id=reference(source, "customer", "cus_"),
        payment_method_id=_payment_method(source),
        livemode=flag(source, "livemode"),
        metadata=texts(source, "metadata"),
        created_at_s=whole(source, "created"),
    )


def refund_facts(charge: object) -> RefundFacts:
    """Read the charge of a `charge.refunded` event."""
    return RefundFacts(
        charge_id=_own_id(charge, "ch_", "py_"),
        payment_id=reference(charge, "payment_intent", "pi_"),
        captured_rappen=whole(charge, "amount_captured"),
        refunded_rappen=whole(charge, "amount_refunded"),
        disputed=flag(charge, "disputed"),
        currency=_currency(charge),
        livemode=flag(charge, "livemode"),
        customer_id=reference(charge, "customer", "cus_"),
        metadata=texts(charge, "metadata"),
    )


def refund_receipt(source: object) -> RefundReceipt:
    """Read one refund, from the API or a `refund.*` event; it never says its live mode."""
    return RefundReceipt(
        refund_id=_own_id(source, "re_", "pyr_"),
        payment_id=reference(source, "payment_intent", "pi_"),
        charge_id=_charge(source),
        amount_rappen=whole(source, "amount"),
        currency=_currency(source),
        status=text(source, "status"),
        created_at_s=whole(source, "created"),
        metadata=texts(source, "metadata"),
    )


def dispute_facts(source: object) -> DisputeFacts:
    """Read the dispute of a `charge.dispute.*` event."""
    return DisputeFacts(
        dispute_id=_own_id(source, "dp_", "du_"),
        payment_id=reference(source, "payment_intent", "pi_"),
        charge_id=_charge(source),
        amount_rappen=whole(source, "amount"),
        currency=_currency(source),
        status=text(source, "status"),
        reason=text(source, "reason"),
        livemode=flag(source, "livemode"),
        created_at_s=whole(source, "created"),
    )


def warning_facts(source: object) -> WarningFacts:
    """Read the early fraud warning of a `radar.early_fraud_warning.*` event."""
    return WarningFacts(
        warning_id=_own_id(source, "issfr_"),
        payment_id=reference(source, "payment_intent", "pi_"),
        charge_id=_charge(source),
        fraud_type=text(source, "fraud_type"),
        actionable=flag(source, "actionable"),
        livemode=flag(source, "livemode"),
    )


def balance_entry(source: object) -> BalanceEntry:
    """Read a balance transaction; raises InvalidInput where it tells no amount."""
    entry_id = _own_id(source, "txn_")
    amount, fee, net = (whole(source, name) for name in ("amount", "fee", "net"))
    currency = _currency(source)
    if amount is None or fee is None or net is None or currency is None:
        raise InvalidInput("The balance transaction does not tell its amounts.", field="amount")
    return BalanceEntry(
        entry_id=entry_id,
        kind=text(source, "type"),
        source_id=normalize_stripe_id(read(source, "source"), ""),
        amount_minor=amount,
        fee_minor=fee,
        net_minor=net,
        currency=currency,
        created_at_s=whole(source, "created"),
    )


def _balance(charge: object) -> BalanceEntry | None:
    entry = read(charge, "balance_transaction")
    if entry is None or isinstance(entry, str):
        return None
    try:
        return balance_entry(entry)
    except InvalidInput:
        return None


def _own_id(source: object, *prefixes: str) -> str:
    for prefix in prefixes:
        found = reference(source, "id", prefix)
        if found is not None:
            return found
    raise InvalidInput(
        f"Expected an object whose id starts with {' or '.join(prefixes)}.", field="id"
    )


def _currency(source: object) -> str | None:
    found = text(source, "currency")
    return None if found is None else found.lower()


def _payment_method(source: object) -> str | None:
    # Methods saved before 2018 are cards and sources; they can be charged all the same.
    for prefix in ("pm_", "card_", "src_"):
        found = reference(source, "payment_method", prefix)
        if found is not None:
            return found
    return None


def _charge(source: object) -> str | None:
    return reference(source, "charge", "ch_") or reference(source, "charge", "py_")


def _refunded(source: object, received: int | None) -> int | None:
    if received == 0:
        return 0
    return whole(_expanded_charge(source), "amount_refunded")


def _disputed(source: object, received: int | None) -> bool | None:
    if received == 0:
        return False
    return flag(_expanded_charge(source), "disputed")


def _expanded_charge(source: object) -> object:
    charge = read(source, "latest_charge")
    return None if isinstance(charge, str) else charge
