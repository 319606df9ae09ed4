"""`guthaben contacts`, `endpoints` and `outbox`: whom is told what, and whether it arrived."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from guthaben import Guthaben
from guthaben.services.notices import Notice, tell
from tests.cli.test_cli import REFUSED, Run, ready, run
from tests.services.receivers import HookReceiver

__all__ = ["ready", "run"]


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[HookReceiver]:
    monkeypatch.setenv("GUTHABEN_WEBHOOKS_ALLOW_PRIVATE", "1")
    with HookReceiver() as receiver:
        yield receiver


def tell_of_a_purchase(practice_id: str = "prac_7") -> None:
    facts = {"price_rappen": 3_000, "credit_nano_usd": 10_000_000_000, "automatic": 0}
    with Guthaben.open("sqlite:///guthaben.db") as guthaben:
        guthaben.core.store.run(
            lambda space: tell(space, practice_id, Notice.TOPPED_UP, "event:1", facts)
        )


def test_contacts_are_added_masked_and_erased(ready: Run) -> None:
    made = ready("contacts", "add", "anna@praxis.example", "--practice", "prac_7", "--json")
    assert made["masked"] == "a…@praxis.example"
    listed = ready("contacts", "list", "--practice", "prac_7").stdout
    assert made["contact_id"] in listed
    assert "anna" not in listed
    assert ready("contacts", "list", "--json") == []
    ready("contacts", "preferences", made["contact_id"], "--unsubscribe", "empty",
          "--practice", "prac_7")  # fmt: skip
    (view,) = ready("contacts", "list", "--practice", "prac_7", "--json")
    assert view["unsubscribed"] == ["empty"]
    assert "topped_up" not in ready(
        "contacts", "preferences", made["contact_id"], "--unsubscribe", "topped_up",
        "--practice", "prac_7", code=REFUSED,
    ).stderr  # fmt: skip
    ready("contacts", "erase", made["contact_id"], code=REFUSED)
    assert (
        "is erased" in ready("contacts", "erase", made["contact_id"], "--practice", "prac_7").stdout
    )
    bad = ready("contacts", "add", "secret address@x", code=REFUSED)
    assert "secret" not in bad.stderr


def test_what_could_not_be_delivered_is_seen_and_sent_again(
    ready: Run, hooks: HookReceiver
) -> None:
    made = ready("endpoints", "add", hooks.url, "--practice", "prac_7", "--json")
    assert made["secret"].startswith("whsec_")
    assert "secret" not in ready("endpoints", "list", "--practice", "prac_7").stdout
    hooks.status = 410
    tell_of_a_purchase()
    ready("work", "--once", "--all")
    told = [row for row in ready("outbox", "list", "--json") if row["kind"] == "topped_up"]
    assert told[0]["deliveries"] == {"dead": 1}
    assert "off since" in ready("endpoints", "list", "--practice", "prac_7").stdout
    notice_id = told[0]["notice_id"]
    shown = ready("outbox", "show", notice_id, "--language", "it").stdout
    assert "Credito acquistato" in shown
    assert "http_410" in shown
    assert ready("outbox", "show", notice_id, "--json")["webhook"]["type"] == "topped_up"
    hooks.status = 200
    ready("endpoints", "enable", made["endpoint_id"], "--practice", "prac_7")
    assert "1 delivery waits" in ready("outbox", "replay", "--notice", notice_id).stdout
    assert ready("outbox", "replay", "--notice", notice_id, "--json") == {"replayed": 0}
    ready("work", "--once", "--all")
    assert [hook.headers["webhook-id"] for hook in hooks.received].count(notice_id) == 2
    told = ready("outbox", "list", "--practice", "prac_7", "--limit", "9", "--json")
    (again,) = [row for row in told if row["notice_id"] == notice_id]
    assert again["deliveries"] == {"delivered": 1}
    told_again = ready("outbox", "replay", "--notice", notice_id, "--delivered", "--json")
    assert told_again == {"replayed": 1}
    with Guthaben.open("sqlite:///guthaben.db") as guthaben:
        alarms = guthaben.core.ask(
            lambda cur: cur.execute(
                "SELECT code FROM credit_alarm WHERE cleared_at_s = 0"
            ).fetchall()
        )
    assert alarms == [], "what was mended alarms nobody any more"


def test_endpoints_are_tried_out_rolled_and_removed(ready: Run, hooks: HookReceiver) -> None:
    made = ready("endpoints", "add", hooks.url, "--kind", "empty", "--json")
    name = made["endpoint_id"]
    assert made["kinds"] == ["empty"]
    assert "taken" in ready("endpoints", "test", name).stdout
    hooks.status = 500
    refused = ready("endpoints", "test", name, "--json", code=REFUSED)
    assert json.loads(refused.stdout)["reason"] == "http_500"
    assert ready("endpoints", "roll", name, "--json")["secret"] != made["secret"]
    ready("endpoints", "remove", name, "--practice", "prac_7", code=REFUSED)
    ready("endpoints", "remove", name)
    assert ready("endpoints", "list", "--json") == []


def test_only_https_and_known_kinds_are_taken(ready: Run) -> None:
    assert "https" in ready("endpoints", "add", "http://a.example/", code=REFUSED).stderr
    assert "private" in ready("endpoints", "add", "https://10.0.0.1/", code=REFUSED).stderr
    ready("endpoints", "add", "https://a.example/", "--kind", "nothing", code=REFUSED)
    assert ready("endpoints", "list", "--json") == []


def test_replaying_everything_by_mistake_is_refused(ready: Run) -> None:
    assert "Say what" in ready("outbox", "replay", code=REFUSED).stderr
    ready("outbox", "show", "ntc_none", code=REFUSED)
    assert ready("outbox", "list", "--practice", "nobody", "--json") == []
