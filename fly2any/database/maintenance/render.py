"""A run of maintenance, and archives, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from ..findings import Severity
from ..health.render import as_data, finding_lines, topic_lines
from ..retention.archive import Archive
from ..retention.rules import Due
from ..units import size, span
from .run import Maintenance

FORMAT = 1


def as_json(run: Maintenance) -> str:
    data: dict[str, Any] = {
        "format": FORMAT,
        "exit_code": run.exit_code,
        "period": run.period,
        "database": run.database,
        "at": run.at,
        "seconds": round(run.seconds, 3),
        "removed": [asdict(one) for one in run.swept],
        "vacuumed": run.vacuumed,
        "analysed": run.analysed,
        **as_data(run.health.topics, run.findings, run.health.waived),
    }
    return json.dumps(data, indent=2, ensure_ascii=False, default=_plain)


def as_text(run: Maintenance, *, verbosity: int) -> str:
    """Return the report, its last line the summary, which is all of it with `verbosity` 0."""
    return "\n".join([*(_lines(run) if verbosity else ()), summary(run)]) + "\n"


def summary(run: Maintenance) -> str:
    """Return the run as one line, for a log."""
    done = [f"{sum(one.removed for one in run.swept):,} rows removed"] if run.swept else []
    done += [f"{len(run.vacuumed)} tables vacuumed"] if run.vacuumed else []
    done += [f"{len(run.analysed)} analysed"] if run.analysed else []
    serious = sorted({finding.code for finding in run.findings if finding.severity is not Severity.NOTE})
    found = f"findings: {', '.join(serious)}" if serious else "no finding"
    return f"dbmaintain {run.period} of {run.database}: {', '.join([*done, found])}; {span(run.seconds)}, exit code {run.exit_code}"


def _lines(run: Maintenance) -> Iterator[str]:
    if run.swept:
        yield "Retention"
        for one in run.swept:
            into = (
                f", archived in {one.archives[-1] if len(one.archives) == 1 else f'{len(one.archives)} files, the last {one.archives[-1]}'}"
                if one.archives
                else ""
            )
            rest = "" if one.finished else "; the deadline came before the end"
            yield f"  {one.table:<22}{one.removed:>12,} {one.what} of before {one.before:%Y-%m-%d} removed{into}{rest}"
        yield ""
    if run.vacuumed or run.analysed:
        yield "Statistics"
        yield from (
            f"  {done:<10}{', '.join(names)}"
            for done, names in (("vacuumed", run.vacuumed), ("analysed", run.analysed))
            if names
        )
        yield ""
    yield from topic_lines(run.health.topics)
    yield from finding_lines(run.findings, run.health.waived)
    yield ""


def as_plan(plan: Iterable[tuple[Due, datetime, int]]) -> str:
    """Return what retention would remove."""
    lines = [
        f"  {due.rule.table:<22}{number:>12,} {due.rule.what} of before {before:%Y-%m-%d}, {due.days} days ago"
        for due, before, number in plan
    ]
    return "\n".join(
        ["Nothing was changed. Retention would remove:", *lines] if lines else ["Nothing is switched on: RETENTION is not set."]
    )


def as_list(archives: Iterable[Archive], place: str) -> str:
    """Return the archives, oldest first."""
    lines = [
        f"  {one.name:<58}{one.rows:>12,} rows{size(one.bytes):>12}  {one.oldest[:10]} to {one.newest[:10]}" for one in archives
    ]
    return "\n".join([f"Archives at {place}", *(lines or ["  none"])])


def _plain(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat()
