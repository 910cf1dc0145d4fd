"""Rows of other roles' tables, read by COPY: it runs none of their code and writes values in their type's text form.

A SELECT would run their casts as the reading role, and during planning the functions in their index expressions.
A person's data in other rows is found by trace.py (foreign keys), without_foreign_key.py (our tables without one) and search.py (any column).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b

from ..errors import Refusal
from ..snapshot_after_locks import is_rewritten, lock_alone
from ..sql import quote
from ..units import size
from .patterns import LARGE, Pattern, Patterns, as_digits
from .tables import Column, ForeignKey, Table, Tables

ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
ESCAPED = {written: letter for letter, written in ESCAPES.items()}
NULL = b"\\N"
BYTES = (b"\\x", b"\\X")  # The prefix of bytea in hex format, and as text.
PIECE = 1 << 20  # Bytes of a line that are searched at once.
DIGEST = 16  # Bytes.
MOST_HELD = 256 << 20  # Bytes of memory for rows of other roles' tables that refer to a person.
OVERHEAD = 256  # Bytes for a place in a set, and for its number, besides its text.


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
        raise Rewritten(f"Another session rewrote or truncated {place} in the meantime, so its rows were not read: try again.")
    listed = ", ".join(quote(column.name) for column in columns)
    statement = f"COPY {place} ({listed}) TO STDOUT"
    with cursor.db.wrap_database_errors, cursor.copy(statement) as copy:
        for row in copy:
            yield bytes(row)


def referring(cursor, tables: Tables, fk: ForeignKey, keys: list[list[str]]) -> dict[int, set[str]]:
    """Return the rows that reference one of `keys` by `fk`, by the oid of their table."""
    wanted = {tuple(_escaped(value).encode() for value in key) for key in zip(*keys, strict=True)}
    return {table.oid: _places(cursor, tables, table, fk, wanted) for table in tables.parts(fk.table)}


def keys_of(tables: Tables, oid: int, places: set[str], fk: ForeignKey) -> list[list[str]]:
    """Return the values that `fk` may reference in rows of a table, a list for each of its columns."""
    at = _positions(_followed(tables, oid), fk.keys)
    values = {tuple(row[one] for one in at) for row in map(_followed_values, places)}
    known = sorted(tuple(map(_value, key)) for key in values if NULL not in key)
    return [list(column) for column in zip(*known, strict=True)]


def naming_anyone(tables: Tables, oid: int, places: set[str], fk: ForeignKey) -> set[str]:
    """Return those of the rows of a table whose reference by `fk` is not NULL."""
    at = _positions(_followed(tables, oid), fk.columns)
    return {place for place in places if NULL not in [_followed_values(place)[one] for one in at]}


def rows_at(cursor, tables: Tables, table: Table, places: set[str]) -> Iterator[dict[str, str | None]]:
    """Yield the rows of a table at `places`, by column; they must be of the same snapshot."""
    columns = copied_columns(tables, table.oid)
    is_wanted = _counted(places)
    for line in lines(cursor, table, columns):
        if is_wanted(line):
            values = (None if value == NULL else _value(value) for value in _values(line))
            yield {column.name: value for column, value in zip(columns, values, strict=True)}


def _followed(tables: Tables, oid: int) -> dict[str, bool]:
    """Return the columns of a table that belong to foreign keys, and whether other tables refer to their values."""
    lineage = tables.lineage(oid)
    referring = {name for fk in tables.foreign_keys if fk.table in lineage for name in fk.columns}
    referenced = {name for fk in tables.foreign_keys if fk.target in lineage for name in fk.keys}
    names = (column.name for column in copied_columns(tables, oid))
    return {name: name in referenced for name in names if name in referring | referenced}


def _positions(columns: Iterable[str], names: Sequence[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(columns)}
    return [numbers[name] for name in names]


def _places(cursor, tables: Tables, table: Table, fk: ForeignKey, wanted: set[tuple[bytes, ...]]) -> set[str]:
    """Return the rows with the wanted values in the columns of `fk`.

    A place is the digest of a row, a number, because rows may be equal, and the values of `_followed`, NULL or empty unless other
    tables refer to them. A whole row may be much larger than on the disk, where it is compressed.
    """
    columns = copied_columns(tables, table.oid)
    names = [column.name for column in columns]
    at, followed = _positions(names, fk.columns), _followed(tables, table.oid)
    kept = [*zip(_positions(names, [*followed]), followed.values(), strict=True)]
    seen: Counter[str] = Counter()
    places: set[str] = set()
    for line in lines(cursor, table, columns):
        values = [*_values(line)]
        if tuple(values[one] for one in at) not in wanted:
            continue
        digest = _digest(line)
        parts = (values[one] if is_referenced or values[one] == NULL else b"" for one, is_referenced in kept)
        place = "\t".join([f"{digest}{seen[digest]}", *(part.decode(errors="replace") for part in parts)])
        seen[digest] += 1
        places.add(place)
        tables.held.bytes += len(place.encode()) + OVERHEAD
        if tables.held.bytes > MOST_HELD:
            raise Refusal(
                f"Nothing was changed. The rows that refer by the foreign key {fk.name} cannot be counted: {tables.label(table.oid)}"
                f" belongs to the role {table.untrusted_role}, and its rows take more than {size(MOST_HELD)} of memory: ask its owner to"
                " delete them, or drop the foreign key."
            )
    return places


def _digest(line: bytes) -> str:
    return blake2b(line, digest_size=DIGEST).hexdigest()


def _followed_values(place: str) -> list[bytes]:
    return [text.encode() for text in place.split("\t")[1:]]


def _counted(places: set[str]) -> Callable[[bytes], bool]:
    """Return a function that tells for each line of a table whether it is at one of `places`."""
    left = Counter(place[: 2 * DIGEST] for place in places)

    def is_there(line: bytes) -> bool:
        if not left or not left[digest := _digest(line)]:
            return False
        left[digest] -= 1
        return True

    return is_there


def _values(line: bytes) -> Iterator[bytes]:
    """Yield the values of a line, as COPY writes them."""
    at = 0
    while (end := line.find(b"\t", at)) >= 0:
        yield line[at:end]
        at = end + 1
    yield line[at:-1]


def search(cursor, table: Table, columns: list[Column], wanted: Patterns, excluded: set[str]) -> dict[str, dict[str, int]]:
    """Return how many rows of a table, other than `excluded`, contain the address and the id, by column."""
    may_match, is_excluded = _prefilter(wanted.any), _counted(excluded)
    found: dict[str, dict[str, int]] = {}
    for line in lines(cursor, table, columns):
        if not may_match(line) or is_excluded(line):
            continue
        for column, value in zip(columns, _values(line), strict=True):
            if value == NULL or not column.is_searched:
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
    return _containing([part.strip("%").encode() for part in pattern.parts], [part.strip("%") for part in pattern.parts])


def _containing(parts: Sequence[bytes], words: Sequence[str]) -> Callable[[bytes], bool]:
    """Return a function that tells whether a text contains one of `parts`, or bytes with one of `words` as hex digits."""
    digits = re.compile("|".join(map(as_digits, words)).encode())
    overlap = 8 * max(len(word.encode()) for word in words)  # Also with escapes, as digits, and in the other case.

    def is_in(text: bytes) -> bool:
        has_bytes = any(prefix in text for prefix in BYTES)
        for at in range(0, len(text), PIECE):
            lower = text[at : at + PIECE + overlap].lower()
            if any(part in lower for part in parts) or (has_bytes and digits.search(lower)):
                return True
        return False

    return is_in


def matches(column: Column, value: bytes, pattern: Pattern) -> bool:
    """Return whether a value of a column, as COPY writes it, matches a pattern."""
    if len(value) > LARGE:
        return bool(pattern.plain) and _containing([_escaped(form).encode() for form in pattern.forms], pattern.forms)(value)
    text = _value(value)
    if column.base == "bytea":
        text = bytes.fromhex(text.removeprefix("\\x")).decode(errors="replace")
    if pattern.compiled.search(text):
        return True
    return not column.is_plain and "\\x" in text and pattern.compiled_digits.search(text) is not None


def _value(value: bytes) -> str:
    return _unescaped(value.decode(errors="replace"))


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: ESCAPED.get(found[0], found[0]), text) if "\\" in text else text
