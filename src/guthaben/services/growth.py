"""Growth: room for the months to come, and calls that are over for long leave for files.

Law: a call leaves only for a file that is durable, was read back and is in the manifest; killed at
any moment, the next run goes on where it stood, and nothing is lost or twice. Keys and payments
count for ever, archived or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

from guthaben import config
from guthaben.errors import ConfigError
from guthaben.services import archive_files as files
from guthaben.store import archive
from guthaben.store.archive import Archived, Manifest, Row, State, Window
from guthaben.store.session import Cursor
from guthaben.store.store import Store
from guthaben.store.workspace import Workspace

LEAST_DAYS: Final = 35
_DEFAULT_DAYS: Final = 400
_DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)


class Grew(NamedTuple):
    """What one run did; `made` and `dissolved` are months, and how many calls moved with them."""

    made: Mapping[str, int]
    dissolved: Mapping[str, int]
    archived: tuple[Manifest, ...]


def archive_after_days() -> int:
    """After how many days a month's calls may leave: GUTHABEN_ARCHIVE_AFTER_DAYS, default 400."""
    return config.whole("GUTHABEN_ARCHIVE_AFTER_DAYS", _DEFAULT_DAYS, LEAST_DAYS, 36_500)


def nothing_happens(_step: str) -> None:
    """Stand where a test stops the work."""


def maintain(
    store: Store,
    folder: Path | None,
    after_days: int,
    *,
    at: Callable[[str], None] = nothing_happens,
) -> Grew:
    """Archive what may leave, if there is a folder; then make and drop partitions.

    Idempotent. Raises `ConfigError` with what stands in the way, `StoreUnavailable`.
    """
    archived = () if folder is None else tuple(_archive_all(store, folder, after_days, at))
    grown = store.grow()
    return Grew(grown.made, grown.dissolved, archived)


def _archive_all(
    store: Store, folder: Path, after_days: int, at: Callable[[str], None]
) -> Iterator[Manifest]:
    files.require()
    if after_days < LEAST_DAYS:
        raise ConfigError(f"Calls stay for {LEAST_DAYS} days at least.")
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {str(folder)!r}: make it, on a disk of its own.")
    if store.read(archive.serves_the_four_modules):
        raise ConfigError(
            "The host application reads all its usage from this database (ai_usage_events): "
            "nothing is archived here."
        )
    for manifest in store.read(archive.manifests):
        if manifest.state == State.WRITING:
            yield from _finish(store, folder, _taken_over(store, folder, manifest), at)
        elif manifest.state == State.MOVING:
            yield from _finish(store, folder, manifest, at)
    for month in _months(store, after_days):
        begun = _begin(store, month)
        at("begun")
        yield from _finish(store, folder, begun, at)


def _begin(store: Store, month: str) -> Manifest:
    def work(space: Workspace) -> Manifest | None:
        space.forget()
        return archive.begin(space.cursor, month, space.now_s)

    begun = store.run(work)
    if begun is None:
        raise _busy(month)
    return begun


def _taken_over(store: Store, folder: Path, manifest: Manifest) -> Manifest:
    """Take over a file that was being written when its process ended.

    Should it live after all, it finds that the file is no longer its own, and what it writes has
    another name.
    """
    ours = _become(store, manifest, archive.named_anew(manifest))
    files.discard(folder / manifest.file)
    return ours


def _busy(month: str) -> ConfigError:
    return ConfigError(f"Another process is archiving {month} right now: let it end.")


def _months(store: Store, after_days: int) -> list[str]:
    """Name the months, all of them long over, of which calls may leave."""
    now_s = store.now_s()
    last = _EPOCH + timedelta(seconds=now_s - after_days * _DAY_S)
    window = _window("1970-01", now_s)._replace(end_ms=_ms(last.replace(day=1)))
    days = store.read(lambda cursor: archive.days_with_calls(cursor, window))
    return sorted({f"{_EPOCH + timedelta(days=day):%Y-%m}" for day in days})


def _window(month: str, now_s: int) -> Window:
    """Say what of a month may leave: ended long ago, of a period before the last calendar month."""
    begin = date.fromisoformat(f"{month}-01")
    end = (begin + timedelta(days=32)).replace(day=1)
    this = datetime.fromtimestamp(now_s, UTC).date().replace(day=1)
    before = (this - timedelta(days=1)).replace(day=1)
    # A day earlier, because a month begins up to 14 hours earlier in the east.
    period_before_s = _ms(before) // 1000 - _DAY_S
    return Window(_ms(begin), _ms(end), now_s - LEAST_DAYS * _DAY_S, period_before_s)


