"""What has to be done every week, month and quarter: old rows out, statistics and dead rows, and a look at everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db import Error

from ..backup.retention import Newest, read_newest
from ..backup.store import store_at
from ..catalog import quote
from ..diagnosis import Refusal, sqlstate
from ..findings import Finding, Severity
from ..health.examine import Health, examine
from ..health.topics import TOPICS
from ..health.waivers import read_waivers
from ..locks import LOCKED_OUT
from ..retention.archive import Archives
from ..retention.rules import Due, switched_on
from ..retention.sweep import LOCK_TIMEOUT, Swept, count, sweep
from ..security import TOPICS as SECURITY
from ..status import verify
from ..watching import Progress

# Each does what the one before does, and more.
PERIODS = ("weekly", "monthly", "quarterly")
LOOKED_AT = {
    "weekly": ("connections", "queries", "tables"),
    "monthly": ("connections", "queries", "tables", "indexes", "cache", "sequences", "wraparound"),
    "quarterly": tuple(TOPICS),
}

# What vacuum and analyse would have something to do in; may: whether this role may do it (MAINTAIN is new in PostgreSQL 17).
TABLES_SQL = """
    SELECT c.relname AS name, COALESCE(s.n_dead_tup, 0) > 0 AS dead,
           COALESCE(s.n_mod_since_analyze, 0) > 0 OR c.reltuples < 0 AS changed,
           pg_catalog.pg_has_role(c.relowner, 'USAGE')
           OR CASE WHEN current_setting('server_version_num')::int >= 170000 THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END AS may
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_stat_user_tables AS s ON s.relid = c.oid
    WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relpersistence <> 't'
    ORDER BY pg_catalog.pg_relation_size(c.oid), c.relname COLLATE "C"
"""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What a run did, and what it found; `seconds` is how long it took."""

    period: str
    database: str
    at: datetime
    seconds: float
    swept: tuple[Swept, ...]
    vacuumed: tuple[str, ...]
    analysed: tuple[str, ...]
    health: Health
    backups: Newest
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """Return 0, or 4 for findings that are more than notes."""
        return 4 if any(finding.severity is not Severity.NOTE for finding in self.findings) else 0


def maintain(connection, period: str, *, seconds: float, progress: Progress) -> Maintenance:
    """Do what `period` asks for, and return what was done; what is not begun within `seconds` is a finding.

    Raises Refusal where RETENTION is wrong or its archives have no place, and django.db.Error where the database fails.
    """
    begun, at = time.monotonic(), datetime.now(UTC)
    deadline, left = begun + seconds, []
    rules, archives = switched_on(settings.RETENTION["days"]), archives_of(connection)
    swept = []
    for due in rules:
        before = due.before(at)
        swept.append(sweep(connection, due.rule, before=before, archives=archives, deadline=deadline, progress=progress))
    left += [_unfinished(f"retention of {one.table}") for one in swept if not one.finished]
    left += [_locked(one.table, f"{one.skipped} of its batches were") for one in swept if one.skipped]
    vacuumed: list[str] = []
    analysed: list[str] = []
    if period != "weekly":
        left += _refresh(connection, vacuumed, analysed, deadline=deadline, progress=progress)
    progress.show("looking", None)
    topics = {name: TOPICS[name] for name in LOOKED_AT[period]} | (SECURITY if period == "quarterly" else {})
    health = examine(connection, topics, read_waivers(settings.WAIVERS))
    schema = verify(connection).findings if period == "quarterly" else ()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_database()")
        database = cursor.fetchone()[0]
    backups = read_newest(database)
    progress.clear()
    findings = (*left, *backups.findings(), *health.findings, *schema)
    took = time.monotonic() - begun
    return Maintenance(
        period, database, at, took, tuple(swept), tuple(vacuumed), tuple(analysed), health, backups, findings
    )  # fmt: skip


def archives_of(connection) -> Archives | None:
    """Return where removed rows are archived, None where they are not; raise Refusal where backups are there."""
    place = settings.RETENTION["archive"]
    if not place:
        return None
    if place.rstrip("/") == settings.BACKUPS["location"].rstrip("/"):
        raise Refusal(
            "ARCHIVE_LOCATION is where backups are, which `dbbackup --prune` removes: give archives a folder of their own."
        )
    return Archives(store_at(place, "ARCHIVE_LOCATION"), connection.settings_dict["NAME"])


def planned(connection) -> Iterator[tuple[Due, datetime, int]]:
    """Yield for each rule that is switched on from when its rows go, and how many these are."""
    now = datetime.now(UTC)
    for due in switched_on(settings.RETENTION["days"]):
        yield due, due.before(now), count(connection, due.rule, due.before(now))


def _refresh(connection, vacuumed: list[str], analysed: list[str], *, deadline: float, progress: Progress) -> Iterator[Finding]:
    """Vacuum the tables with dead rows, and analyse those that changed; yield what could not be done."""
    with connection.cursor() as cursor:
        cursor.execute(TABLES_SQL)
        tables = [row for row in cursor.fetchall() if row[1] or row[2]]
        forbidden = [name for name, *_, may in tables if not may]
        if forbidden:
            yield Finding(
                Severity.WARNING, "maintenance.not_owner", connection.settings_dict["USER"] or "this role",
                f"It may neither vacuum nor analyse {', '.join(forbidden[:5])}{' and more' if len(forbidden) > 5 else ''}.",
                "Run it as the role that owns the tables (dbroles calls it fly2any_migrate), or from PostgreSQL 17 on GRANT MAINTAIN.",
            )  # fmt: skip
        for place, (name, dead, _, may) in enumerate(tables):
            remaining = int(1000 * (deadline - time.monotonic()))
            if not may:
                continue
            if remaining <= 0:
                yield _unfinished(f"vacuum and analyse from {name} on")
                return
            progress.show(f"{'vacuum' if dead else 'analyse'} {name}", 100 * place / len(tables))
            cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT}; SET statement_timeout = {remaining}")
            try:
                cursor.execute(f"{'VACUUM (ANALYZE)' if dead else 'ANALYZE'} {quote(name)}")
            except Error as error:
                if sqlstate(error) in LOCKED_OUT:
                    yield _locked(name, "it was")
                elif sqlstate(error) == "57014":
                    yield _unfinished(f"{'vacuum' if dead else 'analyse'} of {name}")
                else:
                    raise
            else:
                (vacuumed if dead else analysed).append(name)
            finally:
                if not cursor.connection.closed:
                    cursor.execute("RESET lock_timeout; RESET statement_timeout")


def _unfinished(what: str) -> Finding:
    return Finding(
        Severity.WARNING, "maintenance.unfinished", what, "The deadline came before it was done.",
        "Run the command again: it goes on with what is left; or give it longer with --deadline.",
    )  # fmt: skip


def _locked(table: str, what: str) -> Finding:
    return Finding(
        Severity.WARNING, "maintenance.locked", table, f"For longer than it waits {what} locked by others, and left alone.",
        "Run the command again when the site is quieter; `manage.py dbhealth transactions locks` shows who holds what.",
    )  # fmt: skip
