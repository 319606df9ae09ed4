"""The tree of errors: unique codes, as drawn, and whole after pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from guthaben import errors
from guthaben.errors import GuthabenError, Refused

CLASSES: list[type[GuthabenError]] = [getattr(errors, name) for name in errors.__all__]

EXAMPLES: list[GuthabenError] = [
    GuthabenError("plain"),
    Refused(reason="month_full"),
    errors.InsufficientCredit(5, 2_500_000_000, practice_id="prac_7", debt_nano_usd=1),
    errors.CapExceeded(5, 2_500_000_000),
    errors.IdempotencyConflict("key-1", operation="reserve"),
    errors.CallFinished("call_1", "settled"),
    errors.CallNotFound("call_1"),
    errors.PracticeNotFound("prac_7"),
    errors.PracticeFrozen("prac_7"),
    errors.PracticeClosed("prac_7"),
    errors.InvalidAmount("too much"),
    errors.InvalidInput("no", field="tags"),
    errors.InternalRefused("IntegrityError"),
    errors.StoreUnavailable("database is locked"),
    errors.OutcomeUnknown("no answer to COMMIT"),
    errors.LeadershipLost(),
    errors.MigrationNeeded(["row 3 has no practice", "row 9 is twice"]),
    errors.PaymentError(),
    errors.PaymentDeclined("insufficient_funds", "card_declined", request_id="req_1"),
    errors.PaymentOutcomeUnknown("lost"),
    errors.PaymentUnavailable("auth", http_status=401),
    errors.PaymentRejected("bad", provider_code="parameter_missing"),
    errors.WebhookRejected("wrong_signature"),
    errors.ConfigError("no key"),
]


def _drawn() -> dict[str, tuple[str | None, str, bool]]:
    """The docstring's tree: name -> (parent, code, also a ValueError)."""
    tree: dict[str, tuple[str | None, str, bool]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        words = line.split()
        if len(words) < 2 or words[0] not in errors.__all__:
            continue
        depth = (len(line) - len(line.lstrip())) // 4
        path[depth:] = [words[0]]
        parent = path[depth - 1] if depth else None
        tree[words[0]] = (parent, words[1], "ValueError" in line)
    return tree


def test_the_docstring_draws_the_real_tree() -> None:
    real = {
        kind.__name__: (
            None if kind is GuthabenError else kind.__bases__[0].__name__,
            kind.code,
            issubclass(kind, ValueError),
        )
        for kind in CLASSES
    }
    assert _drawn() == real


def test_every_error_of_the_module_is_public() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert defined == set(errors.__all__)


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(set(codes)) == len(codes)
    assert all("code" in vars(kind) for kind in CLASSES), "a code must not be inherited"


def test_there_is_an_example_of_each() -> None:
    assert {type(example) for example in EXAMPLES} == set(CLASSES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: type(e).__name__)
def test_pickling_keeps_everything(example: GuthabenError) -> None:
    for again in (pickle.loads(pickle.dumps(example)), copy.copy(example)):
        assert type(again) is type(example)
        assert str(again) == str(example)
        assert vars(again) == vars(example)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.InsufficientCredit(5, 2_500_000_000), "2.50 USD requested, 0.000000005 USD"),
        (errors.InsufficientCredit(0, 1, debt_nano_usd=10**9), "1.00 USD owed"),
        (errors.IdempotencyConflict("k", operation="settle"), "'k' of settle"),
        (errors.CallFinished("call_1", "released"), "already released"),
        (errors.MigrationNeeded(["row 3"]), "row 3"),
        (errors.PaymentDeclined("lost_card"), "lost_card"),
        (errors.PaymentRejected("Bad.", provider_code="x", http_status=400), "Bad. (x, HTTP 400)"),
        (Refused(), "Nothing was changed"),
    ],
)
def test_messages_say_what_matters(error: GuthabenError, says: str) -> None:
    assert says in str(error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refused("x"), "refused"),
        (Refused("x", reason="month_full"), "month_full"),
        (errors.CallNotFound("c"), "call_not_found"),
        (errors.InvalidInput("x", field="f"), "invalid_input"),
        (errors.InvalidAmount("x", reason="too_large"), "too_large"),
    ],
)
def test_a_refusal_has_a_reason(error: Refused, reason: str) -> None:
    assert error.reason == reason


def test_a_missing_and_a_foreign_practice_answer_alike() -> None:
    missing: Any = errors.PracticeNotFound("prac_7")
    assert str(missing) == str(errors.PracticeNotFound("prac_7"))
