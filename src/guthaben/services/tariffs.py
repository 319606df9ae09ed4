"""Tariffs: what prices a practice's call: the price book that counts, and the practice's plan.

Law: the one home of "the plan of a practice": the lookup key of the licence that leads, else of the
licence in force in the host's own table. It is asked for only while the book has a margin for some
plan, and remembered for seconds; a call keeps the tariff of its reservation to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from guthaben.domain.licences import Plans, leading, standing
from guthaben.domain.price_book import PriceBook
from guthaben.services import checks
from guthaben.services.legacy.plans import ends_all
from guthaben.services.prices import NOTICE_S, Prices, no_prices
from guthaben.store import licences, plans, queries
from guthaben.store.legacy import rows as legacy_rows
from guthaben.store.session import Cursor
from guthaben.store.store import Store

_MOST_KEPT: Final = 10_000


class Tariff(NamedTuple):
    """What prices a call."""

    plan: str
    """Empty: the margin of every other plan counts."""
    known: PriceBook | None
    """None: there are no prices yet."""

    @property
    def book(self) -> PriceBook:
        """Give the book. Raises `ConfigError` where there are no prices."""
        if self.known is None:
            raise no_prices()
        return self.known


class _Kept(NamedTuple):
    plan: str
    until_s: float


class Tariffs:
    """The tariffs of one database's practices; thread-safe. A new plan counts after 5 seconds."""

    def __init__(
        self, store: Store, prices: Prices, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._prices = prices
        self._clock_s = clock_s
        self._kept: dict[str, _Kept] = {}

    def recall(self, practice_id: str, plan: str = "") -> Tariff | None:
        """Give what counts if that is known without asking the store; never blocks."""
        book = self._prices.recall()
        if book is None:
            return Tariff(plan, None) if self._prices.are_none else None
        found = plan if plan or not book.knows_plans else self._recall_plan(practice_id)
        return None if found is None else Tariff(found, book)

    def find(self, practice_id: str, plan: str = "") -> Tariff:
        """Give what counts now for a practice; `plan` is the caller's own word on its plan."""
        checks.practice_id_of(practice_id)
        book = self._prices.known()
        if plan or book is None or not book.knows_plans:
            return Tariff(plan, book)
        found = self._recall_plan(practice_id)
        return Tariff(self._ask_plan(practice_id) if found is None else found, book)

    def _recall_plan(self, practice_id: str) -> str | None:
        kept = self._kept.get(practice_id)
        return kept.plan if kept is not None and self._clock_s() < kept.until_s else None

    def _ask_plan(self, practice_id: str) -> str:
        until_s = self._clock_s() + NOTICE_S
        now_s = self._store.now_s()
        plan = self._store.read(lambda cursor: _plan_of(cursor, practice_id, now_s))
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[practice_id] = _Kept(plan, until_s)
        return plan


def _plan_of(cursor: Cursor, practice_id: str, now_s: int) -> str:
    rows = licences.subscriptions_of(cursor, queries.practice_no(cursor, practice_id))
    if not rows:
        return _hosts_plan(cursor, practice_id)
    known = Plans(plans.plan_versions(cursor))
    found = (standing(licences.subscription_of(cursor, row), known, now_s) for row in rows)
    leader = leading(found)
    return leader.plan if leader is not None else ""


def _hosts_plan(cursor: Cursor, practice_id: str) -> str:
    """Give the plan that the four modules' host says; none where its licence entitles to nothing.

    A subscription that we know ourselves says more, also that it is over.
    """
    told = legacy_rows.hosts_license(cursor, practice_id)
    if told is None or ends_all(told.status or ""):
        return ""
    return told.lookup_key or ""
