"""Code of other roles that foreign keys run in our session: what it changes there prevents the write."""

import pytest
from django.db import transaction

from fly2any.database.errors import Refusal
from fly2any.database.session_state import watched_writes
from fly2any.database.write_check import check_writes
from tests.conftest import django
from tests.database.other_roles import other_role

# A function that changes the session unless its owner calls it, and one that may be in an index.
TURNS = """
    CREATE FUNCTION theirs.turn() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF session_user <> '{role}' THEN {change}; END IF; RETURN 'x'; END $$;
    CREATE FUNCTION theirs.constant(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT theirs.turn()';
"""
PATH = "PERFORM pg_catalog.set_config('search_path', 'theirs, public', false)"
TEMPORARY = "CREATE TEMPORARY TABLE IF NOT EXISTS users (id text)"


def role_with(database, change, *statements):
    """Another role whose functions make this change to the session."""
    return other_role(database, TURNS.format(role=f"{database.name}_role", change=change), *statements, schema="theirs")


INDEX = (
    "CREATE TABLE theirs.refers (u text REFERENCES users)",
    "CREATE INDEX ON theirs.refers (u, (theirs.constant('x')))",
)


def is_from_18(database):
    return database.execute("SELECT current_setting('server_version_num')::int >= 180000") == [(True,)]


def test_a_write_check_is_not_led_to_another_roles_tables(migrated):
    with role_with(migrated, PATH, *INDEX), django(migrated) as connection, pytest.raises(Refusal) as refused:
        check_writes(connection)

    assert str(refused.value).startswith(
        "Code of another role's table changed the session's search_path: nothing was changed."
        if is_from_18(migrated)
        else "Nothing was changed. Table theirs.refers, whose foreign key refers to users, runs code of the role "
    )


@pytest.mark.parametrize(("change", "what"), [(PATH, "search_path"), (TEMPORARY, "temporary tables")])
def test_a_deletion_after_which_the_session_is_another_is_refused_and_undone(migrated, change, what):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@x.de', now())")
    with role_with(migrated, change, *INDEX), django(migrated) as connection:
        with (
            pytest.raises(Refusal) as refused,
            transaction.atomic(using=connection.alias),
            connection.execute_wrapper(watched_writes(connection)),
            connection.cursor() as cursor,
        ):
            cursor.execute("DELETE FROM users WHERE id = 'u'")
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM users")
            assert cursor.fetchone() == (1,)

    assert str(refused.value) == f"Code of another role's table changed the session's {what}: nothing was changed."


def test_a_deletion_that_changes_no_session_goes_on(migrated):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@x.de', now())")
    with (
        role_with(migrated, "NULL", *INDEX),
        django(migrated) as connection,
        connection.execute_wrapper(watched_writes(connection)),
        connection.cursor() as cursor,
    ):
        cursor.execute("DELETE FROM users WHERE id = 'u'")

    assert migrated.execute("SELECT count(*) FROM users") == [(0,)]
