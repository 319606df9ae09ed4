"""Only the customer's own consent switches the automatic top-up on, and it says how far it goes.

A saved card enables nothing; switching off acts at once; nobody sees another practice's settings.
"""

from __future__ import annotations

from typing import Any

import pytest

from guthaben.errors import InvalidInput, PaymentUnavailable, Refused
from guthaben.services.topups import AutoTopupChange
from tests.services.house import OTHER, PRACTICE, USD, House

PAGES: dict[str, Any] = {
    "success_url": "https://app.example/ok",
    "cancel_url": "https://app.example/back",
}
TEXT = "2026-11"


@pytest.fixture
def saved(house: House) -> House:
    """A card is saved; nothing is switched on."""
    house.save_card()
    return house


def change(house: House, practice_id: str = PRACTICE, **fields: Any) -> Any:
    """Change the settings as the customer does."""
    return house.topups.change_settings(practice_id, AutoTopupChange(**{"enabled": True, **fields}))


def refusal(house: House, **fields: Any) -> str:
    """Change the settings, which must be refused and change nothing."""
    before = house.topups.settings(PRACTICE)
    with pytest.raises(Refused) as caught:
        change(house, **fields)
    assert house.topups.settings(PRACTICE) == before
    return caught.value.reason


def consents(house: House) -> list[tuple[Any, ...]]:
    """Consents that stand: version, amount, cap, trigger."""
    rows = house.rows("SELECT * FROM credit_consent WHERE revoked_at_s = 0 ORDER BY consent_no")
    return [
        (row["text_version"], row["amount_minor"], row["cap_minor"], row["trigger_percent"])
        for row in rows
    ]


# ---------------------------------------------------------------- switching on


def test_it_is_off_until_somebody_switches_it_on(house: House) -> None:
    view = house.topups.settings(PRACTICE)
    assert (view.enabled, view.card_saved, view.amount_rappen, view.cap_rappen) == (
        False, False, 3_000, 30_000,
    )  # fmt: skip
    assert (view.credit_nano_usd, view.trigger_percent, view.cooldown_s) == (10 * USD, 5, 86_400)


def test_switching_on_needs_a_saved_card(house: House) -> None:
    assert refusal(house, consent_text_version=TEXT) == "no_payment_method"
    assert consents(house) == []


def test_switching_on_needs_the_text_that_was_agreed_to(saved: House) -> None:
    assert refusal(saved) == "consent_required"
    assert saved.why_not() == "disabled"


def test_a_consent_holds_what_was_agreed_to_and_when_and_by_whom(saved: House) -> None:
    change(
        saved, consent_text_version=TEXT, language="fr", actor="user_7", amount_rappen=5_000,
        cap_rappen=20_000, trigger_percent=10, trigger_below_nano_usd=USD,
    )  # fmt: skip
    (row,) = saved.rows("SELECT * FROM credit_consent")
    told = {name: row[name] for name in row if name not in ("practice_no", "consent_no")}
    assert told == {
        "source": "portal", "text_version": TEXT, "language": "fr", "actor": "user_7",
        "amount_minor": 5_000, "currency": "chf", "trigger_percent": 10,
        "trigger_below_nano_usd": USD, "cap_minor": 20_000, "given_at_s": saved.clock.at_s,
        "revoked_at_s": 0, "largest_minor": 0,
    }  # fmt: skip
    (audit,) = saved.rows("SELECT * FROM credit_settings_audit")
    assert (audit["action"], audit["actor"]) == ("auto_topup_on", "user_7")


def test_the_credit_of_a_charge_is_frozen_with_its_price(saved: House) -> None:
    view = change(saved, consent_text_version=TEXT, amount_rappen=5_000)
    assert view.credit_nano_usd == 16_666_700_000


ON: dict[str, Any] = {"amount_rappen": 3_000, "cap_rappen": 30_000}
ASKS_AGAIN = {
    "a higher amount": {"amount_rappen": 3_001},
    "a higher cap": {"cap_rappen": 30_001},
    "both": {"amount_rappen": 6_000, "cap_rappen": 60_000},
    "a higher amount, a lower cap": {"amount_rappen": 3_001, "cap_rappen": 20_000},
    "a lower amount, a higher cap": {"amount_rappen": 1_000, "cap_rappen": 30_001},
}
ASKS_NOTHING = {
    "the same": {},
    "a lower amount": {"amount_rappen": 1_000},
    "a lower cap": {"cap_rappen": 3_000},
    "a lower trigger": {"trigger_percent": 1},
}


@pytest.mark.parametrize("fields", ASKS_AGAIN.values(), ids=ASKS_AGAIN)
def test_raising_amount_or_cap_asks_again(saved: House, fields: dict[str, Any]) -> None:
    change(saved, consent_text_version=TEXT, **ON)
    assert refusal(saved, **{**ON, **fields}) == "consent_required"
    change(saved, consent_text_version="2027-01", **{**ON, **fields})
    (standing,) = consents(saved)
    assert standing[0] == "2027-01"
    assert len(saved.rows("SELECT * FROM credit_consent")) == 2  # the old one is kept, revoked


