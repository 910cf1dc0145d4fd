"""Conditions, in SQL, that a column of one of our tables holds a person's address or id."""

from __future__ import annotations

from ..facts import columns, declared
from ..sql import as_written
from .patterns import LARGE, Pattern, ascii_lower, is_address, patterns_for
from .people import Person
from .tables import Column, Table, Tables, quoted

ADDRESSES = columns("address_fields")
SUFFIXES: dict[str, tuple[str, ...]] = {model._meta.db_table: texts for model, texts in declared("address_suffixes")}


def is_own(tables: Tables, table: Table, column: Column, person: Person) -> tuple[str, list] | None:
    """Return the condition that a column of e-mail addresses has the person's, and its parameters; None for any other column.

    Only the whole value counts, because a longer one is another address: `x=ana@example.com`. For a person with a twin, the
    spelling counts too.
    """
    names = [name for name in _names(tables, table) if column.name in ADDRESSES.get(name, ())]
    if not names or not person.email:
        return None
    forms = [person.email, *(person.email + suffix for name in names for suffix in SUFFIXES.get(name, ()))]
    text = f'({as_text(column)} COLLATE pg_catalog."C")'
    if not person.has_twin:
        text, forms = f"pg_catalog.lower({text})", [ascii_lower(form) for form in forms]
    return f"{text} OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[])", [forms]


def _names(tables: Tables, table: Table) -> list[str]:
    """Return the names of a table of our schema, and of those that it is a partition of or inherits from."""
    related = (tables.tables[oid] for oid in tables.ancestry(table.oid) if oid in tables.tables)
    return [one.name for one in related if one.schema == tables.schema]


def holds(tables: Tables, table: Table, column: Column, person: Person) -> tuple[str, list] | None:
    """Return the condition that a column holds the person's address, and its parameters; None if it cannot.

    If the stored address is not a valid one, only columns of addresses count: another may equal an ordinary word. For a person
    with a twin the condition is case-sensitive; rows with another spelling are reported, and stay.
    """
    if own := is_own(tables, table, column, person):
        return own
    address = patterns_for(person.id, person.email).address
    if address is None or not is_address(str(person.email)):
        return None
    condition, parameters = matches(column, address)
    if person.has_twin:
        exact = f"({condition}) AND pg_catalog.strpos({as_text(column)}, %s) OPERATOR(pg_catalog.>) 0"
        return exact, [*parameters, person.email]
    return condition, parameters


def matches(column: Column, pattern: Pattern) -> tuple[str, list]:
    """Return the condition that a column of the table `c` matches a pattern, and its parameters."""
    plain = as_text(column)
    text = f'({plain} COLLATE pg_catalog."default")'
    large = f"pg_catalog.octet_length({text}) OPERATOR(pg_catalog.>) {LARGE}"
    may = f'pg_catalog.lower({plain} COLLATE pg_catalog."C") OPERATOR(pg_catalog.~~) ANY (%s::pg_catalog.text[])'
    cases = f"WHEN {large} THEN {may}"
    values = [list(pattern.plain)]
    if not column.is_plain:  # Bytes in its values are written as hex digits.
        cases += (
            rf" WHEN {text} OPERATOR(pg_catalog.~~) '%%\\\\x%%' THEN {text} OPERATOR(pg_catalog.~*) ANY (%s::pg_catalog.text[])"
        )
        values.append([pattern.text, pattern.digits])
    return f"CASE {cases} WHEN {may} THEN {text} OPERATOR(pg_catalog.~*) %s ELSE false END", [
        *values,
        list(pattern.parts),
        pattern.text,
    ]


def as_text(column: Column) -> str:
    """Return a column of the table `c`, one of ours, as text."""
    name = f"c.{quoted(column.name)}"
    if column.base == "bytea":
        return f"pg_catalog.encode({name}, 'escape')"
    return f"{name}::pg_catalog.text" if column.base in ("text", "varchar") else as_written(name)
