"""Pages that nobody paid on are closed; what is paid, however late or lost, is credited once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guthaben.errors import PaymentOutcomeUnknown, PaymentRejected, PaymentUnavailable
from guthaben.services.checkouts import CheckoutStart
from guthaben.services.closing import PageCloser
from guthaben.services.topups import Topups
from guthaben.services.webhooks import Inbox
from tests.databases import Database
from tests.services.house import CHF_30, NOON, OTHER, PRACTICE, SECRET, TEN_USD, House
from tests.services.pages import PageGateway

HOUR = 3600
PAGES: dict[str, Any] = {
    "success_url": "https://app.example/{TOPUP_ID}",
    "cancel_url": "https://app.example/back",
}


class Shop(House):
    """A house whose provider has pages."""

    gateway: PageGateway

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.gateway = PageGateway(database)
        self.topups = Topups(self.guthaben, self.gateway, livemode=True)
        self.closer = PageCloser(self.store, self.gateway)
        self.inbox = Inbox(
            self.guthaben, self.gateway, secrets=lambda: (SECRET,), livemode_expected=True
        )

    def buy(self, amount_rappen: int = CHF_30, *, save_card: bool = False) -> CheckoutStart:
        """Begin a purchase."""
        return self.topups.start_checkout(
            PRACTICE, amount_rappen, save_card=save_card, actor="key_1", **PAGES
        )

    def session(self) -> str:
        """The page of the newest purchase, as our record knows it."""
        return str(self.events()[-1]["session_id"])

    def told(self, session_id: str, kind: str = "checkout.session.completed") -> str:
        """Hear a page's event."""
        page = self.gateway.pages[session_id]
        about = {
            "id": session_id, "object": "checkout.session", "mode": "payment",
            "status": page.status, "payment_status": page.payment_status,
            "payment_intent": page.payment_id, "livemode": True, "metadata": dict(page.metadata),
        }  # fmt: skip
        return self.tell(kind, about)

    def open_pages(self) -> int:
        """How many pages are not known to be over."""
        return int(self.rows("SELECT COUNT(*) AS n FROM credit_checkout WHERE is_open = 1")[0]["n"])


@pytest.fixture
def shop(database: Database) -> Iterator[Shop]:
    made = Shop(database)
    yield made
    made.close()


# ---------------------------------------------------------------- abandoned


def test_an_abandoned_page_is_closed_after_the_setting_and_not_before(shop: Shop) -> None:
    shop.buy()
    shop.clock.wait(HOUR - 1)
    assert shop.closer.run_once() == 0
    assert shop.statuses() == ["pending"]
    shop.clock.wait(1)
    assert shop.closer.run_once() == 1
    assert shop.gateway.pages[shop.session()].status == "expired"
    assert (shop.event()["status"], shop.event()["reason"]) == ("canceled", "page_expired")
    assert (shop.closer.run_once(), shop.open_pages(), shop.credit()) == (0, 0, 0)


def test_the_setting_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUTHABEN_CHECKOUT_OPEN_MINUTES", "5")
    shop.buy()
    shop.clock.wait(300)
    assert shop.closer.run_once() == 1


def test_our_record_stays_open_until_the_provider_confirms(shop: Shop) -> None:
    shop.buy()
    shop.clock.wait(HOUR)
    shop.gateway.unreachable = True
    for _ in range(10):
        assert shop.closer.run_once() == 0
        shop.clock.wait(HOUR)
    assert shop.statuses() == ["pending"]
    shop.gateway.unreachable = False
    assert shop.closer.run_once() == 1
    assert shop.statuses() == ["canceled"]


def test_what_stays_open_for_a_day_is_an_alarm_once(shop: Shop) -> None:
    shop.buy()
    shop.gateway.unreachable = True
    for _ in range(30):
        shop.clock.wait(HOUR)
        shop.closer.run_once()
    assert shop.alarms("purchase_unresolved") == ["purchase_unresolved"]


def test_a_page_that_expired_by_itself_is_closed_by_its_event(shop: Shop) -> None:
    shop.buy()
    shop.gateway.expire_checkout(shop.session())
    shop.told(shop.session(), "checkout.session.expired")
    assert shop.statuses() == ["canceled"]
    shop.clock.wait(HOUR)
    asked = len(shop.gateway.asked)
    assert (shop.closer.run_once(), shop.open_pages()) == (1, 0)
    assert len(shop.gateway.asked) == asked, "nobody needs to be asked any more"


