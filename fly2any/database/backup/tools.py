"""pg_dump and pg_restore: choosing suitable ones on this machine, and running them without exposing the password."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo

from fly2any.postgres.embedded import bin_folder

from ..errors import OF_STANDBYS, Refusal, without_password
from .script import NAME, statements_of
from .workfolder import work_folder

# The folders in which Debian, Red Hat, Homebrew and Postgres.app put the programs of each version.
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
# The statement at which a pg_restore of 17 or later fails on an older server, which has no such setting.
UNKNOWN_BEFORE_17 = "Command was: SET transaction_timeout = 0;"
# An internal option of columns that a release of PostgreSQL (15.20 is one) writes, its pg_dump leaves out, and no other release accepts.
INTERNAL = re.compile(rf"ALTER TABLE ONLY {NAME} ALTER COLUMN {NAME} SET \(.*\bpg_attver=.*\)", re.DOTALL)
# A line after an error whose text is a function's own, which may quote a row. In other errors, a value follows a colon or "value".
RAISED = re.compile(r"\s*CONTEXT:\s+PL/(?:pgSQL function (?P<name>.+) line \d+ at RAISE|(?!pgSQL)\w+ function (?P<other>.+))")
OF_ENTRY = re.compile(r"from TOC entry (?P<number>\d+); \d+ \d+ (?P<text>.*)")
VALUE = re.compile(r'(: |\bvalue )(?:".*"|".*)')
CURE = (
    "run `apt-get install postgresql-client-{0}` (Debian, Ubuntu; from apt.postgresql.org if the system does not have it) or"
    " `brew install postgresql@{0}` (macOS), or put their folder on the PATH."
)
DEFAULTS["sslcertmode"] = "allow"  # The documented type; the C implementation has another name.


@dataclass(frozen=True, slots=True)
class Tools:
    """A folder with pg_dump and pg_restore of one version, and whether they support TLS."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    @property
    def speaks_tls(self) -> bool:
        return self.folder != embedded_folder()


def embedded_folder() -> Path | None:
    """Return the folder of the embedded server's programs, None if they are not installed."""
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
    """Yield the installed programs: on the PATH, in the folders of packages, and the embedded server's."""
    folders = [*map(Path, os.get_exec_path()), *package_folders()]
    if embedded := embedded_folder():
        folders.append(embedded)
    for folder in dict.fromkeys(folders):
        if has(folder, "pg_dump", "pg_restore"):
            # Debian's /usr/bin/pg_dump is a wrapper that runs the version of the default cluster.
            with suppress(OSError, subprocess.SubprocessError):
                result = subprocess.run(  # noqa: S603
                    [folder / "pg_dump", "--version"],
                    capture_output=True,
                    encoding="utf-8",
                    check=True,
                    timeout=30,
                    env=bare_environment(),
                )
                if version := re.search(r"(\d+)(\.\d+)?", result.stdout):
                    yield Tools(folder, version[0])


def bare_environment() -> dict[str, str]:
    """Return the environment variables that a program needs, without the URL and keys, which other users could read there."""
    needed = ("PATH", "HOME", "USER", "TMPDIR", "KRB5CCNAME")
    return {**{name: os.environ[name] for name in needed if name in os.environ}, "LC_ALL": "C.UTF-8"}


def choose(server: int, *, tls: bool, oldest: int = 0, newest: int = 999) -> Tools:
    """Return the tools of the closest version at or above the server's major version, with TLS if needed.

    Their major version is between `oldest` and `newest`. Raises Refusal if this machine has none.
    """
    usable = [tools for tools in _installed() if tools.speaks_tls or not tls]
    wanted = max(server, oldest)
    if suitable := [tools for tools in usable if wanted <= tools.major <= newest]:
        return min(suitable, key=lambda tools: tools.major)
    here = "this machine has none"
    if usable:
        here = f"this machine has {', '.join(str(major) for major in sorted({tools.major for tools in usable}))}"
    speaking = " that support TLS" if tls else ""
    versions = f"{wanted} or later" if newest == 999 else f"{wanted} to {newest}"
    raise Refusal(
        f"PostgreSQL {server} needs pg_dump and pg_restore of version {versions}{speaking}, and {here}: {CURE.format(wanted)}"
    )


def server_version(connection) -> tuple[int, str]:
    """Return the server's major version, and its version in full."""
    connection.ensure_connection()
    number = connection.connection.info.server_version
    return number // 10000, f"{number // 10000}.{number % 10000}"


AMOUNTS = "-c lc_monetary=C"  # The server that restores a dump may have another form of amounts of the type money.


