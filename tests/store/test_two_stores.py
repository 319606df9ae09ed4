"""Two stores on one PostgreSQL at once: rows that belong to no practice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from guthaben.services import archive_files, growth
from guthaben.store import archive, restored
from guthaben.store.archive import Manifest, Row
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests import postgres
from tests.meanwhile import Meanwhile
from tests.store.bank import Clock, problems
from tests.store.history import gone, here, lived, ms

Stores = tuple[Store, Store]


@pytest.fixture
def stores(clock: Clock) -> Iterator[Stores]:
    url = postgres.fresh()
    with closing(Store(url, clock_ms=clock)) as one, closing(Store(url, clock_ms=clock)) as other:
        yield one, other


@pytest.fixture
def meanwhile(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    return Meanwhile(stores[0].url, monkeypatch)


def test_of_two_that_begin_a_file_one_does(
    stores: Stores, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(store: Store) -> Manifest | None:
        return store.run(lambda space: archive.begin(space.cursor, "2023-11", space.now_s))

    meanwhile.at(archive, "Manifest", lambda: begin(stores[1]))
    mine = begin(stores[0])
    meanwhile.end()
    monkeypatch.undo()
    (theirs,) = meanwhile.answers
    assert (mine is None) != (theirs is None)
    assert stores[0].read(archive.manifests) == [mine or theirs]


def test_two_that_move_one_page_move_it_once(
    stores: Stores,
    clock: Clock,
    tmp_path: Path,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lived(stores[0], clock, 10)
    clock.now_ms = ms(2024, 3, 1)
    calls, page = here(stores[0]), list[list[Row]]()
    still_here: Callable[..., Iterator[Row]] = archive._still_here

    def interrupted(cursor: Any, number: int, rows: list[Row]) -> Iterator[Row]:
        left = list(still_here(cursor, number, rows))
        if len(page) == 1:
            page.append([])
            meanwhile.begin(lambda: growth._move(stores[1], manifest(), page[0]))
        return iter(left)

    def manifest() -> Manifest:
        return stores[1].read(archive.manifests)[0]

    read = archive_files.read

    def noted(path: Path) -> Iterator[list[Row]]:
        for rows in read(path):
            if manifest().state == archive.State.MOVING:
                page.append(rows)
            yield rows

    monkeypatch.setattr(archive_files, "read", noted)
    monkeypatch.setattr(archive, "_still_here", interrupted)
    growth.maintain(stores[0], tmp_path, 35)
    meanwhile.end()
    assert len(page) == 2
    assert here(stores[0]) + gone(stores[0]) == calls
    assert problems(stores[0]) == []


def test_a_race_for_a_key_that_was_lost_before_is_a_race_again(stores: Stores) -> None:
    """The same violation twice in a row is a mistake; after a commit it is a race as any other."""
    insert = "INSERT INTO credit_topup_stop (practice_no, reason, actor, at_s) VALUES (7, ?, '', 0)"
    tries = 0

    def stop(space: Workspace) -> None:
        nonlocal tries
        tries += 1
        known = "SELECT 1 FROM credit_topup_stop WHERE practice_no = 7"
        if space.cursor.execute(known).fetchone() is None:
            stores[1].run(lambda other: other.cursor.execute(insert, ("theirs",)).rowcount)
            space.cursor.execute(insert, ("ours",))

    for _ in range(2):
        stores[0].run(stop)
        postgres.change(0, "DELETE FROM credit_topup_stop", ())
    assert tries == 4


def test_of_two_that_open_a_moved_database_one_marks_it(
    stores: Stores, meanwhile: Meanwhile
) -> None:
    postgres.change(0, "UPDATE credit_meta SET value = 'elsewhere/1/2/3' WHERE name = 'home'", ())
    url, clock_ms = stores[0].url, stores[0].clock_ms

    def open_it() -> None:
        with closing(Store(url, clock_ms=clock_ms)) as other:
            other.run(lambda space: space.now_ms)

    # The first look is before the transaction.
    meanwhile.at(restored, "same_home", open_it, nth=2)
    open_it()
    meanwhile.end()
    assert stores[0].read(restored.mark_of) is not None
    audit = "SELECT action FROM credit_settings_audit"
    assert postgres.rows(0, audit, ()) == [{"action": "database_restored"}]
