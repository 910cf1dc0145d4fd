"""An assessment as text and as JSON; both show the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.conf import settings

from ..schema import where
from ..schema.contract import KINDS
from ..terminal_text import printable
from ..units import few, plural, size, span
from .assessment import Assessment, Blocker, Kind
from .steps import BLOCKED, Step

FORMAT = 1
OTHERS = ("types", "functions", "policies", "publications", "grants")
KIND_TEXT = {
    Kind.EXACT: "exact, as Prisma's migration created it",
    Kind.SUPERSET: "superset, as Prisma's migration created it, with unmanaged objects too",
    Kind.DRIFTED: "drifted, with tables that differ from what Prisma's migration created",
    Kind.EMPTY: "empty, because none of our tables exist: there is nothing to adopt; run `manage.py migrate`",
    Kind.OURS: "ours, because our migrations are recorded: there is nothing to adopt",
}
NEXT_STEPS = """
Verify it with `manage.py dbstatus`. This project now owns the schema. In the site:
  Run `npx prisma db pull && npx prisma generate`, so that its client knows the new columns.
  Stop using `prisma migrate` and `prisma db push`, because they can drop our columns and tables.
"""


def as_json(assessment: Assessment) -> str:
    """Return the assessment as a JSON object, of the shape that docs/reference/dbadopt.md gives."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "exit_code": assessment.exit_code,
        "kind": assessment.kind,
        "database": assessment.server.database,
        "schema": assessment.schema,
        "prisma": [
            asdict(migration) | {"applied": migration.applied, "failed": migration.failed} for migration in assessment.prisma
        ],
        "steps": list(map(_step, assessment.steps)),
        "records": assessment.recorded,
        "migrations": list(map(_step, assessment.migrations)),
        "blockers": [
            {
                "code": blocker.finding.code,
                "where": blocker.finding.where,
                "message": blocker.finding.message,
                "cure": blocker.finding.cure,
                "rows": blocker.rows,
                "ids": blocker.ids,
                "query": blocker.query,
                "repairs": list(map(_step, blocker.repairs)),
            }
            for blocker in assessment.blockers
        ],
        "notes": assessment.notes,
        "foreign": _unmanaged(assessment),
    }
    return json.dumps(data, indent=2, ensure_ascii=False, default=lambda value: value.isoformat())


def _step(step: Step) -> dict[str, Any]:
    return {
        "table": step.table,
        "what": step.what,
        "statements": step.statements,
        "lock": step.lock,
        "rewrites": False,  # No step does; a test compares the tables' files.
        "index_bytes": step.index_bytes,
        "seconds": round(step.seconds, 3),
    }


def as_text(assessment: Assessment) -> str:
    """Return the assessment for a person."""
    return printable("\n".join(_lines(assessment)).rstrip() + "\n")


def _lines(assessment: Assessment) -> Iterator[str]:
    server = assessment.server
    yield f"Database {server.database}, schema {assessment.schema}, PostgreSQL {server.version}, role {server.role}"
    yield f"  Kind: {KIND_TEXT[assessment.kind]}."
    if assessment.prisma:
        done = [migration for migration in assessment.prisma if migration.applied]
        last = f", the last {done[-1].name}" if done else ""
        yield f"  Prisma's ledger: {len(done)} applied{last}."
    if assessment.migrations and assessment.kind is Kind.OURS:
        yield f"  {plural(len(assessment.migrations), 'later migration is', 'later migrations are')} pending: run `manage.py migrate`, or this command with --yes."
    if assessment.kind in (Kind.EMPTY, Kind.OURS):
        return
    yield from _unmanaged_lines(assessment)
    if assessment.blockers:
        yield ""
        yield "Blockers"
        for blocker in assessment.blockers:
            yield from _blocker(blocker)
    yield ""
    yield "Steps: each runs in its own transactions, in a session with the time zone UTC. No table is rewritten. A step that does"
    yield f"not get a lock within {span(settings.LOCK_TIMEOUT / 1000)} lets the other sessions go first, and is retried."
    for number, step in enumerate(assessment.steps, 1):
        yield from _step_lines(f"{number:>4}", step)
    yield f"{len(assessment.steps) + 1:>4}  {plural(len(assessment.recorded), 'migration')} recorded as applied, once the catalogue matches them: {', '.join(assessment.recorded)}"
    unlocked = sum(not step.statements for step in assessment.migrations)
    yield f"{len(assessment.steps) + 2:>4}  {plural(len(assessment.migrations), 'migration')} run, as with `manage.py migrate`; {plural(unlocked, 'touches', 'touch')} no existing table"
    for step in assessment.migrations:
        if step.statements:
            yield from _step_lines("    ", step)
    yield from _notes(assessment)


