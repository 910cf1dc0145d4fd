"""What tables and indexes store and how they are used, their partitions and the shards of Citus included.

PostgreSQL measures each part by itself. The query adds up partitions; on Citus every node runs it for its shards, because the
table on the coordinator is empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..sql import catalogue, fetch_all, literal
from .relation_kinds import HAS_CITUS_SQL, OF_POSTGRES, Kind, read_placed

TABLES_OF_SCHEMA_SQL = """
    SELECT c.oid, c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
"""
INDEXES_OF_SCHEMA_SQL = TABLES_OF_SCHEMA_SQL.replace("'r', 'p', 'f', 'v', 'm'", "'i', 'I'")
TABLES_OF_NAMES_SQL = """
    SELECT c.oid, c.oid FROM pg_catalog.pg_class AS c
    WHERE c.oid = ANY (SELECT pg_catalog.to_regclass(pg_catalog.quote_ident(name))::oid FROM pg_catalog.unnest(%(names)s::text[]) AS name)
"""
# The shards on a node, or their indexes. Citus shortens a long name before it appends the shard's number.
SHARDS_SQL = """
    SELECT r.oid, c.oid FROM pg_catalog.pg_dist_placement AS p
    JOIN pg_catalog.pg_dist_local_group AS g ON g.groupid = p.groupid JOIN pg_catalog.pg_dist_shard AS s ON s.shardid = p.shardid
    {join} JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
    CROSS JOIN LATERAL (SELECT pg_catalog.parse_ident(pg_catalog.shard_name(r.oid, s.shardid)) AS path) AS named
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = named.path[pg_catalog.cardinality(named.path)]::name
    WHERE n.nspname IN ({schemas})
"""
OF_TABLES = "JOIN pg_catalog.pg_class AS r ON r.oid = s.logicalrelid"
OF_INDEXES = (
    "JOIN pg_catalog.pg_index AS x ON x.indrelid = s.logicalrelid JOIN pg_catalog.pg_class AS r ON r.oid = x.indexrelid"
)
PARTS_SQL = """
    WITH RECURSIVE parts (root, oid) AS (
        {roots}
        UNION ALL
        SELECT p.root, i.inhrelid FROM parts AS p JOIN pg_catalog.pg_inherits AS i ON i.inhparent = p.oid
        JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relispartition
    )
"""
STORED = "CASE WHEN pg_catalog.bool_or(c.relkind IN ('f', 'v')) THEN NULL ELSE COALESCE(pg_catalog.sum({}), 0)::bigint END"
# A table that was not analysed yet, or whose statistics a crash reset, has only one of the two estimates of its rows. Autovacuum
# analyses partitions, but not the partitioned table, by which queries are planned.
TABLES_SQL = f"""
    {PARTS_SQL}
    SELECT r.relname::text AS name, n.nspname::text AS schema, r.oid::bigint AS oid, r.relkind::text AS letter, {HAS_CITUS_SQL} AS citus,
           CASE WHEN pg_catalog.bool_or(c.reltuples >= 0::real) THEN pg_catalog.sum(GREATEST(c.reltuples, 0::real))::bigint END AS estimate,
           CASE WHEN pg_catalog.bool_or(c.relkind = 'v' OR c.relkind = 'f' AND c.reltuples < 0::real) THEN NULL
                ELSE COALESCE(pg_catalog.sum(GREATEST(pg_catalog.pg_stat_get_live_tuples(c.oid), c.reltuples::bigint, 0)), 0)::bigint END AS rows,
           {STORED.format("pg_catalog.pg_stat_get_live_tuples(c.oid)")} AS live,
           {STORED.format("pg_catalog.pg_stat_get_dead_tuples(c.oid)")} AS dead,
           {STORED.format("pg_catalog.pg_stat_get_tuples_inserted(c.oid) - pg_catalog.pg_stat_get_tuples_deleted(c.oid)")} AS grown,
           {STORED.format("pg_catalog.pg_stat_get_mod_since_analyze(c.oid)")} AS changed,
           {{heap}} AS heap, {{bytes}} AS bytes,
           pg_catalog.max(GREATEST(pg_catalog.pg_stat_get_last_vacuum_time(c.oid),
                                   pg_catalog.pg_stat_get_last_autovacuum_time(c.oid))) AS vacuumed,
           CASE r.relkind WHEN 'p' THEN pg_catalog.pg_stat_get_last_analyze_time(r.oid)
                ELSE pg_catalog.max(GREATEST(pg_catalog.pg_stat_get_last_analyze_time(c.oid),
                                             pg_catalog.pg_stat_get_last_autoanalyze_time(c.oid))) END AS analysed
    FROM parts AS p JOIN pg_catalog.pg_class AS r ON r.oid = p.root JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
    LEFT JOIN pg_catalog.pg_class AS c ON c.oid = p.oid AND c.relkind <> 'p'
    GROUP BY r.oid, r.relname, r.relkind, n.nspname ORDER BY r.relname COLLATE "C"
