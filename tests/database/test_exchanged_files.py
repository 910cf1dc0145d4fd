"""Folders in which another user may exchange files: refused, and what was checked is what is used."""

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fly2any.database.backup import restore
from fly2any.database.backup.encryption import encrypt
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.store import Folder
from fly2any.database.backup.stored_file import fetched, opened
from fly2any.database.backup.take import take
from fly2any.database.database_identity import Origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import databases, described, rows, run, the_one

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
OTHER = 65534
USES = {
    "make": lambda store: store.make(),
    "workplace": lambda store: store.workplace().__enter__(),
    "write": lambda store: store.write("b", b"new"),
    "local": lambda store: store.local("a", lambda size: None).__enter__(),
}


@pytest.fixture
def folder(tmp_path):
    """A folder for backups, with a file."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    (folder / "a").write_text("kept")
    return folder


@as_root
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_folder_of_another_user_is_refused(folder, use):
    os.chown(folder, OTHER, -1)

    with pytest.raises(Refusal) as refusal:
        use(Folder(str(folder)))

    assert str(refusal.value) == (
        f"{folder} belongs to another user (uid {OTHER}, not 0), who can replace the files there: run the command as that user,"
        f" or `chown 0 {folder}`."
    )
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_folder_that_every_user_may_write_to_is_refused(folder, use):
    folder.chmod(0o1777)  # The sticky bit does not keep others from creating files.

    with pytest.raises(Refusal) as refusal:
        use(Folder(str(folder)))

    assert str(refusal.value) == f"Every user may write to {folder}, and replace the files there: `chmod o-w {folder}`."
    assert os.listdir(folder) == ["a"]


@pytest.mark.parametrize("mode", [0o750, 0o770], ids=oct)
def test_a_folder_that_others_may_read_or_its_group_may_write_to_is_used(folder, mode):
    folder.chmod(mode)
    store = Folder(str(folder))
    store.make()

    store.write("b", b"new")

    assert {name: store.read(name) for name in store.names()} == {"a": b"kept", "b": b"new"}


def test_the_commands_refuse_such_a_folder_in_one_sentence(filled, folder):
    folder.chmod(0o777)
    place = str(folder)
    refused = (2, f"Every user may write to {folder}, and replace the files there: `chmod o-w {folder}`.\n")

    taken = run(filled, "dbbackup", place=place)
    folder.chmod(0o700)
    assert run(filled, "dbbackup", place=place).returncode == 0
    folder.chmod(0o777)
    before = databases(filled)
    restored = run(filled, "dbrestore", the_one(place), "--into", f"{filled.name}_new", place=place)

    assert [(one.returncode, one.stderr) for one in (taken, restored)] == [refused, refused]
    assert databases(filled) == before


def link(path, beside):
    path.symlink_to(beside)


def pipe(path, beside):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [(link, "is a symbolic link: replace it with the file."), (pipe, "is not a regular file: remove it.")],
    ids=["link", "pipe"],
)
def test_only_a_regular_file_is_read(folder, make, sentence):
    make(folder / "b", folder / "a")

    with pytest.raises(Refusal) as refusal, Folder(str(folder)).local("b", lambda size: None):
        pass

    assert str(refusal.value) == f"{folder}/b {sentence}"


def exchange(path):
    (path.parent / "exchanged").write_text("another")
    (path.parent / "exchanged").replace(path)


def stored(folder, content, ending=""):
    """The manifest of a file in `folder` with that content."""
    manifest = described(Origin("db", "1", 1), datetime(2026, 11, 1, tzinfo=UTC))
    manifest = replace(manifest, file=manifest.file + ending, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / manifest.file).write_bytes(content)
    return manifest


def test_the_file_that_was_hashed_is_the_one_that_is_read(folder):
    manifest = stored(folder, b"hashed")

    with fetched(Folder(str(folder)), manifest, Progress()) as file:
        exchange(folder / manifest.file)
        assert file.read() == b"hashed"


def test_the_file_that_was_hashed_is_the_one_that_is_decrypted(folder, tmp_path, settings):
    import pyrage

    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(key))
    (tmp_path / "plain").write_text("hashed")
    encrypt(tmp_path / "plain", tmp_path / "sealed", str(key.to_public()))
    settings.BACKUPS = {**settings.BACKUPS, "identity_file": str(tmp_path / "key")}
    manifest = stored(folder, (tmp_path / "sealed").read_bytes(), ".age")

    class Exchanging(Progress):
        def show(self, what, percent):
            if what == "decrypting":
                exchange(folder / manifest.file)

    with opened(Folder(str(folder)), manifest, Exchanging()) as file:
        assert file.read() == b"hashed"


@pytest.mark.slow
def test_the_dump_that_was_hashed_is_the_one_that_is_restored(filled, place, monkeypatch):
    create = restore.create
    store = Folder(place)
    held = rows(filled)
    with django(filled) as connection:
        manifest = take(connection, store, Progress())

        def exchanging(connection, name):
            exchange(store.folder / manifest.file)
            create(connection, name)

        monkeypatch.setattr(restore, "create", exchanging)
        restore_into(connection, f"{filled.name}_new", store, manifest, Progress())

    assert store.read(manifest.file) == b"another"
    assert rows(replace(filled, name=f"{filled.name}_new")) == held
    filled.execute(f'DROP DATABASE "{filled.name}_new"')


def test_a_file_from_another_folder_is_stored_for_this_user_only(folder, tmp_path):
    (tmp_path / "dump").write_text("whole")
    (tmp_path / "dump").chmod(0o644)

    Folder(str(folder)).put("b", tmp_path / "dump", lambda size: None)

    assert ((folder / "b").read_text(), f"{(folder / 'b').stat().st_mode & 0o777:o}") == ("whole", "600")
