"""Routing: how an endpoint is called, and how it is described in OpenAPI.

Law: an endpoint takes a request and gives an answer; every error becomes a problem here, so that
the routers behave alike in our server and in a host's. FastAPI describes the routes, but neither
reads bodies nor makes answers: its own reading is too lenient for money.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from guthaben.errors import GuthabenError
from guthaben.texts import best_language
from guthaben.web import problems
from guthaben.web.models import ProblemModel
from guthaben.web.problems import Problem, invalid
from guthaben.web.redaction import redact
from guthaben.web.shapes import Shape

log = logging.getLogger("guthaben.web")

Handler = Callable[[Request], Awaitable[Response]]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID_KEY: Final = "guthaben.request_id"
_LANGUAGE_KEY: Final = "guthaben.language"
_PROBLEM_STATUS: Final = (400, 401, 403, 404, 409, 413, 415, 503)
_PROBLEM_SCHEMA: Final = ProblemModel.model_json_schema()
_NO_STORE: Final = {"Cache-Control": "no-store"}

_bearer = HTTPBearer(auto_error=False, description="An API key: gh_live_... or gh_test_...")


def request_id(scope: Scope) -> str:
    """Give the request's id: the caller's own if it is sane, else a random one; stays the same."""
    known = scope.get(_ID_KEY)
    if known is None:
        known = _asked_id(scope) or f"{random.getrandbits(96):024x}"  # a name, no secret
        scope[_ID_KEY] = known
    return str(known)


def _asked_id(scope: Scope) -> str | None:
    asked = [value for name, value in scope.get("headers", ()) if name == b"x-request-id"]
    text = asked[0].decode("latin-1") if len(asked) == 1 else ""
    sane = _REQUEST_ID.fullmatch(text) and redact(text) == text
    return text if sane else None


class Endpoint(APIRoute):
    """A route whose endpoint reads the request by itself; its errors become problems."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Call the endpoint without FastAPI's own reading of parameters and bodies."""
        endpoint: Handler = self.endpoint

        async def handle(request: Request) -> Response:
            identity = request_id(request.scope)
            try:
                answer = await endpoint(request)
            except Problem as error:
                problem = error
            except GuthabenError as error:
                problem = translated(error, identity)
            except Exception:
                log.exception("a request broke", extra={"request_id": identity})
                problem = problems.unexpected()
            else:
                answer.headers["X-Request-Id"] = identity
                return answer
            return problems.response(problem, identity, await language_of(request))

        return handle


def speak_to(request: Request, language: Callable[[], str | None]) -> None:
    """Say how to learn the language of the practice that asks, should its request be refused."""
    request.scope[_LANGUAGE_KEY] = language


async def language_of(request: Request) -> str:
    """Choose what the request asks for, else what its practice asked for, else English."""
    asked = best_language(request.headers.get("accept-language", ""))
    own = request.scope.get(_LANGUAGE_KEY)
    if asked is None and own is not None:
        with contextlib.suppress(GuthabenError):
            asked = await asyncio.to_thread(own)
    return asked or "en"


def translated(error: GuthabenError, identity: str) -> Problem:
    """Translate an error of the engine; what is our own fault is logged."""
    problem = problems.of_error(error)
    if problem.status >= 500:
        log.error("a request failed", extra={"request_id": identity, "code": problem.code})
    return problem


def new_router(tag: str) -> APIRouter:
    """Make a router for a group of routes that need an API key."""
    # The dependency is never called (see Endpoint); it puts the key into the description.
    return APIRouter(route_class=Endpoint, tags=[tag], dependencies=[Security(_bearer)])


def open_router(tag: str) -> APIRouter:
    """Make a router for routes without an API key."""
    return APIRouter(route_class=Endpoint, tags=[tag])


def answer(body: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    """Answer with JSON that no cache keeps."""
    return JSONResponse(body, status, {**_NO_STORE, **headers})


def read_query(request: Request, shape: Shape) -> dict[str, Any]:
    """Read the query strictly: only what is known, nothing twice."""
    items = request.query_params.multi_items()
    found = dict(items)
    if len(found) != len(items):
        raise invalid("A name occurs twice in the query.")
    return shape.read(found)


def add(
    router: APIRouter,
    method: str,
    path: str,
    endpoint: Handler,
    *,
    answers: Mapping[int, type[BaseModel]],
    body: Shape | None = None,
    query: Shape | None = None,
    path_parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    refusals: Sequence[int] = (),
) -> None:
    """Add a route, described by the shapes that read it; its docstring tells what it does."""
    about = (endpoint.__doc__ or "").strip()
    summary, _, description = about.partition("\n\n")
    status = {*_PROBLEM_STATUS, *refusals}
    router.add_api_route(
        path,
        endpoint,
        methods=[method],
        response_model=None,
        status_code=min(answers),
        summary=summary.rstrip("."),
        description=" ".join(description.split()),
        responses={
            **{code: {"model": model} for code, model in answers.items()},
            **{code: _problem(code) for code in sorted(status)},
        },
        openapi_extra=_extra(body, query, path_parameters or {}, headers or {}),
    )


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}},
    }


def _extra(
    body: Shape | None,
    query: Shape | None,
    path_parameters: Mapping[str, str],
    headers: Mapping[str, str],
) -> dict[str, Any]:
    parameters = [_parameter("path", name, about) for name, about in path_parameters.items()]
    parameters += [_parameter("header", name, about) for name, about in headers.items()]
    if query is not None:
        parameters += [
            {
                "in": "query",
                "name": name,
                "required": field.required,
                "schema": field.schema,
                **({"example": query.example[name]} if name in query.example else {}),
            }
            for name, field in query.fields.items()
        ]
    extra: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if body is not None:
        content = {"schema": body.schema(), "example": dict(body.example)}
        needs_body = any(field.required for field in body.fields.values())
        extra["requestBody"] = {
            "required": needs_body,
            "content": {"application/json": content},
        }
    return extra


def _parameter(where: str, name: str, about: str) -> dict[str, Any]:
    return {
        "in": where,
        "name": name,
        "required": where == "path",
        "description": about,
        "schema": {"type": "string"},
    }
