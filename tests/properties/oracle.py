"""The oracle: a second, slow and obvious model of one practice, written from docs/rules.md alone.

It shares no code with the engine and keeps no balance. There is a list of movements (every
nano-USD that ever moved) and a list of pins (plus when a call reserves, minus when it ends); free,
held, debt and available are summed from the two on demand.

Every command is tried on a copy first. A refusal or a "nothing happens" that changed so much as one
entry of the copy fails an assertion, and so does a broken invariant after an accepted command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypedDict
from zoneinfo import ZoneInfo

MAX_AMOUNT = 10**15
MAX_TTL_MS = 86_400_000
MAX_BALANCE = 4 * 10**18
SWEEP_AT_MOST = 100
KINDS = ("allowance", "promotional", "paid")  # in burn-down order

Period = tuple[str, int, int, int | None]  # licence, start_s, end_s, allowance
Flow = tuple[str, str, int, int]  # source, target, grant number or 0, amount
P = ParamSpec("P")


class Move(NamedTuple):
    seq: int
    command: int
    source: str
    target: str
    grant_no: int
    amount: int
    call: int
    payment: tuple[str, str]  # (payment, "credit" or "bonus")
    reverses: int


class Pin(NamedTuple):
    grant_no: int
    call: int
    amount: int


class Grant(TypedDict):
    no: int
    kind: str
    expires_at_s: int | None
    period: tuple[str, int] | None  # licence and start, of an allowance
    end_s: int
    former: list[tuple[str, int]]  # what its period was called before it was told
    provisional: bool  # granted because the period rolled on, not because it was told


class Call(TypedDict):
    no: int
    status: str
    period: Period
    reserved: int
    slices: list[tuple[int, int]]
    created_at_ms: int
    expires_at_ms: int
    on_expiry: str
    on_exception: str
    by_exception: bool  # ended by an exception
    cost: int | None
    usage: str


class Licence(NamedTuple):
    code: str
    status: str
    start_s: int
    end_s: int
    allowance: int


class Prediction(TypedDict):
    ok: bool
    reason: str
    applied: bool
    replayed: bool
    available: int | None  # of the command's period afterwards; None where it isn't predicted
    status: str | None
    cost: int | None
    call: int | None
    flows: list[Flow]


class Verdict(NamedTuple):
    """What a rule says; `run` turns it into a prediction."""

    ok: bool = True
    reason: str = ""
    applied: bool = True
    replayed: bool = False
    call: int | None = None
    period: Period | None = None
    available: int | None = None


def no(reason: str, call: int | None = None, available: int | None = None) -> Verdict:
    return Verdict(False, reason, applied=False, call=call, available=available)


def command(
    rule: Callable[Concatenate[Oracle, int, P], Verdict],
) -> Callable[Concatenate[Oracle, int, P], Prediction]:
    """Try the rule on a copy, prove that a refusal touched nothing, keep the copy if accepted."""

    @wraps(rule)
    def run(self: Oracle, now_ms: int, /, *args: P.args, **kwargs: P.kwargs) -> Prediction:
        before = self.fingerprint()
        trial = self.copy()
        verdict = rule(trial, now_ms, *args, **kwargs)
        if not verdict.applied:
            assert trial.fingerprint() == before, f"{rule.__name__}: {verdict} changed something"
            return self._predict(verdict, now_ms, 0)
        trial._repay_debt(now_ms)
        if max(trial.debt(), trial.credit()) > self.limit:
            return self._predict(no("balance_limit"), now_ms, 0)
        trial.log.append(rule.__name__.strip("_"))
        self.__dict__.update(trial.__dict__)
        self.check(now_ms)
        return self._predict(verdict, now_ms, len(self.log))

    return run


class Oracle:
    """One practice. Every command takes `now_ms` first and returns a `Prediction`."""

    def __init__(
        self,
        *,
        zone: str = "Europe/Zurich",
        overrun: str = "debt",
        debt_blocks_allowance: bool = False,
        grace_ms: int = 0,
        limit: int = MAX_BALANCE,
    ) -> None:
        self.zone, self.grace_ms, self.limit = zone, grace_ms, limit
        self.overrun, self.debt_blocks_allowance = overrun, debt_blocks_allowance
        self.status = "active"
        self.licence: Licence | None = None
        self.moves: list[Move] = []
        self.pins: list[Pin] = []
        self.grants: list[Grant] = []
        self.calls: list[Call] = []
        self.keys: list[tuple[str, str, tuple[object, ...], int | None]] = []
        self.captured: list[tuple[str, int]] = []
        self.log: list[str] = []

    def copy(self) -> Oracle:
        twin = Oracle.__new__(Oracle)
        twin.__dict__.update(self.__dict__)
        for name in ("moves", "pins", "keys", "captured", "log"):
            setattr(twin, name, list(getattr(self, name)))
        twin.grants = [grant.copy() for grant in self.grants]
        twin.calls = [call.copy() for call in self.calls]
        return twin

    def fingerprint(self) -> str:
        return repr(sorted(self.__dict__.items()))

    # -- Observers ----------------------------------------------------------------------------

    def free(self, grant_no: int) -> int:
        """What a grant got, less what left it, less what is pinned."""
        got = sum(m.amount for m in self.moves if m.grant_no == grant_no and m.target in KINDS)
        left = sum(m.amount for m in self.moves if m.grant_no == grant_no and m.source in KINDS)
        return got - left - self.held_of(grant_no)

    def held_of(self, grant_no: int) -> int:
        return sum(pin.amount for pin in self.pins if pin.grant_no == grant_no)

    def held(self) -> int:
        return sum(pin.amount for pin in self.pins)

    def debt(self) -> int:
        grown = sum(m.amount for m in self.moves if m.source == "debt")
        return grown - sum(m.amount for m in self.moves if m.target == "debt")

    def credit(self) -> int:
        """All free and held credit, eligible or not: what the balance limit looks at."""
        return sum(self.free(g["no"]) + self.held_of(g["no"]) for g in self.grants)

    def available(self, period: Period | None, now_ms: int) -> int:
        """Include the allowance that the first accepted command of the period would create."""
        wanted = period or self.current_period(now_ms)
        found = sum(self.free(no) for no in self._live(("promotional", "paid"), now_ms))
        if self._allowance_blocked():
            return found
        included = sum(self.free(grant["no"]) for grant in self._allowance_for(wanted))
        return found + included + self._allowance_to_come(wanted)

    def balance(self, period: Period | None, now_ms: int) -> int:
        """Tell what is available after a sweep, as a balance does."""
        self.sweep(now_ms)
        return self.available(period, now_ms)

    def current_period(self, now_ms: int) -> Period:
        now_s = now_ms // 1000
        if self.licence is None or self.licence.status != "active":
            start_s, end_s = month_around(now_s, self.zone)
            return ("", start_s, end_s, None)
        start_s, end_s = self.licence.start_s, self.licence.end_s
        length = end_s - start_s
        while now_s >= end_s:
            start_s, end_s = start_s + length, end_s + length
        return (self.licence.code, start_s, end_s, self.licence.allowance)

    def due(self, now_ms: int) -> list[int]:
        """Every due call in the order of due time and number, not only the first hundred."""
        late = [call for call in self.calls if call["status"] == "reserved"]
        late = [call for call in late if now_ms >= call["expires_at_ms"] + self.grace_ms]
        return [call["no"] for call in sorted(late, key=lambda c: (c["expires_at_ms"], c["no"]))]

    def flows(self) -> list[tuple[str, list[Flow]]]:
        """Tell every accepted command's name and its transfers in order."""
        return [(name, self._flows_of(n)) for n, name in enumerate(self.log, start=1)]

    def _flows_of(self, command_no: int) -> list[Flow]:
        return [m[2:6] for m in self.moves if m.command == command_no]

    def totals(self) -> dict[str, int]:
        """What came into each account less what left it; `debt` is negative while it is owed."""
        totals: Counter[str] = Counter()
        for move in self.moves:
            totals[move.target] += move.amount
            totals[move.source] -= move.amount
        return dict(totals)

    # -- Commands on calls --------------------------------------------------------------------

    def reserve(
        self,
        now_ms: int,
        key: str,
        amount: int,
        ttl_ms: int = 900_000,
        on_expiry: str = "release",
        on_exception: str = "release",
        period: Period | None = None,
        *,
        sweep: bool = True,
    ) -> Prediction:
        """Sweep, then reserve. The sweep stands even where the reservation is refused."""
        if sweep:
            self.sweep(now_ms)
        return self._reserve(now_ms, key, amount, ttl_ms, on_expiry, on_exception, period)

    @command
    def _reserve(
        self,
        now_ms: int,
        key: str,
        amount: int,
        ttl_ms: int,
        on_expiry: str,
        on_exception: str,
        period: Period | None,
    ) -> Verdict:
        body = (amount, ttl_ms, on_expiry, on_exception, period)
        if (seen := self._seen("reserve", key, body)) is not None:
            return seen
        if not 1 <= amount <= MAX_AMOUNT:
            return no("invalid_amount")
        if not 1 <= ttl_ms <= MAX_TTL_MS:
            return no("invalid_ttl")
        if self.status in ("frozen", "closed"):
            return no(f"practice_{self.status}")
        wanted = period or self.current_period(now_ms)
        available = self.available(wanted, now_ms)
        if available < amount:
            return no("insufficient_credit", available=available)
        self._touch(wanted, rolled=period is None)
        call = self._new_call(now_ms, "reserved", wanted)
        call["reserved"], call["expires_at_ms"] = amount, now_ms + ttl_ms
        call["on_expiry"], call["on_exception"] = on_expiry, on_exception
        for grant_no in self._eligible(wanted, now_ms, fresh=True):
            part = min(amount, self.free(grant_no))
            if part > 0:
                self.pins.append(Pin(grant_no, call["no"], part))
                call["slices"] = [*call["slices"], (grant_no, part)]
                amount -= part
        assert amount == 0
        return self._accept("reserve", key, body, call["no"], wanted)

    @command
    def settle(self, now_ms: int, call: int, cost: int, usage: str = "") -> Verdict:
        if not 0 <= cost <= MAX_AMOUNT:
            return no("invalid_amount")
        found = self._call(call)
        if found is None:
            return no("call_not_found")
        told = Verdict(call=call, period=found["period"])
        status = found["status"]
        if status == "reserved":
            self._end(found, now_ms, cost, "settled")
            found["usage"] = usage or found["usage"]
            return told
        ended_by_exception = found["by_exception"] and status in ("released", "settled")
        if status == "expired" or ended_by_exception:
            self._settle_late(found, now_ms, cost)
            found["usage"] = usage or found["usage"]
            return told
        if status in ("settled", "settled_late"):
            # A usage that is left out says nothing else than before.
            if found["cost"] == cost and usage in ("", found["usage"]):
                return told._replace(applied=False, replayed=True)
            return no("settled_otherwise", call=call)
        return told._replace(applied=False)

    def _settle_late(self, call: Call, now_ms: int, cost: int) -> None:
        charged = call["cost"] or 0
        if cost > charged:
            self._use(call, now_ms, cost - charged)
        back = charged - cost
        for move in reversed([m for m in self.moves if m.call == call["no"]]):
            part = min(back, move.amount)
            if part > 0 and move.target == "used":
                kind = self._kind(move.grant_no)
                self._move("used", kind, move.grant_no, part, call["no"], reverses=move.seq)
                self._freed(move.grant_no, part, now_ms, call["no"])
                back -= part
        assert back <= 0
        call["status"], call["cost"] = "settled_late", cost

    @command
    def release(self, now_ms: int, call: int, cause: str = "caller") -> Verdict:
        found = self._call(call)
        if found is None:
            return no("call_not_found")
        told = Verdict(call=call, period=found["period"])
        if found["status"] != "reserved":
            return told._replace(applied=False)
        if cause == "caller":
            self._end(found, now_ms, 0, "released")
            return told
        if found["on_exception"] == "keep":
            return told._replace(applied=False)
        if found["on_exception"] == "charge":
            self._end(found, now_ms, found["reserved"], "settled")
        else:
            self._end(found, now_ms, 0, "released")
        found["by_exception"] = True
        return told

    @command
    def extend(self, now_ms: int, call: int, ttl_ms: int) -> Verdict:
        if not 1 <= ttl_ms <= MAX_TTL_MS:
            return no("invalid_ttl")
        found = self._call(call)
        if found is None:
            return no("call_not_found")
        if found["status"] != "reserved" or now_ms >= found["expires_at_ms"] + self.grace_ms:
            return no("call_over", call=call)
        if now_ms + ttl_ms > found["created_at_ms"] + MAX_TTL_MS:
            return no("lifetime_exceeded", call=call)
        found["expires_at_ms"] = max(found["expires_at_ms"], now_ms + ttl_ms)
        return Verdict(call=call, period=found["period"])

    @command
    def expire(self, now_ms: int, call: int) -> Verdict:
        found = self._call(call)
        if found is None:
            return no("call_not_found")
        if found["status"] != "reserved":
            return Verdict(applied=False, call=call, period=found["period"])
        if now_ms < found["expires_at_ms"] + self.grace_ms:
            return no("not_due", call=call)
        cost = found["reserved"] if found["on_expiry"] == "charge" else 0
        self._end(found, now_ms, cost, "expired")
        return Verdict(call=call, period=found["period"])

    @command
    def record_usage(
        self, now_ms: int, key: str, cost: int, period: Period | None = None, usage: str = ""
    ) -> Verdict:
        body = (cost, period, usage)
        if (seen := self._seen("record_usage", key, body)) is not None:
            return seen
        if not 0 <= cost <= MAX_AMOUNT:
            return no("invalid_amount")
        if self.status == "closed":
            return no("practice_closed")
        wanted = period or self.current_period(now_ms)
        self._touch(wanted, rolled=period is None)
        call = self._new_call(now_ms, "settled", wanted)
        call["cost"], call["usage"] = cost, usage
        self._use(call, now_ms, cost, fresh=True)
        return self._accept("record_usage", key, body, call["no"], wanted)

    # -- Commands on credit -------------------------------------------------------------------

    @command
    def grant_credit(
        self,
        now_ms: int,
        key: str,
        kind: str,
        amount: int,
        expires_at_s: int | None = None,
        period: Period | None = None,
    ) -> Verdict:
        body = (kind, amount, expires_at_s, period)
        if (seen := self._seen("grant_credit", key, body)) is not None:
            return seen
        if not 1 <= amount <= MAX_AMOUNT:
            return no("invalid_amount")
        if expires_at_s is not None and expires_at_s <= now_ms // 1000:
            return no("already_expired")
        if self.status == "closed":
            return no("practice_closed")
        wanted = period or self.current_period(now_ms)
        if kind == "allowance":
            if self._allowance_for(wanted):
                return no("allowance_exists")
            self._forget_former(wanted)
        source = {"paid": "purchased", "promotional": "gifted", "allowance": "included"}[kind]
        self._new_grant(source, kind, amount, expires_at_s, wanted, rolled=period is None)
        return self._accept("grant_credit", key, body, None, wanted)

    @command
    def adjust(self, now_ms: int, key: str, amount: int, kind: str = "promotional") -> Verdict:
        body = (amount, kind)
        if (seen := self._seen("adjust", key, body)) is not None:
            return seen
        if not -MAX_AMOUNT <= amount <= MAX_AMOUNT or amount == 0:
            return no("invalid_amount")
        if self.status == "closed":
            return no("practice_closed")
        if amount > 0:
            assert kind in ("promotional", "paid"), "the rules know no adjusted allowance"
            self._new_grant("adjusted", kind, amount)
        else:
            live = self._live(("promotional", "paid"), now_ms)
            missing = self._take(live, -amount, "adjusted")
            self._move("debt", "adjusted", 0, missing)
        return self._accept("adjust", key, body, None, None)

    @command
    def expire_grants(self, now_ms: int) -> Verdict:
        ended = [g["no"] for g in self.grants if self._expired(g["no"], now_ms)]
        ended = [grant_no for grant_no in ended if self.free(grant_no) > 0]
        for grant_no in ended:
            self._move(self._kind(grant_no), "expired", grant_no, self.free(grant_no))
        return Verdict(applied=bool(ended))

    @command
    def fulfil(
        self, now_ms: int, payment: str, amount: int, captured_rappen: int, bonus: int = 0
    ) -> Verdict:
        assert min(amount, captured_rappen, bonus + 1) >= 1, "no such credit event"
        if any(known == payment for known, _ in self.captured):
            return Verdict(applied=False)
        self.captured.append((payment, captured_rappen))
        self._new_grant("purchased", "paid", amount, payment=(payment, "credit"))
        if bonus:
            self._new_grant("gifted", "promotional", bonus, payment=(payment, "bonus"))
        return Verdict()

    @command
    def net_payment(self, now_ms: int, payment: str, net_rappen: int) -> Verdict:
        if all(known != payment for known, _ in self.captured):
            return no("not_fulfilled")
        applied = False
        for known, captured in self.captured:
            net = min(max(net_rappen, 0), captured)
            for part in ("credit", "bonus"):
                if known == payment and self._net_part((payment, part), net, captured, now_ms):
                    applied = True
        return Verdict(applied=applied)

    @command
    def take_credit(self, now_ms: int, amount: int) -> Verdict:
        """A refund that names no payment: free paid credit, then debt."""
        if not 1 <= amount <= MAX_AMOUNT:
            return no("invalid_amount")
        missing = self._take(self._live(("paid",), now_ms), amount, "clawed_back")
        self._move("debt", "clawed_back", 0, missing)
        return Verdict()

    def _net_part(self, part: tuple[str, str], net: int, captured: int, now_ms: int) -> bool:
        granted, clawed, own = self.clawback_of(part)
        target, booked = granted * net // captured, granted - clawed
        if booked > target:
            others = [g for g in self._live(("paid",), now_ms) if g != own]
            missing = self._take([own, *others], booked - target, "clawed_back", payment=part)
            self._move("debt", "clawed_back", 0, missing, payment=part)
        elif booked < target:
            back = target - booked
            self._move("clawed_back", self._kind(own), own, back, payment=part)
        return booked != target

    def clawback_of(self, part: tuple[str, str]) -> tuple[int, int, int]:
        """Tell what a payment's credit or bonus granted, what is clawed back, and its grant."""
        mine = [m for m in self.moves if m.payment == part]
        given = [m for m in mine if m.source in ("purchased", "gifted")]
        clawed = sum(m.amount for m in mine if m.target == "clawed_back")
        clawed -= sum(m.amount for m in mine if m.source == "clawed_back")
        return sum(m.amount for m in given), clawed, given[0].grant_no if given else 0

    # -- Sweep, status, settings --------------------------------------------------------------

    def sweep(self, now_ms: int) -> Prediction:
        """Expire at most a hundred due calls, then grants; each is a command of its own."""
        done = [self.expire(now_ms, call) for call in self.due(now_ms)[:SWEEP_AT_MOST]]
        done.append(self.expire_grants(now_ms))
        told = self._predict(Verdict(applied=any(one["applied"] for one in done)), now_ms, 0)
        told["flows"] = [flow for one in done for flow in one["flows"]]
        return told

    @command
    def set_license(
        self, now_ms: int, code: str, status: str, start_s: int, end_s: int, allowance: int
    ) -> Verdict:
        if end_s <= start_s:
            return no("invalid_period")
        if not 0 <= allowance <= MAX_AMOUNT:
            return no("invalid_amount")
        self.licence = Licence(code, status, start_s, end_s, allowance)
        if status == "active":
            self._align_allowance()
        return Verdict()

    def _align_allowance(self) -> None:
        """Name a provisional allowance by the told bounds, and grant what an upgrade adds."""
        assert self.licence is not None
        code, _, start_s, end_s, allowance = self.licence
        for grant in self._allowance_for((code, start_s, end_s, None)):
            self._rename(grant, code, start_s, end_s)
            grant["provisional"] = False
            given = [m for m in self.moves if m.grant_no == grant["no"] and m.source == "included"]
            more = allowance - sum(m.amount for m in given)
            if more > 0:
                self._move("included", "allowance", grant["no"], more)

    @command
    def remove_license(self, now_ms: int) -> Verdict:
        self.licence = None
        return Verdict()

    @command
    def freeze(self, now_ms: int) -> Verdict:
        return self._become("frozen", when=("active",))

    @command
    def unfreeze(self, now_ms: int) -> Verdict:
        return self._become("active", when=("frozen",))

    @command
    def close(self, now_ms: int) -> Verdict:
        return self._become("closed", when=("active", "frozen"))

    @command
    def set_policy(self, now_ms: int, overrun: str, debt_blocks_allowance: bool) -> Verdict:
        self.overrun, self.debt_blocks_allowance = overrun, debt_blocks_allowance
        return Verdict()

    def _become(self, status: str, when: tuple[str, ...]) -> Verdict:
        if self.status not in when:
            return Verdict(applied=False)
        self.status = status
        return Verdict()

    # -- What the rules have in common --------------------------------------------------------

    def _eligible(self, period: Period, now_ms: int, *, fresh: bool) -> list[int]:
        """`fresh`: for a call that begins now; one that is over knows its period by name only."""
        mine = self._allowance_of(period)
        if fresh:
            mine = [grant["no"] for grant in self._allowance_for(period)]
        allowance = [] if self._allowance_blocked() else mine
        return allowance + self._live(("promotional", "paid"), now_ms)

    def _allowance_blocked(self) -> bool:
        return self.debt_blocks_allowance and self.debt() > 0

    def _allowance_of(self, period: Period) -> list[int]:
        """The allowance of a call's period, by its name of today or by one it once had."""
        name = (period[0], period[1])
        today = [g["no"] for g in self.grants if g["period"] == name]
        return today or [g["no"] for g in self.grants if name in g["former"]]

    def _allowance_for(self, period: Period) -> list[Grant]:
        """The allowance that a period would use: by name of today, by a former one, by overlap."""
        code, start_s, end_s, _ = period
        near = [g for g in self.grants if g["period"] and _overlaps(g, start_s, end_s)]
        named = [g for g in self.grants if g["period"] == (code, start_s)]
        once = [g for g in near if (code, start_s) in g["former"]]
        guessed = [g for g in near if g["provisional"] and g["period"] and g["period"][0] == code]
        return (named or once or guessed)[:1]

    def _rename(self, grant: Grant, code: str, start_s: int, end_s: int) -> None:
        old = grant["period"]
        if old and old != (code, start_s):
            grant["former"].append(old)
        grant["period"], grant["end_s"] = (code, start_s), end_s
        grant["former"] = [name for name in grant["former"] if name != (code, start_s)]

    def _forget_former(self, period: Period) -> None:
        """Let a name mean one allowance only."""
        for grant in self.grants:
            grant["former"] = [n for n in grant["former"] if n != (period[0], period[1])]

    def _allowance_to_come(self, period: Period) -> int:
        return 0 if self._allowance_for(period) else max(period[3] or 0, 0)

    def _live(self, kinds: tuple[str, ...], now_ms: int) -> list[int]:
        """Grants that are not expired, by kind, then the earliest expiry, then the oldest."""
        found = []
        for kind in kinds:
            mine = [g for g in self.grants if g["kind"] == kind]
            mine = [g for g in mine if not self._expired(g["no"], now_ms)]
            mine.sort(key=lambda g: (g["expires_at_s"] is None, g["expires_at_s"] or 0, g["no"]))
            found += [g["no"] for g in mine]
        return found

    def _expired(self, grant_no: int, now_ms: int) -> bool:
        grant = self.grants[grant_no - 1]
        if grant["kind"] == "allowance" or grant["expires_at_s"] is None:
            return False
        return grant["expires_at_s"] <= now_ms // 1000

    def _kind(self, grant_no: int) -> str:
        return self.grants[grant_no - 1]["kind"]

    def _call(self, call: int) -> Call | None:
        return self.calls[call - 1] if 1 <= call <= len(self.calls) else None

    def _seen(self, operation: str, key: str, body: tuple[object, ...]) -> Verdict | None:
        for known_operation, known_key, known_body, call in self.keys:
            if (known_operation, known_key) == (operation, key):
                if known_body != body:
                    return no("idempotency_conflict")
                return Verdict(applied=False, replayed=True, call=call)
        return None

    def _accept(
        self,
        operation: str,
        key: str,
        body: tuple[object, ...],
        call: int | None,
        period: Period | None,
    ) -> Verdict:
        self.keys.append((operation, key, body, call))
        return Verdict(call=call, period=period)

    def _touch(self, period: Period, *, rolled: bool) -> None:
        for grant in self._allowance_for(period):
            if grant["no"] not in self._allowance_of(period):
                self._rename(grant, period[0], period[1], period[2])
        if amount := self._allowance_to_come(period):
            self._forget_former(period)
            self._new_grant("included", "allowance", amount, period=period, rolled=rolled)

    def _new_grant(
        self,
        source: str,
        kind: str,
        amount: int,
        expires_at_s: int | None = None,
        period: Period | None = None,
        payment: tuple[str, str] = ("", ""),
        *,
        rolled: bool = False,
    ) -> None:
        """`rolled`: nobody named the period, so it is provisional unless it is the told one."""
        grant_no = len(self.grants) + 1
        owner = (period[0], period[1]) if period and kind == "allowance" else None
        told = (self.licence.code, self.licence.start_s) if self.licence else None
        licensed = self.licence is not None and self.licence.status == "active"
        self.grants.append(
            Grant(
                no=grant_no,
                kind=kind,
                expires_at_s=expires_at_s,
                period=owner,
                end_s=period[2] if period and owner else 0,
                former=[],
                provisional=rolled and licensed and owner is not None and owner != told,
            )
        )
        self._move(source, kind, grant_no, amount, payment=payment)

    def _new_call(self, now_ms: int, status: str, period: Period) -> Call:
        call = Call(
            no=len(self.calls) + 1,
            status=status,
            period=period,
            reserved=0,
            slices=[],
            created_at_ms=now_ms,
            expires_at_ms=now_ms,
            on_expiry="release",
            on_exception="release",
            by_exception=False,
            cost=None,
            usage="",
        )
        self.calls.append(call)
        return call

    def _move(
        self,
        source: str,
        target: str,
        grant_no: int,
        amount: int,
        call: int = 0,
        payment: tuple[str, str] = ("", ""),
        reverses: int = 0,
    ) -> None:
        if amount:
            seq, running = len(self.moves) + 1, len(self.log) + 1
            self.moves.append(
                Move(seq, running, source, target, grant_no, amount, call, payment, reverses)
            )

    def _take(
        self,
        grant_nos: Iterable[int],
        amount: int,
        target: str,
        call: int = 0,
        payment: tuple[str, str] = ("", ""),
    ) -> int:
        """Move free credit of the grants in their order, and return what is missing."""
        for grant_no in grant_nos:
            part = min(amount, self.free(grant_no))
            self._move(self._kind(grant_no), target, grant_no, part, call, payment)
            amount -= part
        return amount

    def _use(self, call: Call, now_ms: int, amount: int, *, fresh: bool = False) -> None:
        eligible = self._eligible(call["period"], now_ms, fresh=fresh)
        missing = self._take(eligible, amount, "used", call["no"])
        source = "operator_loss" if self.overrun == "operator_loss" else "debt"
        self._move(source, "used", 0, missing, call["no"])

    def _end(self, call: Call, now_ms: int, cost: int, status: str) -> None:
        """Unpin every slice, use the first `cost` of them, free the rest, book the overrun."""
        left = cost
        for grant_no, pinned in call["slices"]:
            used = min(left, pinned)
            self.pins.append(Pin(grant_no, call["no"], -pinned))
            self._move(self._kind(grant_no), "used", grant_no, used, call["no"])
            self._freed(grant_no, pinned - used, now_ms, call["no"])
            left -= used
        self._use(call, now_ms, left)
        call["status"], call["cost"] = status, cost

    def _freed(self, grant_no: int, amount: int, now_ms: int, call: int) -> None:
        if self._expired(grant_no, now_ms):
            self._move(self._kind(grant_no), "expired", grant_no, amount, call)

    def _repay_debt(self, now_ms: int) -> None:
        self._take(self._live(("promotional", "paid"), now_ms), self.debt(), "debt")

    def _predict(self, verdict: Verdict, now_ms: int, command_no: int) -> Prediction:
        call = self._call(verdict.call or 0)
        available = verdict.available
        if verdict.ok and not verdict.replayed:
            available = self.available(verdict.period, now_ms)
        return Prediction(
            ok=verdict.ok,
            reason=verdict.reason,
            applied=verdict.applied,
            replayed=verdict.replayed,
            available=available,
            status=call["status"] if call else None,
            cost=call["cost"] if call else None,
            call=verdict.call,
            flows=self._flows_of(command_no),
        )

    # -- Invariants ---------------------------------------------------------------------------

    def check(self, now_ms: int) -> None:
        """Assert everything that must hold between two commands."""
        assert all(m.amount > 0 and m.source != m.target for m in self.moves)
        assert all(self.free(g["no"]) >= 0 and self.held_of(g["no"]) >= 0 for g in self.grants)
        assert self.debt() >= 0
        assert self.available(None, now_ms) >= 0
        live = self._live(("promotional", "paid"), now_ms)
        assert self.debt() == 0 or all(self.free(grant_no) == 0 for grant_no in live)
        allowances = [g["period"] for g in self.grants if g["period"]]
        assert len(allowances) == len(set(allowances)), "two allowances for one period"
        self._check_calls()
        self._check_totals()

    def _check_calls(self) -> None:
        opened = [call for call in self.calls if call["status"] == "reserved"]
        assert self.held() == sum(call["reserved"] for call in opened)
        for call in self.calls:
            pinned = sum(pin.amount for pin in self.pins if pin.call == call["no"])
            assert pinned == (call["reserved"] if call in opened else 0)
            mine = [m for m in self.moves if m.call == call["no"]]
            used = sum(m.amount for m in mine if m.target == "used")
            used -= sum(m.amount for m in mine if m.source == "used")
            assert used == (call["cost"] or 0), "a call's cost is what it used"

    def _check_totals(self) -> None:
        totals = self.totals()
        assert sum(totals.values()) == 0
        for kind in KINDS:
            mine = [g["no"] for g in self.grants if g["kind"] == kind]
            assert totals.get(kind, 0) == sum(self.free(n) + self.held_of(n) for n in mine)
        for payment, _ in self.captured:
            for part in ("credit", "bonus"):
                granted, clawed, _ = self.clawback_of((payment, part))
                assert 0 <= clawed <= granted