"""
# last_idx_scan is new in PostgreSQL 16; to_jsonb reaches it where it exists.
INDEXES_SQL = f"""
    {PARTS_SQL}
    SELECT r.relname::text AS name, n.nspname::text AS schema, x.indrelid::bigint AS oid, t.relname::text AS "table", {HAS_CITUS_SQL} AS citus,
           pg_catalog.pg_get_indexdef(r.oid) AS definition,
           pg_catalog.sum(pg_catalog.pg_relation_size(c.oid))::bigint AS bytes, COALESCE(pg_catalog.sum(s.idx_scan), 0)::bigint AS scans,
           pg_catalog.max((pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz) AS last_scan
    FROM parts AS p JOIN pg_catalog.pg_class AS r ON r.oid = p.root JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
    JOIN pg_catalog.pg_index AS x ON x.indexrelid = r.oid JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = p.oid
    LEFT JOIN pg_catalog.pg_stat_all_indexes AS s ON s.indexrelid = c.oid
    GROUP BY r.oid, r.relname, n.nspname, x.indrelid, t.relname ORDER BY t.relname COLLATE "C", r.relname COLLATE "C"
"""
NODES_SQL = "SELECT nodeid, success, result FROM pg_catalog.run_command_on_all_nodes(%(command)s)"
ON_NODE_SQL = "SELECT pg_catalog.json_object_agg(m.schema || '.' || m.name, pg_catalog.to_json(m)) FROM ({measured}) AS m"

Ask = Callable[[Any, str], list[dict[str, Any]]]

# Reading the size of a table waits for an exclusive lock on it to be released.
SIZES = {
    "heap": STORED.format("pg_catalog.pg_relation_size(c.oid)"),
    "bytes": STORED.format("pg_catalog.pg_total_relation_size(c.oid)"),
}
UNMEASURED = dict.fromkeys(SIZES, "NULL::bigint")
TIMES = ("vacuumed", "analysed", "last_scan")
STORED_BY_EACH_NODE = ("bytes", "scans")
FIGURES = {"estimate", "rows", "live", "dead", "grown", "changed", "heap", *TIMES, *STORED_BY_EACH_NODE}


@dataclass(frozen=True, slots=True)
class Extent:
    """What a table stores; a figure is None where it is not known, for example for a view or while a worker does not answer.

    The rows of a reference table count once, its bytes on every node.
    """

    name: str
    kind: Kind
    estimate: int | None  # Rows when it was last vacuumed or analysed, None before that.
    rows: int | None  # The larger one of `estimate` and `live`; not known without statistics, as after pg_upgrade.
    live: int | None  # Rows that the statistics count, which a crash resets; so for `dead`.
    dead: int | None
    grown: int | None  # Rows inserted without those deleted, since statistics were last reset.
    changed: int | None  # Rows changed since it was last analysed.
    heap: int | None  # Bytes of the rows themselves, of one copy.
    bytes: int | None  # With indexes, TOAST and the copies.
    vacuumed: datetime | None
    analysed: datetime | None


@dataclass(frozen=True, slots=True)
class IndexUse:
    """Bytes on disk, and scans since the statistics were last reset; `last_scan` is None before PostgreSQL 16."""

    table: str
    name: str
    definition: str
    bytes: int | None
    scans: int | None
    last_scan: datetime | None


def read_extents(connection, *, schema: str, sizes: bool = True) -> dict[str, Extent]:
    """Return what each relation of `schema` stores, by name; partitions belong to their table. Without `sizes` no lock is waited for."""
    return _read_tables(connection, TABLES_OF_SCHEMA_SQL, {"schema": schema}, SIZES if sizes else UNMEASURED)


def read_estimates(connection, names: Iterable[str], *, ask: Ask | None = None) -> dict[str, Extent]:
    """Return the same for the relations of these names in the current search path, without sizes; `ask` replaces `ask_nodes`."""
    asked = {"names": list(names)}
    return _read_tables(connection, TABLES_OF_NAMES_SQL, asked, UNMEASURED, cursor=connection.cursor, ask=ask)


def read_index_use(connection, *, schema: str) -> tuple[IndexUse, ...]:
    """Return the size and the use of every index of `schema`, ordered by table and name; those of partitions belong to their table's."""
    rows = _measured(connection, INDEXES_SQL, INDEXES_OF_SCHEMA_SQL, OF_INDEXES, {"schema": schema})
    return tuple(IndexUse(**{name: row[name] for name in IndexUse.__slots__}) for row in rows)


def read_shares(connection, *, schema: str) -> Iterator[tuple[int, dict[str, tuple[int, int]], str]]:
    """Yield the id of each node of Citus, the rows and bytes that it stores of each of its tables in `schema`, and why it does not answer."""
    command = _on_node(TABLES_SQL.format(roots="{roots}", **SIZES), OF_TABLES, literal(schema))
    for node, success, result in fetch_all(connection, NODES_SQL, {"command": command}):
        stored = json.loads(result or "{}").values() if success else ()
        yield node, {one["name"]: (one["rows"], one["bytes"]) for one in stored}, "" if success else result.strip()


def _read_tables(connection, roots: str, parameters: dict[str, Any], sizes: dict[str, str], **ways: Any) -> dict[str, Extent]:
    extents = {}
    for row in _measured(connection, TABLES_SQL.format(roots="{roots}", **sizes), roots, OF_TABLES, parameters, **ways):
        if row["estimate"] is None and not row["live"] and row["heap"]:
            row["rows"] = None
        extents[row["name"]] = Extent(**{name: row[name] for name in Extent.__slots__})
    return extents


def _measured(
    connection,
    measured: str,
    roots: str,
    join: str,
    parameters: dict[str, Any],
    *,
    cursor: Callable[[], Any] | None = None,
    ask: Ask | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query, those about tables of Citus with the figures of all nodes."""
    with cursor() if cursor else catalogue(connection) as opened:
        opened.execute(measured.format(roots=roots), parameters)
        names = [column.name for column in opened.description]
        rows = [dict(zip(names, row, strict=True)) for row in opened.fetchall()]
    placed = read_placed(connection) if rows and rows[0]["citus"] else {}
    schemas = ", ".join(sorted({literal(row["schema"]) for row in rows if row["oid"] in placed}))
    nodes = (ask or ask_nodes)(connection, _on_node(measured, join, schemas)) if schemas else []
    for row in rows:
        kind = placed[row["oid"]][0] if row["oid"] in placed else OF_POSTGRES[row.get("letter", "r")]
        row["kind"] = kind
        if kind.is_of_citus:
            parts = [node[place] for node in nodes if (place := f"{row['schema']}.{row['name']}") in node]
            row |= {name: _added(kind, name, parts) for name in row if name in FIGURES}
        yield row


def _on_node(measured: str, join: str, schemas: str) -> str:
    return ON_NODE_SQL.format(measured=measured.format(roots=SHARDS_SQL.format(join=join, schemas=schemas)))


def ask_nodes(connection, command: str) -> list[dict[str, Any]]:
    """Return the JSON that a query returns on each node of Citus; nothing if one does not answer, because a sum would be too small."""
    answers = fetch_all(connection, NODES_SQL, {"command": command})
    return [json.loads(result) for *_, result in answers if result] if all(success for _, success, _ in answers) else []


def _added(kind: Kind, name: str, parts: list[dict[str, Any]]) -> Any:
    """Return a figure of a table, given that of each node."""
    values = [part[name] for part in parts if part[name] is not None]
    if not values:
        return None
    if name in TIMES:
        return max(map(datetime.fromisoformat, values))
    once = kind is Kind.REFERENCE and name not in STORED_BY_EACH_NODE
    return max(values) if once else sum(values)
