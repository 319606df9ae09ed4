"""Owns the sandbox's SQLite file: objects, settings, saved answers, deliveries, log of API calls.

Law: everything that a request writes is in one transaction, so a killed process leaves either all
or nothing of it. Also owns the sandbox's clock: real time, or the clock it
was given, plus an offset that survives. It knows no rule of Stripe.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from guthaben.sandbox.errors import JsonObject

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    created_at_s INTEGER NOT NULL,
    body TEXT NOT NULL,
    private TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS object_kind ON object (kind, seq);
CREATE INDEX IF NOT EXISTS object_open
    ON object (kind, json_extract(body, '$.expires_at'))
    WHERE json_extract(body, '$.status') = 'open';
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS saved_answer (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    request_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS saved_answer_age ON saved_answer (created_at_ms);
CREATE TABLE IF NOT EXISTS delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    due_at_ms INTEGER NOT NULL,
    rank INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending',
    twist TEXT NOT NULL DEFAULT '{}',
    last_status INTEGER,
    last_error TEXT
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (state, due_at_ms, rank, seq);
CREATE TABLE IF NOT EXISTS api_call (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    idempotency_key TEXT,
    status INTEGER NOT NULL,
    replayed INTEGER NOT NULL,
    fault TEXT
);
"""
_TABLES = ("object", "setting", "saved_answer", "delivery", "api_call")
MAX_INTEGER = 2**63 - 1


def dump(value: Any) -> str:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SavedAnswer(NamedTuple):
    """An answer kept under an idempotency key."""

    fingerprint: str
    status: int
    body: str
    request_id: str


class Delivery(NamedTuple):
    """One delivery of an event."""

    seq: int
    event_id: str
    attempts: int
    twist: JsonObject


