"""Archives of removed rows: PostgreSQL's COPY text, which is lossless, zipped, and encrypted if backups are."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings
from django.db import DataError, IntegrityError, transaction

from ..backup.encryption import ENDING, encrypt, require_space_for
from ..backup.manifest import file_name, sha256_of
from ..backup.row_hashes import BY_COPY, PATIENT, PINNED, Content, content_of, pin, rows_of
from ..backup.signing import SIGNED, signature, signed_as
from ..backup.store import Missing, Store, all_or_none
from ..backup.stored_file import fetched, opened
from ..backup.workfolder import work_folder
from ..database_identity import Origin, read_origin
from ..errors import Refusal, Unfit
from ..progress import Progress
from ..schema.untrusted_code import refuse_untrusted_code
from ..server import read_schema
from ..sql import ask, quote, time_limits
from .description import Archive, Part, as_json, from_json
from .loading import PERSON_COLUMNS, Loaded, bound, columns_of, is_deleted, listed, load_part
from .row_versions import SEQUENTIAL_SQL, read_versions
from .rules import RULES, Rule

CHUNK = 1 << 20  # Bytes.
FAST = 1  # The level of zlib; the usual one takes more than twice as long, and saves an eighth.
BEGUN = "retention.begun"  # The purpose of the signature of such a file.
IDS = ".ids"  # Ending of the file that exists while an archive's rows are being removed: the ids of the batches begun so far.
# The settings of a session that inserts archived rows: those that the texts were written with, and the usual search path.
LOADING = {name: value for name, value in PINNED.items() if name != "search_path"} | PATIENT

ROWS_SQL = "SELECT {columns} FROM {rows} WHERE {part} AND {condition}"
# The ids of people who no longer exist: rows without a foreign key outlive them.
DELETED_PEOPLE_SQL = """
    SELECT DISTINCT {person} FROM ({rows}) AS t WHERE {person} IS NOT NULL AND {deleted}
"""
ORIGIN_SQL = """
    SELECT c.system_identifier::text || '/' || d.oid::text
    FROM pg_catalog.pg_control_system() AS c, pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
