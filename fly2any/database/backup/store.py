"""The stores of backups: a folder, or a bucket of S3 or compatible storage."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from ..durable import new_file, sync
from ..errors import Refusal, without_password
from ..units import plural
from .trusted_path import require_trusted_path
from .workfolder import work_folder

WORK = ".taking-"
CHUNK = 1 << 20  # Bytes.


class Missing(Refusal):
    """A file does not exist."""


class Unreachable(Refusal):
    """A store that does not answer: asking it for another file would take as long again."""


# Seconds for a hurried answer: a dead mount blocks forever, and a bucket's timeout restarts with each byte.
LONGEST = 10
answering = threading.Lock()  # A process waits for one hurried answer at a time, also for one that it has given up.
Show = Callable[[int], None]  # Gets the number of further bytes transferred.


class Store(ABC):
    """A place for named files. Every method raises Refusal if it fails.

    `hurried`, it waits no more than LONGEST seconds for the names, or for the content of a file.
    """

    CURE = "correct {variable}"  # Of a place that does not answer.

    def __init__(self, place: str, variable: str = "BACKUP_LOCATION", *, hurried: bool = False):
        self.place, self.variable, self.hurried = place, variable, hurried

    def make(self) -> None:
        """Create the place if the store can."""
        return

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the files in bytes, by name."""
        return self._answered(self._sizes)

    @abstractmethod
    def _sizes(self) -> dict[str, int]: ...

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""
        return sorted(self.sizes())

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self._answered(lambda: self._read(name))

    @abstractmethod
    def _read(self, name: str) -> bytes: ...

    def _answered(self, ask: Callable[[], Any]) -> Any:
        """Return what `ask` returns; hurried, raise Unreachable if that takes longer than LONGEST."""
        if not self.hurried:
            return ask()
        ends, answer = time.monotonic() + LONGEST, Future[Any]()

        def run() -> None:
            try:
                answer.set_result(ask())
            except BaseException as error:  # For the waiting thread.
                answer.set_exception(error)
            finally:
                answering.release()

        if answering.acquire(timeout=LONGEST):
            threading.Thread(target=run, daemon=True).start()
            with suppress(TimeoutError):
                return answer.result(max(ends - time.monotonic(), 0))
        raise Unreachable(f"{self.place} has not answered within {LONGEST} s: {self.CURE.format(variable=self.variable)}.")

    @abstractmethod
    def write(self, name: str, content: bytes) -> None: ...

    @abstractmethod
    def put(self, name: str, path: Path, show: Show) -> None:
        """Store the file at `path`, in the workplace, as `name`; readers never see a partial file.

        It is at its place, with its size, when this returns.
        """

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Yield a folder for new files, which is removed at the end."""
        with work_folder("a backup or an archive") as folder:
            yield folder

    @abstractmethod
    def local(self, name: str, show: Show):
        """Return a context manager that yields the file, open for reading and unbuffered.

        Callers read from this open file and never open it again by name: the name may refer to another file by then.
        """

    @abstractmethod
    def delete(self, name: str) -> None: ...


class Folder(Store):
    """A folder on this machine or on a mounted disk."""

    CURE = "repair the disk or its mount, or correct {variable}"

    def __init__(self, place: str, variable: str = "BACKUP_LOCATION", *, hurried: bool = False):
        super().__init__(place, variable, hurried=hurried)
        self.folder = Path(place)

    def make(self):
        try:
            require_trusted_path(self.folder, self.variable)
            if not self.folder.is_dir():
                self.folder.mkdir(mode=0o700)  # Not its parents: they are missing if the disk is not mounted.
                sync(self.folder.parent)
        except PermissionError as error:
            raise Refusal(
                f"{self.place} cannot be created ({error.strerror}): create it as root, `install -d -m 700 -o {os.geteuid()}"
                f" {quote(self.place)}`, or correct {self.variable}."
            ) from error
        except OSError as error:
            raise Refusal(
                f"{self.place} cannot be created or is not a folder ({error.strerror}): correct {self.variable}."
            ) from error
        with self.trusted():
            pass

    @contextmanager
    def trusted(self) -> Iterator[int]:
        """Yield a descriptor of the folder; raise Refusal if another user can replace it or its files."""
        with ExitStack() as stack:
            with self.explained():
                require_trusted_path(self.folder, self.variable)
                descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
                stack.callback(os.close, descriptor)
                status = os.fstat(descriptor)
            user = os.geteuid()
            if status.st_uid not in (user, 0):
                raise Refusal(
                    f"{self.place} belongs to another user (uid {status.st_uid}, not {user}), who can replace the files there: run the command as"
                    f" that user, or `chown {user} {quote(self.place)}`."
                )
            if status.st_mode & stat.S_IWOTH:
                raise Refusal(
                    f"Every user may write to {self.place}, and replace the files there: `chmod o-w {quote(self.place)}`."
                )
            yield descriptor

    @contextmanager
    def explained(self, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Missing(
                f"{error.filename} does not exist: nothing has been stored there yet, or {self.variable} is wrong."
            ) from error
        except OSError as error:
            raise Refusal(
                f"{self.folder / name if name else self.place} cannot be used ({error.strerror}): correct {self.variable}, or fix the cause there."
            ) from error

    def _sizes(self):
        with self.explained(), os.scandir(self.folder) as entries:
            files = [entry for entry in entries if entry.is_file() and not entry.name.startswith(".")]
            return {entry.name: entry.stat().st_size for entry in files}

    def _read(self, name):
        with self.explained(name):
            return (self.folder / name).read_bytes()

    def write(self, name, content):
        with self.workplace() as work:
            path = work / name
            with self.explained(), new_file(path) as file:
                file.write(content)
            self.put(name, path, lambda size: None)

    def put(self, name, path, show):
        size = path.stat().st_size
        with self.explained():
            sync(path)  # Written to the disk before it gets its name.
            path.chmod(0o600)
            if path.parent.parent == self.folder:
                path.replace(self.folder / name)
                sync(self.folder)
            else:  # A file on another disk is first copied next to the target, so that no reader sees a partial file.
                with self.workplace() as near:
                    with path.open("rb") as source, new_file(near / name) as target:
                        shutil.copyfileobj(source, target, CHUNK)
                        target.flush()
                        os.fsync(target.fileno())
                    (near / name).replace(self.folder / name)
                    sync(self.folder)
        show(size)

    @contextmanager
    def workplace(self):
        with ExitStack() as stack:
            stack.enter_context(self.trusted())
            with self.explained():
                folder = stack.enter_context(work_folder("a backup or an archive", beside=self.folder, prefix=WORK))
            yield folder

    @contextmanager
    def local(self, name, show):
        with ExitStack() as stack:
            folder = stack.enter_context(self.trusted())
            with self.explained(name):
                file = stack.enter_context(_opened(self.folder / name, folder))
            yield file

    def delete(self, name):
        with self.explained():
            (self.folder / name).unlink(missing_ok=True)


def _opened(path: Path, folder: int) -> FileIO:
    """Open the file at `path`, whose folder is the descriptor `folder`, for reading; raise Refusal if it is none, or a symbolic link."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = FileIO(path, opener=lambda name, mode: os.open(path.name, mode | flags, dir_fd=folder))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refusal(f"{path} is a symbolic link: replace it with the file.") from error
        error.filename = str(path)
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Refusal(f"{path} is not a regular file: remove it.")
    return file


