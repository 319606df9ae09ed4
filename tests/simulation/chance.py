"""Chance: every random decision of a run follows from its seed.

Law: what the engine, its libraries and the model of Stripe draw (ids, keys, jitter) comes from a
source of its own, so that one more id drawn changes no decision of the scheduler.
"""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch


@contextmanager
def seeded_entropy(seed: str) -> Iterator[None]:
    """Let `secrets`, `uuid4` and `random` draw from the seed for as long as the block runs."""
    source = random.Random(seed)
    before = random.getstate()
    random.seed(f"{seed}/random")

    def token_bytes(nbytes: int | None = None) -> bytes:
        return source.randbytes(32 if nbytes is None else nbytes)

    def token_hex(nbytes: int | None = None) -> str:
        return token_bytes(nbytes).hex()

    def uuid4() -> uuid.UUID:
        return uuid.UUID(bytes=source.randbytes(16), version=4)

    with ExitStack() as stack:
        for name, fake in (
            ("token_bytes", token_bytes),
            ("token_hex", token_hex),
            ("token_urlsafe", token_hex),
            ("choice", source.choice),
            ("randbelow", source.randrange),
            ("randbits", source.getrandbits),
        ):
            stack.enter_context(patch.object(secrets, name, fake))
        stack.enter_context(patch.object(uuid, "uuid4", uuid4))
        try:
            yield
        finally:
            random.setstate(before)
