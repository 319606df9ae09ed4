"""Whom notices go to: e-mail addresses with their preferences, and webhook endpoints.

Law: an owner sees and changes its own alone; foreign and missing ids answer alike. An address is
shown masked and can be erased; a signing secret is shown once. What is contractual can't be
unsubscribed from. An owner is a practice's id, or `OPERATOR`.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from guthaben import config
from guthaben.channels import webhook
from guthaben.channels.addresses import destination_of
from guthaben.channels.results import Result
from guthaben.channels.wording import LANGUAGES
from guthaben.errors import InvalidInput, Refused
from guthaben.mail_address import domain_of
from guthaben.services import checks
from guthaben.services.notices import Notice, new_notice_id
from guthaben.store import outbox, practices, queries, settings, targets
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.targets import EVERYTHING, ContactRow, EndpointRow
from guthaben.store.workspace import Workspace

T = TypeVar("T")
MOST: Final = 20
"""So many addresses, and so many endpoints, may one owner have."""
OLD_SECRET_S: Final = 24 * 3600
"""So long a rolled secret still signs beside the new one."""
_HINTS: Final = frozenset(kind.value for kind in Notice if not kind.about.contractual)
_KINDS: Final = frozenset(kind.value for kind in Notice)
_NO_ADDRESS: Final = (
    "address is no e-mail address; a domain with letters beyond a to z is written in its xn-- form"
)


class ContactView(NamedTuple):
    """An e-mail address as it may be shown."""

    contact_id: str
    masked: str
    language: str
    unsubscribed: tuple[str, ...]
    created_at_s: int


class EndpointView(NamedTuple):
    """A webhook endpoint as it may be shown."""

    endpoint_id: str
    url: str
    kinds: tuple[str, ...]
    created_at_s: int
    disabled_at_s: int | None
    disabled_reason: str
    failing_since_s: int | None


class NewEndpoint(NamedTuple):
    """An endpoint that was just made; its secret is shown this once."""

    endpoint: EndpointView
    secret: str


class Targets:
    """Changes and lists them, on one store."""

    def __init__(
        self,
        store: Store,
        *,
        allow_private: Callable[[], bool] = config.webhooks_allow_private,
        post: Callable[..., Result] = webhook.post,
    ) -> None:
        self._store = store
        self._allow_private = allow_private
        self._post = post

    # ---- addresses

    def add_contact(self, owner: str, address: str, language: str = "de") -> ContactView:
        """Have notices sent to an address; a known one only gets the language."""
        checked = address_of(address)
        if language not in LANGUAGES:
            raise InvalidInput(f"language is one of {', '.join(LANGUAGES)}", field="language")

        def add(space: Workspace) -> ContactView:
            number = _number(space, owner)
            known = targets.contacts(space.cursor, number)
            if len(known) >= MOST and checked not in {row.address for row in known}:
                raise Refused(f"There are {MOST} addresses already.", reason="too_many")
            row = ContactRow(number, f"con_{secrets.token_hex(8)}", checked, language, space.now_s)
            contact_id = targets.add_contact(space.cursor, row)
            found = targets.find_contact(space.cursor, number, contact_id)
            assert found is not None
            return _contact(space.cursor, found)

        return self._store.run(add)

    def contacts(self, owner: str) -> list[ContactView]:
        """List the addresses, masked."""
        return self._ask(
            owner, lambda cur, no: [_contact(cur, row) for row in targets.contacts(cur, no)], []
        )

    def erase_contact(self, owner: str, contact_id: str) -> None:
        """Erase an address for good; what waits for it is dropped. Raises `Refused`."""

        def erase(space: Workspace) -> bool:
            found = targets.erase_contact(space.cursor, _number(space, owner), contact_id)
            if found:
                outbox.drop_waiting(space.cursor, contact_id, "contact_erased", space.now_s)
            return found

        _there(self._store.run(erase), "contact")

    def set_preferences(self, owner: str, contact_id: str, unsubscribed: Iterable[str]) -> None:
        """Say which hints an address does not want; what is contractual always comes."""
        unwanted = set(unsubscribed)
        if unwanted - _HINTS - {EVERYTHING}:
            raise InvalidInput(
                f"only these can be unsubscribed from: {', '.join(sorted(_HINTS))}, or '*'"
            )

        def change(space: Workspace) -> bool:
            number = _number(space, owner)
            if targets.find_contact(space.cursor, number, contact_id) is None:
                return False
            targets.subscribe(space.cursor, number, contact_id)
            for kind in sorted(unwanted):
                targets.unsubscribe(space.cursor, number, contact_id, kind, space.now_s)
            return True

        _there(self._store.run(change), "contact")

    # ---- unsubscribing by a link

    def unsubscribe_token(self, owner_no: int, contact_id: str) -> str:
        """Make the token of an address's unsubscribe link; it says nothing about the address."""
        return f"{owner_no}.{contact_id}.{self._seal(owner_no, contact_id)}"

    def is_token(self, token: str) -> bool:
        """Tell whether a token is one of ours; changes nothing."""
        return self._read_token(token) is not None

    def language_of(self, token: str) -> str | None:
        """Tell in which language the token's address is written to."""
        place = self._read_token(token)
        if place is None:
            return None
        row = self._store.read(lambda cur: targets.find_contact(cur, *place))
        return row.language if row is not None else None

    def unsubscribe(self, token: str) -> bool:
        """Send no more hints to the address of a token; tell whether the token was good."""
        place = self._read_token(token)
        if place is None:
            return False

        def note(space: Workspace) -> None:
            if targets.find_contact(space.cursor, *place) is not None:
                targets.unsubscribe(space.cursor, *place, EVERYTHING, space.now_s)

        self._store.run(note)
        return True

    def _read_token(self, token: str) -> tuple[int, str] | None:
        owner, _, rest = token.partition(".")
        contact_id, _, seal = rest.partition(".")
        if not (owner.isascii() and owner.isdigit() and len(owner) < 19 and token.isascii()):
            return None
        if not hmac.compare_digest(self._seal(int(owner), contact_id), seal):
            return None
        return int(owner), contact_id

    def _seal(self, owner_no: int, contact_id: str) -> str:
        secret = bytes.fromhex(self._store.read(lambda cur: queries.meta(cur, "secret")))
        message = f"unsubscribe|{owner_no}|{contact_id}".encode()
        return hmac.digest(secret, message, "sha256").hex()[:32]

    # ---- endpoints

    def add_endpoint(self, owner: str, url: str, kinds: Iterable[str] = ()) -> NewEndpoint:
        """Have signed webhooks sent to a URL; without kinds all of them."""
        destination_of(url, allow_private=self._allow_private())
        chosen = sorted(set(kinds)) or [EVERYTHING]
        unknown = set(chosen) - _KINDS - {EVERYTHING}
        if unknown:
            raise InvalidInput(f"no such kind: {', '.join(sorted(unknown))}", field="kinds")
        secret = webhook.new_secret()

        def add(space: Workspace) -> EndpointRow:
            number = _number(space, owner)
            if len(targets.endpoints(space.cursor, number)) >= MOST:
                raise Refused(f"There are {MOST} endpoints already.", reason="too_many")
            endpoint_id = f"we_{secrets.token_hex(8)}"
            row = EndpointRow(number, endpoint_id, url, " ".join(chosen), space.now_s)
            targets.add_endpoint(space.cursor, row)
            targets.add_secret(space.cursor, number, endpoint_id, secret, space.now_s)
            return row

        return NewEndpoint(_endpoint(self._store.run(add)), secret)

    def endpoints(self, owner: str) -> list[EndpointView]:
        """List the endpoints."""
        return self._ask(
            owner, lambda cur, no: [_endpoint(row) for row in targets.endpoints(cur, no)], []
        )

    def remove_endpoint(self, owner: str, endpoint_id: str) -> None:
        """Send nothing more to an endpoint; what waits for it is dropped. Raises `Refused`."""

        def remove(space: Workspace) -> bool:
            found = targets.remove_endpoint(space.cursor, _number(space, owner), endpoint_id)
            if found:
                outbox.drop_waiting(space.cursor, endpoint_id, "endpoint_removed", space.now_s)
            return found

        _there(self._store.run(remove), "endpoint")

    def enable_endpoint(self, owner: str, endpoint_id: str) -> None:
        """Send to an endpoint again that was switched off; what it missed is for `replay`."""

        def enable(space: Workspace) -> bool:
            number = _number(space, owner)
            settings.clear_alarm(space.cursor, "endpoint_disabled", endpoint_id, space.now_s)
            return targets.switch_endpoint(space.cursor, number, endpoint_id, 0, "")

        _there(self._store.run(enable), "endpoint")

    def roll_secret(self, owner: str, endpoint_id: str) -> str:
        """Give an endpoint a new secret; for a day the old one signs beside it."""
        secret = webhook.new_secret()

        def roll(space: Workspace) -> bool:
            number = _number(space, owner)
            if targets.find_endpoint(space.cursor, number, endpoint_id) is None:
                return False
            now_s = space.now_s
            targets.expire_secrets(space.cursor, number, endpoint_id, now_s + OLD_SECRET_S, now_s)
            targets.add_secret(space.cursor, number, endpoint_id, secret, now_s)
            return True

        _there(self._store.run(roll), "endpoint")
        return secret

    def test_endpoint(self, owner: str, endpoint_id: str) -> Result:
        """Send a webhook of the type `test` now; tell what came of it."""
        now_s = self._store.now_s()
        row = self._ask(owner, lambda cur, no: targets.find_endpoint(cur, no, endpoint_id), None)
        if row is None:
            raise _missing("endpoint")
        signing = self._store.read(
            lambda cur: targets.secrets_of(cur, row.practice_no, endpoint_id, now_s)
        )
        message_id = new_notice_id()
        body = json.dumps({"type": "test", "timestamp": now_s, "data": {"id": message_id}}).encode()
        headers = webhook.signed_headers(message_id, body, signing, now_s)
        return self._post(row.url, body, headers, allow_private=self._allow_private())

    def _ask(self, owner: str, question: Callable[[Cursor, int], T], nothing: T) -> T:
        """Ask about an owner; of a practice that nobody has stored yet there is nothing."""

        def asked(cursor: Cursor) -> T:
            number = practices.number_of(cursor, owner) if owner else 0
            return nothing if number is None else question(cursor, number)

        return self._store.read(asked)


