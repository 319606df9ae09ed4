"""Versions of prices: taken on purpose, kept for ever, and what the vendor sets on top."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guthaben.domain.metering import metered
from guthaben.domain.price_sheet import day_s
from guthaben.errors import ConfigError, InvalidInput, Refused
from guthaben.services.price_changes import differences
from guthaben.services.price_import import ImportedSheet
from guthaben.services.prices import NOTICE_S, Prices
from guthaben.store.store import Store
from guthaben.web.app import create_app
from guthaben.web.deps import Services
from tests.domain.price_desk import GPT_4O_MINI, NOW, SHEET, model

USAGE = metered({"input_tokens": 1000, "output_tokens": 200})
TAKEN = ImportedSheet(SHEET, "by hand 1", ("openai/odd: its price is odd",))


class Clock:
    at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_prices = Store(f"sqlite:///{tmp_path / 'credit.db'}", clock_ms=lambda: NOW * 1000)
    yield with_prices
    with_prices.close()


@pytest.fixture
def prices(store: Store) -> Prices:
    made = Prices(store)
    made.take(TAKEN)
    return made


def cost(prices: Prices, name: str = "gpt-4o-mini", **more: Any) -> int:
    return prices.price(name, USAGE, NOW, **more).cost_nano_usd


def other_sheet() -> dict[str, Any]:
    """The sheet, with one dearer model, one gone and one new."""
    openai, *rest = SHEET["providers"]
    dearer = {**GPT_4O_MINI, "prices": [{"rates": {"input_mtok": "0.2", "output_mtok": "0.6"}}]}
    models = [dearer, *(m for m in openai["models"][1:] if m["id"] != "o3")]
    models.append(model("o4", {"input_mtok": "1", "output_mtok": "1"}))
    return {**SHEET, "source": "by hand 2", "providers": [{**openai, "models": models}, *rest]}


def test_without_prices_nothing_is_priced(store: Store) -> None:
    with pytest.raises(ConfigError, match="guthaben prices import"):
        Prices(store).book()
    assert Prices(store).versions() == []
    assert Prices(store).sheets()[0]["providers"] == []


def test_a_server_takes_no_prices_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is installed, and yet nothing of it counts before somebody says so."""

    def refuse(*_: object) -> None:
        raise AssertionError("prices were taken")

    monkeypatch.setattr(Prices, "take", refuse)
    monkeypatch.setattr("guthaben.services.prices.installed_prices", refuse)
    services = Services.open(f"sqlite:///{tmp_path / 'served.db'}")
    with TestClient(create_app(services)) as client:
        assert client.get("/readyz").status_code == 200
        assert services.core.prices.versions() == []
        with pytest.raises(ConfigError, match="guthaben prices import"):
            services.guthaben.reserve("p", model="gpt-4o-mini", max_output_tokens=5)
    services.stop()


def test_taking_prices(store: Store) -> None:
    prices = Prices(store)
    report = prices.take(TAKEN, author="anna")
    assert report.version.new
    assert report.version.version == f"20261112-{report.version.hash[:12]}"
    assert (report.source, report.left_out) == (TAKEN.source, TAKEN.left_out)
    assert report.version.author == "anna"
    priced = prices.price("gpt-4o-mini", USAGE, NOW)
    assert priced == (270_000, f"{report.version.version}/openai/gpt-4o-mini")
    again = prices.take(TAKEN)
    assert not again.version.new
    assert (again.version.version, again.differences) == (report.version.version, ())
    assert [version.change for version in prices.versions()] == ["import by hand 1"]


def test_an_old_version_explains_an_old_call(prices: Prices) -> None:
    before = prices.price("gpt-4o-mini", USAGE, NOW)
    report = prices.take(ImportedSheet(other_sheet(), "by hand 2", ()))
    changed = [(d.model, d.price, d.old, d.new) for d in report.differences]
    assert changed == [
        ("gpt-4o-mini", "cache_read_mtok", "0.075", None),
        ("gpt-4o-mini", "input_mtok", "0.15", "0.2"),
        ("o3", "input_mtok", "10", None),
        ("o3", "input_mtok from 2025-06-10", "2", None),
        ("o3", "output_mtok", "40", None),
        ("o3", "output_mtok from 2025-06-10", "8", None),
        ("o4", "input_mtok", None, "1"),
        ("o4", "output_mtok", None, "1"),
    ]
    assert cost(prices) == 320_000
    old = prices.version_book(before.price_version)
    assert old.price("gpt-4o-mini", USAGE, NOW) == before
    with pytest.raises(Refused, match="'o3'"):
        prices.price("o3", USAGE, NOW)
    for ask in (prices.version_book, prices.sheets):
        with pytest.raises(InvalidInput, match="no version '20200101-0'"):
            ask("20200101-0")
    assert prices.sheets(before.price_version.partition("/")[0])[0] == SHEET


def test_comparing_changes_nothing(prices: Prices) -> None:
    report = prices.compare(ImportedSheet(other_sheet(), "by hand 2", ()))
    assert len(report.differences) == 8
    assert len(prices.versions()) == 1
    assert cost(prices) == 270_000


def test_prices_that_can_not_be_read_are_not_taken(prices: Prices) -> None:
    bad = {**SHEET, "providers": [{"id": "p", "models": [model("m", {"input_mtok": "1e-9"})]}]}
    with pytest.raises(InvalidInput):
        prices.take(ImportedSheet(bad, "bad", ()))
    assert len(prices.versions()) == 1


