"""Tables that another session rewrites or truncates while a command waits for them: no row that was always there is missed."""

import threading
from contextlib import ExitStack, contextmanager

import pytest

from fly2any.database.backup.contents import read_contents
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.locked_tables import locked_snapshot
from fly2any.database.progress import Progress
from fly2any.database.sql import fetch_all, time_limits
from tests.conftest import django
from tests.database.people import ANA, exported
from tests.servers import open_transaction, wait_until

WAITS = """
    SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock' AND relation = %s::regclass
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
REWRITE = "ALTER TABLE {table} ADD COLUMN probe int DEFAULT (random() * 9)::int"
REFILL = "CREATE TEMPORARY TABLE kept AS TABLE {table}; TRUNCATE {table}; INSERT INTO {table} TABLE kept"
both_changes = pytest.mark.parametrize("change", [REWRITE, REFILL], ids=["rewrite", "refill"])
LOCKED_SQL = """
    SELECT c.relname::text FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.mode = 'AccessShareLock' AND c.relname = ANY (%s::name[]) ORDER BY 1
"""


@contextmanager
def changing(database, table, change, *, meanwhile=""):
    """Another session that changes the table before the block, and commits once a session in the block waits for the table."""
    with open_transaction(database, change.format(table=table)) as session:

        def commit():
            wait_until(database, WAITS, [table], seconds=20)
            if meanwhile:
                database.execute(meanwhile)
            session.execute("COMMIT")

        thread = threading.Thread(target=commit)
        thread.start()
        yield
        thread.join()


@pytest.fixture
def active(two):
    """Two people, one with a row in another table."""
    two.execute("INSERT INTO user_activities (id, \"userId\", \"eventType\") VALUES ('one', %s, 'e')", [ANA])
    return two


@both_changes
def test_a_backup_has_the_rows_of_a_table_that_was_changed_while_it_waited(active, place, change):
    with django(active) as connection, changing(active, "user_activities", change):
        manifest = take(connection, store_at(place), Progress())

    assert manifest.tables['"public"."user_activities"'].rows == 1


@both_changes
def test_contents_without_a_snapshot_have_the_rows_of_a_table_that_was_changed_while_they_waited(active, change):
    with ExitStack() as stack, django(active) as connection, time_limits(connection):

        def show(step, done):
            if step == "hashing user_activities":
                stack.enter_context(changing(active, "user_activities", change))

        contents = read_contents(connection, show)

    assert contents['"public"."user_activities"'].rows == 1


@both_changes
def test_an_export_has_the_rows_of_a_table_that_was_changed_while_it_waited(active, change):
    with changing(active, "user_activities", change):
        given = exported(active)

    assert {table: len(rows) for table, rows in given.items()} == {"users": 1, "user_activities": 1}


def test_a_table_that_is_created_while_a_snapshot_waits_is_locked_too(two):
    with (
        django(two) as connection,
        changing(two, "users", REWRITE, meanwhile="CREATE TABLE late ()"),
        locked_snapshot(connection, lock=20_000),
    ):
        locked = fetch_all(connection, LOCKED_SQL, [["late", "users"]])

    assert locked == [("late",), ("users",)]


def test_a_table_that_is_dropped_while_a_snapshot_waits_is_left_out(two):
    two.execute("CREATE TABLE notes ()")
    with (
        django(two) as connection,
        changing(two, "notes", "DROP TABLE {table}"),
        locked_snapshot(connection, lock=20_000),
    ):
        locked = fetch_all(connection, LOCKED_SQL, [["notes", "users"]])

    assert locked == [("users",)]
