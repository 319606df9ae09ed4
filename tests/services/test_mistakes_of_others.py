"""Mistakes that others made with money, each a test that their code fails.

What they did and their code stand with the test: our guard is taken out in this process, and the
very test must then fail. Where the test stands elsewhere, with what it guards, their code is a
mutant that names this test and no other; `MUTANTS` is the table of those.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import stripe

from guthaben.errors import PaymentUnavailable
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.services.webhooks import Inbox
from scripts import mutants
from tests.services import naive_code
from tests.services.house import (
    CHF_30,
    COMPLETED,
    INTENT,
    PRACTICE,
    SECRET,
    SUCCEEDED,
    TEN_USD,
    USD,
    House,
    in_parallel,
    metadata_of,
    page_of,
    sign,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def paid(house: House) -> House:
    """A purchase of ours whose payment the provider has; nobody has told of it."""
    house.open_purchase()
    house.gateway.put("pi_1", metadata=metadata_of())
    return house


# ---------------------------------------------------------------- what others did


class Mistake(NamedTuple):
    """What others did, the test of this module that their code fails, and their code."""

    what: str
    test: Callable[..., None]
    naive: Callable[[pytest.MonkeyPatch], None]


PATCHED: list[Mistake] = []
Test = TypeVar("Test", bound=Callable[..., None])


def mistake(what: str, naive: Callable[[pytest.MonkeyPatch], None]) -> Callable[[Test], Test]:
    """Write down what others did, and their code, with the test that their code fails."""

    def noted(test: Test) -> Test:
        PATCHED.append(Mistake(what, test, naive))
        return test

    return noted


# ---------------------------------------------------------------- scenarios


def replayed(house: House) -> int:
    """The same event under three ids, as three endpoints would send it."""
    for _ in range(3):
        house.tell(COMPLETED, page_of())
    return house.credit()


def both_events(house: House) -> int:
    """The page's event and the payment's."""
    house.tell(COMPLETED, page_of())
    house.tell(SUCCEEDED, INTENT)
    return house.credit()


def failed_first(house: House) -> int:
    """The first try fails inside; Stripe sends the event again."""
    event = house.envelope(COMPLETED, page_of())
    house.gateway.down = PaymentUnavailable("down")
    house.post(event)
    house.inbox.work_once()
    house.gateway.down = None
    house.clock.wait(3_600)
    house.post(event)
    house.inbox.work_once()
    return house.credit()


def purged(house: House) -> int:
    """The inbox is emptied, then an old event is sent again."""
    event = house.envelope(COMPLETED, page_of())
    house.post(event)
    house.inbox.work_once()
    house.change("DELETE FROM credit_inbox")
    house.post(event)
    house.inbox.work_once()
    return house.credit()


def invoiced(house: House) -> int:
    """An invoice of the payment tells of it as well."""
    house.tell(COMPLETED, page_of())
    invoice = {"id": "in_1", "object": "invoice", "payment_intent": "pi_1", "amount_paid": CHF_30,
               "metadata": metadata_of(), "status": "paid"}  # fmt: skip
    house.tell("invoice.paid", invoice)
    house.tell("invoice.payment_succeeded", invoice)
    return house.credit()


def four_wrong_ways(house: House) -> int:
    """Dispute, partial refund, won, refund again: eliza's chain of four issues."""
    house.tell(COMPLETED, page_of())
    dispute = {"id": "dp_1", "object": "dispute", "payment_intent": "pi_1"}
    charge = {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"}
    house.gateway.dispute("pi_1", "needs_response")
    house.tell("charge.dispute.created", dispute)
    house.gateway.put("pi_1", refunded_rappen=600)
    house.tell("charge.refunded", charge)
    house.gateway.dispute("pi_1", "won")
    house.tell("charge.dispute.closed", dispute)
    house.tell("charge.dispute.funds_reinstated", dispute)
    house.gateway.put("pi_1", refunded_rappen=1_500)
    house.tell("charge.refunded", charge)
    return house.credit()


# ---------------------------------------------------------------- the tests


@mistake("double credit by checking before locking (AutoGPT 10672)", naive_code.no_registry)
def test_checking_before_locking(paid: House) -> None:
    for _ in range(20):
        paid.post(paid.envelope(COMPLETED, page_of()))
    others = [paid.open() for _ in range(3)]
    workers = [paid.inbox] + [
        Inbox(other, paid.gateway, secrets=lambda: (SECRET,), livemode_expected=True)
        for other in others
    ]
    found = in_parallel(12, lambda i: workers[i % 4].work_once())
    for other in others:
        other.close()
    assert not [one for one in found if isinstance(one, BaseException)]
    assert (paid.credit(), paid.statuses(), paid.alarms()) == (TEN_USD, ["succeeded"], [])


@mistake(
    "a webhook's replay credits again (opencode 28402, pollinations 10621, chatwoot 12988)",
    naive_code.no_registry,
)
def test_a_replayed_webhook(paid: House) -> None:
    assert replayed(paid) == TEN_USD


@mistake("two different events of one payment (roomGPT 61)", naive_code.no_registry)
def test_two_events_of_one_payment(paid: House) -> None:
    assert both_events(paid) == TEN_USD


@mistake(
    "an early return on a seen event id swallows a failed first try (LibreChat 13812)",
    naive_code.seen_is_done,
)
def test_a_seen_event_whose_first_try_failed(paid: House) -> None:
    assert failed_first(paid) == TEN_USD


@mistake("find, then insert a grant (gaia 772)", naive_code.no_registry)
def test_find_then_insert(house: House) -> None:
    house.gateway.put("pi_1", metadata=metadata_of(""))  # no record of ours: everything is new
    for _ in range(12):
        house.post(house.envelope(COMPLETED, page_of()))
    in_parallel(6, lambda _i: house.inbox.work_once(3))
    assert (house.credit(), len(house.rows("SELECT * FROM credit_grant"))) == (TEN_USD, 1)


@mistake("success returned, balance never stored (eliza 9321)", naive_code.balance_not_stored)
def test_success_means_that_it_is_stored(paid: House) -> None:
    assert paid.tell(COMPLETED, page_of()) == "done:credited"
    # As another process would see it.
    assert paid.rows("SELECT free_nano_usd FROM credit_grant") == [{"free_nano_usd": TEN_USD}]


@mistake(
    "refund and dispute handled one by one (eliza 10920, 10938, 10997, 11155)",
    naive_code.disputes_one_by_one,
)
def test_refunds_and_disputes_are_one_equation(paid: House) -> None:
    assert four_wrong_ways(paid) == TEN_USD // 2


@mistake(
    "a refund of credit that is spent takes nothing (eliza 10938)", naive_code.debt_is_forgiven
)
def test_spent_credit_that_goes_back_is_not_forgotten(paid: House) -> None:
    paid.tell(COMPLETED, page_of())
    paid.guthaben.record_usage(PRACTICE, 10 * USD, key="all of it")
    paid.gateway.put("pi_1", refunded_rappen=CHF_30)
    paid.tell("charge.refunded", {"id": "ch_1", "object": "charge", "payment_intent": "pi_1"})
    assert paid.figures() == (0, 0, 10 * USD)


@mistake(
    "Stripe's objects are no dicts, and tests with dicts are green (treg 159)",
    naive_code.objects_are_dicts,
)
def test_stripes_own_objects_go_all_the_way(paid: House, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {
        **INTENT, "status": "succeeded", "amount": CHF_30, "amount_received": CHF_30,
        "currency": "chf", "livemode": True, "created": paid.clock.at_s, "customer": "cus_1",
        "metadata": metadata_of(), "payment_method": "pm_1",
        "latest_charge": {"id": "ch_1", "object": "charge", "amount_refunded": 600,
                          "disputed": False, "balance_transaction": {
                              "id": "txn_1", "object": "balance_transaction", "amount": CHF_30,
                              "fee": 117, "net": 2_883, "currency": "chf", "type": "charge",
                              "source": "ch_1", "created": paid.clock.at_s}},
    }  # fmt: skip
    given = stripe.PaymentIntent.construct_from(raw, "sk_test_x")
    assert not isinstance(given, dict)
    monkeypatch.setattr(stripe.PaymentIntent, "retrieve", lambda *_args, **_options: given)
    gateway = StripeGateway("sk_test_x")
    inbox = Inbox(paid.guthaben, gateway, secrets=lambda: (SECRET,), livemode_expected=True)
    body = json.dumps(paid.envelope(COMPLETED, page_of())).encode()
    inbox.receive(body, sign(body, paid.clock.at_s))
    assert inbox.work_once() == 1
    assert paid.credit() == TEN_USD * 4 // 5
    (row,) = paid.rows("SELECT fee_minor, net_minor FROM credit_payment_state")
    assert tuple(row.values()) == (117, 2_883)


@mistake(
    "an unknown page answered 200: paid, never credited (one-api 355)",
    naive_code.unknown_is_ignored,
)
@pytest.mark.parametrize("metadata", [
    metadata_of(), metadata_of("", practice_id=""), metadata_of("", paid_chf="1.00"),
], ids=["our id", "no practice", "another price"])  # fmt: skip
def test_an_unknown_page_is_never_forgotten(house: House, metadata: dict[str, str]) -> None:
    house.gateway.put("pi_1", metadata=metadata)
    assert house.tell(COMPLETED, page_of("cs_unknown")).startswith("quarantined:")
    (case,) = house.rows("SELECT * FROM credit_case WHERE status = 'open'")
    assert (case["payment_id"], case["amount_minor"]) == ("pi_1", CHF_30)
    assert house.alarms() == ["payment_quarantined"]


@mistake("`invoice.paid` credits a second time (sokosumi 1846)", naive_code.invoices_credit)
def test_an_invoice_is_no_second_payment(paid: House) -> None:
    assert invoiced(paid) == TEN_USD


@mistake("a purged dedupe table reopens replay (hackerai 521)", naive_code.no_registry)
def test_a_purged_inbox_reopens_nothing(paid: House) -> None:
    assert purged(paid) == TEN_USD


@mistake("a saved card without a customer (lago-api 3826)", naive_code.any_card_will_do)
def test_a_card_without_a_customer_is_not_saved(house: House) -> None:
    about = {"id": "seti_1", "object": "setup_intent", "status": "succeeded", "customer": None,
             "payment_method": "pm_1",
             "metadata": {"aza_purpose": "ai_topup_setup", "practice_id": PRACTICE}}  # fmt: skip
    assert house.tell("setup_intent.succeeded", about) == "quarantined:setup_incomplete"
    assert house.topups.settings(PRACTICE).card_saved is False


# ---------------------------------------------------------------- their code


class Mutant(NamedTuple):
    """What others did, the test that their code fails, and its name in `mutants.toml`."""

    what: str
    test: str
    name: str


CLAIMS = "tests/services/test_auto_topup_claims.py::"
MUTANTS = [
    Mutant("a cooldown is shown and not enforced (akash 3660)",
           CLAIMS + "test_the_cooldown_ends_to_the_second",
           "others_cooldown_only_shown"),
    Mutant("950 declines in a day (akash 3760)",
           "tests/services/test_auto_topup_charges.py::"
           "test_a_card_that_was_declined_is_not_charged_again_until_the_customer_acts",
           "others_declines_go_on"),
    Mutant("670 invoices from one card (autumn 2420)",
           CLAIMS + "test_a_crowd_that_claims_again_and_again_gets_exactly_what_fits_the_cap",
           "others_each_charge_is_below_the_cap"),
    Mutant("a header names the tenant (GHSA-2g96-86rw-qmvg)",
           "tests/web/test_access.py::test_a_practice_header_that_contradicts_the_key_is_403",
           "others_header_names_the_tenant"),
    Mutant("leaked holds block paying users (LiteLLM 27639, 40050)",
           "tests/services/test_handles.py::test_a_generator_that_is_closed_releases_its_call",
           "others_left_generator_keeps_its_hold"),
    Mutant("holds that nobody ends (LiteLLM 27639, 40050)",
           "tests/domain/test_calls.py::test_expire_and_its_grace",
           "others_holds_for_ever"),
    Mutant("no hold for audio (LiteLLM 35524)",
           "tests/services_prices/test_request_bounds.py::test_transcriptions",
           "others_audio_without_hold"),
    Mutant("negative usage refills the quota (octopus 243)",
           "tests/domain/test_calls.py::test_a_wrong_cost_is_refused_before_anything_else",
           "others_negative_usage"),
    Mutant("a month that is reset late by the offset (LiteLLM PR 38938)",
           "tests/domain/test_period.py::test_the_month_is_zurichs",
           "utc_month"),
]  # fmt: skip


@pytest.mark.usefixtures("database_kind")
@pytest.mark.parametrize("made", PATCHED, ids=lambda one: one.what)
def test_their_code_fails_the_test(
    made: Mistake, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [mark for mark in getattr(made.test, "pytestmark", []) if mark.name == "parametrize"]
    first = {mark.args[0]: mark.args[1][0] for mark in marks}
    asked = [name for name in signature(made.test).parameters if name not in first]
    given = {name: request.getfixturevalue(name) for name in asked if name != "monkeypatch"}
    with monkeypatch.context() as naive:
        made.naive(naive)
        if "monkeypatch" in asked:
            given["monkeypatch"] = naive
        with pytest.raises(AssertionError):
            made.test(**given, **first)
    house = given.get("paid") or given["house"]
    house.charger.stop()
    house.guthaben.close()  # its books are wrong on purpose: nobody shall verify them


@pytest.mark.parametrize("made", MUTANTS, ids=lambda one: one.what)
def test_their_code_is_a_mutant_that_fails_the_test(made: Mutant) -> None:
    """`make mutants` sees that the test kills it; here, that it can be made and is this test's."""
    found = {mutant.name: mutant for mutant in mutants.load()}
    mutant = found[made.name]
    assert mutant.tests == (made.test,)
    assert (ROOT / mutant.file).read_text("utf-8").count(mutant.old) == 1


@pytest.mark.parametrize("made", MUTANTS, ids=lambda one: one.what)
def test_what_is_named_exists(made: Mutant) -> None:
    path, _, name = made.test.partition("::")
    nodes = ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in nodes if isinstance(node, kinds)}
