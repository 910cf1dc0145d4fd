"""A mutation of the contract's schema, and what its generators share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from fly2any.database.schema import Check, Column, ForeignKey, Index, Key
from fly2any.database.schema import contract as contracts

CONTRACT = contracts.load()
EXPECTED = contracts.catalog_of(CONTRACT.expected(CONTRACT.migrations))


@dataclass(frozen=True)
class Mutation:
    name: str
    sql: str
    found: frozenset[tuple[str, str]]  # code and where of every finding
    since: int = 0  # the major version of PostgreSQL that can do this damage
    reads: str = ""  # a table that is not damaged and must be reported as such

    @property
    def table(self) -> str:
        return re.match(r"\w+", self.name)[0]

    @cached_property
    def damages(self) -> frozenset[str]:
        """The tables that are damaged meanwhile."""
        return frozenset([self.table, *(where.partition(".")[0] for _, where in self.found)])


def q(name: str) -> str:
    return f'"{name}"'


def within(cure: str) -> str:
    """A cure as a test runs it, which is in a transaction already."""
    return cure.replace(" CONCURRENTLY", "")


def columns(names) -> str:
    return ", ".join(map(q, names))


def at(thing) -> str:
    return f"{thing.table}.{thing.name}"


def kind(thing) -> str:
    if isinstance(thing, Key):
        return "primary_key" if thing.primary else "unique"
    return {Check: "check", Index: "index", ForeignKey: "foreign_key"}[type(thing)]


def missing(things) -> set[tuple[str, str]]:
    return {(f"{kind(thing)}.missing", at(thing)) for thing in things}


def hanging_on(column: Column) -> list:
    """The objects that PostgreSQL drops with a column."""
    mine = [
        thing
        for thing in (*EXPECTED.keys, *EXPECTED.checks, *EXPECTED.indexes, *EXPECTED.foreign_keys)
        if thing.table == column.table and (column.name in thing.columns or column.name in expression_of(thing))
    ]
    theirs = [fk for fk in EXPECTED.foreign_keys if fk.target == column.table and column.name in fk.target_columns]
    return [*mine, *theirs]


def column_type(table: str, name: str) -> str | None:
    """The type of a column, None of an expression."""
    return next((column.type for column in EXPECTED.columns if (column.table, column.name) == (table, name)), None)


def expression_of(thing) -> str:
    """Expressions that name columns: a condition, or an expression in an index."""
    computed = " ".join(name for name in getattr(thing, "columns", ()) if "(" in name)
    return getattr(thing, "predicate", None) or getattr(thing, "expression", None) or computed


def included(thing) -> str:
    return next(column.name for column in EXPECTED.columns if column.table == thing.table and column.name not in thing.columns)
