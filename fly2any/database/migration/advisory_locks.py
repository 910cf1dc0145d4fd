"""Advisory locks: one change of the schema, one run of maintenance, and one erasure of a person at a time.

run.py takes the first for `migrate`; dbadopt, dbreset, dbdistribute, flush and loaddata take it too. dbmaintain and `dbrestore --archive`
take the second, person/erase.py the third.

The key of the sign-ins' lock, which administration/backends.py takes, is here so that all keys are in one place.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from django.db import Error

from ..errors import Refusal
from ..marked_databases import refuse_during_restore
from ..schema.relation_kinds import refuse_on_worker
from ..sql import ALIVE, ask, execute
from .activity import HOLDER_SQL, read_activity, terminate

# The keys of all advisory locks that this project takes. Never reuse or renumber one.
MIGRATION_LOCK = 72707369  # Prisma's own: `prisma migrate deploy` and we exclude each other.
MAINTENANCE_LOCK = 72707370
ERASURE_LOCK = 72707371
SIGN_IN_LOCK = 14_102  # The first of two keys; the second is a hash of the user name and the network.
NAMES = {MIGRATION_LOCK: "migration", MAINTENANCE_LOCK: "maintenance", ERASURE_LOCK: "erasure"}

# Settings of the session that holds a lock: it is idle while a file is stored or a backup is read.
HOLDING = {**ALIVE, "idle_session_timeout": "0"}
PATIENCE = 300  # Seconds in total for an advisory lock, and for retries of the locks of statements.


@contextmanager
def advisory_lock(connection, lock: int, *, patience: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the advisory lock `lock` inside, in order to write; `say` gets a sentence about each session that holds it.

    Raises Refusal when it is not free within `patience` seconds, while a restore is about to replace the database, and on a worker of Citus.
    """
    refuse_on_worker(connection)
    with _held(connection, lock, patience=patience, say=say):
        refuse_during_restore(connection)
        yield


def wait_for_writers(connection, *, patience: float, say: Callable[[str], None]) -> None:
    """Wait until every run that took a lock before a restore was marked has ended; later ones see the mark, and refuse.

    Raises Refusal if one takes longer than `patience` seconds.
    """
    for lock in NAMES:
        with _held(connection, lock, patience=patience, say=say):
            pass


@contextmanager
def _held(connection, lock: int, *, patience: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold an advisory lock. If this machine is lost, the server ends the session after 90 s (ALIVE), which releases the lock.

    It is polled, because a session inside pg_advisory_lock and a CREATE INDEX CONCURRENTLY would wait for each other.
    """
    execute(connection, "; ".join(f"SET {name} TO '{value}'" for name, value in HOLDING.items()))
    deadline = time.monotonic() + patience
    reported: int | None = None
    while not ask(connection, "SELECT pg_catalog.pg_try_advisory_lock(%s)", [lock]):
        holder = next(iter(read_activity(connection, HOLDER_SQL, lock=lock)), None)
        if holder is not None and holder.pid != reported:
            say(f"Waiting for the {NAMES[lock]} lock, held by {holder} …")
            reported = holder.pid
        if time.monotonic() >= deadline:
            held = f" by {holder}" if holder else ""
            cure = f" (or end that session: {terminate(holder)})" if holder else ""
            raise Refusal(
                f"The {NAMES[lock]} lock is still held{held} after {patience:.0f} s: run the command again when it is released{cure}."
            )
        time.sleep(random.uniform(0.1, 0.5))
    try:
        yield
    finally:
        with suppress(Error):  # A lost connection has released the lock.
            ask(connection, "SELECT pg_catalog.pg_advisory_unlock(%s)", [lock])
            execute(connection, "; ".join(f"RESET {name}" for name in HOLDING))


def hold(connection, lock: int) -> None:
    """Hold the advisory lock `lock` until the transaction ends, in order to write.

    Raises Refusal if another session holds it, on a worker of Citus, and while a restore is about to replace the database.
    """
    refuse_on_worker(connection)
    if not ask(connection, "SELECT pg_catalog.pg_try_advisory_xact_lock(%s)", [lock]):
        holder = next(iter(read_activity(connection, HOLDER_SQL, lock=lock)), None)
        held = f" by {holder}" if holder else ""
        raise Refusal(f"Nothing was changed. The {NAMES[lock]} lock is held{held}: try again when it is released.")
    refuse_during_restore(connection)