def test_two_servers_close_one_page_once(shop: Shop) -> None:
    shop.buy()
    shop.clock.wait(HOUR)
    other = PageCloser(shop.store, shop.gateway)
    real = shop.gateway.expire_checkout

    def both(session_id: str) -> object:
        shop.gateway.expire_checkout = real  # type: ignore[method-assign]
        other.run_once()
        return real(session_id)

    shop.gateway.expire_checkout = both  # type: ignore[assignment, method-assign]
    shop.closer.run_once()
    assert (shop.statuses(), shop.open_pages()) == (["canceled"], 0)


def test_only_the_practice_itself_gives_its_purchase_up(shop: Shop) -> None:
    start = shop.buy()
    assert not shop.closer.close(OTHER, start.topup_id)
    assert not shop.closer.close(PRACTICE, "tu_nobody")
    assert shop.gateway.pages[shop.session()].status == "open"
    assert shop.closer.close(PRACTICE, start.topup_id)
    assert shop.statuses() == ["canceled"]
    assert not shop.closer.close(PRACTICE, start.topup_id)


# ---------------------------------------------------------------- paid all the same


def test_a_page_that_was_paid_unheard_is_credited_once_by_closing_it(shop: Shop) -> None:
    shop.buy()
    shop.gateway.pay(shop.session())
    shop.clock.wait(HOUR)
    assert shop.closer.run_once() == 1
    assert (shop.statuses(), shop.credit()) == (["succeeded"], TEN_USD)
    assert shop.told(shop.session()) == "done:duplicate"
    assert (shop.credit(), shop.open_pages()) == (TEN_USD, 0)


def test_a_payment_under_way_is_waited_for(shop: Shop) -> None:
    shop.buy()
    shop.gateway.pay(shop.session(), processing=True)
    shop.clock.wait(HOUR)
    assert shop.closer.run_once() == 0
    assert shop.statuses() == ["pending"]
    payment_id = shop.gateway.pages[shop.session()].payment_id
    assert payment_id is not None
    shop.gateway.put(payment_id, status="succeeded", amount_received_rappen=CHF_30)
    shop.clock.wait(HOUR)
    assert shop.closer.run_once() == 1
    assert (shop.statuses(), shop.credit()) == (["succeeded"], TEN_USD)


def test_a_late_payment_of_a_closed_purchase_is_credited_once(shop: Shop) -> None:
    start = shop.buy()
    page = shop.gateway.pages[shop.session()]
    shop.closer.close(PRACTICE, start.topup_id)
    shop.gateway.pages[shop.session()] = page  # it had been paid a moment before
    payment_id = shop.gateway.pay(shop.session())
    assert shop.told(shop.session()) == "done:credited"
    assert shop.tell("payment_intent.succeeded", {"id": payment_id}) == "done:duplicate"
    assert (shop.statuses(), shop.credit()) == (["succeeded"], TEN_USD)


# ---------------------------------------------------------------- lost answers


def test_a_lost_answer_is_asked_for_again_with_the_same_key(shop: Shop) -> None:
    shop.gateway.lose = 1
    start = shop.buy()
    assert shop.gateway.methods() == ["create_checkout"] * 2
    assert len(shop.gateway.pages) == 1
    assert shop.session() in start.url


def test_a_request_that_never_arrived_is_repeated(shop: Shop) -> None:
    shop.gateway.lose_before = 1
    assert shop.buy().url
    assert len(shop.gateway.pages) == 1


def test_an_answer_lost_twice_is_found_later_and_its_page_closed(shop: Shop) -> None:
    shop.gateway.lose = 2
    with pytest.raises(PaymentOutcomeUnknown):
        shop.buy()
    assert (shop.event()["status"], shop.event()["session_id"]) == ("pending", "")
    shop.clock.wait(HOUR)
    assert shop.closer.run_once() == 1
    (page,) = shop.gateway.pages.values()
    assert (page.status, shop.statuses()) == ("expired", ["canceled"])


