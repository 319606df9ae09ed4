"""Owns the script of faults that is loaded, and what it does to API calls.

The script and how often each of its rules has matched survive a restart. What it does to
deliveries is in `events`.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from guthaben.sandbox.errors import ApiError, JsonObject
from guthaben.sandbox.script import CallFault, DeliveryFault, Script
from guthaben.sandbox.state import State

_SCRIPT: Final = "script"
_WITHOUT_END: Final = -1

# Before anything is done: the call has no effect.
REFUSALS: Final[dict[str, tuple[int, str, str, str]]] = {
    "rate_limit": (429, "invalid_request_error", "rate_limit", "Too many requests."),
    "unauthorized": (401, "invalid_request_error", "api_key_expired", "The API key has expired."),
    "forbidden": (403, "invalid_request_error", "more_permissions_required", "Not permitted."),
    "error_500": (500, "api_error", "sandbox_fault", "Something went wrong."),
    "lock_timeout": (409, "invalid_request_error", "lock_timeout", "The object is locked."),
}
COMMIT_THEN_500: Final = "commit_then_500"
COMMIT_THEN_DROP: Final = "commit_then_drop"
DROP_BEFORE: Final = "drop_before"
SLOW: Final = "slow"


def loaded(state: State) -> Script:
    """Return what is left of the script."""
    rows = _rows(state)
    return Script.model_validate(
        {part: [rule for rule, _ in rows[part]] for part in ("calls", "deliveries")}
    )


def load(state: State, script: Script) -> None:
    """Add a script's rules to those that are loaded."""
    rows, given = _rows(state), script.as_json()
    for part in ("calls", "deliveries"):
        rows[part] += [(rule, 0) for rule in given.get(part, ())]
    state.set_setting(_SCRIPT, rows)


def clear(state: State) -> None:
    """Take all rules away."""
    state.set_setting(_SCRIPT, None)


def _rows(state: State) -> dict[str, list[tuple[JsonObject, int]]]:
    """Return the rules, each with the number of matches so far."""
    stored = state.setting(_SCRIPT, None) or {}
    return {
        part: [(rule, seen) for rule, seen in stored.get(part, ())]
        for part in ("calls", "deliveries")
    }


def take(state: State, method: str, path: str, key: str | None = None) -> CallFault | None:
    """Return the fault that this call meets, and count it."""

    def concerns(rule: CallFault) -> bool:
        wanted = rule.match
        return (
            wanted.method in (None, method)
            and fnmatchcase(path, wanted.path or "*")
            and (wanted.key is None or fnmatchcase(key or "", wanted.key))
        )

    found = _take(state, "calls", CallFault, concerns)
    return found[0] if found else None


def take_delivery(state: State, event_type: str) -> tuple[DeliveryFault, int] | None:
    """Return the fault that this event's delivery meets, with how many it still hits after it."""

    def concerns(rule: DeliveryFault) -> bool:
        wanted = rule.match.types
        return not wanted or any(fnmatchcase(event_type, pattern) for pattern in wanted)

    return _take(state, "deliveries", DeliveryFault, concerns)


def _take(
    state: State,
    part: Literal["calls", "deliveries"],
    kind: type[Any],
    concerns: Callable[[Any], bool],
) -> tuple[Any, int] | None:
    rows = _rows(state)
    if not rows[part]:
        return None
    found: tuple[Any, int] | None = None
    for place, (raw, seen) in enumerate(rows[part]):
        rule = kind.model_validate(raw)
        if not concerns(rule):
            continue
        rows[part][place] = (raw, seen + 1)
        if seen + 1 < rule.match.nth:
            continue
        left = _WITHOUT_END if rule.times is None else rule.match.nth + rule.times - seen - 2
        if left == 0:
            del rows[part][place]
        found = (rule, left)
        break
    state.set_setting(_SCRIPT, rows)
    return found


def refuse(fault: CallFault | None) -> None:
    """Raise the refusal that a fault asks for, if it is one."""
    if fault is None or fault.fault not in REFUSALS:
        return
    status, kind, code, message = REFUSALS[fault.fault]
    raise ApiError(status, message, kind=kind, code=code)


def failure_after_commit() -> JsonObject:
    """Return the body of a 500 that hides a success."""
    error = {"type": "api_error", "message": "Something went wrong after the work was done."}
    return {"error": error}
