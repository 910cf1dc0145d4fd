"""The removal of a person's rows, verified by the server's counts of written and deleted rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import IntegrityError, transaction

from ..errors import Refusal
from ..sql import catalogue
from ..units import plural
from . import without_foreign_key
from .people import Person
from .plan import Reach, rows_of_person
from .tables import Tables
from .trace import Rows, counts_by_table, referring, rows_of

# Rows that this session wrote, including by triggers, rules and foreign keys, and those rolled back to a savepoint.
COUNTS_SQL = """
    SELECT s.relid::bigint, s.schemaname::text, s.relname::text, s.n_tup_ins + s.n_tup_upd, s.n_tup_del
    FROM pg_catalog.pg_stat_xact_user_tables AS s WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0
"""


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows by table: deleted ones, cleared ones, and ones that neither the erasure nor a foreign key wrote."""

    removed: dict[str, int]
    cleared: dict[str, int]
    written: dict[str, int]


@dataclass(slots=True)
class Counts:
    """Rows written and deleted, by the table's name in reports."""

    written: Counter[str]
    deleted: Counter[str]

    def since(self, before: Counts) -> Counts:
        return Counts(self.written - before.written, self.deleted - before.deleted)


def remove(connection, cursor, tables: Tables, person: Person, found: Reach) -> Removal:
    """Remove and clear the rows found; raise Refusal if one of them stays, or if a row of another person is deleted."""
    before = _counts(connection, tables)
    without_foreign_key.clear(cursor, tables, person, found.cleared, found.named)
    rolled_back = _delete(connection, cursor, tables, found.trace.removed)
    with _refused():
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    done = _counts(connection, tables).since(before).since(rolled_back)
    expected, cleared = counts_by_table(tables, found.trace.removed), counts_by_table(tables, found.cleared)
    remaining = _remaining(cursor, tables, person, found)
    for oid, places in found.trace.removed.items():  # The nodes of Citus count what they delete, but not by transaction.
        if tables.tables[oid].kind_of_citus:
            done.deleted[tables.label(oid)] += len(places - remaining.get(oid, set()))
    kept = {name for name, count in expected.items() if done.deleted[name] < count}
    if names := sorted(kept.union(counts_by_table(tables, remaining))):
        raise Refusal(
            f"A trigger or a disabled foreign key keeps rows of the person in {', '.join(names)}: nothing was changed."
        )
    people = {tables.label(oid) for oid in tables.tables if tables.is_of_people(oid)}
    if others := sum(max(done.deleted[name] - expected.get(name, 0), 0) for name in people):
        raise Refusal(f"A trigger would delete {plural(others, 'other person', 'other people')}: nothing was changed.")
    ours = Counter(cleared)
    for rows in found.trace.changed.values():
        ours.update(counts_by_table(tables, rows))
    removed = {name: done.deleted[name] for name in [*expected, *sorted(done.deleted - Counter(expected))]}
    return Removal(removed, cleared, dict(sorted((done.written - ours).items())))


def _counts(connection, tables: Tables) -> Counts:
    counts = Counts(Counter(), Counter())
    with catalogue(connection) as cursor:
        cursor.execute("SHOW track_counts")
        if cursor.fetchone() != ("on",):
            raise Refusal("track_counts is off, so PostgreSQL does not count the rows that an erasure removes: turn it on.")
        cursor.execute(COUNTS_SQL)
        for oid, schema, name, written, deleted in cursor.fetchall():
            label = tables.label(oid) if oid in tables.tables else f"{schema}.{name}"
            counts.written[label] += written
            counts.deleted[label] += deleted
    return counts


def _delete(connection, cursor, tables: Tables, removed: Rows) -> Counts:
    """Delete rows, referencing ones first; return the counts of what was rolled back.

    Rows that this role may not delete itself, and those of other roles' tables, are left to the foreign keys.
    """
    rolled_back = Counts(Counter(), Counter())
    todo = [oid for oid in reversed(removed) if removed[oid] and tables.tables[oid].is_ours and tables.tables[oid].may_delete]
    while todo:
        blocked = []
        for oid in todo:
            before = _counts(connection, tables)
            try:
                with transaction.atomic(using=connection.alias):
                    table = tables.tables[oid]
                    cursor.execute(f"DELETE FROM {table.rows_sql} AS c WHERE {table.at_sql()}", [sorted(removed[oid])])
            except IntegrityError as error:  # A row that is deleted later still refers to it.
                blocked.append((oid, error))
                failed = _counts(connection, tables).since(before)
                rolled_back.written.update(failed.written)
                rolled_back.deleted.update(failed.deleted)
        if len(blocked) == len(todo):
            with _refused():
                raise blocked[0][1]
        todo = [oid for oid, _ in blocked]
    return rolled_back


def _remaining(cursor, tables: Tables, person: Person, found: Reach) -> Rows:
    """Return the rows found that still exist or still reference the person."""
    remaining = rows_of_person(cursor, tables, person, lock=False)
    for fk, keys in found.trace.lookups:
        for oid, places in referring(cursor, tables, fk, keys, lock=False).items():
            remaining[oid] |= places
    for oid, places in _existing(cursor, tables, found.trace.removed).items():
        remaining[oid] |= places
    return remaining


def _existing(cursor, tables: Tables, removed: Rows) -> Rows:
    found = rows_of()
    for oid, places in removed.items():
        table = tables.tables[oid]
        if table.is_ours:
            cursor.execute(f"SELECT {table.place_sql()} FROM {table.rows_sql} AS c WHERE {table.at_sql()}", [sorted(places)])
            found[oid] |= {place for _, place in cursor.fetchall()}
    return found


@contextmanager
def _refused() -> Iterator[None]:
    """Turn a constraint violation into a Refusal that names the constraint."""
    try:
        yield
    except IntegrityError as error:
        diag = getattr(error.__cause__, "diag", None)
        where = f"{diag.schema_name}.{diag.table_name}" if diag else "a table"
        raise Refusal(
            f"Nothing was changed. The constraint {diag.constraint_name if diag else '?'} of {where} prevents the erasure:"
            " change that constraint (the ON DELETE action of a foreign key), or remove the person's rows from that table first."
        ) from error
