"""Values that change when a row, or one of its dependent rows, is changed."""

from __future__ import annotations

from typing import Any

from ..sql import quote
from .rules import Rule

# With one connection to each node of Citus, all statements of a transaction see the same there.
SEQUENTIAL_SQL = "SET LOCAL citus.multi_shard_modify_mode TO 'sequential'"
VERSIONS_SQL = "SELECT id, {version}, ({time})::text FROM {rows} WHERE {part} AND {condition} ORDER BY id"
OF_ROWS_SQL = "SELECT {key}, {listed} FROM {child} AS c WHERE {key} = ANY (%(ids)s) GROUP BY {key}"
LISTED = "pg_catalog.string_agg(c.id || '=' || c.xmin::text, ',' ORDER BY c.id)"


def version_of(rule: Rule) -> str:
    """Return SQL for such a value; on Citus, without the dependent rows, because it rejects a subquery that refers to the row."""
    own, table = f"{quote(rule.table)}.xmin::text", quote(rule.table)
    if not rule.child:
        return own
    if rule.is_of_citus:  # Each node has a copy of the row, with an xmin of its own.
        return f"pg_catalog.md5(pg_catalog.record_send({table}))"
    children = f"SELECT {LISTED} FROM {quote(rule.child)} AS c WHERE c.{quote(rule.child_key)} = {table}.id"
    return f"{own} || ':' || COALESCE(({children}), '')"


def read_versions(cursor, rule: Rule, part: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the id, the version and the time of each old row of a part of the table, ordered by id."""
    places = {"rows": rule.rows, "part": rule.part, "condition": rule.condition}
    cursor.execute(VERSIONS_SQL.format(time=rule.time, version=version_of(rule), **places), part)
    found = cursor.fetchall()
    if not (rule.child and rule.is_of_citus):
        return found
    statement = OF_ROWS_SQL.format(key=quote(rule.child_key), listed=LISTED, child=quote(rule.child))
    cursor.execute(statement, {"ids": [identity for identity, *_ in found]})
    of_rows = dict(cursor.fetchall())
    return [(identity, f"{version}:{of_rows.get(identity, '')}", time) for identity, version, time in found]
