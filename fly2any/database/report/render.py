"""Reports as text and as JSON; both show the same figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from ..backup.inventory import Newest
from ..findings import Severity
from ..health.render import as_data, topic_lines, waived_lines
from ..printable import one_line, printable
from ..schema import where
from ..schema.contract import KINDS
from ..server import Server
from ..units import size, span
from ..verification import Group, Report

FORMAT = 1


def as_json(report: Report) -> str:
    """Return the report as a JSON object, of the shape that docs/reference/dbstatus.md gives."""
    shared = as_data(report.security.topics if report.security else (), report.findings, report.waived)
    data: dict[str, Any] = {
        "format": FORMAT,
        "exit_code": report.exit_code,
        "database": report.alias,
        "server": asdict(report.server),
        "migrations": {
            "recorded": report.migrations.recorded,
            "readable": report.migrations.readable,
            "applied": [asdict(record) for record in report.migrations.applied],
            "pending": [asdict(migration) for migration in report.pending],
            "unknown": report.migrations.unknown,
        },
        "runs": [asdict(run) for run in report.runs],
        "running": report.running and str(report.running),
        "groups": [asdict(group) for group in report.groups],
        "findings": shared["findings"],
        "foreign": {kind: [where(thing) for thing in getattr(report.foreign, kind)] for kind in KINDS},
    }
    if report.backups is not None:
        good, newest = report.backups.good, report.backups.newest
        data["backups"] = {
            "place": report.backups.place,
            "newest": newest.name if newest else "",
            "newest_good": good.name if good else "",
            "newest_good_taken": good.taken if good else "",
        }
    data["waived"] = shared["waived"]
    if report.indexes is not None:
        data["indexes"] = [asdict(index) for index in report.indexes]
    if report.security is not None:
        data["security"] = {"topics": shared["topics"]}
    if report.write_checked is not None:
        data["write_checked"] = report.write_checked
    return json.dumps(data, indent=2, ensure_ascii=False, default=lambda value: value.isoformat())


def as_text(report: Report, *, verbosity: int = 1) -> str:
    """Return the report for a person; with `verbosity` 2 or more what is foreign is listed too."""
    return printable("\n".join(_lines(report, verbosity)).rstrip() + "\n")


def _lines(report: Report, verbosity: int) -> Iterator[str]:
    yield from _server(report)
    yield ""
    yield from _migrations(report)
    yield ""
    yield from _groups(report.groups)
    if report.backups is not None:
        yield ""
        yield from _backups(report.backups)
    if report.indexes is not None:
        yield ""
        yield from _indexes(report)
    if report.security is not None:
        yield ""
        yield "Security"
        lines = list(topic_lines(report.security.topics))
        yield from (line and f"  {line}" for line in lines[:-1])
    if verbosity > 1:
        yield ""
        yield from _foreign(report)
    yield ""
    yield from _findings(report)
    yield from waived_lines(report.waived)
    if report.write_checked is not None:
        yield ""
        yield f"Write check: a row created, read, updated and deleted in each of {len(report.write_checked)} tables, and rolled back."


def _server(report: Report) -> Iterator[str]:
    server = report.server
    yield "Server"
    yield f"  PostgreSQL   {server.version}{', a standby' if server.standby else ''}, at {server.host or 'a local socket'}"
    yield f"  Database     {server.database}, schema {server.schema or 'none'}, role {server.role}"
    yield f"  TLS          {server.tls or ('off' if server.host else 'not needed on a local socket')}"
    yield f"  Time zone    {server.time_zone}"
    yield f"  Connections  {server.connections} of {server.max_connections}"
    yield f"  Privileges   {_privileges(server)}"


def _privileges(server: Server) -> str:
    create = "CREATE in the schema" if server.may_create else "no CREATE in the schema"
    if all(privilege.held == privilege.tables for privilege in server.privileges):
        names = ", ".join(privilege.privilege for privilege in server.privileges)
        return f"{create}; {names} on all tables" if names else create
    return f"{create}; " + ", ".join(f"{p.privilege} on {p.held} of {p.tables} tables" for p in server.privileges)


def _migrations(report: Report) -> Iterator[str]:
    state = report.migrations
    yield "Migrations"
    if not state.readable:
        yield "  unknown      this role may not read django_migrations"
        return
    # The record of a squashed migration comes after all that ran.
    ran = [migration for migration in state.applied if "_squashed_" not in migration.name]
    last = f", the last {ran[-1].name} on {ran[-1].at:%Y-%m-%d %H:%M} UTC" if ran else ""
    yield f"  applied      {len(state.applied)}{last}"
    yield f"  pending      {len(state.pending)}"
    for migration in report.pending:
        parts = [
            _number(migration.tables, "table"),
            _number(migration.columns, "column"),
            _number(migration.indexes, "index", "indexes"),
            _number(migration.foreign_keys, "foreign key"),
        ]
        new = ", ".join(filter(None, parts))
        yield f"    {migration.name}{f': would create {new}' if new else ''}"
    if state.unknown:
        yield f"  unknown      {len(state.unknown)}: {', '.join(state.unknown)}"
    if report.running:
        yield f"  running      the migration lock is held by {report.running}"
    elif report.runs:
        run = report.runs[0]
        ended = f"failed: {run.error}" if run.error else "" if run.finished else "never ended"
        yield f"  last run     {run.migration} {run.direction} on {run.started:%Y-%m-%d %H:%M} UTC by {run.person}, code {run.code}{', ' + ended if ended else ''}"


def _number(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}" if number else ""


def _groups(groups: tuple[Group, ...]) -> Iterator[str]:
    yield f"{'Schema':<22}{'tables':>9}{'columns':>12}{'indexes':>10}{'foreign keys':>15}"
    for group in groups:
        cells = [
            f"{count.found}/{count.expected}" for count in (group.tables, group.columns, group.indexes, group.foreign_keys)
        ]
        yield f"  {group.name:<20}{cells[0]:>9}{cells[1]:>12}{cells[2]:>10}{cells[3]:>15}"
    yield "  found as defined / expected; the guide's 19 tables are the 18 of Phase 7 and the migration ledger"


def _indexes(report: Report) -> Iterator[str]:
    recorded = int(re.sub(r"\D.*", "", report.server.version)) >= 16
    yield "Indexes" if recorded else "Indexes (their last use is recorded from PostgreSQL 16 on)"
    for index in report.indexes or ():
        never = ", never used" if recorded else ""
        last = f", last {index.last_scan:%Y-%m-%d %H:%M} UTC" if index.last_scan else never
        yield f"  {index.table}.{index.name}: {size(index.bytes)}, {index.scans:,} {'scan' if index.scans == 1 else 'scans'}{last}"
        yield f"      {index.definition}"


def _foreign(report: Report) -> Iterator[str]:
    yield "Not ours, left alone"
    nothing = True
    for kind in KINDS:
        if things := getattr(report.foreign, kind):
            nothing = False
            yield f"  {kind.replace('_', ' ')}: {', '.join(map(where, things))}"
    if nothing:
        yield "  nothing"


def _backups(newest: Newest) -> Iterator[str]:
    yield "Backups"
    if not newest.place:
        yield "  none known   BACKUP_LOCATION is not set"
    elif good := newest.good:
        yield f"  newest good  {good.name}, {span(good.age(newest.now()))} old, {good.rows:,} rows, at {newest.place}"
    elif newest.trouble:
        yield f"  none known   {newest.trouble}"
    else:
        yield f"  none         proven good at {newest.place}"


def _findings(report: Report) -> Iterator[str]:
    yield "Findings"
    if not report.findings:
        applied = "" if not report.migrations.pending else " so far"
        yield f"  none: the database is what the migrations{applied} build"
    for finding in report.findings:
        yield f"  {finding.severity.upper():<8}{finding.code} at {one_line(finding.where)}"
        yield f"          {one_line(finding.message)}"
        label = "note" if finding.severity is Severity.NOTE else "cure"
        for place, line in enumerate(finding.cure.splitlines()):
            yield f"          {label + ':' if not place else '     '} {line}"
