"""The practice's portal: short-lived signed sessions of one practice, its usage, its language.

Law: a session names one practice and can't be turned into another's. What is signed is bound to
its use (link, session) and ends by itself; the key never leaves the database it belongs to. Usage
is read over a bounded number of calls, so that it doesn't grow with history.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from guthaben import config
from guthaben.domain.practice import PracticeStatus
from guthaben.errors import InvalidInput
from guthaben.services.checks import MAX_TEXT, checked_text, practice_id_of
from guthaben.services.guthaben import Guthaben
from guthaben.store import checkouts, queries
from guthaben.store.workspace import Workspace
from guthaben.texts import LANGUAGES

LINK_S: Final = 600
SESSION_S: Final = 2 * 3600
USAGE_DAYS: Final = 30
MOST_CALLS: Final = 50_000
_LONGEST_TOKEN: Final = 4_000
_LONGEST_URL: Final = 2_000

Use = Literal["link", "session"]


class PortalSession(NamedTuple):
    """Whose portal is open, in which language, and where its visitor came from."""

    practice_id: str
    actor: str
    """Who opened it: the id of the API key, or `cli`; stands beside every consent."""
    language: str
    return_url: str
    ends_at_s: int


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What a day or a model used."""

    name: str
    calls: int
    cost_nano_usd: int


@dataclass(frozen=True, slots=True)
class UsageView:
    """Usage of the last days; `cut` tells that only the newest calls were looked at."""

    days: tuple[UsageLine, ...]
    models: tuple[UsageLine, ...]
    calls: int
    cost_nano_usd: int
    cut: bool


class Portal:
    """Opens portals of one database's practices, and checks who comes."""

    def __init__(self, guthaben: Guthaben) -> None:
        self._store = guthaben.core.store
        secret = bytes.fromhex(self._store.read(lambda cur: queries.meta(cur, "secret")))
        # Derived, so that what is signed here can't pass for the name of a call, or the reverse.
        self._key = hmac.digest(secret, b"guthaben portal", "sha256")

    # ---- sessions

    def link(
        self, practice_id: str, *, actor: str, language: str | None = None, return_url: str = ""
    ) -> str:
        """Make the token of a link into the portal, good for ten minutes."""
        practice_id_of(practice_id)
        checked_text("actor", actor, MAX_TEXT)
        if language is not None and language not in LANGUAGES:
            raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")
        if len(return_url) > _LONGEST_URL:
            raise InvalidInput("return_url is too long", field="return_url")
        chosen = language or self.language(practice_id)
        ends_at_s = self._store.now_s() + LINK_S
        return self._sign("link", PortalSession(practice_id, actor, chosen, return_url, ends_at_s))

    def enter(self, token: str) -> PortalSession | None:
        """Turn a link's token into a session of two hours; None for what is no valid link."""
        found = self._read("link", token)
        return found and found._replace(ends_at_s=self._store.now_s() + SESSION_S)

    def token(self, session: PortalSession) -> str:
        """Sign a session, for a cookie."""
        return self._sign("session", session)

    def session(self, token: str) -> PortalSession | None:
        """Check a cookie; None for what is no session, or is over."""
        return self._read("session", token)

    def form_token(self, session: PortalSession) -> str:
        """Give the token that a form of this session must carry, whatever its language."""
        named = json.dumps([session.practice_id, session.actor, session.ends_at_s])
        return hmac.digest(self._key, b"form " + named.encode(), "sha256").hex()

    def is_form_token(self, session: PortalSession, given: str) -> bool:
        """Tell whether a form comes from this session's own page."""
        wanted = self.form_token(session).encode()
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted)

    def _sign(self, use: Use, session: PortalSession) -> str:
        body = _packed(json.dumps([use, *session], separators=(",", ":")).encode())
        return f"{body}.{self._seal(body)}"

    def _seal(self, body: str) -> str:
        return _packed(hmac.digest(self._key, body.encode(), "sha256"))

    def _read(self, use: Use, token: str) -> PortalSession | None:
        body, _, seal = token.partition(".")
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            return None
        if not hmac.compare_digest(self._seal(body), seal):
            return None
        fields: list[Any] = json.loads(_unpacked(body))
        session = PortalSession(*fields[1:])
        return session if fields[0] == use and self._store.now_s() < session.ends_at_s else None

    # ---- the practice's language

    def language(self, practice_id: str) -> str:
        """Tell the language a practice asked for, else the server's."""
        return self.chosen_language(practice_id) or config.default_language()

    def chosen_language(self, practice_id: str) -> str | None:
        """Tell the language a practice asked for, if it did."""
        return self._store.read(lambda cur: checkouts.language_of(cur, practice_id))

    def set_language(self, practice_id: str, language: str) -> None:
        """Keep the language a practice is spoken to in. Naturally idempotent."""
        practice_id_of(practice_id)
        if language not in LANGUAGES:
            raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")

        def keep(space: Workspace) -> None:
            number = space.practice_no(practice_id)
            space.flush()
            checkouts.set_language(space.cursor, number, language, space.now_s)

        self._store.run(keep)

    def time_zone(self, practice_id: str) -> str:
        """Tell the zone in which the practice's days and months begin."""
        return self._store.read(lambda cur: queries.time_zone_of(cur, practice_id))

    def status(self, practice_id: str) -> str:
        """Tell whether the practice is active, frozen or closed."""
        now_s = self._store.now_s()
        practice, _ = self._store.read(
            lambda cur: queries.practice_with(cur, practice_id, None, now_s)
        )
        return PracticeStatus(practice.status).name.lower()

    # ---- usage

    def usage(self, practice_id: str, days: int = USAGE_DAYS) -> UsageView:
        """Tell what was used in the last days, by day of the practice's zone and by model."""
        since_ms = (self._store.now_s() - days * 86_400) * 1000
        rows = self._store.read(
            lambda cur: queries.usage_by_quarter_hour(cur, practice_id, since_ms, MOST_CALLS)
        )
        zone = ZoneInfo(self.time_zone(practice_id))
        by_day: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        by_model: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in rows:
            day = datetime.fromtimestamp(row.quarter_hour * 900, zone).strftime("%Y-%m-%d")
            for sums, name in ((by_day, day), (by_model, row.model)):
                sums[name][0] += row.calls
                sums[name][1] += row.cost_nano_usd
        calls = sum(row.calls for row in rows)
        return UsageView(
            days=tuple(sorted(_lines(by_day), key=lambda line: line.name, reverse=True)),
            models=tuple(sorted(_lines(by_model), key=lambda line: -line.cost_nano_usd)),
            calls=calls,
            cost_nano_usd=sum(row.cost_nano_usd for row in rows),
            cut=calls >= MOST_CALLS,
        )


def _lines(sums: dict[str, list[int]]) -> list[UsageLine]:
    return [UsageLine(name, calls, cost) for name, (calls, cost) in sums.items()]


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
