"""Backups in a folder: lists, and other files there."""

import dataclasses
import errno
import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.test import override_settings

from fly2any.database.backup import tools
from fly2any.database.backup.inventory import BackupState, Inventory, backups, read_newest
from fly2any.database.backup.latest import find
from fly2any.database.backup.manifest import Verdict
from fly2any.database.backup.pruning import prune
from fly2any.database.backup.render import many
from fly2any.database.backup.required_backup import require_backup
from fly2any.database.backup.store import Folder, store_at
from fly2any.database.clock import Clock, read_clock
from fly2any.database.database_identity import Origin, read_origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.database.report.text import _backups
from tests.conftest import django, manage
from tests.database.taken import RecordedProgress, change, described, keep, run, the_one
from tests.servers import Database


@pytest.mark.slow
def test_dbstatus_warns_where_the_newest_good_backup_is_missing_or_old(filled, place):
    assert "none known   BACKUP_LOCATION is not set" in manage("dbstatus", url=filled.url).stdout
    missing = run(filled, "dbstatus", place=place)
    Path(place).mkdir(mode=0o700)
    empty = run(filled, "dbstatus", place=place)
    run(filled, "dbbackup", "--verify", place=place)
    new = run(filled, "dbstatus", place=place)
    taken = datetime.now(UTC) - timedelta(hours=27)
    change(place, taken=taken.isoformat())
    old = run(filled, "dbstatus", place=place)
    (open(f"{place}/{the_one(place)}.json", "w")).close()
    broken = run(filled, "dbstatus", place=place)

    assert "none known" in missing.stdout
    assert f"\n  verified     none at {place}\n" in empty.stdout
    codes = [re.findall(r"WARNING (backup\.\w+)", answer.stdout) for answer in (missing, empty, new, old, broken)]
    assert codes == [["backup.unreadable"], ["backup.none"], [], ["backup.old"], ["backup.unreadable"]]
    assert [answer.returncode for answer in (missing, empty, new, old, broken)] == [4, 4, 0, 4, 4]


def backup(taken, state):
    return described(Origin("fly2any", "", 0), taken, state=state)


NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def test_a_verified_backup_with_a_truncated_file_does_not_count(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "keep": (1, 0, 0), "location": str(tmp_path), "expected": True}
    with django(migrated) as connection:
        now, own, store = read_clock(connection).now(), read_origin(connection), store_at(str(tmp_path))
        newest, older, oldest = (described(own, now - timedelta(hours=hours)) for hours in (1, 2, 3))
        keep(tmp_path, newest, older, oldest)
        (tmp_path / newest.file).write_text("")

        state = read_newest(connection)
        latest = find(store, "latest", of=own, good=True, others=False, now=now, progress=Progress())
        removed = prune(store, connection, Progress())

    assert (state.good, state.trouble) == (older, f"{newest.file} has 0 bytes instead of 1: it was cut short or changed.")
    assert (latest, removed, backups(store).odd) == (older, [oldest], (newest.file, f"{newest.name}.json"))


def test_a_temporarily_unreadable_manifest_does_not_count_as_missing(migrated, tmp_path):
    with django(migrated) as connection:
        now, own, store = read_clock(connection).now(), read_origin(connection), store_at(str(tmp_path))
        newest, older = (described(own, now - timedelta(hours=hours)) for hours in (1, 2))
        keep(tmp_path, newest, older)
        manifest = tmp_path / f"{newest.name}.json"
        manifest.unlink()
        manifest.symlink_to("/proc/self/mem")  # A file whose reading is an input/output error.
        refused = pytest.raises(Refusal, match=rf"^{re.escape(str(manifest))} cannot be used \(Input/output error\): ")

        with refused:
            find(store, "latest", of=own, good=True, others=False, now=now, progress=Progress())
        with refused:
            backups(store)
        with refused:
            prune(store, connection, Progress())


