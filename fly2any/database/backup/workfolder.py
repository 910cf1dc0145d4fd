"""Work folders, which are marked when created; later commands remove only marked folders."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.conf import settings

from .trusted_path import require_trusted_path

MARK = ".fly2any-work-folder"
FIRST_LINE = "Work in progress of a Fly2Any command. Removed by a later one when the process that made it has ended.\n"
PREFIX = "fly2any-"
OLD = 2 * 24 * 3600  # Seconds, for folders of another machine, whose processes are not visible here.


@contextmanager
def work_folder(purpose: str, *, beside: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Yield a new folder that only this user can read, in `beside` or the folder for temporary files; removed at the end.

    Raises Refusal if another user can replace the folder; the caller has checked `beside`.
    While the block runs, the mark in it is locked (flock); the lock ends with the process, however that ends.
    """
    parent = beside or Path(tempfile.gettempdir())
    # Known before it is created, so that an interrupt in between leaves nothing.
    folder = parent / f"{prefix}{secrets.token_hex(6)}"
    if not beside:
        require_trusted_path(folder, "TMPDIR")
    sweep(parent, prefix)
    try:
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with suppress(OSError):  # A disk without file locks: nothing on it is swept.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            facts = {"purpose": purpose, "folder": folder.name, "machine": socket.gethostname(), "pid": os.getpid()}
            os.write(descriptor, f"{FIRST_LINE}{json.dumps(facts)}\n".encode())
            yield folder
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path, prefix: str = PREFIX) -> list[str]:
    """Remove the work folders that ended processes left in `parent`, and return their names.

    A folder is removed only if it belongs to this user, is closed to others, and holds the mark that work_folder() wrote
    into this very folder and that no process has locked. A folder that contains a configured location stays, and so does
    the target of a symbolic link.
    """
    removed: list[str] = []
    with suppress(OSError), os.scandir(parent) as entries:
        found = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)]
        kept = _configured()
        for name in sorted(found):
            path = parent.resolve() / name
            if any(path == place or path in place.parents for place in kept):
                continue
            with suppress(OSError, ValueError, TypeError, KeyError), _abandoned(path) as abandoned:
                if abandoned:
                    shutil.rmtree(path)
                    removed.append(name)
    return removed


@contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Yield whether an ended process left the folder; raise if it is not a work folder, or its process is running."""
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        own = os.fstat(folder)
        if own.st_uid != os.geteuid() or own.st_mode & 0o066:
            yield False
            return
        with _opened(MARK, os.O_RDWR, folder) as mark:
            status = os.fstat(mark)
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Raises if the process is running, or the disk has no file locks.
            first, _, rest = os.read(mark, 4096).decode().partition("\n")
            facts = json.loads(rest)
            ours = (
                stat.S_ISREG(status.st_mode)
                and (status.st_uid, status.st_nlink) == (os.geteuid(), 1)
                and f"{first}\n" == FIRST_LINE
                and facts["folder"] == path.name
            )
            here = facts["machine"] == socket.gethostname()
            yield ours and (here or _now(path.parent) - status.st_mtime > OLD)


@contextmanager
def _opened(path: Path | str, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _now(folder: Path) -> float:
    """Return the time by the clock that stamps files in `folder`, which may be another machine's, in seconds."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"now")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _configured() -> list[Path]:
    """Return the places that settings name, which no command removes."""
    places = [settings.BACKUPS["location"], settings.RETENTION["archive"], settings.BACKUPS["identity_file"]]
    places += [str(home["HOME"]) for one in settings.DATABASES.values() if (home := one.get("EMBEDDED"))]
    places += [str(settings.BASE_DIR), tempfile.gettempdir(), os.environ.get("HOME", "")]
    return [Path(place).resolve() for place in places if place.startswith("/")]
