"""The report as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..backup.inventory import BackupState
from ..distribution.citus import Citus
from ..findings import Finding, Severity
from ..health.examine import Topic
from ..missing_privileges import Privilege
from ..schema import where
from ..schema.contract import KINDS
from ..server import Server
from ..terminal_text import one_line, printable
from ..units import plural, size, span
from ..verification import Verification
from .collect import Report
from .waivers import Waiver


def health_as_text(report: Report) -> str:
    """Return the text that `dbhealth` prints."""
    return _framed(report, [*topic_lines(report.health), *finding_lines(report.findings, report.waived)])


def status_as_text(report: Report, *, verbosity: int = 1) -> str:
    """Return the text that `dbstatus` prints; with `verbosity` 2 or more, unmanaged objects are listed too."""
    return _framed(report, _lines(report, verbosity))


def _framed(report: Report, lines: Iterable[str]) -> str:
    """Return `lines` below the verdict, and above the verdict with the exit code."""
    said = verdict(report)
    return printable("\n".join([said, "", *lines]).rstrip() + f"\n\n{said} (exit code {report.exit_code})\n")


def verdict(report: Report) -> str:
    """Return the verdict, with the figures that it is based on, in one line."""
    verified, code = report.verification, report.exit_code
    if verified and verified.made_by and not report.health:
        return f"Created by {verified.made_by}, not adopted: run `manage.py dbadopt`"
    word = {0: "OK", 1: "PENDING", 2: "FAILED"}.get(code, "NOT OK")
    return f"{word}: {', '.join(_counts(report))}"


def _counts(report: Report) -> Iterator[str]:
    if report.health:
        answered = sum(not topic.trouble for topic in report.health)
        yield f"{answered}/{plural(len(report.health), 'topic')} answered"
    elif report.verification:
        group, migrations = report.verification.phase7, report.verification.migrations
        for kind in ("tables", "columns", "indexes", "foreign_keys"):
            count = getattr(group, kind)
            yield f"{count.found}/{count.expected} {kind.replace('_', ' ')}"
        yield plural(len(migrations.applied), "migration") if migrations.readable else "migrations not readable"
        if migrations.pending:
            yield f"{len(migrations.pending)} pending"
    if report.write_failed:
        yield "the write check failed"
    if report.write_untried:
        yield f"{plural(len(report.write_untried), 'table')} not tried"
    yield plural(len(report.problems), "finding")
    if report.notes:
        yield plural(report.notes, "note")
    if report.waived:
        yield f"{len(report.waived)} waived"


def _lines(report: Report, verbosity: int) -> Iterator[str]:
    verified = report.verification
    if verified:
        for section in (_server(verified, report.citus), _migrations(verified), _groups(verified), _tables(verified)):
            if lines := list(section):
                yield from (*lines, "")
    if report.backups:
        yield from (*_backups(report.backups), "")
    if verified and verified.indexes is not None:
        yield from (*_indexes(verified), "")
    if report.security:
        yield "Security"
        yield from (line and f"  {line}" for line in topic_lines(report.security))
    if verified and verbosity > 1:
        yield from (*_unmanaged(verified), "")
    applied = " so far" if verified and verified.migrations.pending else ""
    yield from finding_lines(report.findings, report.waived, none=f"none: the database matches the migrations{applied}")
    if report.write_checked is not None:
        yield ""
        yield f"Write check: a row created, read, updated and deleted in each of {plural(len(report.write_checked), 'table')}, and rolled back."
    if report.write_untried:
        yield f"Not tried, because the sample row violates a check of the contract: {', '.join(report.write_untried)}."


def _server(verified: Verification, citus: Citus | None) -> Iterator[str]:
    server = verified.server
    yield "Server"
    yield f"  PostgreSQL   {server.version}{', a standby' if server.standby else ''}, {f'at {server.host}' if server.host else 'on a local socket'}"
    if citus:
        yield f"  Engine       {citus}"
    yield f"  Database     {server.database}, schema {server.schema or 'none'}, role {server.role}"
    yield f"  TLS          {_tls(server)}"
    yield f"  Time zone    {server.time_zone}"
    yield f"  Connections  {server.connections} of {server.max_connections}"
    yield f"  Privileges   {_privileges(server, verified.privileges)}"


def _tls(server: Server) -> str:
    if server.pooled:
        return f"{'on' if server.encrypted else 'off'} to the pooler; the pooler's link to the server: {server.tls or 'off'}"
    return server.tls or ("off" if server.host else "not needed on a local socket")


def _privileges(server: Server, privileges: Iterable[Privilege]) -> str:
    create = "CREATE in the schema" if server.may_create else "no CREATE in the schema"
    if all(privilege.held == privilege.tables for privilege in privileges):
        names = ", ".join(privilege.privilege for privilege in privileges)
        return f"{create}; {names} on all tables" if names else create
    return f"{create}; " + ", ".join(f"{p.privilege} on {p.held} of {plural(p.tables, 'table')}" for p in privileges)


def _migrations(verified: Verification) -> Iterator[str]:
    state = verified.migrations
    yield "Migrations"
    if not state.readable:
        yield f"  unknown      {'row-level security hides' if state.hidden_from else 'this role may not read'} django_migrations"
        return
    # The record of a squashed migration comes after all that ran.
    ran = [migration for migration in state.applied if "_squashed_" not in migration.name]
    last = f", the last {ran[-1].name} on {ran[-1].at:%Y-%m-%d %H:%M} UTC" if ran else ""
    yield f"  applied      {len(state.applied)}{last}"
    yield f"  pending      {len(state.pending)}{', which `manage.py dbadopt` records or applies' if verified.made_by else ''}"
    for migration in () if verified.made_by else verified.pending:
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
    if verified.running:
        yield f"  running      the migration lock is held by {verified.running}"
    elif verified.runs:
        run = verified.runs[0]
        ended = f"failed: {run.error}" if run.error else "" if run.finished else "never ended"
        yield f"  last run     {run.migration} {run.direction} on {run.started:%Y-%m-%d %H:%M} UTC by {run.person}, code {run.code}{', ' + ended if ended else ''}"


def _number(number: int, one: str, many: str = "") -> str:
    return plural(number, one, many) if number else ""


def _groups(verified: Verification) -> Iterator[str]:
    yield f"{'Schema':<22}{'tables':>9}{'columns':>12}{'indexes':>10}{'foreign keys':>15}"
    for group in verified.groups:
        cells = [
            f"{count.found}/{count.expected}" for count in (group.tables, group.columns, group.indexes, group.foreign_keys)
        ]
        yield f"  {group.name:<20}{cells[0]:>9}{cells[1]:>12}{cells[2]:>10}{cells[3]:>15}"
    found = f"found by name, as {verified.made_by} created them" if verified.made_by else "found as defined"
    yield f"  {found} / expected; the guide's 19 tables are the 18 of Phase 7 and the migration ledger"


def _tables(verified: Verification) -> Iterator[str]:
    if verified.tables is None:
        return
    yield f"{'Tables':<26}{'rows':>14}{'size':>12}   state"
    for table in verified.tables:
        unknown = "" if table.state == "missing" else "not known"
        rows = unknown if table.rows is None else f"~{table.rows:,}"
        stored = unknown if table.bytes is None else size(table.bytes)
        yield f"  {table.name:<24}{rows:>14}{stored:>12}   {table.state}"


def _indexes(verified: Verification) -> Iterator[str]:
    recorded = int(re.sub(r"\D.*", "", verified.server.version)) >= 16
    yield "Indexes" if recorded else "Indexes (their last use is recorded from PostgreSQL 16 on)"
    for index in verified.indexes or ():
        never = ", never used" if recorded else ""
        last = f", last {index.last_scan:%Y-%m-%d %H:%M} UTC" if index.last_scan else never
        use = "not known"
        if index.bytes is not None and index.scans is not None:
            use = f"{size(index.bytes)}, {plural(index.scans, 'scan')}{last}"
        yield f"  {index.table}.{index.name}: {use}"
        yield f"      {index.definition}"


def _unmanaged(verified: Verification) -> Iterator[str]:
    yield "Unmanaged, left alone"
    nothing = True
    for kind in KINDS:
        if things := getattr(verified.unmanaged, kind):
            nothing = False
            yield f"  {kind.replace('_', ' ')}: {', '.join(map(where, things))}"
    if nothing:
        yield "  nothing"


def _backups(newest: BackupState) -> Iterator[str]:
    yield "Backups"
    if not newest.place:
        yield "  none known   BACKUP_LOCATION is not set"
    elif good := newest.good:
        yield f"  verified     {good.name}, {span(good.age(newest.now()))} old, {plural(good.rows, 'row')}, at {newest.place}"
    elif newest.trouble:
        yield f"  none known   {newest.trouble}"
    else:
        yield f"  verified     none at {newest.place}"


def topic_lines(topics: Iterable[Topic]) -> Iterator[str]:
    for topic in topics:
        yield topic.name.capitalize()
        if topic.trouble:
            yield f"  not queried: {topic.trouble}"
        for figure in topic.figures:
            if not figure.shown:
                continue
            yield f"  {figure.label:<32}{figure.text}" if len(figure.label) < 32 else f"  {figure.label}\n      {figure.text}"
        yield ""


def finding_lines(
    findings: Iterable[Finding], waived: Iterable[tuple[Finding, Waiver]], *, none: str = "none"
) -> Iterator[str]:
    """Yield the findings; `none` is the text if there are none."""
    findings = list(findings)
    yield "Findings"
    if not findings:
        yield f"  {none}"
    for finding in findings:
        yield f"  {finding.severity.upper():<8}{finding.code} at {one_line(finding.where)}"
        yield f"          {one_line(finding.message)}"
        label = "note" if finding.severity is Severity.NOTE else "cure"
        for place, line in enumerate(finding.cure.splitlines()):
            yield f"          {label + ':' if not place else '     '} {line}"
    for finding, waiver in waived:
        yield f"  waived  {finding.code} at {finding.where}, by {waiver.owner} until {waiver.until}: {waiver.reason}"
