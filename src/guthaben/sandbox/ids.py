"""Owns the look of identifiers: a prefix that tells the kind, then random letters and digits."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def random_text(length: int) -> str:
    """Return `length` random letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_id(prefix: str, length: int = 24) -> str:
    """Return a fresh identifier such as `pi_3x...`."""
    return f"{prefix}_{random_text(length)}"


def client_secret(object_id: str) -> str:
    """Return the secret that belongs to an intent."""
    return f"{object_id}_secret_{random_text(25)}"
