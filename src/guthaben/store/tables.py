"""The tables of a database, as the database itself describes them."""

from __future__ import annotations

from guthaben.store.copying import Table
from guthaben.store.session import Cursor

_SQLITE = (
    "SELECT m.name, c.name, c.pk FROM sqlite_master m JOIN pragma_table_info(m.name) c"
    " WHERE m.type = 'table' AND m.name LIKE 'credit\\_%' ESCAPE '\\' ORDER BY m.name, c.cid"
)
_POSTGRES = (
    "SELECT c.relname, a.attname, COALESCE(array_position(i.indkey::int2[], a.attnum) + 1, 0)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
    " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    " AND c.relname LIKE 'credit\\_%' AND c.relname <> 'credit_reader'"
    " ORDER BY c.relname, a.attnum"
)


def tables_of(cursor: Cursor, *, postgres: bool) -> list[Table]:
    """List our tables with their columns and keys, the practices first."""
    columns: dict[str, list[str]] = {}
    keys: dict[str, list[tuple[int, str]]] = {}
    for table, column, place in cursor.execute(_POSTGRES if postgres else _SQLITE).fetchall():
        columns.setdefault(table, []).append(column)
        if place > 0:
            keys.setdefault(table, []).append((place, column))
    found = [
        Table(name, tuple(names), tuple(name for _place, name in sorted(keys[name])))
        for name, names in columns.items()
    ]
    return sorted(found, key=lambda table: (table.name != "credit_practice", table.name))