def test_own_prices_outlive_an_import(prices: Prices) -> None:
    made = prices.set_rates("gpt-4o-mini", {"input_mtok": "1"}, author="anna", aliases=("cheap",))
    assert (made.new, made.change) == (True, "set openai/gpt-4o-mini input_mtok=1")
    assert not prices.set_rates("gpt-4o-mini", {"input_mtok": "1"}).new
    assert cost(prices) == cost(prices, "cheap") == 1_120_000
    prices.take(ImportedSheet(other_sheet(), "by hand 2", ()))
    assert cost(prices) == 1_120_000
    prices.unset_rates("cheap")
    assert cost(prices) == 320_000
    with pytest.raises(InvalidInput, match="no prices of your own"):
        prices.unset_rates("gpt-4o-mini")


def test_own_prices_are_merged_by_day_and_circumstances(prices: Prices) -> None:
    prices.set_rates("o3", {"input_mtok": "3"}, from_day="2026-06-01")
    prices.set_rates("o3", {"output_mtok": "9"}, from_day="2026-06-01")
    prices.set_rates("o3", {"input_mtok": "7"}, from_day="2026-01-01")
    prices.set_rates("o3", {"input_mtok": "1"}, when={"processing": "batch"})
    days = [day_s(day) for day in ("2025-12-31", "2026-01-01", "2026-06-01")]
    costs = [prices.price("o3", USAGE, at).cost_nano_usd for at in days]
    assert costs == [3_600_000, 8_600_000, 4_800_000]
    batch = metered({"input_tokens": 1}, {"processing": "batch"})
    assert prices.price("o3", batch, NOW).cost_nano_usd == 1_000
    prices.set_rates("o3", {}, aliases=("oh",))
    assert prices.price("oh", USAGE, NOW).cost_nano_usd == 4_800_000


def test_a_model_of_ones_own(store: Store) -> None:
    prices = Prices(store)
    prices.set_rates("Llama", {"input_mtok": "1", "output_mtok": "5"}, provider="House")
    assert prices.price("llama", USAGE, NOW).cost_nano_usd == 2_000_000
    prices.take(TAKEN)
    assert cost(prices, "llama") == 2_000_000


@pytest.mark.parametrize(
    ("name", "rates", "where"),
    [
        ("gpt-9", {"input_mtok": "1"}, {}),
        ("m" * 100, {"input_mtok": "1"}, {"provider": "p"}),
        ("o3", {}, {}),
        ("o3", {"input_mtok": "-1"}, {}),
        ("o3", {"input": "1"}, {}),
        ("o3", {"input_mtok": "1"}, {"from_day": "tomorrow"}),
        ("o3", {"input_mtok": "1"}, {"aliases": ("",)}),
        ("o3", {"input_mtok": "1"}, {"aliases": tuple(map(str, range(51)))}),
    ],
)
def test_what_can_not_be_set(
    prices: Prices, name: str, rates: dict[str, str | None], where: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        prices.set_rates(name, rates, **where)
    assert refused.value.reason == "invalid_prices"
    assert len(prices.versions()) == 1


def test_margins(prices: Prices) -> None:
    prices.set_margin("*", factor="1.5")
    prices.set_margin("pro", factor="6/5", fixed_nano_usd=1_000)
    assert (cost(prices), cost(prices, plan="pro")) == (405_000, 325_000)
    assert prices.price("gpt-4o-mini", USAGE, NOW, plan="pro").price_version.endswith("+pro")
    with pytest.raises(InvalidInput):
        prices.set_margin("pro", factor="0")
    found = differences(prices.version_book(prices.versions()[-1].version), prices.book())
    assert [(d.model, d.new) for d in found] == [
        ("margin of *", "15/10, 0"),
        ("margin of pro", "6/5, 1000"),
    ]


def test_other_processes_notice_a_new_version(store: Store, prices: Prices) -> None:
    clock = Clock()
    other = Prices(store, clock_s=clock)
    assert cost(other) == 270_000
    prices.set_margin("*", factor="2")
    assert cost(prices) == 540_000
    assert cost(other) == 270_000
    clock.at_s += NOTICE_S
    assert cost(other) == 540_000
    book = other.book()
    clock.at_s += NOTICE_S
    assert other.book() is book


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE credit_price_sheet SET body = '{}'",
        "DELETE FROM credit_price_sheet",
        "REPLACE INTO credit_price_sheet SELECT hash, source, '{}', 0 FROM credit_price_sheet",
        "UPDATE credit_price_version SET version = 'x'",
        "DELETE FROM credit_price_version",
        "REPLACE INTO credit_price_version VALUES (1, 'x', 'h', 'h', 'h', '', '', 0)",
    ],
)
def test_the_database_keeps_what_was_taken(store: Store, prices: Prices, sql: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=r"price"):
        store.run(lambda space: space.cursor.execute(sql))
    assert cost(prices) == 270_000


def test_prices_are_read_by_a_plain_connection(prices: Prices, tmp_path: Path) -> None:
    con = sqlite3.connect(tmp_path / "credit.db")
    assert con.execute("SELECT source FROM credit_price_sheet ORDER BY source").fetchall() == [
        ("by hand",),
        ("own",),
    ]
    con.close()
