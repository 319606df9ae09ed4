"""The imported prices beside LiteLLM's public map: equal where both name a price, but for a list.

The map is read as data, from an installed `litellm` (never imported: it is heavy and pins another
`openai`; `make test` installs it alone) or from the file that GUTHABEN_LITELLM_MAP names. Of the
two versions that were looked at every difference is known; of others most prices must agree. See
docs/decisions/0305.
"""

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.metering import metered
from guthaben.domain.price_book import PriceBook
from guthaben.domain.pricing import RateCard
from guthaben.errors import Refused
from guthaben.services.price_import import installed_prices

FILE = "model_prices_and_context_window_backup.json"
LOOKED_AT = {"genai-prices": "0.2.3", "litellm": "1.109.1"}
NAMED = os.environ.get("GUTHABEN_LITELLM_MAP", "")
AT_S = 1_795_258_800  # 21 November 2026
PROVIDERS = {"openai": "openai", "text-completion-openai": "openai", "anthropic": "anthropic",
             "gemini": "google"}  # fmt: skip
FEW, HOUR_US = 1_000, 3_600_000_000
METERS = {
    "input_cost_per_token": ("input_tokens", FEW, 1_000_000),
    "output_cost_per_token": ("output_tokens", FEW, 1_000_000),
    "cache_read_input_token_cost": ("cache_read_tokens", FEW, 1_000_000),
    "input_cost_per_audio_token": ("input_audio_tokens", FEW, 1_000_000),
    "output_cost_per_audio_token": ("output_audio_tokens", FEW, 1_000_000),
    "input_cost_per_second": ("input_audio_us", HOUR_US, 3_600),
}
"""Their price -> our meter, how much of it is priced, and how many of their units are shown."""
KNOWN: dict[tuple[str, str], tuple[str, str]] = {
    ("gpt-4o-transcribe-diarize", "input_cost_per_audio_token"): ("6", "2.5"),
    ("ft:gpt-4o-2024-08-06", "cache_read_input_token_cost"): ("3.75", "1.875"),
    ("ft:gpt-4o-mini-2024-07-18", "cache_read_input_token_cost"): ("0.3", "0.15"),
    ("gemini-2.5-flash-image", "cache_read_input_token_cost"): ("0.3", "0.03"),
    ("gemini-2.5-flash-image", "input_cost_per_audio_token"): ("0.3", "1"),
    ("gemini-2.5-pro-preview-tts", "cache_read_input_token_cost"): ("1", "0.125"),
    ("gemini-2.5-pro-preview-tts", "input_cost_per_audio_token"): ("1", "0.7"),
    ("gpt-4o-audio-preview-2024-12-17", "input_cost_per_audio_token"): ("2.5", "40"),
    ("gpt-4o-audio-preview-2024-12-17", "output_cost_per_audio_token"): ("10", "80"),
    ("gpt-4o-audio-preview-2025-06-03", "input_cost_per_audio_token"): ("2.5", "40"),
    ("gpt-4o-audio-preview-2025-06-03", "output_cost_per_audio_token"): ("10", "80"),
    ("gpt-4o-mini-audio-preview-2024-12-17", "input_cost_per_audio_token"): ("0.15", "10"),
    ("gpt-4o-mini-audio-preview-2024-12-17", "output_cost_per_audio_token"): ("0.6", "20"),
    ("gpt-4o-mini-transcribe", "input_cost_per_audio_token"): ("3", "1.25"),
    ("gpt-4o-mini-tts", "output_cost_per_token"): ("12", "10"),
    ("gpt-4o-search-preview", "cache_read_input_token_cost"): ("2.5", "1.25"),
    ("gpt-4o-search-preview-2025-03-11", "cache_read_input_token_cost"): ("2.5", "1.25"),
    ("gpt-4o-transcribe", "input_cost_per_audio_token"): ("6", "2.5"),
    ("gemini-3.8-flash-tts", "cache_read_input_token_cost"): ("0.5", "0.125"),
    ("gemini-3.8-flash-lite-tts", "cache_read_input_token_cost"): ("0.5", "0.125"),
}
"""(model, price) -> (ours, theirs) in USD, looked at: see docs/prices.md."""


@cache
def their_map() -> dict[str, Any] | None:
    spec = find_spec("litellm")
    place = (
        Path(NAMED) if NAMED else Path(spec.origin).parent / FILE if spec and spec.origin else None
    )
    if place is None or not place.is_file():
        return None
    found: dict[str, Any] = json.loads(place.read_text("utf-8"), parse_float=Decimal)
    return found


def card_of(book: PriceBook, name: str, provider: str) -> RateCard | None:
    try:
        return book.card(name, AT_S, provider)
    except Refused:
        return None


def pairs() -> Iterator[tuple[str, str, Decimal, Decimal]]:
    """Give model, price, ours and theirs, in USD, wherever both have one."""
    theirs = their_map()
    assert theirs is not None
    book = PriceBook(installed_prices().sheet)
    for key, said in theirs.items():
        provider = PROVIDERS.get(said.get("litellm_provider", ""))
        name = key.partition("/")[2] if provider == "google" else key
        card = card_of(book, name, provider) if provider and "/" not in name else None
        for field, (meter, count, units) in METERS.items() if card else ():
            their_price = said.get(field)
            if their_price and card is not None and card.prices(meter):
                scale = 1_000 if count == FEW else 1  # few tokens: the first tier
                ours = Decimal(card.cost_nano_usd(metered({meter: count}))) * scale / 10**9
                yield name, field, ours, Decimal(their_price) * units


def versions() -> dict[str, str]:
    """Tell what is compared here."""
    found = {}
    for name in LOOKED_AT:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return {**found, "litellm": NAMED} if NAMED else found


@pytest.mark.skipif(
    their_map() is None,
    reason="no price map of LiteLLM: pip install --no-deps litellm, or GUTHABEN_LITELLM_MAP=file",
)
def test_both_lists_agree_but_for_what_is_known() -> None:
    compared, different = 0, {}
    for name, field, ours, theirs in pairs():
        compared += 1
        # They round what a second costs; a thousandth is no difference.
        if abs(ours - theirs) > theirs / 1000:
            different[name, field] = (f"{ours.normalize():f}", f"{theirs.normalize():f}")
    assert compared > 500
    new = {place: both for place, both in different.items() if KNOWN.get(place) != both}
    gone = {place for place in KNOWN if place not in different}
    if versions() != LOOKED_AT:
        print(f"not looked at yet with {versions()}: {new}; they agree now: {gone}")
        assert len(new) <= compared // 50, f"more than 2 in 100 differ: {new}"
        return
    assert not new, f"not looked at yet: {new}"
    assert not gone, f"they agree now: {gone}"
