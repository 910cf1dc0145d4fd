"""Upgrading the embedded server's data directory to the installed major version of PostgreSQL, by dump and restore.

If it is killed between its two renames, postgres/supervisor.py completes the second.
"""

from __future__ import annotations

import fcntl
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import Error, connections, transaction
from psycopg.conninfo import make_conninfo

from fly2any.postgres.embedded import SUPERUSER, alive, bin_folder, lock, socket_folder
from fly2any.postgres.supervisor import UPGRADED, Server, major_of, version_of

from .backup import tools
from .backup.owners import others
from .backup.restore_connections import prepare_session
from .backup.row_hashes import Content, clauses, differences, read_contents, read_hash_partitions
from .backup.take import findings_of, new_findings, read_roles
from .backup.toc_entries import describe_empty
from .backup.workfolder import work_folder
from .durable import sync
from .errors import Refusal, first_line, without_password
from .progress import Progress
from .sql import execute, fetch_all, fetch_one, pinned_session, quote
from .verification import verify

# pg_dumpall writes it before anything else of a role; every new server has this role.
EXISTING_ROLE = f"CREATE ROLE {SUPERUSER};\n".encode()
# Settings of a database apply as soon as psql connects to its copy, and a read-only one could not be filled.
READING = {"PGOPTIONS": tools.AMOUNTS}
WRITING = {"PGOPTIONS": f"{tools.AMOUNTS} -c array_nulls=on -c default_transaction_read_only=off -c idle_session_timeout=0"}
CURE = "Start the old server with its own pg_ctl, change or drop that object, and run the command again."
# pg_dumpall silently leaves out databases that accept no connections; template0 is the same on every server.
CLOSED_SQL = "SELECT datname FROM pg_catalog.pg_database WHERE NOT datallowconn AND datname <> 'template0' ORDER BY datname"
DATABASES_SQL = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname"
EXISTING = ("postgres", "template1")  # Every new server has these databases.
# Mostly in the order in which they read each other; one that fails is tried again.
VIEWS_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid
"""
INTERNAL_SQL = "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attoptions::text LIKE '%pg_attver=%')"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The result of an upgrade: what was moved between which versions, and where the old data directory is kept."""

    before: str
    after: str
    databases: int
    tables: int
    rows: int
    kept: Path


def upgrade(
    place: dict[str, Any], progress: Progress, *, programs: Path | None = None, trust: Sequence[str] = ()
) -> Upgrade | None:
    """Move all databases and roles of the embedded server of `place`, an entry of DATABASES, to the installed PostgreSQL.

    Return None if its data directory has that major version already, and was not created by another build of it. `programs` is the folder of the old version's server
    programs, otherwise the packages of this machine are searched. Nothing is replaced until the new server holds the same rows, except those of extensions.
    `trust` are roles whose code may run as the superuser.

    Raises Refusal with the data directory as it was, and EmbeddedServerError where a server does not start.
    """
    home = Path(place["EMBEDDED"]["HOME"])
    data = home / "data"
    if data.is_symlink():
        raise Refusal(
            f"{data} is a symbolic link, which an upgrade would replace: replace it by its folder (`rm {shlex.quote(str(data))} &&"
            f" mv {shlex.quote(str(data.resolve()))} {shlex.quote(str(data))}`), or move all of {home} to the other disk and link that."
        )
    if not data.exists():
        raise Refusal(f"{home} has no data directory: `manage.py migrate` creates one.")
    found, installed = major_of(data), int(version_of(bin_folder()).partition(".")[0])
    if found > installed:
        raise Refusal(
            f"{data} is of PostgreSQL {found}, which is newer than the installed {installed}: run `pip install -r requirements.txt`"
            f" of the code that created it, or set POSTGRES_URL to a server of PostgreSQL {found}."
        )
    if found == installed and not _is_of_another_build(place, home, programs):
        return None
    folder, kept = _programs(found, programs), home / f"data-{found}"
    if kept.exists():
        raise Refusal(f"{kept} exists, and the data directory of PostgreSQL {found} would be kept there: move or delete it.")
    with _alone(home):
        unfinished = home / "upgrade"
        for left in (unfinished / "data", home / UPGRADED, unfinished):  # The remains of a failed attempt.
            _remove(left)
        unfinished.mkdir(mode=0o755)
        try:
            moved = _move(place, home, folder, unfinished, progress, trust)
            (unfinished / "data").rename(home / UPGRADED)
            # If this is killed between the two, the next start of the server does the second.
            (home / "data").rename(kept)
            (home / UPGRADED).rename(home / "data")
            sync(home)
        except BaseException:
            _remove(unfinished / "data")  # The log beside it stays: the error may name it.
            raise
        shutil.rmtree(unfinished, ignore_errors=True)
    tables = [content for contents in moved.values() for content in contents.values()]
    versions = (version_of(folder), version_of(bin_folder()))
    return Upgrade(*versions, len(moved), len(tables), sum(content.rows for content in tables), kept)


