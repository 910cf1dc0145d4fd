"""Our tables that hold a person without a foreign key: the rows to delete, and those that lose the address."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session

from ..errors import Refusal
from ..facts import OnErasure, column_of, columns, declared, erased, person_columns
from ..sql import PEOPLE, as_written
from .conditions import ADDRESSES, as_text, holds, is_own
from .patterns import Patterns, patterns_for
from .people import Person
from .tables import Column, Table, Tables, quoted
from .trace import Rows, places_of, rows_of

OF_PERSON = person_columns(with_key=False)  # Columns with the person's id.
MENTIONED = erased(OnErasure.REMOVE)  # Rows whose column of addresses has the person's are deleted.
TEXTS_OF_OTHERS = columns("texts_of_others")  # Columns of such a table from which the address is cleared in other rows.
SESSIONS = Session._meta.db_table  # Sessions of the admin, whose data is encoded.
LOG = LogEntry._meta.db_table
CLEARED = erased(OnErasure.CLEAR)
# Columns of these that must remain unique, whatever two texts have in common after the address was cleared.
UNIQUE = {
    model._meta.db_table: {column_of(model, name) for names in model._meta.unique_together for name in names}
    for model, _ in declared("texts_of_others")
}
ERASED = "(erased)"
WITHOUT_KEY = (*OF_PERSON, *MENTIONED, SESSIONS, *CLEARED)
# The tables that an erasure writes to, besides those that foreign keys lead to: whether it deletes rows, and the columns that it
# updates, None for any.
WRITES: tuple[tuple[tuple[str, ...], bool, tuple[str, ...] | None], ...] = (
    ((PEOPLE, *OF_PERSON, *MENTIONED, SESSIONS), True, ()),
    ((*CLEARED, *TEXTS_OF_OTHERS), False, None),
)

# The log entry of a bulk change has the name of each row.
OBJECT = r'"object": "([^"\\]|\\.)*"'


def removed_rows(cursor, tables: Tables, person: Person, *, lock: bool) -> Rows:
    """Return our rows that are deleted with the person and have no foreign key to them."""
    found = rows_of()
    for table, condition, parameters in _removals(cursor, tables, person):
        if condition:
            for oid, places in places_of(cursor, table, condition, parameters, lock=lock).items():
                found[oid] |= places
    return found


def _removals(cursor, tables: Tables, person: Person) -> Iterator[tuple[Table, str, list]]:
    wanted = patterns_for(person.id, person.email)
    for name, column in OF_PERSON.items():
        if table := _known(tables, name):
            yield table, f"c.{quoted(column)} OPERATOR(pg_catalog.=) %s", [person.id]
    for name in MENTIONED:
        if table := _known(tables, name):
            yield table, *mentions(tables, table, person, ADDRESSES[name])
    if table := _known(tables, SESSIONS):
        cursor.execute(f"SELECT session_key, session_data FROM {table.sql}", [])
        sessions = ((key, decoded(data)) for key, data in cursor.fetchall())
        keys = [key for key, text in sessions if _is_session_of(text, person) or _names(text, person, wanted)]
        yield table, "c.session_key OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[])" if keys else "", [keys]


def sessions_of_others(cursor, tables: Tables, person: Person, removed: Rows) -> Rows:
    """Return those of the `removed` sessions of the admin that are not the person's: they contain the address."""
    found = rows_of()
    sessions = _known(tables, SESSIONS)
    for table in tables.parts(sessions.oid) if sessions else ():
        if places := removed.get(table.oid):
            rows = f"SELECT {table.place_sql()}, session_data FROM {table.rows_sql} AS c WHERE {table.at_sql()}"
            cursor.execute(rows, [sorted(places)])
            found[table.oid] |= {place for _, place, data in cursor.fetchall() if not _is_session_of(decoded(data), person)}
    return found


def _known(tables: Tables, name: str) -> Table | None:
    table = tables.own(name)
    return table and tables.require(table.oid, "which holds people without a foreign key")


def mentions(tables: Tables, table: Table, person: Person, names: Collection[str] | None = None) -> tuple[str, list]:
    """Return the condition for rows of a table that have the person's address in one of the columns `names`, by default any; "" if none can."""
    searched = (column for column in texts(tables, table) if names is None or column.name in names)
    conditions = [one for column in searched if (one := holds(tables, table, column, person))]
    return " OR ".join(f"({condition})" for condition, _ in conditions), [value for _, values in conditions for value in values]


def texts(tables: Tables, table: Table) -> list[Column]:
    return [column for column in tables.columns[table.oid] if column.is_searched]


def decoded(data: str) -> str:
    """Return the data of a Django session as JSON, "" if it cannot be decoded."""
    payload = data.rpartition(":")[0].rpartition(":")[0]
    with suppress(ValueError, zlib.error):
        raw = base64.urlsafe_b64decode(payload.lstrip(".") + "=" * (-len(payload.lstrip(".")) % 4))
        return (zlib.decompress(raw) if payload.startswith(".") else raw).decode(errors="replace")
    return ""