def _notes(assessment: Assessment) -> Iterator[str]:
    longest = max(assessment.steps, key=lambda step: step.seconds, default=None)
    yield ""
    yield "Worth knowing"
    if longest is not None:
        yield f"  The longest lock is held for {_seconds(longest)}, on {longest.table}: estimated from {size(longest.index_bytes)} of index at 25 MB/s."
    yield "  Prepared statements: after a table is converted, a client that cached statements on it gets `cached plan must not change result type`"
    yield "  until it prepares them again. Prisma's engine up to version 6 does so after one error per statement; Prisma 7 with a driver adapter caches none by"
    yield "  default. Restart the site's processes one by one after the adoption. --end-idle instead terminates idle connections after the last step that"
    yield "  changes a type; a Node process may exit when its connection is terminated (SQLSTATE 57P01, unhandled)."
    yield "  Microseconds: the converted columns store microseconds; before, they rounded to milliseconds. Prisma and this project write milliseconds."
    yield "  If raw SQL writes CURRENT_TIMESTAMP, or uses the column's default, Prisma truncates the time that it reads to milliseconds, so the stored"
    yield "  time can be later than the one read, and a comparison for equality fails. Write date_trunc('milliseconds', CURRENT_TIMESTAMP) instead."
    for note in assessment.notes:
        yield f"  {note}"
    if assessment.blockers:
        repaired = sum(bool(blocker.repairs) for blocker in assessment.blockers)
        yield ""
        yield f"Not ready: {plural(len(assessment.blockers), 'blocker')}. {_what_to_fix(repaired, len(assessment.blockers) - repaired)}"


def _what_to_fix(repaired: int, left: int) -> str:
    """Return a sentence about the blockers, of which --repair fixes some, and `left` are left."""
    if not left:
        return f"`--repair` fixes {'it' if repaired == 1 else 'all'}."
    if not repaired:
        return f"Fix {'it' if left == 1 else 'them'} first."
    return f"`--repair` fixes {repaired}; fix the other {left} first."


def _step_lines(number: str, step: Step) -> Iterator[str]:
    lock = f"{step.lock} on {step.table}: {BLOCKED[step.lock]}" if step.lock else BLOCKED[""]
    held = f", for {_seconds(step)} ({size(step.index_bytes)} of index rebuilt)" if step.index_bytes else ""
    yield f"{number}  {step.table}: {step.what}"
    yield f"      {lock}{held}"
    for statement in step.statements:
        yield f"        {statement};"


def _blocker(blocker: Blocker) -> Iterator[str]:
    finding = blocker.finding
    yield f"  {finding.code} at {finding.where}"
    yield f"      {finding.message}"
    if blocker.rows is not None:
        ids = f": {', '.join(blocker.ids)}{', …' if blocker.rows > len(blocker.ids) else ''}" if blocker.ids else ""
        if blocker.rows:
            yield f"      {blocker.rows:,} {'row has' if blocker.rows == 1 else 'rows have'} to be fixed first{ids}"
            yield f"        {blocker.query}"
        else:
            yield "      No row blocks the cure."
    if blocker.repairs:
        yield "      --repair does:"
        for step in blocker.repairs:
            yield f"        {step.lock + ' on ' + step.table + ': ' if step.lock else ''}{BLOCKED[step.lock]}"
            for statement in step.statements:
                yield f"        {statement};"
    else:
        for place, line in enumerate(finding.cure.splitlines()):
            yield f"      {'cure: ' if place == 0 else '      '}{line}"


def _unmanaged(assessment: Assessment) -> dict[str, list[str]]:
    """Return the unmanaged objects, by kind."""
    named = {kind: [where(thing) for thing in getattr(assessment.unmanaged, kind)] for kind in KINDS}
    others = {kind: [name for of, name in assessment.others if of == kind] for kind in OTHERS}
    return named | others


def _unmanaged_lines(assessment: Assessment) -> Iterator[str]:
    parts = []
    for kind, things in _unmanaged(assessment).items():
        if things:
            parts.append(f"    {kind.replace('_', ' ')}: {few(things, SHOWN)}")
    if parts:
        yield "  Unmanaged, left alone:"
        yield from parts


def _seconds(step: Step) -> str:
    return f"about {step.seconds:.1f} s" if step.seconds >= 0.1 else "less than a tenth of a second"


SHOWN = 10
