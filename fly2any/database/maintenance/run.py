"""Weekly, monthly and quarterly maintenance: retention, statistics, dead rows, and checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import Error

from ..backup.inventory import read_newest
from ..backup.store import is_same_place, store_at
from ..clock import server_time
from ..errors import Refusal, explain, sqlstate
from ..exit_codes import ExitCode
from ..findings import Finding, Severity
from ..health.examine import Topic
from ..health.security import TOPICS as SECURITY
from ..health.topics import TOPICS
from ..migration.retry import LOCKED_OUT
from ..progress import Progress
from ..report.collect import Report, compare_and_collect, serious
from ..report.waivers import read_waivers
from ..retention.archive import Archives
from ..retention.clock_check import require_witness
from ..retention.rules import RULES, Due, switched_on
from ..retention.sweep import Swept, count, sweep
from ..schema.relation_kinds import Kind
from ..schema.sizes_and_use import Extent, read_extents
from ..server import flush_statistics, read_schema
from ..sql import fetch_all, pinned_session, quote
from ..trusted_roles import TRUSTED_SQL
from ..units import plural

LONGEST = 2_147_483  # Seconds; the server accepts no longer timeout.
# Each includes the previous one.
PERIODS = ("weekly", "monthly", "quarterly")
LOOKED_AT = {
    "weekly": ("connections", "queries", "tables"),
    "monthly": ("connections", "queries", "tables", "indexes", "cache", "sequences", "wraparound"),
    "quarterly": tuple(TOPICS),
}

# Whether this role may run VACUUM and ANALYZE (MAINTAIN is new in PostgreSQL 17), and whether a trusted role owns the table: they run
# the functions in a table's indexes as its owner, but in this session, whose lock such a function could release.
TABLES_SQL = f"""
    SELECT c.relname AS name,
           pg_catalog.pg_has_role(c.relowner, 'USAGE')
           OR CASE WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END AS may,
           {TRUSTED_SQL} AS trusted
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
    ORDER BY c.relname COLLATE "C"
"""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The tables that were vacuumed (and analysed), and those that were only analysed."""

    vacuumed: list[str]
    analysed: list[str]


@dataclass(frozen=True, slots=True)
class Maintenance:
    """The work and the findings of a run; `seconds` is its duration."""

    period: str
    database: str
    at: datetime
    seconds: float
    swept: tuple[Swept, ...]
    refreshed: Refreshed
    report: Report
    clock_unchecked: str = ""  # why the database's records could not show that the server's clock is right

    @property
    def topics(self) -> tuple[Topic, ...]:
        return (*self.report.health, *self.report.security)

    @property
    def exit_code(self) -> int:
        """Return 0, or 4 if there are errors or warnings."""
        return ExitCode.FOUND if serious(self.report.findings) else ExitCode.OK


class LostSession(Refusal):
    """The session that holds the maintenance lock has ended."""


def maintain(connection, period: str, *, seconds: float, progress: Progress, trust_clock: bool = False) -> Maintenance:
    """Run the maintenance of `period`, and return its results; work that failed, or was not begun within `seconds`, is a finding.

    Ages are measured by the server's clock, even without a witness if `trust_clock`. Raises Refusal, with nothing changed, if
    RETENTION, the location of archives or a clock is wrong, and django.db.Error if the database can no longer be reached.
    """
    with connection.execute_wrapper(_in_one_session(connection)):
        return _maintain(connection, period, seconds=seconds, progress=progress, trust_clock=trust_clock)


def _in_one_session(connection) -> Callable[..., Any]:
    """Return a wrapper that raises LostSession if the session was replaced: its lock is lost, and it may be another database."""
    connection.ensure_connection()
    session = connection.connection

    def execute_in_it(execute, *arguments):
        if connection.connection is not session:
            raise LostSession(
                "The session was ended during the run, and its lock with it: nothing was removed after that. Run the command again."
            )
        return execute(*arguments)

    return execute_in_it


