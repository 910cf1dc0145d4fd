"""Our tables that know a person without a foreign key: which of their rows go, and which lose the address."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from contextlib import suppress

from ..diagnosis import Refusal
from .people import Person
from .search import SEARCHED, as_text, holds
from .tables import Column, Table, Tables, quoted
from .trace import AT, Rows, places_of, rows_of
from .words import Words, words

ACTIVITIES = "user_activities"  # It has the person's id.
GUESSES = ("axes_accessattempt", "axes_accessfailurelog", "axes_accesslog")
MENTIONED = ("verification_tokens", *GUESSES)  # Rows go that have the address anywhere.
SESSIONS = "django_session"  # Of the admin: what is in them is encoded.
LOG = "django_admin_log"
ACCESSES = "fly2any_accesses"
CLEARED = (LOG, ACCESSES)  # What the staff did: it outlives the person, without the address.
ERASED = "(erased)"
WITHOUT_KEY = (ACTIVITIES, *MENTIONED, SESSIONS, *CLEARED)

# The admin's log names rows by what they are called: a person by their address, also by one of before.
NAMED = """
    c.object_id OPERATOR(pg_catalog.=) %s AND c.content_type_id IN (
        SELECT t.id FROM {types} AS t WHERE t.app_label OPERATOR(pg_catalog.=) 'accounts' AND t.model OPERATOR(pg_catalog.=) 'user')
"""


def removed_rows(cursor, tables: Tables, person: Person, *, lock: bool) -> Rows:
    """Return the rows of ours that go with the person and have no foreign key to them."""
    found = rows_of()
    for table, condition, parameters in _removals(cursor, tables, person):
        if condition:
            for oid, places in places_of(cursor, table, condition, parameters, lock=lock).items():
                found[oid] |= places
    return found


def _removals(cursor, tables: Tables, person: Person) -> Iterator[tuple[Table, str, list]]:
    wanted = words(person.id, person.email)
    if table := _known(tables, ACTIVITIES):
        yield table, 'c."userId" OPERATOR(pg_catalog.=) %s', [person.id]
    for name in MENTIONED:
        if table := _known(tables, name):
            yield table, *mentions(tables, table, wanted)
    if table := _known(tables, SESSIONS):
        cursor.execute(f"SELECT session_key, session_data FROM {table.sql}", [])
        keys = [key for key, data in cursor.fetchall() if _is_of(decoded(data), person)]
        yield table, "c.session_key OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[])" if keys else "", [keys]


def _known(tables: Tables, name: str) -> Table | None:
    table = tables.own(name)
    return table and tables.require(table.oid, "which knows people without a foreign key")


def mentions(tables: Tables, table: Table, wanted: Words) -> tuple[str, list]:
    """Return the condition for rows of a table that have the address anywhere, "" for a person without one."""
    if wanted.address is None:
        return "", []
    conditions = [holds(column, wanted.address) for column in texts(tables, table)]
    return " OR ".join(f"({condition})" for condition, _ in conditions), [value for _, values in conditions for value in values]


def texts(tables: Tables, table: Table) -> list[Column]:
    return [column for column in tables.columns[table.oid] if column.category in SEARCHED]


def decoded(data: str) -> str:
    """Return what a session of Django's holds, as JSON; "" where that cannot be read."""
    payload = data.rpartition(":")[0].rpartition(":")[0]
    with suppress(ValueError, zlib.error):
        raw = base64.urlsafe_b64decode(payload.lstrip(".") + "=" * (-len(payload.lstrip(".")) % 4))
        return (zlib.decompress(raw) if payload.startswith(".") else raw).decode(errors="replace")
    return ""


def _is_of(text: str, person: Person) -> bool:
    return f'"{person.id}"' in text or bool(person.email and person.email.lower() in text.lower())


def cleared_rows(cursor, tables: Tables, person: Person, *, lock: bool) -> Rows:
    """Return the rows of ours that stay and from which the address is to be cleared."""
    found = rows_of()
    wanted = words(person.id, person.email)
    for name in CLEARED:
        if table := _known(tables, name):
            condition, parameters = mentions(tables, table, wanted)
            if name == LOG and (types := tables.own("django_content_type")):
                named = NAMED.format(types=types.sql) + " AND c.object_repr OPERATOR(pg_catalog.<>) %s"
                condition = f"{condition} OR {named}" if condition else named
                parameters = [*parameters, person.id, ERASED]
            if condition:
                for oid, places in places_of(cursor, table, condition, parameters, lock=lock).items():
                    found[oid] |= places
    return found


def clear(cursor, tables: Tables, person: Person, rows: Rows) -> None:
    """Replace the address in `rows`, and what the admin's log calls the person."""
    pattern = words(person.id, person.email).address
    for oid, places in rows.items():
        table = tables.tables[oid]
        changes, parameters = [], []
        for column in texts(tables, table):
            text, values = as_text(column), []
            if pattern:
                text, values = f"pg_catalog.regexp_replace({text}, %s, %s, 'gi')", [pattern.text, rf"\1{ERASED}"]
            text += f"::{column.type}"  # Which cuts what became too long.
            if table.name == LOG and column.name == "object_repr" and (types := tables.own("django_content_type")):
                text, values = (
                    f"CASE WHEN {NAMED.format(types=types.sql)} THEN %s ELSE {text} END",
                    [person.id, ERASED, *values],
                )
            changes.append(f"{quoted(column.name)} = {text}")
            parameters += values
        cursor.execute(f"UPDATE {table.sql} AS c SET {', '.join(changes)} WHERE {AT}", [*parameters, sorted(places)])
        if cursor.rowcount != len(places):
            raise Refusal(f"Rows of {tables.label(oid)} changed meanwhile: nothing was erased; run the command again.")
