"""The live catalogue against the contract: values in, findings out; a database is asked only if `live` is given.

tables.py, columns.py and constraints_and_indexes.py (keys, constraints and indexes) compare the objects, unmanaged.py has the rest.

A cure in SQL removes its difference; run in the order of the findings, the cures repair the whole schema.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.utils.text import get_text_list

from ..findings import Finding
from ..sql import quote
from . import cures, unmanaged
from .columns import compare_columns
from .comparing import Comparing
from .constraints_and_indexes import compare_named
from .expressions_on_server import Live, with_equivalent_expressions
from .objects import PARTITIONED, Catalog, Check, Column, ForeignKey, Object, Table, key_of, where
from .sequences import taken_values
from .tables import compare_tables, unlogged_order
from .unmanaged_findings import AGREE

# The order in which cures run: a key before the foreign keys that point at it.
ORDER = ("table", "column", "default", "primary_key", "unique", "check", "index", "foreign_key", "trigger", "rule", "grants")


@dataclass(frozen=True, slots=True)
class Comparison:
    findings: tuple[Finding, ...]  # in the order in which their cures must run
    matched: frozenset[Object]  # of the contract: those that exist as they should
    unmanaged: Catalog  # unmanaged objects: left alone


def compare(expected: Catalog, actual: Catalog, *, pending: Catalog | None = None, live: Live | None = None) -> Comparison:
    """Return how `actual` differs from `expected`; objects in `pending` may exist already, and are not unmanaged.

    `live` is the server `actual` was read from; without it expressions are compared as they are written.
    """
    to = Comparing(expected, actual, pending or Catalog(), live)
    if live is not None:
        to.findings += taken_values(expected, actual, live)
    compare_tables(to)
    if live is not None:
        to.actual = with_equivalent_expressions(to.expected, to.actual, live)
    compare_columns(to)
    compare_named(to)
    others = _unmanaged(to)
    to.findings += unmanaged.harmful(to.expected, others, to.actual, live)
    _fit_cures(to)
    generated = {where(column) for column in expected.columns if column.generated}
    unlogged = {name: place for place, name in enumerate(unlogged_order(to.actual))}

    def order(finding: Finding) -> tuple[int, bool, int, str, bool, str]:
        """Return the place of a cure: a generated column comes after those it is computed from, and a renaming first."""
        place = unlogged.get(finding.where, 0) if finding.code == "table.weaker" else 0
        return (
            ORDER.index(finding.code.partition(".")[0]),
            finding.where in generated,
            place,
            finding.where,
            not finding.code.endswith(".renamed"),
            finding.code,
        )

    return Comparison(tuple(sorted(to.findings, key=order)), frozenset(set(to.expected) - to.bad), others)


def _fit_cures(to: Comparing) -> None:
    """Fit the cures to partitioned and replaced tables, to those of other roles, and to the place of pg_trgm, which may be missing."""
    strangers = to.strangers()
    targets = {where(fk): fk.target for fk in to.expected.foreign_keys}
    left_out = {one.where for one in to.findings if one.loses and one.code in ("primary_key.missing", "unique.missing")}
    without_key = {
        where(fk): where(key)
        for fk in to.expected.foreign_keys
        for key in to.expected.keys
        if where(key) in left_out and (key.table, key.columns) == (fk.target, fk.target_columns)
    }
    waiting = {where(fk): fk for fk in to.expected.foreign_keys if not to.replaced.isdisjoint((fk.table, fk.target))}
    things: tuple[Column | Check, ...] = (*to.actual.columns, *to.actual.checks)
    inherited = {(thing.table, thing.name) for thing in things if thing.inherited}
    parted = {table.name for table in to.actual.tables if table.kind == PARTITIONED}
    owners = {table.name: table.owner for table in to.actual.tables if not table.owned}
    untyped = _untyped(to)
    for place, one in enumerate(to.findings):
        one = _apart(to, _typed_first(to, one, untyped), inherited)
        cure, message, loses = one.cure, one.message, one.loses
        if one.where.partition(".")[0] in parted:
            cure = cures.for_partitioned(cure)
        if one.code.startswith("foreign_key.") and one.where in waiting:
            fk = waiting[one.where]
            loses = f"it needs the table {fk.table if fk.table in to.replaced else fk.target} first"
        if one.code.startswith("foreign_key.") and one.where in without_key:
            loses = loses or f"it needs the key {without_key[one.where]} first"
        read = [name for name in (one.where.partition(".")[0], targets.get(one.where)) if one.is_sql and name in strangers]
        for name in read[:1]:
            loses = f"it runs code of {strangers[name]}, the owner of {name}, as the role that runs it: follow the cure of tables.untrusted first"
            cure = cures.preceded(loses, cure)
        if to.live is not None and one.is_sql and cures.uses_trigrams(cure):
            schema, first = to.live.trigrams()
            if schema is None:
                message, loses = f"{message} The extension pg_trgm, which its cure needs, is missing too.", loses or first
            if schema != to.live.schema:
                cure = cures.with_trigrams(cure, schema)
            if schema is None:
                cure = cures.preceded(first, cure)
        to.findings[place] = _as_owner(replace(one, cure=cure, message=message, loses=loses), owners)


def _as_owner(one: Finding, owners: dict[str, str]) -> Finding:
    """Return a finding whose cure is not run by this role if only the owner of the table may run it; `owners` are those of others' tables."""
    table = one.where.partition(".")[0]
    if one.loses or not one.is_sql or table not in owners or not cures.needs_owner(one.cure):
        return one
    cure = cures.preceded(f"As {owners[table]}, the owner of {table}:", one.cure)
    return replace(one, cure=cure, loses="the owner of the table, or a superuser, must run it")


