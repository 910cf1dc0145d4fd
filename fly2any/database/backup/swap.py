"""The swap of a restored database with the one in use: one transaction that renames both, from a connection to a third one."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import datetime

from django.db import Error, transaction
from psycopg import sql

from ..errors import Refusal, explain, leaves_commit_open, sqlstate
from ..marked_databases import BEFORE, comment, mark
from ..migration.activity import UNENDING_SQL, read_activity
from ..sql import fetch_all, fetch_one
from .not_dumped import hindrance, require_undistributed
from .owners import require_replaceable
from .restore_connections import connection_to

SESSIONS_SQL = """
    SELECT pid FROM pg_catalog.pg_stat_activity WHERE datname = ANY (%s) AND pid <> pg_catalog.pg_backend_pid() ORDER BY pid
"""
TERMINATE_SQL = "SELECT pg_catalog.pg_terminate_backend(%s)"
# Connections are closed and reopened meanwhile; a promoted standby, or a server that crashed, may lack the restored rows.
OID_SQL = "SELECT d.oid::bigint FROM pg_catalog.pg_database AS d WHERE d.datname = %s::name"
STARTED_SQL = "SELECT pg_catalog.pg_postmaster_start_time()"
MAINTENANCE = ("postgres", "template1")
IN_USE = "55006"  # SQLSTATE of a rename while sessions use the database.
REACHABLE_AGAIN = 60  # Seconds in which a server that was restarted answers again.


def require_swappable(connection, current: str) -> str:
    """Return the database to connect to while others are renamed; raise Refusal if this role may not replace `current`."""
    require_replaceable(connection)
    require_undistributed(connection)
    return _maintenance(connection, current)


def _maintenance(connection, current: str) -> str:
    """Return a database to connect to while others are renamed; it must accept this role."""
    with connection.direct():
        for name in MAINTENANCE:
            if name != current:
                with suppress(Error), connection_to(connection, name) as elsewhere:
                    elsewhere.ensure_connection()
                    return name
    raise Refusal(
        f"To rename databases, a restore connects to {' or '.join(MAINTENANCE)}, but this role cannot: restore with --into, and rename by hand."
    )


def require_same_server(connection, started: datetime) -> None:
    """Raise Refusal unless the server has been running since `started`."""
    if fetch_one(connection, STARTED_SQL) != (started,):
        raise Refusal(
            "The server was restarted or replaced during the restore, so the new database may lack rows: nothing was replaced."
            " Run the command again."
        )


def swap(elsewhere, current: str, *, oid: int, new: str, old: str, description: str | None, started: datetime) -> None:
    """Rename `current` to `old` and `new` to `current`, in one transaction; end the sessions of both.

    The old database is marked as such, and its comment `description` moves to the new one. Raises Refusal if the server has not been
    running since `started`, or if `current` is no longer the database `oid`.

    A rename first locks the database against new sessions, then waits up to 5 s for existing ones, which another connection ends
    meanwhile. If it fails or is killed, nothing has changed; if the answer to its COMMIT is lost, the server is asked.
    """
    require_same_server(elsewhere, started)  # In the session that renames them.
    finished = threading.Event()
    thread = threading.Thread(target=_end_sessions, args=(elsewhere, [current, new], finished), daemon=True)
    thread.start()
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}").format
    committing = False
    try:
        with transaction.atomic(using=elsewhere.alias), elsewhere.cursor() as cursor:
            cursor.execute(rename(sql.Identifier(current), sql.Identifier(old)))
            if fetch_one(elsewhere, OID_SQL, [old]) != (oid,):
                raise Refusal(
                    f"{current} was replaced by another database during the restore: nothing was replaced by this one."
                )
            cursor.execute(rename(sql.Identifier(new), sql.Identifier(current)))
            mark(elsewhere, old, BEFORE, of=current)
            comment(elsewhere, current, description)
            committing = True
    except Error as error:
        if sqlstate(error) == IN_USE and (sessions := read_activity(elsewhere, UNENDING_SQL, databases=[current, new])):
            raise Refusal(f"Nothing was replaced. {hindrance(sessions)} Then run the command again.") from error
        if not (committing and leaves_commit_open(error) and _is_swapped(elsewhere, current, old, oid=oid)):
            raise
    finally:
        finished.set()
        thread.join(10)


def _end_sessions(elsewhere, names: list[str], finished: threading.Event) -> None:
    """End the sessions of databases until `finished`, with a connection of this thread's own."""
    own = elsewhere.copy()
    try:
        while not finished.is_set():
            for session in fetch_all(own, SESSIONS_SQL, [names]):
                with suppress(Error), own.cursor() as cursor:  # The rename reports a session that this role may not end.
                    cursor.execute(TERMINATE_SQL, session)
            finished.wait(0.2)
    except Error:
        pass  # The rename reports the problem.
    finally:
        own.close()


def _is_swapped(elsewhere, current: str, old: str, *, oid: int) -> bool:
    """Return whether the database `oid` has the name `old`; raise Refusal if the server cannot be asked within REACHABLE_AGAIN seconds."""
    ends = time.monotonic() + REACHABLE_AGAIN
    while True:
        elsewhere.close()
        try:
            return fetch_one(elsewhere, OID_SQL, [old]) == (oid,)
        except Error as error:
            if time.monotonic() > ends:
                raise Refusal(
                    f"The connection was lost when {current} was replaced, and the server does not answer ({str(explain(error)).rstrip('.')}). If the database"
                    f" {old} exists, {current} was replaced: then sign all staff out of the admin, and erase again everyone who has been erased since the backup."
                ) from error
        time.sleep(1)
