"""The contents of tables: the number of rows and a hash, by which two databases are compared."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, NamedTuple

from django.db import Error
from msgspec import Meta
from psycopg import Copy
from psycopg.abc import Buffer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from .. import sql
from ..errors import Refusal, first_line, sqlstate
from ..sql import ALIVE, SharedText, quote
from ..terminal_text import one_line
from ..trusted_roles import TRUSTED_SQL
from ..units import few, plural

# Every table whose rows are all in a dump: of the tables of an extension, which CREATE EXTENSION creates, only those that it registered
# without a condition. Columns are sorted by name, because a restore may change their order in a table that inherits. Generated columns
# are computed, not dumped. A standby has no rows of UNLOGGED tables, and reading one fails there. `sizes` are expressions for the size
# of each long value.
TABLES_SQL = f"""
    SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_table_size(c.oid) AS bytes,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                 ORDER BY a.attname COLLATE "C") AS columns,
           c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery() AS is_lacking,
           pg_catalog.pg_get_userbyid(c.relowner) AS owner, {TRUSTED_SQL} AS is_trusted,
           ARRAY(SELECT CASE WHEN t.typcategory = 'S' OR a.atttypid = 'bytea'::regtype THEN 'octet_length' ELSE 'pg_column_size' END
                        || '(' || pg_catalog.quote_ident(a.attname) || ')'
                 FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1 AND a.attgenerated = ''
                 ORDER BY a.attnum) AS sizes,
           e.extname::text AS extension
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
    WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND (e.oid IS NULL OR e.extcondition[pg_catalog.array_position(e.extconfig, c.oid)] = '')
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
# The tables and sequences whose rows, all or some, or value a dump has although they are members of an extension.
REGISTERED_SQL = """
    SELECT n.nspname::text, c.relname::text, e.extname::text
    FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_class AS c ON c.oid = ANY (e.extconfig)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
# Hash partitions. An enum is hashed by its OID, which differs between databases, so a restore may put a row into another partition.
HASH_PARTITIONS_SQL = """
    SELECT n.nspname, c.relname, wn.nspname, w.relname
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class AS w ON w.oid = pg_catalog.pg_partition_root(c.oid)
    JOIN pg_catalog.pg_namespace AS wn ON wn.oid = w.relnamespace
    WHERE c.relkind = 'r' AND c.relispartition
      AND EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) AS a
                  JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = a.relid WHERE p.partstrat = 'h')
"""

# Tables with stored generated columns, and the tables of their partitions. pg_dump leaves out these columns, so that a restore computes
# them by the functions in the backup, one of which may have been replaced since a row was written.
COMPUTED_SQL = """
    SELECT DISTINCT n.nspname COLLATE "C", c.relname COLLATE "C"
    FROM pg_catalog.pg_class AS part
    JOIN pg_catalog.pg_class AS c ON c.oid = COALESCE(pg_catalog.pg_partition_root(part.oid), part.oid)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE part.relkind = 'r' AND part.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                  WHERE a.attrelid = part.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = 's')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = part.oid AND d.deptype = 'e')
    ORDER BY 1, 2
"""
# program_limit_exceeded and out_of_memory; and the message of an internal error, which PostgreSQL does not translate.
TOO_LARGE, ALLOCATION = ("54000", "53200"), "invalid memory alloc request size"

# COPY of a table runs no code of the table. SELECT does: the planner evaluates immutable functions in index expressions with the
# privileges of the reading role, even if another role owns them.
BY_COPY = 2
# Older manifests have the sum of the first 64 bits of each row's MD5, computed by the server.
BY_SELECT = 1

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Hashing = Annotated[int, Meta(ge=BY_SELECT, le=BY_COPY)]
Hash = Annotated[str, Meta(pattern=r"^-?[0-9]{1,40}\Z")]
CONTENT_SQL = """
    SELECT pg_catalog.count(*),
           COALESCE(pg_catalog.sum(('x' || pg_catalog.left(pg_catalog.md5(ROW("the row".*)::text), 16))::bit(64)::bigint), 0)::text
    FROM {table} AS "the row"
