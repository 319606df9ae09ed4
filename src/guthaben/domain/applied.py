"""What a command leaves behind: the one shape in which every handler answers.

Law: a value; nothing here decides. What is not among its parts was not changed.
"""

from __future__ import annotations

from typing import NamedTuple

from guthaben.domain.calls import Call
from guthaben.domain.commands import Outcome
from guthaben.domain.journal import Transfer
from guthaben.domain.practice import Practice
from guthaben.domain.topup import CreditEvent


class Applied(NamedTuple):
    """The state after a command."""

    practice: Practice
    subject: Call | CreditEvent | None
    """The call or credit event that the command spoke of or made, as it is now."""
    transfers: list[Transfer]
    outcome: Outcome
    new_event: CreditEvent | None = None
    """A row that the command added."""
