"""The live catalogue against the contract: values in, findings out, no database needed.

A cure that is SQL makes its difference disappear; in the order of the findings they repair the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from ..findings import Finding, Severity
from ..sql import quote
from . import cures, foreign
from .contract import MAY_BE_NULL
from .live import Live, taken_values, with_spelling_of
from .objects import Catalog, Check, Column, ForeignKey, Index, Key, Object, Table, where

# The time at which a row is made, which a column that may not be NULL holds anyway.
THIS_MOMENT = re.compile(
    r"(CURRENT_TIMESTAMP|LOCALTIMESTAMP)(\(\d\))?|(now|transaction_timestamp|statement_timestamp|clock_timestamp)\(\)"
)


@dataclass(frozen=True, slots=True)
class Comparison:
    findings: tuple[Finding, ...]  # in the order in which their cures must run
    matched: frozenset[Object]  # of the contract: those that are there as they should be
    foreign: Catalog  # what the contract does not know: left alone


def compare(expected: Catalog, actual: Catalog, *, pending: Catalog | None = None, live: Live | None = None) -> Comparison:
    """Return how `actual` differs from `expected`; what is in `pending` may be there already, and is not foreign.

    `live` is the server `actual` was read from; without it expressions are compared as they are written.
    """
    return _Comparing(expected, actual, pending or Catalog(), live).result()


class _Comparing:
    def __init__(self, expected: Catalog, actual: Catalog, pending: Catalog, live: Live | None):
        self.live = live
        self.expected = expected
        self.pending = pending
        self.actual = actual
        self.findings: list[Finding] = []
        self.bad: set[Object] = set()  # Of the contract: missing, or not as it should be.
        self.claimed: set[Object] = set()  # Of the live catalogue: ours, though perhaps under another name.

    def result(self) -> Comparison:
        if self.live is not None:
            self.findings += taken_values(self.expected, self.actual, self.live)
        self.tables()
        if self.live is not None:
            self.actual = with_spelling_of(self.expected, self.actual, self.live)
        self.columns()
        self.named(self.expected.keys, self.actual.keys, _kind_of_key, _key_difference, self.key_cure)
        self.named(self.expected.checks, self.actual.checks, lambda _: "check", _check_difference, cures.repair_check)
        self.named(self.expected.indexes, self.actual.indexes, lambda _: "index", _index_difference, cures.repair_index)
        self.named(
            self.expected.foreign_keys,
            self.actual.foreign_keys,
            lambda _: "foreign_key",
            _foreign_key_difference,
            cures.repair_foreign_key,
        )
        known = {(type(thing), thing.table, thing.name) for thing in (*self.expected, *self.pending)}
        ours = {thing.name for thing in (*self.expected.tables, *self.pending.tables)}
        others = self.actual.where(
            lambda thing: (
                (type(thing), thing.table, thing.name) not in known
                and thing not in self.claimed
                and (isinstance(thing, Table) or thing.table in ours)
            )
        )
        self.findings += foreign.in_the_way(self.expected, others, self.actual, self.live)
        order = {name: place for place, name in enumerate(ORDER)}
        findings = sorted(
            self.findings, key=lambda finding: (order[finding.code.partition(".")[0]], finding.where, finding.code)
        )
        return Comparison(tuple(findings), frozenset(set(self.expected) - self.bad), others)

    def add(self, code: str, thing: Object, message: str, cure: str, severity: Severity = Severity.ERROR) -> None:
        self.findings.append(Finding(severity, code, where(thing), message, cure, is_sql=True))

    # Tables and columns: what is renamed gets its name back in self.actual, so that what hangs on it is not reported too.

    def tables(self) -> None:
        live = {table.name: table for table in self.actual.tables}
        ours = {table.name for table in self.expected.tables}
        for table in self.expected.tables:
            if table.name not in live:
                wanted = _shape(self.expected, table.name)
                same = [name for name in live if name not in ours and _shape(self.actual, name) == wanted]
                if len(same) == 1:
                    self.bad.add(table)
                    self.add(
                        "table.renamed",
                        table,
                        f"Table {table.name} is missing, and {same[0]} has all its columns: it was probably renamed.",
                        f"ALTER TABLE {quote(same[0])} RENAME TO {quote(table.name)};",
                    )
                    self.actual = self.actual.renamed_table(same[0], table.name)
                    live = {table.name: table for table in self.actual.tables}
                else:
                    self.missing_table(table, None)
                    continue
            if live[table.name].kind != table.kind:
                self.missing_table(table, live[table.name])
            else:
                self.table_state(table, live[table.name])

    def missing_table(self, table: Table, live: Table | None) -> None:
        self.bad.update(thing for thing in self.expected if thing.table == table.name)
        create = cures.create_table(table, self.expected)
        if live is None:
            message = f"Table {table.name} is missing, and its rows with it: restore it from a backup, or create it empty."
            self.add("table.missing", table, message, create)
        else:
            message = f"{table.name} is a {live.kind}, not a table: put it aside, then restore the table from a backup, or create it empty."
            self.add("table.different", table, message, f"{cures.put_aside(live)}\n{create}")
        # Its own foreign keys, and those of other tables, are findings of their own: they come last.
        self.expected = self.expected.where(lambda thing: thing.table != table.name or isinstance(thing, ForeignKey))
        self.actual = self.actual.where(lambda thing: thing.table != table.name)

    def table_state(self, table: Table, live: Table) -> None:
        if live.logged != table.logged:
            self.bad.add(table)
            message = f"Table {table.name} is UNLOGGED: it is emptied by a crash."
            self.add("table.weaker", table, message, f"ALTER TABLE {quote(table.name)} SET LOGGED;")
        if live.row_security is not None:
            if hidden := live.row_security == "active":
                self.bad.add(table)
            who = "hides rows from this role and refuses its writes" if hidden else "does not bind this role, but others"
            self.findings.append(
                Finding(
                    Severity.ERROR if hidden else Severity.NOTE,
                    "table.different",
                    table.name,
                    f"Table {table.name} has row-level security switched on, which {who}.",
                    f"Add policies for the roles that use it, or give them BYPASSRLS; if no other role may connect: ALTER TABLE {quote(table.name)} DISABLE ROW LEVEL SECURITY;",
                )
            )

    def columns(self) -> None:
        live = {(column.table, column.name): column for column in self.actual.columns}
        ours = {(column.table, column.name) for column in self.expected.columns}
        expected = {table.name for table in self.expected.tables}
        tables = {table.name: table for table in self.actual.tables if table.name in expected}
        missing = [c for c in self.expected.columns if (c.table, c.name) not in live and c.table in tables]
        for column in missing:
            twins = [other for other in missing if replace(other, name=column.name) == column]
            same = [other for key, other in live.items() if key not in ours and replace(other, name=column.name) == column]
            self.bad.add(column)
            # A dropped column leaves a gap; where there is one, ours was dropped, and its twin is somebody's own.
            if len(twins) == len(same) == 1 and not tables[column.table].dropped_columns:
                self.add(
                    "column.renamed",
                    column,
                    f"Column {column.name} of {column.table} is missing, and {same[0].name} has its definition:"
                    " it was probably renamed; look at its values before you name it back.",
                    f"ALTER TABLE {quote(column.table)} RENAME COLUMN {quote(same[0].name)} TO {quote(column.name)};",
                )
                self.actual = self.actual.renamed_column(column.table, same[0].name, column.name)
            else:
                self.add(
                    "column.missing",
                    column,
                    f"Column {column.name} of {column.table} is missing, and its values with it: restore them from a backup, or add it empty.",
                    cures.add_column(column),
                )
        for column in self.expected.columns:
            if (other := live.get((column.table, column.name))) is None:
                continue
            if (column.table, MAY_BE_NULL.get((column.table, column.name))) in live:
                self.left_out_by_the_site(column, other)
                other = replace(other, nullable=column.nullable)
            if other != column:
                self.bad.add(column)
                self.column_state(column, other)

    def left_out_by_the_site(self, column: Column, live: Column) -> None:
        if not live.nullable:
            leaves_out = f"the site's inserts with {MAY_BE_NULL[column.table, column.name]} may leave it out, and then fail"
            self.add(
                "column.different",
                column,
                f"Column {column.name} of {column.table} may not be NULL; {leaves_out}.",
                f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)} DROP NOT NULL;",
                Severity.NOTE,
            )

    def column_state(self, column: Column, live: Column) -> None:
        alter = f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)}"
        what = f"Column {column.name} of {column.table}"
        default = column.default
        if (live.type, live.collation) != (column.type, column.collation):
            self.add(
                "column.different", column, f"{what} is {_type(live)}, not {_type(column)}.", cures.retype(column, live, alter)
            )
            if live.default is not None and default is not None:
                live = replace(live, default=default)  # The cure sets it anew.
        if live.generated != column.generated:
            self.add("column.different", column, f"{what} is generated as ({live.generated}).", f"{alter} DROP EXPRESSION;")
        if live.identity != column.identity:
            is_, should = live.identity or "by nothing", column.identity or "by nothing"
            cure = cures.repair_identity(column, live)
            self.add("column.different", column, f"{what} is generated {is_}, not {should}.", cure)
            live = replace(live, default=default)  # The cure drops it.
        if live.nullable and not column.nullable:
            if (column.table, column.name) in MAY_BE_NULL:
                message, severity = f"{what} may be NULL, as in the site's later schema.", Severity.NOTE
            else:
                message, severity = f"{what} may be NULL.", Severity.ERROR
            self.add("column.weaker", column, message, cures.require(column), severity)
        elif column.nullable and not live.nullable:
            self.add(
                "column.different", column, f"{what} may not be NULL, so writes without it fail.", f"{alter} DROP NOT NULL;"
            )
        if live.default == default:
            return
        if default is None:
            harmless = not column.nullable and column.type.startswith("timestamp") and THIS_MOMENT.fullmatch(live.default or "")
            self.add(
                "default.extra",
                column,
                f"{what} has the default {live.default}, and should have none"
                + ("; it is harmless: only an insert without a value uses it." if harmless else "."),
                f"{alter} DROP DEFAULT;",
                Severity.NOTE if harmless else Severity.WARNING,
            )
        elif live.default is None:
            self.add(
                "default.missing",
                column,
                f"{what} has no default: the site's inserts, which leave it to the database, fail or write NULL.",
                f"{alter} SET DEFAULT {default};",
            )
        else:
            self.add(
                "default.different",
                column,
                f"{what} has the default {live.default}, not {default}.",
                f"{alter} SET DEFAULT {default};",
            )

    # Constraints and indexes: by name first, then by definition.

    def named(
        self,
        expected: Iterable[Any],
        actual: Iterable[Any],
        kind_of: Callable[[Any], str],
        difference: Callable[[Any, Any], tuple[str, str]],
        cure: Callable[[Any, Any], str],
    ) -> None:
        live = {(thing.table, thing.name): thing for thing in actual}
        ours = {(thing.table, thing.name) for thing in expected}
        for thing in expected:
            kind, title = kind_of(thing), _title(thing)
            other = live.get((thing.table, thing.name))
            if other == thing:
                continue
            self.bad.add(thing)
            if other is not None:
                verdict, how = difference(thing, other)
                self.add(f"{kind}.{verdict}", thing, f"{title} {how}.", cure(thing, other))
                continue
            twin = next(
                (
                    o
                    for key, o in live.items()
                    if key not in ours and o not in self.claimed and replace(o, name=thing.name) == thing
                ),
                None,
            )
            if twin is not None:
                self.claimed.add(twin)
                self.add(
                    f"{kind}.renamed",
                    thing,
                    f"{title} is there under the name {twin.name}.",
                    cures.rename(twin, thing.name),
                    Severity.WARNING,
                )
            elif isinstance(thing, Key) and (index := self.index_for(thing)):
                self.claimed.add(index)
                cure_ = self.free_name(thing, besides=index) + cures.use_index(thing, index)
                self.add(f"{kind}.different", thing, f"{title} is a unique index ({index.name}), not a constraint.", cure_)
            else:
                self.add(
                    f"{kind}.missing",
                    thing,
                    f"{title} is missing{self.name_taken(thing)}.",
                    self.free_name(thing) + cure(thing, None),
                )

    def index_for(self, key: Key) -> Index | None:
        """Return the unique index that ADD CONSTRAINT … USING INDEX can make the constraint of."""
        return next(
            (
                index
                for index in self.actual.indexes
                if index.table == key.table
                and index.columns == key.columns
                and (index.unique, index.valid, index.ready, index.predicate, index.method) == (True, True, True, None, "btree")
                and not any(index.options)
                and (index.include, index.nulls_distinct) == (key.include, key.nulls_distinct)
            ),
            None,
        )

    def taken_by(self, thing: Object) -> Any:
        """Return what has the name of `thing`: indexes and tables share one room of names, the constraints of a table another."""
        catalog = self.actual
        constraints: tuple[Any, ...] = (*catalog.keys, *catalog.checks, *catalog.foreign_keys)
        near = next((other for other in constraints if (other.table, other.name) == (thing.table, thing.name)), None)
        if near is not None or isinstance(thing, Check | ForeignKey):
            return near
        relations: tuple[Any, ...] = (*catalog.indexes, *catalog.keys, *catalog.tables)
        return next((other for other in relations if other.name == thing.name), None)

    def name_taken(self, thing: Object) -> str:
        other = self.taken_by(thing)
        return f", and {_title(other).lower()} has its name" if other else ""

    def free_name(self, thing: Object, besides: Object | None = None) -> str:
        other = self.taken_by(thing)
        if other is None or other == besides:
            return ""
        self.claimed.add(other)
        return cures.free_name(other, thing) + "\n"

    def key_cure(self, key: Key, live: Key | None) -> str:
        columns = live.columns if live else None
        hanging = [fk for fk in self.actual.foreign_keys if fk.target == key.table and fk.target_columns == columns]
        return cures.repair_key(key, live, hanging)


# The order in which cures run: a key before the foreign keys that point at it.
ORDER = ("table", "column", "default", "primary_key", "unique", "check", "index", "foreign_key", "trigger")
TITLES = {Check: "Check", ForeignKey: "Foreign key", Index: "Index", Column: "Column", Table: "Table"}


def _title(thing: Object) -> str:
    kind = ("Primary key" if thing.primary else "Unique constraint") if isinstance(thing, Key) else TITLES[type(thing)]
    return f"{kind} {thing.name}" if isinstance(thing, Table) else f"{kind} {thing.name} of {thing.table}"


def _kind_of_key(key: Key) -> str:
    return "primary_key" if key.primary else "unique"


def _shape(catalog: Catalog, table: str) -> frozenset[tuple[str, str]]:
    return frozenset((column.name, column.type) for column in catalog.columns if column.table == table)


def _type(column: Column) -> str:
    return f"{column.type} with the collation {column.collation}" if column.collation else column.type


def _changed(expected: Any, live: Any) -> list[str]:
    return [f.name for f in fields(expected) if f.compare and getattr(expected, f.name) != getattr(live, f.name)]


def _key_difference(key: Key, live: Key) -> tuple[str, str]:
    if _changed(key, live) == ["valid"]:
        return "weaker", "has an invalid index, which lets duplicates in"
    wider = set(key.columns) < set(live.columns)
    return "weaker" if wider else "different", f"is {_body(live)}, not {_body(key)}"


def _check_difference(check: Check, live: Check) -> tuple[str, str]:
    if _changed(check, live) == ["enforced"]:
        return "weaker", "is NOT ENFORCED: rows may break it"
    if _changed(check, live) == ["valid"]:
        return "weaker", "is not validated: older rows may break it"
    return "different", f"is {live.expression}, not {check.expression}"


def _foreign_key_difference(fk: ForeignKey, live: ForeignKey) -> tuple[str, str]:
    changed = _changed(fk, live)
    if "enforced" in changed:
        return "weaker", "is not enforced (NOT ENFORCED, or its triggers are disabled): orphans get in"
    if changed == ["valid"]:
        return "weaker", "is not validated: older rows may be orphans"
    return "different", f"is {_body(live)}, not {_body(fk)}"


def _index_difference(index: Index, live: Index) -> tuple[str, str]:
    changed = _changed(index, live)
    if set(changed) <= {"valid", "ready"}:
        return "weaker", "is invalid: no query uses it, every write pays for it"
    if changed == ["predicate"] and index.predicate is None:
        return "weaker", f"covers only the rows WHERE {live.predicate}"
    if changed == ["unique"] and index.unique:
        return "weaker", "is not unique"
    return "different", f"is {_definition(live)}, not {_definition(index)}"


def _body(thing: Key | ForeignKey) -> str:
    return thing.sql().partition(f"CONSTRAINT {quote(thing.name)} ")[2] + ("" if thing.valid else " NOT VALID")


def _definition(index: Index) -> str:
    return index.sql().replace(" CONCURRENTLY", "").removeprefix("CREATE ")
