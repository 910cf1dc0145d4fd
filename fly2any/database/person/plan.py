"""The plan of an erasure: the rows it removes, changes, clears and leaves.

What happens to a row is decided elsewhere: by the action of its foreign key (trace.py), and in tables of ours without one by without_foreign_key.py,
which deletes the row, or clears the address where the model's `on_erasure` says so (OnErasure in fly2any/database/facts.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import facts
from ..errors import Refusal
from ..progress import Progress
from ..schema.untrusted_code import in_sentences, read_untrusted_code
from . import without_foreign_key
from .people import Person
from .search import Found, Place, Unsearched, search
from .tables import ACTIONS, Tables, read_tables
from .trace import Leave, Rows, Trace, count, counts_by_table, follow, obstacles, places_of, rows_of
from .transactions import NO_STATEMENT_TIMEOUT_SQL, reading

RECORD = "the access records keep the ID, which does not identify a person by itself"
KEPT = facts.columns("ids_kept")
NOT_SEARCHED = Unsearched("the database", "not searched, as requested")


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that stay because their foreign key only clears the reference."""

    table: str
    constraint: str
    action: str
    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows that an erasure removes, changes and clears, by table; those it leaves; and the reasons why it cannot run."""

    person: Person
    removed: dict[str, int]
    changed: tuple[Change, ...]
    cleared: dict[str, int]
    remaining: tuple[Place, ...]
    unsearched: tuple[Unsearched, ...]
    obstacles: tuple[str, ...]

    def require(self) -> None:
        """Raise Refusal if the erasure cannot run."""
        if self.obstacles:
            raise Refusal(f"Nothing was changed. {' '.join(self.obstacles)}")


@dataclass(frozen=True, slots=True)
class Reach:
    """The rows that an erasure reaches: along foreign keys, and those of ours that it clears."""

    trace: Trace
    cleared: Rows
    named: set[str]  # The entries of the admin's log that name a deleted row.

    def changed(self, tables: Tables) -> tuple[Change, ...]:
        """Return the changes by foreign keys that keep rows (SET NULL, SET DEFAULT)."""
        return tuple(
            Change(tables.label(fk.table), fk.name, ACTIONS[fk.action], fk.sets, rows_changed)
            for fk, rows in self.trace.changed.items()
            if (rows_changed := count(self.trace.remaining(rows)))
        )

    def obstacles(self, tables: Tables) -> tuple[str, ...]:
        """Return the reasons why the person cannot be erased."""
        return (*obstacles(tables, self.trace), *_privileges(tables, self.cleared))


def reach(cursor, tables: Tables, person: Person, *, lock: bool, leave: Leave | None = None) -> Reach:
    """Return the rows that an erasure reaches; with `lock` they are locked until the end of the transaction.

    `leave` is for follow(), which then leaves rows out.
    """
    roots = rows_of_person(cursor, tables, person, lock=lock)
    for oid, places in without_foreign_key.removed_rows(cursor, tables, person, lock=lock).items():
        roots[oid] |= places
    trace = follow(cursor, tables, roots, lock=lock, leave=leave)
    cleared, named = without_foreign_key.cleared_rows(cursor, tables, person, trace.removed, lock=lock)
    return Reach(trace, trace.remaining(cleared), named)


def rows_of_person(cursor, tables: Tables, person: Person, *, lock: bool) -> Rows:
    """Return the person's own row, even if it is in a table that inherits from the users."""
    found = rows_of()
    for table in tables.tables.values():
        if table.kind == "r" and tables.is_of_people(table.oid):
            tables.require_own(table.oid)
            tables.require(table.oid, "which holds the people")
            rows = places_of(cursor, table, "c.id OPERATOR(pg_catalog.=) %s", [person.id], lock=lock)
            for oid, places in rows.items():
                found[oid] |= places
    return found


def _privileges(tables: Tables, cleared: Rows):
    for oid, places in cleared.items():
        if places and not tables.tables[oid].may_update:
            yield (
                f"The role {tables.role} may not clear the address in {tables.label(oid)}: run `manage.py dbperson erase` as the"
                " owner of the tables."
            )


def plan(connection, person: Person, *, searched: bool = True, progress: Progress | None = None) -> Plan:
    """Return the plan of the person's erasure, of one snapshot; without `searched` it does not list other occurrences of the address."""
    with reading(connection), connection.cursor() as cursor:
        tables = read_tables(connection)
        untrusted = list(_untrusted_code(connection, tables))
        found = reach(cursor, tables, person, lock=False)
        places = Found((), (NOT_SEARCHED,))
        if searched:
            cursor.execute(NO_STATEMENT_TIMEOUT_SQL)
            places = search(connection, tables, person, progress or Progress(), reasons(tables, found), found.trace.removed)
        changed, cleared = found.changed(tables), counts_by_table(tables, found.cleared)
        emptied = {(one.table, column) for one in changed for column in one.columns}
        remaining = tuple(
            place
            for place in places.places
            if (place.table, place.column) not in emptied and not (place.holds == "address" and place.table in cleared)
        )
        removed = counts_by_table(tables, found.trace.removed)
        return Plan(person, removed, changed, cleared, remaining, places.unsearched, (*untrusted[:1], *found.obstacles(tables)))


def _untrusted_code(connection, tables: Tables) -> Iterator[str]:
    """Yield why code of other roles would prevent the erasure."""
    for names, deletes, updates in without_foreign_key.WRITES:
        if found := list(read_untrusted_code(connection, schema=tables.schema, tables=names, deletes=deletes, updates=updates)):
            yield in_sentences(found)


def reasons(tables: Tables, found: Reach) -> dict[tuple[int, str], str]:
    """Return the known reasons why the address or the id stays, by a table's oid and column ("" for all columns)."""
    known = {}
    for fk, rows in found.trace.changed.items():
        for oid in (fk.table, *rows):
            known[oid, ""] = f"the foreign key {fk.name} keeps the row (ON DELETE {ACTIONS[fk.action]})"
    for name, listed in KEPT.items():
        if (table := tables.own(name)) is not None:
            known.update({(table.oid, column): RECORD for column in listed})
    return known