@pytest.mark.parametrize("fields", ASKS_NOTHING.values(), ids=ASKS_NOTHING)
def test_staying_within_the_consent_asks_nothing(saved: House, fields: dict[str, Any]) -> None:
    change(saved, consent_text_version=TEXT, **ON)
    assert change(saved, **{**ON, **fields}).enabled is True
    assert len(consents(saved)) == 1


HIGH: dict[str, Any] = {
    "amount_rappen": 3_000, "cap_rappen": 30_000, "trigger_percent": 20,
    "trigger_below_nano_usd": USD,
}  # fmt: skip
LOW: dict[str, Any] = {
    "amount_rappen": 1_000, "cap_rappen": 10_000, "trigger_percent": 5,
    "trigger_below_nano_usd": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", HIGH)
def test_lowering_and_raising_again_asks_again(saved: House, name: str) -> None:
    change(saved, consent_text_version=TEXT, **HIGH)
    change(saved, **LOW)
    assert refusal(saved, **{**LOW, name: HIGH[name]}) == "consent_required"
    assert change(saved, **LOW).enabled is True


def test_switching_on_again_needs_the_text_again(saved: House) -> None:
    change(saved, consent_text_version=TEXT, **ON)
    change(saved, enabled=False)
    assert refusal(saved, **ON) == "consent_required"


def test_amounts_raised_while_it_is_off_need_a_consent_when_it_goes_on(saved: House) -> None:
    change(saved, consent_text_version=TEXT, **ON)
    change(saved, enabled=False, amount_rappen=500_000, cap_rappen=5_000_000)
    assert refusal(saved, amount_rappen=500_000, cap_rappen=5_000_000) == "consent_required"


def test_a_consent_that_was_withdrawn_covers_nothing(saved: House) -> None:
    change(saved, consent_text_version=TEXT, **ON)
    saved.change("UPDATE credit_consent SET revoked_at_s = 1")
    assert refusal(saved, **ON) == "consent_required"


# ---------------------------------------------------------------- switching off


def test_switching_off_acts_before_the_next_attempt(saved: House) -> None:
    change(saved, consent_text_version=TEXT, trigger_below_nano_usd=USD)
    assert change(saved, enabled=False).enabled is False
    assert saved.why_not() == "disabled"
    with pytest.raises(Refused):
        saved.guthaben.reserve(PRACTICE, USD, key="k")
    assert saved.claims == []


def test_switching_off_needs_nothing(house: House) -> None:
    assert change(house, enabled=False).enabled is False
    assert [row["action"] for row in house.rows("SELECT * FROM credit_settings_audit")] == [
        "auto_topup_off"
    ]


# ---------------------------------------------------------------- a card is no consent


def set_up(house: House, practice_id: str = PRACTICE, **facts: Any) -> str:
    """Tell of a finished set-up."""
    about = {
        "id": "seti_1", "object": "setup_intent", "status": "succeeded", "customer": "cus_9",
        "payment_method": "pm_9", "livemode": True,
        "metadata": {"aza_purpose": "ai_topup_setup", "practice_id": practice_id}, **facts,
    }  # fmt: skip
    return house.tell("setup_intent.succeeded", about)


def test_a_card_saved_by_a_set_up_enables_nothing(house: House) -> None:
    assert set_up(house) == "done:"
    view = house.topups.settings(PRACTICE)
    assert (view.card_saved, view.enabled) == (True, False)
    assert (consents(house), house.why_not()) == ([], "disabled")


def test_a_new_card_keeps_the_settings_as_they_are(saved: House) -> None:
    before = change(saved, consent_text_version=TEXT, amount_rappen=5_000)
    set_up(saved)
    assert saved.topups.settings(PRACTICE) == before
    (row,) = saved.rows("SELECT customer_id, payment_method_id FROM credit_provider_customer")
    assert tuple(row.values()) == ("cus_9", "pm_9")


def test_a_new_card_does_not_end_a_pause(saved: House) -> None:
    saved.arm()
    saved.change("UPDATE credit_topup_settings SET enabled = 0, paused_reason = 'lost_card'")
    set_up(saved)
    view = saved.topups.settings(PRACTICE)
    assert (view.enabled, view.paused_reason) == (False, "lost_card")


@pytest.mark.parametrize(("facts", "told"), [
    ({"customer": None}, "quarantined:setup_incomplete"),
    ({"payment_method": None}, "quarantined:setup_incomplete"),
    ({"status": "requires_payment_method"}, "done:setup_requires_payment_method"),
    ({"status": "canceled"}, "done:setup_canceled"),
    ({"metadata": {}}, "ignored:not_ours"),
    ({"metadata": {"aza_purpose": "ai_topup_setup"}}, "ignored:not_ours"),
    ({"metadata": {"aza_purpose": "ai_topup", "practice_id": PRACTICE}}, "ignored:not_ours"),
    ({"payment_method": {"id": "pm_9", "object": "payment_method"}}, "done:"),
    ({"customer": {"id": "cus_9", "deleted": False}}, "done:"),
], ids=repr)  # fmt: skip
def test_a_set_up_is_kept_only_when_it_is_whole_and_ours(
    house: House, facts: dict[str, Any], told: str
) -> None:
    assert set_up(house, **facts) == told
    assert house.topups.settings(PRACTICE).card_saved is (told == "done:")


def test_starting_a_set_up_records_and_enables_nothing(house: House) -> None:
    start = house.topups.start_setup(PRACTICE, **PAGES)
    assert (start.url, start.topup_id) == ("https://pay.example/1", "")
    assert (house.events(), house.why_not()) == ([], "disabled")
    order = house.gateway.asked[0].argument
    assert order.metadata == {"aza_purpose": "ai_topup_setup", "practice_id": PRACTICE}
    house.gateway.refuse = PaymentUnavailable("down")
    with pytest.raises(PaymentUnavailable):
        house.topups.start_setup(PRACTICE, **PAGES)


# ---------------------------------------------------------------- isolation


def test_the_settings_of_one_practice_never_show_at_another(saved: House) -> None:
    change(saved, consent_text_version=TEXT, amount_rappen=5_000, cap_rappen=50_000)
    untouched = saved.topups.settings("prac_never_seen")
    other = saved.topups.settings(OTHER)
    assert (other.enabled, other.card_saved, other.amount_rappen) == (False, False, 3_000)
    assert other.spent_this_month_rappen == untouched.spent_this_month_rappen == 0
    with pytest.raises(Refused):  # another's card and consent are none of its own
        change(saved, OTHER, consent_text_version=TEXT)
    saved.topups.start_checkout(OTHER, 3_000, **PAGES)
    assert saved.gateway.asked[-1].argument.customer_id is None


def test_no_id_of_card_or_customer_is_shown(saved: House) -> None:
    assert "pm_1" not in repr(change(saved, consent_text_version=TEXT))
    assert "cus_1" not in repr(saved.topups.settings(PRACTICE))


# ---------------------------------------------------------------- bad input

BAD: list[tuple[str, Any]] = [
    *[("amount_rappen", v) for v in (0, 999, 500_001, -3_000, True, 30.0, "3000", None)],
    *[("cap_rappen", v) for v in (0, 999, 5_000_001, -1, True, 300.0, "30000", None)],
    *[("trigger_percent", v) for v in (0, 101, -5, True, 5.0, "5", None)],
    *[("trigger_below_nano_usd", v) for v in (-1, 10**15 + 1, True, 1.5, "1", None)],
    *[("language", v) for v in ("", "xx", "DE", None)],
    ("consent_text_version", "x" * 201),
    ("actor", "x" * 201),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda v: repr(v)[:30])
def test_a_setting_that_is_none_is_refused_by_its_name(saved: House, name: str, value: Any) -> None:
    before = saved.topups.settings(PRACTICE)
    with pytest.raises(InvalidInput, match=name):
        change(saved, **{"consent_text_version": TEXT, name: value})
    assert saved.topups.settings(PRACTICE) == before


def test_a_cap_below_one_charge_is_refused(saved: House) -> None:
    with pytest.raises(InvalidInput, match="at least one top-up"):
        change(saved, consent_text_version=TEXT, amount_rappen=5_000, cap_rappen=4_999)


@pytest.mark.parametrize(("name", "value"), [
    ("enabled", "false"), ("enabled", 1), ("enabled", None), ("consent_text_version", None),
    ("consent_text_version", 5), ("actor", None), ("actor", "\ud800"),
    ("consent_text_version", "a\nb"),
], ids=repr)  # fmt: skip
def test_a_field_of_the_wrong_kind_is_refused_by_its_name(
    saved: House, name: str, value: Any
) -> None:
    with pytest.raises(InvalidInput, match=name):
        change(saved, **{"consent_text_version": TEXT, name: value})
    assert saved.topups.settings(PRACTICE).enabled is False


def test_raising_the_largest_charge_again_asks_again(saved: House) -> None:
    change(saved, consent_text_version=TEXT, largest_rappen=9_000)
    assert change(saved, largest_rappen=0).largest_rappen == 0
    assert refusal(saved, largest_rappen=9_000) == "consent_required"
    assert refusal(saved, largest_rappen=9_001) == "consent_required"


@pytest.mark.parametrize("largest", [2_999, 30_001, -1, True, 1.5, None])
def test_the_largest_charge_lies_between_the_amount_and_the_cap(saved: House, largest: Any) -> None:
    with pytest.raises(InvalidInput, match="largest"):
        change(saved, consent_text_version=TEXT, largest_rappen=largest)
