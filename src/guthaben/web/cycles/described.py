"""How the Cycles routes are described in the OpenAPI page: parameters, bodies, examples, answers.

Law: what is described is what `bodies`, `listing` and `answers` do; a test holds every answer
against it, and another one against the protocol's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import Security
from fastapi.security import APIKeyHeader

from guthaben.domain.calls import LEVELS
from guthaben.web.cycles.bodies import MAX_TTL_MS
from guthaben.web.cycles.errors import STATUS

Schema = dict[str, Any]
_WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
_TEXT: Final[Schema] = {"type": "string"}
_FREE: Final[Schema] = {"type": "object", "additionalProperties": True}


def _object(required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": required.split(),
        "additionalProperties": False,
        "properties": properties,
    }


def _text(most: int, least: int = 0) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": most}


def _choice(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _bounded(least: int, most: int, default: int | None = None) -> Schema:
    found: Schema = {"type": "integer", "minimum": least, "maximum": most}
    return found if default is None else {**found, "default": default}


_KEY = _text(256, 1)
_UNIT = _choice("USD_MICROCENTS", "TOKENS", "CREDITS", "RISK_POINTS")
_AMOUNT = _object("unit amount", unit=_UNIT, amount=_WHOLE)
_SIGNED = _object("unit amount", unit=_UNIT, amount={"type": "integer"})
_LEVEL = {"type": "string", "maxLength": 128, "pattern": "^[a-zA-Z0-9_.-]+$"}
_SUBJECT = {
    **_object(
        "",
        **dict.fromkeys(LEVELS, _LEVEL),
        dimensions={
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": _text(256),
        },
    ),
    "anyOf": [{"required": [name]} for name in LEVELS],
}
_ACTION = _object(
    "kind name",
    kind=_text(64),
    name=_text(256),
    tags={"type": "array", "maxItems": 10, "items": _text(64)},
)
_METRICS = _object(
    "",
    tokens_input=_WHOLE,
    tokens_output=_WHOLE,
    latency_ms=_WHOLE,
    model_version=_text(128),
    custom=_FREE,
)
_POLICY = {
    **_choice("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"),
    "default": "ALLOW_IF_AVAILABLE",
}
_SCOPES: Final[Schema] = {"type": "array", "items": _TEXT}
_BALANCE = _object(
    "scope scope_path remaining",
    scope=_TEXT,
    scope_path=_TEXT,
    remaining=_SIGNED,
    reserved=_AMOUNT,
    debt=_AMOUNT,
    overdraft_limit=_AMOUNT,
    is_over_limit={"type": "boolean"},
)
_LEASE = _object(
    "reservation_id status subject action reserved created_at_ms expires_at_ms scope_path"
    " affected_scopes",
    reservation_id=_TEXT,
    status=_choice("ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"),
    idempotency_key=_KEY,
    subject=_SUBJECT,
    action=_ACTION,
    reserved=_AMOUNT,
    committed=_AMOUNT,
    created_at_ms=_WHOLE,
    expires_at_ms=_WHOLE,
    finalized_at_ms=_WHOLE,
    scope_path=_TEXT,
    affected_scopes=_SCOPES,
    metadata=_FREE,
    committed_metadata=_FREE,
)
_PAGED: Final = {"next_cursor": _TEXT, "has_more": {"type": "boolean"}}
_ERROR = _object(
    "error message request_id trace_id",
    error=_choice(*STATUS),
    message=_TEXT,
    request_id=_TEXT,
    trace_id={"type": "string", "pattern": "^[0-9a-f]{32}$"},
    details=_FREE,
)
_DECISION = {
    "decision": _choice("ALLOW", "DENY"),
    "reason_code": _TEXT,
    "affected_scopes": _SCOPES,
}
_ASKED = {
    "idempotency_key": _KEY,
    "subject": _SUBJECT,
    "action": _ACTION,
    "metadata": _FREE,
}
_TTL = {"expires_at_ms": _WHOLE, "remaining_ttl_ms": _WHOLE}

_USD = "USD_MICROCENTS"
_PLAN = {
    "subject": {"agent": "summarizer"},
    "action": {"kind": "llm.completion", "name": "gpt-4o-mini"},
}
_ESTIMATE = {"estimate": {"unit": _USD, "amount": 500_000}}


class _Body:
    """A request's body: its schema and an example that is accepted."""

    def __init__(self, example: Mapping[str, Any], required: str, **properties: Schema) -> None:
        self.schema = _object(required, **properties)
        self.example = {"idempotency_key": "run-42", **example}


