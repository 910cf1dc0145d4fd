"""Retention deletes only old rows, blocks no other session, and loses no row."""

import dataclasses
import json
import time
from urllib.parse import urlsplit

import pytest
from django.db import Error

from fly2any.database.backup.store import store_at
from fly2any.database.progress import Progress
from fly2any.database.retention import sweep as sweeping
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import count, delete_archived
from tests.conftest import django, manage, start_manage
from tests.database.old_rows import BEFORE, CASES, KEYS, MUST, maintain, put, put_back, swept
from tests.database.taken import rows
from tests.database.test_partitioned_tables import PARTITION
from tests.database.test_retained_conversations import said_more
from tests.servers import open_transaction, wait_until


def test_every_rule_has_a_case():
    assert CASES.keys() == RULES.keys() == MUST.keys()


@pytest.mark.sampled(9)
@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
@pytest.mark.parametrize("table", RULES)
def test_only_old_rows_are_deleted(migrated, table, archived, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    old, changes = CASES[table]
    put(migrated, table, "goes", old)
    for number, change in enumerate(changes):
        put(migrated, table, f"stays{number}", {**old, **change})

    result = swept(migrated, table, tmp_path / "archives" if archived else None)

    key = KEYS.get(table, "id")
    assert sorted(value for (value,) in migrated.execute(f"SELECT {key} FROM {table}")) == [
        f"stays{n}" for n in range(len(changes))
    ]
    assert (result.removed, result.finished, result.skipped) == (1, True, 0)
    assert len(result.archives) == (1 if archived and RULES[table].archived else 0)


@pytest.mark.slow
def test_a_kill_loses_no_row_and_the_next_run_resumes(migrated, tmp_path):
    migrated.execute(
        'INSERT INTO price_history (id, origin, destination, "departDate", price, provider, timestamp)'
        " SELECT 'p' || n, 'JFK', repeat('x', 100), '2026-01-01', n, 'mock', '2020-01-01' FROM generate_series(1, 200000) AS n"
    )
    held = migrated.execute("SELECT count(*), sum(price) FROM price_history")
    settings = {"RETENTION": "price_history=1", "ARCHIVE_LOCATION": str(tmp_path / "a")}

    killed = start_manage("dbmaintain", "weekly", url=migrated.url, **settings)
    wait_until(migrated, "SELECT 1 FROM price_history HAVING count(*) < 200000")
    killed.kill()
    killed.communicate()
    wait_until(
        migrated,
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'fly2any' AND datname = current_database())",
    )
    [(left,)] = migrated.execute("SELECT count(*) FROM price_history")
    again = maintain(migrated, "weekly", **settings)
    [(after,)] = migrated.execute("SELECT count(*) FROM price_history")
    put_back(migrated, tmp_path / "a")

    assert 0 < left < 200_000
    assert (again.stderr, after) == ("", 0)
    assert migrated.execute("SELECT count(*), sum(price) FROM price_history") == held


def changed(database):
    database.execute("UPDATE notifications SET title = 'changed' WHERE id = 'goes'")


@pytest.mark.parametrize(("table", "meanwhile"), [("notifications", changed), ("ai_conversations", said_more)])
def test_a_row_changed_since_it_was_archived_stays_whole(migrated, table, meanwhile, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, table, "goes", CASES[table][0])
    put(migrated, table, "other", CASES[table][0])
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        archive, versions = Archives(store_at(str(tmp_path)), "d").keep(connection, RULES[table], part, Progress())

        meanwhile(migrated)
        removed = delete_archived(connection, RULES[table], list(versions), versions, BEFORE, set())

    assert (archive.rows, removed) == (2, {"other"})
    assert migrated.execute(f"SELECT id FROM {table}") == [("goes",)]


@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
def test_a_locked_row_is_skipped_without_waiting(migrated, archived, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, "notifications", "held", CASES["notifications"][0])
    put(migrated, "notifications", "goes", CASES["notifications"][0])

    with open_transaction(migrated, "SELECT FROM notifications WHERE id = 'held' FOR UPDATE"):
        result = swept(migrated, "notifications", tmp_path if archived else None)

    assert (result.removed, result.skipped) == (1, 0)
    assert migrated.execute("SELECT id FROM notifications") == [("held",)]


PARTITIONED = """
    ALTER TABLE price_history RENAME TO plain;
    CREATE TABLE price_history (LIKE plain INCLUDING DEFAULTS) PARTITION BY RANGE (timestamp);
    CREATE TABLE price_2025 PARTITION OF price_history FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE price_later PARTITION OF price_history DEFAULT;
    ALTER TABLE price_later ADD PRIMARY KEY (id);
    DROP TABLE plain;
"""


