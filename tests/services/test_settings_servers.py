"""What two servers change at once is changed by both, one after the other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from guthaben.services import charging
from guthaben.services.cards import Card, save_card
from guthaben.services.guthaben import Guthaben
from guthaben.services.licence_news import LicenceNews
from guthaben.services.plans import PlanBook
from guthaben.services.topups import AutoTopupChange, Topups
from guthaben.services.webhooks import Inbox
from guthaben.store import attempts, inbox, plans, prices, settings
from guthaben.store.store import Store
from tests.meanwhile import Meanwhile
from tests.services.fakes import FakeGateway
from tests.services.house import NOON, PRACTICE, SECRET, SUCCEEDED, USD, Clock, sign
from tests.services.test_licences import subscription
from tests.services.test_two_servers import shown

ON = AutoTopupChange(True, trigger_below_nano_usd=USD, consent_text_version="2026-11")


def keep_card(store: Store, card: str) -> None:
    store.run(lambda space: save_card(space, PRACTICE, Card("cus_1", card, None)))


def test_a_card_saved_while_the_automatic_top_up_is_switched_on_is_not_lost(
    both: tuple[Guthaben, Guthaben],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
) -> None:
    here, there = (each.core.store for each in both)
    keep_card(here, "pm_1")
    meanwhile.at(settings, "load_settings", lambda: keep_card(there, "pm_2"))
    Topups(both[0], gateway).change_settings(PRACTICE, ON)
    meanwhile.end()
    row = here.read(lambda cur: settings.load_settings(cur, 1, 1))
    assert row is not None
    assert (row.enabled, row.payment_method_id) == (True, "pm_2")


def test_two_changes_in_one_millisecond_are_told_both(
    both: tuple[Guthaben, Guthaben], gateway: FakeGateway
) -> None:
    here, there = (Topups(each, gateway) for each in both)
    keep_card(both[0].core.store, "pm_1")
    here.change_settings(PRACTICE, ON)
    there.change_settings(PRACTICE, replace(ON, cap_rappen=100_000))
    assert len(shown("SELECT key FROM credit_notice WHERE kind = 'consent_changed'")) == 2


def test_of_two_servers_that_claim_one_attempt_is_made(
    both: tuple[Guthaben, Guthaben],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
) -> None:
    here, there = (each.core.store for each in both)
    keep_card(here, "pm_1")
    Topups(both[0], gateway).change_settings(PRACTICE, ON)
    meanwhile.at(attempts, "with_tries", lambda: charging.claim(there.run, PRACTICE))
    assert charging.claim(here.run, PRACTICE).applied
    meanwhile.end()
    assert [answer.reason for answer in meanwhile.answers] == ["pending_auto_topup"]


def test_an_event_that_two_servers_receive_is_stored_once(
    both: tuple[Guthaben, Guthaben],
    gateway: FakeGateway,
    clock: Clock,
    meanwhile: Meanwhile,
) -> None:
    here, there = (
        Inbox(each, gateway, secrets=lambda: (SECRET,), livemode_expected=True) for each in both
    )
    body = json.dumps(
        {"id": "evt_1", "object": "event", "type": SUCCEEDED, "created": clock.at_s,
         "livemode": True, "data": {"object": {"id": "pi_1", "object": "payment_intent"}}}
    ).encode()  # fmt: skip
    signed = sign(body, clock.at_s)
    meanwhile.at(inbox, "store", lambda: there.receive(body, signed))
    assert here.receive(body, signed)
    meanwhile.end()
    assert meanwhile.answers == [False]


def test_prices_that_two_servers_set_count_both(
    both: tuple[Guthaben, Guthaben], meanwhile: Meanwhile
) -> None:
    here, there = (each.core.prices for each in both)
    meanwhile.at(
        prices, "newest_version",
        lambda: there.set_rates("ours-b", {"input_mtok": "2"}, provider="ours"),
    )  # fmt: skip
    here.set_rates("ours-a", {"input_mtok": "1"}, provider="ours")
    meanwhile.end()
    _imported, own = here.sheets()
    assert sorted(model["model"] for model in own["models"]) == ["ours-a", "ours-b"]
    assert shown("SELECT version_no FROM credit_price_version ORDER BY 1") == [(1,), (2,)]


def test_of_two_first_entries_of_a_plan_one_counts_for_every_period(
    both: tuple[Guthaben, Guthaben], meanwhile: Meanwhile
) -> None:
    here, there = (PlanBook(each.core) for each in both)
    meanwhile.at(plans, "plan_versions", lambda: there.set("basic", 50 * USD))
    here.set("basic", 20 * USD)
    meanwhile.end()
    found = shown("SELECT plan_no, from_s, allowance_nano_usd FROM credit_plan ORDER BY 1")
    assert found == [(1, 0, 50 * USD), (2, NOON, 20 * USD)]


def test_a_plan_that_two_servers_set_is_what_the_last_one_says(
    both: tuple[Guthaben, Guthaben],
    gateway: FakeGateway,
    meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = (PlanBook(each.core) for each in both)
    here.set("basic", 20 * USD)
    gateway.subscriptions["sub_1"] = subscription("basic")
    LicenceNews(both[0].core.store, gateway).ask("sub_1")
    # The second reading of the plans is that of the retelling.
    meanwhile.at(plans, "plan_versions", lambda: there.set("basic", 50 * USD, from_s=0), nth=2)
    here.set("basic", 30 * USD, from_s=0)
    meanwhile.end()
    monkeypatch.undo()
    assert shown("SELECT allowance_nano_usd FROM credit_subscription") == [(50 * USD,)]
