"""Connections, locks and transactions: what sessions hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ..errors import Refusal
from ..findings import Finding, Severity
from ..migration.activity import (
    ACTIVITY,
    BACKS_UP_SQL,
    BUILDS_SQL,
    HOLDER_SQL,
    LONGEST_BACKUP,
    PREPARED_HOLDERS_SQL,
    VACUUMS_SQL,
    WAITERS_SQL,
    describe_prepared,
    read_activity,
    roll_back_prepared,
)
from ..migration.advisory_locks import NAMES
from ..redaction import without_literals
from ..server import CONNECTIONS_SQL, MARKING_TABLE
from ..sql import PEOPLE, fetch_one, literal, quote
from ..units import plural, share, span
from .examine import Figure, Reader

# From pg_locks, which every role can read in full. pg_blocking_pids() also names the sessions that are ahead in the queue, so `chain`
# begins with those that wait for no lock. Nothing leads to a deadlock, which the server ends itself.
BLOCKED_SQL = f"""
    WITH RECURSIVE waiting AS (
        SELECT pid, min(waitstart) AS start, bool_or(locktype = 'virtualxid') AS of_transaction,
               bool_and(locktype = 'advisory' AND NOT (classid = 0::oid AND objsubid = 1::smallint AND objid IN ({", ".join(f"{lock}::oid" for lock in NAMES)})))
               AS is_advisory
        FROM pg_catalog.pg_locks WHERE NOT granted AND pid IS NOT NULL GROUP BY pid
    ), waits AS MATERIALIZED (
        SELECT waiting.pid, blocking.pid AS by, held.gid
        FROM waiting CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking (pid)
        LEFT JOIN LATERAL ({PREPARED_HOLDERS_SQL.format(pid="waiting.pid")}) AS held ON blocking.pid = 0
    ), chain AS (
        SELECT by, gid, pid FROM waits WHERE by NOT IN (SELECT pid FROM waits)
        UNION
        SELECT chain.by, chain.gid, waits.pid FROM chain JOIN waits ON waits.by = chain.pid
    )
    SELECT chain.pid, chain.by, chain.gid, COALESCE(holder.application_name, '') AS application, COALESCE(holder.usename, '') AS role,
           COALESCE(holder.backend_type <> 'client backend', holder.usesysid IS NULL) AS is_process,
           EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = chain.by AND ({VACUUMS_SQL} OR {BUILDS_SQL})) AS maintains,
           EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = chain.by AND {BACKS_UP_SQL}) AS backs_up,
           COALESCE(holder.state, '') AS state, holder.query, a.query AS waits_for, COALESCE(now() - waiting.start, now() - a.query_start) AS since,
           waiting.of_transaction, waiting.is_advisory, COALESCE(holder.xact_start <= COALESCE(waiting.start, a.query_start), false) AS in_one_transaction,
           EXISTS (SELECT FROM waits WHERE waits.pid = chain.pid AND waits.by = chain.by) AS is_direct
    FROM chain JOIN waiting USING (pid) JOIN pg_catalog.pg_stat_activity AS a USING (pid)
    LEFT JOIN pg_catalog.pg_stat_activity AS holder ON holder.pid = chain.by
    WHERE a.datname = current_database() AND (holder.pid IS NOT NULL OR chain.by = 0)
    ORDER BY since DESC NULLS LAST, chain.pid, chain.by, chain.gid
"""
# The limits of other roles that write too: only a session of such a role would notice that its own is reached.
# Whether the role `r` signs in and may write our tables, as the site's; superusers excluded.
WRITES_SQL = f"""
    r.rolcanlogin AND NOT r.rolsuper AND EXISTS (
        SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = {literal(MARKING_TABLE)} AND c.relkind IN ('r', 'p')
          AND pg_catalog.has_table_privilege(r.oid, c.oid, 'INSERT'))
