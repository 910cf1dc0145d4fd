"""Storage of an erasure's certificate: it is written before the erasure commits, and confirmed afterwards.

durable.py makes the file outlive a crash; administration/person_page.py keeps the admin's certificates in the database.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom, TextIOWrapper
from pathlib import Path
from typing import IO, Any, TextIO

from ..durable import new_file, rename_exclusively
from ..errors import Refusal
from .erase import Certificate

STATE = '  "state": "{}"'
PENDING, COMMITTED, ROLLED_BACK = STATE.format("pending"), STATE.format("committed"), STATE.format("rolled back")
UNCONFIRMED = "The person was erased, but the certificate could not be updated ({reason}): change “pending” in it to “committed”. The transaction is {number}."


def _without_end(certificate: Certificate) -> str:
    """Return a certificate as JSON without its state."""
    return certificate.as_json().removesuffix("\n}") + ",\n"


class File:
    """A new file, complete at any time; its state “pending” is later overwritten in place, which needs no disk space.

    Raises Refusal if the file exists or its folder is not writable.
    """

    def __init__(self, path: Path):
        self.path = path
        self.place: int | None = None
        self.number = ""
        self.part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        if os.path.lexists(path):
            raise Refusal(f"{path} already exists: name a new file.")
        with _explained(path), new_file(self.part) as file:
            self.identity = _identity(file)

    @contextmanager
    def reopened(self, path: Path) -> Iterator[BufferedRandom]:
        """Open the file by the name that it has now; raise OSError if another file has that name, put there by the folder's owner."""
        with open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
            if _identity(file) != self.identity:
                raise OSError(errno.ESTALE, "the file was replaced", str(path))
            yield file

    def keep(self, certificate: Certificate) -> None:
        """Write and sync it under a temporary name, then rename it."""
        text = _without_end(certificate)
        self.number = certificate.transaction
        content = f"{text}{PENDING.ljust(len(COMMITTED))}\n}}\n".encode()
        with _explained(self.path):
            with self.reopened(self.part) as file:
                file.write(content)
            rename_exclusively(self.part, self.path)
        self.place = len(text.encode())

    def confirm(self) -> None:
        """Overwrite the state."""
        try:
            with self.reopened(self.path) as file:
                file.seek(self.place or 0)
                file.write(COMMITTED.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Refusal(UNCONFIRMED.format(reason=error.strerror, number=self.number)) from error

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self.part.unlink(missing_ok=True)
        if self.place is not None:
            with suppress(OSError):
                self.path.unlink()


class Stream:
    """A stream: everything but the state, which ends the JSON, is written before the erasure commits."""

    def __init__(self, stream: Any):
        self.stream = stream  # A TextIO, or Django's wrapper of one.
        self.begun = False
        self.number = ""

    def keep(self, certificate: Certificate) -> None:
        """Write it except its end."""
        self.number = certificate.transaction
        self._write(_without_end(certificate))
        self.begun = True

    def confirm(self) -> None:
        """Write the end."""
        try:
            self._write(f"{COMMITTED}\n}}\n")
        except OSError as error:
            raise Refusal(
                f"The person was erased, but the end of the certificate could not be written ({error.strerror}). The transaction is {self.number}."
            ) from error

    def discard(self) -> None:
        """Write the end, with the state “rolled back”."""
        if self.begun:
            with suppress(OSError):
                self._write(f"{ROLLED_BACK}\n}}\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
        with suppress(OSError, ValueError):  # A stream without a descriptor.
            number = self.stream.fileno()
            if stat.S_ISREG(os.fstat(number).st_mode):
                os.fsync(number)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a Refusal."""
    try:
        yield
    except FileExistsError:
        raise Refusal(f"{path} already exists: name a new file.") from None
    except OSError as error:
        raise Refusal(f"{path} cannot be written ({error.strerror}): name another file.") from error


def _identity(file: IO[bytes]) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_uid  # The number of a removed file may be given to another user's.


def write_new(path: Path, write: Callable[[TextIO], None]) -> None:
    """Write a new file that only this user can read, completely or not at all; raise Refusal if that fails."""
    file = File(path)
    try:
        with _explained(path):
            with file.reopened(file.part) as opened, TextIOWrapper(opened, encoding="utf-8") as stream:
                write(stream)
            rename_exclusively(file.part, path)
    finally:
        file.part.unlink(missing_ok=True)
