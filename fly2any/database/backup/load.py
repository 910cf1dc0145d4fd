"""Loading a dump into an empty database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from django.db import DataError, InternalError, ProgrammingError

from ..errors import Refusal, Unfit, first_line
from ..progress import Progress
from ..sql import execute, fetch_all, fetch_one, pinned_session
from ..terminal_text import one_line
from . import tools
from .database_properties import unrestored
from .extension_entries import find_extensions, uncertain
from .grant_chains import Chain, find_chains, grant, require_grantors
from .manifest import Manifest
from .owners import SUPERUSER_SQL, describe_untried, require_superusers
from .owners_rights import may_create
from .restore_connections import UNLIMITED_SQL
from .script import statements_of
from .tablespaces import find_unusable
from .toc_entries import (
    VIEW_DATA,
    Entry,
    LeftOut,
    default_privileges,
    describe_empty,
    entries_in,
    find_left_out,
    in_order,
    listed,
    of_schemas,
    view_of,
    without_owner,
)
from .workfolder import work_folder

# The roles whose default privileges this role may not set: from 16 on, membership alone does not suffice.
OTHERS_SQL = "SELECT rolname FROM pg_catalog.pg_roles WHERE NOT pg_catalog.pg_has_role(oid, %s)"
TABLES_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1
"""


def shown(progress: Progress, manifest: Manifest) -> Callable[[str], None]:
    """Return a function that takes the lines of pg_restore's output and shows the table being restored."""
    total, done = len(manifest.tables) or 1, 0

    def on_line(line: str) -> None:
        nonlocal done
        if line.startswith("processing data for table"):
            table = line.rpartition(".")[2].rstrip('"')
            progress.show(f"restoring {table}", 100 * done / total)
            done += 1

    return on_line


