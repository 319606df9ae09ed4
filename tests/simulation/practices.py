"""What practices do: buy credit, set their automatic top-up, make AI calls.

Law: each is one task of a server process. What the practice hears is written into its book; when
the answer is lost it holds both as possible. A practice asks again with the same key.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Literal, TypeVar

from guthaben.domain.commands import Release
from guthaben.errors import GuthabenError, OutcomeUnknown, StoreUnavailable
from guthaben.services import requests
from guthaben.services.refunds import Wish
from guthaben.services.topups import AutoTopupChange
from tests.simulation.book import Own, OwnCall, Page, Possible, Terms
from tests.simulation.server import Server
from tests.simulation.world import USD, World

T = TypeVar("T")
URLS = {"success_url": "https://app.example/ok", "cancel_url": "https://app.example/no"}
_AMOUNTS = (1_000, 1_000, 1_234, 3_000, 3_001, 5_000, 25_001)
_CONSENT = "2026-11"
_FORGOTTEN = 0.12
"""How many calls lose their maker right after they were reserved."""


def _own(world: World, rng: Random) -> Own:
    return world.owns[rng.choice(sorted(world.owns))]


def _key(world: World, prefix: str) -> str:
    return f"{prefix}{len(world.history.lines)}"


# ---------------------------------------------------------------- buying


def top_up(world: World, rng: Random, own: Own | None = None) -> None:
    """Buy credit by hand, saving the card now and then."""
    own, server = own or _own(world, rng), world.server(rng)
    amount, save = rng.choice(_AMOUNTS), rng.random() < 0.5

    def work() -> Any:
        start = server.topups.start_checkout(own.id, amount, save_card=save, **URLS)
        _sent_to(world, own, amount)
        return f"page for {amount}: {start.topup_id}"

    server.spawn("top_up", work, own.id)


def set_up(world: World, rng: Random, own: Own | None = None) -> None:
    """Save a card without paying."""
    own, server = own or _own(world, rng), world.server(rng)

    def work() -> Any:
        server.topups.start_setup(own.id, **URLS)
        _sent_to(world, own, 0)

    server.spawn("set_up", work, own.id)


def _sent_to(world: World, own: Own, amount: int) -> None:
    task = world.yard.current
    assert task is not None
    own.pages.append(Page(task.page, amount))


def look(world: World, rng: Random) -> None:
    """Read the success page, the balance and the settings: nothing may come of it."""
    own, server = _own(world, rng), world.server(rng)

    def work() -> Any:
        server.topups.settings(own.id)
        server.guthaben.topups(own.id)
        return server.guthaben.balance(own.id).available_nano_usd

    server.spawn("look", work, own.id)


# ---------------------------------------------------------------- settings


def switch_on(world: World, rng: Random, own: Own | None = None) -> None:
    """Agree to the text, the amount and the cap; mostly with a card that is saved."""
    saved = sorted(set(world.oracle.truth.customers.values()))
    if own is None and saved and rng.random() < 0.9:
        own = world.owns[rng.choice(saved)]
    amount = rng.choice(_AMOUNTS)
    cap = amount * rng.choice((1, 1, 2, 3)) + rng.choice((0, 1, 999))
    percent, below = rng.choice((5, 20, 100)), rng.choice((0, USD, 5 * USD, 5 * USD))
    largest = rng.choice((0, 0, amount, cap))
    wish = Terms(True, amount, cap, percent, below, largest)
    _change(world, own or _own(world, rng), world.server(rng), wish, agrees=True)


def ask_for_more(world: World, rng: Random) -> None:
    """Change amount or cap without agreeing to anything: more may not come of it."""
    own = _own(world, rng)
    known = own.terms.last
    if known.enabled:
        amount = max(1_000, known.amount + rng.choice((-500, -1, 1, 5_000)))
        cap = max(amount, known.cap + rng.choice((-1_000, 0, 1, 50_000)))
        largest = min(max(known.largest, amount), cap) if known.largest else 0
        wish = known._replace(amount=amount, cap=cap, largest=largest)
        _change(world, own, world.server(rng), wish, agrees=False)


def switch_off(world: World, rng: Random) -> None:
    """Switch the automatic top-up off."""
    own = _own(world, rng)
    wish = own.terms.last._replace(enabled=False)
    _change(world, own, world.server(rng), wish, agrees=False)


def _change(world: World, own: Own, server: Server, wish: Terms, *, agrees: bool) -> None:
    change = AutoTopupChange(
        enabled=wish.enabled,
        amount_rappen=wish.amount or 3_000,
        cap_rappen=wish.cap or 30_000,
        trigger_percent=wish.percent,
        trigger_below_nano_usd=wish.below,
        largest_rappen=wish.largest,
        consent_text_version=_CONSENT if agrees else "",
        actor=own.id,
    )
    agreed = agrees or not wish.enabled or any(known.holds(wish) for known in own.terms.now)
    # Whoever has agreed to nothing has the terms of before, whatever the engine says.
    after = wish if agreed else own.terms.last

    def told() -> Any:
        server.topups.change_settings(own.id, change)
        return wish

    _settle(world, own, own.terms, after, server, "change", told, agrees=agrees)


def _settle(
    world: World,
    own: Own,
    states: Possible[T],
    after: T,
    server: Server,
    name: str,
    ask: Callable[[], Any],
    *,
    agrees: bool = False,
) -> None:
    """Change a state; both stay possible until the answer is known. One change at a time."""
    if own.changing:
        return  # else nobody could say which of two came later
    own.changing = True

    def work() -> Any:
        before = states.now
        states.become(world.commits, *before, after)
        if agrees:
            own.agreed_at = 1 << 60
        try:
            answer = ask()
        except OutcomeUnknown:
            raise
        except GuthabenError:
            states.become(world.commits, *before)
            raise
        finally:
            own.changing = False
        states.become(world.commits, after)
        if agrees:
            own.agreed_at = world.commits
        return answer

    server.spawn(name, work, own.id)


# ---------------------------------------------------------------- calls


def reserve(world: World, rng: Random) -> None:
    """Reserve credit for a call, now and then far too much."""
    own = _own(world, rng)
    amount = rng.choice((USD // 7, USD, 4 * USD, 9 * USD + 1))
    ends: list[Literal["release", "charge"]] = ["release", "release", "charge"]
    call = OwnCall(_key(world, "r"), amount, rng.choice(ends))
    own.calls.append(call)
    _reserve(world, own, call, world.server(rng))


def _reserve(world: World, own: Own, call: OwnCall, server: Server) -> None:
    def work() -> Any:
        try:
            handle = server.guthaben.reserve(
                own.id, call.amount, key=call.key, ttl_s=900, on_expiry=call.on_expiry
            )
        except (OutcomeUnknown, StoreUnavailable):
            raise
        except GuthabenError:
            call.gone = True
            raise
        call.id = handle.id
        # Of a chance of its own, so that nothing else of the run depends on it.
        call.forgotten = Random(f"{world.seed}/{call.key}").random() < _FORGOTTEN
        return f"{call.key} {call.amount}{' forgotten' if call.forgotten else ''}"

    server.spawn("reserve", work, own.id)


def end_call(world: World, rng: Random) -> None:
    """Settle a call with what it really cost, or release it; or ask again what was not answered."""
    own = _own(world, rng)
    waiting = [call for call in own.calls if call.waits]
    if waiting:
        finish(world, own, rng.choice(waiting), world.server(rng), rng)


def finish(world: World, own: Own, call: OwnCall, server: Server, rng: Random) -> None:
    """Bring one call a step nearer to its end."""
    if not call.id:
        _reserve(world, own, call, server)
        return
    if call.cost is None:
        releases = rng.random() < 0.2
        call.cost = -1 if releases else call.amount * rng.choice((0, 30, 80, 100, 160)) // 100

    def work() -> Any:
        call_no = server.guthaben.core.call_no(own.id, call.id)
        cost = call.cost or 0
        command = Release(call_no) if cost < 0 else requests.settle_command(call_no, cost, {})
        outcome = server.guthaben.execute(own.id, command)
        call.over = True
        assert outcome.call is not None
        return f"{call.key} {cost}: {outcome.call.status}"

    server.spawn("finish", work, own.id)


def use(world: World, rng: Random) -> None:
    """Meter a call that nobody reserved."""
    own, server = _own(world, rng), world.server(rng)
    key, cost = _key(world, "u"), rng.choice((1, USD // 3, 3 * USD, 9 * USD, 15 * USD, 25 * USD))

    def work() -> Any:
        server.guthaben.record_usage(own.id, cost, key=key)

    own.usages[key] = cost
    server.spawn("use", work, own.id)


def again(world: World, own: Own, server: Server) -> None:
    """Tell once more of everything that may not have been heard; the keys keep it from counting."""

    def work() -> Any:
        for key, cost in own.usages.items():
            server.guthaben.record_usage(own.id, cost, key=key)
        for key, amount in own.gifts.items():
            server.guthaben.grant(own.id, amount, key=key)

    server.spawn("again", work, own.id)


# ---------------------------------------------------------------- what the operator does


def gift(world: World, rng: Random) -> None:
    """Give credit."""
    own, server = _own(world, rng), world.server(rng)
    key, amount = _key(world, "g"), rng.choice((1, USD, 7 * USD))
    own.gifts[key] = amount
    server.spawn("gift", lambda: server.guthaben.grant(own.id, amount, key=key), own.id)


def freeze(world: World, rng: Random) -> None:
    """Freeze a practice, or let it go on."""
    order_freeze(world, _own(world, rng), world.server(rng), active=rng.random() < 0.6)


def order_freeze(world: World, own: Own, server: Server, *, active: bool) -> None:
    """Tell a server to freeze a practice, or to let it go on."""

    def ask() -> Any:
        server.guthaben.set_policy(own.id, status="active" if active else "frozen")

    _settle(world, own, own.active, active, server, "freeze", ask)


def stop_charges(world: World, rng: Random) -> None:
    """Stop the charges of one practice, or of all, or let them go on."""
    own = world.everybody if rng.random() < 0.5 else _own(world, rng)
    stop = rng.random() < 0.5
    order_stop(world, own, world.server(rng), stop=stop)


def order_stop(world: World, own: Own, server: Server, *, stop: bool) -> None:
    """Tell a server to stop charges, or to resume."""

    def ask() -> Any:
        whom = own.id or None
        if stop:
            return server.stops.stop(whom, reason="simulated", actor="operator")
        return server.stops.resume(whom, actor="operator")

    _settle(world, own, own.stopped, stop, server, "stop" if stop else "resume", ask)


def meddle(world: World, rng: Random) -> None:
    """Switch off, stop or freeze a practice while its charge is under way, and is slow."""
    charges = [task for task in world.yard.tasks if task.name.startswith("charge")]
    if charges:
        charge = rng.choice(charges)
        charge.asleep = True
        own, server = world.owns[charge.practice_id], world.server(rng)
        match rng.randrange(3):
            case 0:
                wish = own.terms.last._replace(enabled=False)
                _change(world, own, server, wish, agrees=False)
            case 1:
                order_stop(world, own, server, stop=True)
            case _:
                order_freeze(world, own, server, active=False)


def license_periods(world: World, rng: Random) -> None:
    """Tell the licence's current period."""
    own = _own(world, rng)
    if own.allowance:
        tell_license(world, own, world.server(rng))