def address_of(text: str) -> str:
    """Check an e-mail address; the error does not repeat it."""
    domain = domain_of(text)
    if domain is None or "." not in domain:
        raise InvalidInput(_NO_ADDRESS, field="address")
    return text.removesuffix(domain) + domain.lower()


def masked(address: str) -> str:
    """Show an address so that its owner knows it and nobody else does."""
    name, _, domain = address.rpartition("@")
    return f"{name[:1]}…@{domain}"


def _number(space: Workspace, owner: str) -> int:
    return space.practice_no(checks.practice_id_of(owner)) if owner else 0


def _there(found: bool, what: str) -> None:
    if not found:
        raise _missing(what)


def _missing(what: str) -> Refused:
    return Refused(f"There is no such {what}.", reason=f"{what}_not_found")


def _contact(cursor: Cursor, row: ContactRow) -> ContactView:
    unwanted = targets.unwanted(cursor, row.practice_no, row.contact_id)
    return ContactView(
        row.contact_id,
        masked(row.address),
        row.language,
        tuple(sorted(unwanted)),
        row.created_at_s,
    )


def _endpoint(row: EndpointRow) -> EndpointView:
    return EndpointView(
        row.endpoint_id,
        row.url,
        tuple(row.kinds.split()),
        row.created_at_s,
        row.disabled_at_s or None,
        row.disabled_reason,
        row.failing_since_s or None,
    )
