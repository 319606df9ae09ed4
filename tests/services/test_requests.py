"""What comes from outside is checked once, and the error says what to do. Nothing is changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from guthaben.domain.period import Period
from guthaben.errors import InvalidAmount, InvalidInput, Refused
from guthaben.services.guthaben import Guthaben
from tests.services.house import NOON, PRACTICE, USD, House

NAN, INF = float("nan"), float("inf")
HALF = "\ud800"  # a lone surrogate: half a character

BAD_TEXTS: list[Any] = [
    5, None, b"x", True, 1.5, [], {}, "a\nb", "a\x00b", "\x7f", "\u200b", "\u202e", HALF,
    "a" + HALF,
]  # fmt: skip
BAD_IDS = [*BAD_TEXTS, "", "x" * 201]
BAD_KEYS = [*BAD_TEXTS, "", "x" * 256]
BAD_LONG = [*BAD_TEXTS, "x" * 201]
BAD_AMOUNTS: list[Any] = [
    True,
    False,
    1.0,
    0.5,
    NAN,
    INF,
    -INF,
    "1",
    b"1",
    None,
    [1],
    10**15 + 1,
    10**30,
]
BAD_COSTS: list[Any] = [cost for cost in BAD_AMOUNTS if isinstance(cost, int | float | str)]
"""What is neither is read as a provider's usage, and needs prices."""
BAD_COUNTS: list[Any] = [True, 1.0, NAN, -1, "1", None, 10**12 + 1]
BAD_SECONDS: list[Any] = [True, NAN, INF, -INF, 0, -1, -0.5, 86_401, 10**30, "60", None, [60]]
BAD_AUDIO: list[Any] = [True, NAN, INF, -1, -0.001, 10**9 + 1, "1", None]
BAD_CHOICES: list[Any] = ["", "Release", "nothing", None, 5, True, []]
BAD_TAGS: list[Any] = [
    {f"t{number}": "x" for number in range(11)}, {"": "x"}, {"x" * 41: "x"}, {"x": "x" * 201},
    {"x": 5}, {5: "x"}, {"x": None}, {"x": "a\nb"}, {"x": HALF}, [1], "abc", 5,
]  # fmt: skip
BAD_PERIODS: list[Any] = [
    "x", 5, ("L", 0, 5), Period("L", 5, 5), Period("L", 10, 5), Period("L", -1, 5),
    Period("L", 0, 10**30), Period("L", 0.5, 5), Period("L", "0", 5), Period("L", True, 5),  # type: ignore[arg-type]
    Period("L", 0, 5, -1), Period("L", 0, 5, 10**15 + 1), Period("L", 0, 5, 1.5),  # type: ignore[arg-type]
    Period(HALF, 0, 5), Period("x" * 201, 0, 5), Period(5, 0, 5),  # type: ignore[arg-type]
]  # fmt: skip


def reserving(**more: Any) -> Callable[[Guthaben], object]:
    """Reserve, with something changed."""
    given = {"practice_id": PRACTICE, "amount_nano_usd": 1, "key": "k", **more}
    return lambda credit: credit.reserve(**given)


def metering(**more: Any) -> Callable[[Guthaben], object]:
    """Record usage, with something changed."""
    given = {"practice_id": PRACTICE, "cost_or_usage": 1, "key": "k", **more}
    return lambda credit: credit.record_usage(**given)


def granting(**more: Any) -> Callable[[Guthaben], object]:
    """Grant, with something changed."""
    given = {"practice_id": PRACTICE, "amount_nano_usd": 1, "key": "k", **more}
    return lambda credit: credit.grant(**given)


def adjusting(**more: Any) -> Callable[[Guthaben], object]:
    """Adjust, with something changed."""
    given = {"practice_id": PRACTICE, "amount_nano_usd": 1, "key": "k", "reason": "why not", **more}
    return lambda credit: credit.adjust(**given)


