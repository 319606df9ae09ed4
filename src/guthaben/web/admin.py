"""Routes for operators: practices, grants, adjustments, licences, policy, verify, alarms.

Law: every change is one keyed command of the engine; an adjustment has a reason. A key that belongs
to one practice reaches that one only, and a foreign practice answers as a missing one does.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.domain.caps import Cap
from guthaben.domain.money import MAX_COMMAND_NANO_USD
from guthaben.domain.period import Period
from guthaben.services.checks import MAX_ID, MAX_KEY, MAX_TEXT
from guthaben.store import figures, queries
from guthaben.web import models, views
from guthaben.web.access import Operator
from guthaben.web.admin_models import AlarmsModel, CapsModel
from guthaben.web.deps import Services
from guthaben.web.problems import invalid
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import Shape, choice, digits, flag, integer, needed, text, usd
from guthaben.web.strict_json import read_object

_LATEST_S: Final = 1 << 39
_KEY = needed(text("Idempotency key, kept for ever.", MAX_KEY, least=1))
_START = integer("Start of the period, seconds since 1970.", 0, _LATEST_S)
_END = integer("End of the period, not part of it.", 1, _LATEST_S)

GRANT: Final = Shape(
    "Grant",
    {
        "amount_usd": needed(usd("What is given.", 1)),
        "key": _KEY,
        "kind": choice("Default promotional.", "promotional", "paid", "allowance"),
        "expires_at_s": integer("When it ends; default never.", 1, _LATEST_S),
        "license": text("For an allowance: the licence.", MAX_TEXT),
        "period_start_s": _START,
        "period_end_s": _END,
    },
    {"amount_usd": "5.00", "key": "welcome-prac_7", "kind": "promotional"},
)
ADJUSTMENT: Final = Shape(
    "Adjustment",
    {
        "amount_usd": needed(usd("More, or with a minus less.", -MAX_COMMAND_NANO_USD)),
        "key": _KEY,
        "reason": needed(text("Why; kept, and erasable.", 1000, least=3, opaque=False)),
        "kind": choice("Which credit; default promotional.", "promotional", "paid"),
    },
    {"amount_usd": "-1.25", "key": "case-3391", "reason": "charged twice by our own mistake"},
)
LICENSE: Final = Shape(
    "Licence",
    {
        "license": needed(text("Its name or number.", MAX_TEXT, least=1)),
        "period_start_s": needed(_START),
        "period_end_s": needed(_END),
        "allowance_usd": needed(usd("What each period includes.", 0)),
        "active": flag("Default true."),
    },
    {
        "license": "basic_monthly",
        "period_start_s": 1_793_491_200,
        "period_end_s": 1_796_083_200,
        "allowance_usd": "20.00",
        "active": True,
    },
)
POLICY: Final = Shape(
    "Policy",
    {
        "status": choice("Whether it may spend.", "active", "frozen", "closed"),
        "overrun": choice("What becomes of cost beyond all credit.", "debt", "operator_loss"),
        "debt_blocks_allowance": flag("Whether debt stops the allowance too."),
        "time_zone": text("Whose months count, such as Europe/Zurich.", 60, least=1),
        "overdraft_limit_usd": usd("How much debt leases of the Cycles protocol may make.", 0),
        "over_limit": flag("False lets leases begin again after one used more than there was."),
        "mode": choice("Whether real cards are charged, or those of test mode.", "live", "test"),
    },
    {"status": "active", "overrun": "debt", "time_zone": "Europe/Zurich"},
)
_SUBJECT = text("`key:<id>`, `device:<id>`, or `key:*`, `device:*` for every other.", 210, least=5)
_REQUESTS = (0, 1_000_000)
CAP: Final = Shape(
    "Cap",
    {
        "subject": needed(_SUBJECT),
        "day_usd": usd("The most it may use in a day; left out: no cap.", 0),
        "month_usd": usd("The most it may use in a month; left out: no cap.", 0),
        "per_minute": integer("Requests to the gateway in a minute; 0: no limit.", *_REQUESTS),
        "at_once": integer("Requests to the gateway at once; 0: no limit.", *_REQUESTS),
    },
    {"subject": "device:d-3", "day_usd": "0.50", "month_usd": "5.00", "per_minute": 60},
)
CAP_NAME: Final = Shape("Name of a cap", {"subject": needed(_SUBJECT)}, {"subject": "device:d-3"})
_LIMIT = digits("How many; default 50.", 1, 500)
PRACTICES: Final = Shape(
    "Page of practices",
    {"limit": _LIMIT, "after": text("The `next_after` of the page before.", MAX_ID)},
    {"limit": "20"},
)
VERIFY: Final = Shape(
    "What to verify",
    {"practice_id": text("One practice; default all.", MAX_ID, least=1)},
    {"practice_id": "prac_7"},
)
ALARMS: Final = Shape("Page of alarms", {"limit": _LIMIT}, {"limit": "20"})
_PRACTICE: Final = {"practice_id": "The practice; a new one begins with its first change."}


class AdminRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._credit = services.credit
        self._core = services.core

    async def practices(self, request: Request) -> Response:
        """List practices in the order of their ids."""
        operator = await self._services.access.operator(request)
        options = read_query(request, PRACTICES)
        limit, after = options.get("limit", 50), options.get("after", "")
        rows = await asyncio.to_thread(
            self._core.ask, lambda cur: queries.list_practices(cur, after, limit)
        )
        shown = [row for row in rows if operator.practice_id in (None, row.practice_id)]
        following = rows[-1].practice_id if len(rows) == limit else None
        return answer({"practices": list(map(views.practice, shown)), "next_after": following})

    async def grant(self, request: Request) -> Response:
        """Give credit that no payment of ours stands behind."""
        _operator, practice_id = await self._touch(request)
        options = GRANT.read(await read_object(request))
        receipt = await self._credit.grant(
            practice_id,
            options["amount_usd"],
            key=options["key"],
            kind=options.get("kind", "promotional"),
            expires_at_s=options.get("expires_at_s"),
            period=_period(options),
        )
        self._services.metrics.command("grant", "replayed" if receipt.replayed else "ok")
        return answer(views.grant(receipt), 200 if receipt.replayed else 201)

    async def adjust(self, request: Request) -> Response:
        """Correct a balance by hand, up or down, with a reason.

        What free credit does not cover becomes debt.
        """
        operator, practice_id = await self._touch(request)
        options = ADJUSTMENT.read(await read_object(request))
        receipt = await self._credit.adjust(
            practice_id,
            options["amount_usd"],
            key=options["key"],
            reason=options["reason"],
            author=operator.key_id,
            kind=options.get("kind", "promotional"),
        )
        self._services.metrics.command("adjust", "replayed" if receipt.replayed else "ok")
        return answer(views.grant(receipt), 200 if receipt.replayed else 201)

    async def license(self, request: Request) -> Response:
        """Tell a practice's licence, its period and allowance.

        The same again changes nothing; a higher allowance acts at once.
        """
        _operator, practice_id = await self._touch(request)
        options = LICENSE.read(await read_object(request))
        await self._credit.set_license(
            practice_id,
            options["license"],
            period_start_s=options["period_start_s"],
            period_end_s=options["period_end_s"],
            allowance_nano_usd=options["allowance_usd"],
            active=options.get("active", True),
        )
        return answer({"practice_id": practice_id, "done": True})

    async def policy(self, request: Request) -> Response:
        """Freeze, close or reactivate a practice, or change how debt is treated."""
        _operator, practice_id = await self._touch(request)
        options = POLICY.read(await read_object(request))
        if "overdraft_limit_usd" in options:
            options["overdraft_limit_nano_usd"] = options.pop("overdraft_limit_usd")
        await self._credit.set_policy(practice_id, **options)
        return answer({"practice_id": practice_id, "done": True})

    async def set_cap(self, request: Request) -> Response:
        """Cap what a key or a device may use.

        Money is capped where it is reserved, exactly; what this day and month used counts at once.
        """
        _operator, practice_id = await self._touch(request)
        options = CAP.read(await read_object(request))
        cap = Cap(
            options["subject"],
            options.get("day_usd"),
            options.get("month_usd"),
            options.get("per_minute", 0),
            options.get("at_once", 0),
        )
        await self._services.slowly(self._services.caps.set, practice_id, cap)
        return answer({"practice_id": practice_id, "done": True})

    async def remove_cap(self, request: Request) -> Response:
        """Take a cap away."""
        _operator, practice_id = await self._touch(request)
        options = CAP_NAME.read(await read_object(request))
        await self._services.slowly(self._services.caps.remove, practice_id, options["subject"])
        return answer({"practice_id": practice_id, "done": True})

    async def caps(self, request: Request) -> Response:
        """List the caps of a practice and what is left of them."""
        _operator, practice_id = await self._touch(request)
        found = await asyncio.to_thread(self._services.caps.list, practice_id)
        return answer({"practice_id": practice_id, "caps": list(map(views.cap, found))})

    async def verify(self, request: Request) -> Response:
        """Replay the journal and compare it with all that is stored.

        Its cost grows with the history.
        """
        operator = await self._services.access.operator(request)
        practice_id = read_query(request, VERIFY).get("practice_id") or operator.practice_id
        if practice_id is not None:
            operator.may_touch(practice_id)
        found = await self._services.slowly(self._core.verification, practice_id)
        return answer(views.verification(found))

    async def alarms(self, request: Request) -> Response:
        """List alarms that nobody cleared, newest first."""
        operator = await self._services.access.operator(request)
        limit = read_query(request, ALARMS).get("limit", 50)
        found = await asyncio.to_thread(
            self._core.ask, lambda cur: figures.alarms(cur, operator.practice_id, limit)
        )
        return answer({"alarms": found})

    async def _touch(self, request: Request) -> tuple[Operator, str]:
        operator = await self._services.access.operator(request)
        practice_id = operator.may_touch(request.path_params["practice_id"])
        request.scope["guthaben.practice_id"] = practice_id
        return operator, practice_id


def _period(options: dict[str, Any]) -> Period | None:
    given = [name for name in ("license", "period_start_s", "period_end_s") if name in options]
    if not given:
        return None
    if len(given) < 3:
        raise invalid("license, period_start_s and period_end_s belong together.")
    if options["period_start_s"] >= options["period_end_s"]:
        raise invalid("A period ends after it starts.", field="period_end_s")
    return Period(options["license"], options["period_start_s"], options["period_end_s"])


def router(services: Services) -> APIRouter:
    """Make the routes for operators."""
    routes, api = AdminRoutes(services), new_router("admin")
    add(
        api, "GET", "/v1/admin/practices", routes.practices,
        query=PRACTICES, answers={200: models.PracticesModel},
    )  # fmt: skip
    given, done = {201: models.GrantModel, 200: models.GrantModel}, {200: models.DoneModel}
    changes = (
        ("POST", "grants", routes.grant, GRANT, given),
        ("POST", "adjustments", routes.adjust, ADJUSTMENT, given),
        ("PUT", "license", routes.license, LICENSE, done),
        ("PUT", "policy", routes.policy, POLICY, done),
        ("PUT", "caps", routes.set_cap, CAP, done),
        ("POST", "caps/remove", routes.remove_cap, CAP_NAME, done),
    )
    for method, name, endpoint, shape, answers in changes:
        add(
            api, method, f"/v1/admin/practices/{{practice_id:path}}/{name}", endpoint,
            body=shape, answers=answers, path_parameters=_PRACTICE,
        )  # fmt: skip
    add(
        api, "GET", "/v1/admin/practices/{practice_id:path}/caps", routes.caps,
        answers={200: CapsModel}, path_parameters=_PRACTICE,
    )  # fmt: skip
    add(
        api, "GET", "/v1/admin/verify", routes.verify,
        query=VERIFY, answers={200: models.VerifyModel},
    )  # fmt: skip
    add(
        api, "GET", "/v1/admin/alarms", routes.alarms,
        query=ALARMS, answers={200: AlarmsModel},
    )  # fmt: skip
    return api