"""

# Settings that fix the text form of values, written or read, independent of the server's, the database's and the role's settings.
PINNED = {
    "search_path": sql.PINNED,
    "quote_all_identifiers": "off",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "array_nulls": "on",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "jit": "off",
    "row_security": "off",  # A policy that would hide rows raises an error instead.
}
LOCK_WAIT = 60_000  # Milliseconds, for table locks that a running migration holds.
PATIENT = {
    "statement_timeout": "0",
    "transaction_timeout": "0",  # PostgreSQL 17 and later.
    "idle_in_transaction_session_timeout": "0",
    **ALIVE,
    "lock_timeout": f"{LOCK_WAIT}ms",
}


SHOWN = 5  # The number of clauses of a reason that are shown.


@dataclass(frozen=True, slots=True)
class Content:
    """The number of rows of a table, and a hash of all rows that does not depend on their order."""

    rows: Number
    hash: Hash


@dataclass(frozen=True, slots=True)
class Registered:
    """A table or sequence that an extension registered for dumps, and its columns; none if its rows are not compared."""

    extension: str
    columns: tuple[str, ...]


class _Table(NamedTuple):
    """A table, as TABLES_SQL selects it."""

    schema: str
    name: str
    bytes: int
    columns: list[str]
    is_lacking: bool
    owner: str
    is_trusted: bool
    sizes: list[str]
    extension: str | None

    @property
    def place(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"


def read_contents(
    connection, show: Callable[[str, float], None], *, how: int = BY_COPY, registered: Mapping[str, Registered] | None = None
) -> dict[str, Content]:
    """Return the content of every table, in the current transaction; `show` gets the table and the percentage done.

    `how` is BY_COPY or BY_SELECT. Of the tables of extensions, only those in `registered` are read, and only the columns named there,
    because another version of the extension may have more; None reads all. Raises django.db.Error, or Refusal with the cure, if a
    table cannot be read.
    """
    with connection.cursor() as cursor:
        pin(cursor, PINNED | PATIENT)
        cursor.adapters.register_loader("name", SharedText)  # The owners'.
        cursor.execute(TABLES_SQL)
        tables = [chosen for row in cursor.fetchall() if (chosen := _chosen(_Table(*row), registered))]
        total, done, contents = sum(table.bytes for table in tables) or 1, 0, {}
        for table in tables:
            show(f"hashing {table.name}", 100 * done / total)
            if table.is_lacking:
                contents[table.place] = content_of(())
            elif how == BY_COPY:
                contents[table.place] = _copied(connection, cursor, table)
            else:
                cursor.execute(CONTENT_SQL.format(table=table.place))
                contents[table.place] = Content(*cursor.fetchone())
            done += table.bytes
    return contents


def read_registered(connection) -> dict[str, Registered]:
    """Return the tables and sequences that extensions registered, whose rows and values are in a dump."""
    with sql.catalogue(connection) as cursor:
        cursor.execute(TABLES_SQL)
        compared = {table.place: table for row in cursor.fetchall() if (table := _Table(*row)).extension}
        cursor.execute(REGISTERED_SQL)
        places = [(f"{quote(schema)}.{quote(name)}", extension) for schema, name, extension in cursor.fetchall()]
    return {
        place: Registered(extension, tuple(compared[place].columns) if place in compared else ()) for place, extension in places
    }


def _chosen(table: _Table, registered: Mapping[str, Registered] | None) -> _Table | None:
    """Return the table with the columns to read, None if it is an extension's and not in `registered`."""
    if not table.extension or registered is None:
        return table
    columns = registered[table.place].columns if table.place in registered else ()
    return table._replace(columns=[name for name in table.columns if name in columns]) if columns else None


def read_hash_partitions(connection) -> dict[str, str]:
    """Return the partitioned table of each partition by hash."""
    with sql.catalogue(connection) as cursor:
        cursor.execute(HASH_PARTITIONS_SQL)
        return {
            f"{quote(schema)}.{quote(name)}": f"{quote(parent_schema)}.{quote(parent)}"
            for schema, name, parent_schema, parent in cursor.fetchall()
        }


def read_computed(connection) -> list[str]:
    """Return the tables with stored generated columns, which are not hashed."""
    with sql.catalogue(connection) as cursor:
        cursor.execute(COMPUTED_SQL)
        return [f"{quote(schema)}.{quote(name)}" for schema, name in cursor.fetchall()]