def _ms(day: date) -> int:
    return (day - _EPOCH).days * _DAY_S * 1000


# ---------------------------------------------------------------- one file


def _finish(
    store: Store, folder: Path, manifest: Manifest, at: Callable[[str], None]
) -> Iterator[Manifest]:
    """Bring one file to its end, from wherever it stands."""
    if manifest.state == State.WRITING:
        written = _write(store, folder, manifest)
        at("written")
        if written.calls == 0:
            files.discard(folder / manifest.file)
            store.run(lambda space: archive.give_up(space.cursor, manifest))
            return
        moving = manifest._replace(
            state=State.MOVING,
            calls=written.calls,
            reserved_nano_usd=written.reserved_nano_usd,
            cost_nano_usd=written.cost_nano_usd,
            file_bytes=written.file_bytes,
            sha256=written.sha256,
        )
        try:
            manifest = _become(store, manifest, moving)
        except ConfigError:
            files.discard(folder / manifest.file)
            raise
        at("recorded")
    path = folder / manifest.file
    problem = _file_problem(path, manifest)
    if problem:
        raise ConfigError(f"{problem}: give the folder that archiving began in.")
    for rows in files.read(path):
        _move(store, manifest, rows)
        at("moved")
    done = manifest._replace(state=State.DONE, done_at_s=store.now_s())
    yield _become(store, manifest, done)
    at("done")


def _write(store: Store, folder: Path, manifest: Manifest) -> files.Written:
    window = _window(manifest.month, store.now_s())
    try:
        return files.write(folder / manifest.file, _pages(store, window))
    except (OSError, ValueError) as error:
        raise ConfigError(f"No archive was written, nothing has left: {error}") from error


def _pages(store: Store, window: Window) -> Iterator[list[Row]]:
    after = (0, 0)
    while True:
        rows = _page(store, window, after)
        if rows:
            yield rows
        if len(rows) < files.PAGE:
            return
        after = (rows[-1][archive.PRACTICE_NO], rows[-1][archive.CALL_NO])


def _page(store: Store, window: Window, after: tuple[int, int]) -> list[Row]:
    return store.read(lambda cursor: archive.page(cursor, window, after, files.PAGE))


def _become(store: Store, was: Manifest, now: Manifest) -> Manifest:
    if not store.run(lambda space: archive.change(space.cursor, was, now)):
        raise _busy(was.month)
    return now


def _move(store: Store, manifest: Manifest, rows: list[Row]) -> None:
    def work(space: Workspace) -> None:
        space.forget()
        archive.move(space.cursor, manifest.archive_no, rows)

    try:
        store.run(work)
    except archive.Mismatch as error:
        raise ConfigError(
            f"{error}: {manifest.file} stays, its calls stay; find out who changed them."
        ) from error


# ---------------------------------------------------------------- looking


def file_problems(store: Store, folder: Path) -> list[str]:
    """Compare the files of a folder with the manifest and with what is kept of their calls."""
    found: list[str] = []
    for manifest in store.read(archive.manifests):
        if manifest.state == State.WRITING:
            continue
        path = folder / manifest.file
        problem = _file_problem(path, manifest)
        if problem:
            found.append(problem)
        elif manifest.state == State.DONE:
            found += _rows_problems(store, path, manifest)
    return found


def _rows_problems(store: Store, path: Path, manifest: Manifest) -> list[str]:
    return store.read(lambda cursor: _row_problems(cursor, path, manifest))


def _file_problem(path: Path, manifest: Manifest) -> str:
    try:
        if files.fingerprint(path) == manifest.sha256:
            return ""
    except OSError as error:
        return f"{manifest.file} can't be read ({error.strerror})"
    return f"{manifest.file} is not the file that was written: its SHA-256 differs"


def _row_problems(cursor: Cursor, path: Path, manifest: Manifest) -> list[str]:
    """Walk through a file and what is kept of its calls, side by side."""
    places = [archive.COLUMNS.index(name) for name in Archived._fields]
    told = (Archived._make(row[at] for at in places) for rows in files.read(path) for row in rows)
    for said, kept in zip_longest(told, archive.each_kept(cursor, manifest.archive_no, files.PAGE)):
        if said != kept:
            one = said or kept
            assert one is not None
            where = f"{manifest.file}: call {one.call_no} of {one.practice_id}"
            return [f"{where} is not as it is kept here, nor perhaps what follows"]
    return []
