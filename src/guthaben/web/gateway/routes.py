"""Routes of the gateway, `/openai/v1/...`, and their description.

Law: what is described is what is answered: errors have OpenAI's shape here, not that of problem
details, because OpenAI's SDKs read them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from guthaben.services.upstreams import PATHS
from guthaben.web.deps import Services
from guthaben.web.gateway.asked import FORMS
from guthaben.web.gateway.gateway import Exchange, Gateway, Passing, Serve
from guthaben.web.gateway.offered import Offered, shown
from guthaben.web.gateway.settings import GatewaySettings
from guthaben.web.problems import Problem
from guthaben.web.routing import Handler, new_router

PREFIX: Final = "/openai/v1"
_STATUSES: Final = (400, 401, 402, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_ABOUT: Final = {
    "chat": "Create a chat completion",
    "responses": "Create a response",
    "embeddings": "Create embeddings",
    "transcriptions": "Transcribe a recording",
    "translations": "Translate a recording",
    "speech": "Speak a text",
    "images": "Create images",
    "image_edits": "Edit images",
}
_MORE: Final = """\
As OpenAI's endpoint of this name. Reserves before the provider is asked and settles by its usage;
402 says what is available and where to buy more. Errors are in OpenAI's shape.
"""
_NO_CACHE: Final = {"Cache-Control": "no-store"}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer", "null"]},
                "available_usd": {"type": "string"},
                "requested_usd": {"type": "string"},
                "topup_url": {"type": "string"},
                "request_id": {"type": "string"},
            },
        }
    },
}
_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "chat": {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_completion_tokens": 50,
    },
    "responses": {"model": "gpt-4o-mini", "input": "Say hello.", "max_output_tokens": 50},
    "embeddings": {"model": "text-embedding-3-small", "input": "Hello."},
    "speech": {"model": "tts-1", "input": "Hello.", "voice": "alloy"},
    "images": {"model": "gpt-image-1", "prompt": "A grey point.", "n": 1, "size": "1024x1024"},
}


def router(services: Services, settings: GatewaySettings) -> APIRouter:
    """Make the routes of the gateway; its connections are closed when the services stop."""
    gateway = Gateway(services, settings)
    services.on_stop(gateway.close)
    api = new_router("openai")
    for endpoint, path in PATHS.items():
        _add(api, "POST", f"{PREFIX}/{path}", _passing(gateway, endpoint), endpoint)
    models = _Models(gateway)
    _add(api, "GET", f"{PREFIX}/models", models.many, "models")
    _add(api, "GET", f"{PREFIX}/models/{{model:path}}", models.one, "model")
    return api


def _passing(gateway: Gateway, endpoint: str) -> Handler:
    async def serve(request: Request) -> Response:
        return Passing(lambda exchange: gateway.serve(endpoint, exchange), request)

    return serve


class _Models:
    """The list of models; a caller sees what may be asked for, whatever its credit."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._offered = Offered(gateway)

    async def many(self, request: Request) -> Response:
        """List the models that are offered."""
        return Passing(self._answering(lambda: self._many(request)), request)

    async def one(self, request: Request) -> Response:
        """Describe a model."""
        return Passing(self._answering(lambda: self._one(request)), request)

    def _answering(self, make: Any) -> Serve:
        async def serve(exchange: Exchange) -> None:
            await self._gateway.guarded(exchange, _sent(exchange, make))

        return serve

    async def _many(self, request: Request) -> Response:
        await self._gateway.services.access.caller(request, "gate")
        names = await self._offered.names()
        body = {"object": "list", "data": [shown(name) for name in names]}
        return JSONResponse(body, headers=_NO_CACHE)

    async def _one(self, request: Request) -> Response:
        await self._gateway.services.access.caller(request, "gate")
        name = str(request.path_params["model"])
        if name not in await self._offered.names():
            raise Problem(404, "model_not_found", "There is no such model here.")
        return JSONResponse(shown(name), headers=_NO_CACHE)


def _sent(exchange: Exchange, make: Any) -> Coroutine[Any, Any, None]:
    async def send() -> None:
        response: Response = await make()
        await response(exchange.request.scope, exchange.receive, exchange.send)

    return send()


# ---------------------------------------------------------------- description


def _add(api: APIRouter, method: str, path: str, endpoint: Handler, name: str) -> None:
    about = _ABOUT.get(name) or (endpoint.__doc__ or "").rstrip(".")
    api.add_api_route(
        path,
        endpoint,
        methods=[method],
        response_model=None,
        name=f"openai_{name}",
        summary=about,
        description=_MORE if name in PATHS else "",
        responses={200: _good(name), **{status: _refusal(status) for status in _STATUSES}},
        openapi_extra=_extra(name),
    )


def _good(name: str) -> dict[str, Any]:
    kinds: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if name in ("chat", "responses", "transcriptions", "speech", "images"):
        kinds["text/event-stream"] = {"schema": {"type": "string"}}
    if name in FORMS:
        kinds["text/plain"] = {"schema": {"type": "string"}}
    if name == "speech":
        kinds["audio/*"] = {"schema": {"type": "string", "format": "binary"}}
    return {"description": "The provider's answer.", "content": kinds}


def _refusal(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": _ERROR}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _extra(name: str) -> dict[str, Any]:
    if name == "model":
        about = "The model's name."
        where = {"in": "path", "name": "model", "required": True, "description": about}
        return {"parameters": [{**where, "schema": {"type": "string"}}]}
    if name not in PATHS:
        return {}
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["model"],
        "properties": {"model": {"type": "string"}},
        "additionalProperties": True,
    }
    if name in FORMS:
        field = "image" if name == "image_edits" else "file"
        schema["properties"][field] = {"type": "string", "format": "binary"}
        schema["required"] = ["model", field]
        content: dict[str, Any] = {"multipart/form-data": {"schema": schema}}
    else:
        content = {"application/json": {"schema": schema, "example": _EXAMPLES[name]}}
    return {"requestBody": {"required": True, "content": content}}
