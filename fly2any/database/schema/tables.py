"""Compares tables with the contract."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TypeVar

from django.utils.text import get_text_list

from ..findings import Finding, Severity
from ..sql import quote
from ..units import plural
from . import cures
from .comparing import MAY_BE_ANOTHERS, Comparing, asked_first, folded
from .objects import PARTITIONED, Catalog, ForeignKey, Index, Key, Object, Table
from .row_security import of_row_security
from .unmanaged import AGREE

T = TypeVar("T", bound=tuple[str, ...])
LEAST_COLUMNS = 4  # Fewer columns, such as an id and a name, do not identify a table.
USUAL = 4  # A column name that so many of our tables have does not identify a table.
MOST_NAMED = 3


def compare_tables(to: Comparing) -> None:
    live = {table.name: table for table in to.actual.tables}
    for table in to.expected.tables:
        found = live.get(table.name)
        # Of a partitioned table, the columns and keys are compared as those of any other.
        if found is None or found.kind not in (table.kind, PARTITIONED):
            if (other := _renamed(to, table)) is None:
                if not _moved(to, table, found):
                    _missing(to, table, found)
                continue
            _rename_back(to, table, found, other)
            live = {one.name: one for one in to.actual.tables}
        _state(to, table, live[table.name])
    _owners(to, [live[table.name] for table in to.expected.tables if table.name in live])


def _owners(to: Comparing, tables: list[Table]) -> None:
    """Report owners without privileges: PostgreSQL checks foreign keys, and deletes by them, as the owners of the tables."""
    lacking = ((what, table.owner) for table in tables for what in table.owner_lacks)
    for what, owner in dict.fromkeys(lacking):
        owned = [table.name for table in tables if table.owner == owner and what in table.owner_lacks]
        grant = f"GRANT {what} TO {quote(owner)};"
        theirs = not any(table.owned for table in tables if table.name in owned) and not what.startswith("USAGE")
        more = f" and {plural(len(owned) - 1, 'more table')}" if len(owned) > 1 else ""
        to.findings.append(
            Finding(
                Severity.ERROR,
                "table.owner",
                owned[0] if len(owned) == 1 else owner,
                f"The owner of {owned[0]}{more}, {owner}, lacks {what}: writes that check or follow a foreign key fail for every role.",
                f"{cures.comment('As their owner:')}\n{grant}" if theirs else grant,
                is_sql=True,
                loses="the owner of the tables must run it" if theirs else "",
            )
        )


def _renamed(to: Comparing, table: Table) -> str | None:
    """Return the one unmanaged table that is `table`, renamed: it has exactly its columns, or is like it and has a key or an index of its name."""
    wanted, found = _shape(to.expected, table.name), _likenesses(to, table)
    holding = _holding(to, table)
    same = [name for name in found if name in holding] or [name for name in found if _shape(to.actual, name) == wanted]
    return same[0] if len(same) == 1 else None


def _likenesses(to: Comparing, table: Table, elsewhere: dict[str, set[tuple[str, str]]] | None = None) -> list[str]:
    """Return the unmanaged tables, and those `elsewhere`, that are like `table`: they have at least half of its columns, also of the unusual ones, by folded names."""
    ours = {one.name for one in to.expected.tables}
    others = [one.name for one in to.actual.tables if one.kind in (table.kind, PARTITIONED) and one.name not in ours]
    columns: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for column in to.actual.columns:
        columns[column.table].add((column.name, column.type))
    shapes = {name: columns[name] for name in others} | (elsewhere or {})
    wanted = {folded(name) for name, _ in _shape(to.expected, table.name)}
    own = wanted - _usual(to) or wanted

    def is_alike(shape: set[tuple[str, str]]) -> bool:
        names = {folded(column) for column, _ in shape}
        return 2 * len(own & names) >= len(own) and 2 * len(wanted & names) >= len(wanted)

    return sorted(name for name, shape in shapes.items() if is_alike(shape))


def _usual(to: Comparing) -> set[str]:
    """Return the names of columns that several of our tables have, such as those of the key, the person and the times."""
    tables = Counter(name for name, _ in {(folded(column.name), column.table) for column in to.expected.columns})
    return {name for name, number in tables.items() if number >= USUAL}


def _holding(to: Comparing, table: Table) -> set[str]:
    """Return the tables that have keys or indexes of the names of those of `table`: a renaming of a table keeps these."""
    ours: tuple[Key | Index, ...] = (*to.expected.keys, *to.expected.indexes)
    found: tuple[Key | Index, ...] = (*to.actual.keys, *to.actual.indexes)
    names = {thing.name for thing in ours if thing.table == table.name}
    return {thing.table for thing in found if thing.name in names}


def _stand_ins(to: Comparing, table: Table) -> list[str]:
    """Return the tables that may be `table`, renamed or moved, although some of their columns differ."""
    elsewhere = to.live.elsewhere(table.name) if to.live else {}
    wanted = _shape(to.expected, table.name)
    if len(wanted) < LEAST_COLUMNS:
        return sorted(place for (place, _), columns in elsewhere.items() if wanted <= columns)
    return _likenesses(to, table, {place: columns for (place, _), columns in elsewhere.items()})


def _rename_back(to: Comparing, table: Table, found: Table | None, other: str) -> None:
    """Report that `other` is our table, perhaps behind a view with its name, `found`; it is compared as if it had been renamed back."""
    to.bad.add(table)
    rename, what = f"ALTER TABLE {quote(other)} RENAME TO {quote(table.name)};", "is missing"
    if found:
        rename, what = cures.together([cures.rename_to_old(found), rename]), f"is a {found.kind}, not a table"
        to.actual = to.actual.where(lambda thing: thing.table != table.name)
    has = "all" if _shape(to.expected, table.name) <= _shape(to.actual, other) else "at least half of"
    message = f"Table {table.name} {what}, and {other} has {has} its columns: it was probably renamed."
    to.add("table.different" if found else "table.renamed", table, message, rename, loses=MAY_BE_ANOTHERS)
    to.actual = to.actual.renamed_table(other, table.name)


def _moved(to: Comparing, table: Table, live: Table | None) -> bool:
    """Report a table that is in another schema with all its columns, and compare nothing of it; return whether there is one.

    Tables of the name in many schemas are copies, such as those of tenants.
    """
    wanted = _shape(to.expected, table.name)
    found = [place for place, columns in to.live.elsewhere(table.name).items() if wanted <= columns] if to.live else []
    if to.live is None or not 0 < len(found) <= MOST_NAMED:
        return False
    places, schemas = zip(*found, strict=True)
    what = f"is a {live.kind}, not a table" if live else "is missing"
    each = f"the schema {schemas[0]} has" if len(found) == 1 else f"the schemas {get_text_list([*schemas], 'and')} each have"
    message = (
        f"Table {table.name} {what}, and {each} a table of this name with all its columns: it was probably moved."
        " Its columns, keys and foreign keys are compared once it is back."
    )
    aside = [*([cures.rename_to_old(live)] if live else []), *(cures.set_aside(*one) for one in _held(to, table, live))]
    moves = [cures.together([*aside, f"ALTER TABLE {place} SET SCHEMA {quote(to.live.schema)};"]) for place in places]
    cure = f"\n{cures.comment('Or:')}\n".join(moves)
    to.add("table.moved", table, message, cure, loses=MAY_BE_ANOTHERS)

    def hangs(thing: Object) -> bool:
        return thing.table == table.name or (isinstance(thing, ForeignKey) and thing.target in (table.name, *places))

    def others(rows: tuple[T, ...]) -> tuple[T, ...]:
        return tuple(row for row in rows if row[0] not in places)

    to.bad.update(filter(hangs, to.expected))
    to.expected = to.expected.where(lambda thing: not hangs(thing))
    to.actual = to.actual.where(lambda thing: not hangs(thing))
    tables = (
        replace(one, kept_by=others(one.kept_by), fixed_by=others(one.fixed_by), met=others(one.met))
        for one in to.actual.tables
    )
    to.actual = replace(to.actual, tables=tuple(tables))
    return True


def _missing(to: Comparing, table: Table, live: Table | None) -> None:
    to.bad.update(thing for thing in to.expected if thing.table == table.name)
    held = _held(to, table, live)
    aside = [*([cures.rename_to_old(live)] if live else []), *(cures.set_aside(*one) for one in held)]
    create = cures.create_table(table, to.expected, aside)
    if live is None:
        found = _stand_ins(to, table)
        names = get_text_list(
            [*found[:MOST_NAMED], *([f"one of {len(found) - MOST_NAMED} more"] if found[MOST_NAMED:] else [])], "or"
        )
        message, maybe = f"Table {table.name} is missing, with its rows: restore it from a backup, or create it empty.", ""
        if names:
            message = (
                f"Table {table.name} is missing, unless {names} is the same table, renamed or moved: check the rows, then rename or move it back;"
                " otherwise restore the table from a backup, or create it empty."
            )
            maybe = f"{names} may be the same table, and {table.name} would be empty"
        loses = maybe or next((asked for one in held if (asked := asked_first(*one))), "")
        if loses:
            to.replaced.add(table.name)
        to.add("table.missing", table, message, create, loses=loses)
    else:
        message = (
            f"{table.name} is a {live.kind}, not a table: rename it, then restore the table from a backup, or create it empty."
        )
        to.replaced.add(table.name)
        hidden = f"the new table is empty, and the rows of the {live.kind} are no longer read"
        to.add("table.different", table, message, create, loses=hidden)
    # Its own foreign keys, and those of other tables, are findings of their own: they come last.
    to.expected = to.expected.where(lambda thing: thing.table != table.name or isinstance(thing, ForeignKey))
    to.actual = to.actual.where(lambda thing: thing.table != table.name)


def _held(to: Comparing, table: Table, live: Table | None) -> list[tuple[str, str]]:
    """Return the kind and the name of what has the names of the table, of its keys and of its indexes, other than `live`."""
    if to.live is None:
        return []
    indexes: tuple[Key | Index, ...] = (*to.expected.keys, *to.expected.indexes)
    ours = [thing.name for thing in indexes if thing.table == table.name]
    return to.live.holders(ours) if live else to.live.holders([table.name, *ours], table=table.name)


def _state(to: Comparing, table: Table, live: Table) -> None:
    if live.logged != table.logged:
        to.bad.add(table)
        message = f"Table {table.name} is UNLOGGED: a crash empties it."
        theirs = _unlogged_targets(to, table.name)
        lost = (
            f"ask the owner of {', '.join(theirs)} first, because a logged table can refer only to logged tables"
            if theirs
            else ""
        )
        cure = "\n".join(f"ALTER TABLE {quote(name)} SET LOGGED;" for name in (*theirs, table.name))
        to.add("table.weaker", table, message, cure, loses=lost)
    if live.partition_of is not None:
        _partition(to, table, live)
    if live.restricted or live.rejected:
        to.bad.add(table)
    to.findings += of_row_security(live)


def _unlogged_targets(to: Comparing, table: str) -> list[str]:
    """Return the unmanaged unlogged tables that foreign keys lead to from `table`, as they must be logged: the last ones first."""
    ours = {one.name for one in to.expected.tables}
    order = unlogged_order(to.actual)
    found = [table]
    for name in found:
        targets = {fk.target for fk in to.actual.foreign_keys if fk.table == name}
        found += [target for target in order if target in targets and target not in (*found, *ours)]
    return [name for name in order if name in found[1:]]


def unlogged_order(catalog: Catalog) -> list[str]:
    """Return the unlogged tables in the order in which they can be logged: a logged table may refer to logged ones only."""
    unlogged = {table.name for table in catalog.tables if not table.logged}
    waiting = {name: {fk.target for fk in catalog.foreign_keys if fk.table == name} & unlogged - {name} for name in unlogged}
    order: list[str] = []
    while waiting:
        free = [name for name, targets in waiting.items() if targets.isdisjoint(waiting)] or [*waiting]
        order += sorted(free)
        waiting = {name: targets for name, targets in waiting.items() if name not in free}
    return order


def _partition(to: Comparing, table: Table, live: Table) -> None:
    """Report a table that another program made a partition: rows outside its bound are refused, though no constraint says so."""
    parent = live.partition_of or ""
    required = {column.name for column in to.actual.columns if column.table == table.name and not column.may_hold_null}
    of_nulls = {
        name.strip('"').replace('""', '"') for name in re.findall(r'("(?:[^"]|"")+"|\w+) IS NOT NULL', live.bound or "")
    }
    rest = re.sub(r'("(?:[^"]|"")+"|\w+) IS NOT NULL|AND|[() ]', "", live.bound or "")
    harmless = not rest and of_nulls <= required
    refuses = "accepts every row now" if harmless else f"refuses rows outside its bound, {live.bound}"
    to.findings.append(
        Finding(
            Severity.NOTE if harmless else Severity.ERROR,
            "table.partition",
            table.name,
            f"Table {table.name} is a partition of the unmanaged table {parent}, and {refuses}.",
            f"{AGREE}ALTER TABLE {parent} DETACH PARTITION {quote(table.name)};",
        )
    )


def _shape(catalog: Catalog, table: str) -> frozenset[tuple[str, str]]:
    return frozenset((column.name, column.type) for column in catalog.columns if column.table == table)
