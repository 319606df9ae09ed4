"""What sending one message can come to.

Law: what is not certain to have arrived is `Again`: a receiver tells repetitions by their id.
Reasons are short codes, never the words of a stranger's server.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sent:
    """The receiver has taken it."""


@dataclass(frozen=True, slots=True)
class Again:
    """It did not arrive, or nobody knows; not before `after_s` seconds if the receiver said so."""

    reason: str
    after_s: int = 0


@dataclass(frozen=True, slots=True)
class Never:
    """The receiver will not take it, however often it is sent; `gone`: nor anything else."""

    reason: str
    gone: bool = False


Result = Sent | Again | Never
