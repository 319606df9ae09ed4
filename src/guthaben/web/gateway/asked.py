"""What a caller asks of the gateway: read, checked, and written anew for the provider.

Law: what is sent on is what was bounded, with the limit that the credit affords. What would reach
into the vendor's account at the provider (stored responses, files, conversations) is refused: the
account is shared by all practices, and its ids are nobody's of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import Headers

from guthaben.services.ai_quotes import NO_ATTACHMENTS, Attachments, Endpoint
from guthaben.services.request_bounds import Fitted
from guthaben.services.upstreams import Upstream
from guthaben.web.gateway import bodies
from guthaben.web.gateway.bodies import Form, Upload
from guthaben.web.problems import Problem, invalid

FORMS: Final = frozenset({"transcriptions", "translations", "image_edits"})
"""Endpoints that take a form with files."""
PRICED_AS: Final[Mapping[str, Endpoint]] = {
    "translations": "transcriptions",
    "image_edits": "images",
}
_STREAMED: Final = frozenset({"chat", "responses", "transcriptions", "speech", "images"})
_REFUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "responses": ("previous_response_id", "conversation", "prompt", "background"),
}
_IDS: Final = frozenset({"file_id", "vector_store_ids", "container"})
_CHAT_LIMIT: Final = "max_completion_tokens"
_MOST_DEPTH: Final = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: a JSON body, or a form and its texts as a body."""

    endpoint: str
    body: dict[str, Any]
    form: Form | None = None

    @property
    def priced_as(self) -> Endpoint:
        """Which endpoint's prices count."""
        return PRICED_AS.get(self.endpoint, self.endpoint)  # type: ignore[arg-type]

    @property
    def model(self) -> str:
        """The model that was asked for."""
        name = self.body.get("model")
        if type(name) is not str or not 0 < len(name) <= 200 or not name.isprintable():
            raise invalid("model must name the model to be asked.", field="model")
        return name

    @property
    def hides_usage(self) -> bool:
        """Whether the caller did not ask for the usage of a streamed chat."""
        if self.endpoint != "chat":
            return False
        options = self.body.get("stream_options")
        return not (isinstance(options, Mapping) and options.get("include_usage") is True)

    def attachments(self) -> Attachments:
        """Give what is bounded by its own size."""
        if self.form is None:
            return NO_ATTACHMENTS
        files = self.form.files
        if self.priced_as == "transcriptions":
            return Attachments(recording=_recording(files).data)
        return Attachments(pictures=len(files))

    def as_text(self, measured: bool) -> bool:
        """Tell whether text was asked for that would come without its usage."""
        wanted = self.endpoint == "transcriptions" and self.body.get("response_format") == "text"
        return wanted and not measured

    def changes(self, upstream: Upstream, model: str, fitted: Fitted) -> dict[str, Any]:
        """Tell what is different in the body that the provider gets."""
        found: dict[str, Any] = {"model": model}
        if fitted.max_output_tokens is not None:
            own = upstream.max_tokens_field if fitted.field == _CHAT_LIMIT else ""
            found[own or fitted.field] = fitted.max_output_tokens
        if self.endpoint == "chat" and self.body.get("stream") is True:
            options = self.body.get("stream_options")
            told = dict(options) if isinstance(options, Mapping) else {}
            found["stream_options"] = {**told, "include_usage": True}
        if self.endpoint in ("chat", "responses"):
            if upstream.service_tier and self.body.get("service_tier") in (None, "auto"):
                found["service_tier"] = "default"
            if self.endpoint == "responses":
                found["store"] = False
        return found

    def written(self, changes: Mapping[str, Any]) -> tuple[bytes, str]:
        """Write what the provider gets, and its content type."""
        if self.form is None:
            body = {name: value for name, value in self.body.items() if value is not None}
            return bodies.written({**body, **changes}), "application/json"
        texts = [(name, value) for name, value in self.form.texts if name not in changes]
        texts += [(name, str(value)) for name, value in changes.items()]
        return bodies.form_written(Form(tuple(texts), self.form.files))


async def read(endpoint: str, raw: bytes, headers: Headers) -> Asked:
    """Read and check a request. Raises `Problem`."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if endpoint in FORMS:
        if kind != "multipart/form-data":
            raise _wrong_type("multipart/form-data")
        form = await bodies.form(raw, headers)
        return _checked(Asked(endpoint, _numbered(form.body()), form))
    if kind != "application/json":
        raise _wrong_type("application/json")
    return _checked(Asked(endpoint, await bodies.parsed(raw)))


def _numbered(body: dict[str, Any]) -> dict[str, Any]:
    """Read the numbers of a form; what is none is refused when it is bounded."""
    whole = {
        name: int(value)
        for name, value in body.items()
        if name in ("n", "partial_images") and value.isascii() and value.isdigit()
    }
    return {**body, **whole}


def _checked(asked: Asked) -> Asked:
    for name in _REFUSED.get(asked.endpoint, ()):
        if asked.body.get(name):
            raise _foreign(name)
    stream = asked.body.get("stream")
    if asked.form is None and stream is not None and type(stream) is not bool:
        raise invalid("stream is true or false.", field="stream")
    if stream and asked.endpoint not in _STREAMED:
        raise invalid("This endpoint has no streams.", field="stream")
    if asked.endpoint in ("chat", "responses"):
        _refuse_ids(asked.body, 0)
    return asked


def _refuse_ids(part: object, depth: int) -> None:
    """Refuse ids of files and stores, wherever they stand."""
    if depth > _MOST_DEPTH:
        raise invalid("The body is nested too deeply.")
    if isinstance(part, dict):
        for name, value in part.items():
            if name in _IDS and isinstance(value, str | list):
                raise _foreign(name)
            if isinstance(value, dict | list):
                _refuse_ids(value, depth + 1)
        if part.get("type") == "item_reference":
            raise _foreign("item_reference")
    elif isinstance(part, list):
        for item in part:
            if isinstance(item, dict | list):
                _refuse_ids(item, depth + 1)


def _foreign(name: str) -> Problem:
    return invalid(
        f"{name} is not offered here: the provider's account is shared, so ids in it belong to "
        "nobody. Send the content itself.",
        field=name,
        code="unsupported",
    )


def _recording(files: tuple[Upload, ...]) -> Upload:
    found = [file for file in files if file.field == "file"]
    if len(found) != 1:
        raise invalid("Send one recording in the field file.", field="file")
    return found[0]


def _wrong_type(wanted: str) -> Problem:
    return Problem(415, "unsupported_media_type", f"Send the body as {wanted}.")
