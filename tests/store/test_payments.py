"""Money in the store: a payment credits once for ever, an attempt is claimed once at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guthaben.domain.auto_topup import COOLDOWN_S
from guthaben.domain.commands import (
    Adjust,
    ClaimTopup,
    CloseEvent,
    Command,
    Fulfil,
    GrantCredit,
    NetPayment,
    OpenEvent,
    Outcome,
    RecordUsage,
    Reserve,
    SetLicense,
    SetPolicy,
)
from guthaben.domain.grants import PAID
from guthaben.domain.topup import PENDING, TOPUP_PURCHASE, CreditEvent
from guthaben.store import settings
from guthaben.store.settings import ConsentRow, TopupSettingsRow
from guthaben.store.store import Store
from guthaben.store.workspace import EventNote, Workspace
from tests.store.bank import T0_S, Clock, free, pay, problems, rows, url

BOUGHT = CreditEvent(0, TOPUP_PURCHASE, PENDING, 100, 3000, livemode=True)


def opened(store: Store, practice_id: str = "p", **changes: Any) -> int:
    told = store.execute(practice_id, OpenEvent(BOUGHT._replace(**changes)))
    assert told.event is not None
    return told.event.event_no


def together(store: Store, work: list[tuple[str, Command]]) -> list[Outcome]:
    """Apply commands in one transaction."""
    return store.run(lambda space: [space.apply(name, command) for name, command in work])


# ---- once, for ever


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Fulfil(1, "pi_1"), Fulfil(2, "pi_1")),
        (Fulfil(1, "", "cs_1"), Fulfil(2, "", "cs_1")),
        (Fulfil(1, "pi_1", "cs_1"), Fulfil(2, "", "cs_1")),
        (Fulfil(1, "pi_1", "cs_1"), Fulfil(2, "pi_1", "cs_2")),
        (Fulfil(1, "pi_1", "cs_1"), Fulfil(2, "pi_2", "cs_1")),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("other", ["p", "q"])
def test_a_payment_credits_once_under_whichever_of_its_names(
    store: Store, first: Fulfil, second: Fulfil, at_once: bool, other: str
) -> None:
    for _ in range(2):
        opened(store)
        opened(store, other)
    work: list[tuple[str, Command]] = [("p", first), (other, second)]
    told = together(store, work) if at_once else [store.execute(*one) for one in work]
    assert [(one.ok, one.applied) for one in told] == [(True, True), (True, False)]
    assert free(store, "p") + free(store, other) * (other != "p") == 100
    assert problems(store) == []


@pytest.mark.parametrize("payment_id", ["pi_1", "pi_2", ""])
def test_a_purchase_is_fulfilled_once(store: Store, payment_id: str) -> None:
    opened(store)
    assert store.execute("p", Fulfil(1, "pi_1")).applied
    assert not store.execute("p", Fulfil(1, payment_id)).applied
    assert free(store, "p") == 100


def test_an_alias_that_was_heard_later_is_known_for_ever(store: Store) -> None:
    """The session comes with the payment at last; then the session alone is told again."""
    for _ in range(3):
        opened(store)
    assert store.execute("p", Fulfil(1, "pi_1")).applied
    assert not store.execute("p", Fulfil(2, "pi_1", "cs_1")).applied
    assert not store.execute("p", Fulfil(3, "", "cs_1")).applied
    assert free(store, "p") == 100


def test_different_payments_credit_apart(store: Store) -> None:
    for number in (1, 2):
        opened(store)
        assert store.execute("p", Fulfil(number, f"pi_{number}", f"cs_{number}")).applied
    assert free(store, "p") == 200
    registered = rows(store, "SELECT kind, ref, event_no FROM credit_payment ORDER BY ref")
    assert registered == [
        ("session", "cs_1", 1), ("session", "cs_2", 2), ("payment", "pi_1", 1),
        ("payment", "pi_2", 2),
    ]  # fmt: skip


def test_once_also_after_a_restart(store: Store, path: Path, clock: Clock) -> None:
    opened(store)
    opened(store)
    assert store.execute("p", Fulfil(1, "pi_1")).applied
    store.close()
    again = Store(url(path), clock_ms=clock)
    assert not again.execute("p", Fulfil(2, "pi_1")).applied
    assert again.execute("p", Fulfil(1, "pi_1")).ok
    assert free(again, "p") == 100
    again.close()


def test_a_gift_is_given_once_after_a_restart(store: Store, path: Path, clock: Clock) -> None:
    pay(store, "p", 100, "gift")
    assert store.execute("p", Adjust("down", -5, PAID)).applied
    store.close()
    again = Store(url(path), clock_ms=clock)
    assert again.execute("p", GrantCredit("gift", PAID, 100)).replayed
    assert again.execute("p", GrantCredit("gift", PAID, 1)).reason == "idempotency_conflict"
    assert again.execute("p", Adjust("down", -5, PAID)).replayed
    assert free(again, "p") == 95
    again.close()


def test_a_refund_finds_a_grant_that_was_used_up_long_ago(store: Store) -> None:
    opened(store)
    store.execute("p", Fulfil(1, "pi_1"))
    store.execute("p", RecordUsage("u", 100))
    pay(store, "p", 30)
    assert store.execute("p", NetPayment(1, 0)).applied
    assert (free(store, "p"), problems(store)) == (0, [])
    sql = "SELECT debt_nano_usd FROM credit_practice"
    assert rows(store, sql) == [(70,)]
    assert store.execute("p", NetPayment(1, 3000)).applied
    assert (free(store, "p"), rows(store, sql)) == (30, [(0,)])
    assert problems(store) == []


def test_what_people_wrote_lies_apart_and_can_be_erased(store: Store) -> None:
    note = EventNote("a@example.com", "ops", "a gift", None)
    store.execute("p", GrantCredit("g", PAID, 1))
    store.execute("p", OpenEvent(BOUGHT), note)
    assert rows(store, "SELECT customer_email, author, note FROM credit_note") == [
        ("a@example.com", "ops", "a gift")
    ]
    store.run(lambda space: space.cursor.execute("DELETE FROM credit_note"))
    assert problems(store) == []


# ---- claims


SETTINGS = TopupSettingsRow(True, customer_id="cus_1", payment_method_id="pm_1")
CONSENT = ConsentRow("portal", "v1", "de", "user", 3_000, 5, 0, 30_000, T0_S)


@pytest.fixture
def claims() -> list[tuple[str, Outcome]]:
    return []


@pytest.fixture
def armed(path: Path, clock: Clock, claims: list[tuple[str, Outcome]]) -> Any:
    """A practice with a licence of 1000, 4 % of it left, and the automatic top-up switched on."""
    store = Store(url(path), clock_ms=clock, on_claim=lambda *claim: claims.append(claim))
    store.execute("p", SetLicense("L", True, T0_S, T0_S + 10**8, 1000))
    store.execute("p", RecordUsage("u", 940))
    store.run(switch_on)
    yield store
    store.close()


def switch_on(space: Workspace) -> None:
    number = space.practice_no("p")
    settings.save_settings(space.cursor, number, 1, SETTINGS, T0_S)
    settings.add_consent(space.cursor, number, CONSENT)


def attempts(store: Store) -> list[Any]:
    sql = (
        "SELECT status, price_minor, cap_month FROM credit_event"
        " WHERE event_type = 'auto_topup_purchase' ORDER BY event_no"
    )
    return rows(store, sql)


def test_a_low_balance_claims_one_attempt_with_the_command_that_saw_it(
    armed: Store, claims: list[tuple[str, Outcome]]
) -> None:
    armed.execute("p", Reserve("a", 10))  # 50 left are not below 5 %
    assert claims == []
    armed.execute("p", Reserve("b", 1))
    assert attempts(armed) == [("pending", 3_000, "2023-11")]
    [(practice_id, outcome)] = claims
    assert practice_id == "p"
    assert outcome.event is not None
    assert outcome.event.topup_id.startswith("tu_")


def test_a_refused_call_claims_too(armed: Store, claims: list[Any]) -> None:
    assert armed.execute("p", Reserve("much", 500)).reason == "insufficient_credit"
    assert len(claims) == 1


def test_a_batch_of_low_calls_claims_once(armed: Store, claims: list[Any]) -> None:
    for n in range(30):
        armed.execute("p", Reserve(f"k{n}", 2))
    assert len(claims) == 1
    assert len(attempts(armed)) == 1


def claim(store: Store) -> str:
    (known,) = rows(store, "SELECT COUNT(*) FROM credit_event")[0]
    told = store.execute("p", ClaimTopup(f"tu_{known}", shortfall=True))
    return "charge" if told.applied else told.reason


def test_one_in_flight_a_cooldown_and_a_cap(armed: Store, clock: Clock) -> None:
    assert claim(armed) == "charge"
    assert claim(armed) == "pending_auto_topup"
    armed.execute("p", CloseEvent(attempts_no(armed), "unknown"))
    assert claim(armed) == "pending_auto_topup"
    armed.execute("p", Fulfil(attempts_no(armed), "pi_1"))
    assert claim(armed) == "cooldown_24h"
    clock.wait(COOLDOWN_S * 1000)
    assert claim(armed) == "charge"
    armed.execute("p", CloseEvent(attempts_no(armed), "failed", "failed_auto_topup"))
    assert claim(armed) == "charge"  # a failure neither counts nor cools down


def attempts_no(store: Store) -> int:
    sql = "SELECT MAX(event_no) FROM credit_event WHERE event_type = 'auto_topup_purchase'"
    return int(rows(store, sql)[0][0])


@pytest.mark.parametrize(
    "status", ["pending", "unknown", "succeeded", "quarantined", "failed", "canceled"]
)
def test_the_cap_counts_what_is_paid_or_may_yet_be(armed: Store, clock: Clock, status: str) -> None:
    def lower_the_cap(space: Workspace) -> None:
        row = SETTINGS._replace(cap_rappen=3_000, cooldown_s=0)
        settings.save_settings(space.cursor, space.practice_no("p"), 1, row, T0_S)

    armed.run(lower_the_cap)
    assert claim(armed) == "charge"
    number = attempts_no(armed)
    if status == "succeeded":
        armed.execute("p", Fulfil(number, "pi_1"))
    elif status != "pending":
        armed.execute("p", CloseEvent(number, status))
    counts = status in {"pending", "unknown", "succeeded", "quarantined"}
    assert claim(armed) == ("auto_topup_monthly_limit_reached" if counts else "charge")


def test_the_caps_month_is_zurichs_and_fixed_when_claimed(armed: Store, clock: Clock) -> None:
    def lower_the_cap(space: Workspace) -> None:
        row = SETTINGS._replace(cap_rappen=3_000, cooldown_s=0)
        settings.save_settings(space.cursor, space.practice_no("p"), 1, row, T0_S)

    armed.run(lower_the_cap)
    clock.now_ms = 1_701_385_199_999  # the last moment of November in Zurich
    assert claim(armed) == "charge"
    number = attempts_no(armed)
    clock.wait(1)  # still November in UTC
    armed.execute("p", Fulfil(number, "pi_1"))
    assert claim(armed) == "charge"
    assert [month for *_, month in attempts(armed)] == ["2023-11", "2023-12"]


def test_without_consent_nothing_is_charged(armed: Store) -> None:
    armed.run(lambda space: settings.revoke_consents(space.cursor, space.practice_no("p"), T0_S))
    assert claim(armed) == "no_consent"


def test_switched_off_or_frozen_nothing_is_charged(armed: Store) -> None:
    armed.execute("p", SetPolicy(status=2))
    assert claim(armed) == "practice_not_active"
    armed.execute("p", SetPolicy(status=1))

    def switch_off(space: Workspace) -> None:
        row = SETTINGS._replace(enabled=False)
        settings.save_settings(space.cursor, space.practice_no("p"), 1, row, T0_S)

    armed.run(switch_off)
    assert claim(armed) == "disabled"
    assert claim_of_nobody(armed) == "disabled"


def claim_of_nobody(store: Store) -> str:
    return store.execute("stranger", ClaimTopup("tu_x", shortfall=True)).reason


def test_a_claim_that_nobody_takes_up_is_still_written_down(
    path: Path, clock: Clock, armed: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_practice_id: str, _outcome: Outcome) -> None:
        raise LookupError("nobody here")

    other = Store(url(path), clock_ms=clock, on_claim=broken)
    with caplog.at_level(1000, logger="guthaben.writer"):
        assert other.execute("p", Reserve("much", 500)).reason == "insufficient_credit"
    assert len(attempts(armed)) == 1
    assert other.execute("p", Reserve("a", 1)).applied
    other.close()
