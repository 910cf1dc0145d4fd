"""Pinned packages: only what has the pinned hash is used."""

import hashlib

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
