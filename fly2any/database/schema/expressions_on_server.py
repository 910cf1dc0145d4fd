"""Questions about expressions that only the server can answer: its planner proves something, or it evaluates sample rows.

catalog.py reads the live catalogue.

The planner evaluates immutable functions of constants, and sample rows run every function that is not volatile. So only
expressions that call nothing but PostgreSQL's own functions are sent: the code of other roles never runs here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from django.db import Error

from ..extensions import NEEDED_SQL
from ..session_defaults import UTC_NAMES
from ..sql import pinned, quote
from ..trusted_roles import TRUSTED_ROLES_SQL
from .cures import mentions
from .expressions import TEXT, counts
from .names import relative
from .objects import Catalog, Check, Column, Index, Object
from .samples import ALONE, VALUES, WHOLE, Outcome, Sample, branch, kind
from .time_zones import OF_WRITERS_SQL

NOW = re.compile(r"\b(?:now|transaction_timestamp)\(\)")
NEVER = "false"  # The One-Time Filter of a plan that reads no rows.
CALL = re.compile(r"\w\(")
INTEGER = re.compile(r"(?<![\w.])-?\d{1,9}(?![\w.])")
FUNCTION = re.compile(r"(\w+)\"?\(")
# Errors that pass, or that are due to the role that asks. Any other error without a position in the statement, which the parser thus
# accepted, comes from evaluating it.
PASSING = ("08", "25", "40", "53", "55", "57", "58", "42501")
UNKNOWN_NAME = ("42P01", "42704", "42883", "3F000")
# Their result depends on the search path.
BY_NAME = re.compile(r"\b(?:to_)?reg[a-z]+\b|\bhas_\w+_privilege\b|\bpg_get_serial_sequence\b")
# This runs with the search path of the site, so each name in it has a schema.
IS_SEQUENCE_SQL = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                   WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%s)::pg_catalog.oid AND c.relkind OPERATOR(pg_catalog.=) 'S')
"""
# Relations share a namespace, and the type of a table's rows has its name; PostgreSQL renames an array's type that has it.
HOLDERS_SQL = """
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' ELSE 'TABLE' END, c.relname::text,
           pg_catalog.pg_get_userbyid(c.relowner)::text
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s::text[])
    UNION ALL
    SELECT CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, t.typname::text, pg_catalog.pg_get_userbyid(t.typowner)::text
    FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE n.nspname = %(schema)s AND t.typname = ANY (%(tables)s::text[]) AND t.typrelid = 0::oid AND t.typcategory <> 'A'
    ORDER BY 2, 1
"""
VOLATILE_SQL = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_proc AS p
                   WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'v' AND p.proname = ANY (%s))
"""
# A table of a role that is not trusted is another program's.
COLUMNS_ELSEWHERE_SQL = f"""
    SELECT c.oid::regclass::text, n.nspname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_namespace AS ours ON ours.nspname = %(schema)s
    WHERE c.relname = %(table)s AND c.relkind IN ('r', 'p') AND n.oid <> ours.oid AND n.nspname !~ '^(pg_|information_schema$)'
      AND c.relowner IN ({TRUSTED_ROLES_SQL.format(schema="ours.oid")})
    ORDER BY 1
"""
CASES = 64  # Parts of a table's rows in one query.


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table for which the planner is asked to prove something."""

    columns: tuple[Column, ...]  # those that the expression uses
    filled: frozenset[str] = frozenset()  # those of them that our INSERT leaves out
    values: tuple[tuple[str, str], ...] = ()  # columns with a known value, as text; "" for any value but NULL
    whole: bool = False  # not split into cases, as the planner proves it for a query

    def cases(self) -> Iterator[Rows]:
        """Yield these rows in parts: in each, a boolean column has one value, and another nullable column is NULL or NOT NULL."""
        choices = [[(column.name, value) for value in held] for column in self.columns if (held := self._choices(column))]
        if self.whole or not choices or prod(map(len, choices)) > CASES:
            yield self
            return
        for values in product(*choices):
            yield replace(self, values=values)

    def _choices(self, column: Column) -> list[str]:
        if self._is_known(column):
            return []
        null = ["NULL"] if column.may_hold_null else []
        return ["true", "false", *null] if _type(column) == "boolean" else [*null, ""] if null else []

    def sql(self) -> str:
        held = {name: value for name, value in self.values if value}
        free = [column for column in self.columns if not self._is_known(column) and column.name not in held]
        known = [column for column in self.columns if self._is_known(column) or column.name in held]
        rows = "(VALUES (0), (1)) AS v (fly2any)"
        if free:
            nulls = ", ".join(f"NULL::{_type(column)}" for column in free)
            rows = f"(VALUES ({nulls}), ({nulls})) AS v ({', '.join(quote(column.name) for column in free)})"
        fills = "".join(
            f", ({held.get(column.name) or column.filled or 'NULL'})::{_type(column)} AS {quote(column.name)}"
            for column in known
        )
        return f"(SELECT v.*{fills} FROM {rows}) AS r"

    def given(self) -> str:
        """Return the condition that the NOT NULL columns meet in every row."""
        values = dict(self.values)
        return "".join(
            f" AND {quote(column.name)} IS NOT NULL"
            for column in self.columns
            if not self._is_known(column) and not values.get(column.name)
            if not column.may_hold_null or column.name in values
        )

    def _is_known(self, column: Column) -> bool:
        unknown = column.identity is not None or column.generated is not None or not column.own
        return column.name in self.filled and not unknown


