"""Connection poolers: which URLs lead through one, and whether it keeps a session.

A transaction pooler gives each transaction another server connection: a session's locks leak there, its settings are lost.
url.py turns off server-side cursors, and base.py decides what else each connection does behind one; its `direct()` refuses work that needs a session.
"""

from __future__ import annotations

from typing import Any

from django.db import OperationalError

from .response_timeout import at_most

SECOND_CONNECTION = (
    5  # Seconds to wait for a second connection: a session pooler without a free connection makes its clients wait.
)
CURE = (
    "set POSTGRES_URL_NON_POOLING or DIRECT_URL to the database's direct URL{hint}; this needs a session of its"
    " own, which such a pooler does not keep"
)


NEON = (".neon.tech", ".neon.build", ".vercel-storage.com")


def pooler_of(host: str, port: str, parameters: dict[str, str]) -> str:
    """Return the transaction pooler that a URL leads through, "" if the URL shows none."""
    host = host.lower()
    if host.partition(".")[0].endswith("-pooler") and host.endswith(NEON):
        return "Neon"
    if host.endswith((".supabase.com", ".supabase.co")) and port == "6543":
        return "Supabase"
    return "PgBouncer" if parameters.get("pgbouncer") == "true" else ""


HINTS = {
    "Neon": " (the same without -pooler in the host)",
    "Supabase": " (the same with port 5432)",
    "PgBouncer": " (the server's own host and port)",
}


def keeps_no_session(connection) -> str:
    """Return the sentence that says why `connection` cannot be used for what needs a session, "" if it can."""
    variable = connection.settings_dict.get("VARIABLE", "POSTGRES_URL")
    if pooler := connection.settings_dict.get("POOLER", ""):
        return f"{variable} goes through {pooler}'s transaction pooler: {CURE.format(hint=HINTS[pooler])}."
    try:
        shared = is_transaction_pooler(connection)
    except OperationalError as error:
        if not connection.is_usable():
            raise
        return (
            f"{variable} goes through a pooler that gave no second connection within {SECOND_CONNECTION} s"
            f" ({str(error).strip().splitlines()[0]}): raise its pool size, or set POSTGRES_URL_NON_POOLING or DIRECT_URL to the"
            " database's direct URL."
        )
    if shared:
        return f"{variable} goes through a transaction pooler: {CURE.format(hint=HINTS['PgBouncer'])}."
    return ""


def is_transaction_pooler(connection, *, tries: int = 10) -> bool:
    """Return whether each transaction may get another server connection.

    A pooler tells its clients a process id of its own. Behind one that keeps sessions a client stays with one server process
    that no other client has; behind a transaction pooler a second client meets the first one's, or the first gets another.
    """
    if connection.in_atomic_block or _server(connection) == connection.connection.info.backend_pid:
        return False
    second = connection.copy()
    try:
        first = _server(connection)
        with at_most(SECOND_CONNECTION):
            second.ensure_connection()
        return any(_server(second) == first or _server(connection) != first for _ in range(tries))
    finally:
        second.close()


# Two servers may have databases of the same name and OID, but not the same start time.
PLACE_SQL = """
    SELECT current_database()::text || ' (number ' || d.oid::text || '), schema ' || COALESCE(current_schema()::text, 'none')
           || ', of the server that started at '
           || pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.pg_postmaster_start_time()), 'YYYY-MM-DD HH24:MI:SS.US')
    FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()
"""


def place(connection) -> str:
    """Return the server, database and schema that `connection` reaches."""
    with connection.cursor() as cursor:
        cursor.execute(PLACE_SQL)
        return cursor.fetchone()[0]


def _server(connection) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_backend_pid()")
        return cursor.fetchone()[0]
