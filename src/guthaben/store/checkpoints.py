"""Carrying SQLite's log over into the file, beside the writer.

Law: no answer depends on it: what stands in the log is as durable as what stands in the file. But
the log begins anew only when all of it has been carried over, so a thread carries the bulk while
others write, and the writer the little that came meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading

from guthaben.errors import StoreUnavailable
from guthaben.store.connection import Location, connect

MUCH = 6000
"""So many changed rows are carried over: many of them, by then, several times on one page."""
_CARRY = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpoints:
    """Watches how much one writing connection wrote; its methods are for that writer's turn."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._begun_at = 0
        self._beside: threading.Thread | None = None

    def look_after(self, con: sqlite3.Connection) -> None:
        """Begin what is due, outside of a transaction; never raises."""
        if self._beside is None:
            if con.total_changes - self._begun_at >= MUCH:
                self._begin(con)
        elif not self._beside.is_alive():
            self._carry_rest(con)

    def close(self) -> None:
        """Wait for the thread, so that the writer's connection is the last to go."""
        if self._beside is not None:
            self._beside.join()

    def _begin(self, con: sqlite3.Connection) -> None:
        thread = threading.Thread(target=self._carry_bulk, name="guthaben-checkpoint", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there is no room for another thread, or Python is about to end
            self._carry_rest(con)
        else:
            self._beside = thread

    def _carry_rest(self, con: sqlite3.Connection) -> None:
        self._beside = None
        self._begun_at = con.total_changes
        with contextlib.suppress(sqlite3.Error):  # what is wrong, the next commit will tell
            con.execute(_CARRY).fetchone()

    def _carry_bulk(self) -> None:
        # Not to be created: it may have been moved away since.
        with (
            contextlib.suppress(sqlite3.Error, StoreUnavailable),
            contextlib.closing(connect(self._location, create=False)) as con,
        ):
            con.execute(_CARRY).fetchone()
