"""Settings of the automatic top-up, its customer's consent, and finished set-ups."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import stripe

from aza_ai_credit import (
    AUTO_TOPUP_COOLDOWN_SEC,
    apply_auto_topup_user_settings,
    auto_topup_is_fully_configured,
    auto_topup_settings_status,
    get_topup_settings,
    maybe_run_auto_topup_for_practice,
    process_setup_checkout_completed,
    process_setup_intent_succeeded,
    save_topup_settings,
)
from guthaben.domain.auto_topup import COOLDOWN_S
from tests.modules.host import alarms, ledger, rows, save, setup_checkout, setup_intent


def switch(con: sqlite3.Connection, enabled: bool = True, **more: Any) -> dict[str, Any]:
    return apply_auto_topup_user_settings(con, practice_id="prac_top", enabled=enabled, **more)


def consents(con: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return con.execute(
        "SELECT source, text_version, amount_minor, cap_minor FROM credit_consent"
        " ORDER BY consent_no"
    ).fetchall()


def reason(con: sqlite3.Connection) -> str:
    told = maybe_run_auto_topup_for_practice(con, practice_id="prac_top", available_percent=0)
    return str(told["reason"])


# ---------------------------------------------------------------- storing


def test_settings_come_back_exactly_as_given(con: sqlite3.Connection) -> None:
    settings = save(
        con,
        topup_amount_chf=50.05,
        internal_credit_usd=16.6833,
        trigger_below_percent=7,
        monthly_limit_chf=123.45,
        stripe_customer_id=None,
        default_payment_method_id="pm_only",
    )
    assert get_topup_settings(con, "prac_top") == settings
    blank = replace(settings, auto_topup_enabled=False, default_payment_method_id=None)
    save_topup_settings(con, blank)
    assert get_topup_settings(con, "prac_top") == blank
    assert rows(con) == []


def test_a_practice_without_settings_has_the_defaults(con: sqlite3.Connection) -> None:
    settings = get_topup_settings(con, "prac_nobody")
    assert not settings.auto_topup_enabled
    assert (settings.topup_amount_chf, settings.internal_credit_usd) == (30.0, 10.0)
    assert (settings.trigger_below_percent, settings.monthly_limit_chf) == (5, 300.0)
    assert settings.stripe_customer_id is settings.default_payment_method_id is None
    assert con.execute("SELECT COUNT(*) FROM credit_practice").fetchone() == (0,)
    assert AUTO_TOPUP_COOLDOWN_SEC == COOLDOWN_S == 86_400


@pytest.mark.parametrize(
    "bad",
    [{"trigger_below_percent": 7.5}, {"trigger_below_percent": True}, {"topup_amount_chf": None},
     {"monthly_limit_chf": float("nan")}, {"trigger_below_percent": "7"}, {"practice_id": ""}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(
    con: sqlite3.Connection, bad: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        save(con, **bad)


def test_complete_means_customer_and_card(con: sqlite3.Connection) -> None:
    both = save(con)
    assert auto_topup_is_fully_configured(both)
    assert not auto_topup_is_fully_configured(replace(both, stripe_customer_id=None))
    assert not auto_topup_is_fully_configured(replace(both, default_payment_method_id=None))


def test_the_status_shows_no_id(con: sqlite3.Connection) -> None:
    save(con, default_payment_method_id="pm_secret123", stripe_customer_id="cus_secret")
    ledger(con, 10.0, event_type="auto_topup_purchase", amount_paid_chf=30.0)
    status = auto_topup_settings_status(con, practice_id="prac_top")
    assert status["ok"]
    assert status["auto_topup_enabled"]
    assert status["payment_method_configured"]
    assert status["spent_this_month_chf"] == 30.0
    assert "secret" not in json.dumps(status)
    assert "default_payment_method_id" not in status


def test_changes_are_audited_outside_the_ledger_without_ids(con: sqlite3.Connection) -> None:
    save(con, default_payment_method_id="pm_secret123")
    switch(con, False)
    audit = con.execute("SELECT action, detail FROM credit_settings_audit ORDER BY audit_no")
    found = audit.fetchall()
    assert [action for action, _ in found] == ["saved", "auto_topup_off"]
    assert "pm_" not in json.dumps(found)
    assert rows(con) == []


# ---------------------------------------------------------------- consent


def test_the_hosts_save_is_a_consent_to_amount_and_cap(con: sqlite3.Connection) -> None:
    save(con, auto_topup_enabled=False)
    assert consents(con) == []
    save(con)
    save(con)
    assert consents(con) == [("host", "", 3_000, 30_000)]
    save(con, topup_amount_chf=50.0)
    assert consents(con)[-1] == ("host", "", 5_000, 30_000)


def test_switching_off_and_on_again_rests_on_the_old_consent(con: sqlite3.Connection) -> None:
    save(con)
    assert switch(con, False)["auto_topup_enabled"] is False
    told = switch(con)
    assert told["ok"]
    assert told["auto_topup_enabled"] is True
    assert get_topup_settings(con, "prac_top").default_payment_method_id == "pm_top"


def test_without_a_consent_that_covers_it_nothing_is_switched_on(con: sqlite3.Connection) -> None:
    save(con, auto_topup_enabled=False)
    told = switch(con)
    assert (told["ok"], told["error_code"]) == (False, "AUTO_TOPUP_CONSENT_REQUIRED")
    assert "bestätigen" in told["message_user"]
    assert not get_topup_settings(con, "prac_top").auto_topup_enabled
    save(con)
    save(con, auto_topup_enabled=False, topup_amount_chf=60.0)
    assert switch(con)["error_code"] == "AUTO_TOPUP_CONSENT_REQUIRED"
    assert switch(con, monthly_limit_chf=400.0)["error_code"] == "AUTO_TOPUP_CONSENT_REQUIRED"
    only_the_cap = switch(con, topup_amount_chf=30.0, monthly_limit_chf=300.01)
    assert only_the_cap["error_code"] == "AUTO_TOPUP_CONSENT_REQUIRED"
    assert switch(con, topup_amount_chf=30.0)["ok"]


def test_the_customers_own_consent_names_text_and_amounts(con: sqlite3.Connection) -> None:
    save(con, auto_topup_enabled=False)
    assert switch(con, consent_text_version="v1")["error_code"] == "AUTO_TOPUP_CONSENT_REQUIRED"
    told = switch(
        con,
        consent_text_version="v1",
        topup_amount_chf=45.0,
        monthly_limit_chf=90.0,
        trigger_below_percent=20,
    )
    assert told["ok"]
    assert consents(con) == [("portal", "v1", 4_500, 9_000)]
    settings = get_topup_settings(con, "prac_top")
    assert (settings.topup_amount_chf, settings.internal_credit_usd) == (45.0, 15.0)
    assert (settings.monthly_limit_chf, settings.trigger_below_percent) == (90.0, 20)


def test_a_frozen_price_stays_unless_the_amount_changes(con: sqlite3.Connection) -> None:
    save(con, internal_credit_usd=20.0)
    switch(con, False)
    assert switch(con)["ok"]
    assert get_topup_settings(con, "prac_top").internal_credit_usd == 20.0


def test_without_a_card_nothing_is_switched_on(con: sqlite3.Connection) -> None:
    assert switch(con)["error_code"] == "AUTO_TOPUP_NO_PAYMENT_METHOD"
    save(con, stripe_customer_id=None)
    assert switch(con)["error_code"] == "AUTO_TOPUP_NO_PAYMENT_METHOD"


def test_a_cap_below_one_topup_is_refused(con: sqlite3.Connection) -> None:
    save(con)
    told = switch(con, monthly_limit_chf=10.0)
    assert told["error_code"] == "AUTO_TOPUP_INVALID_AMOUNT"
    assert get_topup_settings(con, "prac_top").monthly_limit_chf == 300.0


def test_switching_off_needs_nothing_and_changes_no_ledger(con: sqlite3.Connection) -> None:
    told = switch(con, False)
    assert (told["ok"], told["auto_topup_enabled"]) == (True, False)
    assert rows(con) == []


def test_no_charge_beyond_the_consent(con: sqlite3.Connection) -> None:
    save(con)
    con.execute("UPDATE credit_topup_settings SET amount_minor = 3001")
    con.commit()
    assert reason(con) == "no_consent"


# ---------------------------------------------------------------- a finished set-up


def test_a_complete_set_up_switches_on_with_the_defaults(con: sqlite3.Connection) -> None:
    told = process_setup_intent_succeeded(con, setup_intent=setup_intent())
    assert told["handled"]
    assert told["auto_topup_enabled"]
    settings = get_topup_settings(con, "prac_top")
    assert (settings.stripe_customer_id, settings.default_payment_method_id) == (
        "cus_new",
        "pm_new",
    )
    assert (settings.topup_amount_chf, settings.monthly_limit_chf) == (30.0, 300.0)
    assert consents(con) == [("setup_checkout", "setup_checkout", 3_000, 30_000)]
    assert rows(con) == []
    assert reason(con) == "dry_run"


def test_both_events_in_either_order_complete_one_set_up(con: sqlite3.Connection) -> None:
    # What Stripe really sends: the page names its set-up, and only the set-up names the card.
    first = process_setup_checkout_completed(con, session=setup_checkout())
    assert (first["reason"], first["auto_topup_enabled"]) == ("AUTO_TOPUP_SETUP_INCOMPLETE", False)
    assert get_topup_settings(con, "prac_top").stripe_customer_id == "cus_new"
    second = process_setup_intent_succeeded(con, setup_intent=setup_intent())
    assert second["auto_topup_enabled"]
    assert len(consents(con)) == 1


def test_the_later_event_wipes_nothing(con: sqlite3.Connection) -> None:
    process_setup_intent_succeeded(con, setup_intent=setup_intent())
    told = process_setup_checkout_completed(con, session=setup_checkout())
    assert told["auto_topup_enabled"]
    assert told["duplicate"]
    assert get_topup_settings(con, "prac_top").default_payment_method_id == "pm_new"
    assert len(consents(con)) == 1


def test_the_half_that_is_known_is_kept(con: sqlite3.Connection) -> None:
    told = process_setup_intent_succeeded(con, setup_intent=setup_intent(customer=None))
    assert (told["reason"], told["auto_topup_enabled"]) == ("AUTO_TOPUP_SETUP_INCOMPLETE", False)
    settings = get_topup_settings(con, "prac_top")
    assert (settings.stripe_customer_id, settings.default_payment_method_id) == (None, "pm_new")
    process_setup_checkout_completed(con, session=setup_checkout())
    assert get_topup_settings(con, "prac_top").auto_topup_enabled


def test_a_later_set_up_replaces_customer_and_card(con: sqlite3.Connection) -> None:
    save(con, stripe_customer_id="cus_old", default_payment_method_id="pm_old")
    told = process_setup_checkout_completed(
        con, session=setup_checkout(customer="cus_new", setup_intent="seti_1")
    )
    # A card belongs to its customer: the old one can't be charged for the new.
    assert told["reason"] == "AUTO_TOPUP_SETUP_INCOMPLETE"
    assert get_topup_settings(con, "prac_top").default_payment_method_id is None
    process_setup_intent_succeeded(con, setup_intent=setup_intent())
    settings = get_topup_settings(con, "prac_top")
    assert (settings.stripe_customer_id, settings.default_payment_method_id) == (
        "cus_new",
        "pm_new",
    )
    assert settings.auto_topup_enabled


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_of_two_set_ups_the_newer_card_counts_in_whichever_order_they_are_told(
    con: sqlite3.Connection, order: tuple[str, str]
) -> None:
    """An endpoint that was away for an hour gets what it missed in any order."""
    began = {"old": 1_800_000_000, "new": 1_800_000_600}
    for name in order:
        told = process_setup_intent_succeeded(
            con,
            setup_intent=setup_intent(
                id=f"seti_{name}", payment_method=f"pm_{name}", created=began[name]
            ),
        )
    expected = None if order == ("old", "new") else "older_card"
    assert (told["reason"], told["auto_topup_enabled"]) == (expected, True)

    assert get_topup_settings(con, "prac_top").default_payment_method_id == "pm_new"


def test_also_a_card_that_came_while_it_was_off_is_newer_than_an_old_one(
    con: sqlite3.Connection,
) -> None:
    process_setup_intent_succeeded(con, setup_intent=setup_intent())
    switch(con, enabled=False)
    began = int(time.time()) - 1_000  # both pages were opened before it was switched off
    for name, age_s in (("newer", 10), ("older", 500)):
        told = process_setup_intent_succeeded(
            con,
            setup_intent=setup_intent(
                id=f"seti_{name}", payment_method=f"pm_{name}", created=began - age_s
            ),
        )
    assert (told["reason"], told["auto_topup_enabled"]) == ("older_card", False)

    assert get_topup_settings(con, "prac_top").default_payment_method_id == "pm_newer"


def test_a_set_up_told_again_switches_nothing_back_on(con: sqlite3.Connection) -> None:
    process_setup_intent_succeeded(con, setup_intent=setup_intent())
    switch(con, False)
    for _ in range(2):
        told = process_setup_intent_succeeded(con, setup_intent=setup_intent())
        assert (told["handled"], told["duplicate"], told["auto_topup_enabled"]) == (
            True,
            True,
            False,
        )
    assert not get_topup_settings(con, "prac_top").auto_topup_enabled


def test_a_page_without_a_card_leaves_the_new_card_to_its_set_up(con: sqlite3.Connection) -> None:
    """What Stripe really sends when an expired card is replaced: the page first, then the card."""
    save(con, stripe_customer_id="cus_new", default_payment_method_id="pm_expired")
    told = process_setup_checkout_completed(con, session=setup_checkout())
    assert (told["reason"], told["auto_topup_enabled"]) == ("card_awaited", True)
    process_setup_intent_succeeded(con, setup_intent=setup_intent())
    assert get_topup_settings(con, "prac_top").default_payment_method_id == "pm_new"


@pytest.mark.parametrize("created", [{}, {"created": 1_700_000_000}])
def test_a_set_up_told_late_undoes_no_switch_off(
    con: sqlite3.Connection, created: dict[str, int]
) -> None:
    """The page names no set-up, so nothing but time and the page tell whose set-up this is."""
    process_setup_intent_succeeded(con, setup_intent=setup_intent(id="seti_0", customer=None))
    page = setup_checkout(setup_intent=None)
    assert process_setup_checkout_completed(con, session=page)["auto_topup_enabled"]
    switch(con, False)
    for _ in range(2):
        told = process_setup_intent_succeeded(con, setup_intent=setup_intent(**created))
        assert (told["reason"], told["auto_topup_enabled"]) == ("switched_off_since", False)
    settings = get_topup_settings(con, "prac_top")
    assert (settings.auto_topup_enabled, settings.default_payment_method_id) == (False, "pm_new")


def test_a_set_up_that_began_after_the_switch_off_switches_on(con: sqlite3.Connection) -> None:
    save(con)
    switch(con, False)
    began = int(time.time()) + 60
    told = process_setup_intent_succeeded(con, setup_intent=setup_intent(created=began))
    assert (told["reason"], told["auto_topup_enabled"]) == (None, True)


def test_the_hosts_own_switching_off_counts_too(con: sqlite3.Connection) -> None:
    save(con)
    save(con, auto_topup_enabled=False)
    told = process_setup_intent_succeeded(con, setup_intent=setup_intent(created=1_700_000_000))
    assert (told["reason"], told["auto_topup_enabled"]) == ("switched_off_since", False)


class _Card:
    id = "pm_object"


@pytest.mark.parametrize(
    "method",
    ["pm_object", {"id": "pm_object"}, _Card(), '{"id": "pm_object"}',
     stripe.StripeObject.construct_from({"id": "pm_object"}, None)],
)  # fmt: skip
def test_a_card_comes_in_any_shape(con: sqlite3.Connection, method: Any) -> None:
    session = setup_checkout(setup_intent={"id": "seti_1", "payment_method": method})
    assert process_setup_checkout_completed(con, session=session)["auto_topup_enabled"]
    assert get_topup_settings(con, "prac_top").default_payment_method_id == "pm_object"


@pytest.mark.parametrize(
    "changes",
    [{"metadata": {"aza_purpose": "ai_topup", "practice_id": "prac_top"}},
     {"metadata": {"aza_purpose": "ai_topup_setup"}}, {"metadata": None}, {"id": None}],
)  # fmt: skip
def test_a_set_up_that_is_not_ours_is_left_alone(
    con: sqlite3.Connection, changes: dict[str, Any]
) -> None:
    assert not process_setup_intent_succeeded(con, setup_intent=setup_intent(**changes))["handled"]
    assert not process_setup_checkout_completed(con, session=setup_checkout(**changes))["handled"]
    assert con.execute("SELECT COUNT(*) FROM credit_topup_settings").fetchone() == (0,)


def test_a_set_up_that_did_not_succeed_stores_nothing(con: sqlite3.Connection) -> None:
    told = process_setup_intent_succeeded(con, setup_intent=setup_intent(status="canceled"))
    assert (told["handled"], told["reason"]) == (True, "setup_not_complete")
    assert get_topup_settings(con, "prac_top").stripe_customer_id is None


@pytest.mark.usefixtures("live")
def test_a_test_mode_set_up_is_kept_out_and_asks_nobody(con: sqlite3.Connection) -> None:
    with patch("stripe.SetupIntent.retrieve") as asked:
        told = process_setup_intent_succeeded(con, setup_intent=setup_intent(livemode=False))
    asked.assert_not_called()
    assert (told["handled"], told["reason"]) == (True, "livemode_mismatch")
    assert get_topup_settings(con, "prac_top").stripe_customer_id is None
    assert alarms(con) == ["setup_livemode_mismatch"]


def test_a_set_up_of_another_installation_is_not_ours(con: sqlite3.Connection) -> None:
    """Its practices may be called like ours: nobody's card must be charged for them."""
    named = {**setup_intent()["metadata"], "installation": "bern"}
    told = process_setup_intent_succeeded(con, setup_intent=setup_intent(metadata=named))
    assert (told["handled"], told.get("auto_topup_enabled", False)) == (False, False)
