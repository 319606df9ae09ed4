"""Owns idempotency keys: a key's first answer is kept, with its status, and given again.

Law: same key and parameters replay the answer (also 402 and 500); other parameters are refused;
a key whose first request still runs is refused (409). What was refused before it was executed is
not kept. Keys older than 24 hours of the sandbox's clock are forgotten, and then mean nothing.
"""

from hashlib import sha256

from guthaben.sandbox.errors import ApiError
from guthaben.sandbox.state import SavedAnswer, State, dump

_LIFETIME_MS = 24 * 60 * 60 * 1000
_MAX_LENGTH = 255


def fingerprint(method: str, path: str, pairs: list[tuple[str, str]]) -> str:
    """Return what tells whether two requests ask for the same."""
    return sha256(dump([method, path, sorted(pairs)]).encode()).hexdigest()


class Keys:
    """The keys of one sandbox; those of running requests are known to this process only."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._running: set[str] = set()

    def check(self, key: str) -> None:
        """Refuse a key that is too long."""
        if len(key) > _MAX_LENGTH:
            raise _error(400, f"Idempotency keys can have up to {_MAX_LENGTH} characters.")

    def claim(self, key: str, print_: str) -> SavedAnswer | None:
        """Return the saved answer, or claim the key for a request that begins now."""
        self._state.forget_answers(_LIFETIME_MS)
        saved = self._state.saved_answer(key)
        if saved is not None:
            if saved.fingerprint != print_:
                raise _error(400, "The idempotency key was first used with other parameters.")
            return saved
        if key in self._running:
            message = "Another request with this idempotency key is still running."
            raise _error(409, message, "idempotency_key_in_use")
        self._running.add(key)
        return None

    def release(self, key: str) -> None:
        """End the claim of a request that is over."""
        self._running.discard(key)


def _error(status: int, message: str, code: str | None = None) -> ApiError:
    return ApiError(status, message, kind="idempotency_error", code=code)