def _remove(data: Path) -> None:
    """Remove the data directory of a new server, and its folders in tablespaces, which have the version in their names."""
    with suppress(OSError):
        major = (data / "PG_VERSION").read_text(encoding="ascii").strip()
        catalog = int.from_bytes((data / "global" / "pg_control").read_bytes()[12:16], sys.byteorder)
        for place in (data / "pg_tblspc").iterdir():
            shutil.rmtree(place / f"PG_{major}_{catalog}", ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)


def _is_of_another_build(place: dict[str, Any], home: Path, programs: Path | None) -> bool:
    """Return whether the installed server cannot read the data directory although it has its major version.

    Raises Refusal unless `programs` are given: those of this machine may be of any build.
    """
    if alive(home):  # A running server can read it.
        return False
    server = Server(home, place["EMBEDDED"]["SETTINGS"])
    if (why := server.incompatibility()) and not programs:
        raise Refusal(
            f"{home / 'data'} was created by another build of PostgreSQL {major_of(home / 'data')}, for example a beta version"
            f" ({why}): give the folder of its server programs as --programs."
        )
    return bool(why)


def _programs(major: int, given: Path | None) -> Path:
    """Return the folder of the server programs of exactly that major version; raise Refusal if there is none."""
    for folder in [given] if given else tools.package_folders():
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            if tools.has(folder, "postgres") and version_of(folder).partition(".")[0] == str(major):
                return folder
    where = f"{given} has no" if given else "This machine has no"
    raise Refusal(
        f"{where} server programs of PostgreSQL {major}, which read its data directory: run `apt-get install postgresql-{major}`"
        f" (Debian, Ubuntu) or `brew install postgresql@{major}` (macOS), or give the folder of the old ones as --programs."
    )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep every other process from using the server in `home`; raise Refusal if one uses it."""
    with ExitStack() as stack:
        for name in ("start.lock", "clients.lock", "supervisor.lock"):
            if not stack.enter_context(lock(home / name, fcntl.LOCK_EX, wait=False)):
                raise Refusal(
                    f"The server in {home} is in use: stop its clients, such as runserver, and run the command again."
                )
        yield


def _move(
    place: dict[str, Any], home: Path, folder: Path, unfinished: Path, progress: Progress, trust: Sequence[str]
) -> dict[str, dict[str, Content]]:
    """Copy everything from the server in `home` to a new one in `unfinished`, and return the contents of each database.

    Raises Refusal if the new server does not hold the same.
    """
    old, new = Server(home, place["EMBEDDED"]["SETTINGS"], folder=folder), Server(unfinished, place["EMBEDDED"]["SETTINGS"])
    try:
        old.start()
        _require_open(place, home)
        _require_trust(place, home, trust)
        new.create()
        new.start()
        progress.show("copying all databases", None)
        _copy(place, old, new, _dumping(place, home, old, new), progress)
        contents = {}
        for name in _databases(place, home):
            ours = name == place["NAME"]
            with _reached(place, home, name) as connection:
                before, known = _read(connection, progress), findings_of(verify(connection)) if ours else ()
            with _reached(place, unfinished, name) as connection:
                with pinned_session(connection):
                    execute(connection, "ANALYZE")
                different = differences(before, _read(connection, progress), read_hash_partitions(connection))
                if ours:
                    different += new_findings(verify(connection), known)
            if different:
                raise Refusal(
                    f"The database {name} differs in the new server: {clauses(different)}. Nothing was replaced. {CURE}"
                )
            contents[name] = before
        return contents
    finally:
        progress.clear()
        new.stop()
        old.stop()


def _dumping(place: dict[str, Any], home: Path, old: Server, new: Server) -> Path:
    """Return the folder of the pg_dumpall and pg_dump to use: the new version's, or the old one's, if only that leaves out what it wrote."""
    for name in _databases(place, home):
        with _reached(place, home, name) as connection:
            if fetch_one(connection, INTERNAL_SQL)[0]:
                if not tools.has(old.bin, "pg_dumpall", "pg_dump"):
                    raise Refusal(
                        f"The database {name} has an internal option of its PostgreSQL {version_of(old.bin)} (pg_attver), which only its own"
                        f" pg_dumpall leaves out, and {old.bin} has none: {tools.CURE.format(major_of(home / 'data'))}"
                    )
                return old.bin
    return new.bin


def _copy(place: dict[str, Any], old: Server, new: Server, dumping: Path, progress: Progress) -> None:
    """Copy roles, databases and rows by the pg_dumpall and pg_dump in `dumping`; raise Refusal with the first error.

    Materialized views are refreshed afterwards: a dump turns row_security off, so that one over rows with policies would fail.
    """
    _pipe(old, new, [dumping / "pg_dumpall", "--globals-only"], "postgres", without=EXISTING_ROLE)
    for name in _databases(place, old.home):
        with _reached(place, old.home, name) as connection:
            views = [view for (view,) in fetch_all(connection, VIEWS_SQL)]
        excluded = [f"--exclude-table-data={view}" for view in views]
        creates = [] if name in EXISTING else ["--create"]
        dump = [dumping / "pg_dump", *creates, *excluded, f"--dbname={make_conninfo(dbname=name)}"]
        _pipe(old, new, dump, name if name in EXISTING else "postgres")
        with _reached(place, new.home, name) as connection:
            execute(connection, "SET default_transaction_read_only TO off")
            for view, reason in _refresh(connection, views).items():
                progress.say(describe_empty(f"{view} of {name}", reason))


def _refresh(connection, views: list[str]) -> dict[str, str]:
    """Refresh materialized views; return those that cannot be, with the reason."""
    failed: dict[str, str] = {}
    for view in views:
        try:
            execute(connection, f"REFRESH MATERIALIZED VIEW {view}")
        except Error as error:
            failed[view] = first_line(str(error))
    return _refresh(connection, list(failed)) if 0 < len(failed) < len(views) else failed


def _pipe(old: Server, new: Server, command: list[Any], database: str, *, without: bytes = b"") -> None:
    """Run what `command` dumps of the old server, except the line `without`, in a database of the new one, by psql."""
    as_superuser = ["--no-password", f"--username={SUPERUSER}"]
    with (
        work_folder(f"the errors of {command[0].name} and psql") as work,
        (work / "dump").open("wb") as error_log,
        (work / "load").open("wb") as heard,
    ):
        dump = subprocess.Popen(  # noqa: S603
            [*command, *as_superuser, f"--host={socket_folder(old.home)}"],
            stdout=subprocess.PIPE, stderr=error_log, env={**tools.bare_environment(), **READING},
        )  # fmt: skip
        load = subprocess.Popen(  # noqa: S603
            [new.bin / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", *as_superuser, f"--host={socket_folder(new.home)}",
             f"--dbname={make_conninfo(dbname=database)}"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=heard, env={**tools.bare_environment(), **WRITING},
        )  # fmt: skip
        try:
            if dump.stdout is None or load.stdin is None:
                raise AssertionError  # Both are pipes.
            with suppress(BrokenPipeError), dump.stdout, load.stdin:
                for line in dump.stdout if without else ():
                    if line == without:
                        break
                    load.stdin.write(line)
                shutil.copyfileobj(dump.stdout, load.stdin)
            codes = load.wait(), dump.wait()
        finally:
            for process in (dump, load):
                process.kill()
                process.wait()
        for name, code, errors in (("psql", codes[0], work / "load"), (command[0].name, codes[1], work / "dump")):
            if code:
                text = errors.read_text(errors="replace")
                found = re.search(r"\b(?:error|fatal):\s+(.*)", text, re.IGNORECASE)
                said = tools.without_values(found[1], text[found.end() :].splitlines()) if found else "it gave no reason"
                reason = without_password(said).rstrip(".")
                raise Refusal(f"{name} exited with {code}: {reason}. Nothing was replaced. {CURE}")


def _require_open(place: dict[str, Any], home: Path) -> None:
    """Raise Refusal if a database takes no connections: it would not be copied."""
    with _reached(place, home, "postgres") as connection:
        if closed := [name for (name,) in fetch_all(connection, CLOSED_SQL)]:
            raise Refusal(
                f"The database {closed[0]} takes no connections, so it cannot be copied, and nothing was replaced: start the"
                f" server with the old version's pg_ctl, and run ALTER DATABASE {quote(closed[0])} ALLOW_CONNECTIONS true, or drop it."
            )


def _require_trust(place: dict[str, Any], home: Path, trust: Sequence[str]) -> None:
    """Raise Refusal if code of other roles would run as the new server's superuser: a check, for example, when rows are copied.

    Trusted are superusers, the owners of our database and of `users`, and `trust`.
    """
    found, trusted = [], set(trust)
    for name in _databases(place, home):
        with _reached(place, home, name) as connection:
            roles = read_roles(connection, tools.server_version(connection)[0])
            found += [(role, name) for role in others(connection, roles["owners"])]
            trusted.update(roles["trusted"] if name == place["NAME"] else ())
    if strange := [(role, name) for role, name in found if role not in trusted]:
        role, name = strange[0]
        options = " ".join(f"--trust {shlex.quote(role)}" for role in sorted({role for role, _ in strange}))
        raise Refusal(
            f"Code of {role} in the database {name} would run as the superuser of the new server, and nothing was replaced: start"
            f" the old server with its pg_ctl and drop what belongs to it (DROP OWNED BY), or, if you trust it, add {options}."
        )


def _databases(place: dict[str, Any], home: Path) -> list[str]:
    with _reached(place, home, "postgres") as connection:
        return [name for (name,) in fetch_all(connection, DATABASES_SQL)]


def _read(connection, progress: Progress) -> dict[str, Content]:
    with transaction.atomic(using=connection.alias):
        # The rows of extensions' tables may differ in the new version of the extension.
        return read_contents(connection, progress.show, registered={})


@contextmanager
def _reached(place: dict[str, Any], home: Path, database: str) -> Iterator:
    """Yield a connection to a database of the server that runs in `home`, without a time limit."""
    alias = "upgrade"
    connections.databases[alias] = {**place, "NAME": database, "HOST": str(socket_folder(home)), "EMBEDDED": None}
    try:
        prepare_session(connections[alias])
        yield connections[alias]
    finally:
        connections[alias].close()
        del connections[alias], connections.databases[alias]
