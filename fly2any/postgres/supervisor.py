"""The supervisor of the embedded server: `python -m fly2any.postgres.supervisor HOME DATABASE [NAME=VALUE …]`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from .embedded import READY, SUPERUSER, EmbeddedServerError, alive, bin_folder, open_lock, pid, socket_folder, status

SERVER_USER = "nobody"  # The server's user if root runs the command, because PostgreSQL refuses to run as root.
SETTINGS = {
    "listen_addresses": "",  # Only the socket, in a folder that only its owner may enter.
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
UPGRADED = "data.upgraded"  # The folder that a finished upgrade (`manage.py dbupgrade`) renames to `data`.
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # Numbers from capabilities(7).


def supervise(home: Path, database: str, settings: Mapping[str, str]) -> None:
    """Start the server in `home`, print `ready` on stdout, and stop the server when its last client is gone."""
    supervisor = open_lock(home / "supervisor.lock")
    try:
        fcntl.flock(supervisor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say(f"Another supervisor is running in {home}: run the command again.")
        return
    os.truncate(supervisor, 0)
    server = None
    try:
        server = Server(home, settings)
        server.create()
        server.start()
        server.create_database(database)
        os.write(supervisor, READY)
        _say("ready")
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)  # From now on, the command that started the supervisor may end.
        clients = _keep_until_unused(server)
    except (EmbeddedServerError, OSError, subprocess.SubprocessError) as error:
        _say(_why(error, home))
        return
    finally:
        if server is not None:
            server.stop()
    os.close(supervisor)  # Before clients.lock: its next holder must see that no supervisor is left.
    os.close(clients)


def _keep_until_unused(server: Server) -> int:
    """Return the exclusive lock on clients.lock once no client holds it, keeping the server alive until then."""
    clients = open_lock(server.home / "clients.lock")
    while True:
        try:
            fcntl.flock(clients, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return clients
        except BlockingIOError:
            time.sleep(0.05)
        if not alive(server.home):  # The server crashed or was stopped while clients need it.
            with contextlib.suppress(EmbeddedServerError):
                server.start()


class Server:
    """The server in a folder, run as a user that PostgreSQL accepts."""

    LOCALE: tuple[str, ...] = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    limits: tuple[str, ...] = ()  # A program that runs the server's programs with limits, and its options.

    def __init__(self, home: Path, settings: Mapping[str, str], *, folder: Path | None = None):
        self.home = home
        self.data = home / "data"
        self.settings = settings
        self.bin = folder or bin_folder()
        self.owner = _owner(home)
        self.prefix = _as_server_user(self.bin / "postgres", home, self.owner) if os.geteuid() == 0 else []
        self.process: subprocess.Popen | None = None

    def run(self, log, program: str, *arguments: str, stdin=subprocess.DEVNULL, dies_with_us=False) -> subprocess.Popen:
        """Start one of PostgreSQL's programs, its output to the file `log`."""
        prefix = self.prefix
        if dies_with_us and (setpriv := shutil.which("setpriv")):
            # If the supervisor is killed, the server shuts down too, fast but without losing a row.
            prefix = [*(prefix or [setpriv]), "--pdeathsig=INT"]
        return subprocess.Popen(
            [*prefix, *self.limits, str(self.bin / program), *arguments],
            stdin=stdin,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            encoding="utf-8",
        )

    def create(self) -> None:
        """Create the data folder if it does not exist; it gets its name only when it is complete."""
        if self.data.exists():
            return
        if self.data.is_symlink():
            raise EmbeddedServerError(
                f"{self.data} is a symbolic link to {self.data.readlink()}, which does not exist: mount its disk, or delete the link"
                " to begin with an empty database."
            )
        if (self.home / UPGRADED).exists():  # Its command was killed between two renames.
            (self.home / UPGRADED).rename(self.data)
            return
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)  # Left by an earlier attempt that was killed.
        unfinished.mkdir(mode=0o700)
        self._give(unfinished)
        with open(self.home / "log", "a", encoding="utf-8") as log:
            initdb = self.run(
                log, "initdb", "-D", str(unfinished), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", *self.LOCALE,
            )  # fmt: skip
            initdb.communicate(timeout=120)
        if initdb.returncode:
            raise EmbeddedServerError(f"The embedded PostgreSQL could not be created: see {self.home / 'log'}.")
        unfinished.rename(self.data)

    def start(self) -> None:
        """Start the server unless it runs, and wait until it accepts connections; raise EmbeddedServerError if it does not."""
        if alive(self.home):
            return
        self._check_version()
        options = {**SETTINGS, "unix_socket_directories": str(self._socket_folder()), **self.settings}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + 5  # Backends of a killed server may hold its shared memory for a moment.
        while time.monotonic() < deadline:
            (self.data / "postmaster.pid").unlink(
                missing_ok=True
            )  # Stale: its process is gone, or the pid belongs to another one.
            with open(self.home / "log", "a", encoding="utf-8") as log:
                self.process = self.run(log, "postgres", "-D", str(self.data), *words, dies_with_us=True)
            while self.process.poll() is None:
                if status(self.home) == "ready":
                    return
                time.sleep(0.02)
            time.sleep(0.5)
        raise EmbeddedServerError(
            f"The embedded PostgreSQL did not start: see {self.home / 'log'}, or set POSTGRES_URL to use another server."
        )

    def create_database(self, name: str) -> None:
        """Create the database `name` and the extension pg_stat_statements in it, unless they exist."""
        literal, identifier = name.replace("'", "''"), name.replace('"', '""')
        script = (
            f"SELECT format('CREATE DATABASE %I', '{literal}')"
            f" WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{literal}') \\gexec\n"
            f'\\connect "{identifier}"\n'
            "SET default_transaction_read_only TO off;\n"  # The database may be read-only by default.
            "SELECT 'CREATE EXTENSION pg_stat_statements'"
            " WHERE NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') \\gexec\n"
        )
        with open(self.home / "log", "a", encoding="utf-8") as log:
            psql = self.run(
                log, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(socket_folder(self.home)), "-U", SUPERUSER, "-d", "postgres",
                stdin=subprocess.PIPE,
            )  # fmt: skip
            psql.communicate(script, timeout=60)
        if psql.returncode:
            raise EmbeddedServerError(f"The database {name} could not be created: see {self.home / 'log'}.")

    def stop(self) -> None:
        """Stop the server if it runs, without losing a committed row."""
        for how in (signal.SIGINT, signal.SIGQUIT):  # Fast shutdown, then immediate, from which the next start recovers.
            if alive(self.home):
                os.kill(pid(self.home), how)
            deadline = time.monotonic() + 60
            while alive(self.home) and time.monotonic() < deadline:
                if self.process is not None and self.process.poll() is not None:
                    break
                time.sleep(0.02)
        if self.process is not None:
            self.process.wait()
        if (folder := socket_folder(self.home)) != self.data:
            with contextlib.suppress(OSError):  # A folder with other files is kept.
                for socket in folder.glob(".s.PGSQL.*"):
                    socket.unlink()
                folder.rmdir()

    def incompatibility(self) -> str:
        """Return why the programs cannot read the data directory of a stopped server although it has their major version, or ""."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:  # A file as for every program: `run` takes no pipe.
            self.run(log, "postgres", "-C", "data_checksums", "-D", str(self.data)).wait(60)
            log.seek(0)
            text = log.read()
        found = re.search(
            r"FATAL:\s+database files are incompatible with server\n.*?DETAIL:\s+(.*?)\.?$", text, re.MULTILINE | re.DOTALL
        )
        return found[1] if found else ""

    def _give(self, folder: Path) -> None:
        if os.geteuid() == 0:
            os.chown(folder, *self.owner)

    def _check_version(self) -> None:
        installed, found = version_of(self.bin), major_of(self.data)
        if installed.partition(".")[0] != str(found):
            raise EmbeddedServerError(
                f"{self.data} was created by PostgreSQL {found}, but {installed} is installed:"
                f" run `manage.py dbupgrade` (docs/how-to/upgrade.md), or delete {self.home} to begin with an empty database."
            )

    def _socket_folder(self) -> Path:
        folder = socket_folder(self.home)
        if folder == self.data:
            return folder
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), self.owner[0]):
            raise EmbeddedServerError(f"{folder} belongs to another user: delete it, or move the project to a shorter path.")
        folder.chmod(0o700)
        self._give(folder)
        return folder


def version_of(folder: Path) -> str:
    """Return the version of the server programs in `folder`, such as 18.6; raise OSError or CalledProcessError without them."""
    version = subprocess.check_output([str(folder / "postgres"), "--version"], encoding="utf-8", cwd="/")
    return version.partition(")")[2].split()[0]  # Packagers add text after it.


def major_of(data: Path) -> int:
    """Return the major version that a data directory is of, 9 for 9.6; raise EmbeddedServerError if it is none."""
    try:
        return int((data / "PG_VERSION").read_text().partition(".")[0])
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise EmbeddedServerError(
            f"{data} is not a data directory of PostgreSQL: its file PG_VERSION is missing or damaged. Move it away and put an"
            " intact copy there, or restore a backup with `manage.py dbrestore latest`."
        ) from error


def _owner(home: Path) -> tuple[int, int]:
    """Return the server's user and group: the owner of existing data, SERVER_USER if root runs the command, otherwise ours."""
    with contextlib.suppress(FileNotFoundError):
        facts = (home / "data").stat()
        if facts.st_uid != 0:
            return facts.st_uid, facts.st_gid
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    import pwd

    entry = pwd.getpwnam(SERVER_USER)
    return entry.pw_uid, entry.pw_gid


