"""Printed SQL: every name is quoted, and none can end its statement or comment."""

from dataclasses import replace

import pytest
from django.db import transaction

from fly2any.database.backup.owners import _require_roles
from fly2any.database.errors import Refusal
from fly2any.database.findings import Finding
from fly2any.database.health import security
from fly2any.database.health.examine import Reader
from fly2any.database.schema import Check, ForeignKey, Key, cures
from fly2any.database.server import read_server
from fly2any.database.sql import quote
from tests.conftest import django

ODD = "My \"Role'"
HOSTILE = "T\"; CREATE TABLE taken (); --\n; CREATE TABLE taken (); --\r; --'"


@pytest.mark.parametrize(
    "thing",
    [
        ForeignKey(HOSTILE, HOSTILE, (HOSTILE,), HOSTILE, ("id",)),
        Key(HOSTILE, HOSTILE[1:], (HOSTILE,)),
        Check(HOSTILE, HOSTILE, (HOSTILE,), f"CHECK ({quote(HOSTILE)} > 0)"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_a_cure_of_hostile_names_does_what_it_says_and_nothing_else(database, thing):
    table = quote(HOSTILE)
    database.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, {table} int)")
    read = "SELECT conname, convalidated FROM pg_constraint WHERE conname = %s", [thing.name]

    database.execute(cures.add(thing))
    added = database.execute(*read)
    database.execute(cures.drop(thing))

    assert (added, database.execute(*read)) == ([(thing.name, True)], [])
    assert database.execute("SELECT to_regclass('taken')") == [(None,)]


def test_the_cures_of_a_role_quote_it(database):
    role = quote(ODD)
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'md5{'0' * 32}'")
    try:
        with django(database) as connection:
            server = replace(read_server(connection), role=ODD, schema=None)
            with transaction.atomic(using=connection.alias):
                found = list(security.passwords(Reader(connection, "public")))
            with pytest.raises(Refusal, match="run CREATE ROLE ") as missing:
                _require_roles(connection, Named(), [])
    finally:
        database.execute(f"DROP ROLE {role}")

    assert [one.cure for one in server.findings() if one.code == "server.schema"] == [
        f"Correct ?schema= in POSTGRES_URL, create the schema, or: ALTER ROLE {role} SET search_path TO public;"
    ]
    cure = f"In `manage.py dbshell`, with password_encryption = 'scram-sha-256': \\password {role}"
    assert cure in [one.cure for one in found if isinstance(one, Finding) and one.where == ODD]
    assert f"run CREATE ROLE {quote('No ' + ODD)} NOLOGIN;" in str(missing.value)


class Named:
    """The roles in a manifest, and its name."""

    name, owners = "backup", ()
    roles = ("No " + ODD,)
