"""Owns how the AI provider behaves: errors, slowness, broken streams, usage that lies.

A behaviour is chosen by the model's name (`sandbox-429`, `sandbox-lie-negative`) or set by the
control route for the next calls of a model; a set one counts first.
"""

import threading
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

PREFIX: Final = "sandbox-"
ERRORS: Final[dict[str, tuple[int, str, str, str]]] = {
    "429": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    "500": (500, "server_error", "", "The server had an error while processing your request."),
    "503": (503, "server_error", "overloaded", "The engine is currently overloaded."),
    "400": (400, "invalid_request_error", "invalid_value", "Invalid value."),
    "401": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "504": (504, "server_error", "gateway_timeout", "The upstream did not answer in time."),
    "content-filter": (
        400, "invalid_request_error", "content_filter",
        "The prompt triggered the content management policy.",
    ),
}  # fmt: skip
LIES: Final = ("negative", "missing", "huge", "text", "zero", "more")
KINDS: Final = (
    *ERRORS, *(f"lie-{lie}" for lie in LIES), "drop", "hang", "slow", "slow-stream",
    "broken-stream", "error-in-stream",
)  # fmt: skip


class Behaviour(NamedTuple):
    """What is wrong with one answer; "" is nothing."""

    kind: str = ""
    delay_ms: int = 0
    after_chunks: int = 3

    @property
    def lie(self) -> str:
        """What kind of lie the usage is, "" for the truth."""
        return self.kind.removeprefix("lie-") if self.kind.startswith("lie-") else ""


class Behaviours:
    """What was set by the control route, and what the names of models say."""

    def __init__(self) -> None:
        self._set: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def set(self, given: dict[str, Any]) -> None:
        """Set a behaviour: kind, model (a pattern), next (how many calls), delay_ms."""
        if given.get("kind") not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}")
        with self._lock:
            self._set.append(dict(given))

    def clear(self) -> None:
        """Behave well again."""
        with self._lock:
            self._set.clear()

    def take(self, model: str) -> Behaviour:
        """Tell how the next answer of a model behaves; uses a set behaviour up by one."""
        with self._lock:
            for given in self._set:
                if fnmatchcase(model, given.get("model", "*")):
                    if "next" in given:
                        given["next"] -= 1
                        self._set = [one for one in self._set if one.get("next") != 0]
                    return _behaviour(given["kind"], given)
        named = model.removeprefix(PREFIX) if model.startswith(PREFIX) else ""
        return _behaviour(named, {}) if named in KINDS else Behaviour()


def _behaviour(kind: str, given: dict[str, Any]) -> Behaviour:
    usual_ms = {"slow": 300, "slow-stream": 50}.get(kind, 0)
    return Behaviour(kind, given.get("delay_ms", usual_ms), given.get("after_chunks", 3))


def lied(usage: dict[str, Any], behaviour: Behaviour) -> dict[str, Any] | None:
    """Turn a usage into what the behaviour makes of it."""
    output = "completion_tokens" if "completion_tokens" in usage else "output_tokens"
    first = next(name for name in usage if name.endswith(("tokens", "seconds")))
    match behaviour.lie:
        case "missing":
            return None
        case "negative":
            return {**usage, output if output in usage else first: -5}
        case "huge":
            return {**usage, first: 10**15}
        case "text":
            return {**usage, first: "many"}
        case "zero":
            return {name: 0 if isinstance(value, int) else value for name, value in usage.items()}
        case "more" if output in usage:
            more = usage[output] * 10 + 1_000
            return {**usage, output: more, "total_tokens": usage["total_tokens"] + more}
        case _:
            return usage