def _as_server_user(program: Path, home: Path, owner: tuple[int, int]) -> list[str]:
    """Return the command prefix that runs a program as SERVER_USER with access to `program` and `home`, and no more.

    If a parent folder is closed to other users (a project under /root), its mode stays: the server keeps only root's capability
    to traverse closed folders (docs/adr/0002).
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and `setpriv` (package util-linux), which runs it as another user, is missing:"
            " install it, run the command as an ordinary user, or set POSTGRES_URL."
        )
    uid, gid = owner
    words = [setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    if all(parent.stat().st_mode & 0o001 for path in (program, home / "data") for parent in path.parents if parent.exists()):
        return [*words, "--bounding-set=-all"]
    mine = _bounding_set()
    name = next(
        (n for bit, n in ((CAP_DAC_READ_SEARCH, "dac_read_search"), (CAP_DAC_OVERRIDE, "dac_override")) if mine >> bit & 1),
        None,
    )
    if name is None:
        raise EmbeddedServerError(
            f"The user {SERVER_USER}, as which PostgreSQL would run, cannot access {home}: move the project to a folder"
            " open to others, run the command as an ordinary user, or set POSTGRES_URL."
        )
    # no_setuid_fixup: without it access(2), by which the programs find each other, ignores the capability.
    only = f"-all,+{name}"
    return [*words, "--securebits=+no_setuid_fixup", f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]


def _bounding_set() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


def _why(error: Exception, home: Path) -> str:
    if isinstance(error, EmbeddedServerError):
        return str(error)
    return (
        f"The embedded PostgreSQL did not start ({type(error).__name__}): read {home / 'log'},"
        " or set POSTGRES_URL to use another server."
    )


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # The client was killed; the next one uses the server.
        print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    supervise(Path(sys.argv[1]), sys.argv[2], dict(option.split("=", 1) for option in sys.argv[3:]))
