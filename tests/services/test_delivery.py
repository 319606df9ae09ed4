"""Delivery: who gets what, in which words, signed how, tried how often, and given up when."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from guthaben.channels import webhook
from guthaben.channels.results import Again, Never, Result, Sent
from guthaben.errors import InvalidInput, Refused
from guthaben.services.delivery import LEASE_S, PAUSES_S, Dispatcher, payload
from guthaben.services.jobs import Job, Runner
from guthaben.services.notices import OPERATOR, Fact, Notice, tell
from guthaben.services.targets import MOST, Targets
from guthaben.store import outbox
from guthaben.store.outbox import DeliveryRow
from tests.services.house import OTHER, PRACTICE, House
from tests.services.receivers import HookReceiver, MailBox

LOW: dict[str, Fact] = {"available_nano_usd": 900_000_000, "of_nano_usd": 20_000_000_000}
PAID: dict[str, Fact] = {"price_rappen": 3_000, "credit_nano_usd": 10_000_000_000, "automatic": 0}
PUBLIC = "https://credit.example.com"


class Post:
    """A house with a mail server, a webhook receiver and a dispatcher."""

    def __init__(self, house: House, mail: MailBox, hooks: HookReceiver) -> None:
        self.house, self.mail, self.hooks = house, mail, hooks
        self.targets = Targets(house.store, allow_private=lambda: True)
        self.dispatcher = Dispatcher(
            house.store,
            mail=lambda: self.mail.settings,
            public_url=PUBLIC,
            allow_private=lambda: True,
            below=lambda _n: 0,
        )
        self.runner = Runner(house.store, [Job("outbox", 1, self.dispatcher.work)])

    def tell(
        self, kind: Notice, facts: dict[str, Fact], practice_id: str = PRACTICE, key: str = "k"
    ) -> str:
        """Tell something; give its id."""
        self.house.store.run(lambda space: tell(space, practice_id, kind, key, facts))
        rows = self.house.rows(
            "SELECT notice_id FROM credit_notice WHERE kind = ? AND key = ?"
            " ORDER BY practice_no DESC",
            kind.value,
            key,
        )
        return str(rows[0]["notice_id"])

    def work(self, wait_s: int = 0) -> None:
        """Let time pass and the outbox be worked."""
        self.house.clock.wait(wait_s)
        done = self.runner.work_once(everything=True)
        assert done is not None
        assert [row.error for row in done] == [""]

    def rows(self, notice_id: str) -> list[DeliveryRow]:
        """The deliveries of a notice."""
        return self.house.store.read(lambda cur: outbox.deliveries(cur, notice_id))

    def alarms(self) -> list[str]:
        return self.house.alarms()


@pytest.fixture
def post(house: House) -> Iterator[Post]:
    with MailBox() as mail, HookReceiver() as hooks:
        yield Post(house, mail, hooks)


def part(message: EmailMessage, kind: str) -> str:
    """One of the two parts of an e-mail."""
    found = message.get_body((kind,))
    assert found is not None
    return str(found.get_content())


# ---------------------------------------------------------------- e-mail


def test_an_e_mail_has_both_parts_in_its_reader_s_language(post: Post) -> None:
    post.targets.add_contact(PRACTICE, "anna@praxis.example", "de")
    post.targets.add_contact(PRACTICE, "anne@cabinet.example", "fr")
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    german, french = sorted(post.mail.received, key=lambda mail: str(mail["To"]))
    assert german["Subject"] == "Guthaben gekauft: USD 10.00 für CHF 30.00"
    assert french["Subject"] == "Crédit acheté : USD 10.00 pour CHF 30.00"
    assert "CHF 30.00 erhalten" in part(german, "plain")
    assert "CHF 30.00 erhalten" in part(german, "html")
    assert "<" not in part(german, "plain")
    assert german["From"] == "Guthaben <credit@guthaben.example>"
    assert german["Message-ID"].strip().startswith(f"<{notice_id}.con_")
    assert german["Message-ID"] != french["Message-ID"]
    assert german["Auto-Submitted"] == "auto-generated"
    assert (german["Content-Language"], french["Content-Language"]) == ("de", "fr")
    assert german["List-Unsubscribe"] is None, "it is contractual"
    assert {row.status for row in post.rows(notice_id)} == {"delivered"}
    post.work(60)
    assert len(post.mail.received) == 2


def test_hints_can_be_unsubscribed_from_with_one_click(post: Post) -> None:
    contact = post.targets.add_contact(PRACTICE, "anna@praxis.example", "de")
    post.tell(Notice.LOW_BALANCE_5, LOW, key="1")
    post.work()
    (mail,) = post.mail.received
    link = str(mail["List-Unsubscribe"]).strip("<>")
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link.startswith(f"{PUBLIC}/unsubscribe?token=")
    assert link in part(mail, "plain")
    assert "anna" not in link
    token = link.partition("token=")[2]
    assert post.targets.language_of(token) == "de"
    assert post.targets.unsubscribe(token)
    post.tell(Notice.LOW_BALANCE_5, LOW, key="2")
    post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    assert [str(m["Subject"])[:9] for m in post.mail.received[1:]] == ["Guthaben "]
    post.targets.set_preferences(PRACTICE, contact.contact_id, ["low_balance_20"])
    post.tell(Notice.LOW_BALANCE_20, LOW, key="3")
    post.tell(Notice.LOW_BALANCE_5, LOW, key="3")
    post.work()
    assert len(post.mail.received) == 3


def test_a_token_that_was_changed_unsubscribes_nobody(post: Post) -> None:
    contact = post.targets.add_contact(PRACTICE, "anna@praxis.example", "it")
    token = post.targets.unsubscribe_token(1, contact.contact_id)
    other = post.targets.add_contact(OTHER, "berta@praxis.example", "de")
    forged = token.replace(contact.contact_id, other.contact_id)
    for bad in ("", "x", "1.2", forged, token[:-1], token + "0", "9" * 30 + token, "²" + token[1:]):
        assert not post.targets.unsubscribe(bad)
        assert post.targets.language_of(bad) is None
    assert [view.unsubscribed for view in post.targets.contacts(OTHER)] == [()]
    assert post.targets.is_token(token)


def test_what_is_contractual_can_t_be_unsubscribed_from(post: Post) -> None:
    contact = post.targets.add_contact(PRACTICE, "anna@praxis.example")
    with pytest.raises(InvalidInput, match="only these"):
        post.targets.set_preferences(PRACTICE, contact.contact_id, ["topped_up"])


def test_an_erased_address_is_nowhere_any_more(post: Post, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    post.mail.answer = "451 later"
    contact = post.targets.add_contact(PRACTICE, "geheim@praxis.example", "de")
    assert contact.masked == "g…@praxis.example"
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    (row,) = post.rows(notice_id)
    assert (row.status, row.reason, row.attempts) == ("waiting", "message_451", 1)
    post.targets.erase_contact(PRACTICE, contact.contact_id)
    assert post.rows(notice_id)[0].status == "dropped"
    post.work(3600)
    kept = "\n".join(
        str(row)
        for table in ("credit_contact", "credit_delivery", "credit_notice", "credit_alarm")
        for row in post.house.rows(f"SELECT * FROM {table}")
    )
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("guthaben")]
    assert "geheim" not in kept + "".join(ours)
    with pytest.raises(Refused, match="no such contact"):
        post.targets.erase_contact(PRACTICE, contact.contact_id)


def test_a_refused_recipient_is_given_up_at_once_and_the_operator_told(post: Post) -> None:
    post.mail.answer = "550 no such user"
    post.targets.add_contact(PRACTICE, "anna@praxis.example")
    post.targets.add_endpoint(OPERATOR, post.hooks.url, ["delivery_dead"])
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    (row,) = post.rows(notice_id)
    assert (row.status, row.reason) == ("dead", "message_550")
    assert "delivery_dead" in post.alarms()
    post.work()
    (hook,) = post.hooks.received
    told = json.loads(hook.body)
    assert told["type"] == "delivery_dead"
    assert told["data"]["reason"] == "message_550"
    assert "anna" not in hook.body.decode()


def test_without_a_mail_server_e_mail_is_kept_and_can_be_sent_later(post: Post) -> None:
    post.targets.add_contact(PRACTICE, "anna@praxis.example", "en")
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    none = Dispatcher(post.house.store, mail=lambda: None)
    Runner(post.house.store, [Job("outbox", 1, none.work)]).work_once()
    (row,) = post.rows(notice_id)
    assert (row.status, row.reason) == ("dropped", "no_mail_server")
    now_s = post.house.clock.at_s
    again = post.house.store.run(
        lambda space: outbox.replay(space.cursor, now_s, notice_id=notice_id)
    )
    assert len(again) == 1
    post.work()
    assert len(post.mail.received) == 1


def test_nothing_in_a_fact_becomes_a_header_or_markup(post: Post, monkeypatch: Any) -> None:
    post.targets.add_contact(OPERATOR, "op@vendor.example", "en")
    nasty = "x\r\nBcc: evil@evil.example <script>alert(1)</script> {{ 7 * 7 }}"
    monkeypatch.setattr("guthaben.services.notices.complain", lambda _mistake: None)
    monkeypatch.setattr("guthaben.services.notices._SECRET", re.compile("$^"))
    post.tell(Notice.UNKNOWN_PLAN, {"plan": nasty})
    post.work()
    (mail,) = post.mail.received
    assert mail["Bcc"] is None
    assert post.mail.recipients == ["op@vendor.example"]
    assert "<script>" not in part(mail, "html")
    assert "{{ 7 * 7 }}" in part(mail, "plain")
    assert "\n" not in str(mail["Subject"])


# ---------------------------------------------------------------- webhooks


def test_a_webhook_is_signed_so_that_the_library_of_the_format_verifies_it(post: Post) -> None:
    post.house.clock.set(int(time.time()))
    made = post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.LOW_BALANCE_5, LOW)
    post.work()
    (hook,) = post.hooks.received
    told = Webhook(made.secret).verify(hook.body, hook.headers)
    assert told["type"] == "low_balance_5"
    assert told["data"] == {
        "id": notice_id, "practice_id": PRACTICE, "available_usd": "0.90", "of_usd": "20.00",
    }  # fmt: skip
    assert hook.headers["webhook-id"] == notice_id
    assert hook.path == "/hooks"
    for spoiled in (hook.body + b" ", hook.body.replace(b"0.90", b"9.90")):
        with pytest.raises(WebhookVerificationError):
            Webhook(made.secret).verify(spoiled, hook.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhook.new_secret()).verify(hook.body, hook.headers)


def test_while_a_secret_is_rolled_both_verify_and_later_the_new_one_only(post: Post) -> None:
    post.house.clock.set(int(time.time()) - 25 * 3600)
    made = post.targets.add_endpoint(PRACTICE, post.hooks.url)
    fresh = post.targets.roll_secret(PRACTICE, made.endpoint.endpoint_id)
    assert fresh != made.secret
    post.tell(Notice.LOW_BALANCE_5, LOW, key="1")
    post.work()
    (hook,) = post.hooks.received
    assert len(hook.headers["webhook-signature"].split()) == 2
    post.tell(Notice.LOW_BALANCE_5, LOW, key="2")
    post.work(25 * 3600)
    late = post.hooks.received[1]
    assert Webhook(fresh).verify(late.body, late.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made.secret).verify(late.body, late.headers)


def test_a_failing_endpoint_is_tried_by_the_schedule_under_one_id_and_then_given_up(
    post: Post,
) -> None:
    post.hooks.status = 500
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    for pause_s in PAUSES_S:
        before = len(post.hooks.received)
        post.work(pause_s - 1)
        assert len(post.hooks.received) == before, "not before its time"
        post.work(1)
        assert len(post.hooks.received) == before + 1
    assert len(post.hooks.received) == len(PAUSES_S) + 1 == 10
    assert {hook.headers["webhook-id"] for hook in post.hooks.received} == {notice_id}
    assert len({hook.body for hook in post.hooks.received}) == 1
    assert len({hook.headers["webhook-timestamp"] for hook in post.hooks.received}) == 10
    (row,) = post.rows(notice_id)
    assert (row.status, row.attempts, row.reason) == ("dead", 10, "http_500")
    assert "delivery_dead" in post.alarms()
    post.hooks.status = 200
    now_s = post.house.clock.at_s
    post.house.store.run(lambda space: outbox.replay(space.cursor, now_s, notice_id=notice_id))
    post.work()
    assert post.hooks.received[-1].headers["webhook-id"] == notice_id
    assert post.rows(notice_id)[0].status == "delivered"


def test_the_pauses_get_a_random_part_on_top(post: Post) -> None:
    post.hooks.status = 500
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    late = Dispatcher(post.house.store, allow_private=lambda: True, below=lambda n: n - 1)
    post.runner = Runner(post.house.store, [Job("outbox", 1, late.work)])
    post.work()
    post.work(6)
    (row,) = post.rows(notice_id)
    assert row.next_try_at_s - post.house.clock.at_s == 300 + 60


def test_a_receiver_that_says_when_is_heeded(post: Post) -> None:
    post.hooks.status, post.hooks.headers = 503, {"Retry-After": "900"}
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    (row,) = post.rows(notice_id)
    assert row.next_try_at_s - post.house.clock.at_s == 900


def test_one_that_is_gone_gets_nothing_more(post: Post) -> None:
    post.hooks.status = 410
    made = post.targets.add_endpoint(PRACTICE, post.hooks.url)
    contact = post.targets.add_contact(PRACTICE, "anna@praxis.example", "en")
    assert contact.language == "en"
    post.tell(Notice.LOW_BALANCE_5, LOW, key="1")
    post.tell(Notice.LOW_BALANCE_5, LOW, key="2")
    post.work()
    assert len(post.hooks.received) == 1
    (view,) = post.targets.endpoints(PRACTICE)
    assert view.disabled_reason == "gone"
    post.work()
    subjects = [str(mail["Subject"]) for mail in post.mail.received]
    assert "Webhook endpoint switched off" in subjects
    post.hooks.status = 200
    post.targets.enable_endpoint(PRACTICE, made.endpoint.endpoint_id)
    now_s = post.house.clock.at_s
    missed = post.house.store.run(
        lambda space: outbox.replay(space.cursor, now_s, target_id=made.endpoint.endpoint_id)
    )
    assert len(missed) == 2
    post.work()
    # The two that were missed, and the word that it was switched off does not go to itself.
    assert len(post.hooks.received) == 3


def test_an_endpoint_that_fails_for_days_is_switched_off_and_its_owner_told(post: Post) -> None:
    post.hooks.status = 500
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    post.targets.add_contact(PRACTICE, "anna@praxis.example", "de")
    for number in range(4):
        post.tell(Notice.LOW_BALANCE_5, LOW, key=str(number))
        post.work()
        for pause_s in PAUSES_S[:5]:
            post.work(pause_s)
            post.work(60)
        post.work(86_400)
    (view,) = post.targets.endpoints(PRACTICE)
    assert view.disabled_reason == "failing"
    assert "endpoint_disabled" in post.alarms()
    post.work()
    subjects = [str(mail["Subject"]) for mail in post.mail.received]
    assert "Webhook-Adresse ausgeschaltet" in subjects
    waiting = post.house.rows("SELECT * FROM credit_delivery WHERE status = 'waiting'")
    assert waiting == []


def test_one_success_ends_the_count_of_days(post: Post) -> None:
    post.hooks.status = 500
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    post.tell(Notice.LOW_BALANCE_5, LOW)
    post.work()
    assert post.targets.endpoints(PRACTICE)[0].failing_since_s is not None
    post.hooks.status = 200
    post.work(10)
    assert post.targets.endpoints(PRACTICE)[0].failing_since_s is None


def test_a_redirect_is_not_followed(post: Post) -> None:
    with HookReceiver() as other:
        post.hooks.status, post.hooks.headers = 302, {"Location": other.url}
        post.targets.add_endpoint(PRACTICE, post.hooks.url)
        notice_id = post.tell(Notice.TOPPED_UP, PAID)
        post.work()
        assert other.received == []
    assert post.rows(notice_id)[0].reason == "http_302"


def test_an_answer_that_drips_is_cut_off(post: Post, monkeypatch: Any) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    post.hooks.drips_s = 0.05
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    assert post.rows(notice_id)[0].reason == "timeout"


def test_a_failing_endpoint_delays_nobody_but_itself(post: Post) -> None:
    with HookReceiver() as broken:
        broken.status = 500
        post.targets.add_endpoint(PRACTICE, broken.url)
        post.targets.add_endpoint(OTHER, post.hooks.url)
        for number in range(5):
            post.tell(Notice.LOW_BALANCE_5, LOW, key=str(number))
            post.tell(Notice.LOW_BALANCE_5, LOW, OTHER, key=str(number))
        post.work()
        assert len(post.hooks.received) == 5
        assert len(broken.received) == 1, "after a failure the rest waits a little"


# ---------------------------------------------------------------- who gets it


def test_a_practice_hears_of_itself_and_the_operator_of_all(post: Post) -> None:
    with HookReceiver() as theirs, HookReceiver() as host:
        post.targets.add_endpoint(PRACTICE, post.hooks.url)
        post.targets.add_endpoint(OTHER, theirs.url)
        post.targets.add_endpoint(OPERATOR, host.url)
        post.targets.add_contact(OPERATOR, "op@vendor.example", "en")
        post.tell(Notice.LOW_BALANCE_5, LOW)
        post.tell(Notice.QUARANTINED, {"reason": "amount_mismatch", "event_no": 3})
        post.tell(Notice.DISPUTE_OPENED, {"price_rappen": 3_000}, OTHER)
        post.tell(Notice.CHARGES_NOT_SENT, {"reason": "auth"}, OPERATOR)
        post.work()

        def kinds(receiver: HookReceiver) -> list[str]:
            return sorted(json.loads(hook.body)["type"] for hook in receiver.received)

        assert kinds(post.hooks) == ["low_balance_5"]
        assert kinds(theirs) == ["dispute_opened"]
        assert kinds(host) == ["charges_not_sent", "dispute_opened", "low_balance_5", "quarantined"]
    assert len(post.mail.received) == 3, "hints to practices are not mailed to the operator"


def test_an_endpoint_gets_the_kinds_it_asked_for(post: Post) -> None:
    post.targets.add_endpoint(PRACTICE, post.hooks.url, ["topped_up", "refunded"])
    post.tell(Notice.LOW_BALANCE_5, LOW)
    post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    assert [json.loads(hook.body)["type"] for hook in post.hooks.received] == ["topped_up"]


def test_an_owner_reaches_its_own_alone(post: Post) -> None:
    made = post.targets.add_endpoint(PRACTICE, post.hooks.url)
    contact = post.targets.add_contact(PRACTICE, "anna@praxis.example")
    endpoint_id = made.endpoint.endpoint_id
    for owner in (OTHER, OPERATOR, "nobody"):
        assert post.targets.endpoints(owner) == []
        assert post.targets.contacts(owner) == []
        for work in (
            lambda o=owner: post.targets.remove_endpoint(o, endpoint_id),
            lambda o=owner: post.targets.enable_endpoint(o, endpoint_id),
            lambda o=owner: post.targets.roll_secret(o, endpoint_id),
            lambda o=owner: post.targets.test_endpoint(o, endpoint_id),
            lambda o=owner: post.targets.erase_contact(o, contact.contact_id),
            lambda o=owner: post.targets.set_preferences(o, contact.contact_id, ["*"]),
        ):
            with pytest.raises(Refused, match="There is no such"):
                work()
    assert len(post.targets.endpoints(PRACTICE)) == len(post.targets.contacts(PRACTICE)) == 1


def test_an_endpoint_can_be_tried_out(post: Post) -> None:
    post.house.clock.set(int(time.time()))
    made = post.targets.add_endpoint(PRACTICE, post.hooks.url)
    assert post.targets.test_endpoint(PRACTICE, made.endpoint.endpoint_id) == Sent()
    (hook,) = post.hooks.received
    assert Webhook(made.secret).verify(hook.body, hook.headers)["type"] == "test"
    post.hooks.status = 400
    assert post.targets.test_endpoint(PRACTICE, made.endpoint.endpoint_id) == Again("http_400")


def test_no_owner_has_too_many(post: Post) -> None:
    for number in range(MOST):
        post.targets.add_endpoint(PRACTICE, f"{post.hooks.url}/{number}")
        post.targets.add_contact(PRACTICE, f"a{number}@praxis.example")
    with pytest.raises(Refused, match="already"):
        post.targets.add_endpoint(PRACTICE, post.hooks.url)
    with pytest.raises(Refused, match="already"):
        post.targets.add_contact(PRACTICE, "b@praxis.example")
    assert post.targets.add_contact(PRACTICE, "a1@praxis.example", "fr").language == "fr"


@pytest.mark.parametrize(
    "address", ["", "x", "a@b", "a b@c.ch", "a@b.ch\nBcc: x@y.ch", "ä@b.ch", "a@b.ch" + "x" * 300,
                "A <a@b.ch>", "a@b.ch,c@d.ch"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_not_repeated(post: Post, address: str) -> None:
    with pytest.raises(InvalidInput) as found:
        post.targets.add_contact(PRACTICE, address)
    assert "@" not in str(found.value)


# ---------------------------------------------------------------- crashes and leases


class Crash(BaseException):
    """The process ends between sending and storing that it was sent."""


def test_a_crash_between_sending_and_noting_sends_again_under_the_same_id(post: Post) -> None:
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)

    def send_and_die(*args: Any, **options: Any) -> Result:
        webhook.post(*args, **options)
        raise Crash

    dying = Dispatcher(post.house.store, allow_private=lambda: True, post=send_and_die)
    spreading = Runner(post.house.store, [Job("outbox", 1, dying.work)])
    with pytest.raises(Crash):
        spreading.work_once()
    (row,) = post.rows(notice_id)
    assert (row.status, row.lease != "") == ("waiting", True)
    post.work()
    assert len(post.hooks.received) == 1, "until its lease ends it is nobody else's"
    post.work(LEASE_S)
    assert [hook.headers["webhook-id"] for hook in post.hooks.received] == [notice_id] * 2
    assert post.rows(notice_id)[0].status == "delivered"


def test_one_that_slept_through_its_lease_neither_sends_nor_notes(post: Post) -> None:
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    slept: list[str] = []

    def sleep_then_send(*args: Any, **options: Any) -> Result:
        post.house.clock.wait(LEASE_S)
        with ThreadPoolExecutor(1) as other:
            other.submit(post.dispatcher.send_due, other_senders).result()
        slept.append("awake")
        return Never("late")

    with ThreadPoolExecutor(2) as other_senders, ThreadPoolExecutor(2) as mine:
        post.house.store.run(post.dispatcher._spread_some)
        sleepy = Dispatcher(post.house.store, allow_private=lambda: True, post=sleep_then_send)
        sleepy.send_due(mine)
    assert slept == ["awake"]
    (row,) = post.rows(notice_id)
    assert (row.status, row.reason, row.attempts) == ("delivered", "", 1), (
        "the late word is refused"
    )


def test_what_lies_too_far_ahead_after_a_clock_was_set_back_is_sent_now(post: Post) -> None:
    post.hooks.status = 500
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    notice_id = post.tell(Notice.TOPPED_UP, PAID)
    post.work()
    post.hooks.status = 200
    post.work(-30 * 86_400)
    assert post.rows(notice_id)[0].status == "delivered"


def test_a_kind_of_a_later_version_waits_for_it(post: Post) -> None:
    post.targets.add_endpoint(PRACTICE, post.hooks.url)
    post.tell(Notice.TOPPED_UP, PAID)
    post.house.change(
        "INSERT INTO credit_notice (practice_no, kind, key, notice_id, facts, told_at_s)"
        " VALUES (1, 'of_tomorrow', 'k', 'ntc_x', '{}', 0)"
    )
    post.work()
    assert len(post.hooks.received) == 1
    assert post.house.rows("SELECT kind FROM credit_notice WHERE spread_at_s = 0") == [
        {"kind": "of_tomorrow"}
    ]


def test_the_body_is_the_same_in_every_try() -> None:
    row = outbox.NoticeRow(1, "topped_up", "k", "ntc_1", json.dumps(PAID), 1_762_945_200)
    assert payload(row, "p") == (
        b'{"type":"topped_up","timestamp":"2025-11-12T11:00:00Z","data":{"id":"ntc_1",'
        b'"practice_id":"p","price_chf":"30.00","credit_usd":"10.00","automatic":0}}'
    )
