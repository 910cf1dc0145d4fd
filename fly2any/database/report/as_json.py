"""The report as JSON, in the form that docs/reference describes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ..backup.inventory import BackupState
from ..findings import Finding
from ..health.examine import Topic
from ..json_reports import dumped
from ..schema import where
from ..schema.contract import KINDS
from ..verification import Verification
from .collect import Report
from .waivers import Waiver


def health_as_json(report: Report) -> str:
    """Return the JSON that `dbhealth` prints."""
    return dumped(
        {
            "exit_code": report.exit_code,
            "at": report.at,
            "topics": of_topics(report.health),
            "findings": of_findings(report.findings),
            "waived": of_waived(report.waived),
        }
    )


def status_as_json(report: Report) -> str:
    """Return the JSON that `dbstatus` prints."""
    data: dict[str, Any] = {"exit_code": report.exit_code, "database": report.alias}
    if report.verification:
        data |= _of_verification(report.verification)
    if report.citus:
        data["engine"] = asdict(report.citus)
    data["findings"] = of_findings(report.findings)
    if report.backups:
        data["backups"] = _of_backups(report.backups)
    data["waived"] = of_waived(report.waived)
    if report.security:
        data["security"] = {"topics": of_topics(report.security)}
    if report.write_checked is not None:
        data["write_checked"] = report.write_checked
    if report.write_untried:
        data["write_untried"] = report.write_untried
    return dumped(data)


def of_topics(topics: Iterable[Topic]) -> list[dict[str, Any]]:
    return [
        {
            "name": topic.name,
            "trouble": topic.trouble,
            "figures": [{"label": one.label, "text": one.text, "value": one.value} for one in topic.figures],
        }
        for topic in topics
    ]


def of_findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [{"severity": f.severity, "code": f.code, "where": f.where, "message": f.message, "cure": f.cure} for f in findings]


def of_waived(waived: Iterable[tuple[Finding, Waiver]]) -> list[dict[str, Any]]:
    return [
        {"code": f.code, "where": f.where, "owner": waiver.owner, "until": waiver.until, "reason": waiver.reason}
        for f, waiver in waived
    ]


def _of_verification(verified: Verification) -> dict[str, Any]:
    server = asdict(verified.server)
    del server["granted"], server["hides_zone"]  # A row for each table and role: the findings say what matters of both.
    data: dict[str, Any] = {
        "server": server | {"privileges": [asdict(privilege) for privilege in verified.privileges]},
        "migrations": {
            "recorded": verified.migrations.recorded,
            "readable": verified.migrations.readable,
            "applied": [asdict(record) for record in verified.migrations.applied],
            "pending": [asdict(migration) for migration in verified.pending],
            "unknown": verified.migrations.unknown,
        },
        "runs": [asdict(run) for run in verified.runs],
        "running": verified.running and str(verified.running),
        "made_by": verified.made_by,
        "groups": [asdict(group) for group in verified.groups],
        "foreign": {kind: [where(thing) for thing in getattr(verified.unmanaged, kind)] for kind in KINDS},
    }
    if verified.indexes is not None:
        data["indexes"] = [asdict(index) for index in verified.indexes]
    if verified.tables is not None:
        data["tables"] = [asdict(table) for table in verified.tables]
    return data


def _of_backups(backups: BackupState) -> dict[str, Any]:
    good, newest = backups.good, backups.newest
    return {
        "place": backups.place,
        "newest": newest.name if newest else "",
        "newest_good": good.name if good else "",
        "newest_good_taken": good.taken if good else "",
    }