def test_after_the_key_is_forgotten_no_second_page_is_made(shop: Shop) -> None:
    shop.gateway.lose = 2
    with pytest.raises(PaymentOutcomeUnknown):
        shop.buy()
    shop.clock.wait(13 * HOUR)
    shop.gateway.forgotten = True
    assert shop.closer.run_once() == 0
    assert shop.statuses() == ["pending"]
    shop.clock.wait(12 * HOUR)
    assert shop.closer.run_once() == 1
    assert (shop.statuses(), shop.event()["reason"]) == (["canceled"], "page_never_known")
    assert len(shop.gateway.pages) == 1


def test_what_is_refused_on_repeating_was_never_made(shop: Shop) -> None:
    shop.gateway.lose_before = 1
    shop.gateway.refuse = PaymentRejected("no twint here")
    with pytest.raises(PaymentRejected):
        shop.buy()
    assert (shop.statuses(), shop.open_pages()) == (["canceled"], 0)


def test_a_second_question_that_can_not_be_asked_leaves_the_first_one_open(shop: Shop) -> None:
    shop.gateway.lose_before = 1
    shop.gateway.refuse = PaymentUnavailable("the key is wrong")
    with pytest.raises(PaymentOutcomeUnknown):
        shop.buy()
    assert (shop.statuses(), shop.open_pages()) == (["pending"], 1)


def test_what_was_ordered_is_kept_only_until_the_page_is_known(shop: Shop) -> None:
    shop.topups.start_checkout(PRACTICE, CHF_30, customer_email="someone@example.org", **PAGES)
    assert [row["order_json"] for row in shop.rows("SELECT order_json FROM credit_checkout")] == [
        ""
    ]


# ---------------------------------------------------------------- looking


def test_looking_tells_the_truth_and_credits_nothing(shop: Shop) -> None:
    start = shop.buy()

    def state() -> str:
        shop.clock.wait(4)
        found = shop.topups.progress(start.topup_id)
        assert found is not None
        assert (found.price_rappen, found.credit_nano_usd) == (CHF_30, TEN_USD)
        return found.state

    assert state() == "open"
    payment_id = shop.gateway.pay(shop.session(), processing=True)
    assert state() == "processing"
    page = shop.gateway.pages[shop.session()]
    shop.gateway.put(payment_id, status="succeeded", amount_received_rappen=CHF_30)
    from dataclasses import replace

    shop.gateway.pages[shop.session()] = replace(page, payment_status="paid")
    assert state() == "paid"
    assert (shop.credit(), shop.statuses()) == (0, ["pending"]), "only the webhook credits"
    shop.told(shop.session())
    assert (state(), shop.credit()) == ("credited", TEN_USD)


def test_a_quarantined_a_failed_and_a_closed_purchase_are_told_as_such(shop: Shop) -> None:
    wrong, failed, closed = (shop.buy() for _ in range(3))
    sessions = [row["session_id"] for row in shop.events()]
    shop.gateway.pay(sessions[0])
    shop.gateway.put(f"pi_of_{sessions[0]}", amount_received_rappen=2_999)
    shop.told(sessions[0])
    shop.gateway.put("pi_failed", status="requires_payment_method", amount_received_rappen=0)
    shop.gateway.pages[sessions[1]] = replace(
        shop.gateway.pages[sessions[1]], status="complete", payment_id="pi_failed"
    )
    shop.told(sessions[1], "checkout.session.async_payment_failed")
    shop.closer.close(PRACTICE, closed.topup_id)
    told = [shop.topups.progress(start.topup_id) for start in (wrong, failed, closed)]
    assert [found and found.state for found in told] == ["review", "failed", "closed"]
    assert shop.credit() == 0
    assert shop.topups.progress("tu_nobody") is None


def test_many_looks_ask_the_provider_seldom(shop: Shop) -> None:
    start = shop.buy()
    asked = len(shop.gateway.asked)
    for _ in range(100):
        shop.topups.progress(start.topup_id)
    assert len(shop.gateway.asked) == asked + 1
    shop.gateway.unreachable = True
    shop.clock.wait(4)
    found = shop.topups.progress(start.topup_id)
    assert found is not None
    assert found.state == "open"