def test_a_damaged_backup_newer_than_the_latest_is_named(migrated, tmp_path):
    recorded = RecordedProgress()
    with django(migrated) as connection:
        now, own = read_clock(connection).now(), read_origin(connection)
        newest, older = (described(own, now - timedelta(hours=hours)) for hours in (1, 2))
        keep(tmp_path, newest, older)
        (tmp_path / newest.file).write_text("")
        (tmp_path / f"{older.name}.dump.age").touch()

        latest = find(store_at(str(tmp_path)), "latest", of=own, good=True, others=False, now=now, progress=recorded)

    assert latest == older
    assert recorded.sentences == [
        f"{name} is newer but was skipped: it belongs to no backup, or is damaged."
        for name in (newest.file, f"{newest.name}.json")
    ]


def test_latest_of_several_other_servers_must_be_named(migrated, tmp_path):
    store = store_at(str(tmp_path))
    with django(migrated) as connection:
        own, now = read_origin(connection), read_clock(connection).now()
        production, staging = (dataclasses.replace(own, cluster=number, place=f"{number}.example:5432") for number in "12")
        ours, theirs = described(production, now - timedelta(hours=2)), described(staging, now - timedelta(hours=1))
        older = described(production, now - timedelta(hours=3))
        options = {"of": own, "good": True, "others": True, "now": now, "progress": Progress()}
        keep(tmp_path, older, ours)
        alone = find(store, "latest", **options)
        keep(tmp_path, theirs)

        with pytest.raises(Refusal) as refused:
            find(store, "latest", **options)

    assert alone == ours
    assert str(refused.value) == (
        f"{tmp_path} has backups of {own.database} from 2 other servers, so name the backup. The newest of each:"
        f" {ours.name} (taken from 1.example:5432); {theirs.name} (taken from 2.example:5432)."
    )


def test_an_inaccessible_folder_on_the_path_is_skipped(monkeypatch):
    usable = tools.choose(15, tls=False)
    monkeypatch.setenv("PATH", f"/{'x' * 300}:{os.environ['PATH']}")

    assert tools.choose(15, tls=False) == usable


def test_a_reset_requires_a_backup_of_this_database_not_of_an_earlier_one_of_that_name(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path), "expected": True}
    with django(migrated) as connection:
        now, own = read_clock(connection).now(), read_origin(connection)
        keep(tmp_path, described(dataclasses.replace(own, oid=own.oid - 1), now - timedelta(hours=1)))
        with pytest.raises(Refusal, match="but there is none"):
            require_backup(connection)
        keep(tmp_path, described(own, now))
        require_backup(connection)


def test_a_report_does_not_count_the_verified_backup_of_an_earlier_database_of_that_name(migrated, tmp_path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path), "expected": True}
    with django(migrated) as connection:
        now, own = read_clock(connection).now(), read_origin(connection)
        earlier = described(dataclasses.replace(own, oid=own.oid - 1), now - timedelta(hours=1))
        ours = described(own, now - timedelta(hours=2), state="unverified")
        keep(tmp_path, earlier, ours)
        state = read_newest(connection)
        keep(tmp_path, verified := described(own, now - timedelta(hours=3)))
        later = read_newest(connection)

    assert [(one.code, one.message) for one in state.findings()] == [
        (
            "backup.none",
            f"No backup of this database has been verified by restoring it. {earlier.name} was, but it is of an earlier"
            " database of this name, such as the one before a restore.",
        )
    ]
    assert (later.good, later.earlier, list(later.findings())) == (verified, "", [])


def test_what_cannot_be_read_has_a_cure(migrated, tmp_path, settings, monkeypatch):
    def cures():
        return [(one.code, one.message, one.cure) for one in read_newest(connection).findings()]

    place = tmp_path / "backups"
    settings.BACKUPS = {**settings.BACKUPS, "location": str(place), "expected": True}
    with django(migrated) as connection:
        missing = cures()
        place.touch()
        unreadable = cures()
        place.unlink()
        keep(place, described(read_origin(connection), read_clock(connection).now()))
        read = Folder.read
        monkeypatch.setattr(Folder, "read", lambda store, name: (place / name).unlink() or read(store, name))
        pruned = read_newest(connection)

    assert missing == [
        (
            "backup.unreadable",
            f"{place} does not exist: nothing has been stored there yet, or BACKUP_LOCATION is wrong.",
            "Run `manage.py dbbackup --verify`, every night from cron.",
        )
    ]
    assert unreadable == [
        (
            "backup.unreadable",
            f"{place} cannot be used (Not a directory): correct BACKUP_LOCATION, or fix the cause there.",
            "Correct that, then run `manage.py dbbackup --list`, which reads every file there.",
        )
    ]
    assert (pruned.newest, pruned.trouble) == (None, "")


