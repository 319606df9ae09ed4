"""Stripe's ids: taking them out of whatever shape they come in, and showing them masked.

Law: an id leaves here as a plain string of its kind, or not at all. Pure; nothing is looked up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

import stripe

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_KIND: Final = re.compile(r"[a-z]{2,6}_")
_LONGEST_JSON: Final = 20_000


def normalize_stripe_id(value: object, prefix: str) -> str | None:
    """Return the id in `value` if it starts with `prefix` (such as `pm_`), else None.

    Takes a plain string, a dict or Stripe object with an id, a JSON string of one, or any
    object whose `id` is a string, as attribute of the instance or of its class.
    """
    if not isinstance(value, str):
        return _checked(_id_inside(value), prefix)
    stripped = value.strip()
    if stripped.startswith("{"):
        return _checked(_id_in_json(stripped), prefix)
    return _checked(stripped, prefix)


def _id_inside(value: object) -> object:
    if isinstance(value, (Mapping, stripe.StripeObject)):
        return value["id"] if "id" in value else None  # noqa: SIM401 a StripeObject has no get
    return getattr(value, "id", None)


def _id_in_json(encoded: str) -> object:
    if len(encoded) > _LONGEST_JSON:
        return None
    try:
        decoded = json.loads(encoded)
    except (ValueError, RecursionError):
        return None
    return _id_inside(decoded)


def _checked(found: object, prefix: str) -> str | None:
    # The type is checked last because every attribute of a Mock exists and is a Mock again.
    if not isinstance(found, str) or not found.startswith(prefix) or len(found) == len(prefix):
        return None
    return str(found) if _ID.fullmatch(found) else None


def mask_stripe_reference(ref: object) -> str | None:
    """Show a Stripe id's kind and at most its last four characters: `pi_…cdef`.

    Of a short id less is shown, never more than a quarter of what makes it unique.
    """
    if not isinstance(ref, str) or not ref.strip():
        return None
    stripped = ref.strip()
    kind = _KIND.match(stripped)
    start = kind.group() if kind else ""
    unique = stripped[len(start) :]
    shown = min(4, len(unique) // 4)
    return f"{start}…{unique[len(unique) - shown :]}"