def _maintain(connection, period: str, *, seconds: float, progress: Progress, trust_clock: bool) -> Maintenance:
    begun, at = time.monotonic(), server_time(connection)
    deadline = begun + min(seconds, LONGEST)
    waivers, due, archives = read_waivers(settings.WAIVERS), switched_on(settings.RETENTION["days"]), archives_of(connection)
    unchecked = require_witness(connection, at) if due and not trust_clock else ""
    swept: list[Swept] = []
    refreshed = Refreshed([], [])
    found = [*_sweep_all(connection, due, swept, at=at, archives=archives, deadline=deadline, progress=progress)]
    emptied = {name for one in swept if one.removed for name in (one.table, RULES[one.table].child) if name}
    found += _refresh(connection, refreshed, emptied, whole=period != "weekly", deadline=deadline, progress=progress)
    progress.show("looking", None)
    report = compare_and_collect(
        connection,
        backups=read_newest(connection),
        health={name: TOPICS[name] for name in LOOKED_AT[period]},
        security=SECURITY if period == "quarterly" else None,
        found=found,
        waivers=waivers,
    )
    progress.clear()
    took = time.monotonic() - begun
    return Maintenance(period, connection.settings_dict["NAME"], at, took, tuple(swept), refreshed, report, unchecked)


def _sweep_all(
    connection,
    due: Iterable[Due],
    swept: list[Swept],
    *,
    at: datetime,
    archives: Archives | None,
    deadline: float,
    progress: Progress,
) -> Iterator[Finding]:
    """Sweep each table into `swept`, and yield a finding for each failure, which does not stop the others."""
    for one in due:
        table = one.rule.table
        try:
            done = sweep(connection, one.rule, before=one.before(at), archives=archives, deadline=deadline, progress=progress)
        except LostSession:
            raise
        except (Error, Refusal, OSError) as error:
            if not connection.is_usable():
                raise
            progress.clear()
            yield Finding(
                Severity.ERROR, "maintenance.failed", f"retention of {table}", explain(error) or str(error),
                "Fix the cause, then run the command again: it removes the rest.",
            )  # fmt: skip
            continue
        swept.append(done)
        if not done.finished:
            yield _unfinished(f"retention of {table}")
        if done.kept:
            triggers = "the trigger" if len(done.keeping) == 1 else "the triggers"
            yield Finding(
                Severity.ERROR, "maintenance.failed", f"retention of {table}",
                f"{plural(done.kept, 'row')} of {table} past the retention period could not be removed, because of {triggers} {', '.join(done.keeping)}.",
                f"Let {triggers} return OLD for rows that are too old, or drop {'it' if len(done.keeping) == 1 else 'them'}, or remove {table} from RETENTION.",
            )  # fmt: skip
        if done.skipped:
            yield _locked(table, plural(done.skipped, f"batch of {table} was", f"batches of {table} were"))


def archives_of(connection) -> Archives | None:
    """Return the store of archives, None if rows are not archived; raise Refusal if it is the location of the backups."""
    place = settings.RETENTION["archive"]
    if not place:
        return None
    if is_same_place(place, settings.BACKUPS["location"]):
        raise Refusal(
            "ARCHIVE_LOCATION is the location of the backups, which `dbbackup --prune` removes: use a separate folder for archives."
        )
    return Archives(store_at(place, "ARCHIVE_LOCATION"), connection.settings_dict["NAME"])


@dataclass(frozen=True, slots=True)
class Plan:
    """For each rule that is switched on, the time before which rows would be deleted, and their number."""

    due: tuple[tuple[Due, datetime, int], ...]
    clock_unchecked: str = ""  # as in Maintenance


def planned(connection, *, trust_clock: bool = False) -> Plan:
    """Return what retention would remove.

    Raises Refusal where `maintain` does.
    """
    archives_of(connection)  # Raises the errors that would stop a run.
    now = server_time(connection)
    due = switched_on(settings.RETENTION["days"])
    unchecked = require_witness(connection, now) if due and not trust_clock else ""
    return Plan(tuple((one, one.before(now), count(connection, one.rule, one.before(now))) for one in due), unchecked)


