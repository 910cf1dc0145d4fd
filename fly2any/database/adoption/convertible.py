"""Prisma's objects in the form of the contract: the differences that adoption converts are not drift.

`is_convertible` decides which columns adoption converts: those whose new type needs no rewrite of the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..schema import Catalog, Check, Column, Index, Key
from ..schema.contract import ADDED, MAY_BE_NULL

TIME = "timestamp with time zone"
PRISMAS_TIME = re.compile(r"timestamp(\(\d\))? (with|without) time zone")
NOT_NULL = "adopting_not_null"  # The prefix of the check that is validated before a column is set NOT NULL.


def is_convertible(column: Column, live: Column) -> bool:
    """Return whether `live` becomes `column` by a change of its type that rewrites no row (D1)."""
    return live.type != column.type == TIME and PRISMAS_TIME.fullmatch(live.type) is not None


def added_columns(expected: Catalog) -> tuple[Column, ...]:
    """Return the columns that Phase 7 lacks and the first migrations have (D2)."""
    return tuple(column for column in expected.columns if (column.table, column.name) in ADDED)


def index_of(key: Key, live: Catalog) -> Index | None:
    """Return the unique index with the name of `key` and the definition of its index (D3)."""
    return index_for(key) if index_for(key) in live.indexes else None


def index_for(key: Key) -> Index:
    """Return the index from which ADD CONSTRAINT … USING INDEX creates `key`."""
    return Index(key.table, key.name, key.columns, ("",) * len(key.columns), unique=True, include=key.include)


def converted(expected: Catalog, live: Catalog) -> Catalog:
    """Return `live` as it will be after the adoption's conversions; remaining differences from `expected` are drift."""
    wanted = {(column.table, column.name): column for column in expected.columns}
    added = {(column.table, column.name): column for column in added_columns(expected)}
    tables = {table.name for table in live.tables if table.kind == "table"}
    columns: list[Column] = []
    for column in live.columns:
        target = wanted.get((column.table, column.name))
        if target is not None and (column.table, column.name) in added and _is_partial(target, column):
            column = target
        elif target is not None and is_convertible(target, column):
            column = replace(column, type=target.type)
        if target is not None and (column.table, column.name) in MAY_BE_NULL and replace(column, nullable=False) == target:
            column = target
        columns.append(column)
    existing = {(column.table, column.name) for column in live.columns}
    columns += [column for place, column in added.items() if place not in existing and column.table in tables]
    keys, indexes = list(live.keys), list(live.indexes)
    for key in expected.keys:
        if index_of(key, live) is not None or _is_added_key(key, live, added.values(), tables):
            keys = [*(other for other in keys if other != replace(key, primary=False)), key]
            made = index_for(key)
            indexes = [other for other in indexes if replace(other, valid=True, ready=True) != made]
    checks = tuple(check for check in live.checks if not is_ours(check))
    return replace(live, columns=_sorted(columns), keys=_sorted(keys), indexes=tuple(indexes), checks=checks)


def _is_partial(column: Column, live: Column) -> bool:
    """Return whether `live` is the state of `column` after an interrupted run."""
    return replace(live, nullable=column.nullable, validated=column.validated, default=live.default or column.default) == column


def is_ours(check: Check) -> bool:
    """Return whether a check belongs to an interrupted conversion."""
    return check.name.startswith(NOT_NULL)


def _is_added_key(key: Key, live: Catalog, added: Iterable[Column], tables: set[str]) -> bool:
    """Return whether `key` belongs to a column that adoption adds, and does not exist yet."""
    ours = any((column.table, (column.name,)) == (key.table, key.columns) for column in added)
    existing = any(other.table == key.table and other.primary for other in live.keys)
    return ours and key.table in tables and not existing


def _sorted(things: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(things, key=lambda thing: (thing.table, thing.name)))
