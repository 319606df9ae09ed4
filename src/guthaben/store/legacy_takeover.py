"""Taking over old plain tables: their rows become credit events, calls and settings, once.

Law: all or nothing. Every row is read and judged before the first is moved; what can't be explained
is listed in one `MigrationNeeded`. Numbers are kept, amounts pass money's edge, and the old tables
stay under another name, so that nothing is lost. Runs in the caller's savepoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import batched_fallback
