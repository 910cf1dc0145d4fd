"""The sessions that block a backup: the holders of the locks that it waits for.

Its pg_dump waits for a lock at most for the lock timeout, behind a statement that waits for the backup; then the backup begins again. How long a
restore waits for other commands is in migration/lock.py (`wait_for_writers`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error

from ..migration.activity import BLOCKERS_SQL, read_activity, terminate
from ..progress import Progress
from ..sql import fetch_all

PAUSE = 0.5  # Seconds between two queries: a backup waits for locks only for moments, and then begins again.
IS_WAITING_SQL = "SELECT 1 FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = %s AND a.wait_event_type = 'Lock'"


@contextmanager
def report_lock_holders(connection, progress: Progress) -> Iterator[None]:
    """Run the block, and report to `progress`, once each, the sessions that keep `connection` from a lock."""
    connection.ensure_connection()
    finished, pid = threading.Event(), connection.connection.info.backend_pid

    def watch() -> None:
        own, reported = connection.copy(), set[int]()
        try:
            while not finished.wait(PAUSE):
                for one in read_activity(own, BLOCKERS_SQL, pid=pid) if fetch_all(own, IS_WAITING_SQL, [pid]) else ():
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
