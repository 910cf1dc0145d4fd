"""The health of a database as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta

from .examine import Health

FORMAT = 1


def as_text(health: Health) -> str:
    return "\n".join(_lines(health)) + "\n"


def as_json(health: Health) -> str:
    data = {
        "format": FORMAT,
        "exit_code": health.exit_code,
        "at": health.at,
        "topics": [
            {"name": topic.name, "trouble": topic.trouble, "figures": [asdict(figure) for figure in topic.figures]}
            for topic in health.topics
        ],
        "findings": [
            {"severity": f.severity, "code": f.code, "where": f.where, "message": f.message, "cure": f.cure}
            for f in health.findings
        ],
        "waived": [
            {"code": f.code, "where": f.where, "owner": waiver.owner, "until": waiver.until, "reason": waiver.reason}
            for f, waiver in health.waived
        ],
    }
    return json.dumps(
        data, indent=2, ensure_ascii=False, default=lambda v: v.total_seconds() if isinstance(v, timedelta) else v.isoformat()
    )


def _lines(health: Health) -> Iterator[str]:
    for topic in health.topics:
        yield topic.name.capitalize()
        if topic.trouble:
            yield f"  not asked: {topic.trouble}"
        for figure in topic.figures:
            yield f"  {figure.label:<32}{figure.text}" if len(figure.label) < 32 else f"  {figure.label}\n      {figure.text}"
        yield ""
    yield "Findings"
    if not health.findings:
        yield "  none"
    for finding in health.findings:
        yield f"  {finding.severity.upper():<8}{finding.code} at {finding.where}"
        yield f"          {finding.message}"
        first, *rest = finding.cure.splitlines()
        yield f"          cure: {first}"
        yield from (f"                {line}" for line in rest)
    for finding, waiver in health.waived:
        yield f"  waived  {finding.code} at {finding.where}, by {waiver.owner} until {waiver.until}: {waiver.reason}"
