"""Errors in OpenAI's shape, so that its SDKs raise what their users expect.

Law: every refusal has the same stable `code` as elsewhere; no text of an unexpected error and no
word about who pays whom stands in one. The SDK is told not to try again what stays refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from guthaben.errors import GuthabenError, InsufficientCredit, Refused
from guthaben.web import problems
from guthaben.web.gateway import texts
from guthaben.web.problems import Problem
from guthaben.web.routing import language_of, request_id

MEDIA_TYPE: Final = "application/json"
_TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_FINAL: Final = frozenset({402, 409})
_STATUS: Final = {"unknown_model": 404, "unpriced_usage": 400}
_UNRETRIED: Final = frozenset({"cap_exceeded"})
REASONS: Final = frozenset({"unbounded_request", "unreadable_audio"})
"""Reasons of `invalid_input` that say more than it does."""


class UpstreamFailed(Problem):
    """The provider gave no answer that can be passed on."""

    def __init__(self, code: str, detail: str, status: int = 502) -> None:
        super().__init__(status, code, detail)


def of_error(error: GuthabenError) -> Problem:
    """Translate what the engine raised; refusals with a status of their own first."""
    if isinstance(error, Refused) and error.reason in _STATUS:
        return Problem(_STATUS[error.reason], error.reason, str(error))
    problem = problems.of_error(error)
    if isinstance(error, Refused) and error.reason in REASONS:
        problem.code = error.reason
    return problem


def of_credit(error: InsufficientCredit, topup_url: str | None) -> Problem:
    """Make the refusal of a request that the credit does not cover."""
    problem = problems.of_error(error)
    if topup_url is not None:
        problem.fields["topup_url"] = topup_url
    return problem


def body(problem: Problem, request_id: str, language: str) -> dict[str, Any]:
    """Put a problem into OpenAI's shape."""
    fields = dict(problem.fields)
    kind = _TYPES.get(problem.status)
    if kind is None:
        kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    error = {
        "message": texts.say(problem, language),
        "type": kind,
        "param": fields.pop("field", None),
        "code": problem.code,
        "request_id": request_id,
        **fields,
    }
    return {"error": error}


async def response(problem: Problem, request: Request) -> Response:
    """Make an answer where there is no route of the gateway to make it."""
    language = await language_of(request)
    status, headers, text = wire(problem, request_id(request.scope), language)
    answer = Response(text, status)
    answer.raw_headers = headers
    return answer


def wire(
    problem: Problem, request_id: str, language: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Make status, headers and body of an answer."""
    text = json.dumps(body(problem, request_id, language), ensure_ascii=False).encode()
    headers: Mapping[str, str] = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(text)),
        "cache-control": "no-store",
        "content-language": language,
        "vary": "accept-language",
        "x-request-id": request_id,
        **{name.lower(): value for name, value in problem.headers.items()},
    }
    found = [(name.encode(), value.encode()) for name, value in headers.items()]
    if problem.status in _FINAL or problem.code in _UNRETRIED:
        found.append((b"x-should-retry", b"false"))
    return problem.status, found, text