@dataclass(frozen=True, slots=True)
class Raised:
    """The error that evaluating an expression raises."""

    error: Error


@dataclass(frozen=True, slots=True)
class Live:
    """The server of the compared catalogue, and its schema."""

    connection: Any
    schema: str

    def never(self, condition: str, rows: Rows) -> bool:
        """Return whether the planner proves that `condition` is true of none of `rows`; False where it cannot tell."""
        facts = "".join(f" AND ({fact})" for fact in _facts(condition, rows))
        plan = self._explain(
            " UNION ALL ".join(f"SELECT FROM {part.sql()} WHERE ({condition}){part.given()}{facts}" for part in rows.cases())
        )
        return isinstance(plan, dict) and plan.get("One-Time Filter") == NEVER

    def outcomes(self, expressions: list[str], tried: list[Sample], columns: tuple[Column, ...]) -> list[Outcome]:
        """Return the text of the expressions' values for each row, None where one raises an error.

        [] if the server cannot evaluate them, or if a volatile function would run, because it may have side effects.
        """
        if not tried or self.calls_volatile(" ".join(expressions)) is not False:
            return []
        return self._outcomes(expressions, tried, columns)

    def calls_volatile(self, expression: str) -> bool | None:
        """Return whether `expression` calls a volatile function; None if the server cannot tell."""
        row = self.ask(VOLATILE_SQL, [[*{*FUNCTION.findall(re.sub(TEXT, "", expression))}]])
        return row[0] if isinstance(row, tuple) else None

    def _outcomes(self, expressions: list[str], tried: list[Sample], columns: tuple[Column, ...]) -> list[Outcome]:
        parts = (f"SELECT {place}, {branch(expressions, sample, columns)}" for place, sample in enumerate(tried))
        rows = self.ask(f"{' UNION ALL '.join(parts)} ORDER BY 1", every=True)
        if isinstance(rows, list):
            return [(tried[place], tuple(values)) for place, *values in rows]
        if not isinstance(rows, Raised):
            return []
        if len(tried) == 1:
            return [(tried[0], None)]
        some = tried[:ALONE]
        half = len(some) // 2
        return [one for part in (some[:half], some[half:]) for one in self._outcomes(expressions, part, columns)]

    def same(self, one: str, other: str, rows: Rows) -> bool:
        """Return whether two expressions are the same after the planner folds constants and removes casts without effect."""
        plan = self._explain(f"SELECT ({one}), ({other}) FROM {rows.sql()}")
        if not isinstance(plan, dict):
            return False
        first, second = (NOW.sub("CURRENT_TIMESTAMP", text).strip("()") for text in plan["Output"])
        return first == second

    def same_rows(self, one: str, other: str, columns: tuple[Column, ...], *, whole: bool = False) -> bool:
        """Return whether the planner proves that two conditions are true for the same rows; False if a column may be NULL."""
        if any(column.may_hold_null for column in columns):
            return False
        rows = Rows(columns, whole=whole)
        return self.never(f"({one}) AND NOT ({other})", rows) and self.never(f"({other}) AND NOT ({one})", rows)

    def can_read(self, expression: str, columns: tuple[Column, ...]) -> bool:
        """Return whether the server accepts an expression over columns of these types."""
        text = expression.removeprefix("CHECK ")
        used = tuple(column for column in columns if mentions(text, column))
        return isinstance(self._explain(f"SELECT ({text}) FROM {Rows(used).sql()}"), dict)

    def other_zones(self, table: str) -> list[str] | None:
        """Return the time zones other than UTC in which sessions that may write `table` begin; None where it cannot be asked."""
        rows = self.ask(OF_WRITERS_SQL, {"schema": self.schema, "tables": [table], "utc": UTC_NAMES}, every=True)
        return [zone for (zone,) in rows] if isinstance(rows, list) else None

    def has_row(self, table: str, values: dict[str, str]) -> bool | None:
        """Return whether `table` has a row with the constants `values`; None if it cannot be read."""
        wanted = " AND ".join(f"{quote(name)} = ({value})" for name, value in values.items())
        row = self.ask(f"SELECT EXISTS (SELECT FROM {quote(self.schema)}.{quote(table)} WHERE {wanted})")
        return row[0] if isinstance(row, tuple) else None

    def holders(self, names: list[str], *, table: str = "") -> list[tuple[str, str]]:
        """Return the kind and the name of each relation that has one of `names`, and of a type that has that of a new `table`."""
        found = self.ask(HOLDERS_SQL, {"schema": self.schema, "names": names, "tables": [table]}, every=True)
        return [(kind, name) for kind, name, _ in found] if isinstance(found, list) else []

    def elsewhere(self, table: str) -> dict[tuple[str, str], set[tuple[str, str]]]:
        """Return the columns, and their types, of each table of this name in other schemas, by its qualified name and its schema."""
        columns: dict[tuple[str, str], set[tuple[str, str]]] = {}
        rows = self.ask(COLUMNS_ELSEWHERE_SQL, {"schema": self.schema, "table": table}, every=True)
        for place, schema, name, type_ in rows if isinstance(rows, list) else []:
            columns.setdefault((place, schema), set()).add((name, relative(type_, self.schema)))
        return columns

    def trigrams(self) -> tuple[str | None, str]:
        """Return the schema of the extension pg_trgm, None without it, and what must be done before this role can create it."""
        offered, schema, may_create = self.ask(NEEDED_SQL)
        if not offered:
            return schema, "install PostgreSQL's contrib package on the server first"
        return schema, "" if may_create else "the owner of the database, or a superuser, must run it"

    def is_sequence(self, name: str) -> bool | None:
        """Return whether the site's sessions find a sequence by `name`; None where it cannot be asked."""
        with pinned(self.connection) as path:
            row = self.ask(IS_SEQUENCE_SQL, [name], path=path)
        return row[0] if isinstance(row, tuple) else None

    def _explain(self, statement: str) -> Any:
        row = self.ask(f"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) {statement}")
        if not isinstance(row, tuple):
            return row
        plan = json.loads(row[0]) if isinstance(row[0], str) else row[0]
        return plan[0]["Plan"]

    def ask(
        self, statement: str, parameters: list[Any] | dict[str, Any] | None = None, *, every: bool = False, path: str = ""
    ) -> Any:
        """Return the row, or all rows; Raised where evaluating fails, None if the server refuses for another reason."""
        with pinned(self.connection), self.connection.cursor() as cursor:
            cursor.execute("SAVEPOINT fly2any_live")
            try:
                cursor.execute("SET LOCAL constraint_exclusion = on")
                if path:
                    cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", [path])
                cursor.execute(statement, parameters)
                return cursor.fetchall() if every else cursor.fetchone()
            except Error as error:
                return Raised(error) if _is_of_values(error, statement) else None
            finally:
                cursor.execute("ROLLBACK TO SAVEPOINT fly2any_live")
                cursor.execute("RELEASE SAVEPOINT fly2any_live")


