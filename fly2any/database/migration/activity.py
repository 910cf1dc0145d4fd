"""Sessions that hold or wait for an advisory lock, and sessions that block others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ..redaction import without_literals
from ..sql import fetch_all, literal
from ..terminal_text import one_line

PREPARED = "a prepared transaction, which `SELECT gid, prepared, owner FROM pg_prepared_xacts` names"
ROLLBACK_PREPARED = "ROLLBACK PREPARED '…' or COMMIT PREPARED '…' with its gid, after asking its owner."

HASHING = "fly2any dbbackup"  # The application name of the session that reads the rows beside pg_dump.
# Whether the session `a` runs VACUUM, whose snapshot other runs of VACUUM ignore, or builds an index without blocking writes.
VACUUMS_SQL = "EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum AS v WHERE v.pid = a.pid)"
BUILDS_SQL = """
    EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS b WHERE b.pid = a.pid AND b.command LIKE '%%CONCURRENTLY')
"""
# Whether the session `a` is of a program that takes backups: any client can have its name, but only reads hold no stronger lock on a table.
BACKS_UP_SQL = f"""
    (a.application_name IN ('pg_dump', 'pg_dumpall', {literal(HASHING)}) AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_locks AS k
        WHERE k.pid = a.pid AND k.locktype = 'relation' AND k.granted AND k.mode NOT IN ('AccessShareLock', 'SIReadLock')
          AND k.relation NOT IN (SELECT q.seqrelid FROM pg_catalog.pg_sequence AS q)))
"""
LONGEST_BACKUP = timedelta(days=1)  # Until then a backup may take its time.

ACTIVITY = """
    COALESCE(a.pid, 0) AS pid, a.application_name AS application, a.usename AS role, a.state,
    now() - COALESCE(CASE WHEN a.state LIKE 'idle in%%' THEN a.state_change END, a.xact_start, a.backend_start) AS age,
    NULLIF(left(a.query, 500), '<insufficient privilege>') AS query
"""

ADVISORY = """
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
"""
ON_LOCK = f"{ADVISORY} AND l.classid = 0::oid AND l.objid = %(lock)s::oid AND l.objsubid = 1::smallint"

HOLDER_SQL = f"""
    SELECT {ACTIVITY}
    {ON_LOCK} AND l.granted
    ORDER BY a.pid
"""

# Of a lock with two keys, the first being `lock`.
HOLDERS_OF_TWO_KEYS_SQL = f"""
    SELECT {ACTIVITY}
    {ADVISORY} AND l.classid = %(lock)s::oid AND l.objsubid = 2::smallint AND l.granted
    ORDER BY a.pid
"""

WAITERS_SQL = f"""
    SELECT {ACTIVITY}
    {ON_LOCK} AND NOT l.granted
    ORDER BY a.pid
"""

MAY_SIGNAL_SQL = """
    ((pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))
     AND (SELECT pg_catalog.bool_or(rolsuper AND rolname = current_user) OR NOT pg_catalog.bool_or(rolsuper AND oid = a.usesysid)
          FROM pg_catalog.pg_roles))
"""
# The sessions in the given databases that this role may not terminate.
UNENDING_SQL = f"""
    SELECT {ACTIVITY} FROM pg_catalog.pg_stat_activity AS a
    WHERE a.datname = ANY (%(databases)s) AND a.usesysid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() AND NOT {MAY_SIGNAL_SQL}
    ORDER BY a.pid
"""

# Prisma's CLI gives up after 10 s, but its backend keeps waiting in pg_advisory_lock.
CANCEL_WAITERS_SQL = f"""
    SELECT CASE WHEN {MAY_SIGNAL_SQL}
                THEN pg_catalog.pg_cancel_backend(a.pid) ELSE false END,
           {ACTIVITY}
    {ON_LOCK} AND NOT l.granted AND (%(blocked)s::integer IS NULL OR a.pid = ANY (pg_catalog.pg_blocking_pids(%(blocked)s)))
    ORDER BY a.pid
