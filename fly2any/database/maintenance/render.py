"""A run of maintenance, and archives, as text and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any

from ..backup.signing import SIGNED
from ..json_reports import dumped
from ..report.as_json import of_findings, of_topics, of_waived
from ..report.collect import serious
from ..report.text import finding_lines, topic_lines
from ..retention.description import Archive
from ..retention.loading import Loaded
from ..terminal_text import one_line, printable
from ..units import plural, size, span
from .run import Maintenance, Plan


def as_json(run: Maintenance) -> str:
    data: dict[str, Any] = {
        "exit_code": run.exit_code,
        "period": run.period,
        "database": run.database,
        "at": run.at,
        "seconds": round(run.seconds, 3),
        "clock_unchecked": run.clock_unchecked,
        "removed": [asdict(one) for one in run.swept],
        "vacuumed": run.refreshed.vacuumed,
        "analysed": run.refreshed.analysed,
        "topics": of_topics(run.topics),
        "findings": of_findings(run.report.findings),
        "waived": of_waived(run.report.waived),
    }
    return dumped(data)


def as_text(run: Maintenance, *, verbosity: int) -> str:
    """Return the report, its last line the summary, which is all of it with `verbosity` 0."""
    return printable("\n".join([*(_lines(run) if verbosity else ()), summary(run)]) + "\n")


def summary(run: Maintenance) -> str:
    """Return the run as one line, for a log."""
    done = [f"{plural(sum(one.removed for one in run.swept), 'row')} removed"] if run.swept else []
    done += [f"{plural(len(run.refreshed.vacuumed), 'table')} vacuumed"] if run.refreshed.vacuumed else []
    done += [f"{len(run.refreshed.analysed)} analysed"] if run.refreshed.analysed else []
    codes = sorted({finding.code for finding in serious(run.report.findings)})
    notes = len(run.report.findings)
    found = f"findings: {', '.join(codes)}" if codes else plural(notes, "note") if notes else "no findings"
    return f"dbmaintain {run.period} of {run.database}: {', '.join([*done, found])}; {span(run.seconds)}, exit code {run.exit_code}"


def _lines(run: Maintenance) -> Iterator[str]:
    if run.swept:
        yield "Retention"
        for one in run.swept:
            files = (
                f"{plural(len(one.archives), 'file')}, the last {one.archives[-1]}"
                if len(one.archives) > 1
                else "".join(one.archives)
            )
            into = f", archived in {files}" if files else ""
            rest = "" if one.finished else "; stopped at the deadline"
            yield f"  {one.table:<22}{one.what} from before {one.before:%Y-%m-%d}: {one.removed:,} removed{into}{rest}"
        if run.clock_unchecked and any(one.removed for one in run.swept):
            yield f"  {_unchecked(run.clock_unchecked)}"
        yield ""
    if run.refreshed.vacuumed or run.refreshed.analysed:
        yield "Statistics"
        yield from (
            f"  {done:<10}{', '.join(names)}"
            for done, names in (("vacuumed", run.refreshed.vacuumed), ("analysed", run.refreshed.analysed))
            if names
        )
        yield ""
    yield from topic_lines(run.topics)
    yield from finding_lines(run.report.findings, run.report.waived)
    yield ""


def _unchecked(why: str) -> str:
    return f"The server's clock was not checked against older records: {why}."


def as_plan(plan: Plan, form: str) -> str:
    """Return the rows that retention would remove, as text."""
    if form == "json":
        entries = [
            {"table": due.rule.table, "days": due.days, "before": before, "rows": number} for due, before, number in plan.due
        ]
        return dumped({"would_remove": entries, "clock_unchecked": plan.clock_unchecked})
    lines = [
        f"  {due.rule.table:<22}{due.rule.what} from before {before:%Y-%m-%d}, {plural(due.days, 'day')} ago: {number:,}"
        for due, before, number in plan.due
    ]
    if not lines:
        return "Retention is off (RETENTION is not set)."
    unchecked = [_unchecked(plan.clock_unchecked)] if plan.clock_unchecked and any(number for *_, number in plan.due) else []
    return "\n".join(["Nothing was changed. Retention would remove:", *lines, *unchecked])


def as_list(archives: list[Archive], odd: list[str], form: str, *, place: str, unfinished: Collection[str], schema: str) -> str:
    """Return the archives, oldest first; the text names the schema of those that are not of `schema`."""
    if form == "json":
        entries = [
            {"name": one.name, "table": one.table, "rows": one.rows, "bytes": one.bytes, "oldest": one.oldest, "newest": one.newest, "taken": one.taken, "signed": one.signed,
             "schema": one.schema or None, "finished": one.name not in unfinished}
            for one in archives
        ]  # fmt: skip
        return printable(dumped({"archives": entries, "odd": odd}))
    lines = []
    width = max((len(one.name) for one in archives), default=0)
    for one in archives:
        marks = [
            *([one.signed] if one.signed != SIGNED else []),
            *([f"schema {one.schema}"] if one.schema not in ("", schema) else []),
            *(["unfinished: its run was interrupted, or is still running"] if one.name in unfinished else []),
        ]
        period = f"{one.oldest[:10]} to {one.newest[:10]}"
        lines.append("  ".join([f"  {one.name:<{width}}{plural(one.rows, 'row'):>17}{size(one.bytes):>12}", period, *marks]))
    lines += [f"  {name} belongs to no archive, or cannot be read." for name in odd]
    return "\n".join(map(one_line, [f"Archives at {place}", *(lines or ["  none"])]))


def loaded(one: Loaded, archive: Archive) -> str:
    """Return the result of retention for a table, as a line."""
    hangs_on = "the person they belong to is" if one.table == archive.table else f"their row in {archive.table} is"
    more = [f"{one.existing:,} existed already"]
    more += (
        [f"{one.rejected:,} rejected: another row has the same unique value, or a trigger or rule rejects them"]
        if one.rejected
        else []
    )
    more += [f"{one.skipped:,} skipped: {hangs_on} missing"] if one.skipped else []
    return f"Restored  {plural(one.added, 'row')} of {one.table}; {'; '.join(more)}."
