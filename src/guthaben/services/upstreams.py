"""Upstreams: which AI provider answers for which model, as the operator configured it.

Law: keys come from the environment, by the name of a variable; a key written into the configuration
is refused. The first upstream whose models match answers. Nothing here opens a connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

from guthaben.errors import ConfigError, Refused
from guthaben.services import gateway_config

PATHS: Final[Mapping[str, str]] = {
    "chat": "chat/completions",
    "responses": "responses",
    "embeddings": "embeddings",
    "transcriptions": "audio/transcriptions",
    "translations": "audio/translations",
    "speech": "audio/speech",
    "images": "images/generations",
    "image_edits": "images/edits",
}
_FIELDS: Final = frozenset(
    {
        "kind", "url", "key_env", "models", "provider", "api_version", "auth", "max_tokens_field",
        "service_tier", "organization", "project",
    }
)  # fmt: skip
_OPENAI: Final = "api.openai.com"


@dataclass(frozen=True, slots=True)
class Upstream:
    """One provider; `models` maps what callers ask for to what the provider calls it."""

    name: str
    url: str
    key: str = field(repr=False)
    models: Mapping[str, str]
    kind: Literal["openai", "azure"] = "openai"
    provider: str = ""
    """Whose prices count, "" to find out by the model's name."""
    api_version: str = ""
    auth: Literal["bearer", "api-key"] = "bearer"
    max_tokens_field: str = ""
    """How this provider calls the limit of a chat's answer; "" as OpenAI does."""
    service_tier: bool = False
    """Whether it knows the field service_tier; then the default tier is asked for."""
    organization: str = ""
    project: str = ""

    def name_of(self, model: str) -> str | None:
        """Tell what the provider calls a model, None where it doesn't answer for it."""
        exact = self.models.get(model)
        if exact is not None:
            return exact
        for pattern in self.models:
            if "*" in pattern and fnmatchcase(model, pattern):
                return model
        return None

    def address(self, endpoint: str, model: str) -> str:
        """Give the address of an endpoint for a model as the provider calls it."""
        if self.kind == "azure":
            base = f"{self.url}/openai/deployments/{quote(model, safe='')}"
            return f"{base}/{PATHS[endpoint]}?api-version={self.api_version}"
        return f"{self.url}/{PATHS[endpoint]}"

    def headers(self) -> dict[str, str]:
        """Give the headers that let us in."""
        name, value = (
            ("api-key", self.key)
            if self.auth == "api-key"
            else ("authorization", f"Bearer {self.key}")
        )
        told = {"openai-organization": self.organization, "openai-project": self.project}
        return {name: value, **{header: text for header, text in told.items() if text}}


class Upstreams:
    """All providers, in the order of the configuration."""

    def __init__(self, found: Iterable[Upstream]) -> None:
        self.all = tuple(found)

    def find(self, model: str) -> tuple[Upstream, str]:
        """Find who answers for a model. Raises `Refused` (`unknown_model`)."""
        for upstream in self.all:
            name = upstream.name_of(model)
            if name is not None:
                return upstream, name
        raise Refused(f"The model {model!r:.120} is not offered here.", reason="unknown_model")

    def names(self) -> list[str]:
        """List the models that are named in full."""
        return sorted({name for it in self.all for name in it.models if "*" not in name})


def configured() -> Upstreams:
    """Read the configuration now. Raises `ConfigError` that says what to mend."""
    text = gateway_config.upstreams_json()
    if not text:
        return Upstreams(())
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError("GUTHABEN_UPSTREAMS must be a JSON object.") from error
    if not isinstance(found, dict):
        raise ConfigError("GUTHABEN_UPSTREAMS must be a JSON object: name -> upstream.")
    return Upstreams([_upstream(name, said) for name, said in found.items()])


def _upstream(name: str, said: Any) -> Upstream:
    if not isinstance(said, dict) or said.keys() - _FIELDS:
        raise ConfigError(
            f"Upstream {name!r:.60} has only the fields {', '.join(sorted(_FIELDS))}."
        )
    url = str(said.get("url", "")).rstrip("/")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"Upstream {name!r:.60} needs a url, such as https://api.openai.com/v1.")
    kind = said.get("kind", "openai")
    if kind not in ("openai", "azure") or (kind == "azure" and not said.get("api_version")):
        raise ConfigError(f"Upstream {name!r:.60}: kind is openai, or azure with api_version.")
    auth = said.get("auth", "api-key" if kind == "azure" else "bearer")
    if auth not in ("bearer", "api-key"):
        raise ConfigError(f"Upstream {name!r:.60}: auth is bearer or api-key.")
    texts = ("provider", "api_version", "max_tokens_field", "organization", "project")
    return Upstream(
        name=name,
        url=url,
        key=gateway_config.upstream_key(str(said.get("key_env", ""))),
        models=_models(name, said.get("models")),
        kind=kind,
        auth=auth,
        service_tier=said.get("service_tier", urlsplit(url).hostname == _OPENAI) is True,
        **{field: str(said.get(field, "")) for field in texts},
    )


def _models(name: str, said: Any) -> dict[str, str]:
    if isinstance(said, list):
        said = {model: model for model in said if isinstance(model, str)}
    if not isinstance(said, dict) or not said or not all(isinstance(v, str) for v in said.values()):
        raise ConfigError(
            f'Upstream {name!r:.60} needs models: ["gpt-4o*"], or {{"gpt-4o": "my-deployment"}}.'
        )
    return dict(said)
