"""The book: what a name means, which prices count when, own prices, and what is recorded."""

from __future__ import annotations

from typing import Any

import pytest

from guthaben.domain.metering import Context, metered
from guthaben.domain.price_book import PriceBook, check, version_of
from guthaben.domain.price_match import matcher
from guthaben.domain.price_sheet import canonical, day_s
from guthaben.errors import InvalidInput, Refused
from tests.domain.price_desk import BOOK, NOW, OWN, SHEET, book

USAGE = metered({"input_tokens": 1000, "output_tokens": 200})


@pytest.mark.parametrize(
    ("name", "provider", "found"),
    [
        ("gpt-4o-mini", "", ("openai", "openai", "gpt-4o-mini")),
        ("GPT-4o-Mini", "OpenAI ", ("openai", "openai", "gpt-4o-mini")),
        ("gpt-4o-mini-2024-07-18", "", ("openai", "openai", "gpt-4o-mini")),
        ("gpt-4o-mini", "my-openai", ("openai", "openai", "gpt-4o-mini")),
        ("gpt-4o-mini", "azure", ("azure", "openai", "gpt-4o-mini")),
        ("gpt-azure", "azure", ("azure", "azure", "gpt-azure")),
        ("openai/gpt-4o-mini", "litellm", ("openai", "openai", "gpt-4o-mini")),
        ("gpt-4o-mini", "litellm", ("openai", "openai", "gpt-4o-mini")),
        ("gpt-5-20251211", "", ("openai", "openai", "gpt-5-2025-12-11")),
        ("whisper-1", "", ("openai", "openai", "whisper-1")),
    ],
)
def test_names(name: str, provider: str, found: tuple[str, str, str]) -> None:
    assert BOOK.find(name, provider) == found
    assert BOOK.find(name, provider) == found  # and again, from what is kept


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("gpt-9", ""),
        ("llama", ""),
        ("gpt-4o-mini", "nobody"),
        ("gpt-azure", "openai"),
        ("gpt-5-20251399", ""),
        ("gpt-5-20250231", ""),
        ("foo/gpt-4o-mini", "litellm"),
        ("", ""),
    ],
)
def test_an_unknown_model_is_refused_by_name(name: str, provider: str) -> None:
    with pytest.raises(Refused, match=f"'{name}'") as refused:
        BOOK.find(name, provider)
    assert refused.value.reason == "unknown_model"


def test_whose_api_a_url_is() -> None:
    assert BOOK.provider_at("https://api.openai.com/v1") == "openai"
    assert BOOK.provider_at("https://example.org/api.openai.com") is None


@pytest.mark.parametrize(
    ("clause", "yes", "no"),
    [
        ({"equals": "A"}, "a", "ab"),
        ({"starts_with": "A"}, "ab", "ba"),
        ({"ends_with": "B"}, "ab", "ba"),
        ({"contains": "B"}, "abc", "ac"),
        ({"regex": r"^a\d"}, "a1", "ba1"),
        ({"and": [{"contains": "a"}, {"contains": "b"}]}, "ba", "a"),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", "ab"),
    ],
)
def test_clauses(clause: dict[str, Any], yes: str, no: str) -> None:
    assert matcher(clause)(yes)
    assert not matcher(clause)(no)


@pytest.mark.parametrize("clause", [{}, {"equals": "a", "contains": "b"}, {"like": "a"}])
def test_what_is_no_clause(clause: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="clause"):
        matcher(clause)


# ---------------------------------------------------------------- circumstances


