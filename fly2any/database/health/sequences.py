"""Sequences that are nearly used up."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..schema.sequences import FIRST_VALUE_SQL, SAFE_SQL
from ..sql import quote
from ..units import share
from .examine import Figure, Reader

# `typed` and `held` are the bytes of the types of the sequence and of the smallest column that takes its values from it.
SEQUENCES_SQL = f"""
    {SAFE_SQL}
    SELECT c.relname AS name, columns.type, s.seqincrement > 0 AS ascending, s.seqcycle AS cycles,
           CASE WHEN s.seqincrement > 0 THEN s.seqmin ELSE s.seqmax END AS origin,
           CASE WHEN s.seqincrement > 0 THEN s.seqmax ELSE s.seqmin END AS "end",
           CASE s.seqtypid WHEN 'int2'::regtype THEN 2 WHEN 'int4'::regtype THEN 4 ELSE 8 END AS typed, COALESCE(columns.bytes, 8) AS held,
           CASE WHEN pg_catalog.has_sequence_privilege(c.oid, 'USAGE, SELECT')
                THEN COALESCE(pg_catalog.pg_sequence_last_value(c.oid), {FIRST_VALUE_SQL.format(sequence="c.oid")}) END AS last
    FROM pg_catalog.pg_sequence AS s
    JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT pg_catalog.format_type(a.atttypid, NULL) AS type, a.attlen::int AS bytes
        FROM pg_catalog.pg_depend AS d
        LEFT JOIN pg_catalog.pg_attrdef AS f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
        JOIN pg_catalog.pg_attribute AS a
          ON a.attrelid = COALESCE(f.adrelid, d.refobjid) AND a.attnum = COALESCE(f.adnum::int, d.refobjsubid)
        WHERE a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
          AND (f.oid IS NOT NULL AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid
               OR d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
        ORDER BY a.attlen LIMIT 1) AS columns ON true
    WHERE n.nspname = %(schema)s ORDER BY c.relname COLLATE "C"
"""


def sequences(read: Reader, *, near: float = 0.75) -> Iterator[Figure | Finding]:
    """Report how near sequences are to the last value that the column can hold, ascending or descending."""
    found = [(row, limit) for row in read(SEQUENCES_SQL) if (limit := _limit(row)) is not None]
    hidden = [row.name for row, _ in found if row.last is None]
    rows = [(row, limit, _used(row, limit)) for row, limit in found if row.last is not None]
    fullest = max((used for *_, used in rows), default=0)
    yield Figure("fullest sequence", share(fullest), fullest, "fullest_sequence_ratio")
    if hidden:
        yield Figure("not readable by this role", ", ".join(hidden), len(hidden))
    for row, limit, used in rows:
        if used > near:
            kind = f" feeds a column of type {row.type} and" if row.type else ""
            alter = _extended(row, near)
            wider = (
                "Change its column to bigint in a migration, and the sequence with it (ALTER SEQUENCE … AS bigint)."
                if row.held < 8
                else "No integer type is larger than bigint: reset it with setval if smaller values are unused."
            )
            yield Finding(
                Severity.ERROR, "sequences.near_end", row.name,
                f"Sequence {row.name}{kind} is at {row.last:,} of {limit:,}, {share(used)} (limit {share(near)}): after the last value, every insert fails.",
                f"ALTER SEQUENCE {quote(row.name)} {alter};" if alter else wider,
                is_sql=bool(alter), loses="its limit may be intended; ask its owner first" if alter else "",
            )  # fmt: skip


def _bound(row, length: int) -> int:
    """Return the last value of an integer type of `length` bytes in the direction of the sequence."""
    most = 2 ** (8 * length - 1)
    return most - 1 if row.ascending else -most


def _nearer(row, *bounds: int) -> int:
    return min(bounds) if row.ascending else max(bounds)


def _limit(row) -> int | None:
    """Return the value after which inserts fail; None if there is none, as the sequence begins again before it."""
    limit = _nearer(row, row.end, _bound(row, row.held))
    return None if row.cycles and limit == row.end else limit


def _used(row, limit: int) -> float:
    return (row.last - row.origin) / ((limit - row.origin) or 1)


def _extended(row, near: float) -> str:
    """Return the change of the sequence that ends the finding, "" if its column must change too."""
    typed, held = _bound(row, row.typed), _bound(row, row.held)
    bound = "MAXVALUE" if row.ascending else "MINVALUE"
    if row.cycles:
        return f"{bound} {held}"
    if _used(row, _nearer(row, typed, held)) <= near:
        return f"NO {bound}"
    return f"AS {row.type or 'bigint'} NO {bound}" if row.typed < row.held and _used(row, held) <= near else ""
