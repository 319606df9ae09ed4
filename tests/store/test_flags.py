"""What a row keeps as 0 or 1 is a boolean again where it is read, on both databases."""

from __future__ import annotations

from contextlib import closing

import pytest

from guthaben.domain.commands import RecordUsage, SetLicense, SetPolicy
from guthaben.domain.grants import Grant
from guthaben.store import practices
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests.store.bank import T0_S, Clock

FLAGS = ("debt_blocks_allowance", "license_active", "auto_topup_armed", "over_limit")


@pytest.mark.parametrize("flag", [True, False])
def test_flags_of_a_practice(store: Store, database: str, clock: Clock, flag: bool) -> None:
    for value in (not flag, flag):
        policy = SetPolicy(debt_blocks_allowance=value, auto_topup_armed=value, over_limit=value)
        assert store.execute("p", policy).ok
        assert store.execute("p", SetLicense("l", value, T0_S - 9, T0_S + 9, 7)).ok
    # By another store, which has kept nothing of it; PostgreSQL reads in two ways.
    with closing(Store(database, clock_ms=clock)) as other:
        in_a_batch = other.run(lambda space: space.practice("p"))
        alone = other.read(lambda cursor: practices.load_practice(cursor, "p"))
    for found in (in_a_batch, alone):
        assert [(type(getattr(found, name)), getattr(found, name)) for name in FLAGS] == [
            (bool, flag)
        ] * len(FLAGS)


def test_the_flag_of_a_grant(store: Store) -> None:
    # The period is over, so the next one's bounds are a guess.
    assert store.execute("p", SetLicense("l", True, T0_S - 99, T0_S - 9, 7)).ok
    assert store.execute("p", RecordUsage("u", 1)).ok

    def read(space: Workspace) -> list[Grant]:
        rows = space.cursor.execute(f"SELECT {', '.join(Grant._fields)} FROM credit_grant")
        return [practices.grant_from_row(row) for row in rows.fetchall()]

    (guessed,) = store.run(read)
    assert guessed.provisional is True
    assert store.execute("p", SetLicense("l", True, guessed.period_start_s, T0_S + 99, 7)).ok
    (told,) = store.run(read)
    assert told.provisional is False
