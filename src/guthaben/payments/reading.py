"""One accessor for everything Stripe hands over: dict, StripeObject, or an object in a test.

Law: what comes out has exactly the type the function's name says, or is None. A StripeObject
has been no dict since stripe 15 (`.get` raises), an unset attribute of a Mock is a truthy Mock,
and a bool is an int: all three end here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import stripe

from guthaben.payments.ids import normalize_stripe_id

_BEYOND_64_BIT: Final = 2**63


def read(source: object, key: str) -> object:
    """The value of `key`, whatever `source` is; None where it has none."""
    if isinstance(source, (Mapping, stripe.StripeObject)):
        return source[key] if key in source else None  # noqa: SIM401 a StripeObject has no get
    return getattr(source, key, None)


def text(source: object, key: str) -> str | None:
    """A string that isn't empty."""
    value = read(source, key)
    return value if isinstance(value, str) and value else None


def whole(source: object, key: str) -> int | None:
    """An int that a database can hold; a float, a bool and a numeral are none."""
    value = read(source, key)
    if type(value) is not int or abs(value) >= _BEYOND_64_BIT:
        return None
    return value


def flag(source: object, key: str) -> bool | None:
    """True or False; 0, 1 and "true" are none."""
    value = read(source, key)
    return value if isinstance(value, bool) else None


def reference(source: object, key: str, prefix: str) -> str | None:
    """The id of another object, which Stripe sends as plain id or expanded."""
    return normalize_stripe_id(read(source, key), prefix)


def texts(source: object, key: str) -> dict[str, str]:
    """Metadata: the pairs of strings, without anything else."""
    value = read(source, key)
    if isinstance(value, stripe.StripeObject):
        value = value.to_dict()
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}


def items(source: object, key: str) -> list[object]:
    """The members of a list; empty where there is none."""
    value = read(source, key)
    return list(value) if isinstance(value, (list, tuple)) else []
