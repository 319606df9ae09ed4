"""Routes for operators about money that comes in: the inbox, the quarantine, refunds.

Law: what changes something says why, and is written down with the key that did it. A key of one
practice reaches its own cases and refunds, and no event: whose it is shows when it is applied.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from guthaben.errors import Refused
from guthaben.services.checks import MAX_ID, MAX_KEY, MAX_TEXT
from guthaben.services.letters import ALL, STUCK, WAITING
from guthaben.services.quarantine import Decision
from guthaben.services.refunds import Wish
from guthaben.store.cases import Case
from guthaben.web import money_models, money_views
from guthaben.web.access import Operator
from guthaben.web.deps import Services
from guthaben.web.problems import invalid
from guthaben.web.routing import add, answer, new_router, read_query
from guthaben.web.shapes import Shape, chf, choice, digits, flag, needed, text, usd
from guthaben.web.strict_json import read_object

_LARGEST_RAPPEN: Final = 99_999_999
_REASON = needed(text("Why; kept, and erasable.", 1000, least=3, opaque=False))
_LIMIT = digits("How many; default 50.", 1, 500)
_WHY: Final = Shape(
    "Decision", {"reason": _REASON}, {"reason": "seen with the customer, case 3391"}
)
LETTERS: Final = Shape(
    "Page of events",
    {
        "limit": _LIMIT,
        "status": choice("Default stuck: dead or quarantined.", "stuck", "waiting", "all"),
        "after": text("The `next_after` of the page before.", 300),
    },
    {"limit": "20", "status": "stuck"},
)
CASES: Final = Shape(
    "Page of cases",
    {
        "limit": _LIMIT,
        "status": choice("Default open.", "open", "all"),
        "after": digits("The `next_after` of the page before.", 0, 10**12),
    },
    {"limit": "20", "status": "open"},
)
CREDIT: Final = Shape(
    "Credit for a case",
    {
        "practice_id": needed(text("Whose credit it becomes.", MAX_ID, least=1)),
        "reason": _REASON,
        "amount_usd": usd("Default what the payment's price buys.", 1),
    },
    {"practice_id": "prac_7", "reason": "paid from the old price list, agreed by phone"},
)
REFUNDABLE: Final = Shape(
    "Which payment",
    {"of": needed(text("A top-up's id, or a payment's.", MAX_TEXT, least=1, opaque=False))},
    {"of": "tu_1"},
)
REFUND: Final = Shape(
    "Refund",
    {
        "of": needed(text("A top-up's id, or a payment's.", MAX_TEXT, least=1, opaque=False)),
        "key": needed(text("Idempotency key, kept for ever.", MAX_KEY, least=1)),
        "reason": _REASON,
        "amount_chf": chf("Default all that is left.", 1, _LARGEST_RAPPEN),
        "allow_debt": flag("Whether spent credit may become debt; default false."),
    },
    {"of": "tu_1", "key": "refund-3391", "reason": "bought by mistake", "amount_chf": "5.00"},
)
_STATUSES: Final = {"stuck": STUCK, "waiting": WAITING, "all": ALL}
_CASE: Final = {"case_no": "The number of the case."}
_EVENT: Final = {"event_id": "The provider's id of the event."}


class MoneyRoutes:
    """The endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services

    # ---- the inbox

    async def letters(self, request: Request) -> Response:
        """List events that were received, in the order of their arrival."""
        operator = await self._services.access.operator(request)
        options = read_query(request, LETTERS)
        limit, after = options.get("limit", 50), _place(options.get("after", ""))
        statuses = _STATUSES[options.get("status", "stuck")]
        rows = []
        if operator.practice_id is None:
            rows = await asyncio.to_thread(self._services.letters.page, statuses, after, limit)
        return answer(money_views.letters(rows, limit))

    async def letter(self, request: Request) -> Response:
        """Show one event and what operators did about it."""
        await self._of_all(request)
        event_id = request.path_params["event_id"]
        view = await asyncio.to_thread(self._services.letters.show, event_id)
        return answer(money_views.letter_with_notes(view))

    async def retry(self, request: Request) -> Response:
        """Let an event be applied anew; one that is done stays done.

        An event of another mode or account is never applied.
        """
        response = await self._about_event(request, "retry")
        self._services.news_in_inbox()
        return response

    async def discard(self, request: Request) -> Response:
        """Close an event that shall never be applied; it is kept."""
        return await self._about_event(request, "discard")

    async def _about_event(self, request: Request, action: str) -> Response:
        operator = await self._of_all(request)
        why = _WHY.read(await read_object(request))
        change = getattr(self._services.letters, action)
        event_id = request.path_params["event_id"]
        row = await asyncio.to_thread(change, event_id, why["reason"], operator.key_id)
        return answer(money_views.letter(row))

    # ---- cases

    async def cases(self, request: Request) -> Response:
        """List payments that are held back for a person to decide."""
        operator = await self._services.access.operator(request)
        options = read_query(request, CASES)
        limit = options.get("limit", 50)
        found = await self._services.slowly(
            self._services.payments.quarantine.page,
            only_open=options.get("status", "open") == "open",
            practice_id=operator.practice_id,
            after_case_no=options.get("after", 0),
            limit=limit,
        )
        return answer(money_views.cases(found, limit))

    async def case(self, request: Request) -> Response:
        """Show one case and what was done about it."""
        _operator, case = await self._case(request)
        quarantine = self._services.payments.quarantine
        _case, notes = await self._services.slowly(quarantine.show, case.case_no)
        return answer({**money_views.case(case), "notes": [money_views.note(one) for one in notes]})

    async def credit(self, request: Request) -> Response:
        """Give a held-back payment's credit to a practice, once for ever.

        The payment is read anew; the same decision again changes nothing.
        """
        operator, case = await self._case(request)
        options = CREDIT.read(await read_object(request))
        resolved = await self._services.slowly(
            self._services.payments.quarantine.credit,
            case.case_no,
            operator.may_touch(options["practice_id"]),
            Decision(options["reason"], operator.key_id),
            amount_nano_usd=options.get("amount_usd"),
        )
        return answer(money_views.case(resolved.case))

    async def dismiss(self, request: Request) -> Response:
        """Close a case without credit and without a refund."""
        operator, case = await self._case(request)
        why = _WHY.read(await read_object(request))
        resolved = await self._services.slowly(
            self._services.payments.quarantine.dismiss,
            case.case_no,
            Decision(why["reason"], operator.key_id),
        )
        return answer(money_views.case(resolved.case))

    async def refund_case(self, request: Request) -> Response:
        """Give a held-back payment back whole; that closes its case."""
        operator, case = await self._case(request)
        why = _WHY.read(await read_object(request))
        found = await self._services.slowly(
            self._services.payments.quarantine.refund,
            case.case_no,
            Decision(why["reason"], operator.key_id),
        )
        return answer(money_views.refund(found))

    async def _case(self, request: Request) -> tuple[Operator, Case]:
        operator = await self._services.access.operator(request)
        number = request.path_params["case_no"]
        missing = Refused("There is no such case.", reason="case_not_found")
        if not (number.isascii() and number.isdigit() and len(number) < 16):
            raise missing
        show = self._services.payments.quarantine.show
        case, _notes = await self._services.slowly(show, int(number))
        if operator.practice_id not in (None, case.practice_id):
            raise missing
        return operator, case

    # ---- refunds

    async def refundable(self, request: Request) -> Response:
        """Tell the largest amounts of a payment that can go back: all, and the unspent part."""
        _operator, practice_id = await self._touch(request)
        of = read_query(request, REFUNDABLE)["of"]
        refunds = self._services.payments.inbox.refunds
        return answer(
            money_views.quote(await self._services.slowly(refunds.quote, of, practice_id))
        )

    async def refund(self, request: Request) -> Response:
        """Give money of a payment back, once per key; its credit is taken.

        Refused where more is asked for than is left, or than unspent credit covers. A lost answer
        of the provider is the status `unknown`: it is found out by itself.
        """
        operator, practice_id = await self._touch(request)
        options = REFUND.read(await read_object(request))
        wish = Wish(
            options.get("amount_chf"), options["key"], options["reason"], operator.key_id,
            options.get("allow_debt", False),
        )  # fmt: skip
        refunds = self._services.payments.inbox.refunds
        found = await self._services.slowly(refunds.refund, options["of"], wish, practice_id)
        self._services.metrics.command("refund", "replayed" if found.replayed else found.status)
        return answer(money_views.refund(found), 200 if found.replayed else 201)

    # ---- who

    async def _of_all(self, request: Request) -> Operator:
        operator = await self._services.access.operator(request)
        if operator.practice_id is not None:  # an event is nobody's until it is applied
            raise Refused("There is no such event.", reason="event_not_found")
        return operator

    async def _touch(self, request: Request) -> tuple[Operator, str]:
        operator = await self._services.access.operator(request)
        practice_id = operator.may_touch(request.path_params["practice_id"])
        request.scope["guthaben.practice_id"] = practice_id
        return operator, practice_id


