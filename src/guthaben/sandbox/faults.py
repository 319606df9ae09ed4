"""Owns the faults set for API calls: which call meets which, and for how many calls.

A fault names its kind, a method and a path pattern (`*` is anything), and `next`, the number of
calls it still concerns (absent: all). Faults survive a restart.
"""

from fnmatch import fnmatchcase
from typing import Any, Final

from guthaben.sandbox.errors import ApiError, JsonObject
from guthaben.sandbox.state import State

FAULTS: Final = "api_faults"

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
DROP: Final = "drop"
SLOW: Final = "slow"
KINDS: Final = (*REFUSALS, COMMIT_THEN_500, COMMIT_THEN_DROP, DROP, SLOW)


def take(state: State, method: str, path: str) -> JsonObject | None:
    """Return the first fault that concerns this call, and use it up by one."""
    faults: list[dict[str, Any]] = state.setting(FAULTS, [])
    for fault in faults:
        if fault.get("method", method) != method or not fnmatchcase(path, fault.get("path", "*")):
            continue
        taken = dict(fault)
        if "next" in fault:
            fault["next"] -= 1
            state.set_setting(FAULTS, [f for f in faults if f.get("next") != 0])
        return taken
    return None


def refuse(fault: JsonObject | None) -> None:
    """Raise the refusal that a fault asks for, if it is one."""
    if fault is None or fault["kind"] not in REFUSALS:
        return
    status, kind, code, message = REFUSALS[fault["kind"]]
    raise ApiError(status, message, kind=kind, code=code)


def failure_after_commit() -> JsonObject:
    """Return the body of a 500 that hides a success."""
    error = {"type": "api_error", "message": "Something went wrong after the work was done."}
    return {"error": error}