"""
EXISTING_SQL = "SELECT id FROM {table} WHERE id = ANY (%s)"


class Begun(msgspec.Struct):
    """The rows of an archive that a run may have removed, and the signature of the file."""

    ids: list[str]
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Archives:
    """The archives of the database `database` at one location."""

    store: Store
    database: str

    def keep(self, connection, rule: Rule, part: dict[str, Any], progress: Progress) -> tuple[Archive | None, dict[str, str]]:
        """Archive the rows of `rule` in a range of blocks or with given keys, and return the archive and the version of each row, None without rows.

        `part` has the parameters of the condition that chooses these rows. When it returns, the archive is stored and has been read back
        from the store; no row was removed or locked. The archive restores no row until `finish`. Raises Unfit if it cannot be read back.
        """
        self.store.make()
        workplace = work_folder("an archive to encrypt") if settings.BACKUPS["recipient"] else self.store.workplace()
        with workplace as folder:
            path = Path(folder, "rows.zip")
            if not (rows := _copy_rows(connection, rule, part, path)):
                return None, {}
            name = f"{file_name(self.database)}-{rule.table}-{rows.taken:%Y%m%dT%H%M%S.%fZ}"
            file = f"{name}.zip"
            if settings.BACKUPS["recipient"]:
                sealed = Path(folder, "sealed")
                encrypt(path, sealed, settings.BACKUPS["recipient"])
                path, file = sealed, file + ENDING
            ages = [age for _, _, age in rows.versions]
            archive = Archive(
                name, file, rows.taken, self.database, origin_of(connection), path.stat().st_size, sha256_of(path), min(ages), max(ages),
                rows.parts, rows.ghosts, tuple(identity for identity, *_ in rows.versions), BY_COPY, read_origin(connection).run,
                schema=read_schema(connection),
            )  # fmt: skip
            with all_or_none(self.store, *_files_of(archive)):
                progress.show(f"storing {file}", None)
                self.store.put(file, path, lambda size: None)
                self.begin(archive, [])
                self.store.write(f"{name}.json", as_json(archive).encode())
                with fetched(self.store, archive, progress):  # Read back, because the stored file will soon be the only copy.
                    return archive, {identity: version for identity, version, _ in rows.versions}

    def begin(self, archive: Archive, ids: Iterable[str]) -> None:
        """Record the rows that may be removed from now on: of the others, `settle` knows that retention did not remove them."""
        begun = {"name": archive.name, "ids": list(ids)}
        self.store.write(f"{archive.name}{IDS}", msgspec.json.encode({**begun, "signature": signature(begun, purpose=BEGUN)}))

    def finish(self, archive: Archive, left: list[str]) -> bool:
        """Record which rows were not removed, and return whether the archive is kept: it is not if no row was removed."""
        if len(left) == archive.parts[0].content.rows:
            self.discard(archive)
            return False
        self._record_remaining(archive, left)
        return True

    def discard(self, archive: Archive) -> None:
        """Delete the files of an archive of which no row was removed."""
        for name in _files_of(archive):
            self.store.delete(name)

    def settle(self, connection, rule: Rule) -> None:
        """Finish the archives of a killed run on this database: rows that still exist, or whose batch had not begun, were not removed.

        No archive is deleted: in a copy of the database, rows may exist that were removed from the original.
        """
        self.store.make()
        prefix = f"{file_name(self.database)}-{rule.table}-"
        names = self.store.names()
        for name in [name.removesuffix(IDS) for name in names if name.endswith(IDS) and name.startswith(prefix)]:
            if f"{name}.json" not in names:  # The run was killed before it removed anything.
                continue
            archive = self.read(name)
            if (
                archive.signed != SIGNED
                or archive.database != self.database
                or archive.schema not in ("", read_schema(connection))
            ):
                continue
            if archive.origin not in made_by(connection) or not _may_have_made(read_origin(connection), archive):
                continue
            # Without the setting and the lock, rows that a policy hides, or of a table that is rewritten meanwhile, would seem removed.
            begun = self._begun(name)
            with _snapshot(connection, quote(rule.table)) as cursor:
                cursor.execute(EXISTING_SQL.format(table=quote(rule.table)), [begun])
                existing = [identity for (identity,) in cursor.fetchall()]
            self._record_remaining(archive, sorted({*archive.left} - {*begun} | {*existing}))

    def _begun(self, name: str) -> list[str]:
        try:
            found = msgspec.json.decode(self.store.read(f"{name}{IDS}"), type=Begun)
            if signed_as({"name": name, "ids": found.ids}, found.signature, purpose=BEGUN) != SIGNED:
                raise ValueError("not signed")
            return found.ids
        except ValueError:
            raise Refusal(
                f"{name}{IDS} is damaged, or not signed: write the IDs of its rows that are still in the table into `left` in the .json, remove the {IDS} file,"
                " and load the archive with --unsigned."
            ) from None

    def _record_remaining(self, archive: Archive, left: list[str]) -> None:
        self.store.write(f"{archive.name}.json", as_json(replace(archive, left=tuple(left))).encode())
        self.store.delete(f"{archive.name}{IDS}")

    def unfinished(self) -> set[str]:
        """Return the names of the archives whose run did not record which rows it removed: it was killed, or is at work."""
        return {name.removesuffix(IDS) for name in self.store.names() if name.endswith(IDS)}

    def all(self) -> tuple[list[Archive], list[str]]:
        """Return the archives, oldest first, and the names of files that belong to none or are damaged.

        Raises Refusal if a description cannot be read now.
        """
        names = self.store.names()
        found, odd = [], []
        for name in names:
            if name.endswith(".json"):
                try:
                    text = self.store.read(name)
                except Missing:
                    continue
                try:
                    found.append(from_json(text, where=name))
                except Refusal:
                    odd.append(name)
        known = {word for one in found for word in (one.file, f"{one.name}.json", f"{one.name}{IDS}")}
        odd += [name for name in names if name not in known and name not in odd]
        return sorted(found, key=lambda one: one.taken), odd

    def read(self, name: str) -> Archive:
        """Return the archive `name`; raise Refusal if there is none."""
        name = name.removesuffix(".json").removesuffix(ENDING).removesuffix(".zip")
        if "/" in name or f"{name}.json" not in self.store.names():
            raise Refusal(f"{self.store.place} has no archive {name}: `manage.py dbmaintain archives` lists them.")
        return from_json(self.store.read(f"{name}.json"), where=f"{name}.json")

    def load(
        self, connection, name: str, progress: Progress, *, unsigned: bool = False, others: bool = False
    ) -> tuple[Archive, list[Loaded]]:
        """Insert the rows of an archive again, all or none, and return the archive and the result for each table.

        Raises Refusal if it is damaged, of another database, of another server and not allowed by `others`, not signed and not allowed
        by `unsigned`, or no longer matches the table.
        """
        archive = self._loadable(connection, name, unsigned=unsigned, others=others)
        loaded = self._insert(connection, archive, progress)
        progress.clear()
        return archive, loaded

    def _loadable(self, connection, name: str, *, unsigned: bool, others: bool) -> Archive:
        """Return the archive `name`, finished if its run was killed; raise Refusal if its rows do not belong here, or are here."""
        archive = self.read(name)
        schema = read_schema(connection)
        for what, theirs, ours in (
            ("database", archive.database, self.database),
            ("schema", archive.schema or schema, schema),
        ):
            if theirs != ours:
                raise Refusal(
                    f"{archive.name} is from the {what} {theirs}, but this is {ours}: connect to that one;"
                    " or, if this one replaced it, correct the name in the archive's .json and add --unsigned."
                )
        _require_signed(archive, unsigned=unsigned)
        if archive.name in self.unfinished():
            self.settle(connection, RULES[archive.table])
            if archive.name in self.unfinished():
                raise Refusal(
                    f"The run that wrote {archive.name} was interrupted on another database, the only one that shows which rows it removed: run"
                    " `manage.py dbmaintain weekly` there. If it no longer exists, delete `left` from the archive's .json, remove its .ids file, and"
                    " add --unsigned."
                )
            archive = self.read(name)
            _require_signed(archive, unsigned=unsigned)
        if len(archive.left) == archive.parts[0].content.rows:
            raise Refusal(
                f"No row of {archive.name} was removed: a later run found all of them in the table, and recorded that. If it ran on a copy of"
                " the server, delete `left` from the archive's .json, and add --unsigned."
            )
        if not others and (server := _other_server(read_origin(connection), archive)):
            raise Refusal(f"{archive.name} is from {server}: connect to that one; or, if this one replaced it, add --yes.")
        return archive

    def _insert(self, connection, archive: Archive, progress: Progress) -> list[Loaded]:
        """Insert the rows, all or none; raise Unfit if the file is damaged, and Refusal if they no longer match the table."""
        loaded = []
        try:
            with (
                opened(self.store, archive, progress) as file,
                zipfile.ZipFile(file) as archive_zip,
                transaction.atomic(using=connection.alias),
                connection.cursor() as cursor,
            ):
                pin(cursor, {**LOADING, "lock_timeout": f"{settings.LOCK_TIMEOUT}ms"})
                refuse_untrusted_code(connection, [part.table for part in archive.parts])
                for place, part in enumerate(archive.parts):
                    progress.show(f"loading {part.table}", 100 * place / len(archive.parts))
                    with archive_zip.open(f"{part.table}.copy") as entry:
                        loaded.append(load_part(connection, cursor, archive, part, entry))
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
            raise Unfit(f"{archive.file} is damaged ({error}): use another archive.") from error
        except (DataError, IntegrityError) as error:
            reason = str(error).splitlines()[0]
            raise Refusal(
                f"{archive.name} no longer matches its table ({reason}): load it with the code of {archive.taken:%Y-%m-%d}."
            ) from error
        return loaded


def _files_of(archive: Archive) -> tuple[str, str, str]:
    """Return the names of its files, in the order in which they are deleted."""
    return f"{archive.name}.json", archive.file, f"{archive.name}{IDS}"


def _require_signed(archive: Archive, *, unsigned: bool) -> None:
    if archive.signed != SIGNED and not unsigned:
        raise Refusal(
            f"{archive.name}.json is not signed with a key of this installation ({archive.signed}): if you know where it comes from, add --unsigned."
        )


def origin_of(connection) -> str:
    """Return the identity that distinguishes this database from copies on this or another server, physical ones included.

    Raises django.db.Error if the provider hides it, because another server's archive could not be distinguished from ours.
    """
    identity, place = ask(connection, ORIGIN_SQL), read_origin(connection).place
    return f"{identity}@{place}" if place else identity


def made_by(connection) -> tuple[str, str]:
    """Return the origins of this database's archives; those until 2026-11 do not tell physical copies apart."""
    origin = origin_of(connection)
    return origin, origin.partition("@")[0]


