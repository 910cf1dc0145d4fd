"""The use of indexes by queries on standbys, which the statistics of the primary do not count."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from django.db import DEFAULT_DB_ALIAS, Error, connections

from ..schema.sizes_and_use import read_index_use
from ..sql import fetch_one, pinned
from .examine import DEADLINE, OF_LOCK, Reader

# The standbys that are connected or have a slot; a subscription is none.
STANDBYS_SQL = """
    SELECT pg_catalog.pg_is_in_recovery() AS here,
           GREATEST((SELECT count(*) FROM pg_catalog.pg_stat_replication AS r WHERE r.state IS DISTINCT FROM 'backup' AND NOT EXISTS (
                         SELECT FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_type = 'logical' AND s.active_pid = r.pid)),
                    (SELECT count(*) FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_type = 'physical' AND NOT s.temporary)) AS number
"""
COUNTED_SQL = """
    SELECT pg_catalog.pg_is_in_recovery(),
           pg_catalog.now() - GREATEST(COALESCE(s.stats_reset, pg_catalog.pg_postmaster_start_time()), a.stats_reset)
    FROM pg_catalog.pg_stat_database AS s, pg_catalog.pg_stat_archiver AS a WHERE s.datname = pg_catalog.current_database()
"""


@dataclass(frozen=True, slots=True)
class StandbyUse:
    used: frozenset[str] = field(default=frozenset())  # Indexes that a standby's queries used.
    complete: bool = True  # Whether every other server was asked, and has counted long enough.


def read_standby_use(read: Reader, *, young: timedelta) -> StandbyUse:
    """Return what the replica of POSTGRES_REPLICA_URL counts, and whether there are servers that were not asked."""
    row = read.one(STANDBYS_SQL)
    if row.here or read.connection.alias != DEFAULT_DB_ALIAS or "replica" not in connections.settings:
        return StandbyUse(complete=not row.here and not row.number)
    replica = connections["replica"]
    try:
        with pinned(replica, lock=OF_LOCK, statement=DEADLINE):
            is_standby, age = fetch_one(replica, COUNTED_SQL)
            uses = read_index_use(replica, schema=read.schema)
    except Error:
        replica.close()
        return StandbyUse(complete=False)
    asked = int(is_standby)
    used = frozenset(use.name for use in uses if use.scans) if is_standby else frozenset()
    return StandbyUse(used, row.number <= asked and (not asked or age >= young))
