"""The model in process: the official SDK without sockets, under a clock and a seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from guthaben.errors import WebhookRejected
from guthaben.payments.gateway import Charged, ChargeOrder, Unknown
from guthaben.payments.stripe_gateway import StripeGateway
from guthaben.payments.webhook import verify
from guthaben.sandbox.errors import ApiError
from guthaben.sandbox.model import SECRET, Model
from guthaben.sandbox.script import (
    CallFault,
    CallMatch,
    DeliveryFault,
    DeliveryMatch,
    Script,
    ScriptRefused,
    read,
)
from tests.sandbox.harness import KEY, buy, charge, some

START_MS = 1_800_000_000_000
DAY_S = 86_400
CREATES = CallMatch(method="POST", path="/v1/payment_intents")


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms

    def pass_s(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.fixture(name="clock")
def _clock() -> Clock:
    return Clock()


@pytest.fixture(name="model")
def _model(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    monkeypatch.setattr(stripe, "api_key", KEY)
    monkeypatch.setattr(stripe, "max_network_retries", 0)
    model = Model(clock, seed=7)
    with model.installed():
        yield model
    model.close()


def saved(model: Model, card: str = "4242424242424242") -> tuple[str, str]:
    session = stripe.checkout.Session.create(
        mode="setup",
        currency="chf",
        customer_creation="always",
        success_url="http://x.test/ok",
        idempotency_key=f"setup:{card}",
    )
    done = model.control(f"/checkout/{session.id}/pay", {"card": card})
    intent = stripe.SetupIntent.retrieve(done["session"]["setup_intent"])
    return str(intent.customer), str(intent.payment_method)


def take_all(model: Model, status: int | None = 200) -> list[str]:
    """Let the receiver answer everything that is due; return the types."""
    posts = model.due_deliveries()
    for post in posts:
        model.answered(post, status)
    return [post.type for post in posts]


def calls_fail(fault: Any, **more: Any) -> Script:
    return Script(calls=(CallFault(fault=fault, match=CREATES, **more),))


def test_a_payment_and_its_events(model: Model, clock: Clock) -> None:
    model.control(f"/checkout/{buy().id}/pay")
    [charged] = model.objects("charge")
    assert (charged["status"], charged["created"]) == ("succeeded", START_MS // 1000)
    posts = model.due_deliveries()
    event = verify(
        posts[-1].body, posts[-1].signature, [SECRET], clock() // 1000, livemode_expected=False
    )
    assert event.type == "checkout.session.completed"
    assert [post.type for post in model.due_deliveries()] == [post.type for post in posts]
    take_all(model)
    assert model.due_deliveries() == []


def history(seed: int) -> list[bytes]:
    clock = Clock()
    model = Model(clock, seed)
    with model.installed():
        customer, method = saved(model)
        for n in range(3):
            charge(customer, method, f"charge:{n}")
            clock.pass_s(60)
        found = [post.body + post.signature.encode() for post in model.due_deliveries()]
    model.close()
    return found


def test_the_same_seed_gives_the_same_bytes(sdk: None) -> None:
    first = history(1)
    assert first == history(1)
    assert len(first) > 10
    assert not set(first) & set(history(2))


def test_a_lost_answer_is_a_connection_error_and_one_charge(model: Model) -> None:
    customer, method = saved(model)
    model.load(calls_fail("commit_then_drop"))
    with pytest.raises(stripe.APIConnectionError) as lost:
        charge(customer, method, "k1")
    assert lost.value.should_retry
    assert charge(customer, method, "k1").status == "succeeded"
    assert len(model.objects("charge")) == 1


def test_a_lost_request_does_nothing(model: Model) -> None:
    customer, method = saved(model)
    model.load(calls_fail("drop_before", times=2))
    for _ in range(2):
        with pytest.raises(stripe.APIConnectionError):
            charge(customer, method, "k1")
    assert model.objects("charge") == []


def test_the_sdks_own_retries_take_no_time(model: Model) -> None:
    customer, method = saved(model)
    model.load(calls_fail("commit_then_drop", times=2))
    client = stripe.StripeClient(KEY, http_client=model.http_client(), max_network_retries=2)
    intent = client.v1.payment_intents.create(
        {"amount": 3000, "currency": "chf", "customer": customer, "payment_method": method,
         "off_session": True, "confirm": True}
    )  # fmt: skip
    assert intent.status == "succeeded"
    assert len(model.objects("charge")) == 1


def test_a_slow_request_is_done_later_and_its_key_is_in_use(model: Model, clock: Clock) -> None:
    customer, method = saved(model)
    model.load(calls_fail("slow", seconds=30))
    with pytest.raises(stripe.APIConnectionError):
        charge(customer, method, "k1")
    assert model.objects("charge") == []
    with pytest.raises(stripe.StripeError) as busy:
        charge(customer, method, "k1")
    assert busy.value.http_status == 409
    take_all(model)
    assert model.next_due_ms() == clock() + 30_000
    clock.pass_s(29)
    assert model.objects("charge") == []
    clock.pass_s(1)
    assert len(model.objects("charge")) == 1
    assert charge(customer, method, "k1").status == "succeeded"
    assert len(model.objects("charge")) == 1


def test_a_slow_answer_within_patience_arrives(model: Model) -> None:
    customer, method = saved(model)
    model.load(calls_fail("slow", seconds=9))
    assert charge(customer, method).status == "succeeded"
    model.load(calls_fail("slow", seconds=60, when="after"))
    with pytest.raises(stripe.APIConnectionError):
        charge(customer, method)
    assert len(model.objects("charge")) == 2


def test_rules_count_what_they_match(model: Model) -> None:
    customer, method = saved(model)
    key = CallMatch(path="/v1/payment_intents", key="b*", nth=2)
    model.load(Script(calls=(CallFault(fault="rate_limit", match=key),)))
    charge(customer, method, "a")
    charge(customer, method, "b1")
    with pytest.raises(stripe.RateLimitError) as limited:
        charge(customer, method, "b2")
    assert some(limited.value.error).code == "rate_limit"
    assert charge(customer, method, "b2").status == "succeeded"
    assert model.control("/faults", method="GET") == {}


def test_every_call_from_the_second_on(model: Model) -> None:
    model.load(Script(calls=(CallFault(fault="error_500", match=CallMatch(nth=2), times=None),)))
    stripe.Customer.create()
    for _ in range(3):
        with pytest.raises(stripe.APIError):
            stripe.Customer.create()


@pytest.mark.parametrize("days", [1, 4])
def test_events_come_late(model: Model, clock: Clock, days: int) -> None:
    late = DeliveryFault(
        fault="delay", delay_s=days * DAY_S, match=DeliveryMatch(types=("customer.*",))
    )
    model.load(Script(deliveries=(late,)))
    stripe.Customer.create()
    clock.pass_s(days * DAY_S - 1)
    assert model.due_deliveries() == []
    assert model.next_due_ms() == clock() + 1000
    clock.pass_s(1)
    [post] = model.due_deliveries()
    event = verify(post.body, post.signature, [SECRET], clock() // 1000, livemode_expected=None)
    assert event.created_at_s == clock() // 1000 - days * DAY_S


def test_loss_duplicates_and_order(model: Model, clock: Clock) -> None:
    model.load(
        read(
            {
                "deliveries": [
                    {"fault": "lose", "match": {"types": ["payment_intent.created"]}},
                    {"fault": "duplicate", "copies": 3, "match": {"types": ["charge.*"]}},
                    {"fault": "reorder", "times": 2, "window_s": 10},
                ]
            }
        )
    )
    model.control(f"/checkout/{buy().id}/pay")
    assert take_all(model) == ["charge.succeeded"] * 3
    clock.pass_s(5)
    assert take_all(model) == ["checkout.session.completed"]
    clock.pass_s(5)
    assert take_all(model) == ["payment_intent.succeeded"]
    assert model.control("/counters", method="GET")["deliveries"] == {"delivered": 5, "lost": 1}


def test_bad_signatures(model: Model, clock: Clock) -> None:
    for fault in ("stale_signature", "bad_signature"):
        model.load(read({"deliveries": [{"fault": fault}]}))
        stripe.Customer.create()
        [post] = model.due_deliveries()
        with pytest.raises(WebhookRejected):
            verify(post.body, post.signature, [SECRET], clock() // 1000, livemode_expected=None)
        model.answered(post, 200)


def test_deliveries_are_tried_for_three_days(model: Model, clock: Clock) -> None:
    stripe.Customer.create()
    tried = []
    while (due_ms := model.next_due_ms()) is not None:
        clock.ms = due_ms
        tried.append((due_ms - START_MS) // 1000)
        assert take_all(model, 500 if len(tried) % 2 else None) == ["customer.created"]
    assert tried[:4] == [0, 300, 2100, 9300]
    assert len(tried) == 10
    assert 2 * DAY_S < tried[-1] <= 3 * DAY_S
    assert model.control("/counters", method="GET")["deliveries"] == {"given_up": 1}


def test_keys_are_forgotten_after_a_day_of_the_clock(model: Model, clock: Clock) -> None:
    customer, method = saved(model)
    first = charge(customer, method, "k1")
    with pytest.raises(stripe.IdempotencyError):
        charge(customer, method, "k1", amount=4000)
    clock.pass_s(DAY_S - 1)
    assert charge(customer, method, "k1").id == first.id
    clock.pass_s(1)
    assert charge(customer, method, "k1", amount=4000).id != first.id


def test_sessions_expire_by_the_clock(model: Model, clock: Clock) -> None:
    session = buy()
    take_all(model)
    assert model.next_due_ms() == START_MS + DAY_S * 1000
    clock.pass_s(DAY_S)
    assert take_all(model) == ["checkout.session.expired"]
    with pytest.raises(ApiError):
        model.control(f"/checkout/{session.id}/pay")


def test_a_model_goes_on_where_the_last_one_ended(clock: Clock, tmp_path: Path, sdk: None) -> None:
    script = Script(
        calls=(CallFault(fault="commit_then_500", match=CallMatch(nth=5)),),
        deliveries=(DeliveryFault(fault="delay", delay_s=60, times=None),),
    )
    model = Model(clock, 3, path=tmp_path / "model.db")
    model.load(script)
    with model.installed():
        customer, method = saved(model)
        intent = charge(customer, method, "k1")
    model.close()
    model = Model(clock, 3, path=tmp_path / "model.db")
    with model.installed():
        assert charge(customer, method, "k1").id == intent.id
        with pytest.raises(stripe.APIError):
            charge(customer, method, "k2")
        assert charge(customer, method, "k3").id != intent.id
        assert model.due_deliveries() == []
        clock.pass_s(60)
        assert "payment_intent.succeeded" in take_all(model)
    model.close()


def test_ids_are_new_after_a_restart(clock: Clock, tmp_path: Path, sdk: None) -> None:
    made: set[str] = set()
    for _ in range(3):
        model = Model(clock, 3, path=tmp_path / "model.db")
        with model.installed():
            made.add(stripe.Customer.create(idempotency_key=f"k{len(made)}").id)
        model.close()
    assert len(made) == 3


def test_everything_else_goes_on_too(clock: Clock, tmp_path: Path, sdk: None) -> None:
    model = Model(clock, 3, path=tmp_path / "model.db")
    with model.installed():
        done = model.control(f"/checkout/{buy().id}/pay", {"card": "twint", "email": "a@b.test"})
        customer, method = saved(model)
        disputed = charge(customer, method)
        dispute = model.control(f"/charges/{disputed.latest_charge}/dispute")
        model.control("/fees", {"twint": {"fixed": 1}})
        model.control("/refunds/order", {"status": "pending"})
        model.load(calls_fail("slow", seconds=60))
        with pytest.raises(stripe.APIConnectionError):
            charge(customer, method, key="k")
    before = {kind: model.objects(kind) for kind in ("charge", "dispute", "event", "mandate")}
    model.close()

    model = Model(clock, 3, path=tmp_path / "model.db")
    assert {kind: model.objects(kind) for kind in before} == before
    with model.installed():
        model.control(f"/payment_intents/{done['session']['payment_intent']}/settle")
        session = stripe.checkout.Session.retrieve(done["session"]["id"])
        assert some(session.customer_details).email == "a@b.test"
        paid = model.objects("charge")[-1]
        assert stripe.BalanceTransaction.retrieve(paid["balance_transaction"]).fee == 1
        assert stripe.Refund.create(charge=paid["id"]).status == "pending"
        model.control(f"/disputes/{dispute['id']}/move", {"status": "won"})
        # What waited in a process that ended was never done, and its key is free.
        clock.pass_s(60)
        assert len(model.objects("charge")) == 2
        assert charge(customer, method, key="k").status == "succeeded"
    model.close()


def test_scripts_are_the_same_as_json() -> None:
    script = Script(
        calls=(CallFault(fault="slow", seconds=2.5, times=None, match=CREATES),),
        deliveries=(DeliveryFault(fault="delay", delay_s=4 * DAY_S),),
    )
    assert script.as_json() == {
        "calls": [
            {"fault": "slow", "seconds": 2.5, "times": None,
             "match": {"method": "POST", "path": "/v1/payment_intents"}}
        ],
        "deliveries": [{"fault": "delay", "delay_s": 345_600}],
    }  # fmt: skip
    assert read(script.as_json()) == script
    assert read({}) == Script()
    assert (script + script).as_json()["calls"] == script.as_json()["calls"] * 2


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "script"),
        ({"call": []}, "call: Extra"),
        ({"calls": [{}]}, "calls.0.fault: Field required"),
        ({"calls": [{"fault": "explode"}]}, "calls.0.fault: Input should be 'drop_before'"),
        ({"calls": [{"fault": "slow", "seconds": -1}]}, "calls.0.seconds"),
        ({"calls": [{"fault": "slow", "seconds": "1"}]}, "calls.0.seconds"),
        ({"calls": [{"fault": "slow", "match": {"nth": 0}}]}, "calls.0.match.nth"),
        ({"calls": [{"fault": "slow", "match": {"verb": "GET"}}]}, "calls.0.match.verb"),
        ({"calls": [{"fault": "slow", "times": True}]}, "calls.0.times"),
        ({"deliveries": [{"fault": "reorder", "times": None}]}, "reorder needs a number"),
        ({"deliveries": [{"fault": "delay", "delay_s": 31 * DAY_S}]}, "deliveries.0.delay_s"),
        ({"deliveries": [{"fault": "duplicate", "copies": 1}]}, "deliveries.0.copies"),
    ],
)
def test_bad_scripts_are_refused_place_by_place(value: Any, place: str) -> None:
    with pytest.raises(ScriptRefused) as refused:
        read(value)
    assert any(place in problem for problem in refused.value.problems), refused.value.problems


def test_our_gateway_meets_the_model(model: Model, clock: Clock) -> None:
    gateway = StripeGateway(KEY)
    customer, method = saved(model)

    def order(key: str, *, is_retry: bool = False) -> ChargeOrder:
        return ChargeOrder(
            amount_rappen=3000,
            customer_id=customer,
            payment_method_id=method,
            idempotency_key=key,
            is_retry=is_retry,
            metadata={"topup_id": key},
        )

    assert isinstance(gateway.charge_saved_card(order("a")), Charged)
    model.load(calls_fail("commit_then_drop") + calls_fail("slow", seconds=60))
    for key in ("b", "c"):
        assert gateway.charge_saved_card(order(key)) == Unknown("connection")
    assert isinstance(gateway.charge_saved_card(order("b", is_retry=True)), Charged)
    assert gateway.charge_saved_card(order("c", is_retry=True)) == Unknown("conflict")
    assert gateway.find_payment("c", customer, clock() // 1000) is None
    clock.pass_s(60)
    found = gateway.find_payment("c", customer, clock() // 1000)
    assert found is not None
    assert found.status == "succeeded"
    assert len(model.objects("charge")) == 3


def test_an_unknown_address_is_refused(model: Model) -> None:
    with pytest.raises(ApiError):
        model.control("/nothing")
    with pytest.raises(stripe.InvalidRequestError):
        stripe.Payout.create(amount=1, currency="chf")
