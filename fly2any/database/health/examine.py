"""Queries each topic separately: one that fails or takes too long says so, and the others are still reported."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db import Error

from ..errors import Refusal, explain
from ..findings import Finding
from ..schema.contract import Contract, load
from ..server import read_schema
from ..sql import catalogue, pinned

DEADLINE = 5_000  # Milliseconds for each statement of a topic.
OF_LOCK = 4_000  # Less, so that a statement that waits for a lock says so.


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a topic: as text for people, and as `value` for programs (bytes, seconds, rows, a share of 1).

    `metric` is its name for Prometheus, if it has one, and `of` the object that it describes if there are several; one that is
    not `shown` is for programs only.
    """

    label: str
    text: str
    value: Any = None
    metric: str = ""
    of: str = ""
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Topic:
    """The result of one topic; `trouble` says why it could not be queried."""

    name: str
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    trouble: str = ""


@dataclass(frozen=True)
class Reader:
    """Queries the catalogue for a topic."""

    connection: Any
    schema: str
    contract: Contract = field(default_factory=load)

    def __call__(self, sql: str, **parameters: Any) -> list[Any]:
        """Return the rows of `sql` as tuples with names."""
        with catalogue(self.connection) as cursor:
            cursor.execute(sql, {"schema": self.schema, **parameters})
            Row = namedtuple("Row", [column.name for column in cursor.description])  # type: ignore[misc]
            return [Row(*row) for row in cursor.fetchall()]

    def one(self, sql: str, **parameters: Any) -> Any:
        return self(sql, **parameters)[0]


Question = Callable[[Reader], Iterator[Figure | Finding]]


def examine(connection, questions: dict[str, Question], *, schema: str | None = None) -> tuple[Topic, ...]:
    """Return the result of each of `questions`; raise django.db.Error only if the database cannot be reached.

    `schema` is that of our tables, which is read if it is None; raise SearchPathError if there is none.
    """
    if not questions:
        return ()
    connection.ensure_connection()
    reader = Reader(connection, read_schema(connection) if schema is None else schema)
    return tuple(_ask(reader, name, question) for name, question in questions.items())


def _ask(reader: Reader, name: str, question: Question) -> Topic:
    answers, trouble = [], ""
    try:
        with pinned(reader.connection, lock=OF_LOCK, statement=DEADLINE):
            for answer in question(reader):
                answers.append(answer)  # One by one, so that results before a failure count.
    except (Error, Refusal) as error:
        trouble = explain(error) or str(error)
    figures = tuple(answer for answer in answers if isinstance(answer, Figure))
    return Topic(name, figures, tuple(answer for answer in answers if isinstance(answer, Finding)), trouble)
