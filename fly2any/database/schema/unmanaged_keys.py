"""Unmanaged keys and indexes on our tables that make our writes fail, or could."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import facts
from ..findings import Finding, Severity
from ..sql import quote
from ..units import plural
from . import cures
from .cures import mentions
from .expressions import calls_nothing
from .objects import OF_REINDEX, Index, Key, of_invalid, where
from .samples import Clash, kind
from .unmanaged_findings import MAY_REFUSE, Obstacles, obstacle

# The bytes of an index entry on pages of 8 kB; a hash index stores no value, and SP-GiST divides it. A BRIN entry of 8,152 bytes holds
# the smallest and the largest value.
LONGEST_ENTRY = {"btree": 2704, "gin": 2712, "gist": 8152, "brin": 4064}
UNLIMITED = {"text", "jsonb", "text[]", "bytea"}
LONG_TEXTS = facts.columns("long_texts")


class Keys(Obstacles):
    def of_unique(self, thing: Key | Index) -> Iterator[Finding]:
        if isinstance(thing, Index) and not (thing.ready or thing.building):  # No write updates it, so it refuses none.
            return
        noun = "Unique constraint" if isinstance(thing, Key) else "Unique index"
        title, drop = f"{noun} {thing.name} of {thing.table} is unmanaged", cures.drop(thing)
        if self.computed(thing.table, (*thing.columns, *getattr(thing, "uses", ()))):
            thing = self.expanded_index(thing)
        managed = self.managed(thing.table)
        names = [name for name in thing.columns if name in managed or self.stored(thing.table, name)]
        computed = [name for name in thing.columns if name not in names]
        differing = {self.differs(thing.table, name) for name in names}
        if self.is_implied(thing) or True in differing:
            return
        uses = set(thing.uses) if isinstance(thing, Index) and thing.uses else set(names)
        rows = self.rows(thing.table, uses, inserted=True)
        if thing.nulls_distinct and any(self.is_null(thing.table, name) for name in names):
            return
        if isinstance(thing, Index):
            if thing.nulls_distinct and any(self.never(thing, f"({one}) IS NOT NULL", rows) for one in computed):
                return
            own = thing.own or calls_nothing(thing.predicate or "")  # The predicate, whatever the expressions call.
            if thing.predicate and self.never(replace(thing, own=own), thing.predicate, rows):
                return
        if None in differing:
            filled = ", ".join(
                column.filled or ""
                for name in names
                if (column := self.stored(thing.table, name)) and self.differs(thing.table, name) is None
            )
            yield self.untried("unique.extra", thing, title, Clash(), f"an INSERT fails where {filled} returns a value again")
        elif not uses & managed.keys():
            message = f"{title}, and refuses the second row that we INSERT."
            yield obstacle("unique.extra", thing, message, drop, Severity.ERROR)
        else:
            yield self.of_unproved_unique(thing, title, uses, drop)

    def of_unproved_unique(self, thing: Key | Index, title: str, uses: set[str], drop: str) -> Finding:
        """Return the finding about a key over columns of ours that no key of ours is known to imply."""
        refuses = "refuses rows that the contract allows"
        if any(key.table == thing.table and set(key.columns) <= uses for key in self.expected.keys):
            clash = self.clash(thing) if isinstance(thing, Index) and thing.exact else Clash()
            if clash.known and not clash.rows:
                return self.untried("unique.extra", thing, title, clash, "a write fails where two rows have the same value")
            refuses = f"{refuses}, such as {clash.rows}" if clash.rows else MAY_REFUSE
        return obstacle("unique.extra", thing, f"{title}, and {refuses}.", drop)

    def of_index(self, index: Index) -> Iterator[Finding]:
        if not ((index.valid and index.ready) or index.building):
            if self.is_copy(index):
                message = (
                    f"Index {index.name} of {index.table} was left by an interrupted REINDEX CONCURRENTLY: {of_invalid(index)}."
                )
                yield Finding(Severity.WARNING, "index.extra", where(index), message, cures.drop(index), is_sql=True)
            else:
                message = f"Index {index.name} of {index.table} is unmanaged and invalid: {of_invalid(index)}."
                yield obstacle("index.extra", index, message, cures.drop(index))
            return
        computed = [one for one in (*index.columns, index.predicate) if one and not self.is_column(index.table, one)]
        title = f"Index {index.name} of {index.table} is unmanaged"
        if not computed or (index.own and all(self.never_raises(index.table, one) for one in computed)):
            return
        first = [index.predicate] if index.predicate else []  # Only rows that satisfy the predicate are indexed.
        values = [f"({one}) IS NULL" for one in computed if one != index.predicate]
        never = f"num_nulls({', '.join(values)}) < 0" if values else f"CASE WHEN {index.predicate} THEN false ELSE false END"
        trial = self.trial(index, " AND ".join([*first, never]), index.uses)
        if trial.raised:
            yield self.raising(
                "index.extra", index, f"{title}, and its expression {', '.join(computed)}", trial, cures.drop(index)
            )
        else:
            yield self.may_raise("index.extra", index, title, trial, ", ".join(computed))

    def is_copy(self, index: Index) -> bool:
        """Return whether an invalid index is a copy of one of ours; PostgreSQL shortens its name to 63 bytes."""
        end = OF_REINDEX.search(index.name)
        things: list[Key | Index] = [*self.expected.indexes, *self.expected.keys]
        ours = (thing.name for thing in things if thing.table == index.table)
        return end is not None and any(name[: 63 - len(end[0])] == index.name[: end.start()] for name in ours)

    def is_column(self, table: str, name: str) -> bool:
        return any((column.table, column.name) == (table, name) for column in self.actual.columns)

    def of_length(self, thing: Key | Index) -> Iterator[Finding]:
        """Yield the finding about an index that refuses rows whose entry would be too long."""
        for one, limit in self.too_long(thing)[:1]:
            title = f"{'Index' if isinstance(thing, Index) else 'Unique constraint'} {thing.name} of {thing.table} is unmanaged"
            message = f"{title}, and a write fails where {one} exceeds {plural(limit, 'byte')} after compression, the maximum size of an index entry."
            cure = f"{cures.drop(thing)}\n{cures.comment(self.shorter(thing.table, one))}"
            severity = Severity.WARNING if self.is_long(thing.table, one) else Severity.NOTE
            yield obstacle("index.extra", thing, message, cure, severity)

    def too_long(self, thing: Key | Index) -> list[tuple[str, int]]:
        """Return the columns and expressions of an index whose values may exceed the most bytes that its entries hold, and these."""
        index = self.expanded_index(thing)
        limit = LONGEST_ENTRY.get(index.method)
        columns = [*zip(thing.columns, index.columns, index.options, strict=True)]
        parts = [name for name, part in zip(thing.columns, index.parts, strict=False) if part]
        columns += [(name, one, "") for name, one in zip(thing.include, index.include, strict=True)]
        return [
            (name, limit)
            for name, one, option in columns
            if limit and "bloom" not in option and name not in parts and self.may_exceed(index, one, limit)
        ]

    def shorter(self, table: str, one: str) -> str:
        """Return how else a column or expression can be indexed; the functions of a part and a digest exist for text only."""
        column = next((column for column in self.actual.columns if (column.table, column.name) == (table, one)), None)
        if column and kind(column) != "text":
            return "Or index it USING hash"
        named = quote(one) if column else one
        return f"Or index a part or a digest of it: left({named}, 500), md5({named}), or USING hash"

    def is_long(self, table: str, one: str) -> bool:
        """Return whether a column or expression holds what is often long: JSON, an array, or a text of several lines."""
        names = {one, *(name for column in self.computed(table, [one]) for name in self.read_by(column))}
        used = (
            column
            for column in self.actual.columns
            if column.table == table and (column.name in names or mentions(one, column))
        )
        return any(kind(column) != "text" or column.name in LONG_TEXTS.get(table, ()) for column in used)

    def may_exceed(self, index: Index, one: str, limit: int) -> bool:
        """Return whether the contract allows a value of a column or expression that is longer than `limit`."""
        columns = {column.name: column for column in self.actual.columns if column.table == index.table}
        plain = columns.get(one)
        if plain and kind(plain) not in UNLIMITED:
            return False
        short, managed = self.short(index.table), self.managed(index.table)
        measured = [name for name, column in columns.items() if name == one or (not plain and mentions(one, column))]
        if not managed.keys() & {*measured} - short:  # The values of other programs are not ours.
            return False
        asked = [index.predicate] if index.predicate else []  # Only rows that satisfy the predicate are indexed.
        asked += [f"octet_length({quote(name)}::text) <= {limit}" for name in measured if name in short]
        asked.append(f"octet_length(({quote(one) if plain else one})::text) > {limit}")
        used = {*measured, *(name for name, column in columns.items() if mentions(index.predicate, column))}
        trial = self.trial(index, " AND ".join(asked), used)
        return bool(trial.refused) or (plain is not None and not trial.known)
