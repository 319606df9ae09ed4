"""Which card was given last, in every form in which the audit has said so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from guthaben.services.cards import CARD_SAVED, SETUP_COMPLETE, Card, is_older, save_card
from guthaben.store import settings
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace


@pytest.fixture
def store() -> Iterator[Store]:
    with contextlib.closing(Store("sqlite://")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("action", "detail", "knows"),
    [
        (CARD_SAVED, '{"given_at_s": 200}', True),
        (CARD_SAVED, "given_at_s=200", True),
        (SETUP_COMPLETE, '{"enabled": true, "card": true, "began_at_s": 200}', True),
        (SETUP_COMPLETE, '{"card": true, "given_at_s": null}', False),
        (CARD_SAVED, "", False),
        ("enabled", '{"given_at_s": 200}', False),
    ],
)
def test_a_card_of_before_is_known_by_whatever_was_written_down(
    store: Store, action: str, detail: str, knows: bool
) -> None:
    def asked(space: Workspace) -> list[bool]:
        number = space.practice_no("p")
        settings.audit(space.cursor, number, action, "checkout", detail, 1)
        return [is_older(space, number, given) for given in (199, 200, None)]

    assert store.run(asked) == [knows, False, False]


@pytest.mark.parametrize("detail", ["given_at_s=200", "", '{"given_at_s": 200}'])
def test_a_newer_card_takes_its_place(store: Store, detail: str) -> None:
    def saved(space: Workspace) -> bool:
        number = space.practice_no("p")
        settings.audit(space.cursor, number, CARD_SAVED, "checkout", detail, 1)
        return save_card(space, "p", Card("cus_1", "pm_2", 201))

    assert store.run(saved)
