"""A second check of the server's clock, by the times that the database recorded: this machine's clock is often the server's own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ..errors import Refusal
from ..schema.contract import load
from ..server import JOURNAL, read_schema
from ..sql import catalogue, quote
from ..trusted_roles import TRUSTED_SQL
from .rules import RULES

# A database in use records something on at least one of these days. The days since `LATEST` are left out, because
# rows that were written while the clock was ahead have wrong times, and maintenance runs every week.
LATEST, EARLIEST = timedelta(days=7), timedelta(days=37)
# Time columns that lead an index, so that one probe shows whether there is a value in a period.
COLUMNS_SQL = f"""
    SELECT DISTINCT c.relname, a.attname
    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_am AS m ON m.oid = (SELECT x.relam FROM pg_catalog.pg_class AS x WHERE x.oid = i.indexrelid)
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE n.nspname = %s AND c.relname = ANY (%s) AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' AND {TRUSTED_SQL}
      AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype) AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
    ORDER BY 1, 2
"""
READABLE_SQL = f"""
    SELECT pg_catalog.has_table_privilege(c.oid, 'SELECT')
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = '{JOURNAL}' AND {TRUSTED_SQL}
"""
FIRST_SQL = "SELECT pg_catalog.min(started) FROM {journal}"
RECORDED_SQL = "SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} >= %(earliest)s AND {column} < %(latest)s)"


def require_witness(connection, now: datetime) -> str:
    """Raise Refusal if the database recorded nothing from EARLIEST to LATEST before `now`, the server's time: it may be wrong.

    A database whose first migration is later than that, or whose journal this role may not read, is not checked: return why,
    otherwise "".
    """
    schema, earliest, latest = read_schema(connection), now - EARLIEST, now - LATEST
    tables = sorted({table for version in load().versions if (table := getattr(version.object, "table", ""))})
    with catalogue(connection) as cursor:
        cursor.execute(READABLE_SQL, [schema])
        if (True,) not in cursor.fetchall():
            return f"this role may not read {JOURNAL}, the journal of migrations"
        journal = f"{quote(schema)}.{quote(JOURNAL)}"
        cursor.execute(FIRST_SQL.format(journal=journal))
        [first] = cursor.fetchone()
        if first is None or first >= earliest:
            return f"{JOURNAL} records no migration from more than {EARLIEST.days} days ago"
        cursor.execute(COLUMNS_SQL, [schema, tables])
        columns = [(journal, "started"), *_without_expiry((schema, *row) for row in cursor.fetchall())]
        for table, column in columns:
            cursor.execute(RECORDED_SQL.format(table=table, column=quote(column)), {"earliest": earliest, "latest": latest})
            if cursor.fetchone()[0]:
                return ""
    raise Refusal(
        f"By the server's clock it is {now:%Y-%m-%d %H:%M} UTC, but the database recorded nothing from {earliest:%Y-%m-%d} to"
        f" {latest:%Y-%m-%d}, so the clock may be ahead and no row was removed: compare it with another clock (`timedatectl`)."
        " If it is right, add --trust-clock."
    )


def _without_expiry(columns: Iterable[tuple[str, str, str]]) -> Iterable[tuple[str, str]]:
    """Yield the tables and columns, except columns of expiry times."""
    expiring = {(rule.table, rule.time) for rule in RULES.values() if rule.expires}
    for schema, table, column in columns:
        if (table, quote(column)) not in expiring:
            yield f"{quote(schema)}.{quote(table)}", column
