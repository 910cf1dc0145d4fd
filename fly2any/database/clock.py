"""The database server's clock, by which ages are measured; retention/clock_check.py checks it against older records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .errors import Refusal, explain
from .findings import Finding, Severity
from .units import span

LIMIT = timedelta(minutes=5)
TIME = "pg_catalog.clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of the database server and that of this machine, read at the same moment."""

    server: datetime
    client: datetime

    @property
    def agrees(self) -> bool:
        return abs(self.client - self.server) <= LIMIT

    @property
    def difference(self) -> str:
        return (
            f"The clock of the database server ({self.server:%Y-%m-%d %H:%M:%S} UTC) and that of this machine"
            f" ({self.client:%Y-%m-%d %H:%M:%S} UTC) differ by {span(abs(self.client - self.server))} (limit {span(LIMIT)})"
        )

    def now(self) -> datetime:
        """Return the server's current time, without another query."""
        return datetime.now(UTC) - (self.client - self.server)

    def findings(self) -> Iterator[Finding]:
        if not self.agrees:
            yield Finding(
                Severity.WARNING,
                "server.clock",
                "clock",
                f"{self.difference}.",
                "Correct the clock that is wrong (`timedatectl set-ntp true`): until then, retention and `dbbackup --prune` remove nothing.",
            )


def read_clock(connection) -> Clock:
    """Return both times, this machine's at the middle of the query."""
    connection.ensure_connection()
    with connection.cursor() as cursor:
        before = datetime.now(UTC)
        cursor.execute(f"SELECT {TIME}")
        return since(before, cursor.fetchone()[0])


def since(before: datetime, server: datetime) -> Clock:
    """Return the clock of a query that began at `before` by this machine's time, has just ended and returned the time `server`."""
    return Clock(server.astimezone(UTC), before + (datetime.now(UTC) - before) / 2)


def time_or_own(connection) -> tuple[datetime, str]:
    """Return the server's time and "", or this machine's time and why the server cannot be queried."""
    try:
        return read_clock(connection).now(), ""
    except Exception as error:
        if (reason := explain(error)) is None:
            raise
        return datetime.now(UTC), reason


def server_time(connection) -> datetime:
    """Return the server's time; raise Refusal if this machine's differs by more than LIMIT: one of the two is wrong."""
    clock = read_clock(connection)
    if not clock.agrees:
        raise Refusal(
            f"{clock.difference}, so the age of backups and rows is not known: correct the clock that is wrong"
            " (`timedatectl set-ntp true`), then run the command again."
        )
    return clock.server
