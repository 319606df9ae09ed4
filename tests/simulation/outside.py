"""What others do: customers at the hosted page, banks, Stripe's deliveries, operators, power cuts.

Law: nothing here goes through the engine, except that a delivery is handed to a server and a job is
started in one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import urlencode

from guthaben.sandbox.deliveries import Post
from guthaben.sandbox.model import NoAnswer
from tests.simulation.history import Violation
from tests.simulation.server import API_KEY, Server
from tests.simulation.truth import Payment
from tests.simulation.world import World

_GOOD = "4242424242424242"
_CARDS = (
    *([_GOOD] * 8),
    "4000000000000341",  # saves, is declined later
    "4000002500003155",  # wants authentication later
    "4000000000007726",  # refunds stay pending
    "4000000000006207",  # in processing later
    "4000000000006306",  # answers late later
    "4000000000006504",  # has expired later
    "4000000000006603",  # is stolen later
    "4000000000006108",  # in processing now and later
)
_BAD_CARDS = ("4000000000000002", "4000000000009995")
_OUTCOMES = (
    None, "succeeds", "insufficient_funds", "do_not_honor", "processing", "slow", "expired_card",
    "lost_card", "authentication_required", "issuer_not_available",
)  # fmt: skip


# ---------------------------------------------------------------- the hosted page


def pay(world: World, rng: Random) -> None:
    """Pay a page, or save the card on it; now and then with a bad card first."""
    owns = [own for own in world.owns.values() if own.pages]
    if not owns:
        return
    own = rng.choice(owns)
    page = rng.choice(own.pages)
    card = rng.choice(_BAD_CARDS) if rng.random() < 0.15 else rng.choice(_CARDS)
    email = f"{own.id}@practice.example"
    if world.at_stripe(f"/checkout/{page.session_id}/pay", card=card, email=email):
        own.pages.remove(page)


def abandon(world: World, rng: Random) -> None:
    """Leave a page; it expires."""
    owns = [own for own in world.owns.values() if own.pages]
    if owns:
        own = rng.choice(owns)
        page = own.pages.pop(rng.randrange(len(own.pages)))
        world.at_stripe(f"/checkout/{page.session_id}/expire")


# ---------------------------------------------------------------- the bank


def card_changes(world: World, rng: Random) -> None:
    """Let a saved card do something else from now on."""
    cards = sorted(world.oracle.truth.cards)
    if cards:
        world.at_stripe(
            f"/payment_methods/{rng.choice(cards)}/outcome", outcome=rng.choice(_OUTCOMES)
        )


def processing_ends(world: World, rng: Random) -> None:
    """Let a payment that was in processing, or waiting for its holder, end."""
    waiting = _payments(world, lambda p: p.status in {"processing", "requires_action"})
    if waiting:
        outcome = rng.choice(("succeeds", "succeeds", "insufficient_funds"))
        world.at_stripe(f"/payment_intents/{rng.choice(waiting).id}/settle", outcome=outcome)


def _payments(world: World, wanted: Callable[[Payment], bool]) -> list[Payment]:
    return [p for p in world.oracle.truth.payments.values() if wanted(p)]


def refund(world: World, rng: Random) -> None:
    """Refund in the dashboard: all, or a part, again and again."""
    paid = _payments(world, lambda p: p.captured > 0)
    if paid:
        payment = rng.choice(paid)
        read = world.oracle.truth.payments.get(world.last_read, payment)
        attempts = world.oracle.purchases.attempts
        charged = [p for p in paid if p.topup_id in attempts]
        payment = rng.choice((payment, read, rng.choice(charged or [payment])))
        part = rng.choice((None, 1, 333, payment.captured // 2, payment.captured // 3 + 1))
        told = {} if part is None else {"amount": part}
        world.at_stripe(f"/charges/{payment.charge_id}/refund", **told)


def refund_ends(world: World, rng: Random) -> None:
    """Let a refund succeed late, or fail, even one that had succeeded."""
    found = sorted({ref for p in world.oracle.truth.payments.values() for ref in p.refunds})
    if found:
        status = rng.choice(("succeeded", "failed", "canceled"))
        world.at_stripe(f"/refunds/{rng.choice(found)}/settle", status=status)


def dispute(world: World, rng: Random) -> None:
    """Dispute a payment, wholly or in part, or only ask about it."""
    paid = _payments(world, lambda p: p.captured > 0 and not p.withdrawals)
    if paid:
        payment = rng.choice(paid)
        body: dict[str, Any] = {"inquiry": rng.random() < 0.2}
        if rng.random() < 0.3:
            body["amount"] = payment.captured // 2 + 1
        world.at_stripe(f"/charges/{payment.charge_id}/dispute", **body)


def dispute_ends(world: World, rng: Random) -> None:
    """Win or lose a dispute; one that was lost may still be won."""
    found = sorted({ref for p in world.oracle.truth.payments.values() for ref in p.withdrawals})
    if found:
        status = rng.choice(("won", "lost", "lost", "warning_closed"))
        world.at_stripe(f"/disputes/{rng.choice(found)}/close", status=status)


def warn(world: World, rng: Random) -> None:
    """Let a card's issuer warn of fraud."""
    paid = _payments(world, lambda p: p.captured > 0)
    if paid:
        world.at_stripe(f"/charges/{rng.choice(paid).charge_id}/fraud_warning")