@pytest.mark.parametrize(
    ("context", "at", "nano_usd", "ref"),
    [
        ((), "2026-11-12", 270_000, ""),
        ((("service_tier", "flex"),), "2026-11-12", 270_000, ""),
        ((("processing", "batch"),), "2026-11-12", 135_000, "@processing=batch"),
        # Of two variants that fit, the first that speaks of a price decides it.
        ((("service_tier", "priority"),), "2026-11-12", 1_400_000, "@service_tier=priority"),
        ((("service_tier", "priority"),), "2026-10-01", 9_400_000, "@service_tier=priority"),
    ],
)
def test_circumstances(context: Context, at: str, nano_usd: int, ref: str) -> None:
    usage = metered(dict(USAGE.counts), dict(context))
    found = BOOK.price("gpt-4o-mini", usage, day_s(at))
    assert found == (nano_usd, f"v1/openai/gpt-4o-mini{ref}")


@pytest.mark.parametrize(("name", "provider"), [("o3", ""), ("gpt-4o-mini", "azure")])
def test_dearer_circumstances_without_a_price_are_refused(name: str, provider: str) -> None:
    usage = metered({"input_tokens": 1}, {"service_tier": "priority"})
    with pytest.raises(Refused, match="service_tier=priority") as refused:
        BOOK.price(name, usage, NOW, provider)
    assert refused.value.reason == "unpriced_usage"


def test_a_card_is_kept_while_its_prices_count() -> None:
    turn = day_s("2025-06-10")
    first = BOOK.card("o3", turn - 5)
    assert BOOK.card("o3", turn - 1) is first
    assert BOOK.card("o3", turn) is not first
    night = BOOK.card("deepseek-chat", day_s("2026-01-01"))
    assert BOOK.card("deepseek-chat", day_s("2026-01-01") + 1799) is night
    assert BOOK.card("deepseek-chat", day_s("2026-01-01") + 1800) is not night


def test_hours_may_reach_over_midnight() -> None:
    entry = {"daily": ["22:00", "06:00"], "rates": {"input_mtok": "1"}}
    sheet = {**SHEET, "providers": [{"id": "p", "models": [
        {"id": "m", "match": {"equals": "m"}, "prices": [{"rates": {"input_mtok": "2"}}, entry]}
    ]}]}  # fmt: skip
    night = check(sheet)
    costs = [
        night.price("m", metered({"input_tokens": 1}), NOW - 43_200 + hour * 3600, "p")[0]
        for hour in (0, 5, 6, 21, 22)
    ]
    assert costs == [1000, 1000, 2000, 2000, 1000]


def test_names_from_outside_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guthaben.domain.price_book._MOST_KEPT", 3)
    small = PriceBook(SHEET)
    for number in range(10):
        small.card(f"gpt-4o-mini-2024-{number}", NOW)
    assert len(small._found) <= 3
    assert len(small._kept) <= 3


# ---------------------------------------------------------------- the vendor's own


def own(provider: str, model: str, *prices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"provider": provider, "model": model, "prices": list(prices), **more}


def test_own_prices_stand_over_imported_ones() -> None:
    sold = book(
        [own("openai", "gpt-4o-mini", {"rates": {"input_mtok": "1"}},
             {"from": "2026-01-01", "rates": {"input_mtok": "2", "cache_read_mtok": None}})]
    )  # fmt: skip
    assert sold.price("gpt-4o-mini", USAGE, day_s("2025-12-31"))[0] == 1_120_000
    assert sold.price("gpt-4o-mini", USAGE, NOW)[0] == 2_120_000
    # Without a price of its own, a cached token is one of input.
    assert sold.price("gpt-4o-mini", metered({"cache_read_tokens": 1}), NOW)[0] == 2_000
    batch = metered(dict(USAGE.counts), {"processing": "batch"})
    assert sold.price("gpt-4o-mini", batch, NOW)[0] == 135_000
    # What was set for openai does not count for azure, which borrows the model.
    assert sold.price("gpt-4o-mini", USAGE, NOW, "azure")[0] == 270_000


