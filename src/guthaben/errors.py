"""Every exception Guthaben raises on purpose; each has a stable `code` for programs to test.

GuthabenError                 guthaben_error
    Refused                   refused
        InsufficientCredit    insufficient_credit
        CapExceeded           cap_exceeded
        IdempotencyConflict   idempotency_conflict
        CallFinished          call_finished
        CallNotFound          call_not_found
        PracticeNotFound      practice_not_found
        PracticeFrozen        practice_frozen
        PracticeClosed        practice_closed
        InvalidAmount         invalid_amount          (also a ValueError)
        InvalidInput          invalid_input           (also a ValueError)
        InternalRefused       internal_refused
    StoreUnavailable          store_unavailable
    OutcomeUnknown            outcome_unknown
    LeadershipLost            leadership_lost
    MigrationNeeded           migration_needed
    PaymentError              payment_error
        PaymentDeclined       payment_declined
        PaymentOutcomeUnknown payment_outcome_unknown
        PaymentUnavailable    payment_unavailable
        PaymentRejected       payment_rejected
    WebhookRejected           webhook_rejected
    ConfigError               config_error

Law: a `Refused` changed nothing. Codes and reasons never change once released; messages may.
Messages say what to do next and carry no secret, no card id and no e-mail address. The words
for end users, and their translations, are not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

__all__ = [
    "GuthabenError",
    "Refused",
    "InsufficientCredit",
    "CapExceeded",
    "IdempotencyConflict",
    "CallFinished",
    "CallNotFound",
    "PracticeNotFound",
    "PracticeFrozen",
    "PracticeClosed",
    "InvalidAmount",
    "InvalidInput",
    "InternalRefused",
    "StoreUnavailable",
    "OutcomeUnknown",
    "LeadershipLost",
    "MigrationNeeded",
    "PaymentError",
    "PaymentDeclined",
    "PaymentOutcomeUnknown",
    "PaymentUnavailable",
    "PaymentRejected",
    "WebhookRejected",
    "ConfigError",
]


class GuthabenError(Exception):
    """The root of the tree; catch it to catch everything Guthaben raises on purpose."""

    code: ClassVar[str] = "guthaben_error"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the constructor with the message alone, which loses the
        # fields and fails for constructors that want more than one argument.
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[GuthabenError], args: tuple[Any, ...], fields: dict[str, Any]
) -> GuthabenError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


# ---------------------------------------------------------------- refusals


class Refused(GuthabenError):
    """A command was refused and nothing changed; `reason` is stable and finer than `code`."""

    code: ClassVar[str] = "refused"

    def __init__(self, message: str = "", *, reason: str | None = None) -> None:
        self.reason = reason or self.code
        super().__init__(message or f"Refused: {self.reason}. Nothing was changed.")


class InsufficientCredit(Refused):
    """There is less credit available than the call would reserve."""

    code: ClassVar[str] = "insufficient_credit"

    def __init__(
        self,
        available_nano_usd: int,
        requested_nano_usd: int,
        *,
        practice_id: str | None = None,
        debt_nano_usd: int = 0,
    ) -> None:
        self.available_nano_usd = available_nano_usd
        self.requested_nano_usd = requested_nano_usd
        self.practice_id = practice_id
        self.debt_nano_usd = debt_nano_usd
        owed = f", {_usd(debt_nano_usd)} owed" if debt_nano_usd else ""
        super().__init__(
            f"{_usd(requested_nano_usd)} requested, {_usd(available_nano_usd)} available{owed}. "
            "Buy credit or wait for the next period, then try again with the same key."
        )


class CapExceeded(Refused):
    """The spending cap of an API key or a device leaves less than the call would reserve."""

    code: ClassVar[str] = "cap_exceeded"

    def __init__(self, available_nano_usd: int, requested_nano_usd: int) -> None:
        self.available_nano_usd = available_nano_usd
        self.requested_nano_usd = requested_nano_usd
        super().__init__(
            f"{_usd(requested_nano_usd)} requested, the cap of this key or device leaves "
            f"{_usd(available_nano_usd)}. Raise the cap, or wait for the next day or month."
        )


class IdempotencyConflict(Refused):
    """The key was already used for a command with another body."""

    code: ClassVar[str] = "idempotency_conflict"

    def __init__(self, key: str, *, operation: str | None = None) -> None:
        self.key = key
        self.operation = operation
        where = f" of {operation}" if operation else ""
        super().__init__(
            f"The idempotency key {key!r}{where} belongs to an earlier command with another "
            "body. Use a new key for a new command."
        )


class CallFinished(Refused):
    """The call is already over; `status` says how."""

    code: ClassVar[str] = "call_finished"

    def __init__(self, call_id: str, status: str) -> None:
        self.call_id = call_id
        self.status = status
        super().__init__(
            f"Call {call_id} is already {status}, so its work must not run again. "
            "Reserve a new call with a new key."
        )


class CallNotFound(Refused):
    """This practice has no such call; a foreign call answers just like a missing one."""

    code: ClassVar[str] = "call_not_found"

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        super().__init__(f"No call {call_id}. Check the id and the credential.")


class PracticeNotFound(Refused):
    """There is no such practice for this credential."""

    code: ClassVar[str] = "practice_not_found"

    def __init__(self, practice_id: str) -> None:
        self.practice_id = practice_id
        super().__init__(f"No practice {practice_id}. Check the id and the credential.")


class PracticeFrozen(Refused):
    """The practice may not spend until an operator unfreezes it."""

    code: ClassVar[str] = "practice_frozen"

    def __init__(self, practice_id: str) -> None:
        self.practice_id = practice_id
        super().__init__(f"Practice {practice_id} is frozen. An operator has to unfreeze it.")


class PracticeClosed(Refused):
    """The practice was closed for good."""

    code: ClassVar[str] = "practice_closed"

    def __init__(self, practice_id: str) -> None:
        self.practice_id = practice_id
        super().__init__(f"Practice {practice_id} is closed. It can't be charged or spend.")


class InvalidAmount(Refused, ValueError):
    """An amount that is no exact number in range."""

    code: ClassVar[str] = "invalid_amount"


class InvalidInput(Refused, ValueError):
    """A value that the command can't take; `field` names it where one is to blame."""

    code: ClassVar[str] = "invalid_input"

    def __init__(
        self, message: str = "", *, field: str | None = None, reason: str | None = None
    ) -> None:
        self.field = field
        super().__init__(message, reason=reason)


