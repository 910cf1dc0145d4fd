"""Maintenance, as cron runs it: the work and the findings of each period."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from fly2any.database.maintenance.run import maintain as run_of
from fly2any.database.migration.advisory_locks import MAINTENANCE_LOCK, advisory_lock
from fly2any.database.progress import Progress
from fly2any.database.retention.rules import RULES
from fly2any.database.sql import fetch_all
from tests.conftest import django, manage
from tests.database.old_rows import maintain
from tests.database.taken import rows
from tests.servers import open_transaction, wait_until


def test_a_waiver_applies_to_findings_of_maintenance(filled, settings, tmp_path):
    settings.WAIVERS = tmp_path / "waivers.toml"
    settings.RETENTION = {"days": {"price_history": 1}, "archive": ""}
    settings.WAIVERS.write_text(
        '[[waiver]]\ncode = "maintenance.unfinished"\nwhere = "retention of price_history"\nowner = "a"\nuntil = 2100-01-01\nreason = "b"\n'
    )

    with django(filled) as connection:
        run = run_of(connection, "weekly", seconds=0, progress=Progress())

    assert [(one.code, one.where) for one, _ in run.report.waived] == [("maintenance.unfinished", "retention of price_history")]
    assert [one.code for one in run.report.findings if one.code.startswith("maintenance")] == []


@pytest.mark.parametrize("seconds", ["3000000", "1e300"])
def test_a_deadline_longer_than_the_servers_is_accepted(filled, seconds):
    result = maintain(filled, "monthly", "--deadline", seconds)

    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_a_dry_run_does_not_wait_long_for_locks(filled):
    with open_transaction(filled, "LOCK TABLE price_history IN ACCESS EXCLUSIVE MODE"):
        result = maintain(filled, "weekly", "--dry-run", RETENTION="price_history=1")

    assert result.returncode == 2
    assert result.stderr.startswith("Another transaction holds a lock")


def test_a_dry_run_as_json(filled):
    number = len(rows(filled)["price_history"])

    data = json.loads(maintain(filled, "weekly", "--dry-run", "--format", "json", RETENTION="price_history=1").stdout)

    assert [(one["table"], one["days"], one["rows"]) for one in data["would_remove"]] == [("price_history", 1, number)]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RETENTION": "users=1"}, f"RETENTION names users, which has no rule. Tables with a rule: {', '.join(RULES)}."),
        (
            {"RETENTION": "sessions=0,price_history=00"},
            "RETENTION=price_history=0 would delete every row of price_history. Leave price_history out to keep its rows, or write"
            " 1 or more days.",
        ),
        ({"RETENTION": "price_history"}, "RETENTION is invalid at “price_history”: write table=days,table=days, each table once."),
        ({"RETENTION": "price_history=-1"}, "RETENTION is invalid at “price_history=-1”: write table=days,table=days, each table once."),
        ({"RETENTION": "sessions=1,sessions=2"}, "RETENTION is invalid at “sessions=2”: write table=days,table=days, each table once."),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "/b/", "BACKUP_LOCATION": "/b"},
            "ARCHIVE_LOCATION is the location of the backups, which `dbbackup --prune` removes: use a separate folder for archives.",
        ),
        ({"RETENTION": "price_history=\u0663"}, "RETENTION is invalid at “price_history=\u0663”: write table=days,table=days, each table once."),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "/tmp/../b", "BACKUP_LOCATION": "/b"},
            "ARCHIVE_LOCATION is the location of the backups, which `dbbackup --prune` removes: use a separate folder for archives.",
        ),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "s3://fly//b", "BACKUP_LOCATION": "s3://fly/b/"},
            "ARCHIVE_LOCATION is the location of the backups, which `dbbackup --prune` removes: use a separate folder for archives.",
        ),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "b"},
            "ARCHIVE_LOCATION is the relative path b: write an absolute path, or s3://bucket/folder.",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_reported_in_one_sentence(migrated, environment, said):
    result = maintain(migrated, "weekly", **environment)

    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{said}\n")


def test_retention_is_off_by_default_and_a_dry_run_only_counts(filled):
    filled.execute("DELETE FROM sessions; DELETE FROM price_history WHERE timestamp > now() - interval '2 days'")
    before = rows(filled)

    off = maintain(filled, "quarterly")
    dry = maintain(filled, "weekly", "--dry-run", RETENTION="price_history=1,sessions=3")

    number, now = len(before["price_history"]), datetime.now(UTC)
    assert off.returncode in (0, 4)
    assert dry.stdout.splitlines() == [
        "Nothing was changed. Retention would remove:",
        f"  price_history         prices from before {now - timedelta(days=1):%Y-%m-%d}, 1 day ago: {number:,}",
        f"  sessions              expired NextAuth sessions from before {now - timedelta(days=3):%Y-%m-%d}, 3 days ago: 0",
        "The server's clock was not checked against older records: fly2any_migration_runs records no migration from more than 37 days ago.",
    ]
    assert rows(filled) == before


def test_the_deadline_is_kept_and_the_remaining_work_reported(filled):
    before = rows(filled)

    result = maintain(filled, "monthly", "--deadline", "0", "--format", "json", RETENTION="price_history=1")

    left = [one["where"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.unfinished"]
    assert result.returncode == 4
    assert left[0] == "retention of price_history"
    assert left[1].startswith("VACUUM and ANALYZE from ")
    assert rows(filled) == before


def test_runs_exclude_each_other_and_name_the_lock_holder(migrated):
    with migrated.connect(application_name="the other") as other:
        other.execute("SELECT pg_advisory_lock(72707370)")
        result = maintain(migrated, "weekly", "--lock-wait", "0.5")

    assert result.returncode == 2
    assert re.search(
        r"The maintenance lock is still held by pid \d+ \(the other, .*\) after 0 s: run the command again when it is released", result.stderr
    )  # fmt: skip


BY_HAND = "ALTER TABLE price_history SET (autovacuum_enabled = off)"


def periods(database, period):
    return json.loads(maintain(database, period, "--format", "json").stdout)


def test_each_period_includes_the_shorter_one(filled):
    filled.execute(f"{BY_HAND}; ALTER TABLE verification_tokens SET (autovacuum_enabled = off)")
    filled.execute("DELETE FROM price_history; INSERT INTO verification_tokens VALUES ('a', 'b', now())")
    wait_until(filled, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'price_history' AND n_dead_tup > 0")

    weekly, monthly, quarterly = (periods(filled, period) for period in ("weekly", "monthly", "quarterly"))

    names = [[topic["name"] for topic in report["topics"]] for report in (weekly, monthly, quarterly)]
    assert (weekly["vacuumed"], weekly["analysed"]) == ([], [])
    assert "price_history" in monthly["vacuumed"]
    assert "verification_tokens" in monthly["analysed"]
    assert names[0] == ["connections", "queries", "tables"]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert {"privileges", "encryption", "passwords", "exposure", "audit", "secrets"} < set(names[2])


def test_tables_of_untrusted_roles_are_left_to_autovacuum(filled, other_role_of):
    role = other_role_of(filled)
    filled.execute(
        "CREATE FUNCTION public.releases(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        f" PERFORM pg_catalog.pg_advisory_unlock({MAINTENANCE_LOCK}); RETURN $1; END $$; CREATE TABLE theirs (id int);"
        f"INSERT INTO theirs SELECT generate_series(1, 90); CREATE INDEX ON theirs (releases(id)); ALTER TABLE theirs OWNER TO {role};"
        f"ALTER FUNCTION releases OWNER TO {role}; DELETE FROM theirs WHERE id < 9; CREATE TABLE of_the_site AS SELECT 1"
    )

    with django(filled) as connection, advisory_lock(connection, MAINTENANCE_LOCK, patience=1, say=print):
        run = run_of(connection, "monthly", seconds=60, progress=Progress())
        held = fetch_all(
            connection,
            "SELECT l.objid FROM pg_catalog.pg_locks AS l WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid()",
        )

    assert held == [(MAINTENANCE_LOCK,)]
    assert "of_the_site" in run.refreshed.analysed
    assert "theirs" not in (*run.refreshed.vacuumed, *run.refreshed.analysed)
    assert [(one.where, one.message) for one in run.report.findings if one.code == "maintenance.untrusted"] == [
        ("public", "Tables of roles that are not trusted were neither vacuumed nor analysed: theirs.")
    ]


def test_a_role_that_owns_nothing_sweeps_and_reports_what_it_may_not_do(filled):
    with filled.role(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT USAGE ON SCHEMA public TO {role}",
    ) as url:
        result = manage("dbmaintain", "monthly", "--format", "json", url=url, RETENTION="price_history=1")

    codes = [one["code"] for one in json.loads(result.stdout)["findings"]]
    assert result.returncode == 4
    assert codes.count("maintenance.not_owner") == 1
    assert filled.execute("SELECT count(*) FROM price_history") == [(0,)]


@pytest.mark.slow
def test_a_topic_that_failed_is_a_finding(filled):
    with filled.role() as url:
        result = manage("dbmaintain", "quarterly", "--format", "json", url=url)

    asked = [one["where"] for one in json.loads(result.stdout)["findings"] if one["code"] == "security.not_asked"]
    assert (result.returncode, asked) == (4, ["passwords"])


@pytest.mark.slow
def test_a_table_that_cannot_be_vacuumed_is_reported(filled):
    filled.execute(f"{BY_HAND}; DELETE FROM price_history")
    wait_until(filled, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'price_history' AND n_dead_tup > 0")

    with open_transaction(filled, "LOCK TABLE price_history IN SHARE UPDATE EXCLUSIVE MODE"):
        report = periods(filled, "monthly")

    assert [one["where"] for one in report["findings"] if one["code"] == "maintenance.locked"] == ["price_history"]
    assert "axes_accesslog" in report["analysed"]


def test_the_last_line_is_the_summary_and_with_v0_the_only_one(filled):
    number = len(rows(filled)["price_history"])

    result = maintain(filled, "weekly", "-v0", RETENTION="price_history=1")
    found = re.fullmatch(
        rf"dbmaintain weekly of {filled.name}: {number:,} rows removed, 1 table vacuumed, 1 note; .*, exit code 0\n",
        result.stdout,
    )

    assert (result.returncode, bool(found), result.stderr) == (0, True, ""), result.stdout


def test_a_table_that_cannot_be_analysed_does_not_stop_the_others(migrated):
    migrated.execute(
        "CREATE FUNCTION norm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE TABLE a_note (t text);"
        " CREATE INDEX ON a_note (norm(t)); INSERT INTO a_note VALUES ('x'); CREATE TABLE z_note AS SELECT 1 AS one;"
        " CREATE OR REPLACE FUNCTION norm(text) RETURNS text LANGUAGE plpgsql IMMUTABLE"
        " AS $$ BEGIN RAISE 'no' USING ERRCODE = '42883'; END $$"
    )

    with django(migrated) as connection:
        run = run_of(connection, "monthly", seconds=600, progress=Progress())

    assert [(one.severity.value, one.where) for one in run.report.findings if one.code == "maintenance.failed"] == [
        ("warning", "ANALYZE of a_note")
    ]
    assert "z_note" in run.refreshed.analysed
