"""The bodies of the Cycles protocol's requests, as values.

Law: bounds and defaults are the protocol's own. Its only unit with a budget here is
USD_MICROCENTS; whoever asks for another hears UNIT_MISMATCH and which one there is.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from guthaben.domain.calls import LEVELS, Overage
from guthaben.domain.money import MAX_COMMAND_NANO_USD, NANO_PER_MICROCENT
from guthaben.services.checks import MAX_COUNT
from guthaben.web.cycles.errors import Denial, invalid
from guthaben.web.cycles.reading import MAX_INT64, an_object, canonical, number, only, text

UNIT: Final = "USD_MICROCENTS"
MAX_TTL_MS: Final = 86_400_000
_UNITS: Final = frozenset({UNIT, "TOKENS", "CREDITS", "RISK_POINTS"})
_LEVEL: Final = re.compile(r"[a-zA-Z0-9_.-]+")
_POLICIES: Final = {
    "REJECT": int(Overage.REJECT),
    "ALLOW_IF_AVAILABLE": int(Overage.IF_AVAILABLE),
    "ALLOW_WITH_OVERDRAFT": int(Overage.WITH_OVERDRAFT),
}
_KEY = frozenset({"idempotency_key"})
_ASKED = _KEY | {"subject", "action", "estimate"}
_DECIDE = _ASKED | {"metadata"}
_RESERVE = _DECIDE | {"ttl_ms", "grace_period_ms", "overage_policy", "dry_run"}
_COMMIT = _KEY | {"actual"}
_EXTEND = _KEY | {"extend_by_ms"}
_EVENT = _KEY | {"subject", "action", "actual"}
_SUBJECT = frozenset({*LEVELS, "dimensions"})
_ACTION = frozenset({"kind", "name", "tags"})
_AMOUNT = frozenset({"unit", "amount"})
_METRICS = frozenset({"tokens_input", "tokens_output", "latency_ms", "model_version", "custom"})


class Amount(NamedTuple):
    """An amount as it was sent; `nano_usd` is it in our unit."""

    unit: str
    amount: int

    def nano_usd(self, scope: str) -> int:
        """Give it in nano-USD; raises UNIT_MISMATCH for another unit."""
        if self.unit != UNIT:
            raise Denial(
                "UNIT_MISMATCH",
                f"Budgets here are in {UNIT}.",
                {"scope": scope, "requested_unit": self.unit, "expected_units": [UNIT]},
            )
        return self.amount * NANO_PER_MICROCENT


class Subject(NamedTuple):
    """Whose budget is meant: one text per level, empty where none was sent."""

    levels: tuple[str, ...]
    dimensions: dict[str, str] | None


class Planned(NamedTuple):
    """A reservation, a decision or an event that is asked for."""

    key: str
    subject: Subject
    kind: str
    name: str
    amount: Amount
    rest: dict[str, Any]
    """What is optional and only kept: dimensions, tags, metadata, metrics."""
    ttl_ms: int = 60_000
    grace_ms: int = 5_000
    overage_policy: int = 0
    dry_run: bool = False


class Ended(NamedTuple):
    """A commit, a release or an extension."""

    key: str
    amount: Amount | None
    by_ms: int
    tokens: tuple[int, int]
    """Input and output tokens, as a commit's metrics say."""
    rest: dict[str, Any]


def reservation(found: dict[str, Any]) -> Planned:
    """Read what a reservation asks for."""
    only(found, "The body", _RESERVE, _ASKED)
    dry_run = found.get("dry_run", False)
    if type(dry_run) is not bool:
        raise invalid("dry_run must be true or false.")
    return _planned(found, "estimate")._replace(
        ttl_ms=number(found, "ttl_ms", 1_000, MAX_TTL_MS, 60_000),
        grace_ms=number(found, "grace_period_ms", 0, 60_000, 5_000),
        overage_policy=_policy(found),
        dry_run=dry_run,
    )


def decision(found: dict[str, Any]) -> Planned:
    """Read what a decision is asked about."""
    only(found, "The body", _DECIDE, _ASKED)
    return _planned(found, "estimate")


def event(found: dict[str, Any]) -> Planned:
    """Read what an event tells."""
    optional = {"overage_policy", "metrics", "client_time_ms", "metadata"}
    only(found, "The body", _EVENT | optional, _EVENT)
    planned = _planned(found, "actual")
    if "metrics" in found:
        planned.rest["metrics"] = _metrics(found["metrics"])
    if "client_time_ms" in found:
        planned.rest["client_time_ms"] = number(found, "client_time_ms", 0, MAX_INT64, None)
    return planned._replace(overage_policy=_policy(found))


