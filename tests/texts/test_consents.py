"""Texts that customers agreed to: a version's words never change, and are found for ever."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

import pytest

from guthaben.errors import InvalidInput
from guthaben.services.consent_texts import (
    CARD_TEXT_VERSION,
    VERSION,
    Terms,
    card_text,
    consent_text,
)
from guthaben.texts import LANGUAGES, consent, consent_versions
from tests.texts.test_catalogue import placeholders

WRITTEN = {
    # Customers agreed to these. Add a line for a new version; change none.
    ("auto_topup", "2026-11"): "2e175ed5d7ee7f35",
    ("card", "2026-11"): "1aff7d317b132896",
}
NOW = {"auto_topup": VERSION, "card": CARD_TEXT_VERSION}


def test_no_version_changes_and_each_is_pinned() -> None:
    home = files("guthaben.texts").joinpath("consents")
    found = {
        (kind, version): sha256(home.joinpath(kind, f"{version}.toml").read_bytes()).hexdigest()[
            :16
        ]
        for kind in NOW
        for version in consent_versions(kind)
    }
    assert found == WRITTEN


@pytest.mark.parametrize("kind", NOW)
def test_what_is_agreed_to_now_is_the_newest(kind: str) -> None:
    assert consent_versions(kind)[-1] == NOW[kind]


@pytest.mark.parametrize(("kind", "version"), WRITTEN)
def test_every_version_is_there_in_every_language(kind: str, version: str) -> None:
    english = consent(kind, version, "en")
    for language in LANGUAGES:
        found = consent(kind, version, language)
        assert list(found) == list(english)
        for name, value in found.items():
            assert placeholders(value) == placeholders(english[name]), (language, name)
            assert value.strip()
    assert "\u00df" not in "".join(consent(kind, version, "de").values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_recorded_version_finds_its_words(language: str) -> None:
    terms = Terms(3_000, 30_000, 5)
    assert consent_text(language, terms, version="2026-11") == consent_text(language, terms)
    assert card_text(language, version="2026-11") == card_text(language)


@pytest.mark.parametrize("version", ["", "2025-01", "../card/2026-11", "setup_checkout"])
def test_a_version_that_was_never_written_has_no_words(version: str) -> None:
    with pytest.raises(InvalidInput, match="version"):
        consent_text("de", Terms(3_000, 30_000, 5), version=version)
    with pytest.raises(InvalidInput, match="version"):
        card_text("de", version=version)
    with pytest.raises(KeyError):
        consent("card", version, "de")