@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
def test_old_rows_of_a_partitioned_table_are_deleted_except_locked_ones(migrated, archived, tmp_path):
    migrated.execute(PARTITIONED)
    for key in ("goes", "held", "goes too"):
        put(migrated, "price_history", key, CASES["price_history"][0])
    put(migrated, "price_history", "stays", {"timestamp": "2026-01-01 00:00:00+00"})

    with open_transaction(migrated, "SELECT FROM price_history WHERE id = 'held' FOR UPDATE"):
        first = swept(migrated, "price_history", tmp_path if archived else None)
    left = migrated.execute("SELECT id FROM price_history ORDER BY id")
    second = swept(migrated, "price_history", tmp_path if archived else None)

    assert (first.removed, first.skipped, first.finished, left) == (2, 0, True, [("held",), ("stays",)])
    assert (second.removed, migrated.execute("SELECT id FROM price_history")) == (1, [("stays",)])


@pytest.mark.slow
def test_a_locked_table_is_reported_and_the_others_are_swept(filled):
    with open_transaction(filled, "LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"):
        result = maintain(filled, "weekly", "--format", "json", RETENTION="price_history=1,notifications=1")

    assert result.stdout, result.stderr
    report = json.loads(result.stdout)
    assert result.returncode == 4
    assert ("maintenance.locked", "notifications") in {(one["code"], one["where"]) for one in report["findings"]}
    assert filled.execute("SELECT count(*) FROM price_history") == [(0,)]


IN_THE_WAY = {
    "CREATE TABLE theirs (id int, a text REFERENCES notifications ON DELETE CASCADE)": (
        "notifications", "notifications is referenced by a foreign key of theirs, whose rows would be deleted too: remove notifications from RETENTION, or drop that foreign key, once its owner agrees: ALTER TABLE theirs DROP CONSTRAINT theirs_a_fkey;",
    ),
    "CREATE TABLE theirs (id int, a text REFERENCES ai_messages)": (
        "ai_conversations", "ai_messages is referenced by a foreign key of theirs, whose rows would prevent the deletion: remove ai_conversations from RETENTION, or drop that foreign key, once its owner agrees: ALTER TABLE theirs DROP CONSTRAINT theirs_a_fkey;",
    ),
    'ALTER TABLE notifications ADD "parentId" text CONSTRAINT thread REFERENCES notifications ON DELETE CASCADE': (
        "notifications", "notifications is referenced by a foreign key of its own, thread, so that newer rows would be deleted too: remove notifications from RETENTION, or drop that foreign key, once its owner agrees: ALTER TABLE notifications DROP CONSTRAINT thread;",
    ),
    'ALTER TABLE ai_messages ADD "replyTo" text CONSTRAINT reply REFERENCES ai_messages ON DELETE SET NULL': (
        "ai_conversations", "ai_messages is referenced by a foreign key of its own, reply, so that newer rows would be changed too: remove ai_conversations from RETENTION, or drop that foreign key, once its owner agrees: ALTER TABLE ai_messages DROP CONSTRAINT reply;",
    ),
    'ALTER TABLE ai_messages ADD "quotedId" text REFERENCES ai_conversations ON DELETE CASCADE': (
        "ai_conversations", "ai_conversations is referenced by a foreign key of ai_messages, whose rows would be deleted too: remove ai_conversations from RETENTION, or drop that foreign key, once its owner agrees: ALTER TABLE ai_messages DROP CONSTRAINT \"ai_messages_quotedId_fkey\";",
    ),
    "CREATE TABLE theirs () INHERITS (notifications)": (
        "notifications", "notifications has rows in theirs, which inherits from it: remove notifications from RETENTION, or end the inheritance, once the owner of that table agrees: ALTER TABLE theirs NO INHERIT notifications;",
    ),
    "DROP TABLE price_monitor_logs; CREATE VIEW price_monitor_logs AS SELECT 'a' AS id": (
        "price_monitor_logs", "price_monitor_logs is a view: remove price_monitor_logs from RETENTION, or restore the table (`manage.py dbstatus` shows how).",
    ),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "made",
    IN_THE_WAY,
    ids=[
        "a key to it",
        "a key to its child",
        "its own key",
        "its child's own key",
        "a second key of its child",
        "inherits",
        "a view",
    ],
)
def test_a_table_that_is_more_than_its_own_rows_is_left_alone_and_the_others_are_swept(filled, made, tmp_path):
    table, said = IN_THE_WAY[made]
    filled.execute(made)
    before = rows(filled)

    result = maintain(
        filled, "weekly", "--format", "json", RETENTION=f"{table}=1,price_history=1", ARCHIVE_LOCATION=str(tmp_path / "a")
    )

    report = json.loads(result.stdout)
    failed = [(one["where"], one["message"]) for one in report["findings"] if one["code"] == "maintenance.failed"]
    assert (result.returncode, failed) == (4, [(f"retention of {table}", said)])
    assert [one["table"] for one in report["removed"]] == ["price_history"]
    assert rows(filled) == {**before, "price_history": []}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
