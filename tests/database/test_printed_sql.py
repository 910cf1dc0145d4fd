"""Printed SQL: every name is quoted, and none can end its statement or comment."""

import re
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
from tests.conftest import django, manage

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
    """The roles in a manifest."""

    owners = ()
    roles = ("No " + ODD,)


PERSON = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("theirs", [False, True])
def test_columns_that_foreign_keys_join_change_their_type_together(migrated, theirs):
    """As Prisma creates them for `@db.Uuid`."""
    migrated.execute(f"""INSERT INTO users (id, email, "updatedAt") VALUES ('{PERSON}', 'a@example.com', now());
                         INSERT INTO sessions (id, "sessionToken", "userId", expires) VALUES ('s', 't', '{PERSON}', now())""")
    if theirs:
        migrated.execute("CREATE TABLE trip (user_id text REFERENCES users ON DELETE CASCADE)")
    before = migrated.execute("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2")
    joined = migrated.execute("""SELECT k.conrelid::regclass::text, a.attname, k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint AS k
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
        WHERE k.contype = 'f' AND k.confrelid = 'users'::regclass""")
    migrated.execute("; ".join(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"' for table, _, name, _ in joined))
    for table, column in [("users", "id"), *{(table, column) for table, column, *_ in joined}]:
        migrated.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" TYPE uuid USING "{column}"::uuid')
    migrated.execute("; ".join(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {how}' for table, _, name, how in joined))

    found = manage("dbstatus", "--sql", url=migrated.url)
    asked = "ask the owner of trip.user_id first, whose type changes too"
    assert (found.stdout.count("commented out"), found.stdout.count(asked)) == (1, theirs)
    for statement in re.sub(r"^-- (?=ALTER|ANALYZE)", "", found.stdout, flags=re.M).split(";\n"):
        migrated.execute(statement)
    after = manage("dbstatus", url=migrated.url)

    assert found.returncode == 4
    assert (after.returncode, after.stderr) == (0, ""), after.stdout
    assert (
        migrated.execute("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2")
        == before
    )
    assert migrated.execute('SELECT id, "userId" FROM sessions') == [("s", PERSON)]
