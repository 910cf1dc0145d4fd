"""Identifiers and literals, and transactions whose settings end with them: time limits, snapshots, a search path of PostgreSQL's own.

A setting of the session would stay with the server connection behind a transaction pooler, and reach another client.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import Error, connections, transaction
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import TransactionStatus
from psycopg.sql import Composable, Identifier

from .facts import people_table

# PostgreSQL prefers a function of any schema in the path to its own where the types of the arguments fit better. Only
# superusers create functions in the first of these schemas, and PostgreSQL never looks for functions in the second.
PINNED = "pg_catalog, pg_temp"
# The driver reads intervals and times in these forms only; the database or the role may set others.
READABLE = {"intervalstyle": "postgres", "datestyle": "ISO"}
# PostgreSQL overestimates recursive queries of the catalogue, and then compiles them for seconds.
UNCOMPILED = {"jit": "off"}
PEOPLE = people_table()
RECORD = "django_migrations"  # Django's record of applied migrations.

# The server gives up a client whose host or network is gone after 90 s of silence, with all locks that its session holds; the
# system's own limit is two hours. They say nothing of a Unix socket.
ALIVE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "6"}
LONGEST_IDLE = "5min"  # For our transactions, because a proxy may acknowledge in place of a client that is gone.


def quote(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return Identifier(name).as_string(None)


def literal(text: str) -> str:
    """Return `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def as_written(value: str) -> str:
    """Return a value in its type's text form. A cast to text could call a function of the type's owner."""
    return f"CASE WHEN {value} IS NULL THEN NULL ELSE pg_catalog.concat({value}) END"


# Whether the trigger `t` is none of those of foreign keys and unique constraints. Before PostgreSQL 15, the copies that partitions
# have of a trigger of their table are marked as internal too.
EXPLICIT_TRIGGER_SQL = """
    (NOT t.tgisinternal OR t.tgparentid <> 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS k
                                                             WHERE k.oid = t.tgconstraint AND k.contype <> 't'))
"""


@contextmanager
def time_limits(
    connection,
    *,
    lock: int | None = None,
    statement: int | None = None,
    read_only: bool = False,
    snapshot: bool = False,
    tables: Sequence[str] = (),
) -> Iterator[None]:
    """Run the block in one transaction that waits `lock` milliseconds for a lock and `statement` for a statement, at most.

    With 0 for a statement, which is no limit, the transaction has none either.
    `snapshot` is read-only and REPEATABLE READ. Inside another transaction the limits end with the block, and that transaction decides whether it is read-only.
    The tables `tables`, given as identifiers, are locked ACCESS SHARE before the snapshot (snapshot_after_locks.py).
    """
    limits = {"lock_timeout": lock, "statement_timeout": statement}
    if statement == 0 and connection.pg_version >= 17_00_00:
        limits["transaction_timeout"] = 0
    wanted = {name: f"{milliseconds}ms" for name, milliseconds in limits.items() if milliseconds is not None}
    nested = in_transaction(connection)
    with _transaction(connection):
        if not nested and (snapshot or read_only):
            isolation = "ISOLATION LEVEL REPEATABLE READ, " if snapshot else ""
            _execute(connection, f"SET TRANSACTION {isolation}READ ONLY")
        if tables:  # By SET, because a query would take the snapshot.
            for name, value in wanted.items():
                _execute(connection, f"SET LOCAL {name} = {literal(value)}")
            _execute(connection, f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE")
        with _set(connection, wanted, restored=nested):
            yield


@contextmanager
def snapshot(connection):
    """Read everything inside in one read-only snapshot, waiting for no lock for long."""
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, snapshot=True):
        yield


def asked_path(connection) -> str | None:
    """Return the search path that `pinned` replaced, None outside it."""
    return getattr(connection, "asked_path", None)


@contextmanager
def pinned(connection, *, lock: int | None = None, statement: int | None = None, read_only: bool = True) -> Iterator[str]:
    """Run the block in a transaction with PINNED as the search path; yield the search path that it replaces.

    Inside, tables of ours are named with their schema. Blocks may be nested.
    """
    asked = asked_path(connection)
    if asked is not None and lock is statement is None:
        yield asked
        return
    nested = in_transaction(connection)
    with time_limits(connection, lock=lock, statement=statement, read_only=read_only):
        if asked is not None:
            yield asked
            return
        (connection.asked_path,) = _execute(connection, "SHOW search_path")
        try:
            with _set(connection, {"search_path": PINNED, **READABLE, **UNCOMPILED}, restored=nested):
                yield connection.asked_path
        finally:
            del connection.asked_path


@contextmanager
def pinned_session(connection) -> Iterator[None]:
    """Run VACUUM or ANALYZE in the block with PINNED as the search path of the session, as autovacuum does.

    Before PostgreSQL 17, they run the functions in indexes with it. The connection must lead straight to the server.
    """
    path = ask(connection, "SHOW search_path")
    execute(connection, f"SET search_path = {PINNED}")
    try:
        yield
    finally:
        if connection.connection and not connection.connection.closed:
            execute(connection, "SELECT pg_catalog.set_config('search_path', %s, false)", [path])


@contextmanager
def unpinned(connection, *, lock: int, statement: int) -> Iterator[None]:
    """Run the block in a transaction with the search path that `pinned` replaced: for a query that the user supplied."""
    asked = asked_path(connection)
    wanted = {} if asked is None else {"search_path": asked}
    with time_limits(connection, lock=lock, statement=statement), _set(connection, wanted, restored=True):
        yield


class SharedText(Loader):
    """Reads a text that may not be UTF-8: names and comments of databases and roles, and queries, are in the encoding of another database."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="backslashreplace")


class SharedJson(Loader):
    """Reads JSON with such texts in it."""

    def load(self, data: Buffer) -> Any:
        return json.loads(bytes(data).decode(errors="replace"))


@contextmanager
def catalogue(connection) -> Iterator[Any]:
    """Yield a cursor for queries of the catalogue, whose functions and operators are PostgreSQL's own."""
    with pinned(connection), connection.cursor() as cursor:
        for kind in ("text", "name", "varchar", "jsonb"):  # Django reads jsonb as text.
            cursor.adapters.register_loader(kind, SharedText)
        cursor.adapters.register_loader("json", SharedJson)
        yield cursor


def ask(connection, question: str, parameters: Any = None) -> Any:
    """Run a statement with the current search path, and return the first value of its first row; None without a row."""
    with connection.cursor() as cursor:
        cursor.execute(question, parameters)
        row = cursor.fetchone()
    return row and row[0]


def ask_directly(connection, question: str) -> Any:
    """Return the first value of a query that execute wrappers do not see, so that it does not count as a query of a page."""
    connection.ensure_connection()
    row = _execute(connection, question)
    return row and row[0]


def execute(connection, statement: str | Composable, parameters: Any = None) -> int:
    """Run a statement with the current search path, and return the number of rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.rowcount


def fetch_all(connection, question: str, parameters: Any = None) -> list[Any]:
    """Return the rows of a query of the catalogue, whose functions and operators are PostgreSQL's own."""
    with catalogue(connection) as cursor:
        cursor.execute(question, parameters)
        return cursor.fetchall()


def fetch_one(connection, question: str, parameters: Any = None) -> Any:
    """Return the first row of such a query, None without one."""
    with catalogue(connection) as cursor:
        cursor.execute(question, parameters)
        return cursor.fetchone()


@contextmanager
def _transaction(connection) -> Iterator[None]:
    """Run the block in a transaction, or in a savepoint if one is open."""
    if connection in connections.all(initialized_only=True):
        with transaction.atomic(using=connection.alias):
            yield
        return
    if in_transaction(connection):
        yield
        return
    connection.set_autocommit(False)  # A copied connection, which atomic() cannot find by its alias.
    try:
        yield
        connection.commit()
    finally:
        if connection.connection and not connection.connection.closed:
            connection.rollback()
            connection.set_autocommit(True)


@contextmanager
def attempted(connection) -> Iterator[None]:
    """Run the block in a savepoint of the open transaction, which goes on if the block raises an error of the database."""
    _execute(connection, "SAVEPOINT fly2any_attempt")
    try:
        yield
    except Error:
        if connection.connection and not connection.connection.closed:
            _execute(connection, "ROLLBACK TO SAVEPOINT fly2any_attempt")
        raise
    _execute(connection, "RELEASE SAVEPOINT fly2any_attempt")


def in_transaction(connection) -> bool:
    """Return whether a transaction is open, including one that atomic() did not begin."""
    connection.ensure_connection()
    return connection.in_atomic_block or not connection.get_autocommit()


@contextmanager
def _set(connection, wanted: dict[str, str], *, restored: bool) -> Iterator[None]:
    """Set `wanted` for the block, or until the end of the transaction. A transaction that fails undoes them itself.

    One that goes on after an error of ours in the block does not: a copy of a connection has no savepoint around it.
    """
    before = None
    if wanted and restored:
        before = _execute(connection, f"SELECT {', '.join(['pg_catalog.current_setting(%s)'] * len(wanted))}", *wanted)
    if wanted:
        _set_local(connection, wanted)
    try:
        yield
    finally:
        if before and connection.connection and connection.connection.info.transaction_status == TransactionStatus.INTRANS:
            _set_local(connection, dict(zip(wanted, before, strict=True)))


def _set_local(connection, wanted: dict[str, str]) -> None:
    calls = ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(wanted))
    _execute(connection, f"SELECT {calls}", *(part for setting in wanted.items() for part in setting))


def _execute(connection, statement: str, *parameters: str) -> Any:
    """Run a statement, which execute wrappers do not see, and return its row, None without one."""
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchone() if cursor.description else None
