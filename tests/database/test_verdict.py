"""The verdict lines of a report, its tables, and the report on a database that is not adopted."""

import io
import json

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from tests.conftest import manage, recorded_migrations
from tests.database.sites import ROWS
from tests.database.test_dbstatus import dbstatus, run
from tests.prisma import PHASE7
from tests.servers import REPORTED_SQL, wait_until

FOUND = "18/18 tables, 188/188 columns, 33/33 indexes, 13/13 foreign keys"


def frame(text):
    lines = text.splitlines()
    return lines[0], lines[1], lines[-2], lines[-1]


@pytest.mark.django_db
def test_the_first_and_the_last_line_are_the_verdict():
    said = f"OK: {FOUND}, {recorded_migrations()} migrations, 0 findings"
    assert frame(dbstatus()[1]) == (said, "", "", f"{said} (exit code 0)")

    MigrationRecorder(connection).migration_qs.filter(app="administration").latest("name").delete()
    said = f"PENDING: {FOUND}, {recorded_migrations() - 1} migrations, 1 pending, 0 findings"
    assert frame(dbstatus()[1]) == (said, "", "", f"{said} (exit code 1)")

    run('DROP INDEX "price_alerts_active_idx"')
    said = f"NOT OK: {FOUND.replace('33/', '32/')}, {recorded_migrations() - 1} migrations, 1 pending, 1 finding"
    assert frame(dbstatus()[1]) == (said, "", "", f"{said} (exit code 5)")


@pytest.mark.django_db
def test_notes_are_counted_beside_the_findings():
    run('ALTER TABLE wishlist_items ALTER "flightData" DROP NOT NULL; ALTER TABLE users ADD extra int CHECK (extra > 0)')

    code, text = dbstatus()

    assert (code, frame(text)[3].rpartition(" migrations, ")[2]) == (0, "0 findings, 1 note (exit code 0)")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.django_db
@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_the_verdict_is_coloured_on_a_terminal_only(monkeypatch, environment, coloured):
    monkeypatch.setattr("django.core.management.color.supports_color", lambda: True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out, plain = Terminal(), io.StringIO()
    for stdout in (out, plain):
        with pytest.raises(SystemExit):
            call_command("dbstatus", stdout=stdout)

    assert "\x1b" not in plain.getvalue()
    lines = [number for number, line in enumerate(out.getvalue().splitlines()) if line.startswith("\x1b[32;1mOK: ")]
    assert lines == ([0, out.getvalue().count("\n") - 1] if coloured else [])


@pytest.mark.django_db
def test_the_tables_are_listed_with_rows_size_and_state():
    run('DROP TABLE push_subscriptions; DROP INDEX "price_alerts_active_idx", "price_alerts_lastChecked_idx"; ANALYZE')

    text, data = dbstatus("--tables")[1], json.loads(dbstatus("--tables", "--format", "json")[1])

    lines = text.partition("\nTables ")[2].splitlines()[1:19]
    states = {line.split()[0]: line.split("   ")[-1].strip() for line in lines}
    damaged = {"push_subscriptions": "missing", "price_alerts": "index.missing"}
    assert states == {name: damaged.get(name, "as defined") for name in sorted(PHASE7)}
    assert next(line for line in lines if "users " in line).split()[1:2] == ["~0"]
    assert {one["name"]: one["state"] for one in data["tables"]} == states
    assert data["tables"][sorted(PHASE7).index("push_subscriptions")] == {
        "name": "push_subscriptions", "rows": None, "bytes": None, "state": "missing",
    }  # fmt: skip


@pytest.mark.parametrize("ledger", [True, False])
def test_a_prisma_database_is_counted_by_name_and_referred_to_dbadopt(site, ledger):
    if not ledger:
        site.execute("DROP TABLE _prisma_migrations")
    wait_until(site, REPORTED_SQL, [18 * ROWS])
    site.execute('CREATE INDEX "login_history_timestamp_idx" ON login_history (timestamp); ANALYZE')
    maker = "Prisma" if ledger else "another tool"

    result = manage("dbstatus", "--tables", url=site.url)

    said = f"Created by {maker}, not adopted: run `manage.py dbadopt`"
    assert frame(result.stdout) == (said, "", "", f"{said} (exit code 5)")
    lines = result.stdout.splitlines()
    assert [line.split() for line in lines if "Phase 7, total" in line] == [
        ["Phase", "7,", "total", "18/18", "188/188", "33/33", "13/13"]
    ]
    assert f"  pending      {recorded_migrations() - 3}, which `manage.py dbadopt` records or applies" in lines
    assert [line for line in lines if line.startswith("    ")] == [
        "          Our tables exist, but no migration that creates them is recorded: "
        f"{maker} created them, and `migrate` refuses to run.",
        "          cure: Run `manage.py dbadopt`: it shows its plan, and changes nothing without --yes.",
    ]
    tables = [line.split("   ")[-1].strip() for line in lines if f"~{ROWS} " in line]
    assert tables == ["not adopted"] * 18


def test_a_lost_record_is_not_mistaken_for_another_tools_work(migrated):
    migrated.execute("DELETE FROM django_migrations")

    result = manage("dbstatus", url=migrated.url)

    assert result.stdout.startswith("NOT OK: 18/18 tables, ")
    assert result.stdout.splitlines()[-5:-2] == [
        "  ERROR   migrations.unrecorded at accounts.0001_initial",
        "          All tables match our migrations, but none is recorded: the rows of django_migrations are lost.",
        "          cure: `manage.py migrate --fake` records them again, and changes nothing else.",
    ]
