"""Commands, metrics and pages report the same findings for a database."""

import json
from datetime import date

import pytest
from django.db import connection

from fly2any.database.findings import Finding, Severity
from fly2any.database.report.collect import collect, verify_or_report
from fly2any.database.report.waivers import Waiver, read_waivers
from fly2any.database.verification import verify
from tests.conftest import django, manage
from tests.database.driven import TOKEN
from tests.servers import open_transaction

WAIVERS = """
[[waiver]]
code = "server.time_zone"
where = {name!r}
owner = "ana@example.com"
until = 2999-01-01
reason = "until the site is ready"

[[waiver]]
code = "server.connections"
where = {name!r}
owner = "ana@example.com"
until = 2026-01-01
reason = "a small server"
"""

ASKED = """
import contextlib, io, json, re
from collections import Counter
from pathlib import Path
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment
from django.urls import reverse
from accounts.models import User

settings.WAIVERS = Path(WAIVERS)
settings.SECURE_SSL_REDIRECT = settings.SECOND_FACTOR = False
setup_test_environment()

def of_command(*line):
    out = io.StringIO()
    with contextlib.suppress(SystemExit):
        call_command(*line, format="json", stdout=out, stderr=out)
    report = json.loads(out.getvalue())
    return [[one["severity"], one["code"]] for one in report["findings"]], [one["code"] for one in report["waived"]]

def of_page(name):
    report = client.get(reverse(name), secure=True).context["report"]
    return [[str(one.severity), one.code] for one in report.findings], [one.code for one, _ in report.waived]

def of_metrics():
    text = client.get("/metrics", secure=True, headers={"Authorization": f"Bearer {settings.METRICS_TOKEN}"}).content.decode()
    found = re.findall(r'fly2any_findings{code="([^"]+)",severity="([^"]+)"} ([0-9]+)', text)
    return [[severity, code] for code, severity, number in found for _ in range(int(number))], ["server.time_zone"]

client = Client(HTTP_HOST="localhost")
client.force_login(User.objects.create_superuser("ana@example.com", "a-long-password-1"), backend="fly2any.administration.backends.PasswordBackend")
print(json.dumps({
    "dbstatus": of_command("dbstatus"), "dbhealth": of_command("dbhealth"), "dbmaintain": of_command("dbmaintain", "weekly"),
    "metrics": of_metrics(), "index": of_page("admin:index"), "database": of_page("admin:database"),
}))
"""

# Findings of a database with a waived, an expired, a backup and a drift finding; others depend on what each report checks.
FOUND = [["error", "index.missing"], ["warning", "backup.none"], ["warning", "waiver.expired"]]


@pytest.mark.slow
def test_commands_metrics_and_pages_report_the_same_findings(migrated, tmp_path):
    migrated.execute('DROP INDEX "price_alerts_active_idx"')
    migrated.execute(f"ALTER DATABASE {migrated.name} SET timezone TO 'America/New_York'")
    (tmp_path / "waivers.toml").write_text(WAIVERS.format(name=migrated.name))
    (tmp_path / "backups").mkdir()

    ran = manage("shell", "-v0", "-c", f"WAIVERS = {str(tmp_path / 'waivers.toml')!r}\n{ASKED}", url=migrated.url,
                 METRICS_TOKEN=TOKEN, BACKUP_LOCATION=str(tmp_path / "backups"))  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout.splitlines()[-1])
    shared = {code for _, code in FOUND}
    assert {name: sorted(one for one in found if one[1] in shared) for name, (found, _) in answers.items()} == dict.fromkeys(
        ["dbstatus", "dbhealth", "dbmaintain", "metrics", "index", "database"], FOUND
    )
    assert {name: waived for name, (_, waived) in answers.items()} == {key: ["server.time_zone"] for key in answers}
    assert [one for found, _ in answers.values() for one in found if one[1] == "server.time_zone"] == []


ROLE = Finding(Severity.WARNING, "security.role", "postgres", "It is a superuser.", "Another role.")


def waiver(code, where, year):
    return Waiver(code, where, "ana@example.com", date(year, 1, 1), "a demo")


def test_a_finding_counts_once_unless_it_is_waived(migrated):
    with django(migrated) as connection:
        left = collect(connection, found=[ROLE, ROLE])
        waived = collect(connection, found=[ROLE], waivers=[waiver("security.role", "postgres", 2100)])

    assert (left.findings, left.exit_code) == ((ROLE,), 4)
    assert ([one for one, _ in waived.waived], waived.findings, waived.exit_code) == ([ROLE], (), 0)


@pytest.mark.parametrize("release", [False, True])
def test_a_release_is_not_stopped_by_findings_that_it_cannot_fix(migrated, release):
    migrated.execute('DROP INDEX "price_alerts_active_idx"')

    with django(migrated) as connection:
        report = collect(connection, verification=verify(connection), found=[ROLE], release=release)

    severity = {finding.code: finding.severity for finding in report.findings}
    assert (severity["security.role"], severity["index.missing"]) == ("note" if release else "warning", "error")
    assert report.exit_code == 4


@pytest.mark.parametrize("release", [False, True])
def test_a_key_of_the_sites_own_table_may_be_waived_and_stops_no_deploy(migrated, tmp_path, release):
    migrated.execute("CREATE TABLE trips (id int PRIMARY KEY, person text REFERENCES users ON DELETE RESTRICT)")
    path = tmp_path / "waivers.toml"
    path.write_text(
        '[[waiver]]\ncode = "foreign_key.restricts"\nwhere = "trips.trips_person_fkey"\nowner = "a"\nuntil = 2999-01-01\nreason = "b"\n'
    )

    with django(migrated) as connection:
        verified = verify(connection)
        report = collect(connection, verification=verified, release=release)
        waived = collect(connection, verification=verified, waivers=read_waivers(path))

    [(code, severity)] = [(finding.code, finding.severity) for finding in report.findings]
    assert (code, severity, report.exit_code) == (
        ("foreign_key.restricts", "note", 0) if release else ("foreign_key.restricts", "warning", 4)
    )
    assert ([one.code for one, _ in waived.waived], waived.exit_code) == (["foreign_key.restricts"], 0)


OF_THE_PAGES = """
from django.db import transaction
from fly2any.administration.dashboard import read_verification
with transaction.atomic():
    verification, found = read_verification()
    print(verification, [f"{one.code} at {one.where}" for one in found])
"""


@pytest.mark.slow
def test_a_locked_table_does_not_prevent_the_rest_of_the_report(migrated):
    with open_transaction(migrated, "LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"):
        asked = manage("dbhealth", "--format", "json", url=migrated.url)
        status = manage("dbstatus", url=migrated.url)
        page = manage("shell", "-v0", "-c", OF_THE_PAGES, url=migrated.url)

    assert (page.returncode, page.stdout) == (0, "None ['health.not_asked at schema']\n"), page.stderr
    report = json.loads(asked.stdout)
    assert ["health.not_asked", "schema"] in [[one["code"], one["where"]] for one in report["findings"]]
    assert "transactions" in [topic["name"] for topic in report["topics"]]
    assert (asked.returncode, status.returncode, status.stderr.startswith("Another transaction holds a lock")) == (4, 2, True)


@pytest.mark.django_db
def test_a_comparison_beyond_the_time_limit_refers_to_the_command_without_one():
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '1ms'")

    verification, (finding,) = verify_or_report(connection)

    assert (verification, finding.code, finding.where) == (None, "health.not_asked", "schema")
    assert finding.cure == "Run `manage.py dbstatus`, which sets no time limit."
