"""Waivers in dbstatus: of the server, of backups and of security; never of drift."""

from dataclasses import replace
from datetime import date

import pytest

from fly2any.database.findings import Finding, Severity
from fly2any.database.report.render import as_text
from fly2any.database.report.waivers import Waiver
from fly2any.database.verification import verify, waived
from tests.conftest import django


@pytest.mark.parametrize(("code", "counts"), [("security.role", False), ("index.missing", True)])
def test_a_waiver_puts_aside_what_is_of_the_server_and_never_drift(migrated, code, counts):
    migrated.execute('DROP INDEX "price_alerts_active_idx"')
    with django(migrated) as opened:
        report = verify(opened)
    where = {"security.role": "postgres", "index.missing": "price_alerts.price_alerts_active_idx"}[code]
    role = Finding(Severity.WARNING, "security.role", "postgres", "It is a superuser.", "Another role.")
    report = replace(report, findings=(*report.findings, role))
    waiver = Waiver(code, where, "ana@example.com", date(2100, 1, 1), "a demo")

    left = waived(report, [waiver])

    assert ((code, where) in {(one.code, one.where) for one in left.findings}) is counts
    assert [(one.code, by) for one, by in left.waived] == ([] if counts else [(code, waiver)])
    assert len(left.findings) + len(left.waived) == len(report.findings)
    assert "waived  security.role at postgres, by ana@example.com until 2100-01-01: a demo" in as_text(left) or counts


def test_a_waiver_whose_day_is_over_is_a_finding(migrated):
    with django(migrated) as opened:
        report = verify(opened)

    over = waived(report, [Waiver("backup.old", "x", "ana@example.com", date(2020, 1, 1), "a demo")])

    assert [(one.code, one.where) for one in over.findings] == [("waiver.expired", "backup.old at x")]
    assert over.exit_code == 4
