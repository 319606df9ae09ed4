"""The catalogue: every language has every text, with the same placeholders, in Swiss manners."""

from __future__ import annotations

import re
import string

import pytest

from guthaben.texts import LANGUAGES, best_language, catalogue, known, text
from tests.tidy_laws import ROOT

SOURCES = ROOT / "src" / "guthaben"


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_complete_and_its_placeholders_agree(language: str) -> None:
    english, found = catalogue("en"), catalogue(language)
    assert list(found) == list(english), "same texts, in the same order"
    differing = {
        name for name in english if placeholders(english[name]) != placeholders(found[name])
    }
    assert differing == set()
    assert all(value.strip() == value and value for value in found.values())


def test_texts_are_translated_and_not_only_copied() -> None:
    long = [name for name, value in catalogue("en").items() if len(value) > 25]
    for name in long:
        told = {catalogue(language)[name] for language in LANGUAGES}
        assert len(told) == len(LANGUAGES), name


def test_german_is_swiss_german() -> None:
    assert "ß" not in "".join(catalogue("de").values())


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    code = "\n".join(
        path.read_text("utf-8") for path in [*SOURCES.rglob("*.py"), *SOURCES.rglob("*.html")]
    )
    families = ("kind.", "status.", "pause.", "problem.", "purchase.", "done.", "portal.auto.")
    names = set(catalogue("en"))
    quoted = {name for name in names if f'"{name}"' in code or f"'{name}'" in code}
    unused = {name for name in names - quoted if not name.startswith(families)}
    assert unused == set()
    pages = "\n".join(path.read_text("utf-8") for path in SOURCES.rglob("*.html"))
    wanted = set(re.findall(r"""\bt\(["']([a-z_.]+)["']""", pages))
    assert {name for name in wanted if not name.endswith(".")} <= names


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", None),
        ("de-CH", "de"),
        ("fr-CH, fr;q=0.9, en;q=0.8", "fr"),
        ("es, it;q=0.5, en;q=0.7", "en"),
        ("DE", "de"),
        ("*", None),
        ("de;q=0, fr;q=0.1", "fr"),
        ("de;q=0", None),
        ("de;q=nonsense, it;q=0.2", "it"),
        ("en;q=0.5, de;q=0.5", "en"),
        ("rm-CH, de;q=0.8", "de"),
        ("de;q=1.000", "de"),
        ("de;q=١", None),
        ("," * 10_000 + "de", None),
    ],
)
def test_what_a_header_asks_for(header: str, language: str | None) -> None:
    assert best_language(header) == language


def test_a_language_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        text("portal.title", "rm")
    assert not known("portal.nothing")
