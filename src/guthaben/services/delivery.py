"""Delivery: from a notice to everybody who should have it, at least once each.

Law: sending happens outside transactions, by whoever holds the delivery's lease. What is not
certain to have arrived is sent again, under the same id; what is given up is kept, alarmed and can
be replayed. A receiver that fails delays nobody but itself. Addresses are read for the moment of
sending and reach no log.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from guthaben import config
from guthaben.channels import email, webhook, wording
from guthaben.channels.results import Again, Never, Result, Sent
from guthaben.config import MailSettings
from guthaben.domain.money import format_chf, format_usd
from guthaben.services.jobs import Turn
from guthaben.services.notices import OPERATOR, Audience, Notice, tell
from guthaben.services.targets import Targets
from guthaben.store import outbox, settings, targets
from guthaben.store.outbox import Claimed, DeliveryRow, NoticeRow
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.targets import EVERYTHING, ContactRow, EndpointRow
from guthaben.store.workspace import Workspace

log = logging.getLogger("guthaben.delivery")

EMAIL: Final = "email"
WEBHOOK: Final = "webhook"
PAUSES_S: Final = (
    5, 300, 1_800, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600,
)  # fmt: skip
"""The schedule that Standard Webhooks suggests: ten tries in about three days."""
LEASE_S: Final = 120
DISABLE_AFTER_S: Final = 5 * 86_400
_TRIES_TO_DISABLE: Final = 3
_JITTER: Final = 5
"""Up to a fifth is added to a pause, so that what failed together does not come back together."""
_BATCH: Final = 20
_SPREAD: Final = 50
_SENDERS: Final = 4
_NEXT_TO_A_FAILURE_S: Final = 60
_KINDS: Final = {kind.value: kind for kind in Notice}


class Drop(NamedTuple):
    """It is not sent, because nobody wants it any more, or nobody could send it."""

    reason: str


Outcome = Result | Drop


class Dispatcher:
    """Works out who gets what, and sends it. `post` and `send` are the ways out."""

    def __init__(
        self,
        store: Store,
        *,
        mail: Callable[[], MailSettings | None] = config.mail,
        public_url: str | None = None,
        allow_private: Callable[[], bool] = config.webhooks_allow_private,
        post: Callable[..., Result] = webhook.post,
        send: Callable[[MailSettings, Any], Result] = email.send,
        below: Callable[[int], int] = random.randrange,
    ) -> None:
        self._store = store
        self._mail = mail
        self._public_url = public_url
        self._allow_private = allow_private
        self._post = post
        self._send = send
        self._below = below
        self._targets = Targets(store, allow_private=allow_private)

    def work(self, turn: Turn) -> None:
        """Spread new notices, then send what is due until nothing is or the turn must end."""
        while turn.may_go_on() and self._store.read(_anything_new) and turn.run(self._spread_some):
            pass
        with ThreadPoolExecutor(_SENDERS, "guthaben-sending") as senders:
            while turn.may_go_on() and self.send_due(senders):
                pass

    # ---- who gets it

    def _spread_some(self, space: Workspace) -> int:
        found = outbox.unspread(space.cursor, _KINDS, _SPREAD)
        for notice in found:
            outbox.spread(
                space.cursor, notice, _deliveries(space.cursor, notice, space.now_s), space.now_s
            )
        return len(found)

    # ---- sending

    def send_due(self, senders: ThreadPoolExecutor) -> int:
        """Claim and send one batch; tell how many were claimed."""
        now_s = self._store.now_s()
        if not self._store.read(lambda cur: outbox.is_due(cur, now_s)):
            return 0
        lease = secrets.token_hex(8)
        claimed = self._store.run(
            lambda space: outbox.claim(
                space.cursor, lease, now_s=space.now_s, for_s=LEASE_S, limit=_BATCH
            )
        )
        groups: dict[str, list[Claimed]] = {}
        for item in claimed:
            groups.setdefault(item.delivery.target_id, []).append(item)
        for broken in senders.map(self._send_group, groups.values()):
            if broken is not None:
                raise broken
        return len(claimed)

    def _send_group(self, group: Iterable[Claimed]) -> Exception | None:
        """Send to one target, in order; after a failure the rest waits a little."""
        failed = False
        try:
            for item in group:
                if failed:
                    self._wait_with(item)
                else:
                    failed = not self._deliver(item)
        except Exception as error:  # noqa: BLE001 - the other targets go on; the turn fails at its end
            return error
        return None

    def _deliver(self, item: Claimed) -> bool:
        """Send one, and store what came of it; tell whether the target takes more."""
        if self._store.now_s() >= item.delivery.lease_until_s:
            return True  # we slept: it is somebody else's by now
        outcome = self._try(item)
        self._store.run(lambda space: self._store_outcome(space, item, outcome))
        return not isinstance(outcome, Again)

    def _try(self, item: Claimed) -> Outcome:
        try:
            if item.delivery.channel == WEBHOOK:
                return self._try_webhook(item)
            return self._try_email(item)
        except Exception as error:
            log.exception("a notice of the kind %s could not be sent", item.notice.kind)
            return Again(type(error).__name__)

    def _try_webhook(self, item: Claimed) -> Outcome:
        place = (item.delivery.owner_no, item.delivery.target_id)
        now_s = self._store.now_s()
        row, signing = self._store.read(
            lambda cur: (targets.find_endpoint(cur, *place), targets.secrets_of(cur, *place, now_s))
        )
        if row is None:
            return Drop("endpoint_removed")
        if row.disabled_at_s:
            return Drop("endpoint_disabled")
        body = payload(item.notice, item.practice_id)
        headers = webhook.signed_headers(item.notice.notice_id, body, signing, now_s)
        return self._post(row.url, body, headers, allow_private=self._allow_private())

    def _try_email(self, item: Claimed) -> Outcome:
        mail = self._mail()
        if mail is None:
            return Drop("no_mail_server")
        place = (item.delivery.owner_no, item.delivery.target_id)
        row, unwanted = self._store.read(
            lambda cur: (targets.find_contact(cur, *place), targets.unwanted(cur, *place))
        )
        if row is None:
            return Drop("contact_erased")
        if not _wants(item.notice.kind, unwanted):
            return Drop("unsubscribed")
        link = self._unsubscribe_url(item.notice.kind, row)
        worded = self.worded(item.notice, item.practice_id, row.language, link)
        # The same in each try, and another one for each address.
        message_id = f"{item.notice.notice_id}.{row.contact_id}"
        message = email.compose(
            mail, row.address, worded, message_id=message_id,
            told_at_s=item.notice.told_at_s, unsubscribe_url=link,
        )  # fmt: skip
        return self._send(mail, message)

    def worded(
        self,
        notice: NoticeRow,
        practice_id: str,
        language: str,
        unsubscribe_url: str | None = None,
        portal_url: str | None = None,
    ) -> wording.Worded:
        """Put a notice into words, as its e-mail has them; its link leads to the portal."""
        if portal_url is None and self._public_url is not None:
            portal_url = f"{self._public_url}/portal/"
        return wording.word(
            notice.kind,
            json.loads(notice.facts),
            language,
            practice_id=practice_id,
            portal_url=portal_url,
            unsubscribe_url=unsubscribe_url,
        )

    def _unsubscribe_url(self, kind: str, row: ContactRow) -> str | None:
        if self._public_url is None or _KINDS[kind].about.contractual:
            return None
        token = self._targets.unsubscribe_token(row.practice_no, row.contact_id)
        return f"{self._public_url}/unsubscribe?token={quote(token)}"

    # ---- what came of it

    def _wait_with(self, item: Claimed) -> None:
        at_s = self._store.now_s() + _NEXT_TO_A_FAILURE_S
        self._store.run(
            lambda space: outbox.put_off(
                space.cursor, item.delivery, at_s, "target_failing", counted=False
            )
        )

    def _store_outcome(self, space: Workspace, item: Claimed, outcome: Outcome) -> None:
        cursor, row, now_s = space.cursor, item.delivery, space.now_s
        place = (row.owner_no, row.target_id)
        if isinstance(outcome, Never | Again) and item.practice_id:
            space.practice(item.practice_id)  # it may be told of it: locked before its own rows
        match outcome:
            case Sent():
                outbox.close(cursor, row, "delivered", "", now_s)
                if row.channel == WEBHOOK:
                    targets.endpoint_answered(cursor, *place)
            case Drop(reason):
                outbox.close(cursor, row, "dropped", reason, now_s)
            case Never(reason, gone):
                self._give_up(space, item, reason)
                if gone:
                    _disable(space, item, "gone")
            case Again(reason, after_s):
                self._again(space, item, reason, after_s)

    def _again(self, space: Workspace, item: Claimed, reason: str, after_s: int) -> None:
        row = item.delivery
        if row.attempts >= len(PAUSES_S):
            self._give_up(space, item, reason)
        else:
            pause_s = PAUSES_S[row.attempts]
            pause_s += self._below(pause_s // _JITTER + 1)
            at_s = space.now_s + max(pause_s, after_s)
            outbox.put_off(space.cursor, row, at_s, reason, counted=True)
        if row.channel == WEBHOOK:
            targets.endpoint_failed(space.cursor, row.owner_no, row.target_id, space.now_s)
            found = targets.find_endpoint(space.cursor, row.owner_no, row.target_id)
            silent = found is not None and found.failing_since_s <= space.now_s - DISABLE_AFTER_S
            # One old failure and one new one are no proof: this one has been tried for hours.
            if found is not None and silent and row.attempts >= _TRIES_TO_DISABLE:
                _disable(space, item, "failing", found)

    def _give_up(self, space: Workspace, item: Claimed, reason: str) -> None:
        """Keep it, dead, and tell the operator; but of a message about this nobody is told."""
        row = item.delivery
        if not outbox.close(space.cursor, row, "dead", reason, space.now_s):
            return
        subject = f"{row.notice_id}:{row.target_id}"
        settings.raise_alarm(space.cursor, "delivery_dead", subject, space.now_s, row.practice_no)
        if item.notice.kind != Notice.DELIVERY_DEAD.value:
            facts: dict[str, int | str] = {
                "kind": item.notice.kind, "channel": row.channel, "reason": reason
            }  # fmt: skip
            tell(space, item.practice_id or OPERATOR, Notice.DELIVERY_DEAD, subject, facts)


def _anything_new(cursor: Cursor) -> bool:
    """Ask before writing: most turns find nothing, and should not wait for the writer."""
    return bool(outbox.unspread(cursor, _KINDS, 1))


def _disable(
    space: Workspace, item: Claimed, reason: str, found: EndpointRow | None = None
) -> None:
    row = item.delivery
    targets.switch_endpoint(space.cursor, row.owner_no, row.target_id, space.now_s, reason)
    outbox.drop_waiting(space.cursor, row.target_id, "endpoint_disabled", space.now_s)
    # Of the practice's own endpoint the practice is told as well, of the operator's the operator.
    owner = item.practice_id if row.owner_no else OPERATOR
    since_s = found.failing_since_s if found is not None else space.now_s
    facts: dict[str, int | str] = {"endpoint_id": row.target_id, "reason": reason}
    tell(space, owner, Notice.ENDPOINT_DISABLED, f"{row.target_id}:{since_s}", facts)
    settings.raise_alarm(
        space.cursor, "endpoint_disabled", row.target_id, space.now_s, row.owner_no
    )


def _deliveries(cursor: Cursor, notice: NoticeRow, now_s: int) -> list[DeliveryRow]:
    """Work out who gets a notice: addresses and endpoints of its practice, and the operator's.

    An operator's endpoint gets what practices are told too: the host application listens there.
    """
    audience = _KINDS[notice.kind].about.audience
    mailed: set[int] = set()
    if audience is not Audience.OPERATOR:
        mailed.add(notice.practice_no)
    if audience is not Audience.PRACTICE:
        mailed.add(0)
    posted = mailed | {0}
    found = [
        (EMAIL, row.contact_id, owner)
        for owner in sorted(mailed)
        for row in targets.contacts(cursor, owner)
        if _wants(notice.kind, targets.unwanted(cursor, owner, row.contact_id))
    ]
    found += [
        (WEBHOOK, row.endpoint_id, owner)
        for owner in sorted(posted)
        for row in targets.endpoints(cursor, owner)
        if not row.disabled_at_s and {EVERYTHING, notice.kind} & set(row.kinds.split())
    ]
    return [
        DeliveryRow(
            notice.practice_no, notice.notice_id, channel, target_id, owner, "waiting", 0, now_s,
            created_at_s=now_s,
        )
        for channel, target_id, owner in found
    ]  # fmt: skip


def _wants(kind: str, unwanted: frozenset[str]) -> bool:
    return _KINDS[kind].about.contractual or not unwanted & {EVERYTHING, kind}


def payload(notice: NoticeRow, practice_id: str) -> bytes:
    """Write a webhook's body; the same in every try. Amounts are decimal strings."""
    data: dict[str, object] = {"id": notice.notice_id, "practice_id": practice_id or None}
    for name, value in json.loads(notice.facts).items():
        if isinstance(value, int) and name.endswith("_nano_usd"):
            data[name.removesuffix("_nano_usd") + "_usd"] = format_usd(value)
        elif isinstance(value, int) and name.endswith("_rappen"):
            data[name.removesuffix("_rappen") + "_chf"] = format_chf(value)
        else:
            data[name] = value
    at = datetime.fromtimestamp(notice.told_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"type": notice.kind, "timestamp": at, "data": data}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