def _refresh(
    connection, refreshed: Refreshed, emptied: set[str], *, whole: bool, deadline: float, progress: Progress
) -> Iterator[Finding]:
    """Vacuum the tables with dead rows, and analyse those that changed, or only the `emptied` ones; yield a finding for each failure."""
    flush_statistics(connection)
    schema = read_schema(connection)
    due = _due(connection, schema, emptied, whole=whole)
    if untrusted := [table.name for table in due if not table.trusted]:
        yield Finding(
            Severity.NOTE, "maintenance.untrusted", schema,
            f"Tables of roles that are not trusted were neither vacuumed nor analysed: {_some(untrusted)}.",
            "Leave them to autovacuum, or ask their owners to run VACUUM (ANALYZE).",
        )  # fmt: skip
    tables = [table for table in due if table.trusted]
    if forbidden := [table.name for table in tables if not table.may]:
        yield Finding(
            Severity.WARNING, "maintenance.not_owner", connection.settings_dict["USER"] or "this role",
            f"The role may neither vacuum nor analyse {_some(forbidden)}.",
            "Run it as the role that owns the tables (dbroles calls it fly2any_migrate), or from PostgreSQL 17 on GRANT MAINTAIN.",
        )  # fmt: skip
    for place, table in enumerate(tables):
        remaining = int(1000 * (deadline - time.monotonic()))
        if not table.may:
            continue
        if remaining <= 0:
            yield _unfinished(f"VACUUM and ANALYZE from {table.name} on")
            return
        progress.show(f"{table.command} {table.name}", 100 * place / len(tables))
        if failure := _refresh_table(connection, schema, table, remaining):
            yield failure
        else:
            (refreshed.vacuumed if table.dead else refreshed.analysed).append(table.name)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table to vacuum and analyse, or only to analyse if it has no dead rows."""

    name: str
    dead: bool
    may: bool  # As in TABLES_SQL.
    trusted: bool

    @property
    def command(self) -> str:
        return "VACUUM" if self.dead else "ANALYZE"


def _due(connection, schema: str, emptied: set[str], *, whole: bool) -> list[_Table]:
    """Return the tables that need it, small ones first: the `emptied` ones, and if `whole` those with dead or changed rows."""
    extents = read_extents(connection, schema=schema, sizes=False)
    listed = [(extents[name], *rest) for name, *rest in fetch_all(connection, TABLES_SQL, [schema]) if name in extents]
    return [
        _Table(table.name, bool(table.dead) or table.name in emptied, may, trusted)
        for table, may, trusted in sorted(listed, key=lambda one: one[0].rows or 0)
        if table.name in emptied or (whole and (table.dead or _needs_analyse(table)))
    ]


def _refresh_table(connection, schema: str, table: _Table, remaining: int) -> Finding | None:
    """Vacuum or analyse a table in at most `remaining` ms, and return why that failed, None if it did not."""
    with connection.cursor() as cursor:
        # Set for the session, because VACUUM cannot run in a transaction; dbmaintain's direct connection keeps its session.
        cursor.execute(f"SET lock_timeout = '{settings.LOCK_TIMEOUT}ms'; SET statement_timeout = {remaining}")
        try:
            with pinned_session(connection):
                cursor.execute(f"{'VACUUM (ANALYZE)' if table.dead else 'ANALYZE'} {quote(schema)}.{quote(table.name)}")
        except Error as error:
            if sqlstate(error) in LOCKED_OUT:
                return _locked(table.name, f"{table.name} was")
            if sqlstate(error) == "57014":
                return _unfinished(f"{table.command} of {table.name}")
            if not connection.is_usable():
                raise
            return Finding(
                Severity.WARNING, "maintenance.failed", f"{table.command} of {table.name}",
                explain(error) or str(error), "Fix the cause, then run the command again.",
            )  # fmt: skip
        finally:
            if not cursor.connection.closed:
                cursor.execute("RESET lock_timeout; RESET statement_timeout")
    return None


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''}"


def _needs_analyse(table: Extent) -> bool:
    """Return whether statistics are missing or older than a change; autovacuum never makes those of a partitioned table."""
    return bool(table.changed) or table.estimate is None or (table.kind is Kind.PARTITIONED and table.analysed is None)


def _unfinished(what: str) -> Finding:
    return Finding(
        Severity.WARNING, "maintenance.unfinished", what, "The deadline passed before the work was finished.",
        "Run the command again to continue, or raise --deadline.",
    )  # fmt: skip


def _locked(table: str, what: str) -> Finding:
    return Finding(
        Severity.WARNING, "maintenance.locked", table, f"{what} locked by other sessions for longer than maintenance waits, so nothing was changed there.",
        "Run the command again when the database is less busy; `manage.py dbhealth transactions locks` shows the lock holders.",
    )  # fmt: skip
