"""Roles whose names are not valid in the encoding of the database: a dump with one can be restored nowhere."""

import dataclasses

import pytest

from fly2any.database.backup.owners import require_owners
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django


@pytest.fixture
def invalid(migrated):
    """The OID of a role whose name is in Latin-1: roles belong to the whole server, and are created in the encoding of any database."""
    [(version,)] = migrated.execute("SELECT current_setting('server_version_num')::int")
    provider = "LOCALE_PROVIDER libc" if version >= 15_00_00 else ""
    latin = dataclasses.replace(migrated, name=f"{migrated.name}_latin")
    migrated.execute(
        f"CREATE DATABASE {latin.name} ENCODING 'SQL_ASCII' {provider} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    try:
        with latin.connect(client_encoding="SQL_ASCII") as client:
            client.execute(f'CREATE ROLE "{migrated.name}_é"'.encode("latin-1"))
    finally:
        migrated.execute(f"DROP DATABASE {latin.name}")
    [(oid,)] = migrated.execute(
        "SELECT oid FROM pg_roles WHERE starts_with(namesend(rolname)::text, namesend(%s)::text)", [f"{migrated.name}_"]
    )
    try:
        yield oid
    finally:
        role = f"role_{oid}"
        migrated.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "named",
    [
        "ALTER TABLE named OWNER TO %I",
        "GRANT SELECT ON named TO %I",
        "CREATE POLICY p ON named TO %I",
        "GRANT CONNECT ON DATABASE {name} TO %I",
    ],
)
def test_a_backup_is_refused_with_the_statement_that_renames_the_role(migrated, invalid, place, named):
    statement = named.format(name=migrated.name)
    migrated.execute(
        f"CREATE TABLE named (); DO $$ BEGIN EXECUTE (SELECT format('{statement}', rolname) FROM pg_roles WHERE oid = {invalid}); END $$"
    )

    with django(migrated) as connection:
        with pytest.raises(Refusal) as refused:
            take(connection, Folder(place), Progress())
        text, cure = str(refused.value).split("run ")
        migrated.execute(cure)
        manifest = take(connection, Folder(place), Progress())

    assert text == (
        "The names of roles that own objects of this database, or have privileges on them, are not valid in its encoding, UTF8"
        f" ({migrated.name}_\\xe9), so no backup could be restored, and none was taken. Rename them: as a superuser, "
    )
    assert (f"role_{invalid}" in (*manifest.owners, *manifest.roles)) is ("DATABASE" not in named)


def test_the_refusal_of_a_restore_names_such_a_role_rightly(migrated, place):
    with django(migrated) as connection:
        manifest = dataclasses.replace(take(connection, Folder(place), Progress()), roles=("x_r\\xe9le",))
        with pytest.raises(Refusal) as refused:
            require_owners(connection, manifest, trust=(), without=())

    assert str(refused.value) == (
        f"{manifest.name} names roles whose names are not valid in UTF-8 (x_r\\xe9le), so pg_restore cannot restore it. Use an earlier"
        " backup, or take a new one: `manage.py dbbackup` prints how to rename them. By hand, pg_restore --no-owner --no-privileges"
        " restores the rest of this one."
    )