def licensing(**more: Any) -> Callable[[Guthaben], object]:
    """Tell a licence, with something changed."""
    given = {
        "practice_id": PRACTICE, "license": "L", "period_start_s": 0, "period_end_s": 5,
        "allowance_nano_usd": 1, **more,
    }  # fmt: skip
    return lambda credit: credit.set_license(**{k: v for k, v in given.items() if v != "absent"})


def policy(**more: Any) -> Callable[[Guthaben], object]:
    """Change a policy."""
    given = {"practice_id": PRACTICE, **more}
    return lambda credit: credit.set_policy(**given)


def settling(**more: Any) -> Callable[[Guthaben], object]:
    """Settle the call that is open, with something changed."""
    given = {"cost_or_usage": 1, **more}
    return lambda credit: credit.reserve(PRACTICE, 1, key="open").settle(**given)


def each(
    make: Callable[..., Callable[[Guthaben], object]], name: str, values: list[Any]
) -> list[Any]:
    """One field and everything that it must not be."""
    asks = [(repr(value)[:60], make(**{name: value})) for value in values]
    return [pytest.param(asks, id=f"{make.__name__}-{name}")]


TABLE = [
    *each(reserving, "practice_id", BAD_IDS),
    *each(reserving, "key", [key for key in BAD_KEYS if key is not None]),
    *each(reserving, "amount_nano_usd", [*BAD_AMOUNTS, 0, -1]),
    *each(reserving, "ttl_s", BAD_SECONDS),
    *each(reserving, "on_expiry", [*BAD_CHOICES, "keep"]),
    *each(reserving, "on_exception", BAD_CHOICES),
    *each(reserving, "period", BAD_PERIODS),
    *each(reserving, "tags", BAD_TAGS),
    *each(reserving, "reference", BAD_LONG),
    *each(reserving, "user_id", BAD_LONG),
    *each(reserving, "device_id", BAD_LONG),
    *each(reserving, "api_key_id", BAD_LONG),
    *each(reserving, "model", BAD_LONG),
    *each(reserving, "on_expirey", ["charge"]),
    *each(metering, "practice_id", BAD_IDS),
    *each(metering, "key", BAD_KEYS),
    *each(metering, "cost_or_usage", [*BAD_COSTS, -1]),
    *each(metering, "input_tokens", BAD_COUNTS),
    *each(metering, "output_tokens", BAD_COUNTS),
    *each(metering, "total_tokens", BAD_COUNTS),
    *each(metering, "audio_seconds", BAD_AUDIO),
    *each(metering, "model", BAD_LONG),
    *each(metering, "operation_type", BAD_LONG),
    *each(metering, "price_version", BAD_LONG),
    *each(metering, "period", BAD_PERIODS),
    *each(metering, "tags", BAD_TAGS),
    *each(metering, "ttl_s", [5]),
    *each(settling, "cost_or_usage", [*BAD_COSTS, -1]),
    *each(settling, "input_tokens", BAD_COUNTS),
    *each(settling, "audio_seconds", BAD_AUDIO),
    *each(settling, "model", BAD_LONG),
    *each(settling, "cost", [5]),
    *each(granting, "practice_id", BAD_IDS),
    *each(granting, "key", BAD_KEYS),
    *each(granting, "amount_nano_usd", [*BAD_AMOUNTS, 0, -1]),
    *each(granting, "kind", BAD_CHOICES),
    *each(granting, "expires_at_s", [True, 1.5, NAN, "5", 0, -1, 2**62, 10**30]),
    *each(granting, "period", BAD_PERIODS),
    *each(adjusting, "practice_id", BAD_IDS),
    *each(adjusting, "key", BAD_KEYS),
    *each(adjusting, "amount_nano_usd", [*BAD_AMOUNTS, 0, -(10**15) - 1]),
    *each(adjusting, "reason", [5, None, "", "  ", "ab", "x" * 1_001, HALF * 3]),
    *each(adjusting, "author", [5, HALF, "x" * 201]),
    *each(adjusting, "kind", ["allowance", "x", 5, []]),
    *each(licensing, "practice_id", BAD_IDS),
    *each(licensing, "license", [*BAD_LONG, ""]),
    *each(licensing, "period_start_s", [True, 0.5, NAN, "0", None, -1, 5, 6, 10**30, "absent"]),
    *each(licensing, "period_end_s", [True, 5.5, NAN, "5", None, 0, -5, 10**30, "absent"]),
    *each(licensing, "allowance_nano_usd", [*BAD_AMOUNTS, -1, "absent"]),
    *each(licensing, "active", ["no", 0, 1, None]),
    *each(policy, "practice_id", BAD_IDS),
    *each(policy, "status", ["", "gone", 5, True, []]),
    *each(policy, "overrun", ["", "nobody", 5, True, []]),
    *each(policy, "debt_blocks_allowance", ["no", 0, 1, "x"]),
    *each(policy, "time_zone", ["", "Mars/North", "../etc/passwd", "/etc/passwd", 5, HALF, []]),
    *each(policy, "mode", ["", "demo", 5, True, []]),
    *each(policy, "colour", ["red"]),
]


