"""Prices: take a new version, change the vendor's own, and give the book that counts.

Law: every change makes a version that is kept for ever; nothing is fetched and nothing is taken
unless somebody asks. A version is its content: taking the same again makes no new one. Other
processes notice a new version within seconds; each call records the one that priced it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from guthaben.domain.metering import Metered
from guthaben.domain.price_book import EMPTY_OWN, PriceBook, Priced, check, version_of
from guthaben.domain.price_sheet import FORMAT, canonical, content_hash
from guthaben.errors import ConfigError, InvalidInput
from guthaben.services import price_changes
from guthaben.services.price_import import ImportedSheet, installed_prices
from guthaben.store import prices as rows
from guthaben.store.prices import PriceVersionRow
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

NOTICE_S: Final = 5
"""A version that another process made counts after so long at the latest."""
_NOTHING: Final[dict[str, Any]] = {"format": FORMAT, "source": "", "providers": []}
_MOST_LISTED: Final = 500


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """One version of all prices; `new` is False where nothing had to change."""

    version: str
    hash: str
    change: str
    author: str
    created_at_s: int
    new: bool = False


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import took: the version, what changed in it, and which models were left out."""

    version: PriceVersion
    source: str
    differences: tuple[price_changes.Difference, ...]
    left_out: tuple[str, ...]


