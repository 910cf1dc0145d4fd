"""People in a database, with a row in each table that can have one of theirs; and their erasure, in this process."""

import io
import json
import re

import pytest

from fly2any.database.errors import Refusal
from fly2any.database.person import Stream, erase, export, find, plan
from fly2any.database.roles import SECRETS
from tests.conftest import django

EMAIL = "Ana.Silva@Example.com"
CANARY = "canary-9f3a"
ANA, BOB = "u-alpha", "u-beta"
# Tables that hold a person without a foreign key: the column, and whether it has the id or the e-mail address.
WITHOUT_KEY = {
    "user_activities": ("userId", "id"),
    "verification_tokens": ("identifier", "email"),
    "axes_accessattempt": ("username", "email"),
    "axes_accessfailurelog": ("username", "email"),
    "axes_accesslog": ("username", "email"),
    "fly2any_accesses": ("person_id", "id"),
}


def fill(database, catalog, identity, email, number):
    """Insert a row into each table that references users, and into those that hold a person without a foreign key."""
    made, todo = {"users": identity}, ["users"]
    for table, (column, what) in WITHOUT_KEY.items():
        made[table] = insert(database, catalog, table, {column: identity if what == "id" else email.upper()}, number)
        todo.append(table)
    while todo:
        parent = todo.pop(0)
        for key in catalog.foreign_keys:
            if key.target == parent and key.table not in made and key.table != parent:
                made[key.table] = insert(database, catalog, key.table, {key.columns[0]: made[parent]}, number)
                todo.append(key.table)
    admin_log = {"user_id": identity, "object_id": identity, "object_repr": email, "content_type_id": content_type(database)}
    insert(database, catalog, "django_admin_log", admin_log, number)


def content_type(database):
    return database.execute("SELECT id FROM django_content_type WHERE app_label = 'accounts' AND model = 'user'")[0][0]


def insert(database, catalog, table, values, number):
    """Insert a row with a value in each required column; return its primary key."""
    wanted = {column.name: column for column in catalog.columns if column.table == table}
    unique = f"{number}-{table}"
    for name, column in wanted.items():
        if name in values or (column.nullable and name not in SECRETS.get(table, ())) or column.default or column.identity:
            continue
        kind = column.type
        text = CANARY + unique if name in SECRETS.get(table, ()) else unique[:36]
        references = next((key for key in catalog.foreign_keys if key.table == table and key.columns == (name,)), None)
        if references:
            [(values[name],)] = database.execute(f'SELECT max("{references.target_columns[0]}") FROM "{references.target}"')
        elif re.match("timestamp", kind):
            values[name] = "2026-05-01T00:00:00Z"
        elif kind in ("integer", "bigint", "smallint", "double precision", "numeric"):
            values[name] = number + 1
        elif kind == "boolean":
            values[name] = True
        elif kind in ("jsonb", "json"):
            values[name] = "{}"
        elif kind == "inet":
            values[name] = "192.0.2.1"
        elif kind == "bytea":
            values[name] = unique.encode()
        elif kind.endswith("[]"):
            values[name] = []
        else:
            length = re.search(r"\((\d+)\)", kind)
            values[name] = text[: int(length[1])] if length else text
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(["%s"] * len(values))
    key = next(key.columns[0] for key in catalog.keys if key.table == table and key.primary)
    [(made,)] = database.execute(f'INSERT INTO "{table}" ({names}) VALUES ({marks}) RETURNING "{key}"', list(values.values()))
    return made


def mentions(database, word):
    """The tables of every schema in which `word` stands anywhere, with how many rows."""
    tables = database.execute(
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE relkind IN ('r', 'm') AND relpersistence <> 't'"
        " AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY 1"
    )
    counts = {
        name: database.execute(
            f"SELECT count(*) FROM ONLY {name.replace('%', '%%')} AS t WHERE t::text ILIKE %s", [f"%{word}%"]
        )[0][0]
        for (name,) in tables
    }
    return {name.strip('"'): count for name, count in counts.items() if count}


def erased(database, email=EMAIL, **options):
    """Erase a person in this process; return the certificate."""
    paper = io.StringIO()
    with django(database) as connection:
        erase(connection, find(connection, email), Stream(paper), **options)
    return json.loads(paper.getvalue())


def planned(database, email=EMAIL, **options):
    with django(database) as connection:
        return plan(connection, find(connection, email), **options)


def exported(database, email=EMAIL):
    with django(database) as connection:
        return json.loads("".join(export(connection, find(connection, email))))["tables"]


def refused(database, **options):
    """Return the message of a refused erasure; it must change nothing, and the plan must have the same message."""
    before = database.execute("SELECT id FROM users ORDER BY id")
    with pytest.raises(Refusal) as refusal:
        erased(database, **options)
    assert database.execute("SELECT id FROM users ORDER BY id") == before
    with pytest.raises(Refusal) as foreseen:
        planned(database, searched=False).require()
    assert str(foreseen.value) == str(refusal.value)
    return str(refusal.value)