def _may_have_made(origin: Origin, archive: Archive) -> bool:
    """Return whether the server ran when the archive was taken, and has begun its transactions: a copy from before then has begun fewer."""
    begun = origin.run is None or archive.run is None or archive.run.transaction <= origin.run.transaction
    return begun and origin.ran_at(archive.taken, archive.run)


def _other_server(origin: Origin, archive: Archive) -> str:
    """Return a name of the server that wrote the archive, "" if it is, as far as known, this one or a copy of it."""
    identity, _, place = archive.origin.partition("@")
    cluster = identity.partition("/")[0]
    of, this = (cluster, origin.cluster) if origin.cluster else (place, origin.place)
    if not of or not this or of == this:
        return ""
    return f"the server at {place}" if place not in ("", origin.place) else "another server"


@contextmanager
def _snapshot(connection, *locked: str) -> Iterator[Any]:
    """Yield a cursor in one read-only snapshot, taken after the tables `locked` were locked."""
    limits = time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=0, snapshot=True, tables=locked)
    with limits, connection.cursor() as cursor:
        pin(cursor, {**LOADING, "lock_timeout": f"{settings.LOCK_TIMEOUT}ms"})
        yield cursor


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows in the file of an archive: for each, its id, version and age; their tables; the ids of people who no longer exist."""

    taken: datetime
    versions: list[tuple[str, str, str]]
    parts: tuple[Part, ...]
    ghosts: tuple[str, ...]


def _copy_rows(connection, rule: Rule, part: dict[str, Any], path: Path) -> _Rows | None:
    """Write the old rows of a part of the table, and those that are deleted with them, to a zip at `path`; return None without any."""
    with _snapshot(connection) as cursor:
        if rule.is_of_citus:
            cursor.execute(SEQUENTIAL_SQL)
        columns = {table: columns_of(cursor, table) for table in rule.tables}
        versions = read_versions(cursor, rule, part)
        if not versions:
            return None
        places = {"rows": rule.rows, "part": rule.part, "condition": rule.condition}
        rows = ROWS_SQL.format(columns=bound(listed(columns[rule.table])), **places)
        queries: dict[str, tuple[str, dict[str, Any]]] = {rule.table: (rows, part)}
        if rule.child:
            names = bound(listed(columns[rule.child]))
            children = f"SELECT {names} FROM {rule.children} WHERE {quote(rule.child_key)} = ANY (%(ids)s)"
            queries[rule.child] = (children, {"ids": [identity for identity, *_ in versions]})
        contents = _write(connection, path, queries)
        ghosts = []
        if (column := PERSON_COLUMNS.get(rule.table)) in columns[rule.table]:
            person = f"t.{quote(str(column))}"
            cursor.execute(DELETED_PEOPLE_SQL.format(rows=rows, person=person, deleted=is_deleted(person)), part)
            ghosts = [person for (person,) in cursor.fetchall()]
        cursor.execute("SELECT pg_catalog.now()")
        taken = cursor.fetchone()[0].astimezone(UTC)
    parts = tuple(Part(table, columns[table], content) for table, content in contents.items())
    return _Rows(taken, versions, parts, tuple(sorted(ghosts)))


def _write(connection, path: Path, queries: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Content]:
    """Write the result of each query into an entry of the zip at `path`, and return its content."""
    contents = {}
    with require_space_for(path), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=FAST) as archive_zip:
        for table, (query, parameters) in queries.items():
            with (
                archive_zip.open(f"{table}.copy", "w", force_zip64=True) as entry,
                connection.wrap_database_errors,
                connection.connection.cursor() as raw,
                raw.copy(f"COPY ({query}) TO STDOUT", parameters) as copy,
            ):
                contents[table] = content_of(_written(rows_of(copy), entry))
    return contents


def _written(rows: Iterable[Any], entry) -> Iterator[Any]:
    """Write the rows, some at once, and yield each."""
    unwritten = bytearray()
    for row in rows:
        unwritten += row
        if len(unwritten) >= CHUNK:
            entry.write(unwritten)
            unwritten = bytearray()
        yield row
    entry.write(unwritten)
