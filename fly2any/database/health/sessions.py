"""Connections, locks and transactions: what sessions hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ..diagnosis import Refusal
from ..findings import Finding, Severity
from ..locks import ACTIVITY, read_activity, without_literals
from ..units import share, span
from .examine import Figure, Reader

CONNECTIONS_SQL = """
    SELECT count(*) AS used, count(*) FILTER (WHERE state = 'active') AS active,
           count(*) FILTER (WHERE state LIKE 'idle in transaction%%') AS idle_in_transaction,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS "limit"
    FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'
"""
BLOCKED_SQL = """
    SELECT waiting.pid, holder.pid AS by, COALESCE(holder.application_name, '') AS application, COALESCE(holder.usename, '') AS role,
           COALESCE(holder.state, '') AS state, holder.query, waiting.query AS waits_for,
           COALESCE(now() - l.waitstart, now() - waiting.query_start) AS since
    FROM pg_catalog.pg_stat_activity AS waiting
    CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking (pid)
    JOIN pg_catalog.pg_stat_activity AS holder ON holder.pid = blocking.pid
    LEFT JOIN (SELECT pid, min(waitstart) AS waitstart FROM pg_catalog.pg_locks WHERE NOT granted GROUP BY pid) AS l ON l.pid = waiting.pid
    WHERE waiting.wait_event_type = 'Lock' AND waiting.datname = current_database()
    ORDER BY since DESC, waiting.pid, holder.pid
"""
LONG_SQL = """
    SELECT pid, COALESCE(application_name, '') AS application, COALESCE(usename, '') AS role, state, query,
           now() - xact_start AS age, CASE WHEN state LIKE 'idle in transaction%%' THEN now() - state_change END AS idle
    FROM pg_catalog.pg_stat_activity
    WHERE xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()
    ORDER BY xact_start
"""
PREPARED_SQL = """
    SELECT gid, owner, now() - prepared AS age FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
"""
TERMINATE_SQL = "SELECT pg_catalog.pg_terminate_backend(%(pid)s, 5000)"
SESSION_SQL = f"""
    SELECT {ACTIVITY} FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid = %(pid)s AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend'
"""


def connections(read: Reader, *, near: float = 0.8) -> Iterator[Figure | Finding]:
    """How many connections there are, of how many."""
    row = read.one(CONNECTIONS_SQL)
    yield Figure("connections", f"{row.used} of {row.limit}, {row.active} active", row.used, "connections")
    yield Figure("limit", str(row.limit), row.limit, "connections_limit", shown=False)
    yield Figure(
        "idle in a transaction", str(row.idle_in_transaction), row.idle_in_transaction, "connections_idle_in_transaction"
    )
    if row.used > near * row.limit:
        yield Finding(
            Severity.WARNING,
            "connections.near_limit",
            "max_connections",
            f"{row.used} of {row.limit} connections are in use, more than {share(near)}.",
            "Find who holds them (`SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1`), use a pooler, or raise max_connections.",
        )


def locks(read: Reader, *, longest: timedelta = timedelta(seconds=10)) -> Iterator[Figure | Finding]:
    """Who waits for whom, and since when."""
    rows = read(BLOCKED_SQL)
    waiting = len({row.pid for row in rows})
    yield Figure("sessions that wait for a lock", str(waiting), waiting, "sessions_waiting")
    for row in rows:
        waits, held = without_literals(row.waits_for or ""), without_literals(row.query or "")
        if row.since is not None and row.since > longest:
            yield Finding(
                Severity.ERROR,
                "locks.blocked",
                f"session {row.pid}",
                f"It has waited {span(row.since)} (limit {span(longest)}) with “{waits}” for session {row.by}"
                f" ({row.application or 'unnamed'}, {row.role}, {row.state}: “{held}”).",
                f"manage.py dbhealth locks --terminate {row.by} --yes",
            )


def transactions(
    read: Reader, *, longest: timedelta = timedelta(hours=1), idle: timedelta = timedelta(minutes=5)
) -> Iterator[Figure | Finding]:
    """Transactions that keep vacuum from removing dead rows, and locks from being given."""
    rows = read(LONG_SQL)
    oldest = rows[0].age if rows else timedelta()
    yield Figure("oldest transaction", span(oldest), oldest.total_seconds(), "oldest_transaction_seconds")
    for row in rows:
        where, query = f"session {row.pid}", without_literals(row.query or "")
        whose = f"{row.application or 'unnamed'}, {row.role}: “{query}”"
        cure = f"manage.py dbhealth transactions --terminate {row.pid} --yes"
        if row.idle is not None and row.idle > idle:
            yield Finding(
                Severity.WARNING,
                "transactions.idle",
                where,
                f"Its transaction has been idle for {span(row.idle)} (limit {span(idle)}): {whose}.",
                cure,
            )
        elif row.age > longest:
            yield Finding(
                Severity.WARNING,
                "transactions.long",
                where,
                f"Its transaction is {span(row.age)} old (limit {span(longest)}): {whose}.",
                cure,
            )
    for row in read(PREPARED_SQL):
        if row.age > idle:
            yield Finding(
                Severity.ERROR,
                "transactions.prepared",
                row.gid,
                f"It was prepared {span(row.age)} ago by {row.owner} and never ended, and holds its locks even over a restart.",
                f"ROLLBACK PREPARED '{row.gid}', or COMMIT PREPARED, as its owner decides.",
            )


def end(connection, pid: int, *, really: bool) -> str:
    """End the session `pid`, where `really`, and return a sentence; raise Refusal where there is no such session."""
    found = read_activity(connection, SESSION_SQL, pid=pid)
    if not found:
        raise Refusal(f"There is no session {pid}: it is over, or it is one of the server's own.")
    if not really:
        return f"Nothing was done. --yes ends {found[0]}: its transaction is undone."
    with connection.cursor() as cursor:
        cursor.execute(TERMINATE_SQL, {"pid": pid})
        if not cursor.fetchone()[0]:
            raise Refusal(
                f"The session {pid} was told to end and has not within 5 s: look again with `manage.py dbhealth locks`."
            )
    return f"Ended {found[0]}: its transaction is undone."