def _overlaps(grant: Grant, start_s: int, end_s: int) -> bool:
    return grant["period"] is not None and grant["period"][1] < end_s and start_s < grant["end_s"]


def summed(flows: Iterable[Flow]) -> dict[tuple[str, str, int], int]:
    """Add up transfers between the same accounts and grant, for comparing regardless of order."""
    total: Counter[tuple[str, str, int]] = Counter()
    for source, target, grant_no, amount in flows:
        total[source, target, grant_no] += amount
    return dict(total)


_MONTHS: dict[str, list[tuple[int, int]]] = {}


def month_around(now_s: int, zone: str) -> tuple[int, int]:
    """Walk in quarters of an hour to where the local month changes, before and after."""
    found = _MONTHS.setdefault(zone, [])
    for start_s, end_s in found:
        if start_s <= now_s < end_s:
            return start_s, end_s
    here = _local_month(now_s, zone)
    start_s = end_s = now_s - now_s % 900
    while _local_month(start_s - 900, zone) == here:
        start_s -= 900
    while _local_month(end_s, zone) == here:
        end_s += 900
    found.append((start_s, end_s))
    return start_s, end_s


def _local_month(at_s: int, zone: str) -> tuple[Any, Any]:
    local = datetime.fromtimestamp(at_s, ZoneInfo(zone))
    return local.year, local.month
