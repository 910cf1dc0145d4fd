"""Restores on a server that lacks what the original had: tablespaces, and superusers."""

import dataclasses

import pytest

from fly2any.database.backup.owners import untrusted
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from tests.conftest import django
from tests.database.taken import RecordedProgress, databases, rows


@pytest.fixture
def target(migrated):
    """The name of a database to restore into, which is dropped afterwards."""
    name = f"{migrated.name}_target"
    yield name
    migrated.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def tablespaces(migrated):
    """Two tablespaces, with a quoted name too, in the server's own folder."""
    names = [f"{migrated.name}_fast", f"{migrated.name} slow"]
    with migrated.connect() as client:
        client.execute("SET allow_in_place_tablespaces = on")
        for name in names:
            client.execute(f"CREATE TABLESPACE \"{name}\" LOCATION ''")
    yield names
    for name in databases(migrated):
        dataclasses.replace(migrated, name=name).execute("DROP TABLE IF EXISTS placed, placed_too")
    for name in names:
        migrated.execute(f'DROP TABLESPACE IF EXISTS "{name}"')


PLACES = """
    SELECT c.relname::text, t.spcname::text FROM pg_class AS c JOIN pg_tablespace AS t ON t.oid = c.reltablespace
    WHERE c.relname ~ '^placed' ORDER BY 1
"""


def restored(database, place, target, before=(), **options):
    """Take a backup of the database, run the statements `before`, restore it into `target`, and return what was reported."""
    progress = RecordedProgress()
    with django(database) as connection:
        store = store_at(place)
        manifest = take(connection, store, progress)
        for statement in before:
            database.execute(statement)
        restore_into(connection, target, store, manifest, progress, **options)
    return progress.sentences


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [True, False], ids=["missing", "existing"])
def test_tables_of_a_missing_tablespace_are_restored_into_the_default_one(migrated, place, target, tablespaces, is_lost):
    fast, slow = tablespaces
    migrated.execute(
        f"CREATE TABLE placed (id int PRIMARY KEY USING INDEX TABLESPACE {fast}); INSERT INTO placed VALUES (7);"
        f'CREATE TABLE placed_too (id int) TABLESPACE "{slow}"'
    )
    before = migrated.execute(PLACES)
    lost = ["DROP TABLE placed, placed_too", f"DROP TABLESPACE {fast}"] if is_lost else []

    sentences = restored(migrated, place, target, lost)

    new = dataclasses.replace(migrated, name=target)
    assert (rows(new)["placed"], new.execute(PLACES)) == ([("(7)",)], [] if is_lost else before)
    assert sentences == (
        [
            f"The backup names tablespaces that do not exist here, or in which this role may create nothing ({fast}): everything is"
            " restored into the default tablespace. ALTER TABLE … SET TABLESPACE moves a table afterwards."
        ]
        if is_lost
        else []
    )


OF_SUPERUSERS = """
    CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION seen(); ALTER EVENT TRIGGER seen OWNER TO {role};
    CREATE FOREIGN DATA WRAPPER "a wrapper"; ALTER FOREIGN DATA WRAPPER "a wrapper" OWNER TO {role};
    CREATE PUBLICATION everything FOR ALL TABLES; ALTER PUBLICATION everything OWNER TO {role};
    CREATE PUBLICATION chosen FOR TABLE users; ALTER PUBLICATION chosen OWNER TO {role}
"""


@pytest.mark.slow
def test_an_object_of_a_role_that_is_no_superuser_any_more_is_named_before_rows_are_restored(migrated, place, target):
    role = f"{migrated.name}_admin"
    migrated.execute(f"CREATE ROLE {role} SUPERUSER; {OF_SUPERUSERS.format(role=role)}")
    try:
        with pytest.raises(Refusal) as refused:
            restored(migrated, place, target, [f"ALTER ROLE {role} NOSUPERUSER"], trust=[role])
        names = databases(migrated)
        without = restored(migrated, place, target, without=[role])
        migrated.execute(f"DROP DATABASE {target}")
        migrated.execute(f"ALTER ROLE {role} SUPERUSER")
        again = restored(migrated, place, target)
    finally:
        for name in databases(migrated):
            dataclasses.replace(migrated, name=name).execute(f"DROP OWNED BY {role}")
        migrated.execute(f"DROP ROLE {role}")

    assert str(refused.value) == (
        "Only superusers may own some objects in the backup, but their owners are not superusers on this server (foreign data wrapper"
        f' "a wrapper" of {role}, event trigger seen of {role}): as a superuser, run ALTER ROLE'
        f' "{role}" SUPERUSER; and make them NOSUPERUSER after the restore, unless they need it for something else; or leave out their objects with'
        f" --without {role}."
    )
    assert names == {migrated.name}
    assert (len(without), again) == (1, [])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("is_moved", [True, False], ids=["another server", "the same server"])
@pytest.mark.parametrize("was_superuser", [True, False], ids=["a superuser", "another role"])
def test_only_who_was_a_superuser_on_the_original_is_trusted_on_another_server(migrated, place, was_superuser, is_moved):
    role = f"{migrated.name}_same"
    migrated.execute(f"CREATE ROLE {role}; CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO {role}")
    try:
        with django(migrated) as connection:
            if was_superuser:
                migrated.execute(f"ALTER ROLE {role} SUPERUSER")
            manifest = take(connection, store_at(place), RecordedProgress())
            migrated.execute(f"ALTER ROLE {role} SUPERUSER")  # So is the role of that name on the server that restores.
            if is_moved:
                manifest = dataclasses.replace(manifest, cluster="7000000000000000001")
            found = untrusted(connection, manifest)
    finally:
        migrated.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    assert found == ([role] if is_moved and not was_superuser else [])


def test_a_role_that_may_not_create_the_database_to_restore_into_is_named(migrated, place, target):
    with django(migrated) as connection:
        manifest = take(connection, store_at(place), RecordedProgress())
    role = f"{migrated.name}_role"
    of_role = dataclasses.replace(migrated, user=role)
    with migrated.role(), django(of_role) as connection, pytest.raises(Refusal) as refused:
        restore_into(connection, target, store_at(place), manifest, RecordedProgress())

    assert str(refused.value) == (
        f'The role {role} may not create databases, as this command must: as a superuser, run ALTER ROLE "{role}" CREATEDB;'
    )
