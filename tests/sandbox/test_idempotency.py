"""Idempotency keys, and calls that fail on their way."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe

from tests.sandbox.harness import Running, charge, saved_card, some, wait_until


def fault(sandbox: Running, kind: str, **more: object) -> None:
    where = {"method": "POST", "path": "/v1/payment_intents"}
    sandbox.control("/faults/calls", {"fault": kind, "match": where, **more})


def test_same_key_and_parameters_replay(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    first, second = charge(customer, method, "k1"), charge(customer, method, "k1")
    assert first.id == second.id
    assert first.to_dict() == second.to_dict()
    assert "Idempotent-Replayed" not in some(first.last_response).headers
    assert some(second.last_response).headers["Idempotent-Replayed"] == "true"
    assert (
        some(second.last_response).headers["Original-Request"]
        == some(first.last_response).request_id
    )
    assert sandbox.charges() == 1


def test_same_key_other_parameters_are_refused(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    charge(customer, method, "k1")
    with pytest.raises(stripe.IdempotencyError):
        charge(customer, method, "k1", amount=4000)
    with pytest.raises(stripe.IdempotencyError):
        stripe.Refund.create(charge="ch_x", idempotency_key="k1")
    assert sandbox.charges() == 1


def test_a_decline_is_replayed(sandbox: Running) -> None:
    customer, method = saved_card(sandbox, "4000000000000341")
    caught = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as error:
            charge(customer, method, "k1")
        caught.append(error.value)
    assert caught[0].json_body == caught[1].json_body
    assert sandbox.charges("failed") == 1


def test_a_500_is_replayed_though_the_charge_was_made(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "commit_then_500")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as error:
            charge(customer, method, "k1", metadata={"topup": "7"})
        assert error.value.http_status == 500
    assert sandbox.charges() == 1
    found = stripe.PaymentIntent.list(customer=customer)
    assert [i.metadata.to_dict() for i in found.data] == [{"topup": "7"}]


def test_a_500_of_the_way_only_is_healed_by_the_same_key(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "commit_then_500", saved=False)
    with pytest.raises(stripe.APIError):
        charge(customer, method, "k1")
    assert charge(customer, method, "k1").status == "succeeded"
    assert sandbox.charges() == 1


def test_commit_then_drop_and_retry_is_one_charge(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "commit_then_drop")
    with pytest.raises(stripe.APIConnectionError):
        charge(customer, method, "k1")
    assert charge(customer, method, "k1").status == "succeeded"
    assert sandbox.charges() == 1


def test_the_sdk_itself_survives_a_drop(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "commit_then_drop")
    intent = stripe.StripeClient(
        stripe.api_key or "", base_addresses={"api": sandbox.url}, max_network_retries=2
    ).v1.payment_intents.create(
        {"amount": 3000, "currency": "chf", "customer": customer, "payment_method": method,
         "off_session": True, "confirm": True}
    )  # fmt: skip
    assert intent.status == "succeeded"
    assert sandbox.charges() == 1
    tries = [c for c in sandbox.look("/calls")["data"] if c["path"] == "/v1/payment_intents"]
    assert [(c["fault"], c["replayed"]) for c in tries] == [("commit_then_drop", 0), (None, 1)]
    assert tries[0]["idempotency_key"] == tries[1]["idempotency_key"]


def test_a_dropped_call_that_was_not_executed(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "drop_before")
    with pytest.raises(stripe.APIConnectionError):
        charge(customer, method, "k1")
    assert sandbox.charges() == 0
    assert charge(customer, method, "k1").status == "succeeded"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", stripe.RateLimitError),
        ("unauthorized", stripe.AuthenticationError),
        ("forbidden", stripe.PermissionError),
        ("error_500", stripe.APIError),
        ("lock_timeout", stripe.APIError),
    ],
)
def test_refusals_are_not_kept(sandbox: Running, kind: str, error: type[Exception]) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, kind)
    with pytest.raises(error):
        charge(customer, method, "k1")
    assert sandbox.charges() == 0
    assert charge(customer, method, "k1").status == "succeeded"


def test_validation_errors_are_not_kept(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    with pytest.raises(stripe.InvalidRequestError):
        charge(customer, method, "k1", amount=1)
    assert charge(customer, method, "k1").status == "succeeded"


def test_keys_are_forgotten_after_a_day(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    first = charge(customer, method, "k1")
    sandbox.control("/clock", {"seconds": 23 * 3600})
    assert charge(customer, method, "k1").id == first.id
    sandbox.control("/clock", {"seconds": 3601})
    assert charge(customer, method, "k1").id != first.id
    assert sandbox.charges() == 2


def test_an_overlong_key_is_refused(sandbox: Running) -> None:
    with pytest.raises(stripe.IdempotencyError):
        stripe.Customer.create(idempotency_key="k" * 256)
    assert stripe.Customer.create(idempotency_key="k" * 255).id


def test_a_slow_answer_comes_after_the_event(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "slow", seconds=0.2, when="after")
    sandbox.wait_idle()
    charge(customer, method)
    assert "payment_intent.succeeded" in sandbox.receiver.types()
    calls = sandbox.look("/calls")["data"]
    assert calls[-1]["fault"] == "slow"


def test_a_key_whose_first_request_still_runs_is_in_use(sandbox: Running) -> None:
    customer, method = saved_card(sandbox)
    fault(sandbox, "slow", seconds=0.4)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(charge, customer, method, "k1")
        wait_until(lambda: sandbox.look("/faults") == {})
        with pytest.raises(stripe.StripeError) as busy:
            charge(customer, method, "k1")
        assert (busy.value.http_status, first.done()) == (409, False)
        assert some(busy.value.error).code == "idempotency_key_in_use"
        assert first.result().status == "succeeded"
    assert charge(customer, method, "k1").id == first.result().id
    assert sandbox.charges() == 1


def test_a_whole_script_over_http(sandbox: Running) -> None:
    create = {"method": "POST", "path": "/v1/customers"}
    script = {
        "calls": [
            {"fault": "rate_limit", "match": {**create, "nth": 2}, "times": 2},
            {"fault": "commit_then_500", "match": create, "saved": False},
        ],
        "deliveries": [{"fault": "lose", "match": {"types": ["customer.*"]}, "times": None}],
    }
    assert sandbox.control("/faults", script) == script
    statuses = []
    for n in range(4):
        try:
            stripe.Customer.create(idempotency_key=f"k{n}")
            statuses.append(200)
        except stripe.StripeError as error:
            statuses.append(int(error.http_status or 0))
    assert statuses == [500, 429, 429, 200]
    assert sandbox.look("/faults") == {"deliveries": script["deliveries"]}
    sandbox.wait_idle()
    assert sandbox.receiver.seen == []
    limited = sandbox.http.post("/_control/faults", json={"calls": [{"fault": "explode"}]})
    assert limited.status_code == 400
    assert "calls.0.fault" in limited.json()["error"]["message"]
    schema = sandbox.look("/faults/schema")
    assert {"CallFault", "DeliveryFault"} <= schema["$defs"].keys()


def test_a_rate_limit_says_why(sandbox: Running) -> None:
    sandbox.control("/faults/calls", {"fault": "rate_limit"})
    answer = sandbox.http.get("/v1/customers")
    assert answer.status_code == 429
    assert answer.headers["stripe-rate-limited-reason"] == "global-rate"
    assert answer.json()["error"]["code"] == "rate_limit"