class State:
    """The open file. Used by one thread, the one that runs the server's event loop."""

    def __init__(self, path: str | Path, clock_ms: Callable[[], int] | None = None) -> None:
        self._clock_ms = clock_ms or _wall_ms
        self._con = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
        self._con.execute("PRAGMA journal_mode=WAL")
        self._con.execute("PRAGMA synchronous=NORMAL")
        self._con.execute("PRAGMA busy_timeout=5000")
        self._con.executescript(_SCHEMA)
        self._offset_ms = int(self.setting("clock_offset_ms", 0))

    def close(self) -> None:
        """Close the file."""
        self._con.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block writes, or nothing of it."""
        self._con.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._con.execute("ROLLBACK")
            raise
        self._con.execute("COMMIT")

    def _run(self, sql: str, args: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._con.execute(sql, args).fetchall()

    # -- clock and settings

    def now_ms(self) -> int:
        """Return the sandbox's time in milliseconds."""
        return self._clock_ms() + self._offset_ms

    def now_s(self) -> int:
        """Return the sandbox's time in seconds."""
        return self.now_ms() // 1000

    def advance_clock(self, seconds: int) -> None:
        """Move the sandbox's clock."""
        self._offset_ms += seconds * 1000
        self.set_setting("clock_offset_ms", self._offset_ms)

    def setting(self, name: str, default: Any) -> Any:
        """Return a stored setting."""
        rows = self._run("SELECT value FROM setting WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else default

    def set_setting(self, name: str, value: Any) -> None:
        """Store a setting."""
        sql = "INSERT INTO setting VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = ?2"
        self._run(sql, (name, dump(value)))

    def reset(self) -> None:
        """Forget everything, in the caller's transaction."""
        for table in _TABLES:
            self._run(f"DELETE FROM {table}")
        self._offset_ms = 0

    # -- objects

    def put(self, obj: JsonObject, private: JsonObject | None = None) -> JsonObject:
        """Insert or replace an object; `private` is what the API never shows."""
        self._run(
            "INSERT INTO object (id, kind, created_at_s, body, private)"
            " VALUES (?, ?, ?, ?, coalesce(?5, '{}')) ON CONFLICT (id)"
            " DO UPDATE SET body = excluded.body, private = coalesce(?5, private)",
            (
                obj["id"],
                obj["object"],
                obj.get("created", 0),
                dump(obj),
                None if private is None else dump(private),
            ),
        )
        return obj

    def find(self, object_id: str, kind: str | None = None) -> JsonObject | None:
        """Return an object by id, if it is of that kind."""
        sql = "SELECT body FROM object WHERE id = ? AND kind = coalesce(?, kind)"
        rows = self._run(sql, (object_id, kind))
        return dict(json.loads(rows[0][0])) if rows else None

    def private(self, object_id: str) -> JsonObject:
        """Return what is kept beside an object."""
        rows = self._run("SELECT private FROM object WHERE id = ?", (object_id,))
        return dict(json.loads(rows[0][0])) if rows else {}

    def position(self, object_id: str) -> int | None:
        """Return an object's place in the order of creation."""
        rows = self._run("SELECT seq FROM object WHERE id = ?", (object_id,))
        return int(rows[0][0]) if rows else None

    def select(
        self,
        kind: str,
        fields: Mapping[str, str | int] | None = None,
        created: Mapping[str, int] | None = None,
        *,
        patterns: Mapping[str, Sequence[str]] | None = None,
        above: int = 0,
        below: int = MAX_INTEGER,
        limit: int = 100,
        oldest_first: bool = False,
    ) -> list[JsonObject]:
        """Return objects of a kind, newest first, whose fields equal and whose time is in range."""
        where = ["kind = ?", "seq > ?", "seq < ?"]
        args: list[Any] = [kind, above, below]
        for name, value in (fields or {}).items():
            where.append(f"json_extract(body, '$.{name}') = ?")
            args.append(value)
        for name, globs in (patterns or {}).items():
            tests = [f"json_extract(body, '$.{name}') GLOB ?" for _ in globs]
            where.append(f"({' OR '.join(tests)})")
            args += globs
        signs = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "from": ">="}
        for sign, instant_s in (created or {}).items():
            where.append(f"created_at_s {signs[sign]} ?")
            args.append(instant_s)
        order = "ASC" if oldest_first else "DESC"
        sql = f"SELECT body FROM object WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?"
        return [json.loads(row[0]) for row in self._run(sql, (*args, limit))]

    def next_expiry_s(self, kind: str) -> int | None:
        """Return the earliest `expires_at` of the open objects of a kind."""
        sql = (
            "SELECT min(json_extract(body, '$.expires_at')) FROM object"
            " WHERE kind = ? AND json_extract(body, '$.status') = 'open'"
        )
        found = self._run(sql, (kind,))[0][0]
        return None if found is None else int(found)

    def writes(self) -> int:
        """Return a number that has grown with every object and API call so far."""
        return int(self._run("SELECT coalesce(sum(seq), 0) FROM sqlite_sequence")[0][0])

    # -- answers kept under idempotency keys

    def saved_answer(self, key: str) -> SavedAnswer | None:
        """Return the answer kept under a key."""
        sql = "SELECT fingerprint, status, body, request_id FROM saved_answer WHERE key = ?"
        rows = self._run(sql, (key,))
        return SavedAnswer(*rows[0]) if rows else None

    def save_answer(self, key: str, answer: SavedAnswer) -> None:
        """Keep an answer under a key."""
        sql = "INSERT INTO saved_answer VALUES (?, ?, ?, ?, ?, ?)"
        self._run(sql, (key, *answer, self.now_ms()))

    def forget_answers(self, older_than_ms: int) -> None:
        """Forget the answers of that age."""
        sql = "DELETE FROM saved_answer WHERE created_at_ms <= ?"
        self._run(sql, (self.now_ms() - older_than_ms,))

    # -- deliveries of events

    def add_delivery(
        self, event_id: str, *, delay_ms: int = 0, twist: JsonObject, word: str = "pending"
    ) -> None:
        """Queue a delivery."""
        sql = "INSERT INTO delivery (event_id, due_at_ms, state, twist) VALUES (?, ?, ?, ?)"
        self._run(sql, (event_id, self.now_ms() + delay_ms, word, dump(twist)))

    def due_deliveries(self, limit: int) -> list[Delivery]:
        """Return deliveries that are due, in the order in which they shall be sent."""
        rows = self._run(
            "SELECT seq, event_id, attempts, twist FROM delivery WHERE state = 'pending'"
            " AND due_at_ms <= ? ORDER BY rank, due_at_ms, seq LIMIT ?",
            (self.now_ms(), limit),
        )
        return [Delivery(row[0], row[1], row[2], json.loads(row[3])) for row in rows]

    def next_due_ms(self) -> int | None:
        """Return in how many milliseconds a delivery will be due."""
        rows = self._run("SELECT min(due_at_ms) FROM delivery WHERE state = 'pending'")
        return None if rows[0][0] is None else max(0, int(rows[0][0]) - self.now_ms())

    def note_delivery(
        self, delivery: Delivery, word: str, pause_ms: int, status: int | None, error: str | None
    ) -> None:
        """Record how an attempt to deliver ended, and when the next one is due."""
        self._run(
            "UPDATE delivery SET attempts = ?, state = ?, due_at_ms = ?, last_status = ?,"
            " last_error = ? WHERE seq = ?",
            (delivery.attempts + 1, word, self.now_ms() + pause_ms, status, error, delivery.seq),
        )

    def pending_deliveries(self) -> list[int]:
        """Return the numbers of the deliveries that are not over, oldest first."""
        rows = self._run("SELECT seq FROM delivery WHERE state = 'pending' ORDER BY seq")
        return [int(row[0]) for row in rows]

    def rank_delivery(self, seq: int, rank: int) -> None:
        """Make a delivery due now, in this place."""
        sql = "UPDATE delivery SET rank = ?, due_at_ms = ? WHERE seq = ?"
        self._run(sql, (rank, self.now_ms(), seq))

    # -- what control shows

    def log_call(self, *what: Any) -> None:
        """Note an API call: method, path, key, status, whether replayed, fault."""
        sql = (
            "INSERT INTO api_call (at_ms, method, path, idempotency_key, status, replayed, fault)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        self._run(sql, (self.now_ms(), *what))

    def calls(self, limit: int) -> list[JsonObject]:
        """Return the last API calls, oldest first."""
        names = ("at_ms", "method", "path", "idempotency_key", "status", "replayed", "fault")
        sql = "SELECT at_ms, method, path, idempotency_key, status, replayed, fault FROM api_call"
        rows = self._run(f"{sql} ORDER BY seq DESC LIMIT ?", (limit,))
        return [dict(zip(names, row, strict=True)) for row in reversed(rows)]

    def deliveries(self, limit: int) -> list[JsonObject]:
        """Return the last deliveries, oldest first."""
        names = ("event", "type", "state", "attempts", "last_status", "last_error")
        rows = self._run(
            "SELECT event_id, json_extract(o.body, '$.type'), state, attempts, last_status,"
            " last_error FROM delivery JOIN object o ON o.id = event_id"
            " ORDER BY delivery.seq DESC LIMIT ?",
            (limit,),
        )
        return [dict(zip(names, row, strict=True)) for row in reversed(rows)]

    def tallies(self) -> dict[str, dict[str, int]]:
        """Count objects by kind, charges by status, deliveries by state, API calls by status."""
        by_status = "json_extract(body, '$.status')"
        charges = f"SELECT {by_status}, count(*) FROM object WHERE kind = 'charge' GROUP BY 1"
        return {
            "objects": dict(self._run("SELECT kind, count(*) FROM object GROUP BY kind")),
            "charges": {"succeeded": 0, "failed": 0, "pending": 0} | dict(self._run(charges)),
            "deliveries": dict(self._run("SELECT state, count(*) FROM delivery GROUP BY state")),
            "calls": {
                str(status): count
                for status, count in self._run(
                    "SELECT status, count(*) FROM api_call GROUP BY status"
                )
            },
        }
