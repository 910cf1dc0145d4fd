"""Tables: their size, and whether vacuum and analyse keep up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import groupby

from ..findings import Finding, Severity
from ..schema.relation_kinds import Kind
from ..schema.sizes_and_use import Extent, read_extents
from ..sql import quote
from ..units import plural, share, size
from .examine import Figure, Reader
from .horizon import describe, end, holds_back, read_holder
from .indexes import RESET_SQL

DAMAGED_SQL = """
    SELECT COALESCE(datname, 'shared tables') AS name, datid <> 0 AS resettable, checksum_failures AS failures, checksum_last_failure AS last
    FROM pg_catalog.pg_stat_database WHERE checksum_failures > 0 ORDER BY datid
"""
RESET = " Then SELECT pg_stat_reset() in that database ends this finding; it also resets the database's other counters."
# The given tables without a row in pg_stats, as far as this role may see it. Statistics survive a crash, pg_stat_reset() and a failover;
# the time of the last ANALYZE does not.
WITHOUT_STATISTICS_SQL = """
    SELECT c.relname AS name FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
      AND pg_catalog.has_any_column_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_stats AS s WHERE s.schemaname = n.nspname AND s.tablename = c.relname)
"""
# The average bytes of a row of the given tables, NULL without statistics of each column, and the share of a page that INSERTs fill.
WIDTHS_SQL = """
    SELECT c.relname AS name, CASE WHEN pg_catalog.bool_and(s.avg_width IS NOT NULL) THEN pg_catalog.sum(s.avg_width)::float END AS width,
           COALESCE((SELECT o.option_value::float / 100 FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
                     WHERE o.option_name = 'fillfactor'), 1) AS filled
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
    LEFT JOIN pg_catalog.pg_stats AS s
           ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND s.inherited = (c.relkind = 'p')
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) GROUP BY c.oid, c.relname
"""
# The contract's tables and their partitions, each with its TOAST table, if they have options of their own. `due` is the number of
# dead rows at which autovacuum removes them, and `delaying` the options that raise it; the maximum is new in PostgreSQL 18.
AUTOVACUUM_SQL = """
    SELECT CASE WHEN n.oid = h.oid THEN '' ELSE n.nspname || '.' END || c.relname AS name, p.prefix, o.off, o.delaying,
           GREATEST(t.reltuples, 0::real)::bigint AS rows,
           CASE WHEN n.oid = h.oid THEN '' ELSE pg_catalog.quote_ident(n.nspname) || '.' END || pg_catalog.quote_ident(c.relname) AS place,
           LEAST(COALESCE(o.threshold, current_setting('autovacuum_vacuum_threshold')::float)
                     + COALESCE(o.factor, current_setting('autovacuum_vacuum_scale_factor')::float) * GREATEST(t.reltuples, 0::real),
                 NULLIF(COALESCE(o.most, current_setting('autovacuum_vacuum_max_threshold', true)::float), -1))::bigint AS due
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class AS r ON r.oid = COALESCE(pg_catalog.pg_partition_root(c.oid), c.oid)
    JOIN pg_catalog.pg_namespace AS h ON h.oid = r.relnamespace
    CROSS JOIN LATERAL (VALUES (c.oid, ''), (c.reltoastrelid, 'toast.')) AS p (oid, prefix)
    JOIN pg_catalog.pg_class AS t ON t.oid = p.oid
    CROSS JOIN LATERAL (
        SELECT pg_catalog.bool_or(NOT x.value::boolean) FILTER (WHERE x.name = 'autovacuum_enabled') AS off,
               pg_catalog.max(x.value::float) FILTER (WHERE x.name = 'autovacuum_vacuum_threshold') AS threshold,
               pg_catalog.max(x.value::float) FILTER (WHERE x.name = 'autovacuum_vacuum_scale_factor') AS factor,
               pg_catalog.max(x.value::float) FILTER (WHERE x.name = 'autovacuum_vacuum_max_threshold') AS most,
               pg_catalog.array_agg(x.name ORDER BY x.name) FILTER (
                   WHERE CASE WHEN x.name ~ '^autovacuum_vacuum_(threshold|scale_factor|max_threshold)$'
                         THEN x.value = '-1' OR x.value::float > current_setting(x.name)::float END) AS delaying
        FROM pg_catalog.pg_options_to_table(t.reloptions) AS x (name, value)) AS o
    WHERE h.nspname = %(schema)s AND r.relname = ANY (%(tables)s) AND c.relkind = 'r' AND t.reloptions IS NOT NULL
    ORDER BY c.relname COLLATE "C", n.nspname COLLATE "C", p.prefix COLLATE "C"
