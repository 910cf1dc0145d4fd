"""Searches the planner's statistics of tables, which hold sampled values of rows, also of deleted ones, and refreshes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from django.db import Error, transaction

from ..schema.sizes_and_use import OF_INDEXES, OF_TABLES, SHARDS_SQL, ask_nodes
from ..sql import ask, catalogue, literal, pinned, time_limits
from .patterns import is_address, patterns_for
from .people import Person
from .search import Found, Place, Unsearched
from .tables import Table, Tables

SAMPLES_SQL = """
    SELECT schemaname AS schema, tablename AS relation, attname AS "column",
           pg_catalog.concat_ws(' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text) AS "values"
    FROM pg_catalog.pg_stats
    UNION ALL SELECT schemaname, tablename, statistics_name, most_common_vals::text FROM pg_catalog.pg_stats_ext
    UNION ALL SELECT schemaname, tablename, statistics_name,
                     pg_catalog.concat_ws(' ', most_common_vals::text, histogram_bounds::text, most_common_elems::text)
              FROM pg_catalog.pg_stats_ext_exprs
"""
STATISTICS_SQL = f"""
    SELECT s.column::text,
           COALESCE((SELECT i.indrelid FROM pg_catalog.pg_index AS i WHERE i.indexrelid = c.oid), c.oid)::bigint
    FROM ({SAMPLES_SQL}) AS s JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schema
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.relation
    WHERE s."values" ~* %s
    ORDER BY s.schema COLLATE "C", s.relation COLLATE "C", s.column COLLATE "C"
"""
# The same of the shards on a node of Citus and of their indexes, with the number of the shard, which its name ends with.
SHARD = "[0-9]+$"
ON_NODE_SQL = f"""
    WITH shards (root, oid) AS ({{tables}} UNION ALL {{indexes}})
    SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_array(
               rn.nspname, t.relname, s.column, pg_catalog.substring(COALESCE(st.relname, c.relname)::text, '{SHARD}'))), '[]')
    FROM ({SAMPLES_SQL}) AS s JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schema
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.relation
    JOIN shards ON shards.oid = c.oid
    LEFT JOIN pg_catalog.pg_index AS si ON si.indexrelid = shards.oid LEFT JOIN pg_catalog.pg_class AS st ON st.oid = si.indrelid
    LEFT JOIN pg_catalog.pg_index AS ri ON ri.indexrelid = shards.root
    JOIN pg_catalog.pg_class AS t ON t.oid = COALESCE(ri.indrelid, shards.root)
    JOIN pg_catalog.pg_namespace AS rn ON rn.oid = t.relnamespace
    WHERE s."values" ~* {{pattern}}
"""
# A worker runs this for each of its shards that has rows.
FILLED_SQL = f"SELECT DISTINCT pg_catalog.substring(c.tableoid::regclass::text, '{SHARD}') FROM {{table}} AS c"
# ANALYZE keeps the statistics of a table without rows. PostgreSQL 18 can remove them, but not those of several columns.
CLEAR_SQL = f"""
    SELECT pg_catalog.pg_clear_attribute_stats(s.schema::text, s.relation::text, s.column::text, i.inherited)
    FROM ({SAMPLES_SQL}) AS s JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.schema
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.relation
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.column AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_index AS x ON x.indexrelid = c.oid CROSS JOIN (VALUES (false), (true)) AS i (inherited)
    WHERE s."values" ~* %s AND COALESCE(x.indrelid, c.oid) = %s
"""
# To change a column to the type that it has, which rewrites nothing, drops its statistics, also those of expressions with it.
SAME_TYPE_SQL = """
    SELECT pg_catalog.format('ALTER COLUMN %%I TYPE %%s%%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
               CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::pg_catalog.regcollation::text END)
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = %s AND a.attname = %s AND NOT a.attisdropped
"""
LONGEST_ANALYZE = 60_000  # Milliseconds, of another role's table.
NOT_ASKED = Unsearched("the planner's statistics on the nodes of Citus", "a node does not answer: ANALYZE the tables")


@dataclass(frozen=True, slots=True)
class Sample:
    """A column whose statistics hold a value; `shard` is the number of a shard of Citus, "" for a table of this server."""

    table: Table
    column: str
    shard: str = ""


def refresh_statistics(connection, tables: Tables, person: Person) -> Found:
    """Run ANALYZE on tables whose statistics hold the person's address or id, and return where these remain."""
    on_nodes = _on_nodes(connection, tables, person)
    done = set()
    for table in {
        one.table.oid: one.table for one in (*_here(connection, tables, _pattern(person)), *(on_nodes or ()))
    }.values():
        # The code of another role's index may take any time, while this transaction holds its locks.
        limit = None if table.is_ours else time_limits(connection, statement=LONGEST_ANALYZE)
        with (
            suppress(Error),
            transaction.atomic(using=connection.alias),
            pinned(connection, read_only=False),
            limit or nullcontext(),
            connection.cursor() as cursor,
        ):
            cursor.execute(f"ANALYZE {table.sql}", [])
            done.add(table.oid)
    here = _cleared(connection, tables, person, done)
    left = [*here, *_left(connection, on_nodes or [], done)]
    places = (
        Place(
            tables.label(table.oid),
            column,
            "statistics",
            1,
            f"the planner's statistics may still hold sampled values: {_cure(connection, tables, table, column, shard, done)}",
        )
        for table, column, shard in {(one.table.oid, one.column): (one.table, one.column, one.shard) for one in left}.values()
    )
    return Found(tuple(places), () if on_nodes is not None else (NOT_ASKED,))


