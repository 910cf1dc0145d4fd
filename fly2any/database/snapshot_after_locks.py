"""Snapshots that are taken after the locks of the tables that are read in them.

An ALTER TABLE that rewrites a table, and TRUNCATE, leave it empty in every older snapshot, without an error. A REPEATABLE READ
transaction takes its snapshot at its first query; LOCK TABLE takes none. A statement that has to wait for a table may have taken
its snapshot before: COPY does, even in READ COMMITTED. is_rewritten() and lock_alone() are for such reads without a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.db import Error

from .errors import Refusal, sqlstate
from .sql import fetch_all, fetch_one, time_limits
from .units import plural

ATTEMPTS = 5
GONE = ("3F000", "42P01")  # The SQLSTATEs of a schema and of a table that do not exist.
# The tables `chosen` that this role may read, and so lock.
TABLES_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND {chosen}
    ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""
UNLOCKED = """
    c.oid NOT IN (SELECT l.relation FROM pg_catalog.pg_locks AS l
                  WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted AND l.relation IS NOT NULL
                    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()))
"""
# pg_class as the snapshot shows it, against the current file.
REWRITTEN_SQL = """
    SELECT 1 FROM pg_catalog.pg_class AS c
    WHERE c.oid = %s::oid AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid)
"""


@contextmanager
def locked_snapshot(connection, *, lock: int, statement: int | None = None, chosen: str = "true") -> Iterator[None]:
    """Run the block in one read-only snapshot, taken while the tables `chosen` were locked ACCESS SHARE, which they stay.

    `chosen` is a condition on pg_class AS c. `lock` and `statement` are limits in milliseconds. Raises Refusal if tables are
    created or dropped at each attempt.
    """
    tables_sql, unlocked_sql = TABLES_SQL.format(chosen=chosen), TABLES_SQL.format(chosen=f"{chosen} AND {UNLOCKED}")
    for _ in range(ATTEMPTS):
        tables = [name for (name,) in fetch_all(connection, tables_sql)]
        with ExitStack() as stack:
            try:
                stack.enter_context(time_limits(connection, lock=lock, statement=statement, snapshot=True, tables=tables))
            except Error as error:
                if sqlstate(error) not in GONE:
                    raise
                continue
            if fetch_all(connection, unlocked_sql):
                continue
            yield
            return
    raise Refusal(
        f"Other sessions created, renamed or dropped tables at each of {plural(ATTEMPTS, 'attempt')} to lock them all:"
        " try again when they have ended."
    )


def lock_alone(cursor, table: str) -> None:
    """Lock the table `table`, an identifier, ACCESS SHARE until the end of the transaction, with any privilege or none.

    LOCK TABLE needs a privilege on the whole table, and takes no materialized view. PREPARE only analyses the statement: nothing
    of the table is planned or executed, so no code of its owner runs.
    """
    cursor.execute(f"PREPARE fly2any_lock AS SELECT FROM {table}")
    cursor.execute("DEALLOCATE fly2any_lock")


def is_rewritten(connection, oid: int) -> bool:
    """Return whether a table that is locked was rewritten, truncated or dropped since the snapshot of the transaction."""
    return fetch_one(connection, REWRITTEN_SQL, [oid]) is not None
