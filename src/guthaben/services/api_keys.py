"""API keys: 256 random bits that let a program in, for one practice or for all.

Law: a key is shown once, when it is made; only its sha256 is stored, and it is compared in constant
time. What a key may do is fixed when it is made. A revoked key stops within `FORGET_S` seconds, in
every process. Who may make keys is decided above.
"""

from __future__ import annotations

import hmac
import secrets
import string
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from guthaben.errors import InvalidInput
from guthaben.services.checks import practice_id_of
from guthaben.store import api_keys
from guthaben.store.api_keys import ApiKeyRow
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

SCOPES: Final = ("gate", "credit", "admin")
FORGET_S: Final = 1
_ID_CHARACTERS: Final = 10
_SECRET_CHARACTERS: Final = 43
"""Of 62 characters each: 256 bits."""
_ALPHABET: Final = string.ascii_letters + string.digits
_MOST_REMEMBERED: Final = 1_000
_NO_HASH: Final = bytes(32)
_LONGEST_NAME: Final = 100
_MOST_LISTED: Final = 500

KeyMode = Literal["live", "test"]


@dataclass(frozen=True, slots=True)
class Credential:
    """Who a valid key belongs to, and what it may do; `practice_id` None means every practice."""

    key_id: str
    practice_id: str | None
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that was just made; `key` is shown this once."""

    key_id: str
    practice_id: str | None
    scopes: tuple[str, ...]
    name: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApiKeyView:
    """A key in a list, masked."""

    key_id: str
    masked: str
    practice_id: str | None
    scopes: tuple[str, ...]
    name: str
    created_at_s: int
    revoked_at_s: int | None


class _Recalled(NamedTuple):
    """A key that was found valid, and how long that may be believed."""

    row: ApiKeyRow
    until_s: float


class ApiKeys:
    """Makes, checks, lists and revokes the keys of one database; thread-safe."""

    def __init__(self, store: Store, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self._known: dict[str, _Recalled] = {}

    def create(
        self,
        practice_id: str | None,
        scopes: Iterable[str],
        *,
        name: str = "",
        mode: KeyMode = "live",
    ) -> NewApiKey:
        """Make a key and store its hash, durably. Raises `InvalidInput`.

        `mode` only marks the key (`gh_live_`, `gh_test_`), so that people see what they hold.
        """
        chosen = _scopes_of(scopes)
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise InvalidInput(
                f"name is at most {_LONGEST_NAME} printable characters", field="name"
            )
        if mode not in ("live", "test"):
            raise InvalidInput("mode is 'live' or 'test'", field="mode")
        if practice_id is not None:
            practice_id_of(practice_id)
        key_id = f"gh_{mode}_{_random(_ID_CHARACTERS)}"
        key = f"{key_id}_{_random(_SECRET_CHARACTERS)}"

        def insert(space: Workspace) -> None:
            number = 0 if practice_id is None else space.practice_no(practice_id)
            scopes = " ".join(chosen)
            row = ApiKeyRow(key_id, _hash(key), number, practice_id, scopes, name, space.now_s, 0)
            api_keys.insert_key(space.cursor, row)

        self._store.run(insert)
        return NewApiKey(key_id, practice_id, chosen, name, key)

    def recall(self, key: str) -> Credential | None:
        """Check a key without asking the store, if it was checked a moment ago; never blocks."""
        known = self._known.get(_key_id_of(key))
        if known is None or known.until_s < self._clock_s():
            return None
        return _credential(known.row, key)

    def check(self, key: str) -> Credential | None:
        """Tell whose key this is, or None: unknown, wrong and revoked keys answer alike."""
        key_id = _key_id_of(key)
        row = self._store.read(lambda cur: api_keys.find_key(cur, key_id))
        if row is None or row.revoked_at_s:
            self._known.pop(key_id, None)
            hmac.compare_digest(_NO_HASH, _hash(key))  # takes as long as a comparison that counts
            return None
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[key_id] = _Recalled(row, self._clock_s() + FORGET_S)
        return _credential(row, key)

    def list(self, practice_id: str | None = None) -> list[ApiKeyView]:
        """List keys, newest first, of one practice or of all; at most 500."""
        rows = self._store.read(lambda cur: api_keys.list_keys(cur, practice_id, _MOST_LISTED))
        return [_view(row) for row in rows]

    def revoke(self, key_id: str) -> bool:
        """Let a key count no longer; tell whether it was valid until now. Idempotent."""
        revoked = self._store.run(
            lambda space: api_keys.revoke_key(space.cursor, key_id, space.now_s)
        )
        self._known.pop(key_id, None)
        return revoked


def _random(characters: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(characters))


def _hash(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _key_id_of(key: str) -> str:
    return key.rpartition("_")[0]


def _scopes_of(scopes: Iterable[str]) -> tuple[str, ...]:
    asked = set(scopes)
    if not asked or asked - set(SCOPES):
        raise InvalidInput(f"scopes are one or more of {', '.join(SCOPES)}", field="scopes")
    return tuple(scope for scope in SCOPES if scope in asked)


def _credential(row: ApiKeyRow, key: str) -> Credential | None:
    if not hmac.compare_digest(row.hash, _hash(key)):
        return None
    if row.practice_no and row.practice_id is None:
        return None  # its practice is gone; it must never turn into a key for every practice
    return Credential(row.key_id, row.practice_id, frozenset(row.scopes.split()))


def _view(row: ApiKeyRow) -> ApiKeyView:
    return ApiKeyView(
        key_id=row.key_id,
        masked=f"{row.key_id}_…",
        practice_id=row.practice_id,
        scopes=tuple(row.scopes.split()),
        name=row.name,
        created_at_s=row.created_at_s,
        revoked_at_s=row.revoked_at_s or None,
    )
