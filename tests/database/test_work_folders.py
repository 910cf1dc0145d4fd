"""Clean-up removes only what our commands created and left behind."""

import json
import os
import subprocess
import sys

import pytest

from fly2any.database.backup.store import WORK, Folder
from fly2any.database.backup.workfolder import FIRST_LINE, MARK, OLD, sweep, work_folder
from fly2any.settings import BASE_DIR
from tests.database.taken import run

LONG_AGO = 1_600_000_000
LEAVES = """
import os, sys
from pathlib import Path
os.environ["DJANGO_SETTINGS_MODULE"] = "fly2any.settings"
from fly2any.database.backup.workfolder import work_folder
with work_folder("a test", beside=Path(sys.argv[1])) as folder:
    (folder / "pass").write_text("secret")
    print(folder.name, flush=True)
    sys.stdin.read(1)
    os._exit(1)
"""


def start(parent):
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVES, str(parent)], cwd=BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, parent / process.stdout.readline().strip()


def left(parent):
    """A work folder whose process was killed."""
    process, folder = start(parent)
    process.communicate("x")
    return folder


def mark(folder, /, **facts):
    """Write the mark as a process that has ended left it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    named = {"purpose": "a test", "folder": folder.name, "machine": os.uname().nodename, "pid": 1}
    (folder / MARK).write_text(f"{FIRST_LINE}{json.dumps(named | facts)}\n")
    return folder


def test_folders_of_killed_processes_are_removed_and_those_of_running_ones_are_not(tmp_path):
    process, used = start(tmp_path)
    abandoned = left(tmp_path)

    removed = sweep(tmp_path)
    still = (used / "pass").read_text()
    process.communicate("x")

    assert (removed, still) == ([abandoned.name], "secret")
    assert sweep(tmp_path) == [used.name]


@pytest.mark.parametrize("prefix", ["fly2any-", WORK], ids=["temporary files", "the store"])
def test_a_folder_without_the_mark_stays_however_old_and_whatever_its_name(tmp_path, prefix):
    precious = tmp_path / f"{prefix}archive"
    precious.mkdir(mode=0o700)
    (precious / "rows.zip").write_text("the only copy")
    os.utime(precious, (LONG_AGO, LONG_AGO))

    with Folder(str(tmp_path)).workplace(), work_folder("a test", beside=tmp_path):
        pass

    assert (precious / "rows.zip").read_text() == "the only copy"


def moved(parent):
    return left(parent).rename(parent / "fly2any-renamed")


def readable(parent):
    folder = left(parent)
    folder.chmod(0o755)
    return folder


def linked(parent):
    target = mark(parent / "elsewhere", folder="fly2any-link")
    (parent / "fly2any-link").symlink_to(target)
    return target


def linked_mark(parent):
    folder = parent / "fly2any-x"
    folder.mkdir(mode=0o700)
    (folder / MARK).symlink_to(mark(parent / "y", folder="fly2any-x") / MARK)
    return folder


def hard_linked_mark(parent):
    folder = parent / "fly2any-x"
    folder.mkdir(mode=0o700)
    (folder / MARK).hardlink_to(mark(parent / "y", folder="fly2any-x") / MARK)
    return folder


def of_another_machine(parent):
    return mark(parent / "fly2any-x", machine="another")


def owned_by_another_user(parent):
    folder = mark(parent / "fly2any-x")
    (folder / MARK).write_text("Something else.\n{}\n")
    return folder


CASES = [moved, readable, linked, linked_mark, hard_linked_mark, of_another_machine, owned_by_another_user]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_folders_that_only_look_like_work_folders_stay(tmp_path, make):
    folder = make(tmp_path)

    assert sweep(tmp_path) == []
    assert folder.is_dir()


def test_old_work_folders_of_another_machine_are_removed(tmp_path):
    folder = mark(tmp_path / "fly2any-x", machine="another")
    old = (tmp_path / "fly2any-x" / MARK).stat().st_mtime - OLD - 60
    os.utime(folder / MARK, (old, old))

    assert sweep(tmp_path) == ["fly2any-x"]


@pytest.mark.parametrize("where", ["", "inside"])
def test_configured_locations_and_their_parents_stay(tmp_path, settings, where):
    folder = mark(tmp_path / "fly2any-archive")
    settings.RETENTION = {**settings.RETENTION, "archive": str(folder / where)}

    assert sweep(tmp_path) == []
    assert folder.is_dir()


def test_a_backup_leaves_locations_that_are_among_temporary_files_alone(filled, tmp_path):
    archive, backups = tmp_path / "fly2any-archive", tmp_path / "fly2any-backups"
    for folder in (archive, backups):
        folder.mkdir(mode=0o700)
    (archive / "rows.zip").write_text("the only copy")
    for folder in (archive, backups):
        os.utime(folder, (LONG_AGO, LONG_AGO))

    taken = run(filled, "dbbackup", place=str(backups), ARCHIVE_LOCATION=str(archive), TMPDIR=str(tmp_path))

    assert taken.returncode == 0, taken.stderr
    assert (archive / "rows.zip").read_text() == "the only copy"
    assert [path.suffix for path in sorted(backups.iterdir())] == [".dump", ".json"]


@pytest.mark.slow
def test_a_backup_is_verified_where_the_path_of_tmpdir_is_too_long_for_a_socket(migrated, place, tmp_path):
    work = tmp_path / ("long" * 25)
    work.mkdir()

    result = run(migrated, "dbbackup", "--verify", place=place, TMPDIR=str(work))

    assert (result.returncode, os.listdir(work)) == (0, []), result.stdout + result.stderr
