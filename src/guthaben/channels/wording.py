"""Notices in words: subject, text and HTML in German, French, Italian and English.

Law: every kind has words in every language (tested), a missing fact is an error there and never an
empty place, and nothing from a fact can become markup. Amounts are written as on our pages: what
was bought with its decimals, what is left rounded down to a Rappen or a cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined

from guthaben.texts import LANGUAGES, notices, show

__all__ = ["LANGUAGES", "Worded", "shown", "texts", "word"]


# Text and HTML are made of the same sentences; only the latter are escaped.
_PAGES: Final = Environment(
    loader=PackageLoader("guthaben.channels"),
    autoescape=lambda name: name is not None and name.endswith(".html"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_SENTENCES: Final = Environment(undefined=StrictUndefined, autoescape=False)


class Worded(NamedTuple):
    """A notice in one language."""

    language: str
    subject: str
    text: str
    html: str


def word(
    kind: str,
    facts: Mapping[str, int | str],
    language: str,
    *,
    practice_id: str,
    time_zone: str = "Europe/Zurich",
    portal_url: str | None = None,
    unsubscribe_url: str | None = None,
) -> Worded:
    """Put a notice into words; an unknown language becomes English. Raises for a missing fact."""
    chosen = language if language in LANGUAGES else "en"
    words = texts(chosen)
    values = shown(facts, words, time_zone) | {"practice": practice_id or words["common"]["all"]}
    entry = words["kinds"][kind]
    sentences = [_fill(line, values) for line in entry["lines"]]
    page = {
        "language": chosen,
        "subject": _fill(entry["subject"], values),
        "lines": sentences,
        "practice": practice_id,
        "common": words["common"],
        "portal_url": portal_url,
        "unsubscribe_url": unsubscribe_url,
    }
    text = _PAGES.get_template("mail.txt").render(page)
    html = _PAGES.get_template("mail.html").render(page)
    return Worded(chosen, page["subject"], text, html)


def texts(language: str) -> dict[str, Any]:
    """Read the words of one language."""
    return notices(language)


def _fill(sentence: str, values: Mapping[str, object]) -> str:
    # A line break in a fact must not become a header of its own.
    return " ".join(_SENTENCES.from_string(sentence).render(values).split())


def shown(
    facts: Mapping[str, int | str], words: Mapping[str, Any], time_zone: str
) -> dict[str, object]:
    """Say facts as people read them: amounts with currency, instants as dates, reasons in words."""
    return dict(_shown(name, value, words, time_zone) for name, value in facts.items())


def _shown(
    name: str, value: int | str, words: Mapping[str, Any], time_zone: str
) -> tuple[str, object]:
    if isinstance(value, int) and name.endswith("_nano_usd"):
        return name.removesuffix("_nano_usd"), f"USD {_usd(name, value)}"
    if isinstance(value, int) and name.endswith("_rappen"):
        return name.removesuffix("_rappen"), f"CHF {show.chf(value)}"
    if isinstance(value, int) and name.endswith("_at_s"):
        at = datetime.fromtimestamp(value, ZoneInfo(time_zone))
        return name.removesuffix("_at_s"), at.strftime(words["common"]["date"])
    if name in {"reason", "cause"}:
        return name, words["reasons"].get(str(value)) or str(value).replace("_", " ")
    return name, value


def _usd(name: str, nano_usd: int) -> str:
    """Write what was bought with the decimals it has, and what is left as pages do, cut."""
    return show.usd_exact(nano_usd) if name == "credit_nano_usd" else show.usd(nano_usd)
