"""Replication: standbys, slots and subscriptions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta

from django.db import DEFAULT_DB_ALIAS, Error, connections

from ..database_identity import read_origin
from ..errors import explain
from ..findings import Finding, Severity
from ..sql import ask, fetch_all
from ..units import plural, size, span
from .examine import Figure, Reader
from .server_settings import read_settings
from .subscriptions import subscriptions
from .wal_archive import archiving

# A client that replays nothing, such as pg_receivewal, confirms only what it has written and, after each whole file, flushed; its
# replay_lag and flush_lag grow all the while.
REPLICAS_SQL = """
    SELECT pid, COALESCE(NULLIF(application_name, ''), client_addr::text, 'a local socket') AS name, state,
           pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), COALESCE(replay_lsn, flush_lsn, write_lsn))::bigint AS behind,
           CASE WHEN replay_lsn IS NOT NULL THEN replay_lag END AS lag,
           replay_lsn < flush_lsn AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), flush_lsn) <= %(most)s
           AND COALESCE(flush_lag <= %(longest)s, true) AS has_received
    FROM pg_catalog.pg_stat_replication ORDER BY 1
"""
# A slot without restart_lsn or xmin keeps nothing. One that a standby copies from its primary (17 and later) is to be dropped there.
SLOTS_SQL = """
    SELECT s.slot_name AS name, s.active, s.active_pid AS pid, s.wal_status AS status,
           pg_catalog.to_jsonb(s) ->> 'invalidation_reason' AS reason,
           pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                                           ELSE pg_catalog.pg_current_wal_lsn() END, s.restart_lsn)::bigint AS kept,
           pg_catalog.age(s.xmin) AS held, pg_catalog.age(s.catalog_xmin) AS held_in_catalogues
    FROM pg_catalog.pg_replication_slots AS s
    WHERE NOT (pg_catalog.pg_is_in_recovery() AND COALESCE((pg_catalog.to_jsonb(s) ->> 'synced')::boolean, false)) ORDER BY s.slot_name
"""
# What was received last is all that there is only while it receives.
STANDBY_SQL = """
    SELECT s.standby, NOT s.receives AND current_setting('restore_command') = '' AS is_cut_off,
           CASE WHEN s.receives AND pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() THEN interval '0'
                ELSE now() - pg_catalog.pg_last_xact_replay_timestamp() END AS behind,
           CASE WHEN s.receives THEN pg_catalog.pg_last_wal_receive_lsn()::text END AS received,
           s.standby AND pg_catalog.pg_get_wal_replay_pause_state() <> 'not paused' AS is_paused,
           COALESCE(s.receives AND pg_catalog.pg_last_wal_receive_lsn() > pg_catalog.pg_last_wal_replay_lsn(), false) AS is_held,
           current_setting('recovery_min_apply_delay')::interval AS delay,
           (SELECT c.confl_tablespace + c.confl_lock + c.confl_snapshot + c.confl_bufferpin + c.confl_deadlock
            FROM pg_catalog.pg_stat_database_conflicts AS c WHERE c.datname = current_database())::bigint AS cancelled
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby, EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) AS receives) AS s
"""
REACHED_SQL = "SELECT pg_catalog.pg_last_wal_replay_lsn() >= %(received)s::pg_lsn AS reached"
WRITTEN_SQL = "SELECT pg_catalog.pg_current_wal_lsn()::text AS position"
REPLAYED_SQL = """
    SELECT pg_catalog.pg_wal_lsn_diff(%s::pg_lsn, pg_catalog.pg_last_wal_replay_lsn())::bigint,
           now() - pg_catalog.pg_last_xact_replay_timestamp()
