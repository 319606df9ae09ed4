"""Who calls the old routes: the application's token first, then the practice its credential names.

Law: a token is compared in constant time, and one that is not set lets nobody in. The practice
comes from the licence key that belongs to it; what a header merely claims counts only by setting.
Every way of not being let in to a practice answers alike.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

from guthaben import config
from guthaben.services.legacy.plans import practice_of
from guthaben.store.adopted import Adopted
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.legacy.schema import Connection

Resolver = Callable[[Connection, Mapping[str, str]], str | None]
"""Names the practice of a request by its headers (lower case); None: nobody's."""


def lets_in(headers: Mapping[str, str], token: str | None) -> bool:
    """Tell whether a request carries the token, as `X-API-Token` or as bearer."""
    if not token:
        return False
    shown = [headers.get("x-api-token", ""), _bearer(headers.get("authorization", ""))]
    # Both are compared whatever the first says; a server hands over raw bytes as Latin-1.
    matches = [
        hmac.compare_digest(one.encode("latin-1", "replace"), token.encode()) for one in shown
    ]
    return any(matches)


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def by_license_key(con: Connection, headers: Mapping[str, str]) -> str | None:
    """Name the practice that the licence key in `X-License-Key` belongs to.

    With GUTHABEN_TRUST_PRACTICE_HEADER, and without a key, `X-Practice-Id` is believed.
    """
    key = headers.get("x-license-key", "").strip()
    if key:
        found = Adopted(con).read(lambda cursor: legacy_rows.license_by_key(cursor, key))
        return practice_of(found.practice_id, found.subscription_id) if found else None
    if config.trust_practice_header():
        return headers.get("x-practice-id", "").strip() or None
    return None


def practice_of_request(
    con: Connection, headers: Mapping[str, str], resolver: Resolver
) -> str | None:
    """Name the practice of a request; a header that claims another one makes it nobody's."""
    practice_id = resolver(con, headers)
    claimed = headers.get("x-practice-id", "").strip()
    if not practice_id or len(practice_id) > 200 or (claimed and claimed != practice_id):
        return None
    return practice_id