"""


def tables(
    read: Reader, *, dead: float = 0.2, many: int = 50_000, large: int = 10 * 2**20, huge: int = 100 * 2**20
) -> Iterator[Figure | Finding]:
    """Report the size of the tables, and whether vacuum and analyse keep up."""
    stored = read_extents(read.connection, schema=read.schema).values()
    rows = sorted(
        (row for row in stored if row.bytes is not None or row.kind is not Kind.VIEW), key=lambda row: -(row.bytes or 0)
    )
    reset = read.one(RESET_SQL)
    days = max(reset.age / timedelta(days=1), 1 / 24)
    whole = sum(row.bytes or 0 for row in rows)
    yield Figure("tables", f"{len(rows)}, {size(whole)}", whole)
    if unknown := [row.name for row in rows if row.bytes is None]:
        yield Figure("not known", f"rows and size of {plural(len(unknown), 'table')}, for example {unknown[0]}", len(unknown))
    holder = read_holder(read)
    undated = [row.name for row in rows if row.analysed is None and (row.live or 0) > many]
    bare = {row.name for row in read(WITHOUT_STATISTICS_SQL, tables=undated)} if undated else set()
    for rank, row in enumerate(rows):
        if row.bytes is None or row.dead is None:
            continue
        grown = ""
        if days >= 1 and row.grown is not None:
            daily = round(row.grown / days)
            grown = f", {daily:+,} {'row' if abs(daily) == 1 else 'rows'} a day"
        number = "rows not known" if row.rows is None else f"~{plural(row.rows, 'row')}"
        text = f"{size(row.bytes)}, {number}, {row.dead:,} dead{grown}"
        yield Figure(row.name, text, row.bytes, "table_bytes", row.name, shown=rank < 5)
        if row.rows is not None:
            yield Figure(f"{row.name}, rows", f"~{row.rows:,}", row.rows, "table_rows", row.name, shown=False)
        yield Figure(f"{row.name}, dead rows", f"{row.dead:,}", row.dead, "table_dead_rows", row.name, shown=False)
        yield from _neglected(row, dead, many, large, holder, is_bare=row.name in bare)
    yield from _bloated(read, [row for row in rows if (row.heap or 0) > huge and not row.kind.is_of_citus])
    yield from _not_vacuumed(read, many)
    yield from _damaged(read)


def _bloated(read: Reader, rows: list[Extent], most: float = 4) -> Iterator[Finding]:
    """Yield the note about each table that is much larger than its rows, such as after most of them were deleted."""
    widths = {row.name: row for row in read(WIDTHS_SQL, tables=[row.name for row in rows])} if rows else {}
    for row in rows:
        if not (of := widths.get(row.name)) or not of.width or row.rows is None or row.heap is None:
            continue
        # A row takes 24 bytes of header, 4 in the page's list and up to 8 for NULLs and alignment. Dead rows have a finding of their own.
        needed = (row.rows + (row.dead or 0)) * (of.width + 36) / of.filled
        if row.heap > most * needed:
            yield Finding(
                Severity.NOTE, "tables.bloat", row.name,
                f"Table {row.name} takes {size(row.heap)} without indexes, more than {most} times the {size(needed)} that its rows need: scans read all of it.",
                f"New rows reuse the free space. To return it to the disk, run this in a quiet hour, because it blocks reads and writes: VACUUM (FULL, ANALYZE) {quote(row.name)};",
            )  # fmt: skip


def _not_vacuumed(read: Reader, many: int) -> Iterator[Finding]:
    """Yield a finding for each table of the contract whose own options turn autovacuum off, or delay it too long."""
    tables = sorted({version.object.table for version in read.contract.versions})
    for (name, place), rows in groupby(read(AUTOVACUUM_SQL, tables=tables), lambda row: (row.name, row.place)):
        reasons, options = [], []
        for row in rows:
            where, limit = "its TOAST table" if row.prefix else "it", max(many, row.rows)
            if row.off:
                options.append(f"{row.prefix}autovacuum_enabled")
                reasons.append(f"Autovacuum is off for {where} ({options[-1]}): dead rows are not removed.")
            if row.delaying and row.due > limit:
                delaying = [f"{row.prefix}{option}" for option in row.delaying]
                options += delaying
                reasons.append(
                    f"Autovacuum waits for {plural(row.due, 'dead row')} in {where} (limit {limit:,}), because of {', '.join(delaying)}."
                )
        if reasons:
            yield Finding(
                Severity.WARNING, "tables.not_vacuumed", name, " ".join(reasons),
                f"ALTER TABLE {place} RESET ({', '.join(options)});", is_sql=True,
            )  # fmt: skip


def _neglected(row: Extent, dead: float, many: int, large: int, holder, *, is_bare: bool) -> Iterator[Finding]:
    """Yield a finding for a table with many dead rows, and for one whose statistics are missing or old."""
    place, live, gone, changed = quote(row.name), row.live or 0, row.dead or 0, row.changed or 0
    if gone > many and gone > dead * (live + gone):
        when = f"last vacuumed {row.vacuumed:%Y-%m-%d %H:%M} UTC" if row.vacuumed else "never vacuumed"
        message = f"Table {row.name} has {plural(gone, 'dead row')}, {share(gone / (live + gone))} of all (limit {share(dead)}); {when}."
        cure, held = f"VACUUM (ANALYZE) {place};", holds_back(holder, row)
        if held:
            message += f" VACUUM cannot remove rows that died after the snapshot of {describe(holder)}."
            cure = f"{end(holder)} Then run {cure}"
        yield Finding(Severity.WARNING, "tables.dead_rows", row.name, message, cure, is_sql=not held)
    if live > many and (is_bare or changed > 0.5 * live):
        since = f" since it was analysed on {row.analysed:%Y-%m-%d}" if row.analysed else ", but no ANALYZE"
        why = (
            " and has never been analysed"
            if is_bare
            else f", and {plural(changed, 'insert, update or delete has', 'inserts, updates and deletes have')} been counted{since}"
        )
        based = "guesses" if is_bare else "outdated statistics"
        yield Finding(
            Severity.WARNING, "tables.not_analysed", row.name,
            f"Table {row.name} has {plural(live, 'row')} (limit {many:,}){why}, so query plans rely on {based}.",
            f"ANALYZE {place};", is_sql=True,
        )  # fmt: skip
    elif row.estimate is None and row.heap and row.heap > large:
        yield Finding(
            Severity.WARNING, "tables.not_analysed", row.name,
            f"Table {row.name} stores {size(row.heap)} (limit {size(large)}) and has no statistics, as after pg_upgrade, so query plans rely on guesses.",
            f"ANALYZE {place};", is_sql=True,
        )  # fmt: skip


def _damaged(read: Reader) -> Iterator[Finding]:
    """Yield a finding for each database of the server in which reads found pages with a wrong checksum."""
    for row in read(DAMAGED_SQL):
        yield Finding(
            Severity.ERROR, "tables.damaged", row.name,
            f"{plural(row.failures, 'checksum failure')}, the last at {row.last:%Y-%m-%d %H:%M} UTC: the disk, the memory or the file system damages data.",
            "Check the hardware; the server's log names the damaged files. If all of them are indexes, REINDEX these; otherwise save what can be read (pg_dump table by table),"
            " and restore the newest verified backup on a sound machine." + (RESET if row.resettable else ""),
        )  # fmt: skip
