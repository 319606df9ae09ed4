"""Owns the one exception of the sandbox's API and the JSON shape it is answered in.

An error raised here undoes whatever its request has written. `executed` says that Stripe would
have begun to execute the request, so that its answer is kept under the idempotency key.
"""

from typing import Any

JsonObject = dict[str, Any]


class ApiError(Exception):
    """A refusal in Stripe's error shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
        extra: JsonObject | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        self.error: JsonObject = {"type": kind, "message": message}
        self.error |= {k: v for k, v in (("code", code), ("param", param)) if v is not None}
        self.error |= extra or {}

    def body(self) -> JsonObject:
        """Return the answer's JSON."""
        return {"error": self.error}


def invalid(message: str, param: str, code: str | None = None) -> ApiError:
    """Return a refusal of one parameter."""
    return ApiError(400, message, param=param, code=code)


def missing_parameter(param: str) -> ApiError:
    """Return the refusal of a request that lacks a required parameter."""
    return invalid(f"Missing required param: {param}.", param, "parameter_missing")


def no_such(kind: str, object_id: str, param: str, *, in_path: bool = False) -> ApiError:
    """Return the answer for an unknown id: 404 if it stood in the path, else 400."""
    status = 404 if in_path else 400
    message = f"No such {kind}: '{object_id}'"
    return ApiError(status, message, param=param, code="resource_missing")


def wrong_state(message: str, code: str, **extra: Any) -> ApiError:
    """Return the refusal of a step that the object's state does not allow."""
    return ApiError(400, message, code=code, executed=True, extra=dict(extra))