def _is_of_values(error: Error, statement: str) -> bool:
    """Return whether evaluating `statement` raised `error`, as it would in a write of the site."""
    cause: Any = error.__cause__
    state = getattr(cause, "sqlstate", None)
    if state is None or state.startswith(PASSING) or (state in UNKNOWN_NAME and BY_NAME.search(statement)):
        return False
    return state.startswith("22") or cause.diag.statement_position is None


def _facts(condition: str, rows: Rows) -> Iterator[str]:
    """Yield conditions that are true for every row but unknown to the planner.

    A length is not negative, no integer lies between two consecutive ones or outside the range of its type, and each value equals itself.
    """
    lengths = [*dict.fromkeys(counts(condition))]
    yield from (f"{one} >= 0 OR {one} IS NULL" for one in lengths)
    used = [column for column in rows.columns if mentions(condition, column) and kind(column) in VALUES]
    numbers = {int(number) for number in INTEGER.findall(condition)[:8]}
    whole = {quote(column.name): WHOLE[kind(column)] for column in used if kind(column) in WHOLE}
    for one in (*lengths, *whole):
        for below in sorted(number - step for number in numbers for step in (0, 1)):
            yield f"{one} <= {below} OR {one} >= {below + 1} OR {one} IS NULL"
    yield from (f"{name} BETWEEN {-limit} AND {limit - 1} OR {name} IS NULL" for name, limit in whole.items())
    yield from (f"{name} = {name} OR {name} IS NULL" for name in (quote(column.name) for column in used))


