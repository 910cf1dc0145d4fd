"""The server's clock decides what is old; nothing is removed if this machine's clock differs."""

import dataclasses
import json
import os
import re
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import Error
from django.utils import timezone

from fly2any.database.backup import standby as standbys
from fly2any.database.backup.inventory import read_newest
from fly2any.database.backup.manifest import Manifest
from fly2any.database.backup.pruning import prune
from fly2any.database.backup.required_backup import require_backup
from fly2any.database.backup.restore import stamp_of
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.health.examine import examine
from fly2any.database.health.topics import TOPICS
from fly2any.database.maintenance import render
from fly2any.database.maintenance.run import maintain, planned
from fly2any.database.progress import Progress
from fly2any.database.report.collect import collect
from fly2any.database.report.waivers import Waiver
from fly2any.database.retention.description import Archive
from fly2any.database.retention.rules import RULES
from fly2any.database.schema.write_refusals import refuse_before_writes
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.taken import RecordedProgress, described, keep
from tests.servers import Database, wait_until

A_MOMENT = timedelta(seconds=1)  # The uncertainty in reading the server's clock.
DIFFER = re.compile(
    r"The clock of the database server \(\d{4}-[-\d: ]+ UTC\) and that of this machine \(\d{4}-[-\d: ]+ UTC\) differ by"
)


@pytest.fixture
def client_clock(monkeypatch):
    """A function that shifts the clock of this process, and not the server's."""

    def shift(by):
        class Shifted(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + by

        for record in (Manifest, Archive):  # msgspec reads their annotations once, and knows no other class of times.
            with suppress(msgspec.ValidationError):
                msgspec.convert({}, record)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + by.total_seconds())
        for name, module in list(sys.modules.items()):
            if name.startswith("fly2any.database") and vars(module).get("datetime") is datetime:
                monkeypatch.setattr(module, "datetime", Shifted)

    return shift


def backup(connection, taken):
    return described(read_origin(connection), taken)


@pytest.fixture
def with_backups(settings, tmp_path):
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path / "b"), "expected": True, "keep": (1, 0, 0)}
    return tmp_path / "b"


SHIFTS = [timedelta(days=1461), timedelta(minutes=-6)]


@pytest.mark.parametrize("by", SHIFTS, ids=["four years ahead", "six minutes behind"])
def test_retention_refuses_while_the_clocks_differ(filled, settings, client_clock, by):
    settings.RETENTION = {**settings.RETENTION, "days": {"price_history": 365}}
    held = filled.execute("SELECT count(*) FROM price_history")
    client_clock(by)

    with django(filled) as connection:
        with pytest.raises(Refusal, match=DIFFER):
            maintain(connection, "weekly", seconds=60, progress=Progress())
        with pytest.raises(Refusal, match=DIFFER):
            planned(connection)

    assert filled.execute("SELECT count(*) FROM price_history") == held


PRICE = """
    INSERT INTO price_history (id, origin, destination, "departDate", price, currency, provider, timestamp)
    VALUES (%s, 'GRU', 'LIS', '2026-01-01', 1, 'USD', 'duffel', now() - %s::interval)
"""


@pytest.mark.parametrize(
    ("recorded", "refused"),
    [
        (["4 years", "3 days"], True),  # Written before a clock was put ahead, and since.
        (["4 years", "20 days", "3 days"], False),
        (["4 years", "50 days"], True),
    ],
)
def test_retention_refuses_if_the_database_recorded_nothing_for_a_month(migrated, settings, recorded, refused):
    settings.RETENTION = {**settings.RETENTION, "days": {"price_history": 365}}
    migrated.execute("UPDATE fly2any_migration_runs SET started = started - interval '4 years'")
    for number, age in enumerate(recorded):
        migrated.execute(PRICE, [str(number), age])
    migrated.execute("INSERT INTO sessions SELECT 's', 't', id, now() - interval '20 days' FROM users")
    migrated.execute("INSERT INTO django_session VALUES ('k', 'd', now() - interval '20 days')")

    with django(migrated) as connection:
        for run in (planned, lambda one, **options: maintain(one, "weekly", seconds=60, progress=Progress(), **options)):
            if refused:
                with pytest.raises(
                    Refusal,
                    match=r"^By the server's clock it is .* UTC, but the database recorded nothing from .*, so the clock may be ahead",
                ):
                    run(connection)
        held = migrated.execute("SELECT count(*) FROM price_history")
        maintain(connection, "weekly", seconds=60, progress=Progress(), trust_clock=refused)

    assert held == [(len(recorded),)]
    assert migrated.execute("SELECT count(*) FROM price_history") == [(len(recorded) - 1,)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("journal", "why"),
    [
        (
            "UPDATE fly2any_migration_runs SET started = now()",
            "fly2any_migration_runs records no migration from more than 37 days ago",
        ),
        ("TRUNCATE fly2any_migration_runs", "fly2any_migration_runs records no migration from more than 37 days ago"),
        ("DROP TABLE fly2any_migration_runs", "this role may not read fly2any_migration_runs, the journal of migrations"),
        ("UPDATE fly2any_migration_runs SET started = now() - interval '40 days'", ""),
    ],
)
@pytest.mark.parametrize("old", [True, False])
def test_a_removal_says_why_the_clock_was_not_checked(migrated, settings, journal, why, old):
    settings.RETENTION = {**settings.RETENTION, "days": {"price_history": 365}}
    migrated.execute(journal)
    migrated.execute(PRICE, ["1", "4 years" if old else "10 days"])
    migrated.execute(PRICE, ["2", "20 days"])
    line = f"The server's clock was not checked against older records: {why}."

    with django(migrated) as connection:
        plan = planned(connection)
        run = maintain(connection, "weekly", seconds=60, progress=Progress())

    assert plan.clock_unchecked == run.clock_unchecked == why
    for text in (render.as_plan(plan, "text"), render.as_text(run, verbosity=1)):
        assert (line in text) is bool(why and old), text
    assert json.loads(render.as_json(run))["clock_unchecked"] == why