# Seconds, and how often a request is tried: for backups and archives, and for a page or a report that only says what is there.
PATIENT: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}
HURRIED: dict[str, Any] = {"connect_timeout": 3, "read_timeout": 5, "retries": {"total_max_attempts": 1}}


class Bucket(Store):
    """`s3://bucket/prefix`, configured as for AWS's own tools: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, … or the machine's role."""

    CURE = "correct {variable} and the AWS variables"

    def __init__(self, place: str, variable: str = "BACKUP_LOCATION", *, hurried: bool = False):
        super().__init__(place, variable, hurried=hurried)
        import boto3
        from botocore.config import Config

        self.bucket, self.prefix = bucket_of(place)
        if not self.bucket:
            raise Refusal(f"{place} has no bucket: write {self.variable} as s3://bucket/folder.")
        with self.explained():
            patience = HURRIED if hurried else PATIENT
            self.client = boto3.client("s3", config=Config(**patience))

    @contextmanager
    def explained(self, name: str = "") -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        place = f"{self.place.rstrip('/')}/{name}" if name else self.place
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ("NoSuchKey", "404"):
                raise Missing(
                    f"{self.place} has no such backup: `manage.py dbbackup --list` lists the backups there."
                ) from error
            raise Refusal(
                f"{place} refused the request ({code}): correct {self.variable}, or the permissions of its key."
            ) from error
        except (BotoCoreError, Boto3Error, ValueError) as error:
            reason = without_password(str(error).splitlines()[0]).rstrip(".")
            raise Unreachable(f"{place} cannot be reached ({reason}): {self.CURE.format(variable=self.variable)}.") from error

    def _sizes(self):
        with self.explained():
            pages = [*self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)]
            if not all("Name" in page or "KeyCount" in page for page in pages):
                raise Refusal(f"{self.place} answered with something other than a list of files: correct AWS_ENDPOINT_URL.")
            found = {e["Key"].removeprefix(self.prefix): e["Size"] for page in pages for e in page.get("Contents", ())}
            return {name: size for name, size in found.items() if "/" not in name}

    def _read(self, name):
        with self.explained(name):
            return self.client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()

    def write(self, name, content):
        with self.explained(name):
            self.client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=content)
        self._require_stored(name, len(content))

    def put(self, name, path, show):
        with self.explained():
            self.client.upload_file(str(path), self.bucket, self.prefix + name, Callback=show)
        self._require_stored(name, path.stat().st_size)

    def _require_stored(self, name: str, size: int) -> None:
        """Raise Refusal unless the bucket has `name` with `size` bytes: a gateway or a wrong endpoint may answer 200 to anything."""
        try:
            with self.explained(name):
                found = self.client.head_object(Bucket=self.bucket, Key=self.prefix + name)["ContentLength"]
        except Missing:
            found = None
        if found != size:
            has = "does not have it" if found is None else f"has {plural(found, 'byte')} instead of {size:,}"
            raise Refusal(f"{self.place} accepted {name}, but {has}: correct AWS_ENDPOINT_URL, or the service there.")

    @contextmanager
    def local(self, name, show):
        with work_folder("a fetched backup or archive") as folder:
            path = folder / "dump"
            with self.explained(name):
                self.client.download_file(self.bucket, self.prefix + name, str(path), Callback=show)
            with FileIO(path) as file:
                yield file

    def delete(self, name):
        with self.explained():
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)


