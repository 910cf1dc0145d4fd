"""Rows of other roles' tables, read by COPY: it runs none of their code and writes values in their type's text form.

A SELECT would run their casts as the reading role, and during planning the functions in their index expressions.
A person's data in other rows is found by trace.py (foreign keys), own.py (our tables without one) and search.py (any column).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from ..errors import Refusal
from ..locked_tables import is_rewritten, lock_alone
from ..sql import quote
from .patterns import Pattern, Patterns, as_digits
from .tables import Column, ForeignKey, Table, Tables

ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
ESCAPED = {written: letter for letter, written in ESCAPES.items()}
NULL = "\\N"
BYTES = b"\\x"  # The prefix of bytea in hex format.


class Rewritten(Refusal):
    """A table was rewritten or truncated after the transaction took its snapshot."""


def copied_columns(tables: Tables, oid: int) -> list[Column]:
    """Return the columns of a table that COPY can write and this role may read."""
    return [column for column in tables.columns.get(oid, ()) if column.may_read and not column.is_generated]


def lines(cursor, table: Table, columns: Sequence[Column]) -> Iterator[bytes]:
    """Yield each row of a table as a line of COPY; raise django.db.Error if it cannot be read.

    Raises Rewritten in a transaction of one snapshot if the snapshot no longer shows the rows.
    """
    place = f"{quote(table.schema)}.{quote(table.name)}"
    lock_alone(cursor, place)
    if is_rewritten(cursor.db, table.oid):
        raise Rewritten(f"Another session rewrote or truncated {place} meanwhile, so its rows were not read: try again.")
    listed = ", ".join(quote(column.name) for column in columns)
    statement = f"COPY {place} ({listed}) TO STDOUT"
    with cursor.db.wrap_database_errors, cursor.copy(statement) as copy:
        for row in copy:
            yield bytes(row)


def fields(place: str) -> list[str | None]:
    """Return the values of a row, given its place."""
    values = place.rpartition("\n")[0].split("\t")
    return [None if value == NULL else _unescaped(value) for value in values]


def referring(cursor, tables: Tables, fk: ForeignKey, keys: list[list[str]]) -> dict[int, set[str]]:
    """Return the rows that reference one of `keys` by `fk`, by the oid of their table."""
    wanted = {tuple(_escaped(value).encode() for value in key) for key in zip(*keys, strict=True)}
    return {
        table.oid: _places(cursor, table, copied_columns(tables, table.oid), fk.columns, wanted)
        for table in tables.parts(fk.table)
    }


def keys_of(tables: Tables, oid: int, places: set[str], fk: ForeignKey) -> list[list[str]]:
    """Return the values that `fk` may reference in rows of a table, a list for each of its columns."""
    at = _positions(copied_columns(tables, oid), fk.keys)
    values = {tuple(row[one] for one in at) for row in map(fields, places)}
    known = sorted(tuple(map(str, key)) for key in values if None not in key)
    return [list(column) for column in zip(*known, strict=True)]


def _positions(columns: list[Column], names: Sequence[str]) -> list[int]:
    numbers = {column.name: number for number, column in enumerate(columns)}
    return [numbers[name] for name in names]


def _places(cursor, table: Table, columns: list[Column], names: Sequence[str], wanted: set[tuple[bytes, ...]]) -> set[str]:
    """Return the rows with the wanted values in the columns `names`: each as its text and a number, because rows may be equal."""
    at = _positions(columns, names)
    seen: Counter[bytes] = Counter()
    for line in lines(cursor, table, columns):
        values = line[:-1].split(b"\t")
        if tuple(values[one] for one in at) in wanted:
            seen[line] += 1
    return {_place(line, number) for line, count in seen.items() for number in range(count)}


def _place(line: bytes, number: int) -> str:
    return f"{line.decode(errors='replace')}{number}"


def search(cursor, table: Table, columns: list[Column], wanted: Patterns, excluded: set[str]) -> dict[str, dict[str, int]]:
    """Return how many rows of a table, other than `excluded`, contain the address and the id, by column."""
    may_match = _prefilter(wanted.any)
    found: dict[str, dict[str, int]] = {}
    seen: Counter[bytes] = Counter()
    for line in lines(cursor, table, columns):
        if not may_match(line):
            continue
        place = _place(line, seen[line])
        seen[line] += 1
        if place in excluded:
            continue
        for column, value in zip(columns, fields(place), strict=True):
            if value is None or not column.is_searched:
                continue
            counts = found.setdefault(column.name, {"address": 0, "similar": 0, "id": 0})
            if wanted.address and matches(column, value, wanted.address):
                counts["address"] += 1
            elif wanted.within and matches(column, value, wanted.within):
                counts["similar"] += 1
            counts["id"] += matches(column, value, wanted.id)
    return found


def _prefilter(pattern: Pattern) -> Callable[[bytes], bool]:
    """Return a function that tells whether a line may match: most lines do not, and need no parsing."""
    parts = [part.strip("%").encode() for part in pattern.parts]
    digits = re.compile("|".join(as_digits(part.decode()) for part in parts).encode())

    def may_match(line: bytes) -> bool:
        lower = line.lower()
        return any(part in lower for part in parts) or (BYTES in lower and digits.search(lower) is not None)

    return may_match


def matches(column: Column, value: str, pattern: Pattern) -> bool:
    """Return whether a value of a column matches a pattern."""
    if column.base == "bytea":
        value = bytes.fromhex(value.removeprefix("\\x")).decode(errors="replace")
    if pattern.compiled.search(value):
        return True
    return not column.is_plain and "\\x" in value and pattern.compiled_digits.search(value) is not None


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: ESCAPED.get(found[0], found[0]), text) if "\\" in text else text
