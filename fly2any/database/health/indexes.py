"""Indexes: those that are invalid, unused, redundant, bloated or missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ..findings import Finding, Severity
from ..schema import Index, Key
from ..schema.catalog import BUILDING_SQL
from ..schema.cures import for_partitioned
from ..schema.objects import OF_REINDEX, of_incomplete, of_invalid
from ..schema.sizes_and_use import Extent, IndexUse, read_extents, read_index_use
from ..sql import literal, quote
from ..units import plural, size, span
from .examine import Figure, Reader
from .standby_use import StandbyUse, read_standby_use

YOUNG = timedelta(days=14)  # Younger statistics do not show which indexes are unused.

# A crash discards all statistics, also if the server stays up: afterwards the database has no time of a reset, but the archiver has.
RESET_SQL = """
    SELECT r.since, s.stats_reset IS NOT NULL OR r.since > pg_catalog.pg_postmaster_start_time() AS known,
           pg_catalog.now() - r.since AS age, s.blks_hit AS hit, s.blks_read AS read
    FROM pg_catalog.pg_stat_database AS s, pg_catalog.pg_stat_archiver AS a,
         LATERAL (SELECT GREATEST(COALESCE(s.stats_reset, pg_catalog.pg_postmaster_start_time()), a.stats_reset) AS since) AS r
    WHERE s.datname = current_database()
"""
# Whether the checks of the foreign key `k` can use the index `x` of the method `am`. They compare with "=", never with NULL: an index
# over the rows that are not NULL serves them too.
SERVES_SQL = """
    am.amname IN ('btree', 'hash') AND x.indisvalid AND x.indislive AND x.indnkeyatts >= array_length(k.conkey, 1)
    AND (x.indkey::int2[])[0:array_length(k.conkey, 1) - 1] @> k.conkey
    AND (x.indpred IS NULL OR EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = x.indrelid AND a.attnum = ANY (k.conkey)
               AND pg_catalog.pg_get_expr(x.indpred, x.indrelid) = '(' || pg_catalog.quote_ident(a.attname) || ' IS NOT NULL)'))
"""
INDEXES_SQL = f"""
    SELECT c.relname AS "table", c.relkind = 'p' AS partitioned, i.relname AS name,
           GREATEST(pg_catalog.pg_stat_get_live_tuples(c.oid), c.reltuples::bigint, 0) AS rows,
           x.indisunique AS "unique", x.indisprimary AS "primary", x.indisvalid AND x.indislive AS valid,
           x.indisready AND x.indislive AS ready,
           EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.oid) AS demanded,
           EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.oid AND k.contype <> 'f') AS "constraint",
           x.indisreplident OR EXISTS (SELECT FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.oid AND k.contype = 'f') AS referenced,
           ARRAY(SELECT k.conname::text FROM pg_catalog.pg_constraint AS k
                 WHERE k.conrelid = c.oid AND k.contype = 'f' AND {SERVES_SQL}) AS serves,
           x.indimmediate AS immediate, COALESCE((to_jsonb(x) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
           am.amname AS method, x.indpred IS NOT NULL OR x.indexprs IS NOT NULL AS special,
           pg_catalog.pg_get_expr(x.indpred, x.indrelid) AS predicate,
           (SELECT array_agg(COALESCE(NULLIF(k.attnum, 0)::text, pg_catalog.pg_get_indexdef(i.oid, k.place::int, false)) ORDER BY k.place)
            FROM unnest(x.indkey) WITH ORDINALITY AS k (attnum, place) WHERE k.place <= x.indnkeyatts) AS columns,
           ARRAY(SELECT k.attnum::text FROM unnest(x.indkey) WITH ORDINALITY AS k (attnum, place)
                 WHERE k.place > x.indnkeyatts ORDER BY 1) AS included,
           {BUILDING_SQL.format(valid="x.indisvalid", index="i.oid", name="i.relname")} AS building,
           COALESCE((SELECT o.option_value::float / 100 FROM pg_catalog.pg_options_to_table(i.reloptions) AS o
                     WHERE o.option_name = 'fillfactor'), 0.9) AS filled,
           x.indoption::int[] AS options, x.indclass::oid[]::text[] AS classes, x.indcollation::oid[]::text[] AS collations,
           (SELECT sum(s.avg_width)::float FROM pg_catalog.pg_stats AS s JOIN pg_catalog.pg_attribute AS a ON a.attname = s.attname
            WHERE s.schemaname = n.nspname AND s.tablename = c.relname AND s.inherited = (c.relkind = 'p')
              AND a.attrelid = c.oid AND a.attnum = ANY (x.indkey)) AS width,
           CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey)
                                                                       AND a.attlen = -1 AND a.attstorage <> 'p')
                THEN (SELECT sum(pg_catalog.pg_relation_size(t.reltoastrelid))::float
                      FROM (SELECT c.oid UNION SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) AS p) AS part
                      JOIN pg_catalog.pg_class AS t ON t.oid = part.oid WHERE t.reltoastrelid <> 0) END AS toasted
    FROM pg_catalog.pg_index AS x
    JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = x.indrelid
    JOIN pg_catalog.pg_am AS am ON am.oid = i.relam
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND NOT i.relispartition
    ORDER BY c.relname COLLATE "C", i.relname COLLATE "C"