@pytest.mark.parametrize("asks", TABLE)
def test_what_is_none_is_refused_with_advice_and_changes_nothing(
    house: House, asks: list[tuple[str, Callable[[Guthaben], object]]]
) -> None:
    house.guthaben.grant(PRACTICE, USD, key="g")
    house.guthaben.reserve(PRACTICE, 1, key="open")
    before = dump(house)
    for value, ask in asks:
        told = str(refused(house.guthaben, value, ask))
        # It says what is wanted, not only that something is wrong.
        assert re.search(r"must|is |no such option|a period|at most|needs|give", told), told
        assert len(told) < 1_000, value
        assert dump(house) == before, value
    assert house.alarms() == []


def refused(credit: Guthaben, value: str, ask: Callable[[Guthaben], object]) -> Refused:
    """Ask for something that must be refused as bad input; give the refusal."""
    try:
        ask(credit)
    except (InvalidInput, InvalidAmount) as error:
        return error
    pytest.fail(f"{value} was taken")


def test_bad_input_is_a_refusal_and_a_value_error_at_once(house: House) -> None:
    for ask in (reserving(key=""), reserving(amount_nano_usd=0)):
        assert isinstance(refused(house.guthaben, "bad input", ask), ValueError)


def dump(house: House) -> list[Any]:
    """Everything that a command could have changed."""
    tables = ("practice", "grant", "call", "transfer", "key", "event", "note", "alarm")
    return [house.rows(f"SELECT * FROM credit_{name}") for name in tables]


GOOD: list[tuple[str, Callable[[Guthaben], object]]] = [
    ("a key of 255", reserving(key="x" * 255)),
    ("a practice of 200", granting(practice_id="x" * 200)),
    ("letters of all kinds", granting(practice_id="Praxis Müller 医院 🦷")),
    ("a fraction of a second", reserving(ttl_s=0.001)),
    ("a whole day", reserving(ttl_s=86_400)),
    ("ten tags", reserving(tags={f"t{number}": "x" * 200 for number in range(10)})),
    ("no tags", reserving(tags={})),
    ("a cost of nothing", metering(cost_or_usage=0)),
    ("the largest cost", metering(cost_or_usage=10**15)),
    ("the largest counts", metering(input_tokens=10**12, output_tokens=10**12)),
    ("seconds of audio", metering(audio_seconds=0.1)),
    ("a period", reserving(period=Period("L", 0, 5, 10))),
    ("the largest grant", granting(amount_nano_usd=10**15)),
    ("the smallest grant", granting(amount_nano_usd=1)),
    ("the greatest correction down", adjusting(amount_nano_usd=-(10**15))),
    ("a reason in two lines", adjusting(reason="first\nsecond")),
    ("an inactive licence", licensing(active=False)),
    ("nothing to change", policy()),
]


