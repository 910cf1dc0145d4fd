"""Folders above a store or a work folder, and links to one, that another user can replace: refused."""

import os
import tempfile

import pytest

from fly2any.database.backup.store import Folder
from fly2any.database.backup.workfolder import work_folder
from fly2any.database.errors import Refusal
from tests.conftest import manage
from tests.database.taken import rows
from tests.database.test_exchanged_files import OTHER, USES, as_root


def theirs(step, exchanged="what is in it", variable="BACKUP_LOCATION"):
    return (
        f"{step} belongs to another user (uid {OTHER}, not 0), who can replace {exchanged}: run the command as that user, or set {variable}"
        " to another folder."
    )


def open_to_all(step, variable="BACKUP_LOCATION"):
    return f"Every user may write to {step}, and replace what is in it: `chmod +t {step}`, or set {variable} to another folder."


@pytest.fixture
def parent(tmp_path):
    return tmp_path / "parent"


@pytest.fixture
def folder(parent):
    """A folder for backups, with a file, two below `parent`."""
    folder = parent / "between" / "backups"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "a").write_text("kept")
    return folder


def refusal_of(use, place):
    with pytest.raises(Refusal) as refusal:
        use(Folder(str(place)))
    return str(refusal.value)


@as_root
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_folder_below_one_of_another_user_is_refused(parent, folder, use):
    os.chown(parent, OTHER, -1)

    assert refusal_of(use, folder) == theirs(parent)
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_folder_below_one_that_every_user_may_write_to_is_refused(parent, folder, use):
    parent.chmod(0o777)

    assert refusal_of(use, folder) == open_to_all(parent)
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize("mode", [0o1777, 0o770], ids=oct)
def test_a_folder_below_a_sticky_one_or_one_of_a_group_is_used(parent, folder, mode):
    parent.chmod(mode)
    store = Folder(str(folder))
    store.make()

    store.write("b", b"new")

    assert {name: store.read(name) for name in store.names()} == {"a": b"kept", "b": b"new"}


@as_root
def test_a_sticky_folder_of_another_user_is_refused(parent, folder):
    parent.chmod(0o1777)
    os.chown(parent, OTHER, -1)  # Its owner may rename what is in it.

    assert refusal_of(Folder.make, folder) == theirs(parent)


def test_no_folder_is_created_where_it_would_be_refused(parent):
    parent.mkdir()
    parent.chmod(0o777)

    assert refusal_of(Folder.make, parent / "backups") == open_to_all(parent)
    assert os.listdir(parent) == []


@as_root
def test_a_link_of_another_user_is_refused(tmp_path, folder):
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    link = tmp_path / "sticky" / "link"
    link.symlink_to(folder)
    os.chown(link, OTHER, -1, follow_symlinks=False)

    assert refusal_of(Folder.make, link) == theirs(link, "it")


@pytest.mark.parametrize("target", ["parent/between", "parent/between/backups/.."])
def test_the_folders_above_the_target_of_a_link_are_considered(tmp_path, parent, folder, target):
    parent.chmod(0o777)
    (tmp_path / "second").symlink_to(target)
    (tmp_path / "first").symlink_to(tmp_path / "second")

    for place in (tmp_path / "first" / "backups", tmp_path / "first" / "backups" / ".." / "backups"):
        assert refusal_of(Folder.make, place) == open_to_all(parent)
    (tmp_path / "last").symlink_to("first/backups")
    assert refusal_of(Folder.make, tmp_path / "last") == open_to_all(parent)


def test_the_folder_of_a_link_is_considered(tmp_path, folder):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "link").symlink_to(folder)
    (tmp_path / "last").symlink_to(tmp_path / "open" / "link")

    assert refusal_of(Folder.make, tmp_path / "last") == open_to_all(tmp_path / "open")


def test_a_folder_is_used_through_a_link_of_this_user(tmp_path, folder):
    (tmp_path / "link").symlink_to("parent/between")
    store = Folder(str(tmp_path / "link" / "backups"))
    store.make()

    store.write("b", b"new")

    assert store.names() == ["a", "b"]


@pytest.mark.parametrize("place", ["round", "round/backups"])
def test_links_that_lead_in_a_circle_are_refused_in_one_sentence(tmp_path, place):
    (tmp_path / "round").symlink_to("round")

    assert refusal_of(Folder.make, tmp_path / place) == (
        f"{tmp_path / place} cannot be created or is not a folder (Too many levels of symbolic links): correct BACKUP_LOCATION."
    )


def test_a_folder_for_temporary_files_that_every_user_may_write_to_needs_the_sticky_bit(tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    temporary.chmod(0o777)

    with pytest.raises(Refusal) as refusal, work_folder("a test"):
        pass

    assert (str(refusal.value), os.listdir(temporary)) == (open_to_all(temporary, "TMPDIR"), [])
    temporary.chmod(0o1777)
    with work_folder("a test") as work:
        assert work.parent == temporary


@as_root
@pytest.mark.parametrize("variable", ["BACKUP_LOCATION", "TMPDIR"])
def test_dbbackup_refuses_each_such_place_in_one_sentence(filled, tmp_path, parent, folder, variable):
    os.chown(parent, OTHER, -1)
    places = {"BACKUP_LOCATION": str(tmp_path), variable: str(folder)}

    result = manage("dbbackup", url=filled.url, **places)

    assert (result.returncode, result.stderr) == (2, f"{theirs(parent, variable=variable)}\n")
    assert os.listdir(folder) == ["a"]


@as_root
def test_dbmaintain_archives_nothing_in_such_a_place_and_deletes_no_row(filled, parent, folder):
    os.chown(parent, OTHER, -1)
    held = rows(filled)

    result = manage("dbmaintain", "weekly", url=filled.url, RETENTION="price_history=1", ARCHIVE_LOCATION=str(folder))

    assert result.returncode == 4
    assert theirs(parent, variable="ARCHIVE_LOCATION") in result.stdout
    assert (rows(filled), os.listdir(folder)) == (held, ["a"])
