"""The end of a run: faults stop, the clock runs on, the jobs run; then everything must fit.

Law: nothing waits for ever. What is not done lies in front of a person, with an alarm; the money
at Stripe and the credit in the ledger match one to one, and every call has one end.
"""

from __future__ import annotations

from random import Random

from tests.simulation import practices
from tests.simulation.attempts import IN_FLIGHT
from tests.simulation.book import Own, OwnCall, bought_nano_usd, left_nano_usd
from tests.simulation.history import Violation
from tests.simulation.ledger import GIFTED, INCLUDED, LOSS, PURCHASED, USED
from tests.simulation.outside import deliver_all
from tests.simulation.server import Server
from tests.simulation.truth import Payment
from tests.simulation.world import World

_MINUTE_S, _HOUR_S = 60, 3600
_PAUSES_S = (
    5,
    61,
    20 * _MINUTE_S,
    3 * _HOUR_S,
    9 * _HOUR_S,
    13 * _HOUR_S,
    25 * _HOUR_S,
    26 * _HOUR_S,
)
"""As long as Stripe repeats an event, and longer than anything waits."""
RESERVED, SETTLED, RELEASED, EXPIRED, SETTLED_LATE = 1, 2, 3, 4, 5


def quiesce(world: World) -> None:
    """Let everything come to its end, and judge it."""
    world.history.add("-- the end begins: no more faults")
    world.yard.drain()
    world.yard.calm = True
    rng = Random(f"{world.seed}/end")
    world.yard.rng = rng
    server = world.server(rng)
    practices.order_stop(world, world.everybody, server, stop=False)
    for own in world.owns.values():
        practices.again(world, own, server)
    for number, pause_s in enumerate(_PAUSES_S):
        world.clock.advance_ms(pause_s * 1000)
        if number == len(_PAUSES_S) - 3:  # so that nothing new begins shortly before the end
            practices.order_stop(world, world.everybody, world.server(rng), stop=True)
        _round(world, world.server(rng), rng)
        if world.odds.loss and number == len(_PAUSES_S) - 2:
            _reconcile(world, world.server(rng))
    Judge(world).judge(world.server(rng))


def _reconcile(world: World, server: Server) -> None:
    """Compare everything since the beginning with Stripe: what was lost on the way is found.

    Where nothing was lost, the inbox alone must have got everything right.
    """
    server.spawn("reconcile", lambda: server.reconcile(world.began_at_s - 1).found)
    world.yard.drain()


def _round(world: World, server: Server, rng: Random) -> None:
    world.history.add("-- round of the end")
    for payment in list(world.oracle.truth.payments.values()):
        if payment.status in {"processing", "requires_action"}:
            outcome = rng.choice(("succeeds", "insufficient_funds"))
            world.at_stripe(f"/payment_intents/{payment.id}/settle", outcome=outcome)
    for own in world.owns.values():
        for call in own.calls:
            if call.waits:
                practices.finish(world, own, call, server, rng)
    deliver_all(world, server)
    world.yard.drain()
    for name, work in sorted(server.jobs().items()):
        server.spawn(name, work)
        world.yard.drain()
    world.oracle.truth.update()
    world.oracle.charged_once()


