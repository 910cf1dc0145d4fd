"""What is not ours, where it stops our writes or could: the only case in which it is a finding."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..sql import quote
from . import cures
from .objects import Catalog, Index, Key, Object, Table, where


def in_the_way(expected: Catalog, foreign: Catalog, live_tables: tuple[Table, ...]) -> Iterator[Finding]:
    """Yield a finding for each foreign object on a table of ours that refuses, or may change, what the contract allows."""
    ours: dict[str, set[str]] = {}
    for column in expected.columns:
        ours.setdefault(column.table, set()).add(column.name)
    yield from _columns(foreign, ours)
    yield from _uniques(expected, foreign, ours)
    for index in foreign.indexes:
        if index.table in ours and not (index.valid and index.ready):
            message = f"Index {index.name} of {index.table} is not ours and invalid: no query uses it, every write pays for it."
            yield _finding("index.extra", index, message, cures.drop(index))
    for check in foreign.checks:
        if check.table in ours and set(check.columns) <= ours[check.table]:
            message = f"Constraint {check.name} of {check.table}, {check.expression}, is not ours, and refuses rows that the contract allows."
            yield _finding("check.extra", check, message, cures.drop(check))
    for fk in foreign.foreign_keys:
        if fk.table in ours and set(fk.columns) <= ours[fk.table]:
            message = f"Foreign key {fk.name} of {fk.table} is not ours, and refuses or deletes rows that the contract allows."
            yield _finding("foreign_key.extra", fk, message, cures.drop(fk))
    for table in live_tables:
        if table.name in ours:
            for name in table.triggers:
                yield Finding(
                    Severity.NOTE,
                    "trigger.extra",
                    f"{table.name}.{name}",
                    f"Trigger or rule {name} of {table.name} is not ours, and may change or refuse what we write.",
                    "See what it does (\\d+ in psql); `manage.py dbstatus --write-check` tells whether a row goes in and out.",
                )


def _columns(foreign: Catalog, ours: dict[str, set[str]]) -> Iterator[Finding]:
    for column in foreign.columns:
        if column.table in ours and not column.can_be_left_out:
            message = f"Column {column.name} of {column.table} is not ours, NOT NULL and without a default, so every insert of ours fails."
            cure = f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)} DROP NOT NULL;"
            yield _finding("column.extra", column, message, cure, Severity.ERROR)


def _uniques(expected: Catalog, foreign: Catalog, ours: dict[str, set[str]]) -> Iterator[Finding]:
    keys = [(key.table, set(key.columns)) for key in expected.keys]
    things: list[Key | Index] = [*foreign.keys, *(index for index in foreign.indexes if index.unique)]
    for thing in things:
        if thing.table not in ours:
            continue
        # An expression counts as ours; a key of fewer columns, which is ours, implies a wider one.
        plain = {column for column in thing.columns if column.isidentifier()}
        implied = any(table == thing.table and columns <= set(thing.columns) for table, columns in keys)
        if plain <= ours[thing.table] and not implied:
            kind = "Unique constraint" if isinstance(thing, Key) else "Unique index"
            message = f"{kind} {thing.name} of {thing.table} is not ours, and refuses rows that the contract allows."
            yield _finding("unique.extra", thing, message, cures.drop(thing))


def _finding(code: str, thing: Object, message: str, cure: str, severity: Severity = Severity.WARNING) -> Finding:
    return Finding(severity, code, where(thing), message, f"{AGREE}{cure}")


# What is foreign is somebody's: never a cure to paste without asking.
AGREE = "Agree with its owner, then run: "
