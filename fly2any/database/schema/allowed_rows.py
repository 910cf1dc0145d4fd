"""Which rows the contract allows in a table of ours, as far as the server can prove it, or try it on sample rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from ..sql import literal, quote
from .cures import mentions
from .expressions import (
    CONSTANT,
    PLAIN,
    SEARCHED,
    assigned,
    changes,
    distinguishing_column,
    is_distinct,
    is_total,
    with_column_replaced,
    without_new_values,
)
from .expressions_on_server import Live, Rows
from .objects import Catalog, Check, Column, Index, Key
from .samples import TRUE, Clash, Outcome, Trial, find_clash, judge, samples


@dataclass(frozen=True, slots=True)
class Allowed:
    """The contract, a catalogue, its unmanaged objects, and the server that it was read from."""

    expected: Catalog
    unmanaged: Catalog
    actual: Catalog
    live: Live | None

    def managed(self, table: str) -> dict[str, Column]:
        return {column.name: column for column in self.expected.columns if column.table == table}

    def rows(self, table: str, names: Iterable[str], *, inserted: bool) -> Rows:
        """Return the rows that our INSERT stores, or those that may exist."""
        managed, used = self.managed(table), set(names)
        columns = self.columns(table, used)
        return Rows(columns, frozenset(used - managed.keys()) if inserted else frozenset())

    def columns(self, table: str, names: Collection[str]) -> tuple[Column, ...]:
        """Return columns as they are, but NOT NULL where the contract demands it."""
        required = {name for name, column in self.managed(table).items() if not column.nullable}
        found = (column for column in self.actual.columns if column.table == table and column.name in names)
        return tuple(replace(column, nullable=False) if column.name in required else column for column in found)

    def never(self, thing: Check | Index | Column, condition: str, rows: Rows) -> bool:
        return self.live is not None and self.trusts(thing) and self.live.never(condition, rows)

    def trial(self, thing: Check | Index | Column, condition: str, names: Iterable[str]) -> Trial:
        """Return the result of a condition that rejects rows, for sample rows that the contract allows."""
        used = {*names}
        ours = [one for one in self.expected.checks if one.table == thing.table and not used.isdisjoint(one.columns)]
        used |= {name for one in ours for name in one.columns}
        given = "".join(f" AND {one.expression.removeprefix('CHECK ')} IS NOT FALSE" for one in ours)
        kept, fills = self.kept(thing.table, used)
        trial = judge(self.outcomes(thing, [f"CASE WHEN true{given} THEN {condition} END"], used), kept, fills)
        return Trial() if trial.raised and changes(condition) and not self.inserts(thing.table) else trial

    def trial_of_default(self, column: Column) -> Trial:
        """Return what storing the default of an unmanaged column does; it is refused where it is NULL."""
        default, sequences = without_new_values(column.filled or "NULL")
        if self.live is None or not self.trusts(column):
            return Trial()
        found = {self.live.is_sequence(name) for name in sequences}
        if None in found:
            return Trial()
        if False in found:
            return Trial(known=True, raised="any row", always=True)
        return self.trial(column, f"{assigned(default, column.domain.type if column.domain else column.type)} IS NULL", ())

    def refuses_stored(self, column: Column, condition: str) -> bool | None:
        """Return whether a condition on VALUE rejects what our INSERT stores in an unmanaged column; None if that is unknown."""
        value = replace(column, name="value", default=column.filled)
        rows = Rows((value,), frozenset(["value"]))
        known = replace(column, own=column.own or PLAIN.fullmatch(column.filled or "") is not None)
        if self.live is None or not condition or not self.trusts(known):
            return None
        if self.live.never(f"{condition} IS NOT FALSE", rows):
            return True
        if self.live.never(f"NOT {condition}", rows) and is_total(condition):
            return False
        if column.filled is not None and not CONSTANT.fullmatch(column.filled):
            return None
        outcomes = self.live.outcomes([f"{condition} IS FALSE"], [{"value": column.filled or "NULL"}], (value,))
        return outcomes[0][1] in (None, TRUE) if outcomes else None

    def fits(self, column: Column) -> bool:
        """Return whether every value of a generated column's expression can be stored in its type."""
        expression = column.generated or ""
        same = (one for one in self.actual.columns if one.table == column.table and quote(one.name) == expression.strip("()"))
        if any(one.type == column.type for one in same) or column.type in ("text", "character varying"):
            return True
        if "(" in column.type or column.domain or self.live is None or not self.trusts(column):
            return False
        rows = Rows(tuple(one for one in self.actual.columns if one.table == column.table and mentions(expression, one)))
        asked = f"SELECT pg_typeof(({expression})) = {literal(column.type)}::regtype FROM {rows.sql()} LIMIT 1"
        return self.live.ask(asked) == (True,)

    def clash(self, index: Index) -> Clash:
        """Return whether two sample rows that differ in each key of ours that `index` uses have the same values in it."""
        keys = [key.columns for key in self.expected.keys if key.table == index.table and {*key.columns} <= {*index.uses}]
        computed = [*index.columns, index.predicate or "true"]
        expressions = [one if "(" in one or one == "true" else quote(one) for one in computed]
        return find_clash(self.outcomes(index, expressions, index.uses), keys)

    def outcomes(self, thing: Check | Index | Column, expressions: list[str], names: Iterable[str]) -> Iterable[Outcome]:
        """Return the values of expressions for sample rows; nothing if they cannot be tried."""
        used = {*names}
        columns = self.columns(thing.table, used)
        kept, fills = self.kept(thing.table, used)
        computed = any(column.identity or column.generated for column in columns if column.name in kept)
        stored = len(kept) == len(columns)  # Our INSERT stores only defaults; other programs may have stored other values.
        if self.live is None or not self.trusts(thing) or computed or (stored and len(fills) < len(kept)):
            return ()
        rows = samples(" ".join(expressions), columns, fills, stored=stored)
        return self.live.outcomes(expressions, rows, columns)

    def kept(self, table: str, names: Collection[str]) -> tuple[list[str], dict[str, str]]:
        """Return the unmanaged columns among `names`, which our UPDATE does not write, and the constant defaults that our INSERT stores."""
        managed = self.managed(table)
        columns = [c for c in self.actual.columns if c.table == table and c.name in names and c.name not in managed]
        constant = [column for column in columns if column.filled is None or CONSTANT.fullmatch(column.filled)]
        return [column.name for column in columns], {column.name: column.filled or "NULL" for column in constant}

    def stored(self, table: str, name: str) -> Column | None:
        """Return an unmanaged column by its name."""
        return next((column for column in self.unmanaged.columns if (column.table, column.name) == (table, name)), None)

    def is_null(self, table: str, name: str) -> bool:
        """Return whether our INSERT stores NULL in a column."""
        column = self.stored(table, name)
        return column is not None and column.filled is None and column.identity is None and column.generated is None

    def inserts(self, table: str) -> bool:
        """Return whether this role may insert rows, so that its sessions are those of the site."""
        return any(one.insertable for one in self.actual.tables if one.name == table)

    def trusts(self, thing: Check | Index | Column) -> bool:
        return thing.own and any(table.trusted for table in self.actual.tables if table.name == thing.table)

    def allows_all(self, check: Check, body: str) -> bool:
        """Return whether `check` accepts every row that the contract allows, given our checks and NOT NULL constraints."""
        managed = self.managed(check.table)
        ours = [
            one
            for one in self.expected.checks
            if one.table == check.table and not any(managed[name].nullable for name in one.columns)
        ]
        used = [*check.columns, *(name for one in ours for name in one.columns)]
        given = "".join(f" AND {one.expression.removeprefix('CHECK ')}" for one in ours)
        return self.never(check, f"NOT {body}{given}", self.rows(check.table, used, inserted=False))

    def is_implied(self, thing: Key | Index) -> bool:
        """Return whether a key of ours already rejects what `thing` rejects."""
        managed = self.managed(thing.table)
        required = {name for name, column in managed.items() if not column.nullable}
        exact = isinstance(thing, Key) or thing.exact
        told = {distinguishing_column(one, set(managed), required) for one in thing.columns if exact}
        return any(
            key.table == thing.table
            and set(key.columns) <= told
            and (thing.nulls_distinct or not any(managed[name].nullable for name in key.columns))
            for key in self.expected.keys
        )

    def computed(self, table: str, names: Iterable[str]) -> list[Column]:
        """Return the unmanaged generated columns among `names`."""
        return [column for name in names if (column := self.stored(table, name)) and column.generated is not None]

    def read_by(self, column: Column) -> set[str]:
        """Return the columns that the expression of a generated column may use, none of which is generated."""
        others = (one for one in self.actual.columns if one.table == column.table and one.generated is None)
        return {one.name for one in others if mentions(column.generated, one)}

    def expanded_index(self, thing: Key | Index) -> Index:
        """Return the index of `thing` with the expression of each generated column in its place."""
        index = thing if isinstance(thing, Index) else _index_of(thing)
        for column in self.computed(index.table, {*index.uses, *index.columns, *index.include}):
            by, name = _value(column), column.name
            index = replace(
                index,
                columns=tuple(by if one == name else _expanded(one, name, by) for one in index.columns),
                include=tuple(by if one == name else one for one in index.include),
                predicate=index.predicate and with_column_replaced(index.predicate, name, by),
                uses=tuple(sorted({*index.uses} - {name} | self.read_by(column))),
                own=index.own and column.own,
            )
        return index

    def expanded_check(self, check: Check) -> Check:
        """Return a check with the expression of each generated column in its place."""
        for column in self.computed(check.table, check.columns):
            check = replace(
                check,
                expression=with_column_replaced(check.expression, column.name, _value(column)),
                columns=tuple(sorted({*check.columns} - {column.name} | self.read_by(column))),
                own=check.own and column.own,
            )
        return check

    def differs(self, table: str, name: str) -> bool | None:
        """Return whether each of our rows gets a different value in an unmanaged column; None if that is unknown."""
        column = self.stored(table, name)
        if column is None or column.identity is not None:
            return column is not None
        filled = column.filled or ""
        if is_distinct(filled):
            return True
        fixed = not filled or CONSTANT.fullmatch(filled) or (column.own and not changes(filled) and self.is_fixed(filled))
        return False if fixed else None

    def is_fixed(self, expression: str) -> bool:
        """Return whether an expression calls no volatile function."""
        return self.live is not None and self.live.calls_volatile(expression) is False

    def short(self, table: str) -> set[str]:
        """Return the columns whose length an index of ours limits."""
        whole = [
            index.columns
            for index in self.expected.indexes
            if index.table == table and index.method == "btree" and not index.predicate
        ]
        return {
            name for columns in (*whole, *(key.columns for key in self.expected.keys if key.table == table)) for name in columns
        }

    def never_raises(self, table: str, expression: str) -> bool:
        """Return whether an expression raises no error for a row of a table; a text search does not for a short text."""
        if is_total(expression):
            return True
        used = {column.name for column in self.actual.columns if column.table == table and mentions(expression, column)}
        return used <= self.short(table) and is_total(SEARCHED.sub("(", expression))


def _value(column: Column) -> str:
    """Return the expression of a generated column as the value that it has."""
    return assigned(column.generated or "", column.domain.type if column.domain else column.type)


def _expanded(one: str, name: str, by: str) -> str:
    """Return a column or an expression of an index with `by` in place of the column `name`."""
    return with_column_replaced(one, name, by) if "(" in one else one


def _index_of(key: Key) -> Index:
    options, uses = ("",) * len(key.columns), (*key.columns, *key.include)
    return Index(key.table, key.name, key.columns, options, include=key.include, unique=True, nulls_distinct=key.nulls_distinct, uses=uses)  # fmt: skip
