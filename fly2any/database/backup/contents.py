"""What the tables of a database hold: the number of rows of each, and a hash that two databases are compared by."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated

from msgspec import Meta
from psycopg import Copy
from psycopg.abc import Buffer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from .. import sql
from ..sql import ALIVE, quote

# Every table whose rows are in a dump: not those that an extension brings, which it makes anew. Columns by name: those
# of a table that inherits may be restored in another order. Generated columns are computed anew, and in no dump.
TABLES_SQL = """
    SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_table_size(c.oid) AS bytes,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                 ORDER BY a.attname COLLATE "C") AS columns
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
# Partitions of which each has no rows of its own: the hash of an enum is that of an oid, which is another in another database,
# so that the same rows lie in other partitions.
HASHED_SQL = """
    SELECT n.nspname, c.relname, wn.nspname, w.relname
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class AS w ON w.oid = pg_catalog.pg_partition_root(c.oid)
    JOIN pg_catalog.pg_namespace AS wn ON wn.oid = w.relnamespace
    WHERE c.relkind = 'r' AND c.relispartition
      AND EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) AS a
                  JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = a.relid WHERE p.partstrat = 'h')
"""

# COPY of a table runs none of the code that belongs to it. A SELECT does: the planner evaluates immutable functions of
# index expressions with the privileges of the role that reads, even if another role owns them.
BY_COPY = 2
# Manifests until 2026-11 have the sum of the first 64 bits of each row's MD5, computed by the server.
BY_SELECT = 1

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Hashing = Annotated[int, Meta(ge=BY_SELECT, le=BY_COPY)]
Hash = Annotated[str, Meta(pattern=r"^-?[0-9]{1,40}\Z")]
CONTENT_SQL = """
    SELECT pg_catalog.count(*),
           COALESCE(pg_catalog.sum(('x' || pg_catalog.left(pg_catalog.md5(ROW("the row".*)::text), 16))::bit(64)::bigint), 0)::text
    FROM {table} AS "the row"
"""

# How values are written as text, whatever the server, the database and the role have set.
PINNED = {
    "search_path": sql.PINNED,
    "quote_all_identifiers": "off",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "jit": "off",
    "row_security": "off",  # A policy that hides rows is an error, and never a smaller number.
}
PATIENT = {
    "statement_timeout": "0",
    "transaction_timeout": "0",  # From PostgreSQL 17 on.
    "idle_in_transaction_session_timeout": "0",
    **ALIVE,
    "lock_timeout": "60s",  # For the tables' locks, which a running migration holds.
}


SHOWN = 5  # Clauses of a reason.


@dataclass(frozen=True, slots=True)
class Content:
    """The number of a table's rows, and a hash of them all that does not depend on their order."""

    rows: Number
    hash: Hash


def read_contents(connection, show: Callable[[str, float], None], *, how: int = BY_COPY) -> dict[str, Content]:
    """Return the content of every table, in the transaction that `connection` is in; `show` hears the table and the percent.

    `how` is BY_COPY or BY_SELECT. Raises django.db.Error where a table cannot be read.
    """
    with connection.cursor() as cursor:
        pin(cursor, PINNED | PATIENT)
        cursor.execute(TABLES_SQL)
        tables = cursor.fetchall()
        whole, done, contents = sum(size for _, _, size, _ in tables) or 1, 0, {}
        for schema, name, size, columns in tables:
            place = f"{quote(schema)}.{quote(name)}"
            show(f"hashing {name}", 100 * done / whole)
            if how == BY_COPY:
                contents[place] = _copied(connection, cursor, place, columns)
            else:
                cursor.execute(CONTENT_SQL.format(table=place))
                contents[place] = Content(*cursor.fetchone())
            done += size
    return contents


def read_hashed(connection) -> dict[str, str]:
    """Return the partitioned table of each partition of those that are partitioned by hash."""
    with sql.catalogue(connection) as cursor:
        cursor.execute(HASHED_SQL)
        return {
            f"{quote(schema)}.{quote(name)}": f"{quote(whole_schema)}.{quote(whole)}"
            for schema, name, whole_schema, whole in cursor.fetchall()
        }


def _copied(connection, cursor, place: str, columns: list[str]) -> Content:
    listed = f" ({', '.join(map(quote, columns))})" if columns else ""
    with connection.wrap_database_errors, cursor.copy(f"COPY {place}{listed} TO STDOUT") as copy:
        return content_of(rows_of(copy))


def rows_of(copy: Copy) -> Iterator[memoryview]:
    """Yield the rows that a COPY TO STDOUT sends, as they are; raise psycopg.Error where the server stops.

    Iterating over `copy` gives the same in more than twice the time: it runs a generator and waits for the socket once a row.
    """
    server, poll = copy.connection.pgconn, select.poll()
    poll.register(server.socket, select.POLLIN)
    while True:
        size, row = server.get_copy_data(1)
        if size > 0:
            yield row
        elif size == 0:  # No whole row is here.
            poll.poll(100)  # Milliseconds: TLS may hold the last bytes, of which the socket knows nothing.
            server.consume_input()
        else:
            break
    failure = None
    while (result := server.get_result()) is not None:
        if result.status != ExecStatus.COMMAND_OK:
            failure = failure or error_from_result(result)
    if failure:
        raise failure


def content_of(rows: Iterable[Buffer]) -> Content:
    """Return the content of rows as COPY writes them, one by one: their number, and the sum of 64 bits of each one's BLAKE2."""
    number = total = 0
    as_number = int.from_bytes
    for row in rows:
        number += 1
        total += as_number(blake2b(row, digest_size=8).digest())
    return Content(number, str(total))


def pin(cursor, settings: dict[str, str]) -> None:
    """Set what the server knows of `settings`, until the end of the transaction."""
    for name, value in settings.items():
        known = "SELECT pg_catalog.set_config(name, %s, true) FROM pg_catalog.pg_settings WHERE name = %s"
        cursor.execute(known, [value, name])


def clauses(said: Sequence[str]) -> str:
    """Return the first of the clauses that say what is wrong as one, and how many more there are."""
    return "; ".join(said[:SHOWN]) + (f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else "")


def differences(expected: dict[str, Content], found: dict[str, Content], hashed: dict[str, str]) -> list[str]:
    """Return a clause for each table that is not as the manifest says; those of `hashed` are compared as parts of one."""
    said = [f"{name} is missing" for name in expected if name not in found]
    said += [f"{name} is not of the backup" for name in found if name not in expected]
    whole = _together(found, hashed)
    for name, content in _together(expected, hashed).items():
        there = whole.get(name, content)
        if there.rows != content.rows:
            said.append(f"{name} has {there.rows:,} rows and not {content.rows:,}")
        elif there != content:
            said.append(f"{name} has other rows")
    return said


def _together(contents: dict[str, Content], hashed: dict[str, str]) -> dict[str, Content]:
    """Return the contents of tables, those of partitions in `hashed` added up under the name of their table."""
    total: dict[str, Content] = {}
    for name, content in contents.items():
        if name in hashed and (before := total.get(hashed[name])):
            content = Content(before.rows + content.rows, str(int(before.hash) + int(content.hash)))
        total[hashed.get(name, name)] = content
    return total
