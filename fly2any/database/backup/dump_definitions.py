"""The definitions that pg_dump reads before it reads rows: what can keep it from them, and what other sessions drop meanwhile.

pg_dump has a snapshot, but the server's functions that print a definition use the current catalogue, and lock what they read. pg_dump
turns lock_timeout off, and its --lock-wait-timeout is only for its LOCK TABLE.
"""

from __future__ import annotations

import re
import threading
import time

from django.conf import settings
from django.db import OperationalError
from psycopg.errors import LockNotAvailable

from ..sql import fetch_all
from ..units import few
from . import tools
from .dump_blockers import Waits

POLL = 0.05  # Seconds.
MOST = 0.9  # The part of the lock timeout that has passed by our clock when pg_dump gives up: its message may be read late.
SHOWN = 3
# Only the detail of a deadlock has the name of a lock mode, which is not translated.
DEADLOCKED = re.compile(r"\bAccessShareLock\b")
# Of an object that was dropped: the server's internal errors, which are not translated, numbers of objects in others, pg_dump's own
# messages, and its query for a sequence before version 17; the role may read all sequences.
DROPPED = re.compile(
    r"could not open relation with OID|cache lookup failed for|\bOID \d|definition of view .* appears to be empty"
    r"|failed to get data for sequence|Query was: SELECT last_value, is_called FROM "
)
# What the snapshot has, and the current catalogue no longer: the functions that ask for an oid use the latter, and return NULL. pg_dump
# reads a function that was dropped without an error, and dumps a definition that no server accepts: whether it is one.
DROPPED_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(d.name) || ' of ' || pg_catalog.pg_get_userbyid(d.owner), d.is_silent
    FROM (SELECT c.relnamespace, c.relname, c.relowner, false FROM pg_catalog.pg_class AS c
          WHERE c.relkind IN ('v', 'm', 'S', 'f') AND pg_catalog.pg_table_is_visible(c.oid) IS NULL
          UNION ALL
          SELECT p.pronamespace, p.proname, p.proowner, true FROM pg_catalog.pg_proc AS p
          WHERE pg_catalog.pg_function_is_visible(p.oid) IS NULL) AS d (namespace, name, owner, is_silent)
    JOIN pg_catalog.pg_namespace AS n ON n.oid = d.namespace
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    ORDER BY 1
"""


class DroppedError(OperationalError):
    """Other sessions dropped objects that pg_dump reads; a new snapshot does not have them."""

    sqlstate = "42704"  # undefined_object


class Definitions:
    """Whether pg_dump has read all definitions, by its messages, which are in English: it locks the tables while it reads which there are."""

    # The message before the locks, how the one after them begins, and how that of the first rows begins.
    LAST, STEP, ROWS = "reading user-defined tables", "reading ", "dumping contents of table "

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.since: float | None = None  # When pg_dump began to read the tables.
        self.is_locked = False
        self.is_read = threading.Event()

    def read(self, line: str) -> None:
        if line.startswith(self.ROWS):
            self.is_read.set()
        elif self.since is None and line.startswith(self.LAST):
            self.since = time.monotonic()
        elif self.since is not None and line.startswith(self.STEP):
            self.is_locked = True

    def require(self, connection, dump: tools.Running, waits: Waits) -> None:
        """Wait until pg_dump has read the definitions, or ended; `connection` has its snapshot.

        Raises OperationalError with the SQLSTATE of a lock timeout if it waits longer than that for a lock, DroppedError if other
        sessions dropped what it reads, Refusal with its message if it failed for another reason.
        """
        while not self.is_read.wait(POLL) and (code := dump.process.poll()) is None:
            if waits.seconds(self.begun) >= settings.LOCK_TIMEOUT / 1000:
                raise locked_out(waits)
        if not self.is_read.is_set():
            dump.reader.join(10)  # Its last messages.
        if self.is_read.is_set() or not code:
            if dropped := _dropped(connection, only_silent=True):
                raise DroppedError(dropped)
            return
        if self._gave_up() or any(map(DEADLOCKED.search, dump.errors)):
            raise locked_out(waits)
        if any(map(DROPPED.search, dump.errors)):
            raise DroppedError(_dropped(connection) or dump.failure())
        dump.finish()

    def _gave_up(self) -> bool:
        waited = 0.0 if self.since is None else time.monotonic() - self.since
        return not self.is_locked and waited >= settings.LOCK_TIMEOUT / 1000 * MOST


def locked_out(waits: Waits) -> OperationalError:
    """Return the error of a lock that pg_dump did not get."""
    error = OperationalError(f"pg_dump did not get {f'its lock on {waits.name}' if waits.name else 'the locks of all tables'}")
    error.__cause__ = LockNotAvailable()
    return error


def _dropped(connection, *, only_silent: bool = False) -> str:
    """Return the objects in the snapshot of `connection` that no longer exist, with their owners; "" if there are none."""
    return few([name for name, is_silent in fetch_all(connection, DROPPED_SQL) if is_silent or not only_silent], SHOWN)


def of_dropped(error: DroppedError) -> str:
    """Return the sentence for objects that were dropped at each attempt."""
    return (
        f"Other sessions drop or rename objects while pg_dump reads the definitions ({error}), at each attempt, so no backup was taken: run the command"
        " when they have ended, or keep the role from it (ALTER ROLE … NOLOGIN, and end its sessions)."
    )