"""
FOREIGN_KEYS_SQL = f"""
    SELECT c.relname AS "table", c.relkind = 'p' AS partitioned, k.conname AS name,
           (SELECT array_agg(a.attname ORDER BY f.place) FROM unnest(k.conkey) WITH ORDINALITY AS f (attnum, place)
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = f.attnum) AS columns
    FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND n.nspname = %(schema)s
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS x
                      JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
                      JOIN pg_catalog.pg_am AS am ON am.oid = i.relam
                      WHERE x.indrelid = c.oid AND {SERVES_SQL})
    ORDER BY c.relname COLLATE "C", k.conname COLLATE "C"
"""


def indexes(
    read: Reader, *, large: int = 10 * 2**20, bloated: float = 2.5, many: int = 10_000, young: timedelta = YOUNG
) -> Iterator[Figure | Finding]:
    """Report indexes that are invalid, unused, redundant, bloated, or missing for a foreign key.

    Never proposes to drop an index of the contract.
    """
    rows = read(INDEXES_SQL)
    uses = {use.name: use for use in read_index_use(read.connection, schema=read.schema)}
    extents = read_extents(read.connection, schema=read.schema)
    reset = read.one(RESET_SQL)
    age = reset.age
    standbys = read_standby_use(read, young=young) if age >= young else StandbyUse()
    final = [version.object for version in read.contract.versions if version.until is None]
    contract = {thing.name for thing in final if isinstance(thing, Index | Key)}
    stored = sum(uses[row.name].bytes or 0 for row in rows)
    yield Figure("indexes", f"{len(rows)}, {size(stored)}", stored, "indexes_bytes")
    unused = {row.name for row in rows if _is_unused(row, uses[row.name], rows, contract, standbys)} if age >= young else set()
    since = "(last reset of the statistics)" if reset.known else "(the server's start) or earlier"
    yield Figure("scans counted since", f"{reset.since:%Y-%m-%d %H:%M} UTC {since}", reset.since)
    for row in rows:
        if row.building:
            yield Figure("being built", f"{row.table}.{row.name}")
        elif not row.valid:
            yield _invalid(row, contract)
        else:
            yield from _dispensable(row, uses[row.name], rows, contract, unused, reset, young, standbys)
            # A partition, whose rows belong to its table in `extents`, may have an index of its own.
            number = extents[row.table].rows if row.table in extents else row.rows
            yield from _bloated(row, uses[row.name], number, large, bloated)
    if unknown := [name for name, extent in extents.items() if extent.kind.is_of_citus and extent.bytes]:
        yield Figure("bloat of indexes", f"not known for {plural(len(unknown), 'table')} of Citus")
    if age < young:
        yield Figure(
            "unused indexes",
            f"not enough data: statistics are {'' if reset.known else 'at least '}{span(age)} old, and {span(young)} are needed",
        )
    yield from _missing(read, extents, many)


def _invalid(row, contract: set[str]) -> Finding:
    if row.partitioned:
        why, cure = of_incomplete(row.name)
        return Finding(Severity.ERROR, "indexes.invalid", f"{row.table}.{row.name}", f"Index {row.name} {why}.", cure)
    # REINDEX fails as the build did where that found duplicates.
    failed = row.unique and not row.demanded and row.name not in contract
    action = "DROP INDEX" if failed or OF_REINDEX.search(row.name) else "REINDEX INDEX"
    refuses = ", and it rejects duplicates" if row.unique and row.ready else ""
    return Finding(
        Severity.ERROR, "indexes.invalid", f"{row.table}.{row.name}",
        f"Index {row.name} is invalid: {of_invalid(row)}{refuses}.",
        f"{action} CONCURRENTLY {quote(row.name)};", is_sql=True,
    )  # fmt: skip


def _dispensable(
    row, use: IndexUse, rows, contract: set[str], unused: set[str], reset, young: timedelta, standbys: StandbyUse
) -> Iterator[Finding]:
    """Yield a finding for an index that is redundant or was never used, unless the contract or a constraint needs it."""
    if use.bytes is None:
        return
    if row.unique and (ours := _copied(row, rows, contract)):
        alter, drop = (
            f"ALTER TABLE {quote(row.table)} DROP CONSTRAINT {quote(row.name)};",
            f"DROP INDEX CONCURRENTLY {quote(row.name)};",
        )
        yield Finding(
            Severity.WARNING, "indexes.redundant", f"{row.table}.{row.name}",
            f"{ours.name} has the same columns and refuses the same rows. This index takes {size(use.bytes)}.",
            alter if row.constraint else for_partitioned(drop) if row.partitioned else drop, is_sql=True,
        )  # fmt: skip
    if _is_kept(row, contract):
        return
    drop = f"DROP INDEX CONCURRENTLY {quote(row.name)};"
    where, cure = f"{row.table}.{row.name}", for_partitioned(drop) if row.partitioned else drop
    if wider := _contained_in(row, [other for other in rows if other.name not in unused], contract):
        yield Finding(
            Severity.WARNING, "indexes.redundant", where,
            f"{wider.name} begins with the same columns and serves the same queries. This index takes {size(use.bytes)}.",
            cure, is_sql=True,
        )  # fmt: skip
    elif row.name in unused:
        message = f"No query on this server has used the index since {reset.since:%Y-%m-%d}, {span(reset.age)} ago (limit {span(young)}); it takes {size(use.bytes)}."
        if standbys.complete:
            yield Finding(Severity.WARNING, "indexes.unused", where, message, cure, is_sql=True)
        else:
            message = f"{message} Whether another server's queries use it is not known."
            asked = f"SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = {literal(row.name)};"
            cure = f"Ask the primary and each standby: {asked} If none has used it: {cure}"
            yield Finding(Severity.NOTE, "indexes.unused", where, message, cure)


def _is_kept(row, contract: set[str]) -> bool:
    return row.unique or row.primary or row.demanded or row.name in contract


def _is_unused(row, use: IndexUse, rows, contract: set[str], standbys: StandbyUse) -> bool:
    if _is_kept(row, contract) or row.name in standbys.used or use.scans or (use.bytes or 0) <= 8192 * 2:
        return False
    # A check of a foreign key is counted as a scan only when a referenced row is deleted.
    return not _serves_alone(row, rows, contract)


def _serves_alone(row, rows, contract: set[str]) -> bool:
    """Return whether the index serves a foreign key that none of the indexes that are always kept serves."""
    kept = {key for other in rows if other.table == row.table and _is_kept(other, contract) for key in other.serves}
    return not kept.issuperset(row.serves)


def _bloated(row, use: IndexUse, number: int | None, large: int, bloated: float) -> Iterator[Finding]:
    if number is None or use.bytes is None:
        return
    # A B-tree entry is its columns and 16 bytes of headers; pages are filled to nine tenths, or to the index's fillfactor. A value
    # in the TOAST table is whole in the index, but only its pointer counts in `width`.
    expected = (number * ((row.width or 0) + 16) + (row.toasted or 0)) / row.filled
    if row.method == "btree" and not row.special and row.width and use.bytes > max(large, bloated * expected):
        yield Finding(
            Severity.WARNING, "indexes.bloat", f"{row.table}.{row.name}",
            f"Index {row.name} takes {size(use.bytes)}, more than {bloated} times the {size(expected)} that its rows need.",
            f"REINDEX INDEX CONCURRENTLY {quote(row.name)};", is_sql=True,
        )  # fmt: skip


def _missing(read: Reader, extents: dict[str, Extent], many: int) -> Iterator[Finding]:
    for key in read(FOREIGN_KEYS_SQL):
        number = extents[key.table].rows if key.table in extents else None
        if number and number > many:
            cure = f"CREATE INDEX CONCURRENTLY ON {quote(key.table)} ({', '.join(map(quote, key.columns))});"
            yield Finding(
                Severity.WARNING, "indexes.missing", f"{key.table}.{key.name}",
                f"No index serves this foreign key, over {', '.join(key.columns)}: deleting a row that it references reads {plural(number, 'row')} (limit {many:,}).",
                for_partitioned(cure) if key.partitioned else cure, is_sql=True,
            )  # fmt: skip


def _copied(row, rows, contract: set[str]):
    """Return the key of the contract of which a unique index is a copy that nothing refers to."""
    if row.name in contract or row.primary or row.referenced:
        return None
    parts = ("table", "columns", "options", "classes", "collations", "nulls_equal", "method")
    for other in rows:
        usable = other.unique and other.valid and other.immediate and not other.predicate and other.name in contract
        if usable and not row.predicate and all(getattr(row, part) == getattr(other, part) for part in parts):
            return other
    return None


def _contained_in(row, rows, contract: set[str]):
    """Return an index that serves every query that `row` serves; of two equal ones, the one to keep.

    The columns and expressions of `row` come first there, in the same order and with the same operators, those that `row` includes
    are in it, and it has the same rows.
    """
    number = len(row.columns)
    for other in rows:
        if (
            other is row
            or (other.table, other.predicate) != (row.table, row.predicate)
            or {row.method, other.method} != {"btree"}
        ):
            continue
        same = all(
            getattr(other, part)[:number] == getattr(row, part)[:number]
            for part in ("columns", "options", "classes", "collations")
        )
        covered = set(row.included) <= {*other.columns, *other.included}
        longer = len(other.columns) > number or len(other.included) > len(row.included)
        kept = other.unique or other.demanded or other.name in contract or other.name < row.name
        if other.valid and same and covered and (longer or kept):
            return other
    return None
