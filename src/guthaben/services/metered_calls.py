"""Metered calls: from the arguments of a client's method to a quote, and back.

Law: as at the gateway: the bound is of what is really sent. Nothing here calls anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from guthaben.errors import InvalidInput
from guthaben.services.ai_quotes import NO_ATTACHMENTS, Attachments, Endpoint, Quote, quote
from guthaben.services.checks import OriginOptions
from guthaben.services.request_bounds import Fitted
from guthaben.services.tariffs import Tariff

ENDPOINT_OF: Final[Mapping[tuple[str, ...], Endpoint]] = {
    ("chat", "completions", "create"): "chat",
    ("chat", "completions", "parse"): "chat",
    ("responses", "create"): "responses",
    ("responses", "parse"): "responses",
    ("embeddings", "create"): "embeddings",
    ("audio", "transcriptions", "create"): "transcriptions",
    ("audio", "speech", "create"): "speech",
    ("images", "generate"): "images",
}
UNKNOWN_STATUS: Final = frozenset({408, 409, 499, 502, 504, *range(520, 528)})
"""Answers of what stands in between: nobody knows what the provider did."""
_NOT_GIVEN: Final = frozenset({"NotGiven", "Omit"})
_OF_THE_CLIENT: Final = frozenset({"extra_headers", "extra_query", "extra_body", "timeout"})
_REFUSED: Final = ("background", "prompt")


class Meter(NamedTuple):
    """Who pays, and by whose prices."""

    practice_id: str
    most_output_tokens: int
    provider: str
    plan: str
    """The caller's own word on the plan; empty: the practice's."""
    origin: OriginOptions


class Method(NamedTuple):
    """One method of a client."""

    endpoint: Endpoint
    ask: Callable[..., Any]
    is_raw: bool = False
    """It gives the answer as it came over the wire."""
    parses: bool = False
    """What came over the wire is parsed for its caller."""


class Arguments(NamedTuple):
    """A method's arguments, and what they say of the request."""

    given: dict[str, Any]
    body: dict[str, Any]
    attached: Attachments
    hides_usage: bool

    def quote(self, tariff: Tariff, meter: Meter, endpoint: Endpoint, at_s: int) -> Quote:
        """Bound the request."""
        return quote(
            tariff.book, endpoint, self.body, at_s,
            provider=meter.provider, plan=tariff.plan, attached=self.attached,
        )  # fmt: skip

    def limited(self, fitted: Fitted) -> dict[str, Any]:
        """Give the arguments with the limit that was reserved for."""
        if fitted.max_output_tokens is None:
            return self.given
        return {**self.given, fitted.field: fitted.max_output_tokens}


def read(endpoint: Endpoint, given: Mapping[str, Any]) -> Arguments:
    """Read a method's arguments. Raises `InvalidInput`."""
    sent = {name: value for name, value in given.items() if type(value).__name__ not in _NOT_GIVEN}
    extra = sent.get("extra_body") or {}
    body = {name: _plain(value) for name, value in sent.items() if name not in _OF_THE_CLIENT}
    body.update({name: _plain(value) for name, value in extra.items()})
    if "text_format" in body:
        body["text"] = {**(body.get("text") or {}), "format": body.pop("text_format")}
    for name in _REFUSED if endpoint == "responses" else ():
        if body.get(name):
            raise InvalidInput(f"{name} can't be metered: what it costs has no bound", field=name)
    attached = NO_ATTACHMENTS
    if endpoint == "transcriptions":
        recording, sent["file"] = _recording(sent.get("file"))
        attached = Attachments(recording=recording)
    hides = endpoint == "chat" and body.get("stream") is True
    if hides:
        options = body.get("stream_options") or {}
        hides = options.get("include_usage") is not True
        sent["stream_options"] = {**options, "include_usage": True}
    return Arguments(sent, body, attached, hides)


def never_used(error: BaseException) -> bool:
    """Tell whether an error of the client says that the provider refused the request."""
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and status >= 400 and status not in UNKNOWN_STATUS


def _plain(value: Any) -> Any:
    """Turn an SDK's objects into what is sent of them."""
    if isinstance(value, type):
        return _form_of(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _form_of(kind: Any) -> dict[str, Any]:
    """Give about what is sent of the form of an answer; bytes leave room for what the SDK adds."""
    if not hasattr(kind, "model_json_schema"):
        raise InvalidInput("the form of an answer is a model of pydantic, or its JSON schema")
    schema = {"name": kind.__name__, "strict": True, "schema": kind.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}


def _recording(file: Any) -> tuple[bytes, Any]:
    """Read a file in any of the forms that the client takes; give it back to be sent."""
    if isinstance(file, tuple) and len(file) >= 2:
        data, sent = _recording(file[1])
        return data, (file[0], sent, *file[2:])
    if isinstance(file, Path):
        data = file.read_bytes()
        return data, (file.name, data)
    if isinstance(file, bytes):
        return file, file
    if hasattr(file, "read"):
        data = file.read()
        if isinstance(data, bytes):
            name = getattr(file, "name", None)
            return data, (Path(name).name, data) if isinstance(name, str) else data
    raise InvalidInput("file is a recording: bytes, an open file or a path", field="file")
