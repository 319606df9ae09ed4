"""Words: every kind in every language, with nothing missing and nothing left over."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jinja2 import UndefinedError

from guthaben.channels.wording import LANGUAGES, texts, word
from guthaben.services.notices import ABOUT, Fact, Notice

FACTS: dict[str, Fact] = {
    "available_nano_usd": 900_000_000, "of_nano_usd": 20_000_000_000, "debt_nano_usd": 5_000_000,
    "price_rappen": 123_450, "credit_nano_usd": 10_000_000_000, "automatic": 0, "reason": "failing",
    "enabled": 1, "trigger_percent": 5,
    "trigger_below_nano_usd": 0, "cap_rappen": 30_000, "license": "basic",
    "ends_at_s": 1_762_945_200,
    "endpoint_id": "we_1", "event_no": 7, "event_type": "charge.refunded", "plan": "gold",
    "cause": "missed_webhook", "count": 3, "kind": "topped_up", "channel": "email", "job": "inbox",
    "failures": 5,
}  # fmt: skip
ALL = [(kind, language) for kind in Notice for language in LANGUAGES]


def facts_of(kind: Notice) -> dict[str, Fact]:
    return {name: FACTS[name] for name in kind.about.facts}


@pytest.mark.parametrize(
    ("kind", "language"), ALL, ids=lambda value: getattr(value, "value", value)
)
def test_every_kind_has_words_in_every_language(kind: Notice, language: str) -> None:
    worded = word(
        kind.value, facts_of(kind), language, practice_id="prac_7",
        portal_url="https://credit.example.com", unsubscribe_url="https://credit.example.com/u?t=1",
    )  # fmt: skip
    assert worded.language == language
    assert 5 < len(worded.subject) < 100
    for text in (worded.subject, worded.text, worded.html):
        assert not re.search(r"\{[{%]|%\}|None|nano|rappen|Undefined", text), text
    assert worded.html.startswith("<!doctype html>")
    assert f'lang="{language}"' in worded.html
    assert "prac_7" in worded.text
    assert "https://credit.example.com/u?t=1" in worded.text
    assert "\n\n\n" not in worded.text


def test_all_languages_have_the_same_entries_and_no_more() -> None:
    shapes = {language: _shape(texts(language)) for language in LANGUAGES}
    assert len(set(map(str, shapes.values()))) == 1
    assert set(texts("de")["kinds"]) == {kind.value for kind in Notice}


def _shape(entries: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _shape(value) if isinstance(value, dict) else type(value).__name__
        for name, value in sorted(entries.items())
    }


def test_the_languages_say_different_things() -> None:
    for kind in Notice:
        subjects = {word(kind.value, facts_of(kind), x, practice_id="p").subject for x in LANGUAGES}
        assert len(subjects) == len(LANGUAGES), kind


@pytest.mark.parametrize("kind", Notice)
def test_a_missing_fact_is_an_error_and_every_fact_is_used_or_for_machines(kind: Notice) -> None:
    for_machines = {"credit_nano_usd", "count", "event_type", "failures", "trigger_below_nano_usd",
                    "debt_nano_usd", "kind", "channel", "event_no", "of_nano_usd"}  # fmt: skip
    for name in kind.about.facts:
        facts = {key: value for key, value in facts_of(kind).items() if key != name}
        try:
            word(kind.value, facts, "de", practice_id="p")
        except (UndefinedError, TypeError):
            continue
        assert name in for_machines, f"{kind} never says {name}"


def test_amounts_dates_and_reasons_are_written_for_people() -> None:
    paid = word("topped_up", facts_of(Notice.TOPPED_UP), "en", practice_id="p")
    assert paid.subject == "Credit bought: USD 10.00 for CHF 1'234.50"
    ends = word("licence_cancelled", facts_of(Notice.LICENCE_CANCELLED), "de", practice_id="p")
    assert "endet am 12.11.2025" in ends.subject
    reason = word("auto_topup_paused", {"reason": "expired_card"}, "fr", practice_id="p")
    assert "la carte a expiré" in reason.text
    unknown = word("auto_topup_paused", {"reason": "some_new_code"}, "fr", practice_id="p")
    assert "some new code" in unknown.text


def test_an_amount_is_never_shown_as_more_than_it_is() -> None:
    facts: dict[str, Fact] = {"available_nano_usd": 999_999_999, "of_nano_usd": 1_000_000_000}
    assert "USD 0.99" in word("low_balance_5", facts, "en", practice_id="p").subject


def test_an_unknown_language_becomes_english() -> None:
    assert word("empty", {"debt_nano_usd": 0}, "rm", practice_id="p").language == "en"


def test_debt_is_mentioned_only_where_there_is_some() -> None:
    for language in LANGUAGES:
        with_debt = word("empty", {"debt_nano_usd": 2_500_000_000}, language, practice_id="p")
        without = word("empty", {"debt_nano_usd": 0}, language, practice_id="p")
        assert "USD 2.50" in with_debt.text
        assert "USD" not in without.text


def test_kinds_that_name_no_practice_still_read_well() -> None:
    told = word(
        "endpoint_disabled", {"endpoint_id": "we_1", "reason": "gone"}, "de", practice_id=""
    )
    assert "alle Praxen" in told.text
    assert set(ABOUT) == set(Notice)