"""
LIMITS_SQL = CONNECTIONS_SQL.format(others=WRITES_SQL)
MOST_EXPIRING = 2  # Of more roles, a program creates each for a short time.
# The role of the connection, and those that own or read our people, superusers excluded.
EXPIRING_SQL = f"""
    SELECT r.rolname AS name, r.rolvaliduntil AS until, r.rolvaliduntil <= now() AS expired,
           r.rolname = session_user OR c.relowner = r.oid AS is_ours
    FROM pg_catalog.pg_roles AS r
    LEFT JOIN (pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = %(schema)s)
           ON c.relname = {literal(PEOPLE)} AND c.relkind IN ('r', 'p')
    WHERE r.rolcanlogin AND isfinite(r.rolvaliduntil) AND r.rolvaliduntil < now() + %(longest)s
      AND (r.rolname = session_user
           OR NOT r.rolsuper AND (c.relowner = r.oid OR pg_catalog.has_table_privilege(r.oid, c.oid, 'SELECT')))
    ORDER BY r.rolvaliduntil, r.rolname COLLATE "C"
"""
LONG_SQL = f"""
    SELECT pid, COALESCE(application_name, '') AS application, COALESCE(usename, '') AS role, state, query,
           now() - xact_start AS age, CASE WHEN state LIKE 'idle in transaction%%' THEN now() - state_change END AS idle,
           {BUILDS_SQL} AS builds, {BACKS_UP_SQL} AS backs_up
    FROM pg_catalog.pg_stat_activity AS a
    WHERE xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend' AND datname = current_database()
      AND NOT {VACUUMS_SQL}
    ORDER BY xact_start
"""
# A role without pg_read_all_stats sees neither the kind nor the state of other roles' sessions.
HIDDEN_SQL = """
    SELECT count(*) AS number FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL AND backend_type IS NULL
"""
HIDDEN = "this role cannot see (GRANT pg_monitor)"
UNREADABLE = "<insufficient privilege>"  # The query, for such a role.
PREPARED_SQL = """
    SELECT gid, owner, now() - prepared AS age FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
"""
TERMINATE_SQL = "SELECT pg_catalog.pg_terminate_backend(%(pid)s, 5000)"
SESSION_SQL = f"""
    SELECT {ACTIVITY} FROM pg_catalog.pg_stat_activity AS a
    WHERE a.pid = %(pid)s AND a.pid <> pg_catalog.pg_backend_pid()
      AND a.usesysid IS NOT NULL AND COALESCE(a.backend_type, 'client backend') = 'client backend'