def _type(column: Column) -> str:
    return column.domain.type if column.domain else column.type


def _holds_for_the_same(live: Live, thing: Object, one: str, other: str, columns: tuple[Column, ...]) -> bool:
    """Return whether two texts of a check reject the same rows, or whether the same queries can use an index with either predicate."""
    if isinstance(thing, Index):  # The planner does not split rows into cases to decide whether a query can use an index.
        return live.same_rows(one, other, tuple(c for c in columns if mentions(thing.predicate, c)), whole=True)
    if isinstance(thing, Check) and not CALL.search(one + other):  # A call may return NULL, which a check accepts.
        return live.same_rows(one, other, tuple(c for c in columns if c.name in thing.columns))
    return False


EXPRESSIONS: dict[type, tuple[str, ...]] = {Column: ("default", "generated"), Check: ("expression",), Index: ("predicate",)}


def with_equivalent_expressions(expected: Catalog, actual: Catalog, live: Live) -> Catalog:
    """Return `actual` with the expressions of `expected` where the server shows that they are equivalent."""
    wanted = {(type(thing), thing.table, thing.name): thing for thing in expected if type(thing) in EXPRESSIONS}
    trusted = {table.name for table in actual.tables if table.trusted}
    columns: dict[str, tuple[Column, ...]] = {
        table: tuple(column for column in actual.columns if column.table == table) for table in trusted
    }

    types = {(column.table, column.name): column.type for column in expected.columns}
    retyped: dict[str, list[Column]] = {}
    for column in actual.columns:
        if types.get((column.table, column.name), column.type) != column.type:
            retyped.setdefault(column.table, []).append(replace(column, type=types[column.table, column.name]))

    def spelled(thing: Any) -> Any:
        other = wanted.get((type(thing), thing.table, thing.name))
        if other is None or thing == other:
            return thing
        thing = _once_retyped(thing, other, retyped.get(thing.table, ()))
        if thing == other or not thing.own or thing.table not in trusted:
            return thing
        for name in EXPRESSIONS[type(thing)]:
            mine, theirs = getattr(other, name), getattr(thing, name)
            if mine and theirs and mine != theirs:
                used = () if name == "default" else columns[thing.table]
                cast = f"::{_type(thing)}" if name == "default" else ""  # Cast to the column's type: 0 may be stored as 0.0.
                one, two = (f"({text.removeprefix('CHECK ')}){cast}" for text in (mine, theirs))
                if live.same(one, two, Rows(used)) or _holds_for_the_same(live, thing, one, two, used):
                    thing = replace(thing, **{name: mine})
        return replace(thing, columns=computed(thing, other)) if isinstance(thing, Index) else thing

    def computed(thing: Index, other: Index) -> tuple[str, ...]:
        if len(thing.columns) != len(other.columns):
            return thing.columns
        rows = Rows(columns[thing.table])
        both = zip(other.columns, thing.columns, strict=True)
        return tuple(mine if mine != theirs and live.same(mine, theirs, rows) else theirs for mine, theirs in both)

    return replace(
        actual,
        columns=tuple(spelled(one) for one in actual.columns),
        checks=tuple(spelled(one) for one in actual.checks),
        indexes=tuple(spelled(one) for one in actual.indexes),
    )


def _once_retyped(thing: Any, other: Any, columns: Iterable[Column]) -> Any:
    """Return `thing` with the expressions of `other` that it has once the cure for the type of `columns` removed their casts."""

    def cured(theirs: str, mine: str) -> str:
        plain = theirs
        for column in columns:
            name = rf'(?<![\w$."])({re.escape(column.name)}|"{re.escape(column.name)}")'
            plain = re.sub(rf"{name}::{re.escape(column.type)}(?![\w\[(])", r"\1", plain)
        return plain if plain == mine else theirs

    for name in EXPRESSIONS[type(thing)]:
        if (theirs := getattr(thing, name)) and (mine := getattr(other, name)):
            thing = replace(thing, **{name: cured(theirs, mine)})
    if isinstance(thing, Index) and len(thing.columns) == len(other.columns):
        return replace(thing, columns=tuple(map(cured, thing.columns, other.columns)))
    return thing
