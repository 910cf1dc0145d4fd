"""Pruning never removes the newest verified backup, nor one of another database."""

import dataclasses
import json
import os
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from fly2any.database.backup.inventory import backups, read_newest
from fly2any.database.backup.latest import find
from fly2any.database.backup.manifest import Verdict, as_json, with_verdict
from fly2any.database.backup.pruning import prune, to_prune
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.clock import read_clock
from fly2any.database.database_identity import Origin, read_origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress, change, described, keep, run, the_one


def backup(taken, state):
    return described(Origin("fly2any", "", 0), taken, state=state)


NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)
TIMES = st.integers(0, 800 * 24).map(lambda hours: NOW - timedelta(hours=hours))


@given(
    st.lists(
        st.tuples(TIMES, st.sampled_from(["good", "good", "bad", "unverified"])), max_size=60, unique_by=lambda pair: pair[0]
    )
)
def test_pruning_keeps_the_newest_and_the_last_verified_backup_of_each_period(pairs):
    every = sorted((backup(*pair) for pair in pairs), key=lambda one: one.taken, reverse=True)
    removed = {one.name for one in to_prune(every)}
    kept = [one for one in every if one.name not in removed]
    good = [one for one in every if one.state == "good"]

    assert kept[:1] == every[:1]
    assert [one for one in kept if one.state == "good"][:1] == good[:1]
    for period, number in (("%Y-%m-%d", 7), ("%G-%V", 4), ("%Y-%m", 12)):
        newest_periods = sorted({f"{one.taken:{period}}" for one in good}, reverse=True)[:number]
        last = {p: max(one.taken for one in good if f"{one.taken:{period}}" == p) for p in newest_periods}
        assert set(last.values()) <= {one.taken for one in kept}
    assert len([one for one in kept if one.state != "bad" or good]) <= 2 * (7 + 4 + 12) + 1
    bad = [one for one in every if one.state == "bad"]
    assert [one for one in kept if one.state == "bad"] == [one for one in bad if one in every[:1] or not good]


def test_pruning_spares_backups_of_an_earlier_database_of_that_name(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "keep": (1, 0, 0)}
    with django(migrated) as connection:
        now, own = read_clock(connection).now(), read_origin(connection)
        before = dataclasses.replace(own, oid=own.oid - 1)
        unknown, of_none = dataclasses.replace(own, oid=0), dataclasses.replace(own, oid=0, cluster="")
        every = {
            hours: described(origin, now - timedelta(hours=hours))
            for hours, origin in enumerate((own, own, before, before, unknown, unknown, of_none, of_none))
        }
        keep(tmp_path, *every.values())

        removed = prune(store_at(str(tmp_path)), connection, Progress())

    assert own.oid == migrated.execute("SELECT oid::int FROM pg_database WHERE datname = current_database()")[0][0]
    assert removed == [every[1], every[5]]


def test_a_copy_of_the_server_neither_prunes_nor_replaces_the_originals_backups(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "keep": (1, 0, 0)}
    recorded, store = RecordedProgress(), store_at(str(tmp_path))
    with django(migrated) as connection:
        connection.ensure_connection()
        connection.settings_dict = {**connection.settings_dict, "EMBEDDED": None}
        now, own = read_clock(connection).now(), read_origin(connection)
        copy = dataclasses.replace(own, place="copy:5432")
        theirs, ours, old = (
            described(origin, now - timedelta(minutes=minutes)) for minutes, origin in enumerate((copy, own, copy))
        )
        keep(tmp_path, theirs, ours, old)

        removed = prune(store, connection, Progress())
        latest = find(store, "latest", of=own, good=True, others=False, now=now, progress=recorded)

    assert (own.place, removed, latest) == (f"{migrated.host}:{migrated.port or 5432}", [], ours)
    assert recorded.sentences == [
        f"{theirs.name} is newer, but is not `latest`: it was taken from the server at copy:5432, which may be a copy of this one."
        " If both addresses are the same server, name the backup."
    ]


