"""Search by the form of the search term: each probe is one lookup in an index.

A ModelAdmin declares the probes of its list in `search`; search_page.py uses them for all tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from fly2any.database.person.people import with_address
from fly2any.postgres.expressions import Folded, Words

from .deadlines import TooSlow, within
from .replica import current
from .shards import is_distributed

SHORTEST_TEXT = 3  # Characters; a trigram index cannot find a shorter text.
MOST_CANDIDATES = 1_000  # Rows found by free text, before they are sorted.
MOST_PEOPLE = 50  # People whose rows are found by a name.
MOST_WORDS = 8  # Words of a name.
MORE = f"More than {MOST_CANDIDATES:,} rows match, and only some of them are shown. Enter a longer search term."
TOO_MANY = "Too many people match. Enter more of the name, or an e-mail address."
ROUTE = re.compile(r"([a-z]{3})\s*(?:-|–|→|>|/|to|\s)\s*([a-z]{3})", re.IGNORECASE)
LETTERS = re.compile(rf"\w{{{SHORTEST_TEXT}}}")
AIRPORT = re.compile(r"[a-z]{3}", re.IGNORECASE)
ID = re.compile(r"(?=.*\d)[\w-]+")

# MATERIALIZED makes PostgreSQL plan for all rows and use the index; for the first few it would read the table and compute the text
# of each row.
FIRST_FOUND_SQL = "WITH found AS MATERIALIZED ({rows}) SELECT * FROM found LIMIT {most}"

# The distinct values of a column, each found by one descent of an index that begins with the {equal} columns and this one.
VALUES_SQL = """
    WITH RECURSIVE found (value, place) AS (
        (SELECT {column}, 1 FROM {table} WHERE {first} {equal} ORDER BY {column} LIMIT 1)
        UNION ALL
        SELECT (SELECT {column} FROM {table} WHERE {column} > found.value {equal} ORDER BY {column} LIMIT 1), place + 1
        FROM found WHERE found.value IS NOT NULL AND place < %(most)s
    )
    SELECT value FROM found WHERE value IS NOT NULL ORDER BY value
"""
# Citus rejects a recursive query over shards: there, each value is a query.
NEXT_VALUE_SQL = "SELECT {column} FROM {table} WHERE {first} {equal} ORDER BY {column} LIMIT 1"


def values_of(
    model: type[models.Model], name: str, *, most: int = 50, equal: Mapping[str, Any] | None = None, since: Any = None
) -> list[Any]:
    """Return the first `most` distinct values of a column, from `since` on if given, in order (a loose index scan).

    An index begins with the `equal` columns (name → value) and this one.
    """
    connection = current()
    quote = connection.ops.quote_name
    columns: dict[str, Any] = {one.name: quote(one.column) for one in model._meta.local_fields}
    places = {
        "column": columns[name],
        "table": quote(model._meta.db_table),
        "equal": " ".join(f"AND {columns[key]} = %({key})s" for key in equal or ()),
    }
    first = f"{columns[name]} IS NOT NULL" if since is None else f"{columns[name]} >= %(since)s"
    asked = {**(equal or {}), "most": most, "since": since}
    with connection.cursor() as cursor:
        if not is_distributed(model):
            cursor.execute(VALUES_SQL.format(first=first, **places), asked)
            return [value for (value,) in cursor.fetchall()]
        values: list[Any] = []
        while len(values) < most:
            cursor.execute(NEXT_VALUE_SQL.format(first=first, **places), asked)
            if not (row := cursor.fetchone()):
                break
            values += row
            first, asked["since"] = f"{columns[name]} > %(since)s", row[0]
        return values


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a probe: `rows`, and the columns that it compares with values (name → value).

    `is_final`: no later probe is tried, even if there are no such rows: the term can mean nothing else. `order`: the time
    by which an index sorts these rows.
    `is_understood`: the term has the form that the probe looks up. `is_partial`: more rows match, and `note` says so.
    """

    rows: Q
    equal: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    is_final: bool = False
    order: str = ""
    is_understood: bool = True
    is_partial: bool = False


