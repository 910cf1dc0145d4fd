"""Locks: the migration lock, who blocks whom, and trying again what a lock kept from running."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from django.conf import settings
from django.db import Error, OperationalError

from ..errors import Refusal, sqlstate
from ..sql import ask, fetch_all

T = TypeVar("T")

# The keys of all advisory locks that this project takes. Never reuse or renumber one.
MIGRATION_LOCK = 72707369  # Prisma's own: `prisma migrate deploy` and we exclude each other.
MAINTENANCE_LOCK = 72707370
SIGN_IN_LOCK = 14_102  # The first of two keys; the second is a hash of the address and the network.
NAMES = {MIGRATION_LOCK: "migration", MAINTENANCE_LOCK: "maintenance"}

PATIENCE = 300  # Seconds, in all, for the migration lock, and for each lock that is not to be had.
DEADLOCK = "40P01"
LOCKED_OUT = ("55P03", DEADLOCK)  # lock_not_available, deadlock_detected: the statement had no effect.

# Literals and comments, also those that are cut off.
QUOTED = re.compile(
    r"(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|$)|'(?:[^']|'')*(?:'|$)|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|$)|--[^\n]*|/\*.*$|\"[^\"]*(?:\"|$)",
    re.S,
)

PREPARED = "a prepared transaction, which `SELECT gid, prepared, owner FROM pg_prepared_xacts` names"
ROLLBACK_PREPARED = "ROLLBACK PREPARED '…' with its gid, or COMMIT PREPARED, as its owner decides."
NUMBER = re.compile(r"(?<![\w$])\d{4,}(?:\.\d+)?")  # A telephone's, perhaps.

ACTIVITY = """
    COALESCE(a.pid, 0) AS pid, a.application_name AS application, a.usename AS role, a.state,
    now() - COALESCE(CASE WHEN a.state LIKE 'idle in%%' THEN a.state_change END, a.xact_start, a.backend_start) AS age,
    NULLIF(left(a.query, 500), '<insufficient privilege>') AS query
"""

ON_LOCK = """
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND l.classid = 0::oid AND l.objid = %(lock)s::oid AND l.objsubid = 1::smallint
"""

HOLDER_SQL = f"""
    SELECT {ACTIVITY}
    {ON_LOCK} AND l.granted
    ORDER BY a.pid
"""

# Prisma's CLI gives up after 10 s, but its backend goes on to wait inside pg_advisory_lock.
CANCEL_WAITERS_SQL = f"""
    SELECT CASE WHEN (pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))
                     AND (SELECT pg_catalog.bool_or(rolsuper AND rolname = current_user) OR NOT pg_catalog.bool_or(rolsuper AND oid = a.usesysid)
                          FROM pg_catalog.pg_roles)
                THEN pg_catalog.pg_cancel_backend(a.pid) ELSE false END,
           {ACTIVITY}
    {ON_LOCK} AND NOT l.granted AND (%(blocked)s::integer IS NULL OR a.pid = ANY (pg_catalog.pg_blocking_pids(%(blocked)s)))
    ORDER BY a.pid
"""

# A prepared transaction has no session: its number is 0.
BLOCKERS_SQL = f"""
    SELECT DISTINCT ON (blocking.pid) {ACTIVITY}
    FROM unnest(pg_catalog.pg_blocking_pids(%(pid)s)) AS blocking (pid) LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
    WHERE a.pid IS NOT NULL OR blocking.pid = 0
    ORDER BY blocking.pid
"""


@dataclass(frozen=True, slots=True)
class Activity:
    """What a session does; `age` is that of its state, its transaction or itself; None where this role may not see it."""

    pid: int
    application: str | None
    role: str | None
    state: str | None
    age: timedelta | None
    query: str | None

    def __str__(self) -> str:
        if not self.pid:
            return PREPARED
        words = [self.application or "no application name", f"role {self.role}"]
        if self.state and self.age is not None:
            words.append(f"{self.state} for {self.age.total_seconds():.0f} s")
        query = without_literals(self.query or "")
        return f"pid {self.pid} ({', '.join(words)}{': ' + query if query else ''})"


def without_literals(query: str) -> str:
    """Return the beginning of a query, in one line, without what stands in quotes: it may be anybody's data."""
    query = " ".join(QUOTED.sub(_shown, query).split())
    query = NUMBER.sub("…", query)
    return query if len(query) <= 100 else f"{query[:99]}…"


