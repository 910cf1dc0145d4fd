"""New files: written only where they were created, never through a link or to a file that replaced them."""

import os
from datetime import UTC, datetime

import pytest

from fly2any.database.durable import new_file
from fly2any.database.errors import Refusal
from fly2any.database.person import File, certificate_file, write_new
from fly2any.database.person.erase import Certificate


def exchange(path):
    (path.parent / "exchanged").write_text("another")
    (path.parent / "exchanged").replace(path)


@pytest.fixture(autouse=True)
def kept(tmp_path):
    (tmp_path / "a").write_text("kept")


def test_a_new_file_follows_no_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "c")

    for name in ("a", "link", "dangling"):
        with pytest.raises(FileExistsError):
            new_file(tmp_path / name)
    with new_file(tmp_path / "b") as file:
        file.write(b"new")

    assert {name: (tmp_path / name).exists() for name in ("b", "c")} == {"b": True, "c": False}
    assert (tmp_path / "a").read_text() == "kept"
    assert f"{(tmp_path / 'b').stat().st_mode & 0o777:o}" == "600"


def exchange_for_link(name, target):
    name.unlink()
    name.symlink_to(target)


def test_no_certificate_is_written_to_another_file(tmp_path):
    certificate = Certificate(datetime(2026, 11, 1, tzinfo=UTC), "77", "id", {}, (), {}, (), (), None, ())
    before, after = File(tmp_path / "before.json"), File(tmp_path / "after.json")
    after.keep(certificate)
    exchange_for_link(before.part, tmp_path / "a")
    exchange_for_link(after.path, tmp_path / "a")
    replaced = File(tmp_path / "replaced.json")
    replaced.keep(certificate)
    exchange(replaced.path)

    said = []
    for act in (lambda: before.keep(certificate), after.confirm, replaced.confirm):
        with pytest.raises(Refusal) as refusal:
            act()
        said.append(str(refusal.value))

    unconfirmed = "The person was erased, but the certificate could not be updated ({}): change “pending” in it to “committed”. The transaction is 77."
    assert said == [
        f"{tmp_path}/before.json cannot be written (Too many levels of symbolic links): name another file.",
        unconfirmed.format("Too many levels of symbolic links"),
        unconfirmed.format("the file was replaced"),
    ]
    assert ((tmp_path / "a").read_text(), replaced.path.read_text()) == ("kept", "another")


def test_no_export_is_written_to_another_file(tmp_path, monkeypatch):
    class Exchanged(File):
        def __init__(self, path):
            super().__init__(path)
            exchange(self.part)

    monkeypatch.setattr(certificate_file, "File", Exchanged)

    with pytest.raises(Refusal) as refusal:
        write_new(tmp_path / "export.json", lambda stream: stream.write("all data"))

    assert str(refusal.value) == f"{tmp_path}/export.json cannot be written (the file was replaced): name another file."
    assert os.listdir(tmp_path) == ["a"]