class InternalRefused(Refused):
    """One bad command hit a fault of ours; its neighbours went on, an alarm was raised."""

    code: ClassVar[str] = "internal_refused"

    def __init__(self, why: str = "internal fault") -> None:
        self.why = why
        super().__init__(
            f"The command failed inside Guthaben ({why}) and changed nothing. An alarm was "
            "raised; the same command is not worth repeating before the fault is mended."
        )


# ---------------------------------------------------------------- the store


class StoreUnavailable(GuthabenError):
    """The database can't answer, so the gate stays shut."""

    code: ClassVar[str] = "store_unavailable"

    def __init__(self, why: str = "no answer") -> None:
        self.why = why
        super().__init__(
            f"The store is unavailable ({why}). Nothing was changed; try again later "
            "with the same idempotency key."
        )


class OutcomeUnknown(GuthabenError):
    """The commit was sent and its answer was lost: it may have happened or not."""

    code: ClassVar[str] = "outcome_unknown"

    def __init__(self, why: str = "no answer to COMMIT") -> None:
        self.why = why
        super().__init__(
            f"The answer was lost ({why}); it may have been done or not. Repeat it with the same "
            "idempotency key: it is done once, and you hear its outcome."
        )


class LeadershipLost(GuthabenError):
    """Another server leads the background work by now; this transaction changed nothing."""

    code: ClassVar[str] = "leadership_lost"

    def __init__(self) -> None:
        super().__init__(
            "Another server leads the background work by now; what it does not find done, it does."
        )


class MigrationNeeded(GuthabenError):
    """Old tables hold rows that can't be explained; nothing was changed."""

    code: ClassVar[str] = "migration_needed"

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        listed = "; ".join(self.problems) or "unknown"
        super().__init__(f"The old tables can't be taken over: {listed}. Mend these rows first.")


# ---------------------------------------------------------------- payments


class PaymentError(GuthabenError):
    """The payment provider didn't do what was asked; the subclass says what is certain."""

    code: ClassVar[str] = "payment_error"

    def __init__(
        self,
        message: str = "",
        *,
        provider_code: str | None = None,
        request_id: str | None = None,
        http_status: int | None = None,
    ) -> None:
        self.provider_code = provider_code
        self.request_id = request_id
        self.http_status = http_status
        # The provider's own text may quote ids and addresses; the request id finds it there.
        traces = (provider_code, request_id, http_status and f"HTTP {http_status}")
        shown = ", ".join(str(trace) for trace in traces if trace)
        super().__init__((message or "The payment failed.") + (f" ({shown})" if shown else ""))


class PaymentDeclined(PaymentError):
    """The bank or network said no; no money moved."""

    code: ClassVar[str] = "payment_declined"

    def __init__(
        self,
        decline_code: str | None = None,
        provider_code: str | None = None,
        *,
        request_id: str | None = None,
        http_status: int | None = None,
    ) -> None:
        self.decline_code = decline_code
        super().__init__(
            f"The payment was declined: {decline_code or provider_code or 'no reason given'}. "
            "Ask the customer for another payment method.",
            provider_code=provider_code,
            request_id=request_id,
            http_status=http_status,
        )


class PaymentOutcomeUnknown(PaymentError):
    """The request may have been carried out: repeat the same key, or look it up."""

    code: ClassVar[str] = "payment_outcome_unknown"


class PaymentUnavailable(PaymentError):
    """No decline: the provider, our key or our configuration stands in the way; later again."""

    code: ClassVar[str] = "payment_unavailable"


class PaymentRejected(PaymentError):
    """The provider refuses this request as it is; repeating it changes nothing."""

    code: ClassVar[str] = "payment_rejected"


# ---------------------------------------------------------------- the edges


class WebhookRejected(GuthabenError):
    """A webhook was not taken. `reason` is stable.

    `authentic` tells a forged or damaged request (answer 400) from one that was signed rightly
    and still isn't for us (answer 200, or Stripe repeats it for three days).
    """

    code: ClassVar[str] = "webhook_rejected"

    def __init__(self, reason: str, *, authentic: bool = False) -> None:
        self.reason = reason
        self.authentic = authentic
        super().__init__(f"Webhook rejected: {reason}.")


class ConfigError(GuthabenError):
    """A setting is missing or makes no sense; the message names it."""

    code: ClassVar[str] = "config_error"


def _usd(amount_nano_usd: int) -> str:
    sign = "-" if amount_nano_usd < 0 else ""
    whole, rest = divmod(abs(amount_nano_usd), 1_000_000_000)
    return f"{sign}{whole}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')} USD"