def _shown(match: re.Match[str]) -> str:
    # A comment may hold another: it ends what is shown.
    return {'"': match[0], "-": " ", "/": " "}.get(match[0][0], "'…'")


def read_activity(connection, statement: str, **parameters) -> tuple[Activity, ...]:
    """Return the sessions that HOLDER_SQL or BLOCKERS_SQL lists."""
    return tuple(Activity(*row) for row in fetch_all(connection, statement, parameters))


def cancel_waiters(cursor, lock: int, *, blocked: int | None = None) -> tuple[tuple[Activity, ...], tuple[Activity, ...]]:
    """Cancel the statements that wait for the advisory lock `lock`; return those cancelled, and those this role may not cancel.

    `blocked`: only those that the session of this process id waits for.
    """
    cursor.execute(CANCEL_WAITERS_SQL, {"lock": lock, "blocked": blocked})
    waiting = [(cancelled, Activity(*row)) for cancelled, *row in cursor.fetchall()]
    return tuple(one for cancelled, one in waiting if cancelled), tuple(one for cancelled, one in waiting if not cancelled)


@contextmanager
def advisory_lock(connection, lock: int, *, patience: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the advisory lock `lock` inside; `say` is told each session that is found to hold it.

    It is polled: a session that waits inside pg_advisory_lock would wait for CREATE INDEX CONCURRENTLY, and that for it.
    Raises Refusal when it is not to be had within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    told: int | None = None
    while not ask(connection, "SELECT pg_catalog.pg_try_advisory_lock(%s)", [lock]):
        holder = next(iter(read_activity(connection, HOLDER_SQL, lock=lock)), None)
        if holder is not None and holder.pid != told:
            say(f"Waiting for the {NAMES[lock]} lock, held by {holder} …")
            told = holder.pid
        if time.monotonic() >= deadline:
            held = f" by {holder}" if holder else ""
            cure = f" (or end it: {terminate(holder.pid)})" if holder else ""
            raise Refusal(
                f"The {NAMES[lock]} lock is held{held}, for longer than {patience:.0f} s: run the command again when that is done{cure}."
            )
        time.sleep(random.uniform(0.1, 0.5))
    try:
        yield
    finally:
        with suppress(Error):  # A connection that was cut has released it.
            ask(connection, "SELECT pg_catalog.pg_advisory_unlock(%s)", [lock])


def hold(connection, lock: int) -> None:
    """Hold the advisory lock `lock` until the transaction ends; raise Refusal where another session holds it."""
    if not ask(connection, "SELECT pg_catalog.pg_try_advisory_xact_lock(%s)", [lock]):
        holder = next(iter(read_activity(connection, HOLDER_SQL, lock=lock)), None)
        held = f" by {holder}" if holder else ""
        raise Refusal(f"Nothing was changed. The {NAMES[lock]} lock is held{held}: run the command again when that is done.")


def terminate(pid: int) -> str:
    """Return the command that ends the session `pid`, 0 for a prepared transaction, for psql or `manage.py dbshell`."""
    return f"SELECT pg_terminate_backend({pid});" if pid else ROLLBACK_PREPARED


def try_again(action: Callable[[], T], *, patience: float, again: Callable[[OperationalError, float], None]) -> T:
    """Return what `action` returns, running it again, after ever longer pauses, while it is locked out.

    `action` must undo what it did when it raises. `again` is told the error and the coming pause in seconds. Raises the last
    error once `patience` seconds are over.
    """
    begun = time.monotonic()
    timeout = settings.LOCK_TIMEOUT / 1000
    pause = timeout / 4
    while True:
        tried = time.monotonic()
        try:
            return action()
        except OperationalError as error:
            now = time.monotonic()
            left = begun + patience - now
            if sqlstate(error) not in LOCKED_OUT or left <= 0:
                raise
            # Others get at least as long as they waited behind this try.
            wait = min(max(random.uniform(pause / 2, pause), random.uniform(1, 1.2) * min(now - tried, timeout)), left)
            again(error, wait)
        time.sleep(wait)
        pause = min(pause * 2, 3 * timeout)
