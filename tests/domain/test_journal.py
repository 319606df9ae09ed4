"""The journal: numbers without gaps, a chain of hashes, and replay that finds what was changed."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guthaben.domain.journal import Account, Code, Replay, Transfer, genesis, link, replay

GRANT, SETTLE = int(Code.GRANT), int(Code.SETTLE)
INCLUDED, PURCHASED, PAID, USED = 5, 7, 3, 9


def chain(rows: list[tuple[int, int, int, int]], practice_id: str = "p") -> list[Transfer]:
    """Write transfers of (source, target, amount, grant) one after the other."""
    head, written = genesis(practice_id), []
    for seq, (source, target, amount, grant_no) in enumerate(rows, 1):
        fields = (seq, source, target, amount, grant_no, 0, 0, GRANT, 0, 1000 + seq)
        head = link(head, *fields)
        written.append(Transfer(*fields, head))
    return written


GOOD = chain([(PURCHASED, PAID, 100, 1), (PAID, USED, 30, 1), (4, USED, 5, 0), (6, 2, 7, 2)])


def test_replay_tells_balances_and_the_end_of_the_chain() -> None:
    told = replay("p", GOOD)
    assert told.problems == []
    assert (told.last_seq, told.head) == (4, GOOD[-1].hash)
    assert told.grants == {1: 70, 2: 7}
    assert told.accounts == {
        Account.PURCHASED: -100, Account.PAID: 70, Account.USED: 35, Account.DEBT: -5,
        Account.GIFTED: -7, Account.PROMOTIONAL: 7,
    }  # fmt: skip
    assert sum(told.accounts.values()) == 0


def test_nothing_is_a_journal_too() -> None:
    told = replay("p", [])
    assert (told.last_seq, told.head, told.grants, told.problems) == (0, genesis("p"), {}, [])


def test_the_hash_covers_the_predecessor_and_ten_integers() -> None:
    first = GOOD[0]
    content = b"1|7|3|100|1|0|0|1|0|1001"
    assert first.hash == sha256(genesis("p") + content).digest()
    assert GOOD[1].hash == sha256(first.hash + b"2|3|9|30|1|0|0|1|0|1002").digest()


def test_a_chain_belongs_to_its_practice() -> None:
    assert genesis("p") != genesis("q") != genesis("")
    assert replay("q", GOOD).problems == ["transfer 1 was altered: its hash does not follow from 0"]


@pytest.mark.parametrize(("field", "value"), [("amount_nano_usd", 0), ("amount_nano_usd", -5)])
def test_a_transfer_that_moves_nothing_is_named(field: str, value: int) -> None:
    rows = chain([(PURCHASED, PAID, value, 1)])
    assert replay("p", rows).problems == ["transfer 1 moves nothing or in a circle"]


def test_a_circle_is_named() -> None:
    assert replay("p", chain([(PAID, PAID, 5, 1)])).problems == [
        "transfer 1 moves nothing or in a circle"
    ]


ROWS = st.lists(
    st.tuples(
        st.sampled_from([5, 6, 7, 8]), st.sampled_from([1, 2, 3]), st.integers(1, 99),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


def differs(told: Replay, good: list[Transfer]) -> bool:
    """Whether replay sees that this is not the journal whose end is known."""
    return bool(told.problems) or (told.last_seq, told.head) != (good[-1].seq, good[-1].hash)


@given(ROWS, st.data())
def test_any_single_edit_is_found_where_it_is(rows: list, data: st.DataObject) -> None:
    good = chain(rows)
    place = data.draw(st.integers(0, len(good) - 1))
    field = data.draw(st.sampled_from(Transfer._fields[:-1]))
    by = data.draw(st.sampled_from([1, -1, 1000]))
    edited = good[place]._replace(**{field: getattr(good[place], field) + by})
    told = replay("p", [*good[:place], edited, *good[place + 1 :]])
    assert any(f"transfer {edited.seq} was altered" in text for text in told.problems)


@given(ROWS, st.data())
def test_an_edited_hash_is_found(rows: list, data: st.DataObject) -> None:
    good = chain(rows)
    place = data.draw(st.integers(0, len(good) - 1))
    edited = good[place]._replace(hash=bytes(32))
    told = replay("p", [*good[:place], edited, *good[place + 1 :]])
    assert f"transfer {place + 1} was altered: its hash does not follow from {place}" in (
        told.problems
    )


@given(ROWS, st.data())
def test_a_deletion_is_found(rows: list, data: st.DataObject) -> None:
    good = chain(rows)
    place = data.draw(st.integers(0, len(good) - 1))
    told = replay("p", [*good[:place], *good[place + 1 :]])
    assert differs(told, good)
    if place < len(good) - 1:
        assert f"transfer {place + 1} is missing: {place + 2} follows {place}" in told.problems


@given(ROWS, ROWS, st.data())
def test_an_insertion_is_found(rows: list, others: list, data: st.DataObject) -> None:
    good = chain(rows)
    foreign = data.draw(st.sampled_from([*good, *chain(others, "q")]))
    place = data.draw(st.integers(0, len(good)))
    for added in (foreign, foreign._replace(seq=place + 1)):
        assert differs(replay("p", [*good[:place], added, *good[place:]]), good)


@given(ROWS, st.data())
def test_another_order_is_found(rows: list, data: st.DataObject) -> None:
    good = chain(rows)
    order = data.draw(st.permutations(good))
    assume(order != good)
    assert differs(replay("p", order), good)
    renumbered = [t._replace(seq=n) for n, t in enumerate(order, 1)]
    assert differs(replay("p", renumbered), good)


@given(ROWS, st.data())
def test_a_tail_that_was_written_anew_has_another_head(rows: list, data: st.DataObject) -> None:
    good = chain(rows)
    place = data.draw(st.integers(0, len(rows) - 1))
    source, target, amount, grant_no = rows[place]
    forged = chain([*rows[:place], (source, target, amount + 1, grant_no), *rows[place + 1 :]])
    told = replay("p", forged)
    assert told.problems == []  # a forger who recomputes everything is found by the known head only
    assert told.head != good[-1].hash


def test_accounts_and_codes_keep_their_numbers() -> None:
    assert [account.name for account in Account] == [
        "ALLOWANCE", "PROMOTIONAL", "PAID", "DEBT", "INCLUDED", "GIFTED", "PURCHASED", "ADJUSTED",
        "USED", "EXPIRED", "CLAWED_BACK", "OPERATOR_LOSS",
    ]  # fmt: skip
    assert [int(account) for account in Account] == list(range(1, 13))
    assert [code.name for code in Code] == [
        "GRANT", "FULFIL", "SETTLE", "EXPIRY_CHARGE", "EXCEPTION_CHARGE", "LATE", "USAGE",
        "OVERRUN", "REPAY", "GRANT_EXPIRED", "CLAWBACK", "REINSTATE", "ADJUST", "PLAN_CHANGE",
        "TAKE_OVER",
    ]  # fmt: skip
    assert [int(code) for code in Code] == list(range(1, 16))
