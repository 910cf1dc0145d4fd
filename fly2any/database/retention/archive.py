"""Archives of removed rows: as PostgreSQL's own COPY text, which loses nothing, zipped, and sealed where backups are."""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from ..backup.manifest import CONTENT_SQL, PATIENT, PINNED, Content, file_name, pin, sha256_of
from ..backup.restore import opened
from ..backup.sealing import ENDING, seal
from ..backup.store import Store
from ..catalog import quote
from ..diagnosis import Refusal, Unfit
from ..watching import Progress
from .rules import RULES, Rule

FORMAT = 1
CHUNK = 1 << 20  # Bytes.
HERE = {name: value for name, value in PINNED.items() if name != "search_path"} | PATIENT | {"lock_timeout": "2s"}

COLUMNS_SQL = """
    SELECT a.attname FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attnum
"""
VERSIONS_SQL = """
    SELECT id, {version}, ({age})::text FROM {table} WHERE ctid >= %(first)s::tid AND ctid < %(last)s::tid AND {condition} ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one table in an archive: their columns, their number and a hash of them."""

    table: str
    columns: tuple[str, ...]
    content: Content


@dataclass(frozen=True, slots=True)
class Archive:
    """Rows that were removed: `file` holds an entry for each of `parts`, parents first; `oldest` and `newest` are their times."""

    name: str
    file: str
    taken: datetime
    database: str
    bytes: int
    sha256: str
    oldest: str  # As PostgreSQL writes times, which may be any.
    newest: str
    parts: tuple[Part, ...]

    @property
    def table(self) -> str:
        return self.parts[0].table

    @property
    def rows(self) -> int:
        return sum(part.content.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the rows of a table: put back, there already, and left out since their person or their parent is gone."""

    table: str
    added: int
    there: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Archives:
    """A place for archives of the database `database`."""

    store: Store
    database: str

    def keep(self, connection, rule: Rule, part: dict[str, Any], progress: Progress) -> tuple[Archive | None, dict[str, str]]:
        """Archive the rows of `rule` in a range of blocks, and return the archive and the version of each row; None where there are none.

        When it returns, the archive is at its place. Nothing is removed, and no row is locked meanwhile.
        """
        self.store.make()
        workplace = tempfile.TemporaryDirectory(prefix="fly2any-") if settings.BACKUPS["recipient"] else self.store.workplace()
        with workplace as folder:
            path = Path(folder, "rows.zip")
            with _snapshot(connection) as cursor:
                columns = {table: _columns(cursor, table) for table in filter(None, (rule.table, rule.child))}
                places = {"table": quote(rule.table), "condition": rule.condition}
                cursor.execute(VERSIONS_SQL.format(age=rule.age, version=version_of(rule), **places), part)
                found = cursor.fetchall()
                if not found:
                    return None, {}
                rows = "SELECT {columns} FROM {table} WHERE ctid >= %(first)s::tid AND ctid < %(last)s::tid AND {condition}"
                queries = {rule.table: (rows.format(columns=_listed(columns[rule.table]), **places), part)}
                if rule.child:
                    theirs = f"SELECT {_listed(columns[rule.child])} FROM {quote(rule.child)} WHERE {quote(rule.child_key)} = ANY (%(ids)s)"
                    queries[rule.child] = (theirs, {"ids": [row[0] for row in found]})
                contents = _write(connection, cursor, path, queries)
                cursor.execute("SELECT pg_catalog.now()")
                taken = cursor.fetchone()[0].astimezone(UTC)
            ages = [row[2] for row in found]
            name = f"{file_name(self.database)}-{rule.table}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
            file = f"{name}.zip"
            if settings.BACKUPS["recipient"]:
                sealed = Path(folder, "sealed")
                seal(path, sealed, settings.BACKUPS["recipient"])
                path, file = sealed, file + ENDING
            archive = Archive(
                name, file, taken, self.database, path.stat().st_size, sha256_of(path), min(ages), max(ages),
                tuple(Part(table, columns[table], content) for table, content in contents.items()),
            )  # fmt: skip
            progress.show(f"storing {file}", None)
            self.store.put(file, path, lambda size: None)
            self.store.write(f"{name}.json", as_json(archive).encode())
        return archive, {row[0]: row[1] for row in found}

    def names(self) -> list[str]:
        """Return the names of the archives there are, oldest first."""
        names = [name.removesuffix(".json") for name in self.store.names() if name.endswith(".json")]
        return sorted(names, key=lambda name: name.rpartition("-")[2])

    def read(self, name: str) -> Archive:
        """Return the archive `name`; raise Refusal where there is none."""
        name = name.removesuffix(".json").removesuffix(ENDING).removesuffix(".zip")
        if "/" in name or name not in self.names():
            raise Refusal(f"{self.store.place} has no archive {name}: `manage.py dbmaintain archives` lists them.")
        return from_json(self.store.read(f"{name}.json"), where=f"{name}.json")


def version_of(rule: Rule) -> str:
    """Return SQL for what differs once a row, or one that hangs on it, was changed."""
    own = f"{quote(rule.table)}.xmin::text"
    if not rule.child:
        return own
    child, key, parent = quote(rule.child), quote(rule.child_key), quote(rule.table)
    theirs = (
        f"SELECT pg_catalog.string_agg(c.id || c.xmin::text, ',' ORDER BY c.id) FROM {child} AS c WHERE c.{key} = {parent}.id"
    )
    return f"{own} || COALESCE(({theirs}), '')"


@contextmanager
def _snapshot(connection) -> Iterator[Any]:
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        pin(cursor, HERE)
        yield cursor


def _columns(cursor, table: str) -> tuple[str, ...]:
    cursor.execute(COLUMNS_SQL, [quote(table)])
    return tuple(name for (name,) in cursor.fetchall())


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(map(quote, columns))


def _write(connection, cursor, path: Path, queries: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Content]:
    """Write what each query returns into an entry of the zip at `path`, and return its content."""
    contents = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as whole:
        for table, (query, parameters) in queries.items():
            cursor.execute(CONTENT_SQL.format(table=f"({query})"), parameters)
            contents[table] = Content(*cursor.fetchone())
            with (
                whole.open(f"{table}.copy", "w", force_zip64=True) as entry,
                connection.connection.cursor() as raw,
                raw.copy(f"COPY ({query}) TO STDOUT", parameters) as rows,
            ):
                for data in rows:
                    entry.write(data)
    return contents


def load(connection, store: Store, archive: Archive, progress: Progress) -> list[Loaded]:
    """Put the rows of an archive back, all or none, and return what became of them.

    Raises Refusal where the archive is damaged, or its columns are not those of the table any more.
    """
    loaded = []
    try:
        with (
            opened(store, archive, progress) as path,
            zipfile.ZipFile(path) as whole,
            transaction.atomic(using=connection.alias),
            connection.cursor() as cursor,
        ):
            pin(cursor, HERE)
            for place, part in enumerate(archive.parts):
                progress.show(f"loading {part.table}", 100 * place / len(archive.parts))
                with whole.open(f"{part.table}.copy") as entry:
                    loaded.append(_load(connection, cursor, archive, part, entry))
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise Unfit(f"{archive.file} is damaged ({error}): use another archive.") from error
    progress.clear()
    return loaded


def _load(connection, cursor, archive: Archive, part: Part, entry) -> Loaded:
    table, columns, beside = quote(part.table), _listed(part.columns), quote(f"archived {part.table}")
    there = _columns(cursor, part.table)
    if gone := [name for name in part.columns if name not in there]:
        raise Refusal(
            f"{archive.name} has the column {gone[0]}, which {part.table} has no more: restore it with the code of {archive.taken:%Y-%m-%d}."
        )
    cursor.execute(f"CREATE TEMPORARY TABLE {beside} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA")
    with connection.connection.cursor() as raw, raw.copy(f"COPY {beside} ({columns}) FROM STDIN") as rows:
        while data := entry.read(CHUNK):
            rows.write(data)
    cursor.execute(CONTENT_SQL.format(table=f"(SELECT {columns} FROM {beside})"))
    if Content(*cursor.fetchone()) != part.content:
        raise Unfit(f"{archive.file} has other rows of {part.table} than were archived: use another archive.")
    cursor.execute(f"DELETE FROM {beside} WHERE NOT ({_wanted(archive, part)})")
    left_out = cursor.rowcount
    cursor.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {beside} ON CONFLICT DO NOTHING")
    added = cursor.rowcount
    return Loaded(part.table, added, part.content.rows - left_out - added, left_out)


def _wanted(archive: Archive, part: Part) -> str:
    """Return SQL for the rows that may come back: nothing of people who are gone, nothing whose parent is not there."""
    if part.table != archive.table:
        return f"{quote(RULES[archive.table].child_key)} IN (SELECT id FROM {quote(archive.table)})"
    if "userId" in part.columns:
        return '"userId" IS NULL OR "userId" IN (SELECT id FROM users)'
    return "true"


def as_json(archive: Archive) -> str:
    return json.dumps({"format": FORMAT, **asdict(archive)}, indent=1, ensure_ascii=False, default=datetime.isoformat)


def from_json(text: str | bytes, *, where: str) -> Archive:
    """Return what the file `where` describes; raise Refusal where `text` is not of an archive."""
    try:
        data: dict[str, Any] = json.loads(text)
        if data.pop("format") != FORMAT:
            raise Refusal(f"{where} has a format that this code does not read: use the code that wrote it, or newer.")
        data["taken"] = datetime.fromisoformat(data["taken"]).astimezone(UTC)
        data["parts"] = tuple(
            Part(part["table"], tuple(part["columns"]), Content(part["content"]["rows"], part["content"]["hash"]))
            for part in data["parts"]
        )
        archive = Archive(**data)
        if archive.name != where.removesuffix(".json") or archive.file not in (
            f"{archive.name}.zip",
            f"{archive.name}.zip.age",
        ):
            raise ValueError("another's description")
        tables = [part.table for part in archive.parts]
        rule = RULES[archive.table]
        if tables != [name for name in (rule.table, rule.child) if name] or type(archive.bytes) is not int:
            raise ValueError("other tables than retention archives")
        words = [archive.database, archive.sha256, archive.oldest, archive.newest]
        words += [word for part in archive.parts for word in (*part.columns, part.content.hash)]
        if not all(isinstance(word, str) for word in words) or not all(
            type(part.content.rows) is int for part in archive.parts
        ):
            raise ValueError("a value of another kind")
        return archive
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError):
        raise Refusal(f"{where} describes no archive, or is damaged: use another, and remove it if nobody needs it.") from None