@pytest.mark.parametrize("ask", [ask for _, ask in GOOD], ids=[name for name, _ in GOOD])
def test_what_is_within_the_limits_is_taken(
    house: House, ask: Callable[[Guthaben], object]
) -> None:
    house.guthaben.grant(PRACTICE, USD, key="g")
    ask(house.guthaben)
    assert house.alarms() == []


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize("practice_id", BAD_IDS, ids=lambda value: repr(value)[:20])
def test_questions_check_whom_they_are_about(house: House, practice_id: Any) -> None:
    credit = house.guthaben
    for ask in (
        lambda: credit.balance(practice_id),
        lambda: credit.statement(practice_id),
        lambda: credit.calls(practice_id),
        lambda: credit.topups(practice_id),
        lambda: credit.call(practice_id, "call_1_x"),
    ):
        with pytest.raises(InvalidInput):
            ask()


@pytest.mark.parametrize("limit", [0, -1, 501, True, 1.0, "5", None, 10**30], ids=repr)
def test_a_page_has_1_to_500_lines(house: House, limit: Any) -> None:
    for ask in (house.guthaben.statement, house.guthaben.calls, house.guthaben.topups):
        with pytest.raises(InvalidInput, match="limit must be an integer from 1 to 500"):
            ask(PRACTICE, limit=limit)


@pytest.mark.parametrize("before", [True, 1.5, "5", 0, -1, 10**30], ids=repr)
def test_a_page_begins_before_a_number(house: House, before: Any) -> None:
    credit = house.guthaben
    for ask in (
        lambda: credit.statement(PRACTICE, before_seq=before),
        lambda: credit.calls(PRACTICE, before_call_no=before),
        lambda: credit.topups(PRACTICE, before_event_no=before),
    ):
        with pytest.raises(InvalidInput):
            ask()


def test_pages_follow_each_other_without_a_gap(house: House) -> None:
    credit = house.guthaben
    for number in range(23):
        credit.grant(PRACTICE, number + 1, key=f"g{number}")
    seen: list[int] = []
    before = None
    while True:
        page = credit.statement(PRACTICE, limit=5, before_seq=before)
        seen += [line.seq for line in page.entries]
        before = page.next_before_seq
        if before is None:
            break
    assert seen == list(range(23, 0, -1))


@pytest.mark.parametrize("period", BAD_PERIODS, ids=repr)
def test_a_balance_is_asked_for_a_period_that_is_one(house: House, period: Any) -> None:
    with pytest.raises((InvalidInput, InvalidAmount)):
        house.guthaben.balance(PRACTICE, period)


def test_who_has_nothing_has_nothing_and_is_not_stored_by_asking(house: House) -> None:
    credit = house.guthaben
    found = credit.balance("prac_nobody")
    assert (found.available_nano_usd, found.held_nano_usd, found.debt_nano_usd) == (0, 0, 0)
    assert credit.statement("prac_nobody").entries == ()
    assert (credit.calls("prac_nobody"), credit.topups("prac_nobody")) == ([], [])
    assert house.rows("SELECT * FROM credit_practice") == []


def test_what_was_told_comes_back_as_it_was_told(house: House) -> None:
    house.guthaben.grant(PRACTICE, USD, key="g")
    view = house.guthaben.record_usage(
        PRACTICE, 5, key="k", model="m", operation_type="chat", input_tokens=1, output_tokens=2,
        audio_seconds=0.1, reference="r-1", device_id="d-1", user_id="u", tags={"b": "2", "a": "ä"},
    )  # fmt: skip
    assert house.guthaben.call(PRACTICE, view.id) == view
    assert (view.total_tokens, view.audio_seconds, view.created_at_s) == (3, 0.1, NOON)
    assert (view.reference, view.device_id, view.key) == ("r-1", "d-1", "k")
    assert house.rows("SELECT tags FROM credit_call") == [{"tags": '{"a":"ä","b":"2"}'}]
