"""The rows that depend on a person, along foreign keys and their actions, as the database itself follows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..schema.relation_kinds import Kind
from ..units import plural
from . import copied
from .tables import ACTIONS, CLEARING, RESTRICTING, ForeignKey, Table, Tables, quoted

# A table's oid (of the partition) → the places of its rows: their ctid, on Citus their key, or for another role's table the place from copied.py.
Rows = dict[int, set[str]]


# Given the foreign key by which rows of a table were found, the table's oid and the rows, it returns some of them.
Leave = Callable[[ForeignKey, int, set[str]], set[str]]


def rows_of() -> Rows:
    return defaultdict(set)


@dataclass(slots=True)
class Trace:
    """The rows that a deletion reaches: those that it deletes, those that it changes, those that prevent it, and other people's.

    `lookups` has the keys by which rows were found, so that they can be looked up again after the deletion.
    """

    removed: Rows = field(default_factory=rows_of)
    changed: dict[ForeignKey, Rows] = field(default_factory=lambda: defaultdict(rows_of))
    restricting: dict[ForeignKey, Rows] = field(default_factory=lambda: defaultdict(rows_of))
    others: dict[ForeignKey, Rows] = field(default_factory=lambda: defaultdict(rows_of))
    lookups: list[tuple[ForeignKey, list[list[str]]]] = field(default_factory=list)

    def remaining(self, rows: Rows) -> Rows:
        """Return those of `rows` that are not deleted."""
        return {oid: left for oid, places in rows.items() if (left := places - self.removed.get(oid, set()))}


def follow(cursor, tables: Tables, roots: Rows, *, lock: bool, leave: Leave | None = None) -> Trace:
    """Return the rows that depend on `roots`, which are deleted themselves; with `lock` every row found is locked.

    `leave` returns those of the rows found that are left out, with the rows that depend on them. A lock also prevents other sessions from adding rows that reference it. Raises Refusal if rows may be hidden.
    """
    trace = Trace()
    todo = list(roots.items())
    for oid, places in todo:
        trace.removed[oid] |= places
    while todo:
        oid, places = todo.pop(0)
        lineage = tables.lineage(oid)
        for fk in (one for one in tables.foreign_keys if one.target in lineage):
            tables.require(fk.table, f"whose foreign key {fk.name} refers to {tables.label(oid)}")
            tables.require_followed(fk)
            keys = keys_of(cursor, tables, oid, places, fk)
            if not keys:
                continue
            trace.lookups.append((fk, keys))
            for child, found in referring(cursor, tables, fk, keys, lock=lock).items():
                if leave and (more := found - trace.removed[child]):
                    found = found - leave(fk, child, more)
                if fk.action in CLEARING:
                    trace.changed[fk][child] |= found
                elif fk.action in RESTRICTING:
                    trace.restricting[fk][child] |= found
                elif new := found - trace.removed[child]:
                    if tables.is_of_people(child):
                        trace.others[fk][child] |= new
                    else:
                        trace.removed[child] |= new
                        todo.append((child, new))
    return trace


def keys_of(cursor, tables: Tables, oid: int, places: set[str], fk: ForeignKey) -> list[list[str]]:
    """Return the values that `fk` may reference, a list for each of its columns; [] if there are none."""
    table = tables.tables[oid]
    if not table.is_ours:
        return copied.keys_of(tables, oid, places, fk)
    names = [quoted(name) for name in fk.keys]
    values = ", ".join(f"pg_catalog.concat(c.{name})" for name in names)  # Not a cast: see sql.as_written().
    known = " AND ".join(f"c.{name} IS NOT NULL" for name in names)
    cursor.execute(
        f"SELECT DISTINCT {values} FROM {table.rows_sql} AS c WHERE {table.at_sql()} AND {known}",
        [sorted(places)],
    )
    return [list(column) for column in zip(*cursor.fetchall(), strict=True)]


def referring(cursor, tables: Tables, fk: ForeignKey, keys: list[list[str]], *, lock: bool) -> Rows:
    """Return the rows that reference one of `keys` by `fk`."""
    table = tables.tables[fk.table]
    if not table.is_ours:
        return copied.referring(cursor, tables, fk, keys)
    kinds, operators = ([part.replace("%", "%%") for part in parts] for parts in (fk.types, fk.operators))
    pairs = list(zip(fk.columns, kinds, operators, strict=True))
    arrays = [
        _array(values) for values in keys
    ]  # As a literal of their type, because a cast could call a function of the type's owner.
    if len(keys) == 1:  # This form can use an index.
        [(column, kind, operator)] = pairs
        condition = f"c.{quoted(column)} {operator} ANY (%s::{kind}[])"
    else:
        marks = ", ".join(f"pg_catalog.unnest(%s::{kind}[])" for _, kind, _ in pairs)
        names = ", ".join(f"k{place}" for place in range(len(keys)))
        same = (f"k.k{at} {operator} c.{quoted(column)}" for at, (column, _, operator) in enumerate(pairs))
        condition = f"EXISTS (SELECT 1 FROM ROWS FROM ({marks}) AS k ({names}) WHERE {' AND '.join(same)})"
    return places_of(cursor, table, condition, arrays, lock=lock)


def _array(values: list[str]) -> str:
    """Return an array in PostgreSQL's text form."""
    written = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in written) + "}"


def places_of(cursor, table: Table, condition: str, parameters: list, *, lock: bool) -> Rows:
    """Return the rows of a table of ours, alias `c`, that meet a condition."""
    # Citus cannot lock rows of several shards.
    for_update = " FOR UPDATE" if lock and table.may_update and table.kind_of_citus is not Kind.DISTRIBUTED else ""
    cursor.execute(
        f"SELECT {table.place_sql()} FROM {table.rows_sql} AS c WHERE {condition}{for_update}",
        parameters,
    )
    found = rows_of()
    for oid, place in cursor.fetchall():
        found[oid].add(place)
    return found


def counts_by_table(tables: Tables, rows: Rows) -> dict[str, int]:
    """Return how many rows there are of each table, by its name."""
    counts: dict[str, int] = {}
    for oid, places in rows.items():
        if places:
            counts[tables.label(oid)] = counts.get(tables.label(oid), 0) + len(places)
    return counts


def count(rows: Rows) -> int:
    return sum(map(len, rows.values()))


def obstacles(tables: Tables, trace: Trace) -> Iterator[str]:
    """Yield a sentence for each foreign key that prevents the erasure."""
    for fk, rows in trace.others.items():
        if other := count(trace.remaining(rows)):
            yield (
                f"The foreign key {fk.name} of {tables.label(fk.table)} (ON DELETE CASCADE) would delete {plural(other, 'other person', 'other people')}:"
                " change its action, or clear that reference."
            )
    for fk, rows in trace.restricting.items():
        if kept := count(trace.remaining(rows)):
            yield (
                f"The foreign key {fk.name} of {tables.label(fk.table)} (ON DELETE {ACTIONS[fk.action]}) prevents the erasure"
                f" because of {plural(kept, 'row', 'rows')}: remove or change {'it' if kept == 1 else 'them'} first."
            )
    for fk, rows in trace.changed.items():
        columns = {column.name: column for column in tables.columns[fk.table]}
        required = [name for name in fk.sets if columns[name].not_null and (fk.action == "n" or not columns[name].has_default)]
        if required and (kept := count(trace.remaining(rows))):
            yield (
                f"The foreign key {fk.name} (ON DELETE {ACTIONS[fk.action]}) would clear {tables.label(fk.table)}.{required[0]},"
                f" which is NOT NULL, in {plural(kept, 'row', 'rows')}: change its action."
            )
