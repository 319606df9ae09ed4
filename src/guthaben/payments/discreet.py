"""A repr that may be logged: ids masked, and fields marked `repr=False` left out."""

from __future__ import annotations

from dataclasses import fields

from guthaben.payments.ids import mask_stripe_reference


class Discreet:
    """Base of the values at this edge; they are dataclasses with `repr=False`."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (
            f"{f.name}={_shown(f.name, getattr(self, f.name))}"
            for f in fields(self)  # type: ignore[arg-type]  # each subclass is a dataclass
            if f.repr
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(name: str, value: object) -> str:
    if name.endswith("_id") and isinstance(value, str):
        return str(mask_stripe_reference(value))
    return repr(value)