NOTHING = Found(Q(pk__in=[]), is_understood=False)


class Probe:
    """One way to look up a term. The search of all tables uses it too if it `is_general`."""

    is_general = False

    def find(self, model: type[models.Model], term: str, chosen: Mapping[str, Any]) -> Found | None:
        """Return the result for `term` among the rows with the `chosen` values (name → value), or None if it does not have the form."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Key(Probe):
    """The exact value of an index's first column."""

    name: str

    def find(self, model, term, chosen):
        column = model._meta.get_field(self.name)
        try:
            column.to_python(term)
        except ValidationError:
            return None
        is_id = column.primary_key or column.is_relation or self.name.endswith("_id")
        return Found(Q((self.name, term)), {self.name: term}, is_understood=not is_id or bool(ID.fullmatch(term)))


@dataclass(frozen=True, slots=True)
class KeyWithin(Probe):
    """The exact value of an index's second column, for every value of its first."""

    first: str
    name: str

    def find(self, model, term, chosen):
        values = values_of(model, self.first)
        is_id = bool(ID.fullmatch(term.replace(".", "")))  # Apple's ids have dots.
        return Found(Q((f"{self.first}__in", values), (self.name, term)), is_understood=is_id) if values else None


@dataclass(frozen=True, slots=True)
class Related(Probe):
    """The value of a unique column of the row that a foreign key references; that row is looked up first.

    With `is_address` the term must contain an @; if no row has this exact spelling, case is ignored, for which the column has a
    trigram index on UPPER(column).
    """

    key: str
    name: str
    is_address: bool = False

    def find(self, model, term, chosen):
        others = model._meta.get_field(self.key).related_model._base_manager.all()
        if self.is_address and not ("@" in term and LETTERS.search(term)):
            return None
        ids = [*others.filter(**{self.name: term}).values_list("pk", flat=True)[:1]]
        if not ids and self.is_address:
            ids = [one.pk for one in with_address(others.order_by("pk").only("pk", self.name), self.name, term)]
        if not ids:
            return Found(Q(pk__in=[]), is_final=True) if self.is_address else None
        return Found(Q((f"{self.key}_id", ids[0])), {self.key: ids[0]}, is_final=self.is_address)


@dataclass(frozen=True, slots=True)
class Route(Probe):
    """A route, `GRU-LIS`, or the airport of departure, `GRU`."""

    origin: str = "origin"
    destination: str = "destination"

    def find(self, model, term, chosen):
        airports = airports_of(term)
        equal = dict(zip((self.origin, self.destination), airports, strict=False))
        return Found(Q(**equal), equal) if airports else None


def airports_of(term: str) -> tuple[str, ...]:
    """Return the two airports of a route, `GRU-LIS`, or the one of a departure, `GRU`; none if the term is neither."""
    if match := ROUTE.fullmatch(term):
        return match[1].upper(), match[2].upper()
    return (term.upper(),) if AIRPORT.fullmatch(term) else ()


@dataclass(frozen=True, slots=True)
class RoutePrefix(Probe):
    """A route or an airport of departure; an index has the first `length` characters of the text, followed by `time`."""

    time: str
    length: int = 8

    is_general = True

    def find(self, model, term, chosen):
        airports = airports_of(term)
        rows = Q()
        for name, airport in zip(("origin", "destination"), airports, strict=False):
            rows &= Q(Exact(Left(F(name), self.length), Value(airport)))
        return Found(rows, order=self.time if len(airports) == 2 else "") if airports else None


@dataclass(frozen=True, slots=True)
class Address(Probe):
    """An IP address as the site writes it; an index has its first `length` characters, followed by `time`."""

    name: str
    time: str
    length: int = 64

    is_general = True

    def find(self, model, term, chosen):
        try:
            ip_address(term)
        except ValueError:
            return None
        return Found(Q(Exact(Left(F(self.name), self.length), Value(term.lower()))), order=self.time)


