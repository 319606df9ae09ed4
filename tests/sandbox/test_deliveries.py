"""Webhooks: signature, retries, duplicates, order, loss."""

import json
import time

import pytest
import stripe

from tests.sandbox.harness import SECRET, Running, buy, wait_until


def pay(sandbox: Running) -> None:
    sandbox.control(f"/checkout/{buy().id}/pay")


def ids(sandbox: Running) -> list[str]:
    return [json.loads(body)["id"] for body, _ in sandbox.receiver.seen]


def test_events_are_signed_and_shaped(sandbox: Running) -> None:
    stripe.Customer.create(name="Zoë")
    sandbox.wait_for("customer.created")
    [event] = sandbox.receiver.verified()
    assert event.livemode is False
    assert event.api_version == "2026-10-28.endive"
    assert event.pending_webhooks == 1
    assert stripe.Event.retrieve(event.id).data.object["name"] == "Zoë"
    wait_until(lambda: stripe.Event.retrieve(event.id).pending_webhooks == 0)
    body, signature = sandbox.receiver.seen[0]
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, signature, "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", signature, SECRET)


def test_a_failing_receiver_is_tried_again(sandbox: Running) -> None:
    sandbox.receiver.answers = [500, 503, 302, 404]
    stripe.Customer.create()
    sandbox.wait_idle()
    assert len(sandbox.receiver.seen) == 5
    assert len({body for body, _ in sandbox.receiver.seen}) == 1
    [delivery] = sandbox.look("/deliveries")["data"]
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 5)


def test_duplicates(sandbox: Running) -> None:
    sandbox.control("/faults/deliveries", {"fault": "duplicate", "copies": 20})
    sandbox.control("/deliveries", {"parallel": 20})
    stripe.Customer.create()
    stripe.Customer.create()
    sandbox.wait_idle()
    assert len(sandbox.receiver.seen) == 21
    assert len(set(ids(sandbox))) == 2


def test_reordering_by_fault(sandbox: Running) -> None:
    sandbox.control("/faults/deliveries", {"fault": "reorder", "times": 4, "window_s": 0.2})
    pay(sandbox)
    sandbox.wait_idle()
    emitted = [event["type"] for event in sandbox.objects("event")]
    assert len(emitted) == 4
    assert sandbox.receiver.types() == emitted[::-1]


def test_pause_and_resume_in_another_order(sandbox: Running) -> None:
    sandbox.control("/deliveries/pause")
    pay(sandbox)
    time.sleep(0.05)
    assert sandbox.receiver.seen == []
    sandbox.control("/deliveries/resume", {"order": "reverse"})
    sandbox.wait_idle()
    assert sandbox.receiver.types()[0] == "checkout.session.completed"
    assert sandbox.receiver.types()[-1] == "payment_intent.created"


def test_loss_and_redelivery(sandbox: Running) -> None:
    sandbox.control(
        "/faults/deliveries",
        {"fault": "lose", "match": {"types": ["checkout.session.completed"]}},
    )
    pay(sandbox)
    sandbox.wait_idle()
    assert "checkout.session.completed" not in sandbox.receiver.types()
    [lost] = stripe.Event.list(type="checkout.session.completed").data
    sandbox.control(f"/events/{lost.id}/redeliver", {"times": 2})
    sandbox.wait_idle()
    assert sandbox.receiver.types().count("checkout.session.completed") == 2


def test_delay_and_bad_signatures(sandbox: Running) -> None:
    for kind in ("stale_signature", "bad_signature"):
        sandbox.control("/faults/deliveries", {"fault": kind})
    sandbox.control("/faults/deliveries", {"fault": "delay", "delay_s": 0.1})
    for _ in range(3):
        stripe.Customer.create()
    sandbox.wait_idle()
    for body, signature in sandbox.receiver.seen[:2]:
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, SECRET)
    assert len(sandbox.receiver.seen) == 3


def test_two_secrets_sign_during_a_rotation(sandbox: Running) -> None:
    sandbox.control("/deliveries", {"secrets": ["whsec_new", SECRET]})
    stripe.Customer.create()
    sandbox.wait_idle()
    body, signature = sandbox.receiver.seen[0]
    for secret in ("whsec_new", SECRET):
        event = stripe.Webhook.construct_event(body, signature, secret)
        assert event.type == "customer.created"


def test_an_event_of_any_kind_is_sent(sandbox: Running) -> None:
    odd = {"type": "unheard.of", "object": {"id": "x_1"}, "event": {"livemode": True}}
    sandbox.control("/events", odd)
    sandbox.wait_idle()
    [event] = sandbox.receiver.verified()
    assert (event.type, event.livemode) == ("unheard.of", True)


def test_control_lists_itself_counts_and_resets(sandbox: Running) -> None:
    pay(sandbox)
    paths = {entry["path"] for entry in sandbox.look("")}
    assert "/_control/checkout/{id}/pay" in paths
    counters = sandbox.look("/counters")
    assert counters["charges"]["succeeded"] == 1
    assert counters["calls"] == {"200": 1}
    sandbox.control("/faults/calls", {"fault": "rate_limit", "times": 3})
    assert len(sandbox.look("/faults")["calls"]) == 1
    assert sandbox.control("/faults", method="DELETE") == {}
    bad = sandbox.http.post("/_control/faults/calls", json={"fault": "nonsense"})
    assert bad.status_code == 400
    sandbox.control("/reset")
    assert sandbox.look("/counters")["objects"] == {}
    assert stripe.Customer.create().id