def tell_license(world: World, own: Own, server: Server) -> None:
    """Tell a practice's licence: 30 days from the last told end on."""
    length_s = 30 * 86_400
    if not own.period_start_s:
        own.period_start_s = world.clock.s - 29 * 86_400
    while own.period_start_s + length_s <= world.clock.s:
        own.period_start_s += length_s
    start_s = own.period_start_s

    def work() -> Any:
        server.guthaben.set_license(
            own.id,
            own.license,
            period_start_s=start_s,
            period_end_s=start_s + length_s,
            allowance_nano_usd=own.allowance,
        )

    server.spawn("license", work, own.id)


def refund(world: World, rng: Random) -> None:
    """Give money back as an operator: all, or a part, sometimes more than was not spent."""
    paid = [p for p in world.oracle.truth.paid() if not p.foreign]
    if not paid:
        return
    payment, server = rng.choice(paid), world.server(rng)
    amount = rng.choice((None, 1, payment.captured // 2, payment.captured + 1))
    wish = Wish(amount, _key(world, "w"), "simulated", "operator", allow_debt=rng.random() < 0.6)
    world.wishes[wish.key] = (payment.id, amount)
    server.spawn("refund", lambda: server.refunds.refund(payment.id, wish).status)


Action = Callable[..., None]
ACTIONS: dict[str, tuple[int, Action]] = {
    "top_up": (7, top_up),
    "set_up": (2, set_up),
    "look": (2, look),
    "switch_on": (10, switch_on),
    "ask_for_more": (2, ask_for_more),
    "switch_off": (2, switch_off),
    "reserve": (16, reserve),
    "end_call": (12, end_call),
    "use": (18, use),
    "gift": (1, gift),
    "freeze": (1, freeze),
    "stop_charges": (1, stop_charges),
    "license": (2, license_periods),
    "operator_refund": (3, refund),
}
