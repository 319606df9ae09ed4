"""An oracle of the protocol, written from its file: what each request must be answered.

It keeps one practice with given credit and no allowance, in whole microcents. What remains is one
number: below zero it is debt, because a budget that is funded repays its debt first. The one place
where the file leaves room is taken as docs/cycles.md says: of an overdraft only what nothing covers
becomes debt, while the limit is checked for the whole of it.
"""

from dataclasses import dataclass, field
from typing import Any

JSON = dict[str, Any]


@dataclass
class Reservation:
    """One reservation."""

    estimate: int
    policy: str
    created_ms: int
    expires_ms: int
    grace_ms: int
    status: str = "ACTIVE"
    charged: int = 0
    finalized_ms: int = 0


@dataclass
class Answer:
    """What must be answered: a status, and the fields that are certain."""

    status: int
    body: JSON


def error(status: int, code: str) -> Answer:
    return Answer(status, {"error": code})


def amount(number: int) -> JSON:
    return {"unit": "USD_MICROCENTS", "amount": number}


@dataclass
class Oracle:
    """One budget and its reservations, by the names a test gives them."""

    remaining: int = 0
    limit: int = 0
    is_marked: bool = False
    is_frozen: bool = False
    now_ms: int = 0
    reservations: dict[str, Reservation] = field(default_factory=dict)

    @property
    def debt(self) -> int:
        return max(0, -self.remaining)

    @property
    def reserved(self) -> int:
        return sum(r.estimate for r in self.reservations.values() if r.status == "ACTIVE")

    @property
    def is_over_limit(self) -> bool:
        return self.is_marked or (self.limit > 0 and self.debt > self.limit)

    def tick(self) -> None:
        """Expire what is beyond its expiry and grace, by server time."""
        for found in self.reservations.values():
            if found.status == "ACTIVE" and self.now_ms > found.expires_ms + found.grace_ms:
                found.status = "EXPIRED"
                self.remaining += found.estimate

    def fund(self, number: int) -> None:
        self.remaining += number
        self.is_marked = False

    def denial(self, estimate: int) -> str:
        """Over limit goes before debt, debt before too little."""
        if self.is_frozen:
            return "BUDGET_FROZEN"
        if self.is_over_limit:
            return "OVERDRAFT_LIMIT_EXCEEDED"
        if self.debt and not self.limit:
            return "DEBT_OUTSTANDING"
        return "BUDGET_EXCEEDED" if self.remaining < estimate else ""

    def reserve(self, name: str, body: JSON) -> Answer:
        self.tick()
        estimate = body["estimate"]["amount"]
        code = self.denial(estimate)
        if body.get("dry_run"):
            return self._decision(code)
        if code:
            return error(409, code)
        ttl, grace = body.get("ttl_ms", 60_000), body.get("grace_period_ms", 5_000)
        policy = body.get("overage_policy", "ALLOW_IF_AVAILABLE")
        made = Reservation(estimate, policy, self.now_ms, self.now_ms + ttl, grace)
        self.reservations[name] = made
        self.remaining -= estimate
        told = {"decision": "ALLOW", "reserved": amount(estimate), "expires_at_ms": made.expires_ms}
        return Answer(200, told)

    def decide(self, body: JSON) -> Answer:
        self.tick()
        return self._decision(self.denial(body["estimate"]["amount"]))

    def _decision(self, code: str) -> Answer:
        if code:
            return Answer(200, {"decision": "DENY", "reason_code": code})
        return Answer(200, {"decision": "ALLOW"})

    def _over(self, found: Reservation) -> Answer | None:
        if found.status == "EXPIRED":
            return error(410, "RESERVATION_EXPIRED")
        return None if found.status == "ACTIVE" else error(409, "RESERVATION_FINALIZED")

    def _cover(self, number: int, policy: str) -> int | str:
        """Say how much of an amount without a reservation is charged, or why it is refused."""
        room = max(0, self.remaining)
        if number <= room:
            charged = number
        elif policy == "REJECT":
            return "BUDGET_EXCEEDED"
        elif policy == "ALLOW_WITH_OVERDRAFT" and self.limit:
            if self.debt + number > self.limit:
                return "OVERDRAFT_LIMIT_EXCEEDED"
            charged = number
        else:
            charged = room
            self.is_marked = True
        self.remaining -= charged
        return charged

    def commit(self, name: str, body: JSON) -> Answer:
        self.tick()
        found, actual = self.reservations[name], body["actual"]["amount"]
        over = self._over(found)
        if over is not None:
            return over
        more = actual - found.estimate
        charged = actual
        if more > 0:
            if found.policy == "REJECT":
                return error(409, "BUDGET_EXCEEDED")
            extra = self._cover(more, found.policy)
            if isinstance(extra, str):
                return error(409, extra)
            charged = found.estimate + extra
        else:
            self.remaining -= more
        found.status, found.charged, found.finalized_ms = "COMMITTED", charged, self.now_ms
        told: JSON = {"status": "COMMITTED", "charged": amount(charged)}
        if more < 0:
            told["released"] = amount(-more)
        return Answer(200, told)

    def release(self, name: str) -> Answer:
        self.tick()
        found = self.reservations[name]
        over = self._over(found)
        if over is not None:
            return over
        self.remaining += found.estimate
        found.status, found.finalized_ms = "RELEASED", self.now_ms
        return Answer(200, {"status": "RELEASED", "released": amount(found.estimate)})

    def extend(self, name: str, body: JSON) -> Answer:
        self.tick()
        found = self.reservations[name]
        over = self._over(found)
        if over is not None:
            return over
        if self.now_ms > found.expires_ms:
            return error(410, "RESERVATION_EXPIRED")
        until = min(found.expires_ms + body["extend_by_ms"], found.created_ms + 86_400_000)
        if until == found.expires_ms:
            return error(409, "MAX_EXTENSIONS_EXCEEDED")
        found.expires_ms = until
        return Answer(200, {"status": "ACTIVE", "expires_at_ms": until})

    def event(self, body: JSON) -> Answer:
        self.tick()
        actual = body["actual"]["amount"]
        charged = self._cover(actual, body.get("overage_policy", "ALLOW_IF_AVAILABLE"))
        if isinstance(charged, str):
            return error(409, charged)
        told: JSON = {"status": "APPLIED"}
        if charged < actual:
            told["charged"] = amount(charged)
        return Answer(201, told)

    def get(self, name: str) -> Answer:
        self.tick()
        found = self.reservations[name]
        if found.status == "EXPIRED":
            return error(410, "RESERVATION_EXPIRED")
        told: JSON = {
            "status": found.status,
            "reserved": amount(found.estimate),
            "created_at_ms": found.created_ms,
            "expires_at_ms": found.expires_ms,
        }
        if found.status != "ACTIVE":
            told["finalized_at_ms"] = found.finalized_ms
        if found.status == "COMMITTED":
            told["committed"] = amount(found.charged)
        return Answer(200, told)

    def balance(self) -> JSON:
        self.tick()
        return {
            "remaining": amount(self.remaining),
            "reserved": amount(self.reserved),
            "debt": amount(self.debt),
            "is_over_limit": self.is_over_limit,
        }