@pytest.mark.parametrize("table", ["price_history", "ai_conversations", "partitioned"])
def test_rows_that_a_trigger_keeps_are_counted_and_the_others_are_removed(migrated, table, archived, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeping, "PART_ROWS", 1)  # The kept row fills a batch of its own.
    if table == "partitioned":
        table = "price_history"
        migrated.execute(PARTITION)
    for key in ("held", "goes"):
        put(migrated, table, key, CASES[table][0])
    migrated.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.id = 'held' THEN RETURN NULL; END IF; RETURN OLD; END $$;"
        f" CREATE TRIGGER hold BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION keep()"
    )

    result = swept(migrated, table, tmp_path if archived else None)

    assert (result.removed, result.kept, result.keeping, result.skipped, result.finished) == (1, 1, ("hold",), 0, True)
    assert migrated.execute(f"SELECT id FROM {table} WHERE id IN ('goes', 'held')") == [("held",)]


@pytest.mark.parametrize("grants", [("SELECT",), ("SELECT, DELETE",)], ids=["reads", "may not lock"])
def test_nothing_is_archived_if_nothing_may_be_removed(filled, grants, tmp_path):
    with filled.role(f"GRANT {grants[0]} ON ALL TABLES IN SCHEMA public TO {{role}}") as url:
        result = manage(
            "dbmaintain",
            "weekly",
            "--format",
            "json",
            url=url,
            RETENTION="price_history=1",
            ARCHIVE_LOCATION=str(tmp_path / "a"),
        )

    failed = [one["message"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.failed"]
    assert (result.returncode, len(failed)) == (4, 1), result.stdout
    assert "permission denied for table price_history" in failed[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_session_terminated_halfway_stops_the_run_and_no_row_is_lost(migrated, tmp_path):
    migrated.execute(
        'INSERT INTO price_history (id, origin, destination, "departDate", price, provider, timestamp)'
        " SELECT 'p' || n, 'JFK', repeat('x', 300), '2026-01-01', n, 'mock', '2020-01-01' FROM generate_series(1, 400000) AS n"
    )

    running = start_manage(
        "dbmaintain", "weekly", url=migrated.url, RETENTION="price_history=1", ARCHIVE_LOCATION=str(tmp_path / "a")
    )
    wait_until(
        migrated,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%%'"
        " AND application_name = 'fly2any'",
    )
    out, err = running.communicate()

    assert (running.returncode, out) == (2, "")
    assert err == (
        "The session was ended during the run, and its lock with it: nothing was removed after that. Run the command again.\n"
    )
    assert migrated.execute("SELECT count(*) FROM price_history") == [(400_000,)]


def test_nothing_is_removed_if_archives_cannot_be_stored(filled, tmp_path):
    (tmp_path / "file").touch()
    before = rows(filled)

    result = maintain(
        filled, "weekly", "--format", "json", RETENTION="price_history=1", ARCHIVE_LOCATION=str(tmp_path / "file")
    )

    failed = [one["message"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.failed"]
    assert result.returncode == 4
    assert failed == [f"{tmp_path}/file cannot be created or is not a folder (File exists): correct ARCHIVE_LOCATION."]
    assert rows(filled) == before


@pytest.mark.slow
def test_a_deadline_in_the_middle_of_a_part_is_not_the_end(migrated, monkeypatch, tmp_path):
    for number in range(5):
        put(migrated, "price_history", f"p{number}", CASES["price_history"][0])
    monkeypatch.setattr(sweeping, "BATCH_ROWS", 2)
    migrated.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN OLD; END';"
        " CREATE TRIGGER slow BEFORE DELETE ON price_history FOR EACH ROW EXECUTE FUNCTION slow()"
    )

    result = swept(migrated, "price_history", tmp_path, deadline=time.monotonic() + 1.5)  # Over within the first batch.

    assert (result.removed, result.skipped, result.finished) == (2, 0, False)
    assert migrated.execute("SELECT count(*) FROM price_history") == [(3,)]


HIDES = "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY; ALTER TABLE {table} OWNER TO {{role}}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
@pytest.mark.parametrize("hidden", ["price_history", "ai_messages"])
def test_rows_that_a_policy_hides_are_an_error_and_not_none(migrated, hidden, archived, tmp_path):
    table = "price_history" if hidden == "price_history" else "ai_conversations"
    put(migrated, table, "goes", CASES[table][0])
    grants = ("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}", HIDES.format(table=hidden))

    with migrated.role(*grants) as url:
        role = dataclasses.replace(migrated, user=urlsplit(url).username)
        try:
            with pytest.raises(Error, match=f'row-level security policy for table "{hidden}"'):
                swept(role, table, tmp_path if archived else None)
            if hidden == table:
                with pytest.raises(Error, match="row-level security policy"), django(role) as connection:
                    count(connection, RULES[table], BEFORE)
        finally:
            migrated.execute(f"ALTER TABLE {hidden} OWNER TO CURRENT_USER")

    assert migrated.execute(f"SELECT count(*) FROM {table}") == [(1,)]