@contextmanager
def reached(connection, portable_amounts: bool = False) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what libpq needs to reach the database of `connection`: a string without the password, and an environment.

    With `portable_amounts`, the session reads and writes those of the type money as in the locale C.

    The password is in a file that only this user can read, and that is removed at the end: an argument or a variable of the
    environment can be seen in the list of processes.
    """
    connection.ensure_connection()
    info = connection.connection.info
    # As libpq resolved them from the URL and the environment, without defaults, which pg_dump's older libpq may not know.
    parameters = {name: value for name, value in info.get_parameters().items() if value != DEFAULTS.get(name)}
    for name in ("client_encoding", "application_name"):  # pg_dump and pg_restore name their sessions themselves.
        parameters.pop(name, None)
    if portable_amounts:
        parameters["options"] = f"{parameters.get('options', '')} {AMOUNTS}".strip()
    password = info.password
    secrets = {name: parameters.pop(name) for name in SECRETS if name in parameters}
    # Not the one that is set for the database or the role, which may lack characters of the rows.
    clean = {**bare_environment(), "PGCLIENTENCODING": info.parameter_status("server_encoding") or "UTF8"}
    with work_folder("passwords for pg_dump and pg_restore") as folder:
        if password:
            secret = Path(folder, "pass")
            secret.touch(mode=0o600)
            secret.write_text("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", str(password)) + "\n", encoding="utf-8")
            clean["PGPASSFILE"] = str(secret)
        if secrets:
            service = Path(folder, "service")
            service.touch(mode=0o600)
            service.write_text(
                "[fly2any]\n" + "".join(f"{name}={value}\n" for name, value in secrets.items()), encoding="utf-8"
            )
            clean["PGSERVICEFILE"] = str(service)
            parameters["service"] = "fly2any"
        yield make_conninfo(**parameters), clean


def read(program: Path, dump: FileIO, *options: str) -> str | None:
    """Return what pg_restore prints, given a dump and no server, None if it cannot read the dump.

    Raises Refusal if it was terminated, which says nothing about the dump.
    """
    dump.seek(0)
    done = subprocess.run(  # noqa: S603
        [program, *options], stdin=dump, capture_output=True, encoding="utf-8", errors="replace", env=bare_environment()
    )
    if done.returncode == 0:
        return done.stdout
    if done.returncode < 0:
        raise Refusal(f"pg_restore was terminated by signal {-done.returncode} while it read the dump: run the command again.")
    return None


def require_portable(tool: Tools, path: Path, version: str) -> None:
    """Raise Refusal if pg_dump is older than the server of `version` in a way that makes the dump unusable elsewhere."""
    with FileIO(path) as dump:
        script = read(tool.folder / "pg_restore", dump, "--schema-only", "--file=-")
    if any(map(INTERNAL.fullmatch, statements_of(script or ""))):
        raise Refusal(
            f"pg_dump {tool.version} does not know an internal option of PostgreSQL {version} (pg_attver), and no other server"
            f" accepts its dump: {CURE.format(version.partition('.')[0])}"
        )


def without_values(message: str, more: Iterable[str]) -> str:
    """Return the message of a program about a server's error without values of rows; `more` are the lines after it."""
    if raised := next(filter(None, map(RAISED.match, more)), None):
        return f"{message.rpartition('ERROR:  ')[0]}the function {raised['name'] or raised['other']} raised an error"
    return VALUE.sub(r'\1"…"', message)


class Running:
    """A running pg_dump or pg_restore; leaving the context early ends the process."""

    def __init__(
        self,
        program: Path,
        arguments: list[str],
        environment: dict[str, str],
        on_line: Callable[[str], None],
        *,
        dump: FileIO | None = None,
        ignored_statement: str = "",
    ):
        """Start it; pg_restore reads `dump`. `ignored_statement` is a statement whose error is ignored if it is the first one; the program must then not stop at errors."""
        self.name, self.on_line, self.ignored_statement = program.name, on_line, ignored_statement
        self.errors: list[str] = []
        self.entry = self.failed = ""  # The last entry that pg_restore named, and the one of the first error.
        self.has_ignored = False
        if dump:
            dump.seek(0)  # The program shares the position.
        self.process = subprocess.Popen(  # noqa: S603
            [str(program), "--no-password", *arguments], env=environment, stdin=dump or subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            message = line.rstrip("\n").removeprefix(f"{self.name}: ").lstrip()
            is_own = line.startswith(self.name)
            if is_own and (entry := OF_ENTRY.match(message)):
                self.entry = entry["text"]
            if re.match(r"(error|fatal|detail|hint|warning):", message, re.IGNORECASE) or not is_own:
                self.failed = self.failed if self.failures() else self.entry
                self.errors = [*self.errors, message][-50:]
            elif self.ignored_statement and self.failures():
                self.process.terminate()
            if self.ignored_statement and message == self.ignored_statement and len(self.errors) == 2 and not self.has_ignored:
                self.has_ignored, self.errors = True, []
            self.on_line(message)

    def failures(self) -> list[str]:
        return [line for line in self.errors if re.match(r"(error|fatal):", line, re.IGNORECASE)]

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

    def failure(self) -> str:
        """Wait for the end, and return its message if it failed, without a full stop; otherwise ""."""
        code = self.wait()
        if code == 0 or (self.has_ignored and not self.failures() and "warning: errors ignored on restore: 1" in self.errors):
            return ""
        first = next(iter(self.failures() or self.errors), "")
        reason = first.partition(":")[2].strip() or "it gave no reason"
        if not self.failed.startswith("EXTENSION "):  # Extensions are created before there are rows.
            reason = without_values(reason, self.errors[self.errors.index(first) + 1 :] if first else ())
        return f"{self.name} exited with {code}: {without_password(reason).rstrip('.')}"

    def finish(self) -> None:
        """Wait for the end; raise Refusal with its message if it failed."""
        if failure := self.failure():
            if any(re.search(OF_STANDBYS.pattern, line) for line in self.errors):
                raise Refusal(OF_STANDBYS.sentence)
            raise Refusal(f"{failure}. Fix the cause, then run the command again.")


def restoring(
    tool: Tools, server: int, dump: FileIO, arguments: list[str], environment: dict[str, str], on_line: Callable[[str], None]
) -> Running:
    """Start a pg_restore of `dump` into a server of that major version, which stops at the first error."""
    program = tool.folder / "pg_restore"
    if tool.major >= 17 > server:
        return Running(program, arguments, environment, on_line, dump=dump, ignored_statement=UNKNOWN_BEFORE_17)
    return Running(program, ["--exit-on-error", *arguments], environment, on_line, dump=dump)
