"""Keys that the engine makes: each is another one, and later ones sort later."""

from pathlib import Path

from guthaben import Guthaben
from guthaben.services.call_keys import new_key


def test_a_later_key_sorts_later_also_in_centuries() -> None:
    moments = [0, 1, 15, 16, 1_800_000_000_000, 1_800_000_000_001, 17_000_000_000_000]

    keys = [new_key("once-", now_ms) for now_ms in moments]

    assert keys == sorted(keys)
    assert len({len(key) for key in keys}) == 1


def test_keys_of_one_moment_differ() -> None:
    assert len({new_key("once-", 1_800_000_000_000) for _ in range(10_000)}) == 10_000


def test_a_call_without_a_key_gets_one_by_the_stores_clock(tmp_path: Path) -> None:
    now_ms = 1_800_000_000_000
    with Guthaben.open(f"sqlite:///{tmp_path}/credit.db", clock_ms=lambda: now_ms) as credit:
        credit.grant("prac_1", 1_000, key="g", kind="paid")
        for _ in range(3):
            credit.reserve("prac_1", 10)
            now_ms += 1
        with_keys = credit.core.store.read(
            lambda cur: cur.execute("SELECT key FROM credit_call ORDER BY call_no").fetchall()
        )

    keys = [key for (key,) in with_keys]
    assert keys == sorted(keys)
    assert [int(key.removeprefix("once-")[:11], 16) for key in keys] == [
        1_800_000_000_000, 1_800_000_000_001, 1_800_000_000_002
    ]  # fmt: skip
