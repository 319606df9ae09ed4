"""The import: every model of the package means and costs what the package says."""

from __future__ import annotations

import math
import socket
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from guthaben.domain.metering import metered
from guthaben.domain.price_book import PriceBook, check
from guthaben.domain.price_sheet import canonical, day_s
from guthaben.errors import ConfigError, Refused
from guthaben.services import price_import
from guthaben.services.price_import import installed_prices, sheet_of

NOW = day_s("2026-11-12")


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return check(installed_prices().sheet)


@pytest.fixture(scope="module")
def package() -> Any:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


def test_the_package_is_taken_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    taken = installed_prices()
    assert taken.source.startswith("genai-prices 0.2")
    assert taken.left_out == ()
    assert len(taken.sheet["providers"]) > 40
    assert canonical(taken.sheet) == canonical(installed_prices().sheet)


@pytest.mark.parametrize(
    ("model", "counts", "nano_usd"),
    [
        ("gpt-4o-mini", {"input_tokens": 1000, "output_tokens": 200}, 270_000),
        (
            "gpt-4o-mini",
            {"input_tokens": 400, "cache_read_tokens": 600, "output_tokens": 200},
            225_000,
        ),
        ("gpt-5-mini", {"input_tokens": 1000, "output_tokens": 200}, 650_000),
        ("whisper-1", {"input_audio_us": 60_000_000}, 6_000_000),
        ("o3", {"input_tokens": 1000, "output_tokens": 200}, 3_600_000),
    ],
)
def test_known_costs(book: PriceBook, model: str, counts: dict[str, int], nano_usd: int) -> None:
    assert book.price(model, metered(counts), NOW).cost_nano_usd == nano_usd


def test_prices_before_and_after_their_day(book: PriceBook) -> None:
    usage = metered({"input_tokens": 1000, "output_tokens": 200})
    days = ("2025-06-09", "2025-06-10")
    assert [book.price("o3", usage, day_s(day))[0] for day in days] == [18_000_000, 3_600_000]


def test_every_name_means_what_it_means_there(book: PriceBook, package: Any) -> None:
    for provider in package.providers:
        for model in provider.models[::3]:
            for name, asked in ((model.id, provider.id), (model.id.upper() + "-20250301", "")):
                assert ours(book, name, asked) == theirs(package, name, asked)


def ours(book: PriceBook, name: str, provider: str) -> tuple[str, str] | None:
    try:
        found = book.find(name, provider)
    except Refused:
        return None
    return found.provider, found.model


def theirs(package: Any, name: str, provider: str) -> tuple[str, str] | None:
    try:
        found, model = package.find_provider_model(name, None, provider or None, None)
    except LookupError:
        return None
    return found.id, model.id


@pytest.mark.parametrize("context", [{}, {"processing": "batch"}, {"service_tier": "flex"}])
@pytest.mark.parametrize("longer", [0, 300_000])
def test_every_model_costs_what_it_costs_there(
    book: PriceBook, package: Any, context: dict[str, str], longer: int
) -> None:
    from genai_prices.types import Usage

    counts = {"input_tokens": 1003 + longer, "cache_read_tokens": 507, "cache_write_tokens": 211,
              "output_tokens": 307, "output_reasoning_tokens": 101}  # fmt: skip
    told = Usage(
        input_tokens=1721 + longer, cache_read_tokens=507, cache_write_tokens=211,
        output_tokens=408, output_reasoning_tokens=101,
    )  # fmt: skip
    at = datetime.fromtimestamp(NOW, UTC)
    compared = 0
    for provider in package.providers:
        for model in provider.models[longer % 7 :: 5]:
            try:
                price = book.price(model.id, metered(counts, context), NOW, provider.id)
            except Refused:
                continue  # priced by something else, or free
            there = package.calc(told, model.id, provider.id, None, at, context or None)
            assert price[0] == math.ceil(Fraction(there.total_price) * 10**9), model.id
            compared += 1
    assert compared > 300


# ---------------------------------------------------------------- what can't be taken


def provider(**prices: Any) -> Any:
    clause = SimpleNamespace(equals="m")
    model = SimpleNamespace(
        id="m", match=clause, context_window=None, prices=SimpleNamespace(**prices),
        price_variants=None,
    )  # fmt: skip
    return SimpleNamespace(
        id="p", provider_match=None, model_match=None, api_pattern="x", models=[model],
        fallback_model_providers=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "prices",
    [
        {"input_mtok": Decimal("1e-19")},
        {"input_mtok": Decimal("NaN")},
        {"input_mtok": Decimal(-1)},
        {"input_mtok": 0.15},
        {"input_smell": Decimal(1)},
        {"input_mtok": Decimal("1e10")},
    ],
)
def test_a_model_that_can_not_be_priced_exactly_is_left_out(prices: dict[str, Any]) -> None:
    taken = sheet_of([provider(**prices)], "test")
    assert taken.sheet["providers"][0]["models"] == []
    assert taken.left_out[0].startswith("p/m: ")
    with pytest.raises(Refused, match="'m'"):
        check(taken.sheet).find("m", "p")


def test_prices_are_written_exactly() -> None:
    taken = sheet_of([provider(input_mtok=Decimal("1.50E+1"), output_mtok=Decimal("1e-18"))], "t")
    (model,) = taken.sheet["providers"][0]["models"]
    assert model["prices"] == [
        {"rates": {"input_mtok": "15", "output_mtok": "0.000000000000000001"}}
    ]


def test_hours_of_another_zone_and_long_names_are_left_out() -> None:
    made = provider(input_mtok=Decimal(1))
    (model,) = made.models
    zone = timezone(timedelta(hours=8))
    hours = SimpleNamespace(start_time=time(0, 30, tzinfo=zone), end_time=time(16, 30, tzinfo=zone))
    model.prices = [SimpleNamespace(constraint=hours, prices=model.prices)]
    assert sheet_of([made], "t").left_out == ("p/m: its hours are not in UTC",)
    day = SimpleNamespace(start_date=date(2026, 1, 31))
    model.prices[0].constraint = day
    (kept,) = sheet_of([made], "t").sheet["providers"][0]["models"]
    assert kept["prices"][0]["from"] == "2026-01-31"
    model.id = "m" * 100
    assert sheet_of([made], "t").left_out[0].endswith("its name is too long")


def test_without_the_package_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> Any:
        raise ImportError

    monkeypatch.setattr(price_import, "import_module", missing)
    with pytest.raises(ConfigError, match="guthaben\\[prices\\]"):
        installed_prices()
