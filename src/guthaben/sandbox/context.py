"""Owns what a piece of work is given: the state, the settings, and the request that caused it."""

from dataclasses import dataclass, field

from guthaben.sandbox.errors import JsonObject, no_such
from guthaben.sandbox.state import State


@dataclass(frozen=True, slots=True)
class Settings:
    """How one sandbox process runs; fixed at its start."""

    webhook_url: str | None
    webhook_secrets: tuple[str, ...]
    public_url: str | None
    slow_ms: int
    retry_pauses_ms: tuple[int, ...]
    receiver_timeout_s: int


@dataclass(frozen=True, slots=True)
class Context:
    """One piece of work inside one transaction."""

    state: State
    settings: Settings
    base_url: str
    request_id: str | None = None
    idempotency_key: str | None = None
    api_version: str = field(default="2026-10-28.endive")

    def now_s(self) -> int:
        """Return the sandbox's time."""
        return self.state.now_s()

    def get(self, object_id: str, kind: str, param: str) -> JsonObject:
        """Return an object that a parameter names, or refuse."""
        found = self.state.find(object_id, kind)
        if found is None:
            raise no_such(kind.replace("_", " "), object_id, param)
        return found

    def at_path(self, object_id: str, kind: str, param: str) -> JsonObject:
        """Return an object that the address names, or answer 404."""
        found = self.state.find(object_id, kind)
        if found is None:
            raise no_such(kind.replace("_", " "), object_id, param, in_path=True)
        return found