def load(
    connection,
    dump: FileIO,
    manifest: Manifest,
    progress: Progress,
    *,
    without: Sequence[str] = (),
    extensions: Sequence[str] = (),
    elsewhere: bool = False,
) -> LeftOut:
    """Restore the dump into the empty database of `connection`; return what is left out with the roles `without` and `extensions`.

    With `elsewhere`, no database with the original's own privileges and settings is replaced, so what is missing of them is reported.
    Raises Refusal if pg_restore fails.
    """
    connection.ensure_connection()
    major, _ = tools.server_version(connection)
    tool = tools.choose(major, tls=connection.connection.pgconn.ssl_in_use, oldest=int(manifest.tool.partition(".")[0]))
    others = [role for (role,) in fetch_all(connection, OTHERS_SQL, ["USAGE" if major >= 16 else "MEMBER"])]
    (is_superuser,) = fetch_one(connection, SUPERUSER_SQL)
    untried = describe_untried(connection, manifest)
    with tools.reached(connection, manifest.portable_amounts) as (place, environment), work_folder("a dump's entries") as work:
        connection.close()
        arguments = ["--verbose", "--no-subscriptions", f"--dbname={place}"]
        steps = _Steps(connection, dump, manifest, progress, tool, major, environment, arguments, work)
        entries = steps.read_entries()
        of_roles = find_left_out(entries, manifest, without)
        of_extensions = find_extensions(entries, manifest, extensions, of_roles)
        _report_left_out(extensions, of_extensions, progress)
        left_out = of_roles | of_extensions
        defaults = default_privileges([one for one in entries if one.number not in of_extensions.entries], others)
        _report_defaults({*defaults.values()} - {*without}, progress)
        kept = [one for one in entries if one.number not in left_out.entries]
        chains = [] if is_superuser else find_chains(tool.folder / "pg_restore", dump, kept, work)
        require_grantors(connection, chains)
        steps.check_statements(kept)
        connection.close()
        views = [one for one in kept if one.text.startswith(VIEW_DATA)]
        of_members = uncertain(kept, manifest) if extensions else []
        apart = {*defaults, *(chain.number for chain in chains), *(one.number for one in (*views, *of_members))}
        steps.restore([one for one in kept if one.number not in apart], of_schemas(entries), chains, untried)
        for view in views:
            steps.refresh(view)
        for one in of_members:
            steps.try_restoring(one)
        statements = unrestored(tool.folder / "pg_restore", dump, work) if elsewhere else []
    _report_unrestored(statements, progress)
    _analyze(connection, progress)
    _report_left_out_of_roles(without, of_roles, progress)
    return left_out


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of loading a dump with pg_restore, and what they share."""

    connection: Any
    dump: FileIO
    manifest: Manifest
    progress: Progress
    tool: tools.Tools
    major: int  # The server's version.
    environment: dict[str, str]
    arguments: list[str]  # Of each pg_restore that writes to the database.
    work: Path

    def read_entries(self) -> tuple[Entry, ...]:
        if (listing := self._print("--list", "--verbose")) is None:
            raise Unfit("pg_restore cannot read the dump, which is damaged: use another backup.")
        return tuple(entries_in(listing))

    def check_statements(self, entries: Sequence[Entry]) -> None:
        """Leave out all tablespaces, and report it, if the statements of some entries name one that cannot be used.

        Raises Refusal if a statement gives an object that only a superuser may own to another role.
        """
        contents = listed([one.number for one in entries], self.work / "kept")
        statements = list(statements_of(self._print("--schema-only", f"--use-list={contents}", "--file=-") or ""))
        require_superusers(self.connection, statements)
        if unusable := find_unusable(self.connection, statements):
            self.arguments.append("--no-tablespaces")
            self.progress.say(
                "The backup names tablespaces that do not exist here, or in which this role may create nothing"
                f" ({', '.join(map(one_line, unusable))}): everything is restored into the default tablespace."
                " ALTER TABLE … SET TABLESPACE moves a table afterwards."
            )

    def restore(self, entries: Sequence[Entry], schemas: Collection[int], chains: Sequence[Chain], untried: str) -> None:
        """Restore the entries, `schemas` first, and grant the privileges of `chains`; `untried` is added to the message of a failure."""
        for is_first, contents in in_order(entries, schemas, self.work):
            # The schemas come with their privileges, which the owner of an object may lack by now.
            with may_create(self.connection, () if is_first else self.manifest.owners):
                with self._writing(f"--use-list={contents}") as restoring:
                    try:
                        restoring.finish()
                    except Refusal as refusal:
                        raise Refusal(f"{refusal} {untried}".rstrip()) from refusal
                grant(self.connection, [chain for chain in chains if (chain.number in schemas) is is_first])
            self.connection.close()

    def refresh(self, view: Entry) -> None:
        """Compute the rows of a materialized view again; report it if that fails."""
        contents = listed([view.number], self.work / "view")
        # Policies decide which rows the owner of the view sees, as in the original.
        with self._writing("--enable-row-security", f"--use-list={contents}") as refreshing:
            if failure := refreshing.failure():
                self.progress.say(describe_empty(view_of(view, self.manifest.owners), failure))

    def try_restoring(self, entry: Entry) -> None:
        """Restore an entry that may be of an extension that is left out; report it if that fails."""
        with self._writing(f"--use-list={listed([entry.number], self.work / 'one')}") as restoring:
            if failure := restoring.failure():
                self.progress.say(f"Not restored: {one_line(without_owner(entry.text, self.manifest.owners))} ({failure}).")

    def _print(self, *options: str) -> str | None:
        return tools.read(self.tool.folder / "pg_restore", self.dump, *options)

    def _writing(self, *options: str) -> tools.Running:
        on_line = shown(self.progress, self.manifest)
        return tools.restoring(self.tool, self.major, self.dump, [*self.arguments, *options], self.environment, on_line)


def _report_unrestored(statements: Sequence[str], progress: Progress) -> None:
    """Report the statements about the database itself that are not restored."""
    if statements:
        progress.say(
            "The privileges and settings of the original database itself were not restored. Run what is missing, with the values that"
            f" `pg_restore --create --file=-` shows: {' '.join(map(one_line, statements))}"
        )


def _report_left_out_of_roles(roles: Sequence[str], left_out: LeftOut, progress: Progress) -> None:
    if roles:
        progress.say(f"Left out, because it belongs to {', '.join(roles)} or depends on such an object: {left_out}.")


def _report_left_out(extensions: Sequence[str], left_out: LeftOut, progress: Progress) -> None:
    """Report what is left out with extensions, so that each row that is lost is named."""
    if extensions:
        progress.say(f"Left out with --without-extension: {one_line(', '.join(left_out.entries.values()))}.")


def _report_defaults(roles: Iterable[str], progress: Progress) -> None:
    """Report the roles whose default privileges are not restored."""
    for role in sorted(roles):
        progress.say(
            f"Default privileges for objects that {role} will create were not restored, because only {role} or a superuser may set them: run"
            f" `manage.py dbroles` again, and its SQL as {role}."
        )


def _analyze(connection, progress: Progress) -> None:
    """Collect the statistics of all tables; those of a table whose expressions raise an error, which no dump contains, are reported."""
    execute(connection, UNLIMITED_SQL)
    with pinned_session(connection):
        _analyze_each(connection, progress)


def _analyze_each(connection, progress: Progress) -> None:
    try:
        execute(connection, "ANALYZE")
        return
    except (DataError, InternalError, ProgrammingError):  # It stops at the first table.
        tables = [place for (place,) in fetch_all(connection, TABLES_SQL)]
    for place in tables:
        try:
            execute(connection, f"ANALYZE {place}")
        except (DataError, InternalError, ProgrammingError) as error:
            progress.say(
                f"ANALYZE {place} failed ({first_line(str(error))}), so the table has no statistics, as in the old database: correct the index or the"
                " statistics object (\\dX in psql) whose expression raises the error."
            )
