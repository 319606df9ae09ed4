"""Access: from a request's credential to the practice it may act for.

Law: the practice comes from the credential. A key that belongs to one practice decides; a header
that contradicts it is refused (403). A key for all practices must name one in `X-Practice-Id`.
Unknown, wrong and revoked keys answer alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from starlette.requests import Request

from guthaben.errors import Refused
from guthaben.services.api_keys import ApiKeys, Credential
from guthaben.services.checks import practice_id_of
from guthaben.web.problems import Problem, invalid
from guthaben.web.shapes import refuse_secret

Scope = Literal["gate", "credit", "admin"]
SessionCheck = Callable[[Request], Credential | None]

PRACTICE_HEADER: Final = "x-practice-id"
_LONGEST_KEY: Final = 200


class Caller(NamedTuple):
    """Who asks, and for which practice."""

    practice_id: str
    key_id: str


class Operator(NamedTuple):
    """Who asks as an operator; `practice_id` None means that every practice is in reach."""

    practice_id: str | None
    key_id: str

    def may_touch(self, practice_id: str) -> str:
        """Check the practice in a path; a foreign one answers as a missing one does."""
        if self.practice_id is not None and self.practice_id != practice_id:
            raise Problem(
                404, "practice_not_found", "There is no such practice for this credential."
            )
        return _checked(practice_id)

    def may_touch_all(self) -> None:
        """Check that what concerns every practice is in reach."""
        if self.practice_id is not None:
            raise Problem(403, "practice_mismatch", "This needs a key for all practices.")


class Access:
    """Lets requests in by API key; `session` is another way in, for the demo's own page."""

    def __init__(self, keys: ApiKeys, session: SessionCheck | None = None) -> None:
        self._keys = keys
        self.session = session

    async def caller(self, request: Request, *scopes: Scope) -> Caller:
        """Let a request in that has one of the scopes, and tell its practice."""
        credential = await self._admit(request, scopes)
        named = _named_practice(request)
        if credential.practice_id is None:
            if named is None:
                raise invalid("This key is for all practices: name one in X-Practice-Id.")
            practice_id = _checked(named)
        else:
            practice_id = credential.practice_id
            if named is not None and named != practice_id:
                detail = "The API key belongs to another practice than X-Practice-Id names."
                raise Problem(403, "practice_mismatch", detail)
        request.scope["guthaben.practice_id"] = practice_id
        return Caller(practice_id, credential.key_id)

    async def operator(self, request: Request) -> Operator:
        """Let an operator in."""
        credential = await self._admit(request, ("admin",))
        named = _named_practice(request)
        if named is not None and credential.practice_id not in (None, named):
            detail = "The API key belongs to another practice than X-Practice-Id names."
            raise Problem(403, "practice_mismatch", detail)
        return Operator(credential.practice_id, credential.key_id)

    async def _admit(self, request: Request, scopes: tuple[Scope, ...]) -> Credential:
        credential = await self._credential(request)
        if credential is None:
            detail = "Send a valid API key: Authorization: Bearer gh_..."
            raise Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})
        request.scope["guthaben.key_id"] = credential.key_id
        if not credential.scopes.intersection(scopes):
            detail = f"This needs a key with the scope {' or '.join(scopes)}."
            raise Problem(403, "scope_missing", detail)
        return credential

    async def _credential(self, request: Request) -> Credential | None:
        given = request.headers.getlist("authorization")
        if not given and self.session is not None:
            return self.session(request)
        key = _bearer(given)
        if key is None:
            return None
        return self._keys.recall(key) or await asyncio.to_thread(self._keys.check, key)


def _bearer(given: list[str]) -> str | None:
    if len(given) != 1 or len(given[0]) > _LONGEST_KEY or not given[0].isascii():
        return None
    kind, _, key = given[0].partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.startswith("gh_") else None


def _named_practice(request: Request) -> str | None:
    named = request.headers.getlist(PRACTICE_HEADER)
    if len(named) > 1:
        raise invalid("X-Practice-Id occurs twice.")
    if named and not named[0].isascii():
        # Headers carry no encoding: read as another one, it would name another practice.
        raise invalid("X-Practice-Id takes ASCII; use a key that belongs to the practice.")
    return named[0] if named else None


def _checked(practice_id: str) -> str:
    try:
        practice_id_of(practice_id)
    except Refused as error:
        raise invalid(str(error), field="practice_id") from error
    refuse_secret("practice_id", practice_id)
    return practice_id