_BODIES: Final = {
    "create": _Body(
        {**_PLAN, **_ESTIMATE, "ttl_ms": 30_000},
        "idempotency_key subject action estimate",
        **_ASKED,
        estimate=_AMOUNT,
        ttl_ms=_bounded(1_000, MAX_TTL_MS, 60_000),
        grace_period_ms=_bounded(0, 60_000, 5_000),
        overage_policy=_POLICY,
        dry_run={"type": "boolean", "default": False},
    ),
    "decide": _Body(
        {**_PLAN, **_ESTIMATE},
        "idempotency_key subject action estimate",
        **_ASKED,
        estimate=_AMOUNT,
    ),
    "commit": _Body(
        {"actual": {"unit": _USD, "amount": 423_000}, "metrics": {"tokens_input": 1_500}},
        "idempotency_key actual",
        idempotency_key=_KEY,
        actual=_AMOUNT,
        metrics=_METRICS,
        metadata=_FREE,
    ),
    "release": _Body(
        {"reason": "not needed"},
        "idempotency_key",
        idempotency_key=_KEY,
        reason=_text(256),
    ),
    "extend": _Body(
        {"extend_by_ms": 30_000},
        "idempotency_key extend_by_ms",
        idempotency_key=_KEY,
        extend_by_ms=_bounded(1, MAX_TTL_MS),
        metadata=_FREE,
    ),
    "event": _Body(
        {**_PLAN, "actual": {"unit": _USD, "amount": 1_000}},
        "idempotency_key subject action actual",
        **_ASKED,
        actual=_AMOUNT,
        overage_policy=_POLICY,
        metrics=_METRICS,
        client_time_ms=_WHOLE,
    ),
}
_ANSWERS: Final[dict[str, Schema]] = {
    "create": _object(
        "decision affected_scopes",
        **_DECISION,
        **_TTL,
        reservation_id=_TEXT,
        reserved=_AMOUNT,
        scope_path=_TEXT,
    ),
    "decide": _object("decision affected_scopes", **_DECISION),
    "commit": _object(
        "status charged", status=_choice("COMMITTED"), charged=_AMOUNT, released=_AMOUNT
    ),
    "release": _object("status released", status=_choice("RELEASED"), released=_AMOUNT),
    "extend": _object("status expires_at_ms", status=_choice("ACTIVE"), **_TTL),
    "event": _object("status event_id", status=_choice("APPLIED"), event_id=_TEXT, charged=_AMOUNT),
    "one": _LEASE,
    "many": _object("reservations", reservations={"type": "array", "items": _LEASE}, **_PAGED),
    "balances": _object("balances", balances={"type": "array", "items": _BALANCE}, **_PAGED),
}
_FILTERS: Final = ("from", "to", "expires_from", "expires_to", "finalized_from", "finalized_to")
_QUERIES: Final[dict[str, dict[str, Schema]]] = {
    "many": {
        "idempotency_key": _KEY,
        "status": _LEASE["properties"]["status"],
        **dict.fromkeys(LEVELS, _TEXT),
        **dict.fromkeys(_FILTERS, _TEXT),
        "sort_by": _TEXT,
        "sort_dir": _choice("asc", "desc"),
        "include": _TEXT,
        "limit": _bounded(1, 200, 50),
        "cursor": _TEXT,
    },
    "balances": {
        **dict.fromkeys(LEVELS, _TEXT),
        "include_children": {"type": "boolean"},
        "limit": _bounded(1, 200, 50),
        "cursor": _TEXT,
    },
}
_SCHEME: Final = APIKeyHeader(
    name="X-Cycles-API-Key",
    scheme_name="CyclesApiKey",
    description="A practice's own API key with the scope gate: gh_live_... or gh_test_...",
    auto_error=False,
)
_ON_ONE: Final = frozenset({"commit", "release", "extend", "one"})
_GONE: Final = {
    "create": (404, 409),
    "decide": (409,),
    "event": (404, 409),
    "one": (404, 410),
}
_STEP: Final = (404, 409, 410)
_WORDS: Final = {
    400: "The request can't be read, or is in another unit",
    401: "No valid API key",
    403: "Another tenant's, or a key without the scope gate",
    404: "Nothing of that name",
    409: "Refused; `error` says why",
    410: "The reservation has expired",
    500: "Failed here; repeat with the same key",
}


def options(method: str, path: str, name: str, about: str) -> dict[str, Any]:
    """Describe one route as FastAPI takes it."""
    refused = [400, 401, 403, *_refusals(name), 500]
    status = 201 if name == "event" else 200
    answered = {"description": "Done", "content": _json(_ANSWERS[name])}
    return {
        "name": f"cycles_{name}",
        "response_model": None,
        # Never called (see LeanRoute); it puts the key into the description.
        "dependencies": [Security(_SCHEME)],
        "status_code": status,
        "tags": ["cycles"],
        "summary": about.strip().partition(".")[0].replace("`", ""),
        "description": f"{about.strip()} See docs/cycles.md.",
        "responses": {
            status: answered,
            **{code: {"description": _WORDS[code], "content": _json(_ERROR)} for code in refused},
        },
        "openapi_extra": _extra(name),
    }


def _refusals(name: str) -> tuple[int, ...]:
    if name in ("many", "balances"):
        return ()
    return _GONE.get(name, _STEP)


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _extra(name: str) -> dict[str, Any]:
    parameters = []
    if name in _ON_ONE:
        parameters.append(_parameter("path", "reservation_id", _text(128, 1)))
    parameters += [_parameter("query", q, schema) for q, schema in _QUERIES.get(name, {}).items()]
    extra: dict[str, Any] = {}
    if name in _BODIES:
        parameters.append(_parameter("header", "X-Idempotency-Key", _KEY))
        body = _BODIES[name]
        content = {"schema": body.schema, "example": body.example}
        extra["requestBody"] = {"required": True, "content": {"application/json": content}}
    if parameters:
        extra["parameters"] = parameters
    return extra


def _parameter(where: str, name: str, schema: Schema) -> dict[str, Any]:
    return {"in": where, "name": name, "required": where == "path", "schema": schema}