class PersonNamed(Probe):
    """A person, by words of their name and address in any order, ignoring accents; the model's `named_by` has an index."""

    is_general = True

    def find(self, model, term, chosen):
        try:
            keys = people_named(model, term, most=MOST_CANDIDATES)
        except TooSlow:
            return Found(Q(pk__in=[]), note=TOO_MANY, is_partial=True)
        if keys is None:
            return replace(NOTHING, note=f"Enter at least one part with {SHORTEST_TEXT} consecutive letters or digits.")
        cut = len(keys) > MOST_CANDIDATES
        return Found(Q(pk__in=keys[:MOST_CANDIDATES]), note=MORE if cut else "", is_partial=cut)


@dataclass(frozen=True, slots=True)
class RelatedPerson(Probe):
    """The rows of people, by words of their names; `key` is the foreign key to the person."""

    key: str

    def find(self, model, term, chosen):
        try:
            people = people_named(model._meta.get_field(self.key).related_model, term, most=MOST_PEOPLE)
        except TooSlow:
            return Found(Q(pk__in=[]), note=TOO_MANY, is_partial=True)
        if people is None:
            return None
        rows = model._base_manager.filter(**{f"{self.key}__in": people[:MOST_PEOPLE]})
        keys = list(rows.values_list("pk", flat=True)[: MOST_CANDIDATES + 1]) if people else []
        cut = len(people) > MOST_PEOPLE or len(keys) > MOST_CANDIDATES
        more = "More rows match than are shown. Enter more of the name, or an e-mail address."
        return Found(Q(pk__in=keys[:MOST_CANDIDATES]), note=more if cut else "", is_understood=bool(people), is_partial=cut)


def people_named(model: type[models.Model], term: str, *, most: int) -> list[str] | None:
    """Return the keys of at most `most` + 1 people, in no order; None if no word is long enough.

    They match every word, or the term as a whole. A word shorter than SHORTEST_TEXT matches only at the beginning of a word, so
    that the index narrows the search. Raises TooSlow if it takes too long.
    """
    words = term.split()[:MOST_WORDS]
    if not any(LETTERS.search(word) for word in words):
        return None
    rows = model._base_manager.alias(words=Folded(Words(*model.named_by)))  # type: ignore[attr-defined]
    each = Q()
    for word in words:
        each &= Q(words__contains=Folded(Value(word if LETTERS.search(word) else f" {word}")))
    rows = rows.filter(each | Q(words__contains=Folded(Value(" ".join(words)))))
    connection = current()
    sql, values = rows.order_by().values_list("pk").query.get_compiler(connection=connection).as_sql()
    with within(), connection.cursor() as cursor:
        cursor.execute(FIRST_FOUND_SQL.format(rows=sql, most=most + 1), values)
        return [key for (key,) in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Within(Probe):
    """A part of a text, ignoring case, in the few rows that reference one chosen row by `key`, except those that `without` selects."""

    key: str
    name: str
    without: Q = field(default_factory=Q)
    note: str = ""

    def find(self, model, term, chosen):
        if self.key not in chosen:
            return None
        rows = model._base_manager.filter(**{self.key: chosen[self.key], f"{self.name}__icontains": term}).exclude(self.without)
        keys = list(rows.values_list("pk", flat=True)[: MOST_CANDIDATES + 1])
        cut = len(keys) > MOST_CANDIDATES
        return Found(Q(pk__in=keys[:MOST_CANDIDATES]), note=f"{MORE} {self.note}" if cut else self.note, is_partial=cut)


def search(
    model: type[models.Model], probes: tuple[Probe, ...], term: str, *, chosen: Mapping[str, Any] | None = None
) -> Found:
    """Return the result of the first probe that finds rows, otherwise the last one's, understood if any probe understood the term."""
    last = NOTHING
    understood = False
    if not is_text(term):
        return last
    for probe in probes:
        if found := probe.find(model, term, chosen or {}):
            last, understood = found, understood or found.is_understood
            if found.is_final or (probe is not probes[-1] and model._base_manager.filter(found.rows).exists()):
                return replace(found, is_understood=True)
    return replace(last, is_understood=understood)


def is_text(term: str) -> bool:
    """Return whether PostgreSQL can store the term: it has no NUL and can be encoded in UTF-8."""
    try:
        term.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in term
