"""What a call used, in counts that never overlap: the one neutral form of every provider's usage.

Law: a count is a true integer above zero, and each token is in exactly one count: `input_tokens`
are those that no finer meter names. Audio is in microseconds. A meter's traits say which prices
may cover it; no amount of money is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from guthaben.errors import InvalidInput

MAX_COUNT: Final = 10**12
MAX_AUDIO_US: Final = 10**15
_US_PER_HOUR: Final = 3600 * 10**6
_MILLION: Final = 10**6

Traits = frozenset[tuple[str, str]]
Context = tuple[tuple[str, str], ...]
"""Circumstances that may change prices, sorted: (("service_tier", "flex"),)."""


class Unit(NamedTuple):
    """A meter, the key of its price, and how many of it one price is for."""

    meter: str
    price_key: str
    per: int
    traits: Traits

    def covers(self, other: Unit) -> bool:
        """Tell whether this unit's price may be charged for the other's count."""
        return self.traits <= other.traits


class Metered(NamedTuple):
    """What one call used; made by `metered`."""

    counts: tuple[tuple[str, int], ...] = ()
    context: Context = ()

    def count(self, *meters: str) -> int:
        """Add up some of the counts."""
        return sum(count for meter, count in self.counts if meter in meters)


def _unit(meter: str, price_key: str, per: int, **traits: str) -> Unit:
    return Unit(meter, price_key, per, frozenset((k, v) for k, v in traits.items() if v))


def _token_units() -> Iterable[Unit]:
    for modality in ("", "audio", "image", "video"):
        infix = f"{modality}_" if modality else ""
        common = {"family": "tokens", "modality": modality}
        stem = f"input_{infix}"
        yield _unit(f"{stem}tokens", f"{stem}mtok", _MILLION, direction="input", **common)
        for use, ttl in (("read", ""), ("write", ""), ("write", "5m"), ("write", "1h")):
            stem = f"cache_{infix}{use}_{f'{ttl}_' if ttl else ''}"
            traits = {**common, "kind": f"cache_{use}", "ttl": ttl}
            yield _unit(f"{stem}tokens", f"{stem}mtok", _MILLION, direction="input", **traits)
        for kind in ("", "reasoning", "citation"):
            stem = f"output_{infix}{f'{kind}_' if kind else ''}"
            traits = {**common, "kind": kind}
            yield _unit(f"{stem}tokens", f"{stem}mtok", _MILLION, direction="output", **traits)


def _other_units() -> Iterable[Unit]:
    hours = {"family": "durations"}
    yield _unit("audio_us", "audio_hours", _US_PER_HOUR, **hours)
    yield _unit("input_audio_us", "input_audio_hours", _US_PER_HOUR, direction="input", **hours)
    yield _unit("output_audio_us", "output_audio_hours", _US_PER_HOUR, direction="output", **hours)
    yield _unit("input_characters", "input_mchars", _MILLION, family="characters")
    yield _unit("input_text_messages", "input_text_messages_kcount", 1000, family="messages")
    yield _unit("input_pixels", "input_gpixels", 10**9, family="pixels")
    pages = {"family": "pages"}
    yield _unit("input_document_pages", "input_document_kpages", 1000, **pages)
    yield _unit(
        "input_annotated_document_pages", "input_annotated_document_kpages", 1000,
        **pages, kind="annotated",
    )  # fmt: skip
    yield _unit("output_images", "output_images", 1, family="images")
    for name in ("rerank_searches", "web_searches", "social_searches", "storage_searches"):
        yield _unit(name, f"{name}_kcount", 1000, family=name)
    yield _unit("code_executions", "code_executions_kcount", 1000, family="code_executions")
    yield _unit("requests", "requests_kcount", 1000, family="requests")


UNITS: Final = {unit.meter: unit for unit in (*_token_units(), *_other_units())}
UNIT_OF_PRICE: Final = {unit.price_key: unit for unit in UNITS.values()}
REQUESTS: Final = "requests"
"""Charged once per call where it has a price; never counted in a usage."""

AUDIO_METERS: Final = frozenset({"audio_us", "input_audio_us", "output_audio_us"})


def _token_meters(direction: str) -> frozenset[str]:
    wanted = {("family", "tokens"), ("direction", direction)}
    return frozenset(unit.meter for unit in UNITS.values() if wanted <= unit.traits)


INPUT_TOKEN_METERS: Final = _token_meters("input")
OUTPUT_TOKEN_METERS: Final = _token_meters("output")
_NEVER_COUNTED: Final = frozenset({REQUESTS})


def metered(counts: Mapping[str, int], context: Mapping[str, str] | None = None) -> Metered:
    """Check counts that don't overlap and put them into their one form; zeros are left out.

    Raises `InvalidInput` (`invalid_usage`) for an unknown meter and for what is no true integer
    within 0 and the limit: negative, bool, float, text, huge.
    """
    kept = []
    for meter, count in counts.items():
        if meter not in UNITS or meter in _NEVER_COUNTED:
            raise invalid_usage(meter, "is no known meter")
        most = MAX_AUDIO_US if meter in AUDIO_METERS else MAX_COUNT
        if type(count) is not int or not 0 <= count <= most:
            raise invalid_usage(meter, f"must be an integer from 0 to {most}, not {count!r:.40}")
        if count:
            kept.append((meter, count))
    return Metered(tuple(sorted(kept)), tuple(sorted((context or {}).items())))


def invalid_usage(field: str, why: str) -> InvalidInput:
    """Make the refusal of a usage that can't be true; its call is never free."""
    return InvalidInput(
        f"The usage can't be priced: {field} {why}. Charge what was reserved, or look it up.",
        field=field,
        reason="invalid_usage",
    )
