"""All data about a person, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from .. import facts
from ..roles import SECRETS
from ..sql import as_written
from ..terminal_text import printable
from .copied import rows_at
from .other_people import Others
from .people import Person
from .plan import Reach, reach, rows_of_person
from .tables import Column, Table, Tables, quoted, read_tables
from .trace import Rows, counts_by_table, rows_of
from .transactions import reading
from .without_foreign_key import LOG, TEXTS_OF_OTHERS, sessions_of_others

FORMAT = 1
OF_STAFF = facts.columns("fields_of_staff")
OF_SUBJECT = facts.columns("ids_of_subject")


def export(connection, person: Person) -> Iterator[str]:
    """Yield the parts of one JSON text with every row that an erasure removes, changes or clears, of one snapshot, without secrets and facts about staff.

    Rows about other people are left out and counted by table, and ids of others in logs are NULL. Control characters
    are escaped, because a name may contain a terminal's escape sequences.
    """
    return map(printable, _parts(connection, person))


def _parts(connection, person: Person) -> Iterator[str]:
    with reading(connection):
        with connection.cursor() as cursor:
            tables = read_tables(connection)
            others = Others(cursor, tables, rows_of_person(cursor, tables, person, lock=False))
            found = reach(cursor, tables, person, lock=False, leave=others.find)
            rows = _given(found, others, tables, sessions_of_others(cursor, tables, person, found.trace.removed))
        head = {"format": FORMAT, "at": datetime.now(UTC).isoformat(), "person": {"id": person.id, "email": person.email}}
        yield json.dumps(head, ensure_ascii=False)[:-1] + ', "tables": {'
        for place, (name, parts) in enumerate(_by_name(tables, rows).items()):
            yield f"{',' if place else ''}\n{json.dumps(name)}: ["
            first = True
            for oid, places in parts:
                for text in _rows(connection, tables, person, oid, places, found.named):
                    yield ("" if first else ",\n") + text
                    first = False
            yield "]"
        yield f'\n}}, "left_out": {json.dumps(counts_by_table(tables, others.left_out), ensure_ascii=False)}}}\n'


def _given(found: Reach, others: Others, tables: Tables, sessions: Rows) -> Rows:
    """Return the rows to give out; failed sign-ins and `sessions` of other people, which contain the address, are left out."""
    rows = rows_of()
    for part in (found.trace.removed, *found.trace.changed.values(), found.cleared):
        for oid, places in part.items():
            is_of_others = part is found.cleared and tables.label(oid) in TEXTS_OF_OTHERS
            left = places if is_of_others else places & sessions.get(oid, set())
            others.left_out[oid] |= left
            if given := places - left:
                rows[oid] |= given
    return rows


def _by_name(tables: Tables, rows: Rows) -> dict[str, list[tuple[int, set[str]]]]:
    found: dict[str, list[tuple[int, set[str]]]] = {}
    for oid, places in rows.items():
        found.setdefault(tables.label(oid), []).append((oid, places))
    return found


def _rows(connection, tables: Tables, person: Person, oid: int, places: set[str], named: set[str]) -> Iterator[str]:
    """Yield rows of a table as JSON, in batches; `named` are the entries of the admin's log about the person or their rows."""
    table = tables.tables[oid]
    names = {tables.label(one) for one in tables.ancestry(oid)}
    hidden = {column for name in names for column in (*SECRETS.get(name, ()), *OF_STAFF.get(name, ()))}
    if not table.is_ours:
        with connection.cursor() as cursor:
            for row in rows_at(cursor, tables, table, places):
                yield json.dumps({name: value for name, value in row.items() if name not in hidden}, ensure_ascii=False)
        return
    subject = OF_SUBJECT.get(tables.label(oid), ())
    is_about, values = _is_about(table, subject, person, named)
    columns, parameters = [], []
    for column in (one for one in tables.columns[oid] if one.name not in hidden):
        columns.append(
            _as_json(column)
            if column.name not in subject
            else f"CASE WHEN {is_about} THEN c.{quoted(column.name)} END AS {quoted(column.name)}"
        )
        parameters += values if column.name in subject else []
    with connection.chunked_cursor() as cursor:
        cursor.execute(
            f"SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT {', '.join(columns)} FROM {table.rows_sql} AS c WHERE {table.at_sql()}) AS r",
            [*parameters, sorted(places)],
        )
        while rows := cursor.fetchmany(1000):
            yield ",\n".join(row for (row,) in rows)


def _is_about(table: Table, subject: tuple[str, ...], person: Person, named: set[str]) -> tuple[str, list]:
    """Return the condition that a row of a log is about the person, one of whose ids is in the columns `subject`, and its parameters."""
    if table.name == LOG:  # Its ids are those of rows of any table.
        return table.at_sql(), [sorted(named)]
    same = [f"c.{quoted(name)} OPERATOR(pg_catalog.=) %s" for name in subject]
    return " OR ".join(same), [person.id] * len(same)


def _as_json(column: Column) -> str:
    """Return a column for row_to_json(), as text for types of other roles, whose cast to json it would call."""
    name = quoted(column.name)
    return f"c.{name}" if column.leaf else f"{as_written(f'c.{name}')} AS {name}"
