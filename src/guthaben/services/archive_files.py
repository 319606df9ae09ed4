"""Files of archived calls: written whole, made durable, read back before anybody relies on them.

Law: a file has its final name only once it is complete and on the disk; what it holds is compared
with what was meant, row by row. pyarrow is an extra: without it nothing is archived.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from guthaben.errors import ConfigError
from guthaben.store import archive
from guthaben.store.archive import Row
from guthaben.store.durable import sync

PAGE: Final = 2_000
"""Rows at a time: what one transaction moves."""
_BLOCK: Final = 1 << 20


class Written(NamedTuple):
    """What a file holds, and its fingerprint."""

    calls: int
    reserved_nano_usd: int
    cost_nano_usd: int
    file_bytes: int
    sha256: str


def require() -> Any:
    """Give pyarrow's reader and writer of Parquet. Raises `ConfigError` where it is missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("Archiving needs pyarrow: pip install 'guthaben[archive]'") from error
    return pyarrow.parquet


def write(path: Path, pages: Iterable[list[Row]]) -> Written:
    """Write a file under its final name, durably, and read it back.

    Raises `OSError`; `ValueError` when the disk gave back something else. Then there is no file.
    """
    parquet = require()
    being = path.with_name(f"{path.name}.{os.getpid()}.part")
    meant, calls, reserved, cost = sha256(), 0, 0, 0
    try:
        with parquet.ParquetWriter(being, _schema(), compression="zstd") as writer:
            for rows in pages:
                _digest(meant, rows)
                calls += len(rows)
                reserved += sum(row[archive.RESERVED] for row in rows)
                cost += sum(row[archive.COST] for row in rows)
                writer.write_batch(_batch(rows))
        sync(being)
        found = sha256()
        for rows in read(being):
            _digest(found, rows)
        if found.digest() != meant.digest():
            raise ValueError(f"{path.name}: what was read back is not what was written")
        written = Written(calls, reserved, cost, being.stat().st_size, fingerprint(being))
        being.replace(path)
        sync(path.parent)
    finally:
        being.unlink(missing_ok=True)
    return written


def discard(path: Path) -> None:
    """Remove a file that nobody relies on, and what a process that was killed left of it."""
    for stale in (path, *path.parent.glob(f"{path.name}.*.part")):
        stale.unlink(missing_ok=True)


def read(path: Path) -> Iterator[list[Row]]:
    """Read a file, a page of rows at a time."""
    with require().ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PAGE, columns=list(archive.COLUMNS)):
            yield list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def fingerprint(path: Path) -> str:
    """Give the SHA-256 of a file, in hexadecimal."""
    found = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def _schema() -> Any:
    import pyarrow

    return pyarrow.schema(
        (name, pyarrow.string() if name in archive.TEXTS else pyarrow.int64())
        for name in archive.COLUMNS
    )


def _batch(rows: list[Row]) -> Any:
    import pyarrow

    return pyarrow.record_batch(list(map(list, zip(*rows, strict=True))), schema=_schema())


def _digest(into: Any, rows: list[Row]) -> None:
    for row in rows:
        into.update(repr(row).encode())