def _place(after: str) -> tuple[int, str]:
    if not after:
        return -1, ""
    at_s, _, event_id = after.partition(":")
    if not (at_s.isascii() and at_s.isdigit() and len(at_s) < 16 and event_id):
        raise invalid("after is the next_after of the page before.", field="after")
    return int(at_s), event_id


def router(services: Services) -> APIRouter:
    """Make the routes."""
    routes, api = MoneyRoutes(services), new_router("admin")
    inbox, quarantine = "/v1/admin/inbox", "/v1/admin/quarantine"
    practice = "/v1/admin/practices/{practice_id:path}"
    add(api, "GET", inbox, routes.letters, query=LETTERS, answers={200: money_models.LettersModel})
    add(
        api, "GET", f"{inbox}/{{event_id}}", routes.letter,
        answers={200: money_models.LetterNotesModel}, path_parameters=_EVENT,
    )  # fmt: skip
    for name, endpoint in (("retry", routes.retry), ("discard", routes.discard)):
        add(
            api, "POST", f"{inbox}/{{event_id}}/{name}", endpoint, body=_WHY,
            answers={200: money_models.LetterModel}, path_parameters=_EVENT,
        )  # fmt: skip
    add(api, "GET", quarantine, routes.cases, query=CASES, answers={200: money_models.CasesModel})
    one = f"{quarantine}/{{case_no}}"
    add(
        api,
        "GET",
        one,
        routes.case,
        answers={200: money_models.CaseNotesModel},
        path_parameters=_CASE,
    )
    decisions = (
        ("credit", routes.credit, CREDIT, money_models.CaseModel),
        ("dismiss", routes.dismiss, _WHY, money_models.CaseModel),
        ("refund", routes.refund_case, _WHY, money_models.RefundModel),
    )
    for name, endpoint, body, model in decisions:
        add(
            api, "POST", f"{one}/{name}", endpoint, body=body, answers={200: model},
            path_parameters=_CASE, refusals=(402, 502),
        )  # fmt: skip
    whose = {"practice_id": "The practice that paid."}
    add(
        api, "GET", f"{practice}/refundable", routes.refundable, query=REFUNDABLE,
        answers={200: money_models.QuoteModel}, path_parameters=whose, refusals=(402, 502),
    )  # fmt: skip
    add(
        api, "POST", f"{practice}/refunds", routes.refund, body=REFUND, path_parameters=whose,
        answers={201: money_models.RefundModel, 200: money_models.RefundModel}, refusals=(402, 502),
    )  # fmt: skip
    return api
