"""Ways to damage a database, generated from the contract, each with the expected findings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.database.mutated_keys import of_check, of_foreign_key, of_index, of_key
from tests.database.mutated_tables import of_column, of_table
from tests.database.mutation import EXPECTED, Mutation


def rounds(all_of_them: Iterable[Mutation]) -> list[list[Mutation]]:
    """Group mutations of different tables into rounds, each of which needs only two readings of the catalogue."""
    made: list[tuple[list[Mutation], set[str], set[str]]] = []
    for mutation in all_of_them:
        for together, damaged, read in made:  # noqa: B007  Those at which it stops are used below.
            if not (mutation.damages & (damaged | read) or mutation.reads in damaged):
                break
        else:
            together, damaged, read = [], set(), set()
            made.append((together, damaged, read))
        together.append(mutation)
        damaged |= mutation.damages
        read.add(mutation.reads)
    return [together for together, _, _ in made]


def mutations() -> Iterator[Mutation]:
    for make, things in (
        (of_table, EXPECTED.tables),
        (of_column, EXPECTED.columns),
        (of_key, EXPECTED.keys),
        (of_check, EXPECTED.checks),
        (of_index, EXPECTED.indexes),
        (of_foreign_key, EXPECTED.foreign_keys),
    ):
        for thing in things:
            yield from map(with_names_of_its_own, make(thing))


def with_names_of_its_own(mutation: Mutation) -> Mutation:
    """Return the mutation with its table's name in all new names, because indexes of two tables cannot share one."""

    def own(text):
        return re.sub(r"\b(theirs|moved)", rf"\1_{mutation.table}", text)

    return replace(mutation, sql=own(mutation.sql), found=frozenset((code, own(where)) for code, where in mutation.found))
