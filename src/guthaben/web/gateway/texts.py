"""What a caller's user reads when a request is refused at the gateway, in the user's language.

Law: texts stand in the catalogue, in every language; here is only which one is said. No text names
a practice, a key or a model's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from guthaben.texts import text
from guthaben.web import problems
from guthaben.web.problems import Problem
from guthaben.web.redaction import redact

_OWN: Final[Mapping[str, str]] = {
    "insufficient_credit": "gateway.insufficient_credit",
    "rate_limit_exceeded": "gateway.rate_limit_exceeded",
    "too_many_at_once": "gateway.too_many_at_once",
}


def say(problem: Problem, language: str) -> str:
    """Put a refusal into words."""
    own = _OWN.get(problem.code)
    if own is None:
        spoken = problems.in_words(problem, language)
        return redact(problem.detail) if spoken is None else spoken[1]
    facts = {name.removesuffix("_usd"): value for name, value in problem.fields.items()}
    link = problem.fields.get("topup_url")
    return text(own, language, **{**facts, "link": f": {link}" if link else "."})
