"""Files that are complete once they have their final name, even after a power failure.

On a file system without hard links a failure may leave an empty file of that name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def new_file(path: Path) -> BufferedWriter:
    """Create a file that only this user can read, and return it open for writing; raise FileExistsError if the name, even of a link, exists."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600))


def rename_exclusively(part: Path, path: Path) -> None:
    """Give the written file `part` the name `path` in the same folder; raise FileExistsError if it exists."""
    sync(part)
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # A file system without hard links: creating the name first cannot replace another file.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with _removed_on_failure(path):
            part.replace(path)
    with _removed_on_failure(path):
        part.unlink(missing_ok=True)
        sync(path.parent)


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
