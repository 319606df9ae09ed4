"""Owns what Stripe keeps: the fee schedule, as data that control may replace.

The numbers that stand here are an example in the size of a Swiss account's, not Stripe's tariff.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guthaben.sandbox.errors import ApiError, JsonObject
from guthaben.sandbox.state import State

_SETTING: Final = "fees"
Share = Annotated[int, Field(ge=0, le=10_000)]
Fixed = Annotated[int, Field(ge=0, le=100_000)]


class Fee(BaseModel):
    """A share of the amount in basis points, rounded up, and a fixed part in the smallest unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    basis_points: Share = 0
    fixed: Fixed = 0

    def of(self, amount: int) -> int:
        """Return the fee for an amount."""
        return (amount * self.basis_points + 9_999) // 10_000 + self.fixed


class Schedule(BaseModel):
    """The fees for payments by kind, and for a dispute, which a win doesn't give back."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    card: Fee = Fee(basis_points=290, fixed=30)
    twint: Fee = Fee(basis_points=190, fixed=30)
    dispute: Fee = Fee(fixed=2_000)


def schedule(state: State) -> Schedule:
    """Return the schedule that holds now."""
    return Schedule.model_validate(state.setting(_SETTING, {}))


def set_schedule(state: State, value: Any) -> JsonObject:
    """Let another schedule hold; what it doesn't name is as it was from the start."""
    try:
        chosen = Schedule.model_validate(value)
    except ValidationError as bad:
        raise ApiError(400, f"The fees are refused: {bad.errors()[0]['msg']}") from None
    state.set_setting(_SETTING, chosen.model_dump())
    return chosen.model_dump()


def fee_of(state: State, what: str, amount: int) -> int:
    """Return the fee for an amount of a kind; what the schedule doesn't know costs nothing."""
    found = getattr(schedule(state), what, None)
    return found.of(amount) if isinstance(found, Fee) else 0
