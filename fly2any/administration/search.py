"""Search by the shape of what is typed: each probe is one lookup in an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import models
from django.db.models import Q

from .replica import current

SHORTEST_TEXT = 3  # Letters: a trigram index knows nothing shorter.
MOST_CANDIDATES = 1_000  # Rows found by free text, before they are put in order.
ROUTE = re.compile(r"([a-z]{3})\s*(?:-|–|→|>|/|to|\s)\s*([a-z]{3})", re.IGNORECASE)
LETTERS = re.compile(rf"\w{{{SHORTEST_TEXT}}}")
AIRPORT = re.compile(r"[a-z]{3}", re.IGNORECASE)

# The values of a column one after the other, each by one descent of the index that the column leads.
VALUES_SQL = """
    WITH RECURSIVE found (value, place) AS (
        (SELECT {column}, 1 FROM {table} WHERE {column} IS NOT NULL ORDER BY {column} LIMIT 1)
        UNION ALL
        SELECT (SELECT {column} FROM {table} WHERE {column} > found.value ORDER BY {column} LIMIT 1), place + 1
        FROM found WHERE found.value IS NOT NULL AND place < %(most)s
    )
    SELECT value FROM found WHERE value IS NOT NULL ORDER BY value
"""


def values_of(model: type[models.Model], name: str, *, most: int = 50) -> list[Any]:
    """Return the first `most` values that are in a column which leads an index, in order (a loose index scan)."""
    field: Any = model._meta.get_field(name)
    connection = current()
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(VALUES_SQL.format(column=quote(field.column), table=quote(model._meta.db_table)), {"most": most})
        return [value for (value,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search asks for: `rows`, and where it compares columns with values, those columns as name → value.

    `is_all`: the term has no other meaning, whether there are such rows or not.
    """

    rows: Q
    equal: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    is_all: bool = False


class Probe:
    """One way to look a term up."""

    def find(self, model: type[models.Model], term: str) -> Found | None:
        """Return what `term` asks for, or None where it has not the shape."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Key(Probe):
    """The exact value of a column that leads an index."""

    name: str

    def find(self, model, term):
        return Found(Q((self.name, term)), {self.name: term})


@dataclass(frozen=True, slots=True)
class KeyWithin(Probe):
    """The exact value of the second column of an index, for every value of the first."""

    first: str
    name: str

    def find(self, model, term):
        values = values_of(model, self.first)
        return Found(Q((f"{self.first}__in", values), (self.name, term))) if values else None


@dataclass(frozen=True, slots=True)
class Related(Probe):
    """The value of a unique column of the row that a foreign key points at: that row is looked up first.

    An `is_address` has an @ inside, and where nobody has it as it is written, upper and lower case count the same; the
    column then has a trigram index on UPPER(column).
    """

    key: str
    name: str
    is_address: bool = False

    def find(self, model, term):
        others = model._meta.get_field(self.key).related_model._base_manager.values_list("pk", flat=True)
        if self.is_address and not ("@" in term and LETTERS.search(term)):
            return None
        ids = list(others.filter(**{self.name: term})[:1])
        if not ids and self.is_address:
            ids = list(others.filter(**{f"{self.name}__iexact": term}).order_by("pk")[:1])
        if not ids:
            return Found(Q(pk__in=[]), is_all=True) if self.is_address else None
        return Found(Q((f"{self.key}_id", ids[0])), {self.key: ids[0]}, is_all=self.is_address)


@dataclass(frozen=True, slots=True)
class Route(Probe):
    """A route, `GRU-LIS`, or the airport of departure, `GRU`."""

    origin: str = "origin"
    destination: str = "destination"

    def find(self, model, term):
        if match := ROUTE.fullmatch(term):
            equal = {self.origin: match[1].upper(), self.destination: match[2].upper()}
        elif AIRPORT.fullmatch(term):
            equal = {self.origin: term.upper()}
        else:
            return None
        return Found(Q(**equal), equal)


class Text(Probe):
    """A part of a text, upper or lower case, in columns that have a trigram index on UPPER(column)."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find(self, model, term):
        if not LETTERS.search(term):
            return Found(Q(pk__in=[]), note=f"Type {SHORTEST_TEXT} letters or more.")
        part = Q()
        for name in self.names:
            part |= Q((f"{name}__icontains", term))
        candidates = list(model._base_manager.filter(part).values_list("pk", flat=True)[: MOST_CANDIDATES + 1])
        cut = len(candidates) > MOST_CANDIDATES
        note = f"More than {MOST_CANDIDATES:,} rows match, and only some of them are here: type more of it." if cut else ""
        return Found(Q(pk__in=candidates[:MOST_CANDIDATES]), note=note)


def search(model: type[models.Model], probes: tuple[Probe, ...], term: str) -> Found:
    """Return what the first of `probes` that finds rows asks for, or the last one."""
    last = Found(Q(pk__in=[]))
    if "\0" in term or not _is_encodable(term):
        return last
    for probe in probes:
        if found := probe.find(model, term):
            last = found
            if found.is_all or (probe is not probes[-1] and model._base_manager.filter(found.rows).exists()):
                break
    return last


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
