"""Owns the look of identifiers: a prefix that tells the kind, then random letters and digits.

Real randomness, unless a block is told to draw from a source of its own: so a simulation with a
seed meets the same ids again.
"""

import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ALPHABET = string.ascii_letters + string.digits
_TRUE_RANDOM: random.Random = random.SystemRandom()
_SOURCE: ContextVar[random.Random | None] = ContextVar("source of ids", default=None)


@contextmanager
def drawn_from(source: random.Random) -> Iterator[None]:
    """Draw the ids that the block makes from `source`."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def random_text(length: int) -> str:
    """Return `length` random letters and digits."""
    return "".join((_SOURCE.get() or _TRUE_RANDOM).choices(_ALPHABET, k=length))


def new_id(prefix: str, length: int = 24) -> str:
    """Return a fresh identifier such as `pi_3x...`."""
    return f"{prefix}_{random_text(length)}"


def client_secret(object_id: str) -> str:
    """Return the secret that belongs to an intent."""
    return f"{object_id}_secret_{random_text(25)}"
