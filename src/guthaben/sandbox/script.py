"""Owns scripts of faults: what shall go wrong with which call and which delivery, as data.

A script is JSON or a Python value, the two are the same; `Script.model_json_schema()` is its
schema, and what is wrong with a bad one is said place by place. Rules are tried in their order,
and what one rule takes the later ones don't see. It applies nothing: `faults` does to calls,
`events` to deliveries.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guthaben.sandbox.errors import ApiError, JsonObject

CallFaultKind = Literal[
    "drop_before",
    "commit_then_drop",
    "commit_then_500",
    "error_500",
    "rate_limit",
    "lock_timeout",
    "unauthorized",
    "forbidden",
    "slow",
]
DeliveryFaultKind = Literal[
    "lose", "delay", "duplicate", "reorder", "stale_signature", "bad_signature"
]
_LONGEST_S = 30 * 86_400
_ENDLESS = "null: all from then on"
Count = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[int | float, Field(ge=0, le=_LONGEST_S)]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CallMatch(_Rule):
    """Which calls a rule concerns; `*` in path and key stands for anything."""

    method: Literal["GET", "POST", "DELETE"] | None = None
    path: str | None = None
    key: str | None = Field(default=None, description="pattern of the idempotency key")
    nth: Count = Field(default=1, description="the first match that is hit, counted from 1")


class CallFault(_Rule):
    """What happens to calls.

    `drop_before` loses the request, `commit_then_drop` the answer; `commit_then_500` hides a
    success, for ever if `saved`, else until the key is tried again. `error_500`, `rate_limit`,
    `lock_timeout`, `unauthorized` and `forbidden` do nothing. `slow` waits `seconds`, before or
    after the work is done: a caller without that much patience gets no answer, the work is done.
    """

    fault: CallFaultKind
    match: CallMatch = CallMatch()
    times: Count | None = Field(
        default=1, description="how many calls are hit; null: all from then on"
    )
    seconds: Seconds = 1
    when: Literal["before", "after"] = "before"
    saved: bool = True


class DeliveryMatch(_Rule):
    """Which events a rule concerns: patterns of types such as `charge.*`; none means all."""

    types: Annotated[tuple[str, ...], Field(strict=False)] = ()
    nth: Count = Field(
        default=1, description="the first matching event that is hit, counted from 1"
    )


class DeliveryFault(_Rule):
    """What happens to the delivery of events.

    `lose` never sends, `delay` waits `delay_s`, `duplicate` sends `copies`, `reorder` sends the
    next `times` events within `window_s` in reverse, `stale_signature` signs `age_s` in the past,
    `bad_signature` with another secret.
    """

    fault: DeliveryFaultKind
    match: DeliveryMatch = DeliveryMatch()
    times: Count | None = Field(
        default=1, description="how many events are hit; null: all from then on"
    )
    delay_s: Seconds = 1
    copies: Annotated[int, Field(ge=2, le=1000)] = 2
    window_s: Seconds = 0.6
    age_s: Annotated[int, Field(ge=0, le=_LONGEST_S)] = 301

    @model_validator(mode="after")
    def _counts_what_it_reorders(self) -> "DeliveryFault":
        if self.fault == "reorder" and self.times is None:
            raise ValueError("reorder needs a number in times")
        return self


class Script(_Rule):
    """Faults of calls and of deliveries, in the order in which they are tried."""

    calls: Annotated[tuple[CallFault, ...], Field(strict=False)] = ()
    deliveries: Annotated[tuple[DeliveryFault, ...], Field(strict=False)] = ()

    def __add__(self, other: "Script") -> "Script":
        return Script(calls=self.calls + other.calls, deliveries=self.deliveries + other.deliveries)

    def as_json(self) -> JsonObject:
        """Return the script as JSON values, without what is only default."""
        return self.model_dump(mode="json", exclude_defaults=True)


class ScriptRefused(ApiError):
    """A script that says something unknown; `problems` names each place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(400, "The script of faults is refused: " + "; ".join(problems))
        self.problems = problems


def read(value: Any) -> Script:
    """Return the script that JSON values describe; raises ScriptRefused."""
    try:
        return Script.model_validate(value)
    except ValidationError as bad:
        raise ScriptRefused([_problem(error) for error in bad.errors()]) from None


def _problem(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "script"
    return f"{place}: {error['msg']}"
