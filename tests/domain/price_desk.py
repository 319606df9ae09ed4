"""Sheets for tests of prices: a few models with the prices their providers had."""

from __future__ import annotations

from typing import Any

from guthaben.domain.price_book import PriceBook
from guthaben.domain.price_sheet import day_s

NOW = day_s("2026-11-12") + 12 * 3600


def model(id: str, rates: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A model with one set of prices, found by its exact name."""
    return {"id": id, "match": {"equals": id}, "prices": [{"rates": rates}], **more}


GPT_4O_MINI = model(
    "gpt-4o-mini",
    {"input_mtok": "0.15", "cache_read_mtok": "0.075", "output_mtok": "0.6"},
    match={"or": [{"equals": "gpt-4o-mini"}, {"starts_with": "gpt-4o-mini-2024"}]},
    window=128_000,
    variants=[
        {"when": {"processing": "batch"}, "rates": {"input_mtok": "0.075", "output_mtok": "0.3"}},
        {"when": {"service_tier": "priority"}, "from": "2026-10-12", "rates": {"input_mtok": "1"}},
        {"when": {"service_tier": "priority"}, "rates": {"input_mtok": "9", "output_mtok": "2"}},
    ],
)
O3 = {
    "id": "o3",
    "match": {"equals": "o3"},
    "prices": [
        {"rates": {"input_mtok": "10", "output_mtok": "40"}},
        {"from": "2025-06-10", "rates": {"input_mtok": "2", "output_mtok": "8"}},
    ],
}
WHISPER = model("whisper-1", {"audio_hours": "0.36", "input_audio_hours": "0.36"})
LONG = model(
    "gpt-long",
    {
        "input_mtok": ["2.5", [272_000, "5"]],
        "cache_read_mtok": ["0.25", [272_000, "0.5"]],
        "output_mtok": ["15", [272_000, "22.5"]],
    },
)
AUDIO = model(
    "gpt-audio",
    {
        "input_mtok": "2.5", "cache_read_mtok": "1.25", "output_mtok": "10",
        "input_audio_mtok": "40", "output_audio_mtok": "80",
    },
)  # fmt: skip
SONNET = model(
    "claude-sonnet",
    {
        "input_mtok": "3", "output_mtok": "15", "cache_read_mtok": "0.3",
        "cache_write_mtok": "3.75", "cache_write_1h_mtok": "6", "web_searches_kcount": "10",
    },
)  # fmt: skip
NIGHTLY = {
    "id": "deepseek-chat",
    "match": {"equals": "deepseek-chat"},
    "prices": [
        {"rates": {"input_mtok": "0.135", "output_mtok": "0.55"}},
        {"daily": ["00:30:00", "16:30"], "rates": {"input_mtok": "0.27", "output_mtok": "1.1"}},
    ],
}
SHEET: dict[str, Any] = {
    "format": 1,
    "source": "by hand",
    "providers": [
        {
            "id": "openai",
            "is_called": {"contains": "openai"},
            "makes": {"or": [{"starts_with": "gpt-"}, {"regex": "^(o[134]|whisper|tts)"}]},
            "answers_at": {"regex": "^(?:https://api\\.openai\\.com)"},
            "models": [
                GPT_4O_MINI, O3, WHISPER, LONG, AUDIO,
                model("gpt-5-2025-12-11", {"input_mtok": "1.25", "output_mtok": "10"}),
                model("gpt-free", {"input_mtok": "0", "output_mtok": "0"}),
                model("gpt-future", {}) | {"prices": []},
                model("tts-1", {"input_mchars": "15"}),
            ],
        },
        {
            "id": "azure",
            "fallback": ["openai", "nobody"],
            "models": [model("gpt-azure", {"input_mtok": "1", "output_mtok": "1"})],
        },
        {"id": "anthropic", "makes": {"contains": "claude"}, "models": [SONNET]},
        {"id": "deepseek", "makes": {"starts_with": "deepseek"}, "models": [NIGHTLY]},
        {
            "id": "groq",
            "models": [model("whisper-large", {"audio_hours": "0.111"}, minimum_us=10_000_000)],
        },
        {
            "id": "perplexity",
            "models": [
                model("sonar", {"input_mtok": "1", "output_mtok": "1", "requests_kcount": "5"})
            ],
        },
    ],
}  # fmt: skip
OWN: dict[str, Any] = {"format": 1, "models": [], "margins": {}}


def book(models: list[dict[str, Any]] | None = None, **margins: Any) -> PriceBook:
    """A book of the sheet and of own prices and margins."""
    return PriceBook(SHEET, {"format": 1, "models": models or [], "margins": margins}, "v1")


BOOK = book()