def _cleared(connection, tables: Tables, person: Person, done: set[int]) -> list[Sample]:
    """Remove the statistics of empty tables that still hold a value, where PostgreSQL can, and return what remains on this server."""
    found = _here(connection, tables, _pattern(person))
    left = {one.table.oid: one.table for one in found if one.table.oid in done}.values()
    empty = [table for table in left if _is_empty(connection, table)] if connection.pg_version >= 180000 else []
    for table in empty:
        with suppress(Error), transaction.atomic(using=connection.alias), catalogue(connection) as cursor:
            cursor.execute(CLEAR_SQL, [_pattern(person), table.oid])
    return _here(connection, tables, _own_pattern(person)) if found else []


def _cure(connection, tables: Tables, table: Table, column: str, shard: str, done: set[int]) -> str:
    if table.oid not in done or not (shard or _is_empty(connection, table)):
        return f"ANALYZE {table.sql}"
    top = table
    while top.partition_of in tables.tables:
        top = tables.tables[top.partition_of]
    with catalogue(connection) as cursor:
        cursor.execute(SAME_TYPE_SQL, [top.oid, column])
        action = cursor.fetchone()
    if action:
        # It checks the constraints of the column again, which runs code of another role's table.
        removes = "but this removes them" if top.is_ours else "but its owner can remove them"
        return f"ANALYZE keeps them while a table or a shard has no rows, {removes}: ALTER TABLE {top.sql} {action[0]}"
    return f"ANALYZE keeps them while the table has no rows: run ANALYZE {table.sql} when it has some"


def _is_empty(connection, table: Table) -> bool:
    """Return False, too, if this role may not read the table, or if another role's table without rows has a file with some space.

    A query on another role's table would run code of it: the planner evaluates expressions of indexes and statistics.
    """
    if not table.is_ours:
        return ask(connection, "SELECT pg_catalog.pg_relation_size(%s::oid) = 0", [table.oid])
    with suppress(Error), transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {table.sql} LIMIT 1", [])
        return cursor.fetchone() is None
    return False


def _here(connection, tables: Tables, pattern: str) -> list[Sample]:
    """Return the samples that match a pattern, in this server's statistics, those of expressions in indexes included."""
    with catalogue(connection) as cursor:
        cursor.execute(STATISTICS_SQL, [pattern])
        found = [Sample(tables.tables[oid], column) for column, oid in cursor.fetchall() if oid in tables.tables]
    return [one for one in found if _is_searched(tables, one)]


def _on_nodes(connection, tables: Tables, person: Person) -> list[Sample] | None:
    """Return those in the statistics of shards, None if a node does not answer. The nodes do not see this transaction's changes."""
    placed = {(table.schema, table.name): table for table in tables.tables.values() if table.kind_of_citus}
    if not placed:
        return []
    schemas = ", ".join(sorted({literal(schema) for schema, _ in placed}))
    of_tables, of_indexes = (SHARDS_SQL.format(join=join, schemas=schemas) for join in (OF_TABLES, OF_INDEXES))
    command = ON_NODE_SQL.format(tables=of_tables, indexes=of_indexes, pattern=literal(_pattern(person)))
    answers: list[Any] = ask_nodes(connection, command)
    found = [
        Sample(placed[schema, name], column, shard)
        for answer in answers
        for schema, name, column, shard in answer
        if (schema, name) in placed
    ]
    return [one for one in found if _is_searched(tables, one)] if answers else None


def _left(connection, samples: list[Sample], done: set[int]) -> Iterator[Sample]:
    """Yield the samples of shards that ANALYZE did not replace: it keeps those of an empty one."""
    for table in {one.table.oid: one.table for one in samples}.values():
        filled = set()
        if table.oid in done:
            with connection.cursor() as cursor:
                cursor.execute(FILLED_SQL.format(table=table.sql))
                filled = {shard for (shard,) in cursor.fetchall()}
        yield from (one for one in samples if one.table.oid == table.oid and one.shard not in filled)


def _pattern(person: Person) -> str:
    """Return the pattern for samples that a fresh ANALYZE should replace."""
    return patterns_for(person.id, person.email).any.text


def _own_pattern(person: Person) -> str:
    """Return the pattern without longer addresses: those of other people are samples of rows that exist, which ANALYZE takes again."""
    wanted = patterns_for(person.id, person.email)
    if wanted.address is None or not is_address(str(person.email)):
        return wanted.any.text
    return (wanted.address | wanted.id).text


def _is_searched(tables: Tables, one: Sample) -> bool:
    """Return False for a column of numbers or times, where a short id may be a value."""
    columns = tables.columns.get(one.table.oid, ())
    return all(column.is_searched for column in columns if column.name == one.column)
