"""What keeps VACUUM from removing dead rows: the oldest snapshot that a session, a prepared transaction or a replica needs."""

from __future__ import annotations

from ..migration.activity import BACKS_UP_SQL, BUILDS_SQL, LONGEST_BACKUP, VACUUMS_SQL, describe_prepared, roll_back_prepared
from ..schema.sizes_and_use import Extent
from .examine import Reader

# A transaction in another database does not count, but a slot or a standby of any does. The xmin of a logical slot is that of the
# system catalogues, catalog_xmin. A role without pg_read_all_stats sees only slots and prepared transactions.
HOLDERS_SQL = f"""
    SELECT h.kind, h.name, h.age, h.active, h.since
    FROM (SELECT 'slot' AS kind, s.slot_name::text AS name, pg_catalog.age(s.xmin) AS age, s.active, NULL::timestamptz AS since
          FROM pg_catalog.pg_replication_slots AS s WHERE s.xmin IS NOT NULL
          UNION ALL
          SELECT 'prepared', p.gid, pg_catalog.age(p.transaction), false, p.prepared
          FROM pg_catalog.pg_prepared_xacts AS p WHERE p.database = current_database()
          UNION ALL
          SELECT CASE WHEN a.datid IS NULL THEN 'standby' ELSE 'copy' END,
                 COALESCE(NULLIF(r.application_name, ''), r.client_addr::text, 'a local socket'), pg_catalog.age(r.backend_xmin), true, a.xact_start
          FROM pg_catalog.pg_stat_replication AS r LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid) WHERE r.backend_xmin IS NOT NULL
          UNION ALL
          SELECT CASE WHEN {BACKS_UP_SQL}
                       AND a.xact_start > now() - pg_catalog.make_interval(days => {LONGEST_BACKUP.days}) THEN 'backup'
                      WHEN {BUILDS_SQL} THEN 'build' ELSE 'session' END, a.pid::text, GREATEST(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid)), true, a.xact_start
          FROM pg_catalog.pg_stat_activity AS a
          WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid() AND NOT {VACUUMS_SQL}
            AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)) AS h
    ORDER BY h.age DESC, h.active, h.kind, h.name LIMIT 1
"""
OLD = 100_000  # Transactions: the snapshot of a busy standby is younger.
# Sessions to wait for: what each is, and when it is over.
WAITS = {
    "backup": (", a backup", "backup ends"),
    "build": (", which builds an index", "index is built"),
    "copy": (", which copies rows to a subscriber", "copy ends"),  # The sender of a standby is in no database.
}


def read_holder(read: Reader):
    """Return the holder of the oldest snapshot, None without one."""
    return next(iter(read(HOLDERS_SQL)), None)


def holds_back(holder, table: Extent) -> bool:
    """Return whether `holder` is known to be older than dead rows of `table`, rather than at work for a moment."""
    if holder is None or not holder.active:
        return holder is not None
    if holder.since is None:
        return holder.age > OLD
    return table.vacuumed is not None and holder.since < table.vacuumed


def describe(holder) -> str:
    if holder.kind == "prepared":
        return describe_prepared(holder.name)
    unread = "" if holder.active or holder.kind != "slot" else ", which no client reads"
    if holder.kind in ("session", *WAITS):
        return f"session {holder.name}{WAITS.get(holder.kind, ('',))[0]}"
    return f"the {'replication slot' if holder.kind == 'slot' else holder.kind} {holder.name}{unread}"


def end(holder) -> str:
    """Return what ends the hold."""
    if holder.kind == "prepared":
        return roll_back_prepared(holder.name)
    if holder.kind in WAITS:
        return f"Wait until the {WAITS[holder.kind][1]}."
    if holder.kind == "session":
        return f"Run `manage.py dbhealth transactions --terminate {holder.name} --yes`."
    if holder.active:
        return "End the long query on the standby, or set hot_standby_feedback to off there."
    return f"Start its replica again, or SELECT pg_drop_replication_slot('{holder.name}');"
