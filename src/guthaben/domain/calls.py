"""A call: one AI call's life, `reserved -> settled | released | expired` (-> `settled_late`).

Law: of settle, release and expire exactly one wins. This module only holds the states and the
immutable record; the transitions are in `apply`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from guthaben.domain.grants import Slice

DEFAULT_TTL_MS: Final = 900_000
MAX_LIFETIME_MS: Final = 86_400_000
ARCHIVED_EXPIRY: Final = 0
"""Instead of when it expires: what this is a state of is archived, and only its end is known."""


class Status(IntEnum):
    """Where a call is in its life; the numbers are stored."""

    RESERVED = 1
    SETTLED = 2
    RELEASED = 3
    EXPIRED = 4
    SETTLED_LATE = 5


class Operation(IntEnum):
    """What created the call: idempotency keys are scoped by it."""

    RESERVE = 1
    USAGE = 2


class OnEnd(IntEnum):
    """What expiry or an exception does with the reservation; fixed when reserving."""

    RELEASE = 1
    CHARGE = 2
    KEEP = 3


class Overage(IntEnum):
    """What a call of the Cycles protocol lets become of cost above its reservation."""

    ENGINE = 0
    """No such call: the engine's own rule (available credit, then debt or loss)."""
    REJECT = 1
    IF_AVAILABLE = 2
    WITH_OVERDRAFT = 3


class EndedBy(IntEnum):
    """Who ended the call."""

    NOBODY = 0
    CALLER = 1
    EXCEPTION = 2
    EXPIRY = 3


RESERVED, SETTLED, RELEASED, EXPIRED, SETTLED_LATE = (int(status) for status in Status)
ON_RELEASE, ON_CHARGE, ON_KEEP = (int(choice) for choice in OnEnd)
BY_NOBODY, BY_CALLER, BY_EXCEPTION, BY_EXPIRY = (int(who) for who in EndedBy)


class Usage(NamedTuple):
    """What a call used, as the provider said; it never decides about money by itself."""

    model: str = ""
    operation_type: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    audio_us: int = 0
    """Audio in microseconds."""
    price_version: str = ""


class Origin(NamedTuple):
    """Who made the call: opaque references of the host application, never personal data."""

    user_id: str = ""
    device_id: str = ""
    api_key_id: str = ""
    reference: str = ""
    """The host's own request id."""
    tags: str = ""
    """A bounded JSON object of strings, canonical."""


NO_USAGE: Final = Usage()
NO_ORIGIN: Final = Origin()


class Call(NamedTuple):
    """One call of a practice, as stored."""

    call_no: int
    operation: int
    key: str
    body_hash: int
    status: int
    ended_by: int
    created_at_ms: int
    expires_at_ms: int
    reserved_nano_usd: int
    cost_nano_usd: int
    license: str
    period_start_s: int
    slices: tuple[Slice, ...]
    """Open: what is pinned. Ended by expiry or exception: what was charged. Else empty."""
    on_expiry: int = ON_RELEASE
    on_exception: int = ON_RELEASE
    grace_ms: int = 0
    overage_policy: int = 0
    ended_at_s: int = 0
    first_seq: int = 0
    """Sequence number of the first transfer that charged it, 0 while nothing was charged."""
    uncovered_nano_usd: int = 0
    """The part of its cost that its overage policy left to the operator."""
    usage: Usage = NO_USAGE
    origin: Origin = NO_ORIGIN

    @property
    def due_at_ms(self) -> int:
        """The instant from which it may be expired."""
        return self.expires_at_ms + self.grace_ms

    @property
    def is_archived(self) -> bool:
        """Whether its row has left for a file: what it used and where it came from is there."""
        return self.expires_at_ms == ARCHIVED_EXPIRY

    @property
    def charged_nano_usd(self) -> int:
        """What its practice paid of its cost."""
        return self.cost_nano_usd - self.uncovered_nano_usd


LEVELS: Final = ("tenant", "workspace", "app", "workflow", "agent", "toolset")
"""Of the Cycles protocol's subjects, outermost first."""


class Told(NamedTuple):
    """What a client of the Cycles protocol said of its call: kept beside it, decides nothing."""

    key: str
    tenant: str = ""
    workspace: str = ""
    app: str = ""
    workflow: str = ""
    agent: str = ""
    toolset: str = ""
    kind: str = ""
    name: str = ""
    rest: str = ""
    """Canonical JSON of what is optional: dimensions, tags, metadata, metrics."""