@pytest.mark.parametrize(
    ("newer", "reason"),
    [
        ("unverified", "it is not verified. `manage.py dbbackup --check {0}` verifies it."),
        ("bad", "it is bad. `manage.py dbbackup --check {0}` says why."),
        ("unsigned", "it is not signed with a key of this installation. `manage.py dbrestore {0} --unsigned` restores it."),
        ("good", None),
        ("of the future", None),
    ],
)
def test_a_newer_backup_that_is_not_the_latest_is_named(migrated, tmp_path, newer, reason):
    recorded = RecordedProgress()
    with django(migrated) as connection:
        now, own = read_clock(connection).now(), read_origin(connection)
        state = newer if newer in ("unverified", "bad") else "good"
        moment = now + timedelta(days=1) if newer == "of the future" else now - timedelta(minutes=1)
        young, good, old = (
            described(own, moment, state=state),
            described(own, now - timedelta(hours=1)),
            described(own, now - timedelta(hours=2), state="unverified"),
        )
        keep(tmp_path, young, good, old)
        if newer == "unsigned":
            described_by = tmp_path / f"{young.name}.json"
            described_by.write_text(described_by.read_text().replace('"signature": "', '"signature": "0'))
        latest = find(store_at(str(tmp_path)), "latest", of=own, good=True, others=False, now=now, progress=recorded)

    assert latest == (young if newer == "good" else good)
    said = [sentence for sentence in recorded.sentences if "future" not in sentence]
    assert said == ([f"{young.name} is newer, but is not `latest`: {reason.format(young.name)}"] if reason else [])


def test_a_report_counts_backups_of_a_copy_only_where_the_server_has_none(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path), "expected": True}
    with django(migrated) as connection:
        connection.ensure_connection()
        connection.settings_dict = {**connection.settings_dict, "EMBEDDED": None}
        now, own = read_clock(connection).now(), read_origin(connection)
        copy = dataclasses.replace(own, place="copy:5432")
        theirs, ours = (described(origin, now - timedelta(days=days)) for days, origin in ((1, copy), (5, own)))

        keep(tmp_path, theirs)
        only_theirs = read_newest(connection)
        keep(tmp_path, ours)
        both = read_newest(connection)

    assert (only_theirs.good, [one.code for one in only_theirs.findings()]) == (theirs, ["backup.elsewhere"])
    assert next(iter(only_theirs.findings())).message == (
        f"None of the newest backups was taken from the server at {own.place}; the newest was taken from the one at copy:5432: one server may be a copy of the other."
    )
    assert (both.good, both.newest, [one.code for one in both.findings()]) == (ours, ours, ["backup.old"])


def test_nothing_is_pruned_if_the_verified_backup_changed(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "keep": (1, 0, 0)}
    with django(migrated) as connection:
        now, own, store = read_clock(connection).now(), read_origin(connection), store_at(str(tmp_path))
        newest, older = (described(own, now - timedelta(hours=hours)) for hours in (1, 2))
        keep(tmp_path, newest, older)
        (tmp_path / newest.file).write_text("y")

        with pytest.raises(
            Refusal, match=r"^Nothing was removed, because the newest verified backup cannot be used: .* is damaged"
        ):
            prune(store, connection, Progress())
        assert prune(store, connection, Progress(), verified=older.name) == []

    assert backups(store).manifests == (newest, older)


@pytest.mark.slow
def test_pruning_removes_manifest_and_dump_together(filled, place):
    for _ in range(2):
        run(filled, "dbbackup", "--verify", place=place)
        time.sleep(1.1)

    pruned = run(filled, "dbbackup", "--list", "--prune", place=place)

    assert (pruned.returncode, len(os.listdir(place))) == (0, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("outcome", "code"), [("bad", 4), ("unverified", 2), ("good", 0)])
