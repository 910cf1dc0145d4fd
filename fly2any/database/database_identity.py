"""The identity of a database and of its server, by which backups and archives know whose they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from .sql import catalogue

CLUSTER_SQL = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
# A standby gets its transaction IDs from its primary, whose start it does not know.
MAY_ASK_SQL = """
    SELECT d.datname, d.oid::bigint, pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
           CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_postmaster_start_time() END,
           pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint
    FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
"""


@dataclass(frozen=True, slots=True)
class Run:
    """When a primary was started, and its next transaction ID: they tell a server from a copy of it that runs too."""

    started: Annotated[datetime, Meta(tz=True)]
    transaction: Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Origin:
    """A database, its server's system identifier, "" if the role may not ask for it, its oid there, and the server's address.

    A database that is dropped and created again, or restored, has another oid. A physical copy of a server has another address,
    which is "" for the embedded one, unless the address is local to its machine.
    """

    database: str
    cluster: str
    oid: int
    place: str = ""
    run: Run | None = field(default=None, compare=False)  # None on a standby.

    def ran_at(self, time: datetime, run: Run | None) -> bool:
        """Return whether `run`, of a server that ran at that time, may be one of this server: none of its runs overlap."""
        return self.run is None or run is None or run.started == self.run.started or time <= self.run.started


def read_origin(connection) -> Origin:
    """Return the identity of the database; a physical copy of a server has the same identity, usually at another address."""
    values = connection.settings_dict
    direct = values.get("DIRECT") or values
    place = "" if values.get("EMBEDDED") else f"{direct['HOST']}:{direct['PORT'] or 5432}"
    with catalogue(connection) as cursor:
        cursor.execute(MAY_ASK_SQL)
        database, oid, may_ask, started, transaction = cursor.fetchone()
        run = Run(started, transaction) if started else None
        if not may_ask:
            return Origin(database, "", oid, place, run)
        cursor.execute(CLUSTER_SQL)
        return Origin(database, cursor.fetchone()[0], oid, place, run)
