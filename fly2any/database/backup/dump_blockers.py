"""The sessions that block a backup: the holders of the locks that it waits for.

Its pg_dump waits for a lock at most for the lock timeout, for example behind a statement that waits for the backup; then the backup begins
again. How long a restore waits for other commands is in migration/advisory_locks.py (`wait_for_writers`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import Error

from ..migration.activity import BLOCKERS_SQL, read_activity, terminate
from ..progress import Progress
from ..sql import fetch_all
from ..terminal_text import one_line

PAUSE = 0.5  # Seconds between two queries: a backup waits for locks only for moments, and then begins again.
# Of the session with `pid` and of its pg_dump, which is the first of this role that began after it, those that wait for a lock: the pid, whether it is pg_dump's, and on what.
WAITING_SQL = """
    SELECT a.pid, a.pid <> own.pid, COALESCE(wanted.name, '')
    FROM pg_catalog.pg_stat_activity AS own
    JOIN pg_catalog.pg_stat_activity AS a ON a.pid = own.pid
        OR a.pid = (SELECT d.pid FROM pg_catalog.pg_stat_activity AS d
                    WHERE d.application_name = 'pg_dump' AND d.datid = own.datid AND d.usesysid = own.usesysid AND d.backend_start > own.backend_start
                    ORDER BY d.backend_start LIMIT 1)
    LEFT JOIN LATERAL (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
                       FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
                       JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE l.pid = a.pid AND NOT l.granted AND l.database = own.datid) AS wanted ON true
    WHERE own.pid = %s AND a.wait_event_type = 'Lock'
"""


@dataclass(slots=True)
class Waits:
    """The lock for which pg_dump waits: since when, and the name of its relation, "" if that is not known."""

    since: float | None = None
    name: str = ""

    def seconds(self, after: float) -> float:
        """Return how long pg_dump, which was started at `after`, has been waiting for it; 0 if it is not."""
        since = self.since  # Another thread sets it.
        return 0 if since is None else time.monotonic() - max(since, after)


@contextmanager
def report_lock_holders(connection, progress: Progress) -> Iterator[Waits]:
    """Run the block, and report to `progress`, once each, the sessions that keep `connection` or its pg_dump from a lock.

    Yield for what pg_dump waits.
    """
    connection.ensure_connection()
    finished, pid, waits = threading.Event(), connection.connection.info.backend_pid, Waits()

    def watch() -> None:
        own, reported = connection.copy(), set[int]()
        try:
            while not finished.wait(PAUSE):
                waiting = fetch_all(own, WAITING_SQL, [pid])
                names = [name for _, is_dump, name in waiting if is_dump]
                if not names or names[0] != waits.name:  # Not waiting, or for another lock.
                    waits.since = None
                if names:
                    waits.name, waits.since = names[0], waits.since or time.monotonic()
                for waiter, _, name in waiting:
                    for one in read_activity(own, BLOCKERS_SQL, pid=waiter):
                        if one.pid not in reported:
                            reported.add(one.pid)
                            on = f" on {one_line(name)}" if name else ""
                            progress.say(f"Waiting for a lock{on}, held by {one}; to end it: {terminate(one)}")
        except Error:  # No connection left: the command itself reports the error.
            waits.since = None
        finally:
            own.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield waits
    finally:
        finished.set()
        thread.join(10)
