"""Sample rows that the contract allows, with boundary values of an expression, which PostgreSQL evaluates for them.

They decide what the planner cannot prove for all rows: one rejected sample proves that rows are rejected.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from ..sql import quote
from .expressions import TEXT
from .objects import Column

ROWS = 96  # sample rows on which an expression is tried
ALONE = 16  # the same once one raised an error, because each is then a separate query
LONGEST = 10_000  # the longest text made for a number in the expression
NULL = "NULL"

_MOMENTS = ("'2000-01-01'", "'infinity'", "'-infinity'")
VALUES: dict[str, tuple[str, ...]] = {
    "text": ("'a'", "''", "'A'", "' '", "'0'", "'é✈'", "repeat('a', 300)"),
    "boolean": ("true", "false"),
    "smallint": ("1", "0", "-1", "32767", "-32768"),
    "integer": ("1", "0", "-1", "2147483647", "-2147483648"),
    "bigint": ("1", "0", "-1", "9223372036854775807", "-9223372036854775808"),
    "double precision": ("1", "0", "-1", "1.5", "'NaN'", "'Infinity'", "'-Infinity'"),
    "numeric": ("1", "0", "-1", "1.5", "'NaN'"),
    "timestamp with time zone": _MOMENTS,
    "timestamp without time zone": _MOMENTS,
    "date": _MOMENTS,
    "jsonb": ("'{}'", "'[]'", "'null'", "'1'", "'\"a\"'", "'[1, null]'"),
    "text[]": ("'{}'", "'{a}'", "'{NULL}'", "'{a,a}'"),
    "uuid": ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    "inet": ("'127.0.0.1'", "'::1'", "'10.0.0.0/8'"),
    "bytea": ("'a'", "''", "'\\x00'"),
}
WHOLE = {"smallint": 1 << 15, "integer": 1 << 31, "bigint": 1 << 63}  # the first value that is too large
_HOLDING = {"jsonb": "to_jsonb({})", "text[]": "ARRAY[{}]", "bytea": "{}::bytea"}  # a long text as a value of another type
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TYPED = re.compile(rf"({TEXT})::([a-z][a-z ]*)")
Sample = Mapping[str, str]  # the value of each column, as SQL
Outcome = tuple[
    Sample, tuple[str | None, ...] | None
]  # a row and the values of expressions for it, None where they raise an error
TRUE, FALSE = ("true",), ("false",)


def kind(column: Column) -> str:
    """Return the base type of a column without its length: a key of VALUES."""
    bare = re.sub(r"\(.*?\)", "", column.domain.type if column.domain else column.type)
    return "text" if bare.startswith("character") else bare


def samples(expression: str, columns: Iterable[Column], fills: Mapping[str, str], *, stored: bool) -> list[Sample]:
    """Return rows of `columns`; [] if no suitable value of a column is known.

    A column in `fills` also gets that value, and only that one if the rows are `stored` by our INSERT. If there are too many
    combinations, the first rows take the value at the same position of each column's list, so columns of one type are equal.
    """
    names, choices = [], []
    for column in columns:
        fill = [fills[column.name]] if column.name in fills else []
        found = fill if stored and fill else [*dict.fromkeys([*fill, *_values(expression, column)])]
        if not found:
            return []
        names.append(column.name)
        choices.append(found)
    if (count := prod(map(len, choices))) <= ROWS:
        rows = list(product(*choices))
    else:
        longest = max(map(len, choices))
        rows = [tuple(held[place % len(held)] for held in choices) for place in range(longest)][: ROWS // 2]
        numbers = random.Random(0).sample(range(count), ROWS - len(rows))  # The same rows in each run.
        rows += [_row(choices, number) for number in numbers]
    return [dict(zip(names, row, strict=True)) for row in dict.fromkeys(rows)]


def described(sample: Sample) -> str:
    """Return a row as a condition, "any row" if the expression uses no column."""
    return (
        "any row"
        if not sample
        else " and ".join(f"{name} {'is' if value == NULL else '='} {value}" for name, value in sample.items())
    )


def branch(expressions: Iterable[str], sample: Sample, columns: Iterable[Column]) -> str:
    """Return the SELECT list and the FROM clause that evaluate `expressions` for one row."""
    held = ", ".join(
        f"({sample[column.name]})::{column.domain.type if column.domain else column.type} AS {quote(column.name)}"
        for column in columns
    )
    # As in a write, the values are not constants: those would hide the errors of what they are compared with.
    return f"{', '.join(f'({expression})::text' for expression in expressions)} FROM (SELECT {held} OFFSET 0) AS r"


def _row(choices: list[list[str]], number: int) -> tuple[str, ...]:
    row = []
    for held in choices:
        number, place = divmod(number, len(held))
        row.append(held[place])
    return tuple(row)


def _values(expression: str, column: Column) -> list[str]:
    type_ = kind(column)
    values = [*VALUES.get(type_, ())]
    numbers = [*dict.fromkeys(_NUMBER.findall(expression))][:8]
    if type_ == "text":
        texts = [*dict.fromkeys(re.findall(TEXT, expression))][:8]
        values += [one for text in texts for one in (text, f"{text[:-1]}a'")]
        values += _long(numbers)
    elif type_ in WHOLE:
        limit = WHOLE[type_]
        near = {int(float(number)) + step for number in numbers for step in (-1, 0, 1)}
        values += [str(one) for one in sorted(near) if -limit <= one < limit]
    elif type_ in ("double precision", "numeric"):
        values += [one for number in numbers for one in (number, f"{number} - 1", f"{number} + 1")]
    elif type_ in _HOLDING:
        values += [_HOLDING[type_].format(text) for text in _long(numbers)]
    else:
        values += [text for text, cast in _TYPED.findall(expression) if cast.strip() == type_]
    return [*dict.fromkeys([*values, *([NULL] if column.may_hold_null else [])])]


def _long(numbers: Iterable[str]) -> list[str]:
    """Return texts as long as `numbers` say, and a letter shorter or longer."""
    lengths = {int(number) + step for number in numbers if "." not in number for step in (-1, 0, 1)}
    return [f"repeat('a', {length})" for length in sorted(lengths) if 1 < length <= LONGEST]


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a condition that rejects rows, for sample rows; an example is a row as a condition, "" for none."""

    known: bool = False  # for some row
    refused: str = ""  # a row for which it is true
    raised: str = ""  # a row for which it raises an error
    always: bool = False  # it raises an error for each row