def test_a_folder_that_only_root_can_create_is_a_statement_for_root(tmp_path, monkeypatch):
    def refuse(*words, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(Refusal) as refused:
        store_at(f"{tmp_path}/new").make()

    assert str(refused.value) == (
        f"{tmp_path}/new cannot be created (Permission denied): create it as root, `install -d -m 700 -o {os.geteuid()} {tmp_path}/new`,"
        " or correct BACKUP_LOCATION."
    )


def test_a_verified_backup_is_shown_beside_the_problems_of_others():
    good = backup(NOW, "good")
    newest = BackupState("/backups", good, good, "b.json was taken in the future", Clock(NOW, NOW))

    assert [line[:13] for line in _backups(newest)] == ["Backups", "  verified   "]
    [_, line] = many(Inventory((backup(NOW + timedelta(days=365), "good"),), ()), "/backups", NOW)
    assert line.split()[1] == "future"


def test_a_backup_that_could_not_be_verified_is_a_finding():
    newest = dataclasses.replace(backup(NOW, "good"), verdict=Verdict(NOW, "", "the disk is full", "unverified"))
    place = BackupState("/backups", newest, backup(NOW - timedelta(hours=1), "good"))

    with override_settings(BACKUPS={**settings.BACKUPS, "expected": True}):
        found = [(one.code, one.where, one.message) for one in place.findings(NOW)]

    assert found == [("backup.unverified", newest.name, "The newest backup could not be verified: the disk is full.")]


@pytest.mark.parametrize("theirs", ["", "7000000000000000001"])
def test_latest_is_of_no_other_address_if_the_servers_identity_is_not_known(migrated, tmp_path, theirs):
    with django(migrated) as connection:
        own, now = read_origin(connection), read_clock(connection).now()
    own = dataclasses.replace(own, cluster="", place="production:5432")
    staging = dataclasses.replace(own, place="staging:5432", cluster=theirs)
    made = described(own, now - timedelta(hours=2)), described(staging, now - timedelta(hours=1))
    keep(tmp_path, made[1])
    store, options = store_at(str(tmp_path)), {"of": own, "good": True, "now": now, "progress": Progress()}

    with pytest.raises(Refusal, match=r" has no verified backup of \w+ on this server: "):
        find(store, "latest", **options, others=False)
    anywhere = find(store, "latest", **options, others=True)
    keep(tmp_path, made[0])
    here = find(store, "latest", **options, others=True)

    assert (anywhere, here) == (made[1], made[0])


@pytest.mark.slow
def test_a_role_that_cannot_read_the_servers_identity_can_take_backups(own_server, tmp_path):
    server = own_server()
    server.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    server.execute("CREATE ROLE plain LOGIN")
    server.execute("ALTER DATABASE fly2any OWNER TO plain")
    database = Database(host=str(server.home / "data"), port=str(server.port), user="plain", password="", name="fly2any")
    place = str(tmp_path)

    taken = run(database, "dbbackup", place=place)
    listed = run(database, "dbrestore", "latest", place=place)

    theirs = change(place, cluster="7000000000000000001")["name"]
    for _ in range(2):
        time.sleep(1.1)
        run(database, "dbbackup", place=place)
    pruned = run(database, "dbbackup", "--list", "--prune", "--format", "json", place=place)

    assert (taken.returncode, "has no verified backup of" in listed.stderr) == (0, True)
    assert [entry["cluster"] for entry in json.loads(pruned.stdout)["backups"]] == ["", "", "7000000000000000001"]
    assert theirs not in json.loads(pruned.stdout)["pruned"]


@pytest.mark.slow
def test_damaged_and_unknown_files_are_listed_and_skipped(filled, place, tmp_path):
    run(filled, "dbbackup", "--verify", place=place)
    name = the_one(place)
    (tmp_path / "precious").write_text("kept")
    with open(f"{place}/{name}.json") as file:
        other = json.load(file) | {
            "file": "../precious",
            "verdict": {"at": "2026-01-01T00:00:00+00:00", "server": "18", "reason": "bad"},
        }
    for odd, text in (("other", "{}"), (f"{filled.name}-20000101T000000.000000Z", json.dumps(other))):
        with open(f"{place}/{odd}.json", "w") as file:
            file.write(text)

    listed = run(filled, "dbbackup", "--list", "--prune", place=place)
    latest = run(filled, "dbrestore", "latest", place=place)

    assert (listed.returncode, latest.returncode) == (0, 0)
    assert listed.stdout.startswith(
        f"{filled.name}-20000101T000000.000000Z.json belongs to no backup, or cannot be read.\nother.json belongs"
    )
    assert name in latest.stdout
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("place", ["backups", "~/backups", "ftp://host/x", "s3://"])
def test_an_invalid_location_is_reported(filled, place):
    refused = run(filled, "dbbackup", place=place)

    assert (refused.returncode, refused.stderr.count("\n"), "BACKUP_LOCATION" in refused.stderr) == (2, 1, True)
    assert not os.path.exists("backups")


def test_listing_creates_no_folder(filled, place):
    answers = [
        run(filled, *words, place=place).returncode for words in (["dbstatus"], ["dbbackup", "--list"], ["dbrestore", "latest"])
    ]

    assert (answers, os.path.exists(place)) == ([4, 2, 2], False)


@pytest.mark.slow
def test_a_manifest_without_its_dump_is_not_a_backup(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    name = the_one(place)
    os.unlink(f"{place}/{name}.dump")

    checked = run(filled, "dbbackup", "--check", name, place=place)
    listed = run(filled, "dbbackup", "--list", "--prune", place=place)
    status = run(filled, "dbstatus", place=place)

    assert (checked.returncode, f"{name}.dump does not exist" in checked.stderr) == (2, True)
    assert (listed.returncode, f"{name}.json belongs to no backup, or cannot be read." in listed.stdout) == (0, True)
    assert (status.returncode, f"{name}.dump is missing, but its manifest exists." in status.stdout) == (4, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "facts",
    [
        {"bytes": "12"}, {"bytes": 10**400}, {"server": "x.y"}, {"server": 18}, {"tool": "zz"}, {"migrations": [1]}, {"file": 7},
        {"name": None}, {"roles": [["x"]]}, {"cluster": 7}, {"taken": "0001-01-01T00:00:00+14:00"},
        {"tables": {"a": {"rows": "1", "hash": "1"}}}, {"verdict": {"at": "2026-01-01T00:00:00+00:00", "server": "18", "reason": None}},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_edited_by_hand_is_damaged(filled, place, facts):
    run(filled, "dbbackup", place=place)
    name = the_one(place)
    change(place, **facts)

    answers = [
        run(filled, *words, place=place) for words in (["dbbackup", "--check", name], ["dbstatus"], ["dbbackup", "--list"])
    ]

    assert [answer.returncode for answer in answers] == [2, 4, 0]
    assert ["Traceback" in answer.stderr for answer in answers] == [False] * 3
    assert "is not the manifest of a backup, or is damaged" in answers[0].stderr


def test_unsigned_backups_are_counted_where_none_is_verified(settings):
    settings.BACKUPS = {**settings.BACKUPS, "expected": True}

    messages = [one.message for number in (0, 1, 2) for one in BackupState("/backups", unsigned=number).findings(NOW)]

    assert messages == [
        "No backup has been verified by restoring it.",
        "No backup has been verified by restoring it (1 backup without a valid signature does not count).",
        "No backup has been verified by restoring it (2 backups without a valid signature do not count).",
    ]