"""

# The prepared transactions that hold a lock for which the session {pid} waits. Their locks have no pid; one of them is on their transaction ID.
PREPARED_HOLDERS_SQL = """
    SELECT x.gid::text AS gid
    FROM pg_catalog.pg_locks AS w
    JOIN (VALUES ('AccessShareLock', '{{AccessExclusiveLock}}'::text[]),
                 ('RowShareLock', '{{AccessExclusiveLock,ExclusiveLock}}'),
                 ('RowExclusiveLock', '{{AccessExclusiveLock,ExclusiveLock,ShareRowExclusiveLock,ShareLock}}'),
                 ('ShareUpdateExclusiveLock',
                  '{{AccessExclusiveLock,ExclusiveLock,ShareRowExclusiveLock,ShareLock,ShareUpdateExclusiveLock}}'),
                 ('ShareLock',
                  '{{AccessExclusiveLock,ExclusiveLock,ShareRowExclusiveLock,ShareUpdateExclusiveLock,RowExclusiveLock}}'),
                 ('ShareRowExclusiveLock',
                  '{{AccessExclusiveLock,ExclusiveLock,ShareRowExclusiveLock,ShareLock,ShareUpdateExclusiveLock,RowExclusiveLock}}'),
                 ('ExclusiveLock',
                  '{{AccessExclusiveLock,ExclusiveLock,ShareRowExclusiveLock,ShareLock,ShareUpdateExclusiveLock,RowExclusiveLock,RowShareLock}}'),
                 ('AccessExclusiveLock', NULL)) AS c (wanted, held) ON c.wanted = w.mode
    JOIN pg_catalog.pg_locks AS h ON h.granted AND h.pid IS NULL AND (c.held IS NULL OR h.mode = ANY (c.held))
     AND (h.locktype, h.database, h.relation, h.page, h.tuple, h.virtualxid, h.transactionid, h.classid, h.objid, h.objsubid)
         IS NOT DISTINCT FROM
         (w.locktype, w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid)
    JOIN pg_catalog.pg_locks AS own ON own.locktype = 'transactionid' AND own.granted AND own.pid IS NULL
     AND own.virtualtransaction = h.virtualtransaction
    JOIN pg_catalog.pg_prepared_xacts AS x ON x.transaction = own.transactionid
    WHERE w.pid = {pid} AND NOT w.granted
"""

# A prepared transaction has no session, so its pid is 0.
BLOCKERS_SQL = f"""
    SELECT DISTINCT ON (blocking.pid, held.gid) {ACTIVITY}, held.gid
    FROM unnest(pg_catalog.pg_blocking_pids(%(pid)s)) AS blocking (pid) LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
    LEFT JOIN LATERAL ({PREPARED_HOLDERS_SQL.format(pid="%(pid)s")}) AS held ON blocking.pid = 0
    WHERE a.pid IS NOT NULL OR blocking.pid = 0
    ORDER BY blocking.pid, held.gid
"""


@dataclass(frozen=True, slots=True)
class Activity:
    """The activity of a session, or a prepared transaction, whose `pid` is 0 and whose name is `gid`.

    `age` is that of its state, its transaction or itself, None if this role may not see it.
    """

    pid: int
    application: str | None
    role: str | None
    state: str | None
    age: timedelta | None
    query: str | None
    gid: str | None = None

    def __str__(self) -> str:
        if not self.pid:
            return describe_prepared(self.gid)
        words = [self.application or "no application name"]
        if self.role:  # A server process has none.
            words.append(f"role {self.role}")
        if self.state and self.age is not None:
            words.append(f"{self.state} for {self.age.total_seconds():.0f} s")
        query = without_literals(self.query or "")
        return one_line(f"pid {self.pid} ({', '.join(words)}{': ' + query if query else ''})")


def read_activity(connection, statement: str, **parameters) -> tuple[Activity, ...]:
    """Return the sessions that a statement lists: their columns are ACTIVITY, and perhaps a gid."""
    return tuple(Activity(*row) for row in fetch_all(connection, statement, parameters))


def cancel_waiters(cursor, lock: int, *, blocked: int | None = None) -> tuple[tuple[Activity, ...], tuple[Activity, ...]]:
    """Cancel the statements that wait for the advisory lock `lock`; return those cancelled, and those this role may not cancel.

    `blocked`: only those that the session of this process id waits for.
    """
    cursor.execute(CANCEL_WAITERS_SQL, {"lock": lock, "blocked": blocked})
    waiting = [(cancelled, Activity(*row)) for cancelled, *row in cursor.fetchall()]
    return tuple(one for cancelled, one in waiting if cancelled), tuple(one for cancelled, one in waiting if not cancelled)


def terminate(one: Activity) -> str:
    """Return the command that ends a session or a prepared transaction, for psql or `manage.py dbshell`."""
    return f"SELECT pg_terminate_backend({one.pid});" if one.pid else roll_back_prepared(one.gid)


def describe_prepared(gid: str | None) -> str:
    """Return a phrase for a prepared transaction, whose name may be unknown."""
    return one_line(f"the prepared transaction {gid}") if gid else PREPARED


def roll_back_prepared(gid: str | None) -> str:
    """Return the command that ends a prepared transaction, whose name may be unknown."""
    return (
        f"ROLLBACK PREPARED {literal(gid)} or COMMIT PREPARED {literal(gid)}, after asking its owner."
        if gid
        else ROLLBACK_PREPARED
    )
