"""Commands: the body that an idempotency key stands for."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guthaben.domain.calls import Origin, Told, Usage
from guthaben.domain.commands import Adjust, GrantCredit, RecordUsage, Reserve, body_hash
from guthaben.domain.period import Period


@pytest.mark.parametrize(
    ("command", "hashed"),
    [
        (Reserve("k", 5), -2567245152130330885),
        (RecordUsage("k", 5), -5048043172793005065),
        (GrantCredit("k", 3, 5), 3928130394155572306),
        (Adjust("k", -5, 3), 4933613027363980814),
        (
            Reserve("k", 5, 1000, 2, 3, Period("L", 1, 2, 3), Usage("m", "o", 1), Origin("u")),
            -2225120487100514473,
        ),
    ],
)
def test_a_body_is_hashed_for_ever_the_same(command: Any, hashed: int) -> None:
    """These numbers are stored in databases: a change here refuses honest repetitions."""
    assert body_hash(command) == hashed


def test_the_key_and_defaults_at_the_end_are_no_part_of_the_body() -> None:
    plain = body_hash(Reserve("a", 5))
    assert body_hash(Reserve("b", 5)) == plain
    assert body_hash(Reserve("a", 5, 900_000, 1, 1, None, Usage(), Origin(), 0, 0)) == plain


def test_a_field_added_at_the_end_changes_no_stored_hash() -> None:
    class Later(NamedTuple):
        key: str
        amount_nano_usd: int
        kind: int
        added: int = 0

    Later.__name__ = "Adjust"
    assert body_hash(Later("k", -5, 3)) == body_hash(Adjust("k", -5, 3))  # type: ignore[arg-type]
    assert body_hash(Later("k", -5, 3, 1)) != body_hash(Adjust("k", -5, 3))  # type: ignore[arg-type]


FIELDS: list[tuple[str, object]] = [
    ("amount_nano_usd", 6), ("ttl_ms", 1), ("on_expiry", 2), ("on_exception", 3),
    ("period", Period("", 0, 1)), ("usage", Usage("m")), ("origin", Origin("u")),
    ("grace_ms", 1), ("overage_policy", 1), ("told", Told("k")),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_field_of_a_reservation_counts(field: str, value: Any) -> None:
    plain = Reserve("k", 5)
    assert body_hash(plain._replace(**{field: value})) != body_hash(plain)


def test_all_fields_of_a_reservation_were_tried() -> None:
    assert {"key", "is_tentative", *(name for name, _ in FIELDS)} == set(Reserve._fields)


def test_whether_a_refusal_would_be_the_last_is_no_part_of_the_body() -> None:
    command = Reserve("k", 5, origin=Origin("u"), told=Told("t"))
    assert body_hash(command._replace(is_tentative=True)) == body_hash(command)


def test_a_missing_period_is_not_the_current_one() -> None:
    assert body_hash(RecordUsage("k", 5)) != body_hash(RecordUsage("k", 5, Period("", 0, 0)))


def test_the_same_fields_of_another_command_are_another_body() -> None:
    assert body_hash(RecordUsage("k", 5)) != body_hash(Reserve("k", 5))


@given(st.text(max_size=20), st.text(max_size=20))
def test_texts_are_told_apart_by_any_character(one: str, other: str) -> None:
    hashes = [body_hash(RecordUsage("k", 1, None, Usage(text))) for text in (one, other)]
    assert (hashes[0] == hashes[1]) is (one == other)
    assert all(-(1 << 63) <= found < 1 << 63 for found in hashes)


def test_a_lone_surrogate_can_be_hashed() -> None:
    assert isinstance(body_hash(RecordUsage("k", 1, None, Usage("\udc80"))), int)