# ---------------------------------------------------------------- the card


def test_a_card_is_kept_by_a_stored_consent_and_enables_nothing(shop: Shop) -> None:
    shop.buy(save_card=True)
    (row,) = shop.rows("SELECT * FROM credit_card_consent")
    assert (row["text_version"], row["language"], row["actor"]) == ("2026-11", "de", "key_1")
    shop.gateway.pay(shop.session(), method_type="card")
    shop.told(shop.session())
    view = shop.topups.settings(PRACTICE)
    assert (view.card_saved, view.enabled) == (True, False)
    assert shop.rows("SELECT COUNT(*) AS n FROM credit_consent")[0]["n"] == 0


@pytest.mark.parametrize(
    ("paid_at_s", "kept"), [(NOON - 50, "pm_setup"), (NOON - 30, "pm_bought"), (None, "pm_bought")]
)
def test_of_a_card_that_was_set_up_and_one_that_paid_the_later_is_kept(
    shop: Shop, paid_at_s: int | None, kept: str
) -> None:
    """The payment may have begun long before: what counts is when it was made."""
    shop.buy(save_card=True)
    shop.gateway.pay(shop.session(), method_type="card")
    shop.gateway.put(
        f"pi_of_{shop.session()}", payment_method_id="pm_bought", charged_at_s=paid_at_s
    )
    assert shop.set_up("setup", NOON - 40) == "done:"

    assert shop.told(shop.session()) == "done:credited"

    assert shop.card() == kept


def test_metadata_alone_keeps_no_card(shop: Shop) -> None:
    shop.buy()
    shop.gateway.pay(shop.session(), method_type="card")
    payment_id = f"pi_of_{shop.session()}"
    known = shop.gateway.payments[payment_id]
    shop.gateway.put(payment_id, metadata={**known.metadata, "save_card": "1"})
    assert shop.told(shop.session()) == "done:credited"
    assert not shop.topups.settings(PRACTICE).card_saved


def test_a_twint_is_not_taken_for_a_saved_card(shop: Shop) -> None:
    shop.buy(save_card=True)
    shop.gateway.pay(shop.session(), method_type="twint")
    assert shop.told(shop.session()) == "done:credited"
    assert not shop.topups.settings(PRACTICE).card_saved


# ---------------------------------------------------------------- amounts and words


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(amount_rappen=st.integers(1_000, 500_000))
def test_any_rappen_is_converted_exactly_and_frozen(shop: Shop, amount_rappen: int) -> None:
    before = shop.credit()
    start = shop.buy(amount_rappen)
    found = shop.topups.progress(start.topup_id)
    assert found is not None
    # CHF / 3 with four decimals, computed by hand: thirds have no ties.
    tenths_of_milli, rest = divmod(amount_rappen * 100, 3)
    expected = (tenths_of_milli + (rest == 2)) * 100_000
    assert found.credit_nano_usd == expected
    session_id = shop.session()
    assert shop.gateway.pages[session_id].amount_total_rappen == amount_rappen
    shop.gateway.pay(session_id)
    shop.told(session_id)
    assert shop.credit() - before == expected


@pytest.mark.parametrize(
    ("language", "item"),
    [("de", "KI-Guthaben"), ("fr", "Crédit IA"), ("it", "Credito IA"), ("en", "AI credit")],
)
def test_the_page_speaks_the_practices_language(shop: Shop, language: str, item: str) -> None:
    from guthaben.services.portal import Portal

    Portal(shop.guthaben).set_language(PRACTICE, language)
    start = shop.buy(3_001)
    (order,) = shop.gateway.orders.values()
    assert (order.locale, order.description) == (language, item)
    assert "10.0033" in (order.details or "")
    assert order.note
    assert order.success_url == f"https://app.example/{start.topup_id}"


def test_a_twint_is_offered_up_to_its_limit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUTHABEN_TOPUP_MOST_CHF", "6000")
    shop.buy(500_000)
    shop.buy(500_001)
    monkeypatch.setenv("GUTHABEN_CHECKOUT_METHODS", "card")
    shop.buy(1_000)
    methods = [order.payment_method_types for order in shop.gateway.orders.values()]
    assert methods == [("card", "twint"), ("card",), ("card",)]