def test_own_prices_of_circumstances_stand_highest() -> None:
    entry = {"when": {"processing": "batch"}, "rates": {"input_mtok": "5", "output_mtok": None}}
    sold = book([own("openai", "gpt-4o-mini", entry)])
    usage = metered({"input_tokens": 1}, {"processing": "batch"})
    assert sold.price("gpt-4o-mini", usage, NOW)[0] == 5_000
    assert sold.price("gpt-4o-mini", metered({"input_tokens": 1}), NOW)[0] == 150
    with pytest.raises(Refused, match="no price for output_tokens"):
        sold.price("gpt-4o-mini", metered({"output_tokens": 1}, {"processing": "batch"}), NOW)


def test_own_prices_of_a_borrowed_model() -> None:
    sold = book([own("azure", "gpt-4o-mini", {"rates": {"input_mtok": "1"}})])
    assert sold.price("gpt-4o-mini", USAGE, NOW, "azure") == (1_120_000, "v1/azure/gpt-4o-mini")
    assert sold.price("gpt-4o-mini", USAGE, NOW)[0] == 270_000


def test_own_models_and_names() -> None:
    rates = {"rates": {"input_mtok": "1", "output_mtok": "1"}}
    sold = book([
        own("house", "Llama", rates, aliases=["praxis"]),
        own("openai", "gpt-4o-mini-2024-own", rates),
        own("azure", "gpt-4o-mini-2024-x", rates),
        own("openai", "gpt-4o-mini", aliases=["cheap"]),
    ])  # fmt: skip
    llama = ("house", "house", "Llama")
    assert sold.find("llama", "house") == sold.find("llama") == sold.find("PRAXIS") == llama
    mine = ("openai", "openai", "gpt-4o-mini-2024-own")
    assert sold.find("gpt-4o-mini-2024-own") == sold.find(mine[2], "openai") == mine
    assert sold.find("gpt-4o-mini-2024-x", "azure") == ("azure", "azure", "gpt-4o-mini-2024-x")
    assert sold.find("gpt-4o-mini-2024-x") == ("openai", "openai", "gpt-4o-mini")
    assert sold.price("cheap", USAGE, NOW) == (270_000, "v1/openai/gpt-4o-mini")
    assert [f for f in sold.every() if f.provider == "house"] == [llama]
    with pytest.raises(Refused, match="no price list"):
        sold.find("llama", "openai")
    assert sold.model(sold.find("gpt-4o-mini")).window == 128_000


def test_a_book_knows_its_format() -> None:
    for sheets in (({**SHEET, "format": 2}, OWN), (SHEET, {**OWN, "format": None})):
        with pytest.raises(InvalidInput, match="format"):
            PriceBook(*sheets)


@pytest.mark.parametrize(
    "provider",
    [
        {"id": "p"},
        {"models": []},
        {"id": "p", "models": [{"id": "m", "match": {"like": "m"}, "prices": []}]},
        {"id": "p", "models": [{"id": "m", "match": {"regex": "("}, "prices": []}]},
        {"id": "p", "models": [{"id": "m", "match": {"equals": 5}, "prices": []}]},
        {"id": "p", "models": [{"id": "m" * 100, "match": {"equals": "m"}, "prices": []}]},
        {"id": "p", "models": [{"id": "m", "match": {"equals": "m"}, "prices": [{}]}]},
        {"id": "p", "models": [{"id": "m", "match": {"equals": "m"}, "prices": [5]}]},
    ],
)
def test_a_sheet_is_read_completely_before_it_counts(provider: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        check({**SHEET, "providers": [provider]})
    assert refused.value.reason == "invalid_prices"


def test_a_version_is_its_day_and_its_content() -> None:
    one, digest = version_of(canonical(SHEET), canonical(OWN), NOW)
    assert one == f"20261112-{digest[:12]}"
    assert version_of(canonical(SHEET), canonical(OWN), NOW + 86_400) == (
        f"20261113-{digest[:12]}",
        digest,
    )
    assert version_of(canonical(OWN), canonical(SHEET), NOW)[1] != digest
    assert check(SHEET).version == ""