def test_retention_counts_days_from_the_servers_time(filled, settings, client_clock):
    settings.RETENTION = {**settings.RETENTION, "days": {"price_history": 365}}
    client_clock(timedelta(minutes=4))

    with django(filled) as connection:
        [(due, before, _)] = planned(connection).due

    assert due.rule is RULES["price_history"]
    assert abs(before - (datetime.now(UTC) - timedelta(days=365))) < timedelta(minutes=2)


def test_nothing_is_pruned_while_the_clocks_differ(migrated, with_backups, client_clock):
    now = datetime.now(UTC)
    with django(migrated) as connection:
        keep(with_backups, *(backup(connection, now - timedelta(days=days)) for days in (1, 2, 3)))
        client_clock(timedelta(days=365))

        with pytest.raises(Refusal, match=DIFFER):
            prune(store_at(str(with_backups)), connection, Progress())

    assert len(list(with_backups.glob("*.dump"))) == 3


def test_a_backups_age_is_measured_by_the_servers_clock(migrated, with_backups, client_clock):
    with django(migrated) as connection:
        keep(with_backups, backup(connection, datetime.now(UTC) - timedelta(hours=1)))
        client_clock(timedelta(days=-400))
        newest = read_newest(connection)

    assert timedelta(0) < newest.good.age(newest.now()) - timedelta(hours=1) < timedelta(minutes=2)
    assert list(newest.findings()) == []


def test_a_backup_dated_in_the_future_is_neither_the_newest_nor_pruned(migrated, with_backups):
    now = datetime.now(UTC)
    with django(migrated) as connection:
        future, here = backup(connection, now + timedelta(days=30)), backup(connection, now - timedelta(hours=1))
        keep(with_backups, future, here)
        newest = read_newest(connection)

        assert newest.newest == newest.good == here
        assert newest.trouble == f"{future.name}.json is dated in the future by the server's clock: check both clocks."
        assert prune(store_at(str(with_backups)), connection, Progress()) == []


def test_djangos_commands_delete_nothing_while_the_clocks_differ(migrated, client_clock):
    migrated.execute("INSERT INTO django_session VALUES ('key', 'data', now() + interval '1 day')")
    with django(migrated) as connection:
        refuse_before_writes(connection)
        sessions = Session.objects.using(connection.alias)
        client_clock(timedelta(days=1461))
        with pytest.raises(Refusal, match=DIFFER):
            sessions.filter(expire_date__lt=timezone.now()).delete()
        assert sessions.count() == 1


def test_a_reset_requires_a_recent_backup_by_the_servers_clock(filled, with_backups, client_clock):
    with django(filled) as connection:
        keep(with_backups, backup(connection, datetime.now(UTC) - timedelta(days=30)))
        client_clock(timedelta(days=-30))

        with pytest.raises(Refusal, match=DIFFER):
            require_backup(connection)


def test_reports_say_that_the_clocks_differ(migrated, client_clock):
    client_clock(timedelta(hours=2))

    with django(migrated) as connection:
        [finding] = [one for one in verify(connection).findings if one.code == "server.clock"]
        (before,) = examine(connection, {"indexes": TOPICS["indexes"]})

    assert DIFFER.match(finding.message)
    assert "by 2 h" in finding.message
    assert finding.cure.endswith(": until then, retention and `dbbackup --prune` remove nothing.")
    assert before.trouble == ""


def test_the_command_exits_with_2(migrated, client_clock, settings):
    settings.RETENTION = {**settings.RETENTION, "days": {"price_history": 365}}
    client_clock(timedelta(days=1461))

    with django(migrated), pytest.raises(Refusal, match=DIFFER):
        call_command("dbmaintain", "weekly", "--database", migrated.name)