def bucket_of(place: str) -> tuple[str, str]:
    """Return the bucket and the key prefix of `s3://bucket/prefix`, with or without slashes at its ends."""
    url = urlsplit(place)
    prefix = url.path.strip("/")
    return url.netloc, f"{prefix}/" if prefix else ""


def is_same_place(one: str, other: str) -> bool:
    """Return whether two places, as store_at() takes them, are the same."""
    if one.startswith("s3://") and other.startswith("s3://"):
        return bucket_of(one) == bucket_of(other)
    return one.startswith("/") and other.startswith("/") and Path(one).resolve() == Path(other).resolve()


def store_at(place: str, variable: str = "BACKUP_LOCATION", *, hurried: bool = False) -> Store:
    """Return the store at `place`, a folder or `s3://bucket/prefix`, the value of `variable`; raise Refusal if it is none of these.

    `hurried`, it waits no more than LONGEST seconds for an answer, and asks a bucket once.
    """
    if not place:
        raise Refusal(f"{variable} is not set: set it to a folder, or to s3://bucket/folder.")
    if "://" in place and not place.startswith("s3://"):
        raise Refusal(f"{variable} is {place.partition('://')[0]}://…: set it to a folder, or to s3://bucket/folder.")
    if place.startswith("s3://") and "@" in bucket_of(place)[0]:
        raise Refusal(
            f"{variable} has a user or a password before @: write s3://bucket/folder, and the key to AWS_ACCESS_KEY_ID."
        )
    if not place.startswith(("s3://", "/")):
        raise Refusal(f"{variable} is the relative path {place}: write an absolute path, or s3://bucket/folder.")
    kind = Bucket if place.startswith("s3://") else Folder
    return kind(place, variable, hurried=hurried)


@contextmanager
def all_or_none(store: Store, *names: str) -> Iterator[None]:
    """Run the block, which stores the files `names`; if it raises, delete them: a place that is full must not be filled further."""
    try:
        yield
    except BaseException:
        for name in names:
            with suppress(Refusal):
                store.delete(name)
        raise
