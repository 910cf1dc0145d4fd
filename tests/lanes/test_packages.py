"""Pinned packages are used only if their hash matches."""

import hashlib
import tarfile

import pytest

from lanes import packages


def test_a_package_with_another_hash_is_refused_and_downloaded_again_the_next_time(tmp_path):
    archive = tmp_path / "package.tgz"
    archive.write_bytes(b"something else")
    fetch = ["true"]

    with pytest.raises(packages.UnavailableError, match=r"^package\.tgz is not the package that was pinned: its hash differs$"):
        packages._fetch(archive, fetch, hashlib.sha256, bytes(32))
    assert not archive.exists()

    archive.write_bytes(b"what was pinned")
    packages._fetch(archive, fetch, hashlib.sha256, hashlib.sha256(b"what was pinned").digest())
    assert archive.exists()


def test_a_lane_whose_program_is_missing_names_it(tmp_path):
    with pytest.raises(packages.UnavailableError, match=r"^no-such-program is not installed$"):
        packages._fetch(tmp_path / "package.tgz", ["no-such-program"], hashlib.sha256, bytes(32))


def test_a_package_is_unpacked_by_a_python_without_filters_too(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as package:
        package.add(tmp_path / "file", "folder/file")
    monkeypatch.delattr(tarfile, "data_filter", raising=False)

    packages._unpack(tmp_path / "package.tgz", tmp_path / "to")

    assert (tmp_path / "to" / "folder" / "file").read_text() == "kept"
