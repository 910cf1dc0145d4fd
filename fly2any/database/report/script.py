"""The cures of a report as a script for psql.

A cure is commented out if its finding has a reason in `loses`, which the module that found it sets, or drift.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.conf import settings

from ..findings import Finding, Severity
from ..schema.objects import OF_REINDEX
from ..schema.unmanaged import AGREE
from ..sql import quote
from ..terminal_text import one_line
from .collect import Report

# A concurrent build blocks no other session; if cancelled, it leaves an invalid index.
CONCURRENTLY = re.compile(r"^(?:CREATE (?:UNIQUE )?|DROP |RE)INDEX (?:(?:INDEX|DATABASE) )?CONCURRENTLY .*?;$", re.M | re.S)
# Not with SET, because transaction_timeout is new in PostgreSQL 17.
ENDLESS = (
    "DO $$ BEGIN PERFORM pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings"
    " WHERE name IN ('statement_timeout', 'transaction_timeout'); END $$;"
)
NOT_OURS = "it changes an unmanaged object; ask its owner first"


def status_as_sql(report: Report) -> str:
    """Return the cures for errors and warnings, in the order in which they must run; those that are not SQL, or that must be read
    first, are comments.

    What an interrupted REINDEX left is dropped first: if the REINDEX fails again, it would leave one more.
    """
    found = [finding for finding in report.findings if finding.severity is not Severity.NOTE]
    found.sort(key=lambda finding: not (finding.code == "index.extra" and OF_REINDEX.search(finding.where)))
    schema = report.verification.server.schema if report.verification else None
    path = f"SET search_path TO {quote(schema)};\n" if schema and found else ""
    parts = [_header(report, found), path, *("\n".join(_lines(finding, path)) + "\n" for finding in found)]
    return "\n".join(filter(None, parts))


def _header(report: Report, found: list[Finding]) -> str:
    run, off = sum(map(_runs, found)), sum(not _runs(finding) and bool(_sql(finding)) for finding in found)
    if not found:
        return "-- Nothing to cure in the database.\n"
    return (
        f"-- Cures: {run} to run, {off} commented out, {len(found) - run - off} without SQL.\n"
        "-- Stop at the first that fails: manage.py dbstatus --sql | manage.py dbshell -- -v ON_ERROR_STOP=1\n"
        f"{_waiting()}  -- The site queues behind a statement that waits for a lock: if this fails, print the script again and run it when the database is less busy.\n"
        f"{ENDLESS}  -- A role or database may limit each statement to less than an index build takes.\n"
    )


def _waiting() -> str:
    return f"SET lock_timeout TO '{settings.LOCK_TIMEOUT}ms';"


def _sql(finding: Finding) -> str:
    """Return the statements of a cure, "" if it has none."""
    sql = finding.cure.removeprefix(AGREE) if finding.is_sql or finding.cure.startswith(AGREE) else ""
    return CONCURRENTLY.sub(lambda match: f"SET lock_timeout TO '0';\n{match[0]}\n{_waiting()}", sql)


def _runs(finding: Finding) -> bool:
    return finding.is_sql and not finding.loses


def _lines(finding: Finding, path: str) -> Iterator[str]:
    yield f"-- {finding.severity.upper()} {finding.code} at {one_line(finding.where)}: {one_line(finding.message)}"
    if not (sql := _sql(finding).removeprefix(path)):
        yield f"-- No SQL: {one_line(finding.cure)}"
    elif _runs(finding):
        yield sql
    else:
        yield f"-- Commented out: {one_line(finding.loses or NOT_OURS)}."
        yield from (f"-- {line}" for line in sql.splitlines())
