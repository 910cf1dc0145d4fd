"""The transactions in which a person's rows are read and removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from ..server import read_schema
from ..snapshot_after_locks import locked_snapshot
from ..sql import ALIVE, LONGEST_IDLE, literal, time_limits
from ..trusted_roles import TRUSTED_ROLES_SQL

# PostgreSQL then raises an error if a policy would hide rows from this role.
ALL_ROWS_SQL = "SET LOCAL row_security = off; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1"
# After a crash, a commit that was acknowledged before it reached the disk would make the certificate false.
DURABLE_SQL = """
    SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
    WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'
"""
# The setting exists from PostgreSQL 17 on; a search reads the whole database.
NO_TRANSACTION_TIMEOUT_SQL = """
    SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'transaction_timeout'
"""
# One connection to each node of Citus, this one included, because a cascade reaches shards that a parallel statement locks, and
# because Citus rejects ANALYZE of a table after it changed a shard of its own node without a connection.
ONE_BY_ONE_SQL = """
    SELECT pg_catalog.set_config(
        name, CASE name OPERATOR(pg_catalog.=) 'citus.enable_local_execution' WHEN true THEN 'off' ELSE 'sequential' END, true)
    FROM pg_catalog.pg_settings
    WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY['citus.multi_shard_modify_mode', 'citus.enable_local_execution'])
"""
# They release the row locks if the client is gone.
CLIENT_GONE_SQL = "; ".join(
    f"SET LOCAL {name} = '{value}'" for name, value in {**ALIVE, "idle_in_transaction_session_timeout": LONGEST_IDLE}.items()
)
NO_STATEMENT_TIMEOUT_SQL = "SET LOCAL statement_timeout = 0"  # A search reads the whole database.
LOCK_TIMEOUT = 5_000  # Milliseconds.
TABLE_LOCK_TIMEOUT = 500  # Less than deadlock_timeout: in a deadlock, this session gives up before PostgreSQL cancels another.


@contextmanager
def reading(connection) -> Iterator[None]:
    """Run the block in one read-only snapshot that sees all rows or raises an error.

    Tables of other roles are locked when they are read (copied.py): a lock that their owner holds must not stop the search.
    """
    schema = f"(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {literal(read_schema(connection))})"
    ours = f"c.relowner IN ({TRUSTED_ROLES_SQL.format(schema=schema)})"
    with locked_snapshot(connection, lock=LOCK_TIMEOUT, chosen=ours), connection.cursor() as cursor:
        cursor.execute(ALL_ROWS_SQL)
        cursor.execute(NO_TRANSACTION_TIMEOUT_SQL)
        yield


@contextmanager
def writing(connection) -> Iterator[None]:
    """Run the block in a READ COMMITTED transaction that sees all rows or raises an error."""
    with transaction.atomic(using=connection.alias, durable=True), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute(ALL_ROWS_SQL)
        cursor.execute(NO_TRANSACTION_TIMEOUT_SQL)
        cursor.execute(DURABLE_SQL)
        cursor.execute(ONE_BY_ONE_SQL)
        cursor.execute(CLIENT_GONE_SQL)
        with time_limits(connection, lock=LOCK_TIMEOUT):
            yield