"""


def connections(read: Reader, *, near: float = 0.8, longest: timedelta = timedelta(days=14)) -> Iterator[Figure | Finding]:
    """Report the number of connections, its limit, and roles that soon cannot connect."""
    rows = read(f"{LIMITS_SQL} ORDER BY l.what = 'max_connections' DESC, l.what")
    server = rows[0]
    limit = server.limit - server.reserved
    of = f"; this role cannot see the state of {server.hidden} (GRANT pg_monitor)" if server.hidden else ""
    yield Figure("connections", f"{server.used} of {limit}, {server.active} active{of}", server.used, "connections")
    yield Figure("limit", str(limit), limit, "connections_limit", shown=False)
    idle = server.idle_in_transaction
    yield Figure("idle in a transaction", f"{idle}{of}", None if server.hidden else idle, "connections_idle_in_transaction")
    for row in rows[1:]:
        yield Figure(f"connections of the {row.what}", f"{row.used} of {row.limit}", row.used)
    for row in rows:
        if row.limit == 0:
            kind, name = row.what.split(" ", 1)
            message = f"No connection of the {row.what} is allowed (CONNECTION LIMIT 0), except those of superusers."
            cure = f"To allow its connections again: ALTER {kind.upper()} {quote(name)} CONNECTION LIMIT -1;"
            yield Finding(Severity.WARNING, "connections.near_limit", row.what, message, cure)
        elif row.used > near * (row.limit - row.reserved):
            yield Finding(
                Severity.WARNING,
                "connections.near_limit",
                row.what,
                f"{row.used} of {row.limit - row.reserved} connections are in use, more than {share(near)}.",
                "Find who holds them (`SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1`), use a pooler, or raise the limit.",
            )

    expiring = read(EXPIRING_SQL, longest=longest)
    others = [row for row in expiring if not row.is_ours]
    if len(others) > MOST_EXPIRING:
        expired = sum(row.expired for row in others)
        yield Finding(
            Severity.NOTE, "connections.role_expires", "roles",
            describe_expiring(len(others), expired, span(longest)),
            "If a program such as Vault creates them, let it drop those that have expired: each role with privileges of its own lengthens the"
            " table's list of privileges, which can hold about 2,400 roles.",
        )  # fmt: skip
        expiring = [row for row in expiring if row.is_ours]
    for row in expiring:
        when = f"{row.until:%Y-%m-%d %H:%M} UTC"
        yield Finding(
            Severity.ERROR if row.expired else Severity.WARNING,
            "connections.role_expires",
            row.name,
            f"The role's password expired at {when}, so the role cannot connect with it."
            if row.expired
            else f"The role's password expires at {when} (limit {span(longest)}): the role can then no longer connect with it.",
            f"ALTER ROLE {quote(row.name)} VALID UNTIL 'infinity'; or, if it is no longer used: ALTER ROLE {quote(row.name)} NOLOGIN;",
        )


def describe_expiring(number: int, expired: int, longest: str) -> str:
    """Return a sentence about the passwords of several roles, `expired` of which have expired."""
    if expired in (0, number):
        when = "have expired" if expired else f"expire within {longest}"
        return f"The passwords of {number} roles that may read {PEOPLE} {when}."
    others = "other expires" if number - expired == 1 else "others expire"
    return f"Of the passwords of {number} roles that may read {PEOPLE}, {plural(expired, 'has', 'have')} expired, and the {others} within {longest}."


def locks(read: Reader, *, longest: timedelta = timedelta(seconds=10)) -> Iterator[Figure | Finding]:
    """Report which sessions wait for which, and since when."""
    rows = read(BLOCKED_SQL)
    waiting = len({row.pid for row in rows})
    yield Figure("sessions waiting for a lock", str(waiting), waiting, "sessions_waiting")
    for lock, name in NAMES.items():
        holders, waiters = (read_activity(read.connection, sql, lock=lock) for sql in (HOLDER_SQL, WAITERS_SQL))
        if holders or waiters:
            yield Figure(f"the {name} lock", f"held by {', '.join(map(str, holders)) or 'a prepared transaction'}")
        for one in waiters:
            yield Figure(f"waiting for the {name} lock", str(one))
    blocked: dict[tuple[int, str | None], list] = {}
    for row in rows:
        blocked.setdefault((row.by, row.gid), []).append(row)
    yield from (_blocked(some, longest) for some in blocked.values() if some[0].since is not None and some[0].since > longest)


def _blocked(rows: list, longest: timedelta) -> Finding:
    """Return the finding for a lock holder; `rows` are the sessions that wait for it, directly or behind others, the longest wait first."""
    first, is_one = rows[0], len(rows) == 1
    others = "" if is_one else f", which blocks {plural(len(rows), 'session')}"
    # Only statements with CONCURRENTLY wait for transactions without their IDs.
    is_harmless = all(row.of_transaction for row in rows)
    # Workers wait so to become the leader, who may hold the lock for days, but not in one transaction as old as the wait.
    is_optional = all(row.is_advisory and not row.in_one_transaction for row in rows) and first.state in ("active", "idle")
    statement = (
        "this statement waits for older transactions, and blocks"
        if is_one
        else "these statements wait for older transactions, and block"
    )
    harmless = f": {statement} no reads or writes" if is_harmless else ""
    harmless = ": an advisory lock blocks only programs that ask for it" if is_optional else harmless
    return Finding(
        Severity.NOTE if is_harmless or is_optional else Severity.ERROR,
        "locks.blocked",
        f"session {first.by}" if first.by else first.gid or "a prepared transaction",
        f"{_waiting(first.pid, first.waits_for)} has waited {span(first.since)} (limit {span(longest)}) for {_holder(first)}{others}{harmless}.",
        f"If they are not meant to wait, as workers are for a leader: {_terminate('locks', first.by)}"
        if is_optional
        else _end(rows, is_harmless),
    )


def _end(rows: list, is_harmless: bool) -> str:
    """Return the cure for a lock holder: the command that ends it, unless it is a server process such as autovacuum, or work that takes long."""
    holder = rows[0]
    if not holder.by:
        return roll_back_prepared(holder.gid)
    # Reads queue behind a statement that waits for one that blocks no reads.
    waiter = next((row.pid for row in rows if row.is_direct and not row.of_transaction), None)
    instead = f" If others wait for session {waiter}, end that: {_terminate('locks', waiter)}" if waiter else ""
    if holder.is_process and holder.role:
        ended = f"SELECT pg_terminate_backend({holder.by});"
        return f"Wait until it is done: it is a process of the role {holder.role}, such as a worker of pg_cron or a copy to a subscriber. To end it, as that role: {ended}{instead}"
    if holder.is_process:
        return f"Wait until it is done: it is a server process, such as a vacuum that prevents wraparound.{instead}"
    if holder.maintains:
        return f"Wait until its VACUUM or the build of its index ends: it blocks no reads or writes.{instead}"
    if holder.backs_up:
        return f"Wait until the backup ends.{instead}"
    return f"{'Wait, or: ' if is_harmless else ''}{_terminate('locks', holder.by)}"


def _terminate(topic: str, pid: int) -> str:
    return f"manage.py dbhealth {topic} --terminate {pid} --yes"


def _waiting(pid: int, query: str | None) -> str:
    """Return the query of a waiting session as the subject of a sentence, without its values."""
    if query == UNREADABLE:
        return f"The query of session {pid}, which {HIDDEN},"
    return f"The query “{without_literals(query)}” of session {pid}" if query else f"Session {pid}"


def _holder(row) -> str:
    if not row.by:
        return describe_prepared(row.gid)
    known = _session(row.application, row.role, row.state, query=row.query)
    return f"session {row.by} ({known})" if known else f"session {row.by}"


def _session(*words: str, query: str | None) -> str:
    """Return what is known of a session: those of `words` that are not empty, and its query without its values."""
    known = ", ".join(filter(None, words))
    shown = f"“{without_literals(query)}”" if query and query != UNREADABLE else ""
    return ": ".join(filter(None, (known, shown)))


def transactions(
    read: Reader,
    *,
    longest: timedelta = timedelta(hours=1),
    idle: timedelta = timedelta(minutes=5),
    longest_backup: timedelta = LONGEST_BACKUP,
) -> Iterator[Figure | Finding]:
    """Report transactions that keep vacuum from removing dead rows, or hold locks."""
    rows = read(LONG_SQL)
    oldest = rows[0].age if rows else timedelta()
    if hidden := read.one(HIDDEN_SQL).number:
        yield Figure("oldest transaction", f"{span(oldest)} of those seen; {plural(hidden, 'session')} {HIDDEN}")
    else:
        yield Figure("oldest transaction", span(oldest), oldest.total_seconds(), "oldest_transaction_seconds")
    for row in rows:
        where, session = f"session {row.pid}", _session(row.application, row.role, query=row.query)
        cure, is_backup = _terminate("transactions", row.pid), row.backs_up and row.age <= longest_backup
        if row.idle is not None and row.idle > idle and not is_backup:  # The first session of `pg_dump --jobs` is idle.
            yield Finding(
                Severity.WARNING,
                "transactions.idle",
                where,
                f"The transaction of {where} has been idle for {span(row.idle)} (limit {span(idle)}): {session}.",
                cure,
            )
        elif row.age > longest:
            ends = "backup ends" if is_backup else "index is built" if row.builds else ""
            yield Finding(
                Severity.NOTE if ends else Severity.WARNING,
                "transactions.long",
                where,
                f"The transaction of {where} is {span(row.age)} old (limit {span(longest)}): {session}.",
                f"Wait until the {ends}: until then, VACUUM cannot remove rows that died after the transaction began."
                if ends
                else cure,
            )
    for row in read(PREPARED_SQL):
        if row.age > idle:
            yield Finding(
                Severity.ERROR,
                "transactions.prepared",
                row.gid,
                f"Transaction {row.gid} was prepared {span(row.age)} ago by {row.owner}, has not been committed or rolled back, and holds its locks even across a restart.",
                roll_back_prepared(row.gid),
            )


def end(connection, pid: int, *, really: bool) -> str:
    """End the session `pid` if `really`, and return a sentence; raise Refusal if there is no such session."""
    found = read_activity(connection, SESSION_SQL, pid=pid)
    if not found:
        raise Refusal(f"There is no session {pid}: it has ended, or it is a server process.")
    if not really:
        return f"Nothing was changed. --yes terminates {found[0]} and rolls back its transaction."
    if not fetch_one(connection, TERMINATE_SQL, {"pid": pid})[0]:
        raise Refusal(
            f"Session {pid} was terminated, but did not end within 5 s: check it again with `manage.py dbhealth locks`."
        )
    return f"Terminated {found[0]}; its transaction is rolled back."
