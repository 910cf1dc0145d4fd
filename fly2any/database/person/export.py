"""All data about a person, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from .. import facts
from ..roles import SECRETS
from ..sql import as_written
from .copied import rows_at
from .other_people import Others
from .people import Person
from .plan import reach, rows_of_person
from .tables import Column, Tables, quoted, read_tables
from .trace import Rows, counts_by_table, rows_of
from .transactions import reading

FORMAT = 1
OF_STAFF = facts.columns("fields_of_staff")


def export(connection, person: Person) -> Iterator[str]:
    """Yield the parts of one JSON text with every row that an erasure removes, changes or clears, of one snapshot, without secrets and facts about staff.

    Rows about other people are left out and counted by table.
    """
    with reading(connection):
        with connection.cursor() as cursor:
            tables = read_tables(connection)
            others = Others(cursor, tables, rows_of_person(cursor, tables, person, lock=False))
            found = reach(cursor, tables, person, lock=False, leave=others.find)
        rows = rows_of()
        for part in (found.trace.removed, *found.trace.changed.values(), found.cleared):
            for oid, places in part.items():
                rows[oid] |= places
        head = {"format": FORMAT, "at": datetime.now(UTC).isoformat(), "person": {"id": person.id, "email": person.email}}
        yield json.dumps(head, ensure_ascii=False)[:-1] + ', "tables": {'
        for place, (name, parts) in enumerate(_by_name(tables, rows).items()):
            yield f"{',' if place else ''}\n{json.dumps(name)}: ["
            first = True
            for oid, places in parts:
                for text in _rows(connection, tables, oid, places):
                    yield ("" if first else ",\n") + text
                    first = False
            yield "]"
        yield f'\n}}, "left_out": {json.dumps(counts_by_table(tables, others.left_out), ensure_ascii=False)}}}\n'


def _by_name(tables: Tables, rows: Rows) -> dict[str, list[tuple[int, set[str]]]]:
    found: dict[str, list[tuple[int, set[str]]]] = {}
    for oid, places in rows.items():
        found.setdefault(tables.label(oid), []).append((oid, places))
    return found


def _rows(connection, tables: Tables, oid: int, places: set[str]) -> Iterator[str]:
    """Yield rows of a table as JSON, in batches."""
    table = tables.tables[oid]
    names = {tables.label(one) for one in tables.ancestry(oid)}
    hidden = {column for name in names for column in (*SECRETS.get(name, ()), *OF_STAFF.get(name, ()))}
    if not table.is_ours:
        with connection.cursor() as cursor:
            for row in rows_at(cursor, tables, table, places):
                yield json.dumps({name: value for name, value in row.items() if name not in hidden}, ensure_ascii=False)
        return
    columns = ", ".join(_as_json(column) for column in tables.columns[oid] if column.name not in hidden)
    with connection.chunked_cursor() as cursor:
        cursor.execute(
            f"SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT {columns} FROM {table.rows_sql} AS c WHERE {table.at_sql()}) AS r",
            [sorted(places)],
        )
        while rows := cursor.fetchmany(1000):
            yield ",\n".join(row for (row,) in rows)


def _as_json(column: Column) -> str:
    """Return a column for row_to_json(), as text for types of other roles, whose cast to json it would call."""
    name = quoted(column.name)
    return f"c.{name}" if column.leaf else f"{as_written(f'c.{name}')} AS {name}"
