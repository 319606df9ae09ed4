"""Retention: what is personal is erased once it was applied; what decides about once stays."""

from __future__ import annotations

from typing import Any

import pytest

from guthaben.domain.caps import Cap
from guthaben.errors import ConfigError, Refused
from guthaben.services.jobs import Job, Runner
from guthaben.services.letters import Letters
from guthaben.services.retention import COUNTER_DAYS, DAY_S, Forgotten, Retention
from guthaben.store import caps
from tests.services.house import (
    COMPLETED,
    INTENT,
    PRACTICE,
    SUCCEEDED,
    TEN_USD,
    House,
    metadata_of,
    page_of,
)


def forget(house: House, days: int = 90) -> Forgotten:
    """Let one turn run as the server does."""
    done: list[Forgotten] = []
    job = Job("retention", DAY_S, lambda turn: done.append(Retention(days).run(turn)))
    Runner(house.store, [job]).work_once(everything=True)
    return done[0]


def letters(house: House) -> list[tuple[str, int, int]]:
    rows = house.rows("SELECT * FROM credit_inbox ORDER BY received_at_s, provider_event_id")
    return [(row["status"], len(bytes(row["payload"])), row["erased_at_s"]) for row in rows]


@pytest.fixture
def paid(house: House) -> House:
    """A purchase that was paid and credited."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    assert house.tell(COMPLETED, page_of()) == "done:credited"
    return house


def test_content_is_erased_after_its_days_and_the_id_stays(paid: House) -> None:
    event_id = paid.rows("SELECT provider_event_id FROM credit_inbox")[0]["provider_event_id"]
    paid.clock.wait(90 * DAY_S)
    assert forget(paid).events == 0
    assert Letters(paid.store).payload(event_id)["id"] == event_id
    paid.clock.wait(1)
    assert forget(paid).events == 1
    assert letters(paid) == [("done", 0, paid.clock.at_s)]
    with pytest.raises(Refused) as caught:
        Letters(paid.store).payload(event_id)
    assert caught.value.reason == "event_erased"
    paid.clock.wait(10 * DAY_S)
    assert forget(paid).events == 0, "once"


def test_an_erased_event_that_is_told_again_credits_nothing(paid: House) -> None:
    event = paid.envelope(SUCCEEDED, INTENT)
    paid.post(event)
    paid.inbox.work_once()
    paid.clock.wait(91 * DAY_S)
    assert forget(paid).events == 2
    paid.post(event)
    assert paid.inbox.work_once() == 0
    assert paid.credit() == TEN_USD


@pytest.mark.parametrize("status", ["new", "dead", "quarantined"])
def test_what_waits_for_somebody_is_kept(paid: House, status: str) -> None:
    paid.change(f"UPDATE credit_inbox SET status = '{status}', done_at_s = 1")
    paid.clock.wait(4_000 * DAY_S)
    assert forget(paid).events == 0
    assert letters(paid)[0][1] > 0


def test_zero_keeps_for_ever(paid: House) -> None:
    paid.clock.wait(4_000 * DAY_S)
    assert forget(paid, 0).events == 0


def test_many_are_erased_in_one_turn(paid: House) -> None:
    paid.change(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)"
        " INSERT INTO credit_inbox (provider, livemode, provider_event_id, event_type, payload,"
        " received_at_s, status, done_at_s) SELECT 'stripe', 1, 'evt_old_' || i, 'x', ?, 1,"
        " 'ignored', 1 FROM n",
        b"{}",
    )
    assert forget(paid).events == 1_200


def test_counters_of_past_windows_are_forgotten_and_those_that_count_stay(house: House) -> None:
    services_caps = Cap("device:d", day_nano_usd=TEN_USD, month_nano_usd=TEN_USD)
    house.run(
        lambda space: caps.put(
            space.cursor, space.practice_no(PRACTICE), services_caps, space.now_s
        )
    )
    house.guthaben.grant(PRACTICE, TEN_USD, key="g")
    house.guthaben.record_usage(PRACTICE, 7, key="old", device_id="d")
    house.clock.wait((COUNTER_DAYS + 1) * DAY_S)
    house.guthaben.record_usage(PRACTICE, 5, key="new", device_id="d")
    before = windows(house)
    assert len(before) == 4
    assert forget(house).counters == 1, "the old day; its month stays for a year"
    assert [used for _window, used in windows(house)] == [7, 5, 5]
    house.clock.wait(500 * DAY_S)
    assert forget(house).counters == 3
    assert windows(house) == []


def windows(house: House) -> list[tuple[Any, ...]]:
    rows = house.rows('SELECT "window" AS w, used_nano_usd AS used FROM credit_cap_counter')
    return sorted((row["w"], row["used"]) for row in rows)


def test_deliveries_are_forgotten_and_what_was_told_is_not_told_again(paid: House) -> None:
    paid.change(
        "INSERT INTO credit_delivery (practice_no, notice_id, channel, target_id, owner_no, status,"
        " next_try_at_s, created_at_s, done_at_s) SELECT practice_no, notice_id, 'email', s, 0, s,"
        " 0, 0, 5 FROM credit_notice, (SELECT 'delivered' AS s UNION SELECT 'dead') AS two"
        " WHERE kind = 'topped_up'"
    )
    told = paid.rows("SELECT * FROM credit_notice")
    paid.clock.wait(500 * DAY_S)
    assert forget(paid).deliveries == 1
    assert [row["status"] for row in paid.rows("SELECT * FROM credit_delivery")] == ["dead"]
    assert paid.rows("SELECT * FROM credit_notice") == told


@pytest.mark.parametrize(("given", "days"), [("", 90), ("0", 0), ("7", 7), ("3650", 3_650)])
def test_the_setting(monkeypatch: pytest.MonkeyPatch, given: str, days: int) -> None:
    monkeypatch.setenv("GUTHABEN_KEEP_EVENTS_DAYS", given)
    assert Retention.from_environment().event_days == days


@pytest.mark.parametrize("given", ["6", "3651", "-1", "ninety", "9\u0661", "1e2", "0009012345"])
def test_a_setting_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("GUTHABEN_KEEP_EVENTS_DAYS", given)
    with pytest.raises(ConfigError, match="KEEP_EVENTS_DAYS"):
        Retention.from_environment()
