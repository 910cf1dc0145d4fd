"""The health of a database as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from ..findings import Finding, Severity
from ..printable import one_line, printable
from ..report.waivers import Waiver
from .examine import Health, Topic

FORMAT = 1


def as_text(health: Health) -> str:
    return printable("\n".join([*topic_lines(health.topics), *finding_lines(health.findings, health.waived)]) + "\n")


def as_json(health: Health) -> str:
    data = {
        "format": FORMAT,
        "exit_code": health.exit_code,
        "at": health.at,
        **as_data(health.topics, health.findings, health.waived),
    }
    return json.dumps(data, indent=2, ensure_ascii=False, default=plain)


def plain(value: Any) -> Any:
    """Return a time as ISO 8601, and how long something took in seconds, for JSON."""
    return value.total_seconds() if isinstance(value, timedelta) else value.isoformat()


def as_data(
    topics: Iterable[Topic], findings: Iterable[Finding], waived: Iterable[tuple[Finding, Waiver]] = ()
) -> dict[str, Any]:
    """Return topics, findings and waivers as JSON has them."""
    return {
        "topics": [
            {
                "name": topic.name,
                "trouble": topic.trouble,
                "figures": [{"label": one.label, "text": one.text, "value": one.value} for one in topic.figures],
            }
            for topic in topics
        ],
        "findings": [
            {"severity": f.severity, "code": f.code, "where": f.where, "message": f.message, "cure": f.cure} for f in findings
        ],
        "waived": [
            {"code": f.code, "where": f.where, "owner": waiver.owner, "until": waiver.until, "reason": waiver.reason}
            for f, waiver in waived
        ],
    }


def topic_lines(topics: Iterable[Topic]) -> Iterator[str]:
    for topic in topics:
        yield topic.name.capitalize()
        if topic.trouble:
            yield f"  not asked: {topic.trouble}"
        for figure in topic.figures:
            if not figure.shown:
                continue
            yield f"  {figure.label:<32}{figure.text}" if len(figure.label) < 32 else f"  {figure.label}\n      {figure.text}"
        yield ""


def finding_lines(findings: Iterable[Finding], waived: Iterable[tuple[Finding, Waiver]]) -> Iterator[str]:
    yield "Findings"
    findings = list(findings)
    if not findings:
        yield "  none"
    for finding in findings:
        yield f"  {finding.severity.upper():<8}{finding.code} at {one_line(finding.where)}"
        yield f"          {one_line(finding.message)}"
        first, *rest = finding.cure.splitlines()
        label = "note" if finding.severity is Severity.NOTE else "cure"
        yield f"          {label}: {first}"
        yield from (f"                {line}" for line in rest)
    yield from waived_lines(waived)


def waived_lines(waived: Iterable[tuple[Finding, Waiver]]) -> Iterator[str]:
    for finding, waiver in waived:
        yield f"  waived  {finding.code} at {finding.where}, by {waiver.owner} until {waiver.until}: {waiver.reason}"
