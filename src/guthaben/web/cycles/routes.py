"""Routes of the Cycles protocol: decide, reservations and their steps, events, balances.

Law: the tenant is the key's practice; naming another one answers 403, and so does a foreign
reservation, because the protocol says so and nobody can guess an id. Every change is one command on
the shared writer, folded with what others ask at the same time.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter

from guthaben.domain.calls import LEVELS, NO_USAGE, Call, Origin, Told, Usage
from guthaben.domain.commands import (
    Command,
    LeaseAsk,
    LeaseCommit,
    LeaseExtend,
    LeaseRelease,
    Outcome,
    RecordUsage,
    Reserve,
    Step,
    StepKind,
)
from guthaben.domain.money import NANO_PER_MICROCENT
from guthaben.domain.shortfall import LACK_OF_CREDIT
from guthaben.services.api_keys import Credential
from guthaben.services.cycles import Cycles, Owner, call_key, status_of
from guthaben.web.cycles import answers, bodies, described, listing
from guthaben.web.cycles.bodies import Ended, Planned
from guthaben.web.cycles.errors import REASON_CODE, Denial, invalid, refusal
from guthaben.web.cycles.lean import Answer, Exchange, LeanRoute
from guthaben.web.cycles.reading import canonical
from guthaben.web.deps import Services

PREFIX: Final = "/cycles"
_MAX_TEXT: Final = 200
_LONGEST_KEY: Final = 200
_TOLD = frozenset({"insufficient_credit", "cap_exceeded"})


class CyclesRoutes:
    """The handlers; each reads strictly, sends one command and shows what came of it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._core = services.core
        self._cycles = Cycles(services.core)

    async def create(self, ask: Exchange) -> Answer:
        """Reserve before a call, or only try it (`dry_run`)."""
        await self._admit(ask)
        planned = bodies.reservation(await ask.read())
        levels, amount = self._meant(ask, planned)
        if planned.dry_run:
            return await self._asked(ask, planned, levels, amount, StepKind.DRY_RUN)
        command = Reserve(
            call_key(planned.key),
            amount,
            planned.ttl_ms,
            usage=_usage_of(planned),
            origin=_origin(ask, levels),
            # Through the last millisecond of grace, so it is due in the one after.
            grace_ms=planned.grace_ms + 1,
            overage_policy=planned.overage_policy,
            told=_told(planned, levels),
        )
        call = _call_of(await self._do("cycles_reserve", ask, command))
        name = self._cycles.name("rsv_", await self._number(ask), call.call_no)
        now_ms = self._core.now_ms()
        return 200, answers.created(call, name, levels, planned.ttl_ms, now_ms)

    async def decide(self, ask: Exchange) -> Answer:
        """Say whether an amount could be reserved now; nothing is held."""
        await self._admit(ask)
        planned = bodies.decision(await ask.read())
        levels, amount = self._meant(ask, planned)
        return await self._asked(ask, planned, levels, amount, StepKind.DECIDE)

    async def commit(self, ask: Exchange) -> Answer:
        """End a reservation with what was really used."""
        await self._admit(ask)
        ended = bodies.committing(await ask.read())
        owner = await self._owned(ask)
        assert ended.amount is not None
        cost = ended.amount.nano_usd(_scope(ask))
        usage, told = _usage_told(ended), bodies.written(ended.rest)
        command = LeaseCommit(call_key(ended.key), owner.call_no, cost, usage, told)
        return 200, answers.committed(_call_of(await self._do("cycles_commit", ask, command)))

    async def release(self, ask: Exchange) -> Answer:
        """End a reservation that was not used."""
        await self._admit(ask)
        ended = bodies.release(await ask.read())
        owner = await self._owned(ask)
        command = LeaseRelease(call_key(ended.key), owner.call_no, bodies.written(ended.rest))
        return 200, answers.released(_call_of(await self._do("cycles_release", ask, command)))

    async def extend(self, ask: Exchange) -> Answer:
        """Give a reservation more time, counted from where it ends."""
        await self._admit(ask)
        ended = bodies.extension(await ask.read())
        owner = await self._owned(ask)
        told = bodies.written(ended.rest)
        command = LeaseExtend(call_key(ended.key), owner.call_no, ended.by_ms, told)
        outcome = await self._do("cycles_extend", ask, command)
        expires_ms = _step_of(outcome).number
        return 200, answers.extended(_call_of(outcome), expires_ms, self._core.now_ms())

    async def event(self, ask: Exchange) -> Answer:
        """Book what was used without a reservation."""
        await self._admit(ask)
        planned = bodies.event(await ask.read())
        levels, amount = self._meant(ask, planned)
        command = RecordUsage(
            call_key(planned.key),
            amount,
            usage=_usage_of(planned),
            origin=_origin(ask, levels),
            overage_policy=planned.overage_policy,
            told=_told(planned, levels),
        )
        call = _call_of(await self._do("cycles_event", ask, command))
        name = self._cycles.name("evt_", await self._number(ask), call.call_no)
        return 201, answers.posted(call, name)

    async def one(self, ask: Exchange) -> Answer:
        """Look at one reservation; an expired one answers 410."""
        await self._admit(ask)
        owner = await self._owned(ask)
        found = await asyncio.to_thread(self._cycles.one, owner)
        if found is None:
            raise refusal("call_not_found")
        now_ms = self._core.now_ms()
        if status_of(found.call, now_ms) == "EXPIRED":
            raise refusal("lease_expired")
        name = self._cycles.name("rsv_", *owner)
        return 200, answers.lease(found, name, now_ms, answers.ALL_FIELDS)

    async def many(self, ask: Exchange) -> Answer:
        """List reservations, newest first; also finds the one that a key made."""
        await self._admit(ask)
        query = ask.query()
        wanted = listing.wanted(query, ask.tenant)
        limit, start_no = listing.limit(query), listing.start(query, wanted)
        number = await self._number(ask)
        projected = listing.projected(query)
        key = query.get("idempotency_key")
        if key is not None:
            return 200, await asyncio.to_thread(self._by_key, number, key, wanted, projected)
        page = await asyncio.to_thread(self._cycles.page, number, wanted, limit, start_no)
        shown = [self._shown(number, lease, projected) for lease in page.leases]
        return 200, listing.page("reservations", shown, page.next_no, wanted)

    async def balances(self, ask: Exchange) -> Answer:
        """Tell what there is; a subject's budget is its tenant's."""
        await self._admit(ask)
        query = ask.query()
        listing.limit(query)
        if not any(query.get(name) for name in LEVELS):
            raise invalid(f"Name at least one of {', '.join(LEVELS)}.")
        bodies.same_tenant(query.get("tenant", ""), ask.tenant)
        funds = await asyncio.to_thread(self._cycles.funds, ask.tenant)
        return 200, {"balances": [answers.balance(ask.tenant, funds)], "has_more": False}

    async def nothing(self, ask: Exchange) -> Answer:
        """Answer for what the protocol has and this server has not, as for what nobody knows."""
        raise Denial("NOT_FOUND", "There is nothing here that answers this.")

    # ---- who asks, and for what

    async def _admit(self, ask: Exchange) -> None:
        """Let a request in by its key, and learn its tenant."""
        credential = await self._credential(ask)
        ask.key_id = ask.scope["guthaben.key_id"] = credential.key_id
        if "gate" not in credential.scopes:
            raise Denial("FORBIDDEN", "This needs a key with the scope gate.")
        named = ask.header(b"x-practice-id")
        practice_id = credential.practice_id or named
        if practice_id is None:
            text = "This key is for all practices: use a practice's own, or send X-Practice-Id."
            raise Denial("FORBIDDEN", text)
        if named not in (None, practice_id):
            raise Denial("FORBIDDEN", "The API key belongs to another practice.")
        try:
            ask.tenant = bodies.level("tenant", practice_id)
        except Denial as error:
            text = "This practice's id is no tenant of the protocol: a-z A-Z 0-9 _ . - only."
            raise Denial("FORBIDDEN", text) from error
        ask.scope["guthaben.practice_id"] = practice_id

    async def _credential(self, ask: Exchange) -> Credential:
        key = (ask.sent.get(b"x-cycles-api-key") or b"").decode("latin-1").strip()
        found = None
        if key.startswith("gh_") and key.isascii() and len(key) <= _LONGEST_KEY:
            keys = self._services.keys
            found = keys.recall(key) or await asyncio.to_thread(keys.check, key)
        if found is None:
            raise Denial("UNAUTHORIZED", "Send a valid API key: X-Cycles-API-Key: gh_...")
        return found

    def _meant(self, ask: Exchange, planned: Planned) -> tuple[tuple[str, ...], int]:
        """Give the subject's levels, the tenant's own first, and the amount in nano-USD."""
        named, *inner = planned.subject.levels
        bodies.same_tenant(named, ask.tenant)
        return (ask.tenant, *inner), planned.amount.nano_usd(_scope(ask))

    async def _number(self, ask: Exchange) -> int:
        known = self._cycles.known_number(ask.tenant)
        return known or await asyncio.to_thread(self._cycles.number, ask.tenant)

    async def _owned(self, ask: Exchange) -> Owner:
        """Read the reservation that a path names, if it is the caller's."""
        owner = self._cycles.owner("rsv_", ask.scope["path_params"]["reservation_id"])
        if owner is None:
            raise refusal("call_not_found")
        if owner.practice_no != await self._number(ask):
            raise Denial("FORBIDDEN", "This reservation belongs to another tenant.")
        return owner

    # ---- commands

    async def _asked(
        self,
        ask: Exchange,
        planned: Planned,
        levels: tuple[str, ...],
        amount: int,
        kind: StepKind,
    ) -> Answer:
        asked = (
            planned.kind, planned.name, planned.rest, planned.ttl_ms, planned.grace_ms,
            planned.overage_policy, planned.dry_run,
        )  # fmt: skip
        question = canonical([levels, asked])
        command = LeaseAsk(call_key(planned.key), int(kind), amount, question, _origin(ask, levels))
        outcome = await self._do(f"cycles_{kind.name.lower()}", ask, command)
        code = REASON_CODE[_step_of(outcome).told]
        return 200, answers.decided(code, levels, dry_run=kind is StepKind.DRY_RUN)

    async def _do(self, operation: str, ask: Exchange, command: Command) -> Outcome:
        """Apply one command; raises what the protocol answers to a refusal."""
        outcome = await self._core.store.execute_soon(ask.tenant, command)
        if outcome.reason in LACK_OF_CREDIT and isinstance(command, Reserve | RecordUsage):
            if await self._services.credit.credit_came(ask.tenant):
                outcome = await self._core.store.execute_soon(ask.tenant, command)
        count = self._services.metrics.command
        if outcome.ok:
            count(operation, "replayed" if outcome.replayed else "ok")
            return outcome
        count(operation, outcome.reason)
        details: dict[str, Any] | None = None
        if outcome.reason in _TOLD:
            details = {
                "scope": _scope(ask),
                "remaining": outcome.available_nano_usd // NANO_PER_MICROCENT,
                "unit": bodies.UNIT,
            }
        raise refusal(outcome.reason, details)

    def _shown(self, number: int, lease: Any, projected: frozenset[str]) -> answers.Body:
        name = self._cycles.name("rsv_", number, lease.call.call_no)
        return answers.lease(lease, name, self._core.now_ms(), projected)

    def _by_key(
        self, number: int, key: str, wanted: listing.Wanted, projected: frozenset[str]
    ) -> answers.Body:
        found = self._cycles.by_key(number, key) if 1 <= len(key) <= 256 else None
        fit = found is not None and listing.fits(found, wanted, self._core.now_ms())
        return listing.page(
            "reservations", [self._shown(number, found, projected)] if fit else [], None, wanted
        )


