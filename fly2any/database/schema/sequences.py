"""The sequences of columns: their next value must exist and be unused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..findings import Finding, Severity
from ..sql import literal, quote
from .live import Live
from .objects import Catalog, Column, where
from .unmanaged import AGREE

# The sequences of a column: its identity's, and those that its default names. A column's type may have a lower maximum than its sequence.
NEXT_SQL = """
    SELECT {place}, COALESCE(pg_catalog.pg_sequence_last_value(s.seqrelid) + s.seqincrement, s.seqstart), {used}, s.seqincrement,
           CASE WHEN s.seqcycle THEN NULL WHEN s.seqincrement < 0 THEN s.seqmin
                ELSE LEAST(s.seqmax, CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END) END
    FROM pg_catalog.pg_attribute AS a
    CROSS JOIN LATERAL (
        SELECT d.objid FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
          AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
        UNION
        SELECT d.refobjid FROM pg_catalog.pg_attrdef AS f JOIN pg_catalog.pg_depend AS d
            ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
        WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum
    ) AS named (oid)
    JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = named.oid
    WHERE a.attrelid = {table}::regclass AND a.attname = {column}
      AND pg_catalog.has_sequence_privilege(s.seqrelid, 'USAGE, SELECT')
"""
USED_SQL = "(SELECT CASE WHEN s.seqincrement < 0 THEN pg_catalog.min({column}) ELSE pg_catalog.max({column}) END FROM {table})"


@dataclass(frozen=True, slots=True)
class Next:
    """The next value of a column's sequence, which cannot be stored."""

    column: Column
    value: int
    used: int | None  # the last value in use; None where the sequence, or the column's type, has come to its end
    increment: int


def next_values(live: Live, columns: Iterable[tuple[Column, bool]]) -> Iterator[Next]:
    """Yield those of `columns`, each with whether its values are unique, whose next value cannot be stored.

    Sequences that this role may not use are left out.
    """
    asked = list(columns)
    parts = []
    for place, (column, unique) in enumerate(asked):
        table = f"{quote(live.schema)}.{quote(column.table)}"
        used = USED_SQL.format(column=quote(column.name), table=table) if unique else "NULL::bigint"
        parts.append(NEXT_SQL.format(place=place, used=used, table=literal(table), column=literal(column.name)))
    rows = live.ask(" UNION ALL ".join(parts), every=True) if parts else ()
    for place, value, used, increment, end in rows if isinstance(rows, list) else ():
        step = 1 if increment > 0 else -1
        if end is not None and (value - end) * step > 0:
            yield Next(asked[place][0], value, None, increment)
        elif used is not None and (value - used) * step <= 0:
            yield Next(asked[place][0], value, used, increment)


def taken_values(expected: Catalog, actual: Catalog, live: Live) -> Iterator[Finding]:
    """Yield a finding for each column of a table of ours whose sequence returns a value in use, or is exhausted."""
    keys = {(key.table, key.columns) for key in actual.keys if key.valid}
    readable = {table.name for table in actual.tables if table.trusted and table.readable and table.row_security != "active"}
    ours = {(column.table, column.name): column for column in expected.columns}
    tables = {table.name for table in expected.tables}
    asked = []
    for column in actual.columns:
        contracted = ours.get((column.table, column.name))
        if contracted is not None:
            if contracted.identity and column.identity and column.table in readable and (column.table, (column.name,)) in keys:
                asked.append((column, True))
        elif column.table in tables and (column.identity or "nextval(" in (column.filled or "")):
            asked.append((column, False))
    for following in next_values(live, asked):
        column = following.column
        title = f"column {column.name} of {column.table}"
        alter = f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)}"
        if (column.table, column.name) not in ours:
            message = f"The sequence of the unmanaged {title} is exhausted, so every INSERT fails."
            cure = f"{alter} DROP {'IDENTITY' if column.identity else 'DEFAULT'};"
            cure += "" if column.nullable else f"\n{alter} DROP NOT NULL;"
            yield Finding(Severity.ERROR, "column.sequence", where(column), message, f"{AGREE}{cure}")
            continue
        upwards = " SET INCREMENT 1" if following.increment < 0 else ""
        if following.used is None:
            message = f"The sequence of {title} is exhausted: an INSERT fails."
            cure = f"{alter}{upwards} SET NO MAXVALUE;"
        else:
            message = (
                f"The sequence of {title} returns {following.value} next, but {following.used} is in use: an INSERT fails."
            )
            sequence = f"pg_get_serial_sequence({literal(quote(column.table))}, {literal(column.name)})"
            cure = f"{alter}{upwards} SET NO MAXVALUE;\n" if upwards else ""
            cure += f"SELECT setval({sequence}, (SELECT max({quote(column.name)}) FROM {quote(column.table)}));"
        yield Finding(Severity.ERROR, "column.sequence", where(column), message, cure, is_sql=True)
