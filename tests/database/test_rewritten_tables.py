"""Tables that another session rewrites or truncates while a command waits for them: no row that was always there is missed."""

import dataclasses
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from fly2any.database.backup.row_hashes import read_contents
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.person.copied import copied_columns, lines
from fly2any.database.person.search import Unsearched
from fly2any.database.person.tables import read_tables
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.removal import delete_archived
from fly2any.database.retention.rules import RULES
from fly2any.database.snapshot_after_locks import locked_snapshot
from fly2any.database.sql import fetch_all, time_limits
from tests.conftest import django
from tests.database.old_rows import BEFORE, CASES, OLD, put
from tests.database.people import ANA, EMAIL, erased, exported, planned
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


@pytest.fixture
def noted(two):
    """Two people, and a table of another role with the address of one."""
    two.execute("CREATE TABLE notes (n int, t text)")
    two.execute("INSERT INTO notes VALUES (1, %s)", [EMAIL])
    with two.role("ALTER TABLE notes OWNER TO {role}"):
        yield two


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


@both_changes
def test_an_erasure_finds_the_address_in_another_roles_table_that_was_changed_while_it_waited(noted, change):
    with changing(noted, "notes", change):
        certificate = erased(noted)

    found = [(one["column"], one["holds"], one["rows"]) for one in certificate["remaining"] if one["table"] == "notes"]
    assert found == [("t", "address", 1)]


@both_changes
def test_a_plan_names_another_roles_table_that_was_changed_while_it_waited_as_not_searched(noted, change):
    with changing(noted, "notes", change):
        found = planned(noted)

    assert [one for one in found.unsearched if one.place.startswith("notes")] == [
        Unsearched(
            "notes.t",
            'Another session rewrote or truncated "public"."notes" in the meantime, so its rows were not read: try again.',
        )
    ]


@both_changes
def test_a_column_of_another_roles_table_is_read_with_a_privilege_on_the_column_alone(two, change):
    two.execute("CREATE TABLE notes (n int, t text); INSERT INTO notes VALUES (1, 'a')")
    with two.role("GRANT USAGE ON SCHEMA public TO {role}", "GRANT SELECT (t) ON notes TO {role}"):
        reader = dataclasses.replace(two, user=f"{two.name}_role")
        with django(reader) as connection, changing(two, "notes", change), time_limits(connection):
            tables = read_tables(connection)
            notes = next(table for table in tables.tables.values() if table.name == "notes")
            with connection.cursor() as cursor:
                read = list(lines(cursor, notes, copied_columns(tables, notes.oid)))

    assert read == [b"a\n"]


@pytest.mark.parametrize(
    ("table", "change"), [("ai_conversations", REWRITE), ("ai_messages", REWRITE), ("ai_messages", REFILL)]
)
def test_retention_removes_no_row_whose_table_was_changed_while_the_archive_waited(migrated, tmp_path, table, change):
    put(migrated, "ai_conversations", "old", CASES["ai_conversations"][0])
    migrated.execute(
        "INSERT INTO ai_messages (id, \"conversationId\", role, content, timestamp, \"createdAt\") VALUES ('m', 'old', 'user', 'x', 1, %s)",
        [OLD],
    )
    rule, part = RULES["ai_conversations"], {"first": "(0,0)", "last": "(1,0)", "before": BEFORE}

    with django(migrated) as connection:
        with changing(migrated, table, change):
            _, versions = Archives(store_at(str(tmp_path)), migrated.name).keep(connection, rule, part, Progress())
        removed = delete_archived(connection, rule, list(versions), versions, BEFORE, set())

    assert removed == set()
    assert migrated.execute("SELECT (SELECT count(*) FROM ai_conversations), (SELECT count(*) FROM ai_messages)") == [(1, 1)]


@both_changes
def test_the_rows_that_a_killed_run_left_are_recorded_though_their_table_was_changed_meanwhile(migrated, tmp_path, change):
    put(migrated, "price_history", "old", CASES["price_history"][0])
    archives, rule = Archives(store_at(str(tmp_path)), migrated.name), RULES["price_history"]
    with django(migrated) as connection:
        archives.keep(connection, rule, {"first": "(0,0)", "last": "(1,0)", "before": BEFORE}, Progress())
        with changing(migrated, "price_history", change):
            archives.settle(connection, rule)

    [archive], _ = archives.all()
    assert archive.left == ("old",)


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


# The session of the backup holds its lock, and pg_dump does not yet.
LOCKED_BY_BACKUP = """
    SELECT 1
    FROM pg_locks AS l
    JOIN pg_stat_activity AS a USING (pid)
    WHERE l.relation = 'notifications'::regclass AND l.mode = 'AccessShareLock' AND a.datname = current_database()
      AND a.pid <> pg_backend_pid() AND a.application_name <> 'pg_dump'
"""


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["ALTER TABLE notifications ADD COLUMN zz int", "TRUNCATE price_monitor_logs"])
def test_a_statement_that_changes_a_table_in_the_first_moment_waits_no_longer_than_for_the_dump(filled, place, statement):
    """It waits for our lock, and pg_dump behind it."""
    waited = []

    def change():
        wait_until(filled, LOCKED_BY_BACKUP)
        begun = time.monotonic()
        filled.execute(statement)
        waited.append(time.monotonic() - begun)

    site = threading.Thread(target=change)
    site.start()
    try:
        with django(filled) as connection:
            manifest = take(connection, store_at(place), Progress())
    finally:
        site.join(90)

    assert manifest.tables
    [seconds] = waited
    assert seconds < 20


@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_dump_that_fails_before_its_locks_for_another_reason_tells_it_at_once(filled, place, settings, monkeypatch, end):
    settings.LOCK_TIMEOUT = 20_000
    waiting = (
        "FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock' AND datname = current_database()"
    )

    def change():
        wait_until(filled, LOCKED_BY_BACKUP)
        filled.execute("ALTER TABLE notifications ADD COLUMN zz int")

    def fail():
        wait_until(filled, f"SELECT 1 {waiting}")
        filled.execute(f"SELECT {end}(pid) {waiting}")

    others = [threading.Thread(target=one) for one in (change, fail)]
    for one in others:
        one.start()
    hashed = []
    monkeypatch.setattr("fly2any.database.backup.take.read_contents", lambda *_: hashed.append("rows") or ())
    try:
        with django(filled) as connection, pytest.raises(Refusal) as refused:
            take(connection, store_at(place), Progress())
    finally:
        for one in others:
            one.join(90)

    assert str(refused.value).startswith("pg_dump exited with 1: ")
    assert hashed == []
