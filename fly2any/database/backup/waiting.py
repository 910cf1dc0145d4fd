"""The holders of the locks that a backup waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error

from ..migration.activity import BLOCKERS_SQL, read_activity, terminate
from ..progress import Progress
from ..sql import fetch_all

PAUSE = 0.5  # Seconds between two queries: a backup waits for locks only for moments, and then begins again.
# The session of the command, and those of its pg_dump.
WAITING_SQL = """
    SELECT a.pid FROM pg_catalog.pg_stat_activity AS a
    WHERE a.wait_event_type = 'Lock' AND a.datname = pg_catalog.current_database()
      AND (a.pid = %s OR a.application_name = 'pg_dump' AND a.usename = current_user)
    ORDER BY a.pid
"""


@contextmanager
def report_lock_holders(connection, progress: Progress) -> Iterator[None]:
    """Run the block, and report to `progress`, once each, the sessions that keep it or its pg_dump from a lock."""
    connection.ensure_connection()
    finished, pid = threading.Event(), connection.connection.info.backend_pid

    def watch() -> None:
        own, reported = connection.copy(), set[int]()
        try:
            while not finished.wait(PAUSE):
                waiting = [found for (found,) in fetch_all(own, WAITING_SQL, [pid])]
                for one in {holder for found in waiting for holder in read_activity(own, BLOCKERS_SQL, pid=found)}:
                    if one.pid not in reported:
                        reported.add(one.pid)
                        progress.say(f"Waiting for a lock, held by {one}; to end it: {terminate(one)}")
        except Error:  # No connection left: the command itself reports the error.
            pass
        finally:
            own.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(10)