def _names(text: str, person: Person, wanted: Patterns) -> bool:
    """Return whether a session contains the person's address, for example in a URL."""
    found = wanted.address and wanted.address.compiled.search(text)
    return bool(found) and (not person.has_twin or str(person.email) in text)


def _is_session_of(text: str, person: Person) -> bool:
    with suppress(ValueError, RecursionError):
        held = json.loads(text)
        return isinstance(held, dict) and held.get("_auth_user_id") == person.id
    return False


def cleared_rows(cursor, tables: Tables, person: Person, removed: Rows, *, lock: bool) -> tuple[Rows, set[str]]:
    """Return our rows that stay but lose the address, and the entries of the admin's log that name `removed` rows.

    The log has the text of a row at that time: a person's address, perhaps an earlier one, or a conversation's title.
    """
    found = rows_of()
    named: set[str] = set()
    for name in (*CLEARED, *TEXTS_OF_OTHERS):
        if table := _known(tables, name):
            condition, parameters = mentions(tables, table, person, TEXTS_OF_OTHERS.get(name))
            if condition:
                for oid, places in places_of(cursor, table, condition, parameters, lock=lock).items():
                    found[oid] |= places
    if log := tables.own(LOG):
        for condition, parameters in _naming(tables, person, removed):
            named |= places_of(cursor, log, condition, parameters, lock=lock)[log.oid]
        found[log.oid] |= named
    return found, named


def _naming(tables: Tables, person: Person, removed: Rows) -> Iterator[tuple[str, list]]:
    """Yield conditions for the entries of the admin's log about the person or a row deleted with them."""
    if not (types := tables.own(ContentType._meta.db_table)):
        return
    is_type = (
        f"c.object_repr OPERATOR(pg_catalog.<>) %s AND c.content_type_id IN (SELECT t.id FROM {types.sql} AS t"
        " WHERE t.app_label OPERATOR(pg_catalog.=) %s AND t.model OPERATOR(pg_catalog.=) %s)"
    )
    for model in apps.get_models():
        key = model._meta.pk.column if model._meta.pk else None
        if not key or not (table := tables.own(model._meta.db_table)):
            continue
        values = [ERASED, model._meta.app_label, model._meta.model_name]
        if table.name == PEOPLE:  # The row may no longer exist.
            yield f"{is_type} AND c.object_id OPERATOR(pg_catalog.=) %s", [*values, person.id]
        elif places := removed.get(table.oid):
            keys = f"SELECT {as_written(f'c.{quoted(key)}')} FROM {table.rows_sql} AS c WHERE {table.at_sql()}"
            yield f"{is_type} AND c.object_id OPERATOR(pg_catalog.=) ANY ({keys})", [*values, sorted(places)]


def clear(cursor, tables: Tables, person: Person, rows: Rows, named: set[str]) -> None:
    """Replace the address in `rows`, and the text of a row in the log entries that are `named`."""
    for oid, places in rows.items():
        table = tables.tables[oid]
        only = TEXTS_OF_OTHERS.get(tables.label(oid))
        changes, parameters = [], []
        for column in texts(tables, table):
            if column.is_generated or (only is not None and column.name not in only):
                continue
            text, values = _cleared(tables, table, column, person, named)
            changes.append(
                f"{quoted(column.name)} = {text}::{column.sql_type.replace('%', '%%')}"
            )  # The cast truncates text that became too long.
            parameters += values
        cursor.execute(
            f"UPDATE {table.sql} AS c SET {', '.join(changes)} WHERE {table.at_sql()}", [*parameters, sorted(places)]
        )
        if cursor.rowcount != len(places):
            raise Refusal(f"Rows of {tables.label(oid)} changed in the meantime: nothing was erased; try again.")


def _cleared(tables: Tables, table: Table, column: Column, person: Person, named: set[str]) -> tuple[str, list]:
    """Return a column's text without the address, and its parameters."""
    text: str = as_text(column)
    values: list = []
    if table.name == LOG and column.name == "object_repr":
        text, values = f"CASE WHEN {table.at_sql()} THEN %s ELSE {text} END", [sorted(named), ERASED]
    if table.name == LOG and column.name == "change_message":
        replaced = f"pg_catalog.regexp_replace({text}, %s, %s, 'g')"
        text, values = (
            f"CASE WHEN {table.at_sql()} THEN {replaced} ELSE {text} END",
            [sorted(named), OBJECT, f'"object": "{ERASED}"'],
        )
    if not (found := holds(tables, table, column, person)):
        return text, values
    condition, sought = found
    if is_own(tables, table, column, person):
        return f"CASE WHEN {condition} THEN %s ELSE {text} END", [*sought, ERASED, *values]
    if column.name in UNIQUE.get(tables.label(table.oid), ()):
        unique = "pg_catalog.concat(%s::pg_catalog.text, ' ', pg_catalog.gen_random_uuid())"
        return f"CASE WHEN {condition} THEN {unique} ELSE {text} END", [*sought, ERASED, *values]
    pattern, flags = patterns_for(person.id, person.email).address, "g" if person.has_twin else "gi"
    return f"pg_catalog.regexp_replace({text}, %s, %s, '{flags}')", [*values, pattern and pattern.text, rf"\1{ERASED}"]
