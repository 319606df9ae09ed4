"""Two servers at once: stops of all charges, and the mark of a database from a backup."""

from __future__ import annotations

import pytest

from guthaben.services.guthaben import Guthaben
from guthaben.services.topup_stops import TopupStops
from guthaben.store import attempts, payment_states, restored
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace
from tests.meanwhile import Meanwhile
from tests.services.house import Clock
from tests.services.test_two_servers import shown


def restored_again(store: Store) -> None:
    store.run(lambda space: restored.mark(space.cursor, space.now_s))


def reconciled(store: Store) -> None:
    def work(space: Workspace) -> None:
        run_no = payment_states.begin_run(
            space.cursor, 0, space.now_s, fixes=True, now_s=space.now_s
        )
        payment_states.end_run(
            space.cursor, run_no, payments=0, differences=0, remaining=0, now_s=space.now_s
        )

    store.run(work)


def test_a_stop_of_all_stands_though_another_server_lifts_the_one_before(
    both: tuple[Guthaben, Guthaben], meanwhile: Meanwhile
) -> None:
    here, there = map(TopupStops, both)
    here.stop(None, reason="a test")
    meanwhile.at(attempts, "lift_stop", lambda: there.stop(None, reason="a fire"))
    assert here.resume(None)
    meanwhile.end()
    assert meanwhile.answers == [True]
    assert shown("SELECT practice_no, reason FROM credit_topup_stop") == [(0, "a fire")]


def test_of_two_stops_at_once_the_first_stands(
    both: tuple[Guthaben, Guthaben], meanwhile: Meanwhile
) -> None:
    here, there = map(TopupStops, both)
    meanwhile.at(attempts, "put_stop", lambda: there.stop(None, reason="later"))
    assert here.stop(None, reason="first")
    meanwhile.end()
    assert meanwhile.answers == [False]
    assert shown("SELECT reason FROM credit_topup_stop") == [("first",)]


@pytest.mark.parametrize("was_marked", [True, False])
def test_who_goes_on_does_not_lift_the_mark_of_a_backup_restored_in_this_moment(
    both: tuple[Guthaben, Guthaben],
    servers: tuple[Store, Store],
    clock: Clock,
    meanwhile: Meanwhile,
    was_marked: bool,
) -> None:
    (here, there), stops = servers, TopupStops(both[0])
    if was_marked:
        restored_again(there)
        clock.wait(60)
        reconciled(here)
        clock.wait(60)
    else:
        stops.stop(None, reason="a test")
    meanwhile.at(restored, "mark_of", lambda: restored_again(there))
    stops.resume(None)
    meanwhile.end()
    found = there.read(restored.mark_of)
    assert found is not None
    assert found.at_s == clock.at_s
    assert shown("SELECT reason FROM credit_topup_stop") == [(restored.REASON,)]
