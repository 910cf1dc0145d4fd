"""Inserts the rows of an archive again, without those that cannot be restored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..backup.row_hashes import BY_SELECT, CONTENT_SQL, Content, content_of, rows_of
from ..errors import Refusal, Unfit
from ..facts import people_table, person_columns
from ..schema.relation_kinds import read_relations
from ..server import read_schema
from ..sql import as_written, quote
from .description import Archive, Part
from .row_versions import SEQUENTIAL_SQL
from .rules import RULES

CHUNK = 1 << 20  # Bytes.
PERSON_COLUMNS = person_columns()

COLUMNS_SQL = """
    SELECT a.attname FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = pg_catalog.to_regclass(%s)::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of loading the rows of a table: those added, those that existed already, those that another row with the same
    unique value rejected, and those skipped because the person or the row that they refer to no longer exists."""

    table: str
    added: int
    existing: int
    rejected: int
    skipped: int


def load_part(connection, cursor, archive: Archive, part: Part, entry) -> Loaded:
    """Insert the rows of a table of an archive, in the current transaction; raise Refusal or Unfit if they cannot be restored unchanged."""
    table, columns, staging = quote(part.table), listed(part.columns), quote(f"archived {part.table}")
    existing = columns_of(cursor, part.table)
    if dropped := [name for name in part.columns if name not in existing]:
        raise Refusal(
            f"{archive.name} has the column {dropped[0]}, which {part.table} no longer has: load it with the code of {archive.taken:%Y-%m-%d}."
        )
    nearby = _Nearby(connection, cursor, staging)
    cursor.execute(f"CREATE TEMPORARY TABLE {staging} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA")
    with (
        connection.wrap_database_errors,
        connection.connection.cursor() as raw,
        raw.copy(f"COPY {staging} ({columns}) FROM STDIN") as rows,
    ):
        while data := entry.read(CHUNK):
            rows.write(data)
    if _content(connection, cursor, f"SELECT {columns} FROM {staging}", archive.hashing) != part.content:
        raise Unfit(f"{archive.file} does not have the archived rows of {part.table}: use another archive.")
    is_parent = part.table == archive.table
    key = "id" if is_parent else quote(RULES[archive.table].child_key)
    cursor.execute(f"ANALYZE {staging}; DELETE FROM {staging} WHERE {key} = ANY (%s)", [list(archive.left)])
    cursor.execute(f"SELECT count(*) FROM {staging}")
    removed = cursor.fetchone()[0]
    missing = _missing(archive, part, nearby)
    skipped = 0
    if missing:
        cursor.execute(f"DELETE FROM {staging} AS t WHERE {missing}", {"ghosts": list(archive.ghosts)})
        skipped = cursor.rowcount
    cursor.execute(f"DELETE FROM {staging} AS t WHERE EXISTS (SELECT 1 FROM {nearby.rows(part.table)} AS o WHERE o.id = t.id)")
    already = cursor.rowcount
    overriding = "OVERRIDING SYSTEM VALUE"  # For a column GENERATED ALWAYS AS IDENTITY that the site may have added.
    cursor.execute(f"INSERT INTO {table} ({columns}) {overriding} SELECT {columns} FROM {staging} ON CONFLICT DO NOTHING")
    added = cursor.rowcount
    pairs = ((as_written(f"s.{quote(name)}"), as_written(f"t.{quote(name)}")) for name in part.columns)
    differs = " OR ".join(f"{staged} IS DISTINCT FROM {loaded}" for staged, loaded in pairs)
    now = nearby.rows(part.table, columns=part.columns)
    cursor.execute(f"SELECT count(*) FROM {staging} AS s JOIN {now} AS t USING (id) WHERE {differs}")
    if changed := cursor.fetchone()[0]:
        raise Refusal(
            f"Nothing was loaded: a trigger or a rule of {part.table} changes {changed:,} of the rows. As the table's owner, disable it"
            f" (ALTER TABLE {table} DISABLE TRIGGER USER;), load the archive, and enable it again."
        )
    return Loaded(part.table, added, already, removed - skipped - already - added, skipped)


class _Nearby:
    """The rows of other tables that the rows in `staging` are compared with.

    Citus changes no local table by those on nodes, and joins a temporary one with few: there, the rows are copied into one.
    """

    def __init__(self, connection, cursor, staging: str):
        self.cursor, self.staging = cursor, staging
        relations = read_relations(connection, schema=read_schema(connection)).values()
        self.placed = {relation.name for relation in relations if relation.kind.is_of_citus}
        self.copies = 0
        if self.placed:
            cursor.execute(SEQUENTIAL_SQL)

    def rows(self, table: str, *, key: str = "id", columns: Iterable[str] = ("id",)) -> str:
        """Return SQL for a table, or for its rows whose id is in the column `key` of the staged rows."""
        if table not in self.placed:
            return quote(table)
        self.copies += 1
        copy = quote(f"{self.copies} of {self.staging}")
        self.cursor.execute(f"SELECT pg_catalog.array_agg(DISTINCT {quote(key)}) FROM {self.staging}")
        ids = self.cursor.fetchone()[0] or []
        self.cursor.execute(
            f"CREATE TEMPORARY TABLE {copy} ON COMMIT DROP AS SELECT {bound(listed(columns))} FROM {quote(table)} WHERE id = ANY (%s)",
            [ids],
        )
        self.cursor.execute(f"ANALYZE {copy}")
        return copy


def columns_of(cursor, table: str) -> tuple[str, ...]:
    cursor.execute(COLUMNS_SQL, [quote(table)])
    return tuple(name for (name,) in cursor.fetchall())


def listed(columns: Iterable[str]) -> str:
    return ", ".join(map(quote, columns))


def bound(names: str) -> str:
    """Return names for a statement with parameters."""
    return names.replace("%", "%%")


def is_deleted(person: str, people: str = "") -> str:
    """Return SQL that is true if no user has the id `person`; `people` replaces their table."""
    return f"NOT EXISTS (SELECT 1 FROM {people or quote(people_table())} AS u WHERE u.id = {person})"


def _content(connection, cursor, query: str, hashing: int) -> Content:
    """Return the content of a query's result, hashed like the archive's rows."""
    if hashing == BY_SELECT:
        cursor.execute(CONTENT_SQL.format(table=f"({query})"))
        return Content(*cursor.fetchone())
    with (
        connection.wrap_database_errors,
        connection.connection.cursor() as raw,
        raw.copy(f"COPY ({query}) TO STDOUT") as copy,
    ):
        return content_of(rows_of(copy))


def _missing(archive: Archive, part: Part, nearby: _Nearby) -> str:
    """Return SQL for the rows that are not restored: those of people deleted since, and those without their parent."""
    if part.table != archive.table:
        key = RULES[archive.table].child_key
        return f"NOT EXISTS (SELECT 1 FROM {nearby.rows(archive.table, key=key)} AS p WHERE p.id = t.{quote(key)})"
    if (column := PERSON_COLUMNS.get(part.table)) in part.columns:
        person, people = f"t.{quote(str(column))}", nearby.rows(people_table(), key=str(column))
        return f"{person} IS NOT NULL AND {person} <> ALL (%(ghosts)s) AND {is_deleted(person, people)}"
    return ""
