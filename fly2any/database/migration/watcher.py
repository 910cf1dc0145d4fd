"""Watches a statement over another connection: its blockers, and the progress of its index build.

activity.py has the queries that find and cancel them, and run.py says so when it gives way to them. Before a concurrent build, run.py
also cancels the sessions that wait for the migration lock, such as a `prisma migrate deploy`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.conf import settings
from django.db import Error

from ..progress import Progress
from ..sql import catalogue, fetch_one
from .activity import BLOCKERS_SQL, Activity, cancel_waiters, read_activity, terminate
from .advisory_locks import MIGRATION_LOCK

PROGRESS_SQL = """
    SELECT p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total, p.lockers_done, p.lockers_total
    FROM pg_catalog.pg_stat_progress_create_index AS p
    WHERE p.pid = %(pid)s
"""

# The percentage at which each phase of a concurrent build begins; phases that wait for other sessions take no share.
PHASES = (
    ("initializing", 0),
    ("waiting for writers before build", 0),
    ("building index: initializing", 0),
    ("building index: scanning table", 0),
    ("building index: sorting live tuples", 50),
    ("building index: loading tuples in tree", 60),
    ("building index", 0),
    ("waiting for writers before validation", 75),
    ("index validation: scanning index", 75),
    ("index validation: sorting tuples", 80),
    ("index validation: scanning table", 85),
    ("waiting for old snapshots", 99),
    ("waiting for readers before marking dead", 99),
    ("waiting for readers before dropping", 99),
)


@dataclass(frozen=True, slots=True)
class Build:
    """The progress of an index build, in percent."""

    phase: str
    percent: float


@dataclass(eq=False, slots=True)
class Statement:
    """A running statement; `blocked` is the process whose blockers are cancelled if they wait for the migration lock."""

    what: str
    blocked: int | None  # None: any session that waits for the migration lock.
    begun: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None  # The connection that watches it.


def say_cancelled(progress: Progress, waiters: tuple[Activity, ...]) -> None:
    for one in waiters:
        progress.say(
            f"Cancelled {one}: it waited for the migration lock and would have blocked this run."
            " Start that command again after this run."
        )


class Watcher:
    """Watches, over a connection of its own, the blockers of a run's statements, and the progress of index builds.

    A session that waits for the run's migration lock and blocks it would block it for ever, so its statement is cancelled.
    """

    def __init__(self, connection, progress: Progress):
        self.connection = connection
        self.progress = progress
        with catalogue(connection) as cursor:
            cursor.execute("SELECT pg_catalog.pg_backend_pid()")  # A pooler reports a process id of its own.
            self.pid = cursor.fetchone()[0]
        self.blockers: tuple[Activity, ...] = ()  # The blockers seen last.
        self.seconds = 0.0  # The duration of the last statement.
        self.current: Statement | None = None
        self.pause = min(0.5, settings.LOCK_TIMEOUT / 4000)  # Seconds: most statements end before they need watching.

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch the statements inside, with one thread for all, because most end before a thread of their own would start."""
        ended = threading.Event()
        thread = threading.Thread(target=self._look, args=[ended], daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def statement(self, what: str, *, concurrent: bool = False) -> Iterator[None]:
        """Watch the statement that runs inside; a `concurrent` one will wait for every session that waits for its run's lock."""
        self.blockers = ()
        self.current = one = Statement(what, None if concurrent else self.pid)
        try:
            yield
        finally:
            one.over.set()
            self.current = None
            self.seconds = time.monotonic() - one.begun
            if one.thread:
                one.thread.join(timeout=0.1)  # The thread may be connecting, so the lock holder does not wait for it.
            self.progress.clear()

    def _look(self, ended: threading.Event) -> None:
        while not ended.wait(self.pause / 5):
            one = self.current
            if one and one.thread is None and time.monotonic() - one.begun >= self.pause:
                thread = threading.Thread(target=self._watch, args=[one.what, one.blocked, one.over], daemon=True)
                thread.start()
                one.thread = thread  # The statement may be waiting for it now.

    def _watch(self, what: str, blocked: int | None, over: threading.Event) -> None:
        if over.is_set():
            return
        own, reported, waited = self.connection.copy(), False, self.pause
        try:
            while True:
                with catalogue(own) as cursor:
                    say_cancelled(self.progress, cancel_waiters(cursor, MIGRATION_LOCK, blocked=blocked)[0])
                build = read_build(own, self.pid)
                if blockers := read_activity(own, BLOCKERS_SQL, pid=self.pid):
                    self.blockers = blockers
                if over.is_set():
                    return
                behind = f", waiting for {blockers[0]}" if blockers else ""
                self.progress.show(f"{what}{': ' + build.phase if build else ''}{behind}", build.percent if build else None)
                if blockers and 1000 * waited > settings.LOCK_TIMEOUT and not reported:
                    reported = True
                    self.progress.say(f"Waiting for {blockers[0]}; to end it: {terminate(blockers[0])}")
                if over.wait(self.pause):
                    return
                waited = waited + self.pause if blockers else 0
        except Error:  # The connection was lost: the watched statement reports that itself.
            pass
        finally:
            own.close()


def read_build(connection, pid: int) -> Build | None:
    """Return the progress of the index build of the session `pid`, None if it builds none."""
    row = fetch_one(connection, PROGRESS_SQL, {"pid": pid})
    if row is None:
        return None
    phase, *numbers = row
    begins = [percent for _, percent in PHASES]
    place = next((place for place, (name, _) in enumerate(PHASES) if phase.startswith(name)), 0)
    ends = next((percent for percent in begins[place + 1 :] if percent > begins[place]), 100)
    shares = [done / total for done, total in zip(numbers[::2], numbers[1::2], strict=True) if total]
    return Build(phase, begins[place] + (ends - begins[place]) * min(shares[0], 1) if shares else float(begins[place]))
