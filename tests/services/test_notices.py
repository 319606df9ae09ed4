"""Telling: with the change, once per practice, kind and key, and never at the change's cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from guthaben.services import notices
from guthaben.services.notices import ABOUT, OPERATOR, Notice, tell
from guthaben.store import outbox
from guthaben.store.workspace import Workspace
from tests.services.house import OTHER, PRACTICE, House

FACTS: dict[str, Any] = {"available_nano_usd": 5, "of_nano_usd": 100}
LOW = Notice.LOW_BALANCE_5


def told(house: House, practice_id: str = PRACTICE) -> list[outbox.NoticeRow]:
    number = house.store.run(lambda space: space.practice_no(practice_id) if practice_id else 0)
    return [row for row, _id in house.store.read(lambda cur: outbox.told(cur, number, 100))]


def tell_it(house: House, practice_id: str = PRACTICE, key: str = "p1", **more: Any) -> bool:
    facts = {**FACTS, **more}
    return house.store.run(lambda space: tell(space, practice_id, LOW, key, facts))


def test_a_notice_is_told_once_per_practice_kind_and_key(house: House) -> None:
    assert tell_it(house)
    assert not tell_it(house, available_nano_usd=6)
    assert tell_it(house, key="p2")
    assert tell_it(house, OTHER)
    assert tell_it(house, OPERATOR)
    found = sorted(told(house))
    assert [(row.kind, row.key) for row in found] == [
        ("low_balance_5", "p1"),
        ("low_balance_5", "p2"),
    ]
    assert all(json.loads(row.facts) == FACTS for row in found), "the first telling stands"
    rows = [*found, *told(house, OTHER), *told(house, OPERATOR)]
    assert len({row.notice_id for row in rows}) == 4
    assert [row.practice_no for row in rows[-1:]] == [0]
    assert {row.told_at_s for row in rows} == {house.clock.at_s}


def test_a_notice_goes_with_its_change_or_not_at_all(house: House) -> None:
    def broken(space: Workspace) -> None:
        assert tell(space, PRACTICE, LOW, "p1", FACTS)
        raise RuntimeError("the change is undone")

    with pytest.raises(RuntimeError):
        house.store.run(broken)
    assert told(house) == []
    assert tell_it(house)


def test_a_slip_of_ours_does_not_undo_a_change_of_money(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistakes: list[str] = []
    monkeypatch.setattr(notices, "complain", mistakes.append)
    wrong: Any = {"available_nano_usd": 1.5, "reason": "pi_12345678901234", "long": "x" * 201}
    assert house.store.run(lambda space: tell(space, PRACTICE, LOW, "k" * 500, wrong))
    (row,) = told(house)
    assert json.loads(row.facts) == {"available_nano_usd": "1.5", "reason": "", "long": ""}
    assert len(row.key) == 200
    assert len(mistakes) == 4


@pytest.mark.parametrize(
    "secret",
    ["a@example.com", "pm_1234567890abcd", "sk_live_12345678", "whsec_abcdefgh", "cus_123456789"],
)
def test_no_address_and_no_secret_is_kept(
    house: House, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "complain", lambda _mistake: None)
    tell_it(house, of_nano_usd=f"see {secret}")
    assert secret not in told(house)[0].facts


def test_codes_of_reasons_are_kept(house: House) -> None:
    for number, code in enumerate(["card_declined", "authentication_required", "re_opened_by_us"]):
        tell_it(house, key=str(number), of_nano_usd=code)
    assert "card_declined" in str(told(house))


def test_in_tests_a_wrong_notice_is_an_error(house: House) -> None:
    with pytest.raises(AssertionError, match="LOW_BALANCE_5 wants the facts"):
        tell_it(house, more=1)


def test_every_kind_says_who_is_told_and_with_what() -> None:
    assert set(ABOUT) == set(Notice)
    assert len({kind.value for kind in Notice}) == len(Notice)
    for kind, about in ABOUT.items():
        assert kind.value == kind.name.lower()
        assert about.facts
        hints = {Notice.LOW_BALANCE_20, Notice.LOW_BALANCE_5, Notice.EMPTY}
        assert about.contractual == (kind not in hints)