def _untyped(to: Comparing) -> dict[tuple[str, str], Finding]:
    """Return the columns that a cure adds, or whose type it changes, only after someone has read it."""
    types = {(column.table, column.name): column.type for column in to.actual.columns}
    ours = {where(column): (column.table, column.name) for column in to.expected.columns}
    wrong = {
        where(column) for column in to.expected.columns if types.get((column.table, column.name), column.type) != column.type
    }
    return {
        ours[one.where]: one
        for one in to.findings
        if one.loses
        and (one.code == "column.missing" or (one.code == "column.different" and one.where in wrong and " TYPE " in one.cure))
    }


def _typed_first(to: Comparing, one: Finding, untyped: dict[tuple[str, str], Finding]) -> Finding:
    """Return a finding whose cure is not run before those for its columns and their types, without which it fails."""
    if one.loses or not one.is_sql or one in untyped.values():
        return one
    columns = {
        place
        for place in untyped
        if ".".join(place) == one.where and (one.code.startswith("default.") or "IDENTITY" in one.cure)
    }
    if one.code.endswith((".missing", ".different")):
        things: tuple[Any, ...] = (*to.expected.keys, *to.expected.checks, *to.expected.indexes, *to.expected.foreign_keys)
        for thing in (thing for thing in things if where(thing) == one.where):
            columns |= {place for place in untyped if place[0] == thing.table and _uses(thing, place[1])}
            if isinstance(thing, ForeignKey):
                columns |= {place for place in untyped if place[0] == thing.target and place[1] in thing.target_columns}
    missing = {place for place in columns if untyped[place].code == "column.missing"}
    if not columns or (one.code.endswith(".different") and not missing):
        return one
    needed = get_text_list([*map(".".join, sorted(missing or columns))], "and")
    return replace(one, loses=f"it needs {'' if missing else 'the type of '}{needed} first")


def _uses(thing: Any, name: str) -> bool:
    """Return whether a key, a constraint or an index uses a column, perhaps in an expression."""
    texts = (
        *thing.columns,
        *getattr(thing, "include", ()),
        getattr(thing, "predicate", None),
        getattr(thing, "expression", None),
    )
    return name in thing.columns or any(cures.mentions(text, Column(thing.table, name, "")) for text in texts)


def _apart(to: Comparing, one: Finding, inherited: set[tuple[str, str]]) -> Finding:
    """Return a finding whose cure first separates our table from those that it inherits from, and is not run where others inherit from it."""
    tables = {table.name: table for table in to.actual.tables}
    statements = one.cure.removeprefix(AGREE)
    if not one.is_sql and statements == one.cure:
        return one
    here = tuple(one.where.split(".", 1))  # A renamed column has its new name in `inherited`.
    held = [
        tables[table]
        for table, name in dict.fromkeys(cures.refused_if_inherited(statements))
        if (table, name) in inherited or (table == here[0] and here in inherited)
    ]
    parents = {(table.name, parent): None for table in held for parent in table.parents}
    cure = "\n".join([*(cures.no_inherit(quote(table), parent) for table, parent in parents), statements])
    wholes = [table.partition_of for table in held if table.partition_of]
    spread = [child for name in cures.spreads(statements) if name in tables for child in tables[name].children]
    loses = one.loses
    if spread:
        loses = f"it changes {', '.join(spread)} too: follow the cure of table.inherited first"
    elif wholes:
        loses = f"PostgreSQL refuses it in a partition of {wholes[0]}: follow the cure of table.partition first"
    elif parents:
        loses = f"{one.where.partition('.')[0]} would no longer inherit from {', '.join(parent for _, parent in parents)}: ask the owner first"
    return replace(one, cure=cure, loses=loses) if one.is_sql else replace(one, cure=f"{AGREE}{cure}")


def _unmanaged(to: Comparing) -> Catalog:
    known = {key_of(thing) for thing in (*to.expected, *to.pending)}
    ours = {thing.name for thing in (*to.expected.tables, *to.pending.tables)}
    return to.actual.where(
        lambda thing: (
            key_of(thing) not in known and thing not in to.claimed and (isinstance(thing, Table) or thing.table in ours)
        )
    )
