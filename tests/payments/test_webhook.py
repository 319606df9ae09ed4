"""Webhooks: forged, stale, damaged, misaddressed ones are refused, each with its own reason."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import stripe

from guthaben.errors import InvalidInput, WebhookRejected
from guthaben.payments.facts import (
    CheckoutFacts,
    DisputeFacts,
    PaymentFacts,
    RefundFacts,
    RefundReceipt,
    SetupFacts,
)
from guthaben.payments.webhook import LARGEST_BODY, event_facts, verify
from tests.payments.conftest import intent

NOW_S = 1_790_000_000
SECRET = "whsec_test"


def _event(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": "evt_1",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": NOW_S - 200_000,  # Stripe repeats an event for days: its age is no reason
        "livemode": False,
        "api_version": "2026-10-28.endive",
        "data": {"object": intent()},
    }
    return fields | changes


def _bytes(event: Any) -> bytes:
    return json.dumps(event).encode()


def _sign(body: bytes, secret: str = SECRET, at_s: int = NOW_S) -> str:
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret, at_s)


def _verify(
    body: bytes,
    header: str | None = None,
    *,
    secrets: Any = (SECRET,),
    livemode: bool | None = False,
    account: str | None = None,
) -> Any:
    signed = _sign(body) if header is None else header
    return verify(body, signed, secrets, NOW_S, livemode_expected=livemode, account=account)


def _reason(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(WebhookRejected) as rejected:
        _verify(*args, **kwargs)
    # Only what carries a good signature may be answered 200 and forgotten.
    signed = not rejected.value.reason.startswith(("signature_", "wrong_signature", "no_secret"))
    if not rejected.value.reason.startswith(("body_not_utf8", "body_too_large")):
        assert rejected.value.authentic is signed
    return rejected.value.reason


BODY = _bytes(_event())
GOOD = _sign(BODY)
SIGNATURE = GOOD.partition("v1=")[2]


def test_a_good_event() -> None:
    event = _verify(BODY)
    assert (event.event_id, event.type) == ("evt_1", "payment_intent.succeeded")
    assert (event.created_at_s, event.livemode) == (NOW_S - 200_000, False)
    assert (event.object_type, event.object_id) == ("payment_intent", "pi_1")
    assert (event.api_version, event.account) == ("2026-10-28.endive", None)
    assert event.payload == _event()
    assert type(event.payload) is dict
    assert event.object == intent()
    assert "cus_1" not in repr(event)


# ---------------------------------------------------------------- the signature


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "signature_missing"),
        ("garbage", "signature_malformed"),
        ("v1=" + SIGNATURE, "signature_malformed"),
        (f"t=,v1={SIGNATURE}", "signature_malformed"),
        (f"t=+{NOW_S},v1={SIGNATURE}", "signature_malformed"),
        (f"t={NOW_S}.0,v1={SIGNATURE}", "signature_malformed"),
        (f"t=1_790_000_000,v1={SIGNATURE}", "signature_malformed"),
        (f"t=-{NOW_S},v1={SIGNATURE}", "signature_malformed"),
        (f"t={'9' * 40},v1={SIGNATURE}", "signature_malformed"),
        (f"t={NOW_S},t={NOW_S},v1={SIGNATURE}", "signature_malformed"),
        (f"t={NOW_S},v1=ä", "signature_malformed"),
        (f"t=\u0661,v1={SIGNATURE}", "signature_malformed"),
        (GOOD + ",v1=" + "0" * 5000, "signature_malformed"),
        (f"t={NOW_S}", "signature_scheme"),
        (f"t={NOW_S},v0={SIGNATURE}", "signature_scheme"),
        (f"t={NOW_S},v1=", "signature_scheme"),
        (f"t={NOW_S},v1={'0' * 64}", "wrong_signature"),
        (f"t={NOW_S},v1={SIGNATURE[:-1]}", "wrong_signature"),
        (f"t={NOW_S},v1={SIGNATURE.upper()}", "wrong_signature"),
        (f"t={NOW_S + 1},v1={SIGNATURE}", "wrong_signature"),
        (f"t={NOW_S},v0={SIGNATURE},v1=0", "wrong_signature"),
        (_sign(BODY, "whsec_other"), "wrong_signature"),
    ],
)
def test_bad_headers(header: str, reason: str) -> None:
    assert _reason(BODY, header) == reason


def test_a_missing_header() -> None:
    with pytest.raises(WebhookRejected) as rejected:
        verify(BODY, None, [SECRET], NOW_S, livemode_expected=False)
    assert rejected.value.reason == "signature_missing"


@pytest.mark.parametrize("secrets", [(), ("",), ("  ", "\n"), []])
def test_no_secret_is_no_free_pass(secrets: Any) -> None:
    assert _reason(BODY, _sign(BODY, ""), secrets=secrets) == "no_secret_configured"


def test_two_secrets_while_one_is_rolled() -> None:
    new = _sign(BODY, "whsec_new")
    both = f"{GOOD},v1={new.partition('v1=')[2]}"
    assert _verify(BODY, new, secrets=["", SECRET, "whsec_new"]).event_id == "evt_1"
    assert _verify(BODY, both, secrets=["whsec_new"]).event_id == "evt_1"
    assert _verify(BODY, both, secrets=[SECRET]).event_id == "evt_1"
    assert _reason(BODY, both, secrets=["whsec_third"]) == "wrong_signature"


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [
        (0, None),
        (300, None),
        (-300, None),
        (301, "signature_too_old"),
        (86_400, "signature_too_old"),
        (-301, "signature_from_future"),
        (-1_000_000_000, "signature_from_future"),
    ],
)
def test_the_age_counts_both_ways(age_s: int, reason: str | None) -> None:
    header = _sign(BODY, at_s=NOW_S - age_s)
    if reason is None:
        assert _verify(BODY, header).event_id == "evt_1"
    else:
        assert _reason(BODY, header) == reason


# ---------------------------------------------------------------- the body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (json.dumps(_event(), indent=1).encode(), "wrong_signature"),  # a proxy rewrote it
        (BODY + b"\n", "wrong_signature"),
        (b"", "wrong_signature"),
        (b"\xef\xbb\xbf" + BODY, "wrong_signature"),
        (gzip.compress(BODY), "body_not_utf8"),
        (b"\xff\xfe" + BODY, "body_not_utf8"),
        (BODY.decode().encode("utf-16"), "body_not_utf8"),
        (b"x" * (LARGEST_BODY + 1), "body_too_large"),
        (b"x" * 10_000_000, "body_too_large"),
    ],
)
def test_bytes_that_were_not_signed(body: bytes, reason: str) -> None:
    assert _reason(body, GOOD) == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body_not_json"),
        (b"\xef\xbb\xbf" + BODY, "body_not_json"),
        (b"not json", "body_not_json"),
        (BODY + b"{}", "body_not_json"),
        (b'{"id": NaN}', "body_not_json"),
        (b'{"id": Infinity}', "body_not_json"),
        (b'{"id": -Infinity}', "body_not_json"),
        (b'{"id": "evt_1", "id": "evt_2"}', "body_not_json"),
        (BODY.replace(b'"amount": 3000', b'"amount": 3000, "amount": 1'), "body_not_json"),
        (b'{"id": ' + b"9" * 5_000 + b"}", "body_not_json"),
        (b"[" * 100_000, "body_not_json"),
        (b"[]", "body_not_an_object"),
        (b'"text"', "body_not_an_object"),
        (b"null", "body_not_an_object"),
        (b"7", "body_not_an_object"),
        (b"{}", "event_incomplete"),
        (b'{"a": 1}', "event_incomplete"),
        *[
            (_bytes(_event(**{name: bad})), "event_incomplete")
            for name, values in {
                "id": (None, "", 7, "e" * 256),
                "type": (None, "", 7, ["x"]),
                "created": (None, "1", True, 2**63),
                "livemode": (None, 0, "false"),
                "data": (None, [], "x", {}, {"object": None}, {"object": "pi_1"}, {"object": []}),
                "account": (7, {"id": "acct_1"}),
            }.items()
            for bad in values
        ],
        (_bytes(_event(object="v2.core.event")), "not_a_snapshot_event"),
        (_bytes(_event(object=None)), "not_a_snapshot_event"),
    ],
)
def test_signed_nonsense(body: bytes, reason: str) -> None:
    assert _reason(body) == reason


def test_a_float_stays_text_and_is_no_amount() -> None:
    body = _bytes(_event(data={"object": intent(amount=3000.0, fee=1e400)}))
    body = body.replace(b"Infinity", b"1e400")
    event = _verify(body)
    assert event.object["amount"] == "3000.0"
    assert event.object["fee"] == "1e400"
    facts = event_facts(event)
    assert isinstance(facts, PaymentFacts)
    assert facts.amount_rappen is None


def test_unknown_and_extra_parts_pass() -> None:
    event = _verify(_bytes(_event(type="brand.new", extra=1, data={"object": {"object": "b"}})))
    assert (event.type, event.object_type, event.object_id) == ("brand.new", "b", None)
    assert event_facts(event) is None


# ---------------------------------------------------------------- meant for us?


@pytest.mark.parametrize(
    ("livemode", "expected", "taken"),
    [
        (False, False, True),
        (True, True, True),
        (False, True, False),
        (True, False, False),
        (True, None, True),
        (False, None, True),
    ],
)
def test_live_and_test_stay_apart(livemode: bool, expected: bool | None, taken: bool) -> None:
    body = _bytes(_event(livemode=livemode))
    if taken:
        assert _verify(body, livemode=expected).livemode is livemode
    else:
        assert _reason(body, livemode=expected) == "wrong_livemode"


@pytest.mark.parametrize(
    ("sent", "expected", "taken"),
    [
        (None, None, True),
        ("acct_1", "acct_1", True),
        ("acct_1", None, False),
        (None, "acct_1", True),
        ("acct_2", "acct_1", False),
        ("", None, False),
    ],
)
def test_accounts_stay_apart(sent: str | None, expected: str | None, taken: bool) -> None:
    body = _bytes(_event() if sent is None else _event(account=sent))
    if taken:
        assert _verify(body, account=expected).account == sent
    else:
        assert _reason(body, account=expected) == "wrong_account"


# ---------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("about", "facts"),
    [
        (
            {
                "object": "checkout.session",
                "id": "cs_1",
                "mode": "payment",
                "status": "complete",
                "payment_status": "paid",
                "payment_intent": "pi_1",
                "setup_intent": None,
                "customer": "cus_1",
                "amount_total": 3000,
                "currency": "chf",
                "livemode": False,
                "client_reference_id": "prac_7",
                "metadata": {"topup_id": "42"},
            },
            CheckoutFacts(
                session_id="cs_1",
                mode="payment",
                status="complete",
                payment_status="paid",
                payment_id="pi_1",
                setup_id=None,
                setup_payment_method_id=None,
                subscription_id=None,
                customer_id="cus_1",
                amount_total_rappen=3000,
                currency="chf",
                livemode=False,
                client_reference_id="prac_7",
                metadata={"topup_id": "42"},
            ),
        ),
        (
            intent(),
            PaymentFacts(
                charge_id="ch_1",
                payment_id="pi_1",
                status="succeeded",
                amount_rappen=3000,
                amount_received_rappen=3000,
                refunded_rappen=None,
                disputed=None,
                currency="chf",
                livemode=False,
                customer_id="cus_1",
                payment_method_id="pm_1",
                created_at_s=1_700_000_000,
                metadata={"topup_id": "42"},
            ),
        ),
        (
            {
                "object": "setup_intent",
                "id": "seti_1",
                "status": "succeeded",
                "customer": {"id": "cus_1"},
                "payment_method": {"id": "pm_1"},
                "livemode": True,
                "metadata": {},
            },
            SetupFacts("seti_1", "succeeded", "cus_1", "pm_1", True, {}),
        ),
        (
            {
                "object": "charge",
                "id": "ch_1",
                "payment_intent": "pi_1",
                "amount": 3000,
                "amount_captured": 3000,
                "amount_refunded": 999,
                "disputed": False,
                "currency": "chf",
                "livemode": True,
                "customer": None,
            },
            RefundFacts("ch_1", "pi_1", 3000, 999, False, "chf", True, None, {}),
        ),
        (
            {
                "object": "refund",
                "id": "re_1",
                "payment_intent": "pi_1",
                "charge": "ch_1",
                "amount": 999,
                "currency": "chf",
                "status": "failed",
            },
            RefundReceipt("re_1", "pi_1", "ch_1", 999, "chf", "failed"),
        ),
        (
            {
                "object": "dispute",
                "id": "dp_1",
                "payment_intent": "pi_1",
                "charge": "ch_1",
                "amount": 3000,
                "currency": "chf",
                "status": "needs_response",
                "reason": "fraudulent",
                "livemode": True,
            },
            DisputeFacts("dp_1", "pi_1", "ch_1", 3000, "chf", "needs_response", "fraudulent", True),
        ),
    ],
)
def test_the_facts_of_an_event(about: dict[str, Any], facts: object) -> None:
    event = _verify(_bytes(_event(data={"object": about})))
    assert event_facts(event) == facts


def test_an_event_about_an_object_without_id() -> None:
    event = _verify(_bytes(_event(data={"object": {"object": "payment_intent"}})))
    with pytest.raises(InvalidInput):
        event_facts(event)