class Prices:
    """The prices of one database; thread-safe. Make one per `Store` and keep it."""

    def __init__(self, store: Store, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self._kept: tuple[int, PriceBook] | None = None
        self._sure_until_s = clock_s()

    # ---- asking

    def recall(self) -> PriceBook | None:
        """Give the book that counts if that is known without asking the store; never blocks."""
        kept = self._kept
        return kept[1] if kept is not None and self._clock_s() < self._sure_until_s else None

    @property
    def are_none(self) -> bool:
        """Whether there were no prices a moment ago; never blocks."""
        return self._kept is None and self._clock_s() < self._sure_until_s

    def book(self) -> PriceBook:
        """Give the book that counts. Raises `ConfigError` while there are no prices."""
        found = self.known() or self._look()
        if found is None:
            raise no_prices()
        return found

    def known(self) -> PriceBook | None:
        """Give the book that counts, None while there are no prices."""
        if self._clock_s() < self._sure_until_s:
            return self._kept[1] if self._kept is not None else None
        return self._look()

    def _look(self) -> PriceBook | None:
        number = self._store.read(rows.newest_version_no)
        if self._kept is None or self._kept[0] != number:
            row, sheets = self._store.read(_newest)
            self._kept = (row.version_no, PriceBook(*sheets, row.version)) if row else None
        self._sure_until_s = self._clock_s() + NOTICE_S
        return self._kept[1] if self._kept is not None else None

    def price(
        self, model: str, usage: Metered, at_s: int, *, provider: str = "", plan: str = ""
    ) -> Priced:
        """Compute what a call costs at the prices of an instant, rounded up once, to nano-USD.

        Give the instant at which the call was reserved, so that its bound and its cost agree.
        Raises `Refused` (`unknown_model`, `unpriced_usage`, `cost_too_high`), `ConfigError`.
        """
        return self.book().price(model, usage, at_s, provider, plan)

    def version_book(self, version: str) -> PriceBook:
        """Give the book of a version, as a call records it. Raises `InvalidInput`."""
        name = version.partition("/")[0]

        def question(cursor: Cursor) -> PriceBook | None:
            row = rows.find_version(cursor, name)
            return PriceBook(*_sheets(cursor, row), row.version) if row else None

        book = self._store.read(question)
        if book is None:
            raise InvalidInput(f"There is no version {name!r:.60} of prices.", field="version")
        return book

    def versions(self, limit: int = 50) -> list[PriceVersion]:
        """List versions, newest first, at most 500."""
        found = self._store.read(
            lambda cursor: rows.list_versions(cursor, max(1, min(limit, _MOST_LISTED)))
        )
        return [_version(row) for row in found]

    def sheets(self, version: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the sheets of a version, imported and own; of the newest by default."""

        def question(cursor: Cursor) -> tuple[dict[str, Any], dict[str, Any]] | None:
            row = rows.find_version(cursor, version) if version else rows.newest_version(cursor)
            return _sheets(cursor, row) if row or not version else None

        found = self._store.read(question)
        if found is None:
            raise InvalidInput(f"There is no version {version!r:.60} of prices.", field="version")
        return found

    # ---- changing

    def compare(self, imported: ImportedSheet | None = None) -> ImportReport:
        """Tell what taking the installed package's prices would change; changes nothing."""
        taken = imported or installed_prices()
        old, own = self.sheets()
        book = check(taken.sheet, own)
        differences = price_changes.differences(check(old, own), book)
        now_s = self._store.now_s()
        name, digest = version_of(canonical(taken.sheet), canonical(own), now_s)
        version = PriceVersion(name, digest, "import", "", now_s)
        return ImportReport(version, taken.source, differences, taken.left_out)

    def take(self, imported: ImportedSheet | None = None, *, author: str = "") -> ImportReport:
        """Take the prices of the installed package; the vendor's own stay. Idempotent.

        Raises `ConfigError` without the package.
        """
        taken = imported or installed_prices()
        check(taken.sheet)

        def work(space: Workspace) -> tuple[PriceVersion, dict[str, Any], dict[str, Any]]:
            newest = rows.newest_version(space.cursor)
            old, own = _sheets(space.cursor, newest)
            made = _add(space, newest, taken.sheet, own, f"import {taken.source}", author)
            return made, old, own

        version, old, own = self._store.run(work)
        self._sure_until_s = self._clock_s()
        differences = price_changes.differences(PriceBook(old, own), PriceBook(taken.sheet, own))
        return ImportReport(version, taken.source, differences, taken.left_out)

    def set_rates(
        self, model: str, rates: Mapping[str, str | None], *, author: str = "", **where: Any
    ) -> PriceVersion:
        """Set the vendor's own prices of a model, in USD as decimal strings; None takes one away.

        `where`: provider; from_day (such as 2026-01-31, UTC); when, the circumstances; aliases,
        more names of the model. Naturally idempotent. Raises `InvalidInput` (`invalid_prices`).
        """
        change = price_changes.RateChange(model, dict(rates), **where)
        return self._change(author, lambda book, own: price_changes.with_rates(book, own, change))

    def unset_rates(self, model: str, *, provider: str = "", author: str = "") -> PriceVersion:
        """Drop all of the vendor's own prices of a model, so that the imported ones count again."""
        return self._change(
            author, lambda book, own: price_changes.without_rates(book, own, model, provider)
        )

    def set_margin(
        self, plan: str, *, factor: str = "1", fixed_nano_usd: int = 0, author: str = ""
    ) -> PriceVersion:
        """Set what is added to the provider's price: a factor, and nano-USD a call; plan "*": all.

        The factor is exact: "1.25", "5/4". Naturally idempotent. Raises `InvalidInput`.
        """
        margin = {"factor": factor, "fixed_nano_usd": fixed_nano_usd}
        return self._change(author, lambda _book, own: price_changes.with_margin(own, plan, margin))

    def _change(self, author: str, change: price_changes.Change) -> PriceVersion:
        def work(space: Workspace) -> PriceVersion:
            newest = rows.newest_version(space.cursor)
            imported, own = _sheets(space.cursor, newest)
            text, changed = change(PriceBook(imported, own), own)
            check(_NOTHING, changed)
            return _add(space, newest, imported, changed, text, author)

        version = self._store.run(work)
        self._sure_until_s = self._clock_s()
        return version


def no_prices() -> ConfigError:
    """Say that nothing can be priced yet, and what to do."""
    return ConfigError(
        "There are no prices yet. Take those of the installed package with "
        "guthaben prices import, or set your own with guthaben prices set."
    )


def _add(
    space: Workspace,
    newest: PriceVersionRow | None,
    imported: dict[str, Any],
    own: dict[str, Any],
    change: str,
    author: str,
) -> PriceVersion:
    """Add the version after the one that was changed; if another server has, all is done anew."""
    texts = [canonical(imported), canonical(own)]
    name, digest = version_of(texts[0], texts[1], space.now_s)
    if newest is not None and newest.hash == digest:
        return _version(newest)
    hashes = [content_hash(text) for text in texts]
    for text, sheet_hash, source in zip(texts, hashes, (imported["source"], "own"), strict=True):
        rows.keep_sheet(space.cursor, sheet_hash, source, text, space.now_s)
    number = newest.version_no + 1 if newest else 1
    row = PriceVersionRow(
        number, name, digest, hashes[0], hashes[1], change[:500], author[:200], space.now_s
    )
    rows.insert_version(space.cursor, row)
    return _version(row, new=True)


def _newest(
    cursor: Cursor,
) -> tuple[PriceVersionRow | None, tuple[dict[str, Any], dict[str, Any]]]:
    row = rows.newest_version(cursor)
    return row, _sheets(cursor, row)


def _sheets(cursor: Cursor, row: PriceVersionRow | None) -> tuple[dict[str, Any], dict[str, Any]]:
    if row is None:
        return dict(_NOTHING), dict(EMPTY_OWN)
    imported, own = (rows.read_sheet(cursor, it) for it in (row.imported_hash, row.own_hash))
    assert imported is not None
    assert own is not None
    return json.loads(imported), json.loads(own)


def _version(row: PriceVersionRow, *, new: bool = False) -> PriceVersion:
    return PriceVersion(row.version, row.hash, row.change, row.author, row.created_at_s, new)
