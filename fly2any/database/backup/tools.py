"""pg_dump and pg_restore: which of those on this machine can serve, and running them without a password in sight."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo

from fly2any.postgres.embedded import bin_folder

from ..errors import Refusal, without_password
from .workfolder import work_folder

# Where Debian, Red Hat, Homebrew and Postgres.app put each version's own.
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
# Parameters of libpq that are passwords, as it marks them.
SECRETS = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"} - {"password"}
DEFAULTS = {option.keyword.decode(): (option.compiled or b"").decode() for option in pq.Conninfo.get_defaults()}
DEFAULTS["sslcertmode"] = "allow"  # As it is documented; compiled is another.


@dataclass(frozen=True, slots=True)
class Tools:
    """A folder with pg_dump and pg_restore of one version, and whether they speak TLS."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    @property
    def speaks_tls(self) -> bool:
        return self.folder != embedded_folder()


def embedded_folder() -> Path | None:
    """Return the folder of the embedded server's programs, None where they are not installed."""
    try:
        return bin_folder()
    except Exception:
        return None


def package_folders() -> list[Path]:
    """Return the folders of programs that packages of PostgreSQL have put on this machine."""
    return [folder for pattern in FOLDERS for folder in sorted(Path("/").glob(pattern.lstrip("/")))]


def has(folder: Path, *programs: str) -> bool:
    """Return whether this user may run the programs in a folder; one of the PATH may be closed to it."""
    return all(os.access(folder / program, os.X_OK) for program in programs)


def _installed() -> Iterator[Tools]:
    """Yield what is installed: on the PATH, where packages put it, and the embedded server's own."""
    folders = [*map(Path, os.get_exec_path()), *package_folders()]
    if embedded := embedded_folder():
        folders.append(embedded)
    for folder in dict.fromkeys(folders):
        if has(folder, "pg_dump", "pg_restore"):
            # Debian's /usr/bin/pg_dump is a wrapper that runs the version of the default cluster.
            with suppress(OSError, subprocess.SubprocessError):
                said = subprocess.run(  # noqa: S603
                    [folder / "pg_dump", "--version"],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=30,
                    env=bare_environment(),
                )
                if version := re.search(r"(\d+)(\.\d+)?", said.stdout):
                    yield Tools(folder, version[0])


def bare_environment() -> dict[str, str]:
    """Return what a program needs of our environment: neither the URL nor a key, which its list of variables would show."""
    needed = ("PATH", "HOME", "USER", "TMPDIR", "KRB5CCNAME")
    return {**{name: os.environ[name] for name in needed if name in os.environ}, "LC_ALL": "C.UTF-8"}


def choose(server: int, *, tls: bool, oldest: int = 0) -> Tools:
    """Return the tools nearest above the server's major version, that speak TLS where it is wanted; Refusal without any."""
    found = list(_installed())
    wanted = max(server, oldest)
    # From 17 on pg_restore sets transaction_timeout, which no older server knows.
    newest_that_serves = 16 if server < 17 else 999
    fitting = [tools for tools in found if wanted <= tools.major <= newest_that_serves and (tools.speaks_tls or not tls)]
    if fitting:
        return min(fitting, key=lambda tools: tools.major)
    newest = max((tools.major for tools in found if tools.speaks_tls or not tls), default=None)
    here = "there is none here" if newest is None else f"the newest here is of {newest}"
    speaking = " that speaks TLS" if tls else ""
    raise Refusal(
        f"PostgreSQL {wanted} needs a pg_dump and pg_restore of {wanted} {'or newer' if server >= 17 else 'to 16'}{speaking}, and {here}:"
        f" apt-get install postgresql-client-{wanted} (from apt.postgresql.org where Debian has no such version), or put its folder on the PATH."
    )


def server_version(connection) -> tuple[int, str]:
    """Return the server's major version, and its version in full."""
    number = connection.connection.info.server_version
    return number // 10000, f"{number // 10000}.{number % 10000}"


@contextmanager
def reached(connection) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what libpq needs to reach the database of `connection`: a string without the password, and an environment.

    The password is in a file that only this user can read, and that is gone in the end: an argument or a variable of the
    environment can be seen in the list of processes.
    """
    connection.ensure_connection()
    info = connection.connection.info
    # As libpq resolved them, from the URL and from the environment; an older libpq of pg_dump's may not know what has its default.
    parameters = {name: value for name, value in info.get_parameters().items() if value != DEFAULTS.get(name)}
    parameters.pop("client_encoding", None)
    password = info.password
    secrets = {name: parameters.pop(name) for name in SECRETS if name in parameters}
    clean = bare_environment()
    with work_folder("passwords for pg_dump and pg_restore") as folder:
        if password:
            secret = Path(folder, "pass")
            secret.touch(mode=0o600)
            secret.write_text("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", str(password)) + "\n")
            clean["PGPASSFILE"] = str(secret)
        if secrets:
            service = Path(folder, "service")
            service.touch(mode=0o600)
            service.write_text("[fly2any]\n" + "".join(f"{name}={value}\n" for name, value in secrets.items()))
            clean["PGSERVICEFILE"] = str(service)
            parameters["service"] = "fly2any"
        yield make_conninfo(**parameters), clean


def read(program: Path, path: Path, *options: str) -> str | None:
    """Return what pg_restore prints, given a dump and no server, None where it cannot read the dump."""
    done = subprocess.run(  # noqa: S603
        [program, *options, path], capture_output=True, text=True, errors="replace", env=bare_environment()
    )
    return done.stdout if done.returncode == 0 else None


class Running:
    """A pg_dump or pg_restore that runs; leaving it early ends the process."""

    def __init__(self, program: Path, arguments: list[str], environment: dict[str, str], hear: Callable[[str], None]):
        self.name, self.hear = program.name, hear
        self.errors: list[str] = []
        self.process = subprocess.Popen(  # noqa: S603
            [str(program), "--no-password", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            said = line.rstrip("\n").removeprefix(f"{self.name}: ").lstrip()
            if re.match(r"(error|fatal|detail|hint|warning):", said, re.IGNORECASE) or not line.startswith(self.name):
                self.errors = [*self.errors, said][-50:]
            self.hear(said)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.reader.join(10)
        if self.process.stderr and not self.reader.is_alive():
            self.process.stderr.close()

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait()
        self.reader.join(10)
        return code

    def finish(self) -> None:
        """Wait for the end; raise Refusal with what it said, where it failed."""
        if code := self.wait():
            errors = [line for line in self.errors if re.match(r"(error|fatal):", line, re.IGNORECASE)] or self.errors
            said = errors[0].partition(":")[2].strip() if errors and ":" in errors[0] else "it gave no reason"
            raise Refusal(
                f"{self.name} ended with {code}: {without_password(said).rstrip('.')}. Correct that, and run the command again."
            )