class Judge:
    """Compares the end with what was really paid, used and given."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._truth = world.oracle.truth
        self._purchases = world.oracle.purchases
        self._ledger = world.oracle.ledger
        self._cursor = world.disk.looking.cursor()

    def judge(self, server: Server) -> None:
        """Raise `Violation` for the first thing that does not fit."""
        self._world.oracle.committed()
        self._nothing_waits()
        for payment in self._truth.payments.values():
            self._payment(payment)
        for number, name in self._ledger.names.items():
            self._calls(number, self._world.owns[name])
            self._sums(number, self._world.owns[name])
        verification = server.guthaben.verify()
        if not verification.ok:
            raise Violation("verify", f"{verification.problems[:3]}")

    def _nothing_waits(self) -> None:
        for row in self._purchases.rows.values():
            if row.status in IN_FLIGHT and row.key:
                raise Violation("I-27 liveness", f"an attempt waits for ever: {row}")
        waiting = self._cursor.execute(
            "SELECT * FROM credit_refund WHERE status IN ('pending', 'unknown')"
        ).fetchall()
        if waiting:
            raise Violation("I-27 liveness", f"a refund waits for ever: {waiting[0]}")
        letters = self._cursor.execute(
            "SELECT provider_event_id, event_type, status, reason FROM credit_inbox"
        ).fetchall()
        known = {letter[0] for letter in letters}
        if lost := self._world.oracle.received - known:
            raise Violation("W5 answered before durable", f"{sorted(lost)[:3]}")
        alarms = {row[0] for row in self._cursor.execute("SELECT code FROM credit_alarm")}
        for event_id, kind, status, reason in letters:
            if status == "new":
                raise Violation("I-27 liveness", f"{kind} {event_id} waits for ever: {reason}")
            if status == "dead" and "webhook_dead" not in alarms:
                raise Violation("I-27 liveness", f"{kind} {event_id} died without an alarm")
            if status == "quarantined" and "payment_quarantined" not in alarms:
                raise Violation("I-27 liveness", f"{kind} {event_id} lies there, and nobody knows")

    def _payment(self, payment: Payment) -> None:
        """What was captured is credited once, to whoever paid, and what is left of it fits."""
        credited = [
            row
            for row in self._purchases.rows.values()
            if row.payment_id == payment.id and row.grant_no and not row.parent_no
        ]
        if payment.foreign or not payment.captured:
            if credited:
                raise Violation("I-14 paid before credited", f"{payment.id}: {credited}")
            return
        if not credited and self._is_poisoned(payment):
            return
        if len(credited) != 1 or credited[0].status != "succeeded":
            found = [r for r in self._purchases.rows.values() if r.topup_id == payment.topup_id]
            raise Violation("I-16 one to one", f"{payment}: {credited or found}")
        (row,) = credited
        left = left_nano_usd(row.amount, payment.net, payment.captured)
        if row.amount - row.clawed != left:
            told = f"{row.amount - row.clawed} is left, {left} of it paid for"
            raise Violation("I-13 netting", f"{payment}: {told}")

    def _is_poisoned(self, payment: Payment) -> bool:
        """Say whether a stranger's payment bears the same top-up's id: then a person decides."""
        twins = self._truth.of_topup(payment.topup_id)
        rows = [r for r in self._purchases.rows.values() if r.topup_id == payment.topup_id]
        held_back = {"quarantined"} if payment.net else {"quarantined", "canceled"}
        return any(t.foreign for t in twins) and {r.status for r in rows} <= held_back

    def _calls(self, number: int, own: Own) -> None:
        rows = {
            row[0]: row[1:]
            for row in self._cursor.execute(
                "SELECT key, call_no, status, cost_nano_usd, expires_at_ms, ended_at_s"
                " FROM credit_call WHERE practice_no = ?",
                (number,),
            )
        }
        books = self._ledger.books[number]
        for key, (call_no, _status, cost, _expires, _ended) in rows.items():
            if books.used[call_no] != cost:
                raise Violation("I-3 replay", f"{own.id} {key}: {books.used[call_no]}, {cost}")
        for key, cost in own.usages.items():
            if rows.pop(key)[2] != cost:
                raise Violation("metered once", f"{own.id} {key}: {cost}")
        for call in own.calls:
            found = rows.pop(call.key, None)
            if (found is None) is not call.gone:
                raise Violation("I-12 durable before the call", f"{own.id} {call}: {found}")
            if found is not None:
                _no, status, cost, expires_ms, ended_s = found
                self._one_call(call, status, cost, early=ended_s * 1000 + 1000 <= expires_ms)
        if rows:
            raise Violation("calls of nobody", f"{own.id}: {rows}")

    def _one_call(self, call: OwnCall, status: int, cost: int, *, early: bool) -> None:
        if status == RESERVED or call.waits:
            raise Violation("I-10 no leak", f"{call} is still held")
        by_itself = call.amount if call.on_expiry == "charge" else 0
        if call.forgotten:
            fits = status == EXPIRED and not early and cost == by_itself
        elif call.cost is not None and call.cost >= 0:
            fits = status in {SETTLED, SETTLED_LATE} and cost == call.cost
        elif status == EXPIRED:
            fits = not early and cost == by_itself
        else:
            fits = status == RELEASED and cost == 0
        if not fits:
            raise Violation("I-9 one end", f"{call} ended as {status} at {cost}")

    def _sums(self, number: int, own: Own) -> None:
        """The ledger says what the practice would say: paid, given, included and used."""
        accounts = self._ledger.books[number].accounts
        mine = [p for p in self._truth.paid() if not p.foreign]
        mine = [p for p in mine if self._truth.owner_of(p) == own.id]
        mine = [p for p in mine if not self._is_poisoned(p)]
        expected = {
            PURCHASED: -sum(bought_nano_usd(p.captured) for p in mine),
            GIFTED: -sum(own.gifts.values()),
            LOSS: 0,
        }
        for account, amount in expected.items():
            if accounts[account] != amount:
                raise Violation("I-16 sums", f"{own.id}: {account}: {accounts[account]}, {amount}")
        costs = self._cursor.execute(
            "SELECT COALESCE(SUM(cost_nano_usd), 0) FROM credit_call WHERE practice_no = ?",
            (number,),
        ).fetchone()[0]
        if accounts[USED] != costs:
            raise Violation("I-16 sums", f"{own.id}: used {accounts[USED]}, {costs}")
        if own.allowance and accounts[INCLUDED] % own.allowance:
            raise Violation("one allowance per period", f"{own.id}: {accounts[INCLUDED]}")
