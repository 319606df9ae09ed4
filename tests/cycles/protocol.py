"""The protocol's own file as a judge: every answer of the Cycles routes is held against it."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

FILE = Path(__file__).parents[3] / "shared" / "cycles" / "cycles-protocol-v0.yaml"
ABSENT = "the protocol's file is not here: put it at ../shared/cycles/cycles-protocol-v0.yaml"
PREFIX = "/cycles"


def found_file() -> Path | None:
    """Look beside the project, wherever it lies."""
    places = [FILE, *(parent / "shared/cycles" / FILE.name for parent in FILE.parents)]
    return next((place for place in places if place.is_file()), None)


@cache
def document() -> dict[str, Any]:
    """Read the file."""
    place = found_file()
    assert place is not None
    with place.open("rb") as text:
        found: dict[str, Any] = yaml.load(
            text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    return found


@cache
def _registry() -> Registry:
    resource = Resource.from_contents(document(), default_specification=DRAFT202012)
    return Registry().with_resource("urn:cycles", resource)


@cache
def _validator(pointer: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"urn:cycles#{pointer}"}, registry=_registry())


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), path) for path in document()["paths"]]


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def judge(method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> list[str]:
    """Name what an answer has against the file."""
    told = json.loads(body)
    problems = []
    if not re.fullmatch("[0-9a-f]{32}", headers.get("x-cycles-trace-id", "")):
        problems.append("no trace id")
    if not headers.get("x-request-id"):
        problems.append("no request id")
    template = next((t for p, t in _paths() if p.fullmatch(path)), None)
    operation = document()["paths"].get(template, {}).get(method.lower())
    if operation is None:
        pointer = "/components/schemas/ErrorResponse"
    else:
        described = operation["responses"].get(str(status))
        if described is None:
            return [*problems, f"{status} is not described: {told}"]
        pointer = (
            "/components/schemas/ErrorResponse"
            if "$ref" in described
            else f"/paths/{_escaped(template or '')}/{method.lower()}/responses/{status}"
            "/content/application~1json/schema"
        )
    problems += [error.message for error in _validator(pointer).iter_errors(told)]
    if status >= 400 and told.get("trace_id") != headers.get("x-cycles-trace-id"):
        problems.append("the error's trace id is not the header's")
    return problems


class Judged:
    """An ASGI app around the server's: hands every answer of the Cycles routes to the judge."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.seen: dict[tuple[str, int], int] = {}
        self.problems: list[str] = []
        self.has_judge = found_file() is not None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX + "/"):
            await self.app(scope, receive, send)
            return
        begun: dict[str, Any] = {}
        parts: list[bytes] = []

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
            else:
                parts.append(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, watched)
        headers = {name.decode().lower(): value.decode() for name, value in begun["headers"]}
        path = scope["path"].removeprefix(PREFIX)
        shown = (f"{scope['method']} {path.partition('rsv_')[0]}", begun["status"])
        self.seen[shown] = self.seen.get(shown, 0) + 1
        if self.has_judge and scope["method"] != "HEAD":
            found = judge(scope["method"], path, begun["status"], headers, b"".join(parts))
            self.problems += [f"{shown}: {problem}" for problem in found]
