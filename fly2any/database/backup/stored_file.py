"""Stored files, read whole: what is read has the size and the SHA-256 of its description."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Protocol

from django.conf import settings

from ..errors import Unfit
from ..progress import Progress
from ..units import plural
from .encryption import ENDING, decrypt
from .manifest import sha256_in
from .store import Store
from .workfolder import work_folder


class Stored(Protocol):
    """The description of a stored file: its name, size and SHA-256."""

    @property
    def file(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@contextmanager
def fetched(store: Store, manifest: Stored, progress: Progress) -> Iterator[FileIO]:
    """Yield the file, open, as it is stored; raise Refusal if it has changed since it was stored."""
    done = 0

    def show(size: int) -> None:
        nonlocal done
        done += size
        progress.show(f"fetching {manifest.file}", 100 * done / max(manifest.bytes, 1))

    with store.local(manifest.file, show) as file:
        size = os.fstat(file.fileno()).st_size
        if size != manifest.bytes:
            verdict = "cut short" if size < manifest.bytes else "changed"
            raise Unfit(f"{manifest.file} has {plural(size, 'byte')} instead of {manifest.bytes:,} ({verdict}): use another.")
        progress.show(f"reading {manifest.file}", None)
        if sha256_in(file) != manifest.sha256:
            raise Unfit(f"{manifest.file} is damaged (its SHA-256 differs): use another.")
        file.seek(0)
        yield file


@contextmanager
def opened(store: Store, manifest: Stored, progress: Progress) -> Iterator[FileIO]:
    """Yield the decrypted file, open; raise Refusal if the file has changed since it was stored."""
    with fetched(store, manifest, progress) as file:
        if not manifest.file.endswith(ENDING):
            yield file
            return
        with work_folder(
            "a decrypted backup"
        ) as work:  # The decrypted file is not in the store, which may be on another machine.
            progress.show("decrypting", None)
            decrypt(file, work / "dump", settings.BACKUPS["identity_file"])
            with FileIO(work / "dump") as decrypted:
                yield decrypted
