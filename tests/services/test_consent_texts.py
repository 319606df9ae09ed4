"""The consent texts: complete in each language, with exactly the numbers that are stored."""

from __future__ import annotations

import re

import pytest

from guthaben.errors import InvalidInput
from guthaben.services.consent_texts import LANGUAGES, VERSION, Terms, consent_text
from guthaben.services.topups import CONSENT_VERSION

TERMS = Terms(3_050, 30_000, 5, 1_500_000_000, 9_000)


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d[\d.]*\d|\d", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_names_all_that_is_agreed_to(language: str) -> None:
    text = consent_text(language, TERMS, "Praxis AG")
    assert numbers(text) == sorted(["30.50", "300.00", "5", "1.50", "90.00"])
    assert "Praxis AG" in text
    assert not re.search(r"[{}]", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_not_agreed_to_is_not_named(language: str) -> None:
    text = consent_text(language, Terms(3_000, 30_000, 5))
    assert numbers(text) == sorted(["30.00", "300.00", "5"])
    assert consent_text(language, Terms(3_000, 30_000, 5, 0, 3_000)) == text


def test_the_texts_differ_and_have_one_version() -> None:
    assert len({consent_text(language, TERMS) for language in LANGUAGES}) == 4
    assert VERSION == CONSENT_VERSION


@pytest.mark.parametrize("language", ["", "rm", "DE"])
def test_another_language_is_refused(language: str) -> None:
    with pytest.raises(InvalidInput):
        consent_text(language, TERMS)