def judge(outcomes: Iterable[Outcome], kept: Iterable[str], fills: Mapping[str, str]) -> Trial:
    """Return what the values of a condition for sample rows show.

    Our UPDATE does not write the columns `kept`: a row counts only if our INSERT stores its values there (`fills`), or if
    another row with these values is accepted.
    """
    names = [*kept]

    def key(sample: Sample) -> tuple[str, ...]:
        return tuple(sample[name] for name in names)

    known = [(sample, value) for sample, value in outcomes if value in (None, TRUE, FALSE)]
    stored = {key(sample) for sample, value in known if value == FALSE}
    if fills.keys() >= set(names):
        stored.add(tuple(fills[name] for name in names))
    counted = [(sample, value) for sample, value in known if key(sample) in stored]
    refused = [described(sample) for sample, value in counted if value == TRUE]
    raised = [described(sample) for sample, value in counted if value is None]
    return Trial(
        known=bool(counted),
        refused=refused[0] if refused else "",
        raised=raised[0] if raised else "",
        always=bool(raised) and len(raised) == len(counted),
    )


@dataclass(frozen=True, slots=True)
class Clash:
    known: bool = False  # two rows were compared
    rows: str = ""  # two that have the same values, "" for none


def find_clash(outcomes: Iterable[Outcome], keys: Iterable[tuple[str, ...]]) -> Clash:
    """Return the first two rows with the same values for which the last value, a predicate, is true; NULL is equal to nothing."""
    unequal = [*keys]
    seen: dict[tuple[str | None, ...], list[Sample]] = {}
    for sample, values in outcomes:
        if values is None or values[-1] != "true" or None in values:
            continue
        for other in seen.setdefault(values, []):
            if all(any(sample[name] != other[name] for name in key) for key in unequal):
                return Clash(True, f"{described(other)} beside {described(sample)}")
        seen[values].append(sample)
    return Clash(len(seen) > 1)
