"""Limits how long a client waits for a server: without a limit, it waits forever if the host is gone or the pooler hangs.

The server's own limits do not apply then, and TCP keeps a connection for hours, or as long as a proxy acknowledges it.

administration/deadlines.py sets the limits of pages. url.py has the keepalives of the client, database/sql.py (ALIVE) those that our
long sessions ask of the server.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from psycopg import Connection, OperationalError
from psycopg.pq import TransactionStatus

# Seconds for a response where no `at_most` sets fewer: long enough for any statement there, so only a lost server exceeds it.
RESPONSE = 90

_usual: float | None = None
_here: ContextVar[float | None] = ContextVar("seconds", default=None)


def limit_every_wait(seconds: float = RESPONSE) -> None:
    """Limit this process's wait for each response of a server to `seconds`, except inside `at_most`.

    Past them the connection is closed, and psycopg's OperationalError is raised.
    """
    global _usual
    _usual = seconds


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Limit the wait for each response inside to `seconds`, which must exceed the statement timeout there."""
    token = _here.set(seconds)
    try:
        yield
    finally:
        _here.reset(token)


def limit_waits(connection: Connection) -> None:
    """Apply this module's limit to a psycopg connection."""
    itself: Any = weakref.ref(connection)  # A weak reference, so that a dropped connection is closed at once.
    usual = type(connection).wait

    def wait(gen, *arguments, **options):
        connection = itself()
        try:
            return usual(connection, gen, *arguments, **{"timeout": _here.get() or _usual, **options})
        except OperationalError:
            if (
                connection.info.transaction_status == TransactionStatus.ACTIVE
            ):  # A late response could be taken for that of the next query.
                connection.close()
            raise

    connection.wait = wait  # type: ignore[method-assign]