def reconcile(world: World, rng: Random) -> None:
    """Compare the last days with Stripe, as a server does every day."""
    server = world.server(rng)
    since_s = max(world.began_at_s, world.clock.s - 5 * 86_400)
    if since_s < world.clock.s - 600:
        server.spawn("reconcile", lambda: server.reconcile(since_s).found)


def forge(world: World, rng: Random) -> None:
    """Make a payment at Stripe whose metadata promise more than was paid, or name a paid top-up."""
    own = world.owns[rng.choice(sorted(world.owns))]
    known = sorted({p.topup_id for p in _payments(world, lambda p: bool(p.topup_id))})
    told = {"aza_purpose": "ai_topup", "practice_id": own.id, "internal_credit_usd": "1000.00"}
    told["paid_chf"] = rng.choice(("1.00", "3000.00"))
    if known and rng.random() < 0.6:
        told["topup_id"] = rng.choice(known)
    params = {"amount": "100", "currency": rng.choice(("chf", "chf", "eur")), "confirm": "true",
              "payment_method": "pm_card_visa", "off_session": "true",
              "automatic_payment_methods[enabled]": "true",
              **{f"metadata[{name}]": value for name, value in told.items()}}  # fmt: skip
    headers = {"authorization": f"Bearer {API_KEY}"}
    before = set(world.oracle.truth.payments)
    try:
        world.model.request("POST", "/v1/payment_intents", "", urlencode(params).encode(), headers)
    except NoAnswer:
        return
    world.oracle.truth.update()
    for new in set(world.oracle.truth.payments) - before:
        world.oracle.truth.payments[new].foreign = True
    world.note(f"outside: a foreign payment says {told}")


# ---------------------------------------------------------------- deliveries


def deliver(world: World, rng: Random) -> None:
    """Deliver some of what is due, in any order, some of it twice."""
    posts = world.model.due_deliveries()
    server = world.server(rng)
    for _ in range(min(len(posts), rng.choice((1, 2, 4, 9, 30)))):
        post = posts.pop(rng.randrange(len(posts)))
        if (
            rng.randrange(1000) < world.odds.loss
        ):  # somebody between us answered 200, and nobody will tell again
            world.model.answered(post, 200)
            world.note(f"outside: {post.type} is lost for ever")
            continue
        for _copy in range(rng.choice((1, 1, 1, 2))):
            hand_over(world, server, post)


def deliver_all(world: World, server: Server) -> None:
    """Deliver everything that is due, in order."""
    for post in world.model.due_deliveries():
        hand_over(world, server, post)


def hand_over(world: World, server: Server, post: Post) -> None:
    """Let a server receive one delivery; Stripe hears how it was answered."""

    def work() -> Any:
        new = server.inbox.receive(post.body, post.signature)
        world.oracle.received.add(post.event_id)
        world.model.answered(post, 200)
        return f"{post.type} {'new' if new else 'known'}"

    server.spawn("receive", work)


def forged_delivery(world: World, rng: Random) -> None:
    """Deliver something that Stripe has not signed, or signed long ago."""
    posts = world.model.due_deliveries()
    if not posts:
        return
    post, server = rng.choice(posts), world.server(rng)
    old = rng.random() < 0.5
    signature = post.signature
    body = post.body if old else post.body.replace(b'"chf"', b'"usd"').replace(b"100", b"900")
    if old:
        stamp = f"t={world.clock.s - 301}"
        signature = ",".join([stamp, *signature.split(",")[1:]])
    if body == post.body and signature == post.signature:
        return

    def work() -> Any:
        server.inbox.receive(body, signature)
        raise Violation("forged webhook", "it was taken")

    server.spawn("forged", work)


# ---------------------------------------------------------------- jobs and power


def job(world: World, rng: Random) -> None:
    """Run one of the background jobs of a server."""
    server = world.server(rng)
    jobs = server.jobs()
    name = rng.choice(sorted(jobs))
    server.spawn(name, jobs[name])


def all_jobs(world: World, rng: Random) -> None:
    """Run every background job of a server, in any order and beside each other."""
    server = world.server(rng)
    jobs = list(server.jobs().items())
    rng.shuffle(jobs)
    for name, work in jobs:
        server.spawn(name, work)


def inbox(world: World, rng: Random) -> None:
    """Work the inbox, the job that runs most often."""
    server = world.server(rng)
    server.spawn("inbox", server.jobs()["inbox"])


def start(world: World, rng: Random) -> None:
    """Start a process, beside another one or after a crash."""
    world.start(rng.choice("AB"))


def kill(world: World, rng: Random) -> None:
    """Let a process die where it stands."""
    world.bury()
    if world.servers and world.yard.odds.crash:
        world.yard.kill(world.servers[rng.choice(sorted(world.servers))].process, "power cut")


def passes(world: World, rng: Random) -> None:
    """Only time passes."""


Action = Callable[..., None]
ACTIONS: dict[str, tuple[int, Action]] = {
    "pay": (14, pay),
    "abandon": (2, abandon),
    "card_changes": (5, card_changes),
    "processing_ends": (4, processing_ends),
    "refund": (5, refund),
    "refund_ends": (3, refund_ends),
    "dispute": (3, dispute),
    "dispute_ends": (3, dispute_ends),
    "warn": (1, warn),
    "reconcile": (2, reconcile),
    "forge": (1, forge),
    "deliver": (16, deliver),
    "forged_delivery": (1, forged_delivery),
    "job": (12, job),
    "inbox": (14, inbox),
    "start": (3, start),
    "kill": (2, kill),
    "passes": (4, passes),
}
