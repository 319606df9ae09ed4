"""API keys: what is stored, what lets in, and what no longer does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from guthaben import Guthaben
from guthaben.errors import InvalidInput
from guthaben.services.api_keys import FORGET_S, ApiKeys


@pytest.fixture
def guthaben(tmp_path: Path) -> Iterator[Guthaben]:
    with Guthaben.open(f"sqlite:///{tmp_path / 'keys.db'}") as opened:
        yield opened


@pytest.fixture
def keys(guthaben: Guthaben) -> ApiKeys:
    return ApiKeys(guthaben.core.store)


def test_a_key_has_256_random_bits_and_says_what_it_is(keys: ApiKeys) -> None:
    made = [keys.create("prac_1", ["gate"], mode="test").key for _ in range(50)]
    assert len(set(made)) == 50
    assert all(re.fullmatch(r"gh_test_[A-Za-z0-9]{10}_[A-Za-z0-9]{43}", key) for key in made)
    assert keys.create(None, ["admin"]).key.startswith("gh_live_")


def test_the_key_itself_is_stored_nowhere(keys: ApiKeys, tmp_path: Path) -> None:
    made = keys.create("prac_1", ["gate"], name="reception")
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert made.key_id.encode() in stored
    assert made.key.rpartition("_")[2].encode() not in stored
    assert made.key not in repr(made)


def test_a_key_lets_in_for_its_practice_and_scopes(keys: ApiKeys) -> None:
    made = keys.create("prac_1", ["credit", "gate"])
    found = keys.check(made.key)
    assert found is not None
    assert (found.key_id, found.practice_id) == (made.key_id, "prac_1")
    assert found.scopes == {"gate", "credit"}
    everywhere = keys.check(keys.create(None, ["gate"]).key)
    assert everywhere is not None
    assert everywhere.practice_id is None


@pytest.mark.parametrize("spoil", [lambda k: k[:-1] + "!", lambda k: k + "a", lambda k: k[:-1]])
def test_a_wrong_key_lets_nobody_in_even_after_the_right_one(keys: ApiKeys, spoil) -> None:
    made = keys.create("prac_1", ["gate"])
    assert keys.check(made.key)
    assert keys.recall(made.key)
    assert keys.recall(spoil(made.key)) is None
    assert keys.check(spoil(made.key)) is None


@pytest.mark.parametrize("junk", ["", "gh_live_", "gh_live_aaaaaaaaaa_", "x" * 500, "\ud800"])
def test_junk_lets_nobody_in(keys: ApiKeys, junk: str) -> None:
    assert keys.recall(junk) is None
    if junk.isprintable():
        assert keys.check(junk) is None


def test_a_revoked_key_lets_nobody_in(keys: ApiKeys) -> None:
    made = keys.create("prac_1", ["gate"])
    assert keys.check(made.key)
    assert keys.revoke(made.key_id)
    assert not keys.revoke(made.key_id)
    assert not keys.revoke("gh_live_unknown")
    assert keys.recall(made.key) is None
    assert keys.check(made.key) is None


def test_another_process_notices_a_revocation_within_a_second(guthaben: Guthaben) -> None:
    now_s = 100
    here = ApiKeys(guthaben.core.store)
    there = ApiKeys(guthaben.core.store, clock_s=lambda: now_s)
    made = here.create("prac_1", ["gate"])
    assert there.check(made.key)
    here.revoke(made.key_id)
    assert there.recall(made.key), "what was checked a moment ago needs no question"
    now_s += FORGET_S + 1
    assert there.recall(made.key) is None
    assert there.check(made.key) is None


def test_keys_are_listed_masked_and_newest_first(keys: ApiKeys) -> None:
    first = keys.create("prac_1", ["gate"], name="first")
    second = keys.create(None, ["admin", "gate"], name="second")
    keys.revoke(first.key_id)
    listed = {view.key_id: view for view in keys.list()}
    assert set(listed) == {first.key_id, second.key_id}
    assert listed[second.key_id].scopes == ("gate", "admin")
    assert listed[second.key_id].practice_id is None
    assert listed[first.key_id].revoked_at_s
    assert first.key not in repr(listed)
    assert [view.key_id for view in keys.list("prac_1")] == [first.key_id]
    assert keys.list("prac_2") == []


def test_a_key_can_only_be_made_for_what_there_is(keys: ApiKeys) -> None:
    for scopes in ([], ["gate", "root"], [""]):
        with pytest.raises(InvalidInput, match="scopes"):
            keys.create("prac_1", scopes)
    with pytest.raises(InvalidInput, match="name"):
        keys.create("prac_1", ["gate"], name="a\nb")
    with pytest.raises(InvalidInput, match="mode"):
        keys.create("prac_1", ["gate"], mode="prod")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="practice_id"):
        keys.create("", ["gate"])
    assert keys.list() == []