def _scope(ask: Exchange) -> str:
    """Name the one scope that has a budget."""
    return f"tenant:{ask.tenant}"


def _call_of(outcome: Outcome) -> Call:
    assert outcome.call is not None
    return outcome.call


def _step_of(outcome: Outcome) -> Step:
    assert outcome.step is not None
    return outcome.step


def _told(planned: Planned, levels: tuple[str, ...]) -> Told:
    rest = bodies.written(planned.rest)
    return Told._make((planned.key, *levels, planned.kind, planned.name, rest))


def _origin(ask: Exchange, levels: tuple[str, ...]) -> Origin:
    """Say who calls: its key, and its agent, so that the caps of both hold."""
    return Origin(api_key_id=ask.key_id, device_id=levels[LEVELS.index("agent")])


def _usage_of(planned: Planned) -> Usage:
    """Name what is called in our own lists, as far as it is a plain text there."""
    name, kind = planned.name, planned.kind
    model = name if len(name) <= _MAX_TEXT and name.isprintable() else ""
    return Usage(model, kind if kind.isprintable() else "")


def _usage_told(ended: Ended) -> Usage:
    ins, outs = ended.tokens
    if not (ins or outs):
        return NO_USAGE
    return Usage(input_tokens=ins, output_tokens=outs, total_tokens=ins + outs)


def router(services: Services) -> APIRouter:
    """Make the routes; the hottest first."""
    routes = CyclesRoutes(services)
    api = APIRouter(tags=["cycles"])
    table = (
        ("POST", "/v1/reservations", routes.create),
        ("POST", "/v1/reservations/{reservation_id}/commit", routes.commit),
        ("POST", "/v1/reservations/{reservation_id}/release", routes.release),
        ("POST", "/v1/reservations/{reservation_id}/extend", routes.extend),
        ("POST", "/v1/decide", routes.decide),
        ("POST", "/v1/events", routes.event),
        ("GET", "/v1/reservations", routes.many),
        ("GET", "/v1/reservations/{reservation_id}", routes.one),
        ("GET", "/v1/balances", routes.balances),
    )
    for method, path, handler in table:
        options = described.options(method, path, handler.__name__, handler.__doc__ or "")
        api.routes.append(LeanRoute(PREFIX + path, handler, methods=[method], **options))
    every = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
    rest = LeanRoute(
        PREFIX + "/{rest:path}", routes.nothing, methods=every, include_in_schema=False
    )
    api.routes.append(rest)
    return api