def test_a_run_that_verifies_no_backup_prunes_nothing(filled, tmp_path, monkeypatch, capsys, outcome, code):
    recorded = {**settings.BACKUPS, "location": str(tmp_path), "keep": (1, 0, 0)}
    verdict = Verdict(datetime.now(UTC), "18.6", "" if outcome == "good" else "a reason", outcome)
    monkeypatch.setattr(
        "fly2any.database.management.commands.dbbackup.judge",
        lambda connection, store, manifest, progress: with_verdict(manifest, verdict),
    )
    with override_settings(BACKUPS=recorded), django(filled) as connection:
        store = store_at(str(tmp_path))
        for _ in range(2):
            manifest = take(connection, store, Progress())
            store.write(f"{manifest.name}.json", as_json(with_verdict(manifest, Verdict(NOW, "18.6", "", "good"))).encode())
        with pytest.raises(SystemExit) as ended:
            call_command("dbbackup", database=connection.alias, verify=True, prune=True)

    assert (ended.value.code, len(backups(store).manifests)) == (code, 2 if outcome == "good" else 3)
    nothing = "Pruned    nothing, because this backup is not verified\n"
    assert (nothing in capsys.readouterr().out) == (outcome != "good")


def test_verify_goes_with_check_but_not_with_list(migrated, tmp_path):
    with override_settings(BACKUPS={**settings.BACKUPS, "location": str(tmp_path)}), django(migrated) as connection:
        with pytest.raises(Refusal, match=r"^--verify cannot be combined with --list: omit it\.$"):
            call_command("dbbackup", database=connection.alias, verify=True, list=True)
        with pytest.raises(Refusal, match=" has no backup none: "):
            call_command("dbbackup", database=connection.alias, verify=True, check="none")


@pytest.mark.slow
def test_another_databases_backups_are_neither_pruned_nor_restored_by_latest(filled, migrated, place):
    run(filled, "dbbackup", "--verify", place=place)
    pruned = run(migrated, "dbbackup", "--verify", "--prune", "--format", "json", place=place)
    run(migrated, "dbbackup", "--verify", place=place)

    latest = run(filled, "dbrestore", "latest", place=place)

    assert json.loads(pruned.stdout)["pruned"] == []
    assert f"Backup    {filled.name}-" in latest.stdout
    assert f"of {filled.name} on PostgreSQL" in latest.stdout


@pytest.mark.slow
def test_another_servers_backups_of_the_same_name_are_neither_pruned_nor_counted_nor_restored_by_latest(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    theirs = the_one(place)
    own = change(place, cluster="7000000000000000001")["cluster"]

    alone = run(filled, "dbrestore", "latest", "--yes", place=place)
    checked = run(filled, "dbbackup", "--check", "latest", place=place)
    status = run(filled, "dbstatus", place=place)
    named = run(filled, "dbrestore", theirs, place=place)
    for _ in range(2):
        time.sleep(1.1)
        run(filled, "dbbackup", "--verify", place=place)
    pruned = run(filled, "dbbackup", "--list", "--prune", "--format", "json", place=place)
    latest = run(filled, "dbrestore", "latest", place=place)

    assert own == filled.execute("SELECT system_identifier::text FROM pg_control_system()")[0][0]
    assert (alone.returncode, alone.stderr) == (
        2,
        f"{place} has no verified backup of {filled.name} on this server: run `manage.py dbbackup --verify`,"
        f" or name one: the newest of another server's {filled.name} is {theirs}.\n",
    )
    assert (checked.returncode, theirs in checked.stdout) == (0, True)
    assert re.findall(r"WARNING (backup\.\w+)", status.stdout) == ["backup.none"]
    assert (named.returncode, f"Origin    a database named {filled.name} on another server.\n" in named.stdout) == (
        0,
        True,
    )
    assert [len(json.loads(pruned.stdout)[key]) for key in ("backups", "pruned")] == [3, 1]
    assert os.path.exists(f"{place}/{theirs}.dump")
    assert ("Origin" in latest.stdout, theirs in latest.stdout) == (False, False)


def test_pruning_needs_a_verdict(filled, place):
    refused = run(filled, "dbbackup", "--prune", place=place)

    assert (refused.returncode, "add --verify" in refused.stderr, os.path.exists(place)) == (2, True, False)