"""
MEANWHILE = "until then the admin's lists are read from the primary."
HELD = (
    "End long queries here, which delay the replay (`manage.py dbhealth transactions`), or lower max_standby_streaming_delay;"
    " without such queries, check whether the disk is too slow."
)
SLOW = "Check its log, and whether the network or its disk is too slow."
SOON = 1.0  # Seconds that a replica has to replay the latest WAL.
NAMES = "synchronous_standby_names"
# A role without pg_read_all_stats sees neither which standbys are synchronous nor which sessions wait.
SYNCHRONOUS_SQL = """
    SELECT current_setting('synchronous_standby_names') AS names, current_setting('synchronous_commit') IN ('off', 'local') AS alone,
           pg_catalog.pg_is_in_recovery() AS standby,
           (SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS connected,
           (SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state IS NULL) AS hidden,
           (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep') AS waiting
"""


def replication(
    read: Reader, *, most: int = 2**30, longest: timedelta = timedelta(minutes=5), oldest: int = 1_000_000
) -> Iterator[Figure | Finding]:
    """Report replicas that lag, and slots that retain WAL or dead rows without a reader."""
    here = read.one(STANDBY_SQL)
    if here.standby:
        yield from _of_standby(here, _behind(read, here, longest + here.delay), longest + here.delay)
        for row in read(SLOTS_SQL):
            yield from _slot(row, most, oldest, is_late=False)
        return
    yield from _configured(read, most, longest)
    yield from commits_that_wait(read)
    yield from archiving(read, most=most)
    yield from subscriptions(read)
    replicas = read(REPLICAS_SQL, most=most, longest=longest)
    yield Figure("replicas", str(len(replicas)), len(replicas), "replicas")
    for row in replicas:
        if row.state is None:
            yield Figure(row.name, "lag not visible to this role: GRANT pg_monitor")
            continue
        behind = "lag not known: it has confirmed no position" if row.behind is None else f"{size(row.behind)} behind"
        yield Figure(row.name, f"{row.state}, {behind}", row.behind, "replica_behind_bytes", row.name)
        if (row.behind is not None and row.behind > most) or (row.lag and row.lag > longest):
            yield _lagging(row, f"(limits {size(most)}, {span(longest)})")
    late = {row.pid for row in replicas if row.behind is not None and row.behind > most}
    for row in read(SLOTS_SQL):
        yield from _slot(row, most, oldest, is_late=row.pid in late)


def _lagging(row, limits: str) -> Finding:
    behind = " and ".join([*([] if row.behind is None else [size(row.behind)]), *([span(row.lag)] if row.lag else [])])
    if row.has_received:
        message = f"Replica {row.name} has received the latest WAL, but has not replayed the last {behind} of it {limits}."
        cure = (
            "On the replica: SELECT pg_get_wal_replay_pause_state(); SHOW recovery_min_apply_delay; and end long queries, which delay"
            " the replay. If it is delayed on purpose, waive this finding."
        )
    else:
        message, cure = f"Replica {row.name} is {behind} behind {limits}.", SLOW
    return Finding(Severity.WARNING, "replication.lag", row.name, message, cure)


def _of_standby(here, behind: timedelta | None, longest: timedelta) -> Iterator[Figure | Finding]:
    text = "has replayed nothing since its start" if behind is None else f"{span(behind)} behind"
    delayed = f", delayed by {span(here.delay)} (recovery_min_apply_delay)" if here.delay else ""
    yield Figure("this standby", text + delayed, behind and behind.total_seconds(), "standby_lag_seconds")
    yield Figure("queries cancelled by replay", str(here.cancelled), here.cancelled, "standby_cancelled_queries")
    if here.is_cut_off:
        yield Finding(
            Severity.ERROR, "replication.lag", "this standby",
            f"This standby receives no WAL from its primary: {_replayed(behind)}.",
            "Read its log: if the primary has removed WAL that it needs, create the standby again (pg_basebackup);"
            " otherwise check that the primary runs, and primary_conninfo.",
        )  # fmt: skip
    elif behind and behind > longest:
        why, cure = "", SLOW
        if here.is_paused:
            why, cure = ": its replay is paused", "SELECT pg_wal_replay_resume();"
        elif here.is_held:
            why, cure = ": it has received later WAL, but not replayed it", HELD
        yield Finding(
            Severity.WARNING, "replication.lag", "this standby",
            f"This standby is {span(behind)} behind its primary (limit {span(longest)}){why}.", cure,
        )  # fmt: skip


def _behind(read: Reader, here, longest: timedelta) -> timedelta | None:
    """Return how far this standby is behind: not at all if it soon replays what it has received.

    The last commit may be old while a long transaction, or VACUUM, of its primary writes WAL.
    """
    if not here.received or here.behind is None or here.behind <= longest:
        return here.behind
    deadline = time.monotonic() + SOON
    while not read.one(REACHED_SQL, received=here.received).reached:
        if time.monotonic() > deadline:
            return here.behind
        time.sleep(0.1)
    return timedelta()


def _slot(row, most: int, oldest: int, *, is_late: bool) -> Iterator[Finding]:
    """Yield what a slot keeps, or has lost; the WAL for a client that is late belongs to the finding about that client."""
    drop = f"SELECT pg_drop_replication_slot('{row.name}');"
    if row.status == "lost":
        yield Finding(
            Severity.ERROR, "replication.slot", row.name,
            f"The server has {'removed WAL that the reader of the slot still needs' if row.reason in (None, 'wal_removed') else f'invalidated the slot ({row.reason})'}, so no reader can resume from the slot, and the slot keeps no WAL.",
            f"{drop} then create its replica or subscription again.",
        )  # fmt: skip
    elif row.status == "unreserved":
        yield Finding(
            Severity.WARNING, "replication.slot", row.name,
            f"The reader of slot {row.name} is further behind than max_slot_wal_keep_size: the next checkpoint removes WAL that it still needs{'' if row.active else ', and no client reads from the slot'}.",
            f"Start its replica again, or raise max_slot_wal_keep_size; if the slot is not needed: {drop}",
        )  # fmt: skip
    elif row.kept is not None and row.kept > most and not is_late:
        yield _keeping(row, f"the server keeps {size(row.kept)} of WAL for it (limit {size(most)}), which fills the disk", drop)
    elif max(held := row.held or 0, row.held_in_catalogues or 0) > oldest:
        rows, age = ("the rows", held) if held > oldest else ("the rows of the system catalogues", row.held_in_catalogues)
        died = f"{rows} that died in the last {plural(age, 'transaction')}"
        yield _keeping(row, f"VACUUM keeps {died} for it (limit {oldest:,}), in every database", drop)


def _keeping(row, what: str, drop: str) -> Finding:
    if row.active:
        cure = (
            "Read the client's log: it must confirm what it no longer needs. Long transactions, including those of a standby, delay this:"
            f" end them (`manage.py dbhealth transactions`). If the slot is not needed, stop the client, then {drop}"
        )
        return Finding(Severity.WARNING, "replication.slot", row.name, f"A client reads from the slot, but {what}.", cure)
    cure = f"Start its replica again, or {drop}"
    return Finding(Severity.ERROR, "replication.slot", row.name, f"No client reads from the slot, and {what}.", cure)


def commits_that_wait(read: Reader) -> Iterator[Finding]:
    """Yield the finding that commits wait for standbys that are not connected."""
    row = read.one(SYNCHRONOUS_SQL)
    number = re.match(r"\s*(?:FIRST|ANY)?\s*(\d+)\s*\(", row.names, re.IGNORECASE)
    needed = int(number[1]) if number else 1
    missing = not row.alone and not row.hidden and row.connected < needed
    if row.names.strip() and not row.standby and (missing or row.waiting):
        count = plural(row.waiting, "session waits", "sessions wait")
        cure, is_sql = read_settings(read, [NAMES]).cure({NAMES: ""})
        connected = "" if row.hidden else f", and {plural(row.connected, 'is', 'are')} connected"
        yield Finding(
            Severity.ERROR, "replication.synchronous", NAMES,
            f"Each COMMIT waits for {plural(needed, 'standby', 'standbys')}{connected} (synchronous_standby_names is {row.names}); {count} now.",
            f"Start the standby again; or commit without it{':' if is_sql else '.'} {' '.join(cure.splitlines())}",
        )  # fmt: skip


def _configured(read: Reader, most: int, longest: timedelta) -> Iterator[Finding]:
    """Yield the problems of the replica that POSTGRES_REPLICA_URL names."""
    if read.connection.alias != DEFAULT_DB_ALIAS or "replica" not in connections.settings:
        return
    replica, ours = connections["replica"], _identity(read.connection)
    position = read.one(WRITTEN_SQL).position
    try:
        is_standby = ask(replica, "SELECT pg_catalog.pg_is_in_recovery()")
        is_ours = is_standby and _identity(replica) == ours
        behind, age = _lag(replica, position) if is_ours else (0, None)
    except Error as error:
        replica.close()
        yield _of_replica(
            "replication.unreachable", f"The replica does not answer: {explain(error)}", f"Fix the reported cause; {MEANWHILE}"
        )
        return
    if not is_ours:
        other = "standby of another database" if is_standby else "server that is not a standby"
        yield _of_replica(
            "replication.not_standby",
            f"The URL points to a {other}, so the admin does not read from it.",
            "Correct the URL, or remove it.",
        )
    elif behind > most or (behind > 0 and (age is None or age > longest)):
        yield _of_replica(
            "replication.lag", f"The replica lacks the last {size(behind)} of this server's WAL: {_replayed(age)} (limits {size(most)}, {span(longest)}).",
            f"See `manage.py dbhealth replication --database replica`; {MEANWHILE}",
        )  # fmt: skip


def _identity(connection) -> tuple[str, str, int]:
    origin = read_origin(connection)
    return origin.database, origin.cluster, origin.oid


def _lag(replica, position: str) -> tuple[int, timedelta | None]:
    """Return the bytes of WAL up to `position` that the replica lacks, and the age of its last transaction, None if it replayed none."""
    deadline = time.monotonic() + SOON
    while True:
        [(behind, age)] = fetch_all(replica, REPLAYED_SQL, [position])
        if behind <= 0 or time.monotonic() > deadline:
            return behind, age
        time.sleep(0.1)


def _replayed(age: timedelta | None) -> str:
    return (
        "it has replayed no transaction since its start"
        if age is None
        else f"its last transaction was committed {span(age)} ago"
    )


def _of_replica(code: str, message: str, cure: str) -> Finding:
    return Finding(Severity.WARNING, code, "POSTGRES_REPLICA_URL", message, cure)
