"""The saved card of a practice: whichever was given last, in whatever order it is told of.

Law: Stripe repeats for days what was not answered, in any order. A card that was given before the
one that is there never comes back; when each was given, the audit of the settings says.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from guthaben.store import settings
from guthaben.store.settings import TopupSettingsRow
from guthaben.store.workspace import Workspace

CARD_SAVED: Final = "card_saved"
SETUP_COMPLETE: Final = "setup_complete"
"""The actions of the audit with which a card came."""
_GIVEN_AT: Final = re.compile(r"(?:given|began)_at_s\W+(\d+)")
"""In each form in which the audit ever said it."""


class Card(NamedTuple):
    """A card that a customer left with the provider, and when; without a time it was just now."""

    customer_id: str | None
    method_id: str | None
    given_at_s: int | None


def save_card(space: Workspace, practice_id: str, card: Card) -> bool:
    """Keep a card unless a newer one is there; tell whether it was taken.

    Whether it may be charged is the customer's consent to say.
    """
    if not (card.customer_id and card.method_id):
        return False
    practice_no = space.practice_no(practice_id)
    space.flush()
    given_at_s = space.now_s if card.given_at_s is None else card.given_at_s
    if is_older(space, practice_no, given_at_s):
        return False
    mode = space.practice(practice_id).mode
    row = settings.load_settings(space.cursor, practice_no, mode) or TopupSettingsRow()
    row = row._replace(customer_id=card.customer_id, payment_method_id=card.method_id)
    settings.save_settings(space.cursor, practice_no, mode, row, space.now_s)
    detail = json.dumps({"given_at_s": given_at_s})
    settings.audit(space.cursor, practice_no, CARD_SAVED, "checkout", detail, space.now_s)
    return True


def is_older(space: Workspace, practice_no: int, given_at_s: int | None) -> bool:
    """Tell whether a card was given before the one that came last; without a time it counts as new.

    A card of before this was written down says no time, either.
    """
    last = settings.last_audit(space.cursor, practice_no, CARD_SAVED, SETUP_COMPLETE)
    known = _GIVEN_AT.search(last.detail) if last else None
    return known is not None and given_at_s is not None and given_at_s < int(known[1])