def test_listed_ages_are_measured_by_the_servers_clock(migrated, with_backups, client_clock, capsys):
    with django(migrated) as connection:
        keep(with_backups, backup(connection, datetime.now(UTC) - timedelta(hours=5)))
        client_clock(timedelta(days=-400))

        answers = []
        for form in ("text", "json"):
            with pytest.raises(SystemExit):
                call_command("dbbackup", "--list", "--format", form, database=connection.alias)
            answers.append(capsys.readouterr())

    text, data = answers
    assert re.search(r" 5 h ", text.out)
    assert timedelta(hours=5) <= timedelta(seconds=json.loads(data.out)["backups"][0]["age"]) < timedelta(hours=5, minutes=2)
    assert text.err + data.err == ""


def test_a_list_without_a_server_says_that_this_machines_clock_measures_ages(migrated, with_backups, capsys):
    with django(migrated) as connection:
        keep(with_backups, backup(connection, datetime.now(UTC) - timedelta(hours=5)))
    with django(dataclasses.replace(migrated, host="/nowhere")) as connection, pytest.raises(SystemExit) as ended:
        call_command("dbbackup", "--list", database=connection.alias)

    said = capsys.readouterr()
    assert (ended.value.code, re.search(r" 5 h ", said.out) is not None) == (0, True)
    assert re.fullmatch(r"Ages are by this machine's clock, because the server cannot be reached: [^\n]+\n", said.err)


@pytest.mark.slow
def test_verdicts_and_database_names_use_the_servers_clock(migrated, with_backups, client_clock):
    before = datetime.now(UTC)
    client_clock(timedelta(days=-400))
    with django(migrated) as connection:
        store = store_at(str(with_backups))
        manifest = check(connection, store, take(connection, store, Progress()), Progress())
        os.truncate(with_backups / manifest.file, 100)
        bad = check(connection, store, manifest, Progress())
        stamp = stamp_of(connection)

    after = datetime.now(UTC)
    assert (manifest.state, bad.state) == ("good", "bad")
    assert (
        before
        <= manifest.verdict.at
        <= bad.verdict.at
        <= datetime.strptime(f"{stamp}Z", "%Y%m%dT%H%M%S%f%z")
        <= after + A_MOMENT
    )


@pytest.mark.parametrize(("by", "until", "expired"), [(-400, -1, True), (400, 1, False)], ids=["behind", "ahead"])
def test_waivers_expire_by_the_servers_clock(migrated, client_clock, by, until, expired):
    today = datetime.now(UTC).date()
    waiver = Waiver("server.time_zone", "x", "ana@example.com", today + timedelta(days=until), "a demo")
    client_clock(timedelta(days=by))

    with django(migrated) as connection:
        report = collect(connection, waivers=[waiver])

    assert report.at.date() in (today, today + timedelta(days=1))
    assert ("waiver.expired" in [one.code for one in report.findings]) is expired


def test_a_run_whose_session_is_terminated_removes_nothing_more(filled, settings):
    settings.RETENTION = {**settings.RETENTION, "days": {"price_history": 1, "user_activities": 1}, "archive": ""}
    filled.execute("ALTER TABLE price_history ADD x int; UPDATE price_history SET x = 1")
    held = filled.execute("SELECT count(*) FROM user_activities")

    class Ended(Progress):
        def show(self, what, percent):
            if what.startswith("price_history"):
                filled.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    with django(filled) as connection, pytest.raises((Refusal, Error)):
        maintain(connection, "weekly", seconds=60, progress=Ended())

    assert filled.execute("SELECT count(*) FROM user_activities") == held


@pytest.mark.slow
def test_a_backup_of_a_standby_is_as_old_as_its_newest_transaction(server, own_server, tmp_path_factory, tmp_path, monkeypatch):
    primary = own_server()
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    database = Database(str(standby.home / "data"), str(standby.port), "postgres", "", "fly2any")
    monkeypatch.setattr(standbys, "LIMIT", timedelta(0))
    recorded = RecordedProgress()
    try:
        with django(database) as connection:
            primary.execute("CREATE TABLE replayed ()")
            wait_until(database, "SELECT 1 FROM pg_class WHERE relname = 'replayed'")
            standby.execute("SELECT pg_wal_replay_pause()")
            [(replayed,)] = standby.execute("SELECT pg_last_xact_replay_timestamp()")
            primary.execute("CREATE TABLE missing ()")

            manifest = take(connection, store_at(str(tmp_path)), recorded)
    finally:
        standby.remove()

    assert (manifest.taken, [*manifest.tables]) == (replayed, ['"public"."replayed"'])
    assert [re.sub(r"is \d+ m?s old", "is ... old", sentence) for sentence in recorded.sentences if "standby" in sentence] == [
        "This server is a standby whose newest transaction is ... old, so the backup is dated"
        f" {replayed.astimezone(UTC):%Y-%m-%d %H:%M} UTC. If the primary has newer transactions, repair the replication."
    ]
