"""Amounts and dates as they are shown and typed; what is shown is read back exactly."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.texts import LANGUAGES, show


@given(st.integers(0, 999_999_999))
def test_what_is_shown_is_read_back(rappen: int) -> None:
    assert show.typed_chf(show.chf(rappen)) == rappen
    plain = f"{rappen // 100}.{rappen % 100:02d}"
    assert show.typed_chf(plain) == (rappen if rappen < 10**9 else None)
    assert show.typed_chf(plain.replace(".", ",")) == rappen


@pytest.mark.parametrize(
    ("typed", "rappen"),
    [
        ("30", 3_000), (" 30.5 ", 3_050), ("CHF 30", 3_000), ("1'234.50", 123_450),
        ("1’234,50", 123_450), ("0.05", 5), ("12345.67", 1_234_567),
        ("1,234", None), ("1.234", None), ("1'23", None), ("", None), ("-30", None),
        ("3e2", None), ("30.001", None), ("٣٠", None), ("30 CHF", None), ("1'234'5", None),
        ("0x10", None), ("3 0", None), ("NaN", None),
    ],
)  # fmt: skip
def test_what_a_person_types(typed: str, rappen: int | None) -> None:
    assert show.typed_chf(typed) == rappen


@given(st.integers(-(10**18), 10**18))
def test_usd_is_cut_and_never_shows_more_than_there_is(nano_usd: int) -> None:
    shown = show.usd(nano_usd).replace("'", "").replace("−", "-")
    whole, cents = shown.lstrip("-").split(".")
    assert int(whole) * 100 + int(cents) == abs(nano_usd) // 10_000_000


def test_amounts_look_swiss() -> None:
    assert show.chf(123_450) == "1'234.50"
    assert show.chf(-3_000) == "−30.00"
    assert show.usd_exact(6_666_700_000) == "6.6667"
    assert show.usd_exact(10_000_000_000) == "10.00"
    assert show.usd(1_234_567_890_000_000) == "1'234'567.89"


@pytest.mark.parametrize(
    ("nano_usd", "shown"),
    [(0, "0.0000"), (1, "< 0.0001"), (99_999, "< 0.0001"), (100_000, "0.0001")],
)
def test_the_least_use_does_not_look_like_none(nano_usd: int, shown: str) -> None:
    assert show.usd_used(nano_usd) == shown


def test_days_are_days_of_the_zone() -> None:
    new_year = int(datetime(2026, 12, 31, 23, 30, tzinfo=UTC).timestamp())
    told = [show.day(new_year, "Europe/Zurich", language) for language in LANGUAGES]
    assert told == ["1. Januar 2027", "1er janvier 2027", "1 gennaio 2027", "1 January 2027"]
    assert show.day(new_year, "UTC", "de") == "31. Dezember 2026"
    assert show.minute(new_year, "Europe/Zurich") == "01.01.2027 00:30"
