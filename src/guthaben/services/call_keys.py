"""Idempotency keys that the engine makes for calls which nobody will ask for again.

Law: such a key grows with time. A practice's index of keys is then written where it ends, and not
in one of the many pages that its past fills; a caller's own keys do well to grow likewise.
"""

from __future__ import annotations

import secrets

_RANDOM_BYTES = 8
"""Two of one practice and one millisecond are the same once in 10^19."""


def new_key(prefix: str, now_ms: int) -> str:
    """Make a key for a call of its own, from the store's clock in milliseconds."""
    return f"{prefix}{now_ms:011x}{secrets.token_hex(_RANDOM_BYTES)}"
