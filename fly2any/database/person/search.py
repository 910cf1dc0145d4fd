"""Occurrences of a person's address or id in a database, in every table that this role may read and every column that can hold them.

copied.py reads the tables of other roles, and statistics.py the planner's statistics. administration/search.py finds people by a part of their name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, transaction

from ..errors import first_line, sqlstate
from ..progress import Progress
from . import copied
from .conditions import is_own, matches
from .patterns import Patterns, is_address, patterns_for
from .people import Person
from .tables import Column, Table, Tables, read_tables
from .trace import Rows

ATTEMPTS = 2  # At most, for tables that are created or renamed during a search.
LOCKED = "55P03"  # lock_not_available
KINDS = {"m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True, slots=True)
class Place:
    """A column with the person's address or id, and the number of such rows; `similar` if it is part of a longer word."""

    table: str
    column: str
    holds: str  # "address", "id" or "similar"; "statistics" of these; "written": by a trigger or rule meanwhile
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A place that was not searched, and the reason."""

    place: str
    reason: str


NO_ADDRESS = Unsearched(
    "texts that contain the address",
    "the stored e-mail address is not a valid one, so only values equal to it are found: check the person's texts by hand",
)


@dataclass(frozen=True, slots=True)
class Found:
    places: tuple[Place, ...]
    unsearched: tuple[Unsearched, ...]


def search(
    connection, tables: Tables, person: Person, progress: Progress, reasons: dict[tuple[int, str], str], excluded: Rows
) -> Found:
    """Return the occurrences of the person's address and id outside the rows `excluded`.

    `reasons` explains them by a table's oid and column ("" for all). It must run inside a transaction. Tables that other sessions
    create or rename meanwhile are searched too, or are not searched.
    """
    run = _Search(connection, person, patterns_for(person.id, person.email), progress, reasons, excluded)
    searched: dict[int, str] = {}  # By name: another session may rename a table, and put a new one in its place.
    for _ in range(ATTEMPTS):
        todo = [table for table in tables.tables.values() if searched.get(table.oid) != table.sql]
        run.search(tables, todo)
        searched |= {table.oid: table.sql for table in todo}
        tables = read_tables(connection)
    late = [table for table in tables.tables.values() if searched.get(table.oid) != table.sql]
    run.unsearched += [Unsearched(tables.label(table.oid), "created or renamed during the search") for table in late]
    progress.clear()
    if person.email and not is_address(person.email):
        run.unsearched.append(NO_ADDRESS)
    if _has_large_objects(connection):
        run.unsearched.append(Unsearched("large objects", "not in columns"))
    return Found(
        tuple(Place(table, column, holds, rows, reason) for (table, column, holds, reason), rows in run.places.items() if rows),
        tuple(dict.fromkeys(run.unsearched)),
    )


@dataclass(slots=True)
class _Search:
    """A search, and what it found so far: numbers of rows, and places that cannot be searched."""

    connection: Any
    person: Person
    wanted: Patterns
    progress: Progress
    reasons: dict[tuple[int, str], str]
    excluded: Rows
    places: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    unsearched: list[Unsearched] = field(default_factory=list)

    def search(self, tables: Tables, todo: list[Table]) -> None:
        pages, done = sum(table.pages + 1 for table in todo), 0
        for table in todo:
            self.progress.show(f"searching {table.schema}.{table.name}", 100 * done / pages)
            done += table.pages + 1
            if table.kind != "p":  # Its partitions have the rows.
                self.search_table(tables, table)

    def search_table(self, tables: Tables, table: Table) -> None:
        label = tables.label(table.oid)
        columns = [column for column in tables.columns.get(table.oid, ()) if column.is_searched]
        if reason := _unreadable_table(table, columns):
            self.unsearched.append(Unsearched(label, reason))
            return
        unreadable = [(one, reason) for one in columns if (reason := _unreadable_column(table, one))]
        self.unsearched += [Unsearched(f"{label}.{one.name}", reason) for one, reason in unreadable]
        seen = TableSearch(self.connection, self.person, tables, table, self.excluded.get(table.oid, set()))
        for column, counts in seen.columns([one for one in columns if not _unreadable_column(table, one)], self.wanted):
            if isinstance(counts, str):
                self.unsearched.append(Unsearched(f"{label}.{column.name}", counts))
                continue
            reason = self.reasons.get((table.oid, column.name)) or self.reasons.get((table.oid, "")) or _reason(table)
            for holds, rows in counts.items():
                key = (label, column.name, holds, reason)
                self.places[key] = self.places.get(key, 0) + rows


def _has_large_objects(connection) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)")
        return cursor.fetchone()[0]


def _unreadable_table(table: Table, columns: list[Column]) -> str:
    if not columns:
        return ""
    if table.kind == "f":
        return "a foreign table: its rows are on another server"
    if table.hidden:
        return "row-level security hides rows of it from this role"
    return "" if any(column.may_read for column in columns) else "no privilege to read it"


def _unreadable_column(table: Table, column: Column) -> str:
    if not column.may_read:
        return "no privilege to read it"
    return (
        f"a generated column of a table of the role {table.untrusted_role}" if column.is_generated and not table.is_ours else ""
    )


def _reason(table: Table) -> str:
    if table.kind == "m":
        return "a materialized view still holds the old rows: REFRESH MATERIALIZED VIEW"
    return "no rule of this project removes it: check these rows"


@dataclass(frozen=True, slots=True)
class TableSearch:
    """A table to search, except for the rows `excluded`."""

    connection: Any
    person: Person
    tables: Tables
    table: Table
    excluded: set[str]

    def columns(self, columns: list[Column], wanted: Patterns) -> Iterator[tuple[Column, dict[str, int] | str]]:
        """Yield each column with matches and its counts, or the reason why it could not be searched."""
        if not columns:
            return
        try:
            found = self.counts(columns, wanted) if self.table.is_ours else self.counts_in_others_table(columns, wanted)
        except copied.Rewritten as error:
            for column in columns:
                yield column, str(error)
            return
        except Error as error:
            if len(columns) == 1 or sqlstate(error) == LOCKED:  # Each attempt would wait for the lock again.
                for column in columns:
                    yield column, f"PostgreSQL cannot search it: {first_line(str(error))}"
                return
            for column in columns:
                yield from self.columns([column], wanted)
            return
        yield from found.items()

    def counts(self, columns: list[Column], wanted: Patterns) -> dict[Column, dict[str, int] | str]:
        """Return the matches in a table of ours, by column."""
        hits = self.count([self.any(column, wanted) for column in columns])
        found: dict[Column, dict[str, int] | str] = {}
        for column in (column for column, rows in zip(columns, hits, strict=True) if rows):
            address, similar = 0, 0
            if wanted.address and wanted.within:
                of_person = is_own(self.tables, self.table, column, self.person) or matches(column, wanted.address)
                address, similar = self.count([of_person, _without(matches(column, wanted.within), of_person)])
            [by_id] = self.count([matches(column, wanted.id)])
            found[column] = {"address": address, "similar": similar, "id": by_id}
        return found

    def any(self, column: Column, wanted: Patterns) -> tuple[str, list]:
        condition, values = matches(column, wanted.any)
        if own := is_own(self.tables, self.table, column, self.person):
            return f"({condition}) OR ({own[0]})", [*values, *own[1]]
        return condition, values

    def counts_in_others_table(self, columns: list[Column], wanted: Patterns) -> dict[Column, dict[str, int] | str]:
        """Return the matches in a table of another role, whose rows are identified by all their columns."""
        read = copied.copied_columns(self.tables, self.table.oid) if self.excluded else columns
        with self.unlocked() as cursor:
            found = copied.search(cursor, self.table, read, wanted, self.excluded)
        return {column: found[column.name] for column in columns if column.name in found}

    def count(self, conditions: list[tuple[str, list]]) -> tuple[int, ...]:
        """Return the number of rows that meet each condition, in one scan."""
        counts = ", ".join(f"pg_catalog.count(*) FILTER (WHERE {condition})" for condition, _ in conditions)
        parameters = [value for _, values in conditions for value in values]
        left = f" WHERE NOT {self.table.at_sql()}" if self.excluded else ""
        with self.unlocked() as cursor:
            cursor.execute(
                f"SELECT {counts} FROM {self.table.rows_sql} AS c{left}",
                [*parameters, *([sorted(self.excluded)] if self.excluded else [])],
            )
            return cursor.fetchone()

    @contextmanager
    def unlocked(self) -> Iterator[Any]:
        """Run the block, which only reads, in a savepoint that is rolled back, so that PostgreSQL releases its locks.

        Otherwise a search of many tables would fill the lock table of the whole server.
        """
        alias = self.connection.alias
        with transaction.atomic(using=alias), self.connection.cursor() as cursor:
            yield cursor
            transaction.set_rollback(True, using=alias)


def _without(one: tuple[str, list], other: tuple[str, list]) -> tuple[str, list]:
    return f"({one[0]}) AND NOT ({other[0]})", [*one[1], *other[1]]