def committing(found: dict[str, Any]) -> Ended:
    """Read a commit."""
    only(found, "The body", _COMMIT | {"metrics", "metadata"}, _COMMIT)
    rest = _kept(found)
    tokens = (0, 0)
    if "metrics" in found:
        metrics = rest["metrics"] = _metrics(found["metrics"])
        tokens = (
            min(MAX_COUNT, metrics.get("tokens_input", 0)),
            min(MAX_COUNT, metrics.get("tokens_output", 0)),
        )
    return Ended(_key(found), _amount(found["actual"], "actual"), 0, tokens, rest)


def release(found: dict[str, Any]) -> Ended:
    """Read a release."""
    only(found, "The body", _KEY | {"reason"}, _KEY)
    rest = {"reason": text(found, "reason", 256, "")} if "reason" in found else {}
    return Ended(_key(found), None, 0, (0, 0), rest)


def extension(found: dict[str, Any]) -> Ended:
    """Read an extension."""
    only(found, "The body", _EXTEND | {"metadata"}, _EXTEND)
    by_ms = number(found, "extend_by_ms", 1, MAX_TTL_MS, None)
    return Ended(_key(found), None, by_ms, (0, 0), _kept(found))


def _key(found: dict[str, Any]) -> str:
    return text(found, "idempotency_key", 256)


def _planned(found: dict[str, Any], amount: str) -> Planned:
    key = _key(found)
    subject = _subject(an_object(found["subject"], "subject"))
    action = an_object(found["action"], "action")
    only(action, "action", _ACTION, _ACTION - {"tags"})
    rest = _kept(found)
    if subject.dimensions is not None:
        rest["dimensions"] = subject.dimensions
    if "tags" in action:
        rest["tags"] = _tags(action["tags"])
    return Planned(
        key,
        subject,
        text(action, "kind", 64, ""),
        text(action, "name", 256, ""),
        _amount(found[amount], amount),
        rest,
    )


def _kept(found: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": an_object(found["metadata"], "metadata")} if "metadata" in found else {}


def _subject(found: dict[str, Any]) -> Subject:
    only(found, "subject", _SUBJECT, frozenset())
    levels = tuple([level(name, found[name]) if name in found else "" for name in LEVELS])
    if not any(levels):
        raise invalid(f"subject needs one of {', '.join(LEVELS)}.")
    dimensions = None
    if "dimensions" in found:
        dimensions = an_object(found["dimensions"], "dimensions")
        if len(dimensions) > 16:
            raise invalid("dimensions holds at most 16 names.")
        for name in dimensions:
            text(dimensions, name, 256, "")
    return Subject(levels, dimensions)


def level(name: str, value: object) -> str:
    """Check one level of a subject; characters that would make scopes ambiguous are refused."""
    if type(value) is not str or len(value) > 128 or not _LEVEL.fullmatch(value):
        raise invalid(f"{name} must be 1 to 128 of the characters a-z A-Z 0-9 _ . -")
    return value


def same_tenant(named: str, tenant: str) -> None:
    """Let nobody name a tenant that is not the key's; no name at all means it."""
    if named and named != tenant:
        raise Denial("FORBIDDEN", "The tenant named is not the API key's.")


def _tags(value: object) -> list[str]:
    if type(value) is not list or len(value) > 10:
        raise invalid("tags must be a list of at most 10 texts.")
    for tag in value:
        if type(tag) is not str or len(tag) > 64:
            raise invalid("A tag is a text of at most 64 characters.")
    return value


def _amount(value: object, name: str) -> Amount:
    found = an_object(value, name)
    only(found, name, _AMOUNT, _AMOUNT)
    if type(found["unit"]) is not str or found["unit"] not in _UNITS:
        raise invalid(f"unit must be one of {', '.join(sorted(_UNITS))}.")
    amount = number(found, "amount", 0, MAX_INT64, None)
    if found["unit"] == UNIT and amount * NANO_PER_MICROCENT > MAX_COMMAND_NANO_USD:
        most = MAX_COMMAND_NANO_USD // NANO_PER_MICROCENT
        raise invalid(f"An amount here is at most {most} {UNIT}.")
    return Amount(found["unit"], amount)


def _policy(found: dict[str, Any]) -> int:
    told = found.get("overage_policy", "ALLOW_IF_AVAILABLE")
    if type(told) is not str or told not in _POLICIES:
        raise invalid(f"overage_policy must be one of {', '.join(_POLICIES)}.")
    return _POLICIES[told]


def _metrics(value: object) -> dict[str, Any]:
    found = an_object(value, "metrics")
    only(found, "metrics", _METRICS, frozenset())
    for name in ("tokens_input", "tokens_output", "latency_ms"):
        if name in found:
            number(found, name, 0, MAX_INT64, None)
    if "model_version" in found:
        text(found, "model_version", 128, "")
    if "custom" in found:
        an_object(found["custom"], "custom")
    return found


def written(rest: dict[str, Any]) -> str:
    """Write what is only kept; nothing at all is an empty text."""
    return canonical(rest) if rest else ""