def _copied(connection, cursor, table: _Table) -> Content:
    listed = f" ({', '.join(map(quote, table.columns))})" if table.columns else ""
    cursor.execute(f"LOCK TABLE {table.place} IN ACCESS SHARE MODE")  # COPY takes its snapshot before it waits for the table.
    # Where the database does not check texts, one may be no UTF-8, which our sessions ask for.
    raw = " (ENCODING 'SQL_ASCII')" if connection.connection.info.parameter_status("server_encoding") == "SQL_ASCII" else ""
    try:
        with connection.wrap_database_errors, cursor.copy(f"COPY {table.place}{listed} TO STDOUT{raw}") as copy:
            return content_of(rows_of(copy))
    except Error as error:
        reason = first_line(str(error))
        if sqlstate(error) not in TOO_LARGE and ALLOCATION not in reason:
            raise
        raise Refusal(_describe_too_large(table, reason)) from error


def _describe_too_large(table: _Table, reason: str) -> str:
    """Return a sentence about rows that COPY cannot write, and so pg_dump neither, with the cure.

    The superuser's way out runs no code of the table's owner, unlike a query, and DELETE or TRUNCATE.
    """
    place, owner = one_line(table.place), one_line(table.owner)
    sizes = " + ".join(f"COALESCE({size}, 0)" for size in table.sizes) or "0"
    query = one_line(f"SELECT ctid, {sizes} AS bytes FROM ONLY {table.place} ORDER BY bytes DESC LIMIT 5;")
    drop = (
        f" If {owner} does not, as a superuser: \\copy {place} TO 'FILE' (FORMAT binary) saves the rows (if necessary, column by column),"
        f" DROP TABLE {place} CASCADE; removes them, and ALTER ROLE {one_line(quote(table.owner))} NOLOGIN; prevents the role from signing in."
    )
    return (
        f"PostgreSQL cannot write a row of {place} of {owner} as text ({reason}), so pg_dump cannot read it either: in text form, a value or a"
        f" row can have at most 1 GB, bytea takes twice its size, and the server needs that much memory. As {owner}, run {query}"
        f" Then shorten or delete the largest.{'' if table.is_trusted else drop}"
    )


def rows_of(copy: Copy) -> Iterator[memoryview]:
    """Yield the rows that COPY TO STDOUT sends, unparsed; raise psycopg.Error if the server reports an error.

    Iterating over `copy` yields the same but takes more than twice as long: it waits for the socket once per row.
    """
    server, poll = copy.connection.pgconn, select.poll()
    poll.register(server.socket, select.POLLIN)
    while True:
        size, row = server.get_copy_data(1)
        if size > 0:
            yield row
        elif size == 0:  # No complete row has arrived.
            poll.poll(
                100
            )  # Milliseconds; a timeout, because TLS may buffer the last bytes, and then the socket never becomes readable.
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
    """Return the content of rows as COPY writes them: their number, and the sum of the 64-bit BLAKE2 of each."""
    number = total = 0
    as_number = int.from_bytes
    for row in rows:
        number += 1
        total += as_number(blake2b(row, digest_size=8).digest())
    return Content(number, str(total))


def pin(cursor, settings: dict[str, str]) -> None:
    """Set those of `settings` that the server knows, until the end of the transaction."""
    for name, value in settings.items():
        known = "SELECT pg_catalog.set_config(name, %s, true) FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name) = %s"
        cursor.execute(known, [value, name])


def clauses(reasons: Sequence[str]) -> str:
    """Join the first SHOWN clauses of a reason, and add how many more there are."""
    return few(reasons, SHOWN, separator="; ")


def differences(expected: dict[str, Content], found: dict[str, Content], hashed: dict[str, str]) -> list[str]:
    """Return a clause for each table that differs from the manifest; partitions in `hashed` are compared as one table."""
    different = [f"{name} is missing" for name in expected if name not in found]
    different += [f"{name} is not in the backup" for name in found if name not in expected]
    merged = _merge_hash_partitions(found, hashed)
    for name, content in _merge_hash_partitions(expected, hashed).items():
        actual = merged.get(name, content)
        if actual.rows != content.rows:
            different.append(f"{name} has {plural(actual.rows, 'row')} instead of {content.rows:,}")
        elif actual != content:
            different.append(f"{name} has different rows")
    return different


def _merge_hash_partitions(contents: dict[str, Content], hashed: dict[str, str]) -> dict[str, Content]:
    """Return the contents, with partitions in `hashed` added up under the name of their partitioned table."""
    total: dict[str, Content] = {}
    for name, content in contents.items():
        if name in hashed and (before := total.get(hashed[name])):
            content = Content(before.rows + content.rows, str(int(before.hash) + int(content.hash)))
        total[hashed.get(name, name)] = content
    return total
