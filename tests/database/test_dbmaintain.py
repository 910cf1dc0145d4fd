"""Maintenance: old rows go, and nothing else; what was archived comes back as it was; nobody waits, and no row is lost."""

import json
import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from fly2any.database.backup.store import store_at
from fly2any.database.maintenance.run import maintain as run_of
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import delete_archived, sweep
from fly2any.database.watching import Progress
from tests.conftest import django, manage, start_manage
from tests.database.test_backup import rows
from tests.servers import open_transaction, wait_until

EVERY = ",".join(f"{table}=0" for table in RULES)
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "2025-12-31 23:59:59+00", "2026-01-01 00:00:00+00"
# Of each table the values of a row that is to go, and the changes of which each alone keeps it.
CASES = {
    "price_history": ({"timestamp": OLD}, [{"timestamp": NEW}]),
    "price_monitor_logs": ({"executionTime": OLD}, [{"executionTime": NEW}]),
    "user_activities": ({"createdAt": OLD}, [{"createdAt": NEW}]),
    "login_history": ({"timestamp": OLD}, [{"timestamp": NEW}]),
    "notifications": ({"createdAt": OLD, "readAt": None, "read": True}, [{"createdAt": NEW}, {"readAt": NEW}, {"read": False}]),
    "recent_searches": ({"viewedAt": OLD}, [{"viewedAt": NEW}]),
    "ai_conversations": ({"updatedAt": OLD, "status": "abandoned"}, [{"updatedAt": NEW}, {"status": "active"}]),
    "sessions": ({"expires": OLD}, [{"expires": NEW}]),
    "user_sessions": ({"lastActive": OLD}, [{"lastActive": NEW}]),
    "verification_tokens": ({"expires": OLD}, [{"expires": NEW}]),
    "django_session": ({"expire_date": OLD}, [{"expire_date": NEW}]),
}  # fmt: skip
MUST = {
    "price_history": {"origin": "JFK", "destination": "LIS", "departDate": "2026-02-01", "price": 1, "provider": "mock"},
    "price_monitor_logs": {"alertsChecked": 1, "alertsTriggered": 0, "alertsFailed": 0, "duration": 1, "triggeredBy": "cron"},
    "user_activities": {"eventType": "view"},
    "login_history": {"userId": "u"},
    "notifications": {"userId": "u", "type": "promotion", "title": "t", "message": "m"},
    "recent_searches": {"userId": "u", "city": "Lisbon", "country": "PT", "airportCode": "LIS", "price": 1},
    "ai_conversations": {"sessionId": None, "metadata": "{}"},
    "sessions": {"userId": "u", "sessionToken": None},
    "user_sessions": {"userId": "u", "token": None},
    "verification_tokens": {"identifier": "a@b.c", "token": None},
    "django_session": {"session_data": "x"},
}


def put(database, table, key, values):
    """Insert a row whose unique columns hold its key."""
    name = "session_key" if table == "django_session" else "id"
    row = {name: key, **{column: value if value is not None else key for column, value in MUST[table].items()}, **values}
    columns = ", ".join(f'"{column}"' for column in row)
    database.execute(f'INSERT INTO "{table}" ({columns}) VALUES ({", ".join(["%s"] * len(row))})', list(row.values()))


def swept(database, table, archives=None, **options):
    with django(database) as connection:
        options = {"deadline": time.monotonic() + 60, "before": BEFORE, **options}
        place = archives and Archives(store_at(str(archives)), database.name)
        return sweep(connection, RULES[table], archives=place, progress=Progress(), **options)


def maintain(database, *words, **environment):
    result = manage("dbmaintain", *words, url=database.url, **environment)
    assert "Traceback" not in result.stderr
    return result


def put_back(database, archives):
    for name in sorted(path.stem for path in Path(archives).glob("*.json")):
        result = manage("dbrestore", "--archive", name, url=database.url, ARCHIVE_LOCATION=str(archives))
        assert result.returncode == 0, result.stderr


def test_every_rule_has_its_case():
    assert CASES.keys() == RULES.keys() == MUST.keys()


@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
@pytest.mark.parametrize("table", RULES)
def test_only_what_is_old_goes(migrated, table, archived, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    old, changes = CASES[table]
    put(migrated, table, "goes", old)
    for number, change in enumerate(changes):
        put(migrated, table, f"stays{number}", {**old, **change})

    result = swept(migrated, table, tmp_path / "archives" if archived else None)

    key = "session_key" if table == "django_session" else "id"
    assert sorted(value for (value,) in migrated.execute(f"SELECT {key} FROM {table}")) == [
        f"stays{n}" for n in range(len(changes))
    ]
    assert (result.removed, result.finished, result.skipped) == (1, True, 0)
    assert len(result.archives) == (1 if archived and RULES[table].archived else 0)


ODD = [
    ("price_monitor_logs", {"errors": "null"}), ("price_monitor_logs", {"errors": None}),
    ("price_history", {"price": "NaN"}), ("price_history", {"price": "-Infinity"}), ("price_history", {"price": 0.1 + 0.2}),
    ("price_history", {"origin": "a\tb\nc\\N\r", "destination": "\\.", "currency": ""}),
    ("price_history", {"timestamp": "-infinity"}), ("price_history", {"timestamp": "0044-03-15 12:00:00+00 BC"}),
    ("user_activities", {"eventData": '{"a": [1.0, 1e400, "\\u00e9"]}'}), ("user_activities", {"userId": "u"}),
]  # fmt: skip


def test_what_was_archived_comes_back_as_it_was(filled, tmp_path):
    filled.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    for number, (table, values) in enumerate(ODD):
        put(filled, table, f"odd{number}", {**CASES[table][0], **values})
    before = rows(filled)

    first = maintain(filled, "weekly", RETENTION=EVERY, ARCHIVE_LOCATION=str(tmp_path / "a"))
    between = {table: len(rows) for table, rows in rows(filled).items()}
    put_back(filled, tmp_path / "a")

    assert first.returncode == 0, first.stdout
    archived = [table for table, rule in RULES.items() if rule.archived]
    assert [table for table in archived if before[table] and between[table] >= len(before[table])] == []
    assert {table: rows for table, rows in rows(filled).items() if table in (*archived, "ai_messages")} == {
        table: rows for table, rows in before.items() if table in (*archived, "ai_messages")
    }


def test_archives_are_sealed_as_backups_are(filled, tmp_path):
    import pyrage

    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{key}\n")
    place = {"ARCHIVE_LOCATION": str(tmp_path / "a"), "BACKUP_RECIPIENT": str(key.to_public())}
    before = rows(filled)

    maintain(filled, "weekly", RETENTION="price_history=0", **place)
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]
    without = manage("dbrestore", "--archive", name, url=filled.url, **place)
    with_key = manage("dbrestore", "--archive", name, url=filled.url, **place, BACKUP_IDENTITY_FILE=str(tmp_path / "key"))

    assert not (tmp_path / "a" / f"{name}.zip.age").read_bytes().startswith(b"PK")
    assert (without.returncode, without.stderr) == (
        2, "The backup is encrypted: set BACKUP_IDENTITY_FILE to the file with the key that age-keygen made.\n",
    )  # fmt: skip
    assert with_key.returncode == 0, with_key.stderr
    assert rows(filled)["price_history"] == before["price_history"]


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "manifest", "other rows"])
def test_a_damaged_archive_puts_nothing_back(filled, tmp_path, harm):
    place = tmp_path / "a"
    maintain(filled, "weekly", RETENTION="price_history=0", ARCHIVE_LOCATION=str(place))
    [manifest] = place.glob("*.json")
    whole = manifest.with_suffix(".zip")
    data = json.loads(manifest.read_text())
    if harm == "cut":
        whole.write_bytes(whole.read_bytes()[:-10])
    elif harm == "flipped":
        whole.write_bytes(whole.read_bytes()[:-1] + b"?")
    elif harm == "gone":
        whole.unlink()
    elif harm == "manifest":
        manifest.write_text('{"format": 1, "name": 3}')
    else:
        data["parts"][0]["content"]["hash"] = "0"
        manifest.write_text(json.dumps(data))
    before = rows(filled)

    result = manage("dbrestore", "--archive", manifest.stem, url=filled.url, ARCHIVE_LOCATION=str(place))

    said = {
        "cut": r".*zip has [\d,]+ bytes and not [\d,]+: it was cut short; use another backup\.",
        "flipped": r".*zip is not what was stored \(its SHA-256 differs\): it is damaged; use another backup\.",
        "gone": r".*zip is not there: correct ARCHIVE_LOCATION, or use another backup\.",
        "manifest": r".*json describes no archive, or is damaged: use another, and remove it if nobody needs it\.",
        "other rows": r".*zip has other rows of price_history than were archived: use another archive\.",
    }[harm]
    assert result.returncode == 2
    assert re.fullmatch(said, result.stderr.strip()), result.stderr
    assert rows(filled) == before


def test_of_people_who_are_gone_nothing_comes_back(filled, tmp_path):
    before = len(rows(filled)["login_history"])
    maintain(filled, "weekly", RETENTION="login_history=0,ai_conversations=0", ARCHIVE_LOCATION=str(tmp_path / "a"))
    filled.execute("DELETE FROM users")

    put_back(filled, tmp_path / "a")

    assert before > 0
    assert filled.execute("SELECT count(*) FROM login_history") == [(0,)]
    assert filled.execute('SELECT count(*) FROM ai_conversations WHERE "userId" IS NOT NULL') == [(0,)]
    assert filled.execute(
        'SELECT count(*) FROM ai_messages WHERE "conversationId" NOT IN (SELECT id FROM ai_conversations)'
    ) == [(0,)]


def test_killed_in_the_middle_no_row_is_lost_and_the_next_run_goes_on(migrated, tmp_path):
    migrated.execute(
        'INSERT INTO price_history (id, origin, destination, "departDate", price, provider, timestamp)'
        " SELECT 'p' || n, 'JFK', repeat('x', 100), '2026-01-01', n, 'mock', '2020-01-01' FROM generate_series(1, 600000) AS n"
    )
    held = migrated.execute("SELECT count(*), sum(price) FROM price_history")
    settings = {"RETENTION": "price_history=0", "ARCHIVE_LOCATION": str(tmp_path / "a")}

    killed = start_manage("dbmaintain", "weekly", url=migrated.url, **settings)
    wait_until(migrated, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'price_history' AND n_tup_del > 0")
    psutil.Process(killed.pid).send_signal(signal.SIGKILL)
    killed.communicate()
    wait_until(
        migrated,
        "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'fly2any' AND datname = current_database())",
    )
    [(left,)] = migrated.execute("SELECT count(*) FROM price_history")
    again = maintain(migrated, "weekly", **settings)
    [(after,)] = migrated.execute("SELECT count(*) FROM price_history")
    put_back(migrated, tmp_path / "a")

    assert 0 < left < 600_000
    assert (again.stderr, after) == ("", 0)
    assert migrated.execute("SELECT count(*), sum(price) FROM price_history") == held


def changed(database):
    database.execute("UPDATE notifications SET title = 'changed' WHERE id = 'goes'")


def said_more(database):
    database.execute(
        "INSERT INTO ai_messages (id, \"conversationId\", role, content, timestamp) VALUES ('late', 'goes', 'user', 'wait', 1)"
    )


@pytest.mark.parametrize(("table", "meanwhile"), [("notifications", changed), ("ai_conversations", said_more)])
def test_what_changed_since_it_was_archived_stays_whole(migrated, table, meanwhile, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, table, "goes", CASES[table][0])
    put(migrated, table, "other", CASES[table][0])
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        archive, versions = Archives(store_at(str(tmp_path)), "d").keep(connection, RULES[table], part, Progress())

        meanwhile(migrated)
        removed = delete_archived(connection, RULES[table], list(versions), versions, BEFORE)

    assert (archive.rows, removed) == (2, {"other"})
    assert migrated.execute(f"SELECT id FROM {table}") == [("goes",)]


@pytest.mark.parametrize("archived", [False, True], ids=["removed", "archived"])
def test_a_row_that_somebody_holds_is_left_alone_without_waiting(migrated, archived, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, "notifications", "held", CASES["notifications"][0])
    put(migrated, "notifications", "goes", CASES["notifications"][0])

    with open_transaction(migrated, "SELECT FROM notifications WHERE id = 'held' FOR UPDATE"):
        result = swept(migrated, "notifications", tmp_path if archived else None)

    assert (result.removed, result.skipped) == (1, 0)
    assert migrated.execute("SELECT id FROM notifications") == [("held",)]


def test_a_table_that_is_locked_is_said_and_the_others_are_swept(filled):
    with open_transaction(filled, "LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"):
        result = maintain(filled, "weekly", "--format", "json", RETENTION="price_history=0,notifications=0")

    report = json.loads(result.stdout)
    assert result.returncode == 4
    assert ("maintenance.locked", "notifications") in {(one["code"], one["where"]) for one in report["findings"]}
    assert filled.execute("SELECT count(*) FROM price_history") == [(0,)]


IN_THE_WAY = {
    "CREATE TABLE theirs (id int, a text REFERENCES notifications ON DELETE CASCADE)": (
        "notifications", "notifications is what a foreign key of theirs points at, whose rows would go too: take notifications out of RETENTION, or mend that.",
    ),
    "CREATE TABLE theirs (id int, a text REFERENCES ai_messages ON DELETE CASCADE)": (
        "ai_conversations", "ai_messages is what a foreign key of theirs points at, whose rows would go too: take ai_conversations out of RETENTION, or mend that.",
    ),
    "CREATE TABLE theirs () INHERITS (notifications)": (
        "notifications", "notifications has rows in theirs, which inherits from it: take notifications out of RETENTION, or mend that.",
    ),
    "DROP TABLE price_monitor_logs; CREATE TABLE price_monitor_logs (id text) PARTITION BY LIST (id)": (
        "price_monitor_logs", "price_monitor_logs is partitioned, or no table: take price_monitor_logs out of RETENTION, or mend that.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", IN_THE_WAY, ids=["a key to it", "a key to its child", "inherits", "partitioned"])
def test_a_table_that_is_more_than_its_own_rows_is_left_alone_and_the_others_are_swept(filled, made, tmp_path):
    table, said = IN_THE_WAY[made]
    filled.execute(made)
    before = rows(filled)

    result = maintain(
        filled, "weekly", "--format", "json", RETENTION=f"{table}=0,price_history=0", ARCHIVE_LOCATION=str(tmp_path / "a")
    )

    report = json.loads(result.stdout)
    failed = [(one["where"], one["message"]) for one in report["findings"] if one["code"] == "maintenance.failed"]
    assert (result.returncode, failed) == (4, [(f"retention of {table}", said)])
    assert [one["table"] for one in report["removed"]] == ["price_history"]
    assert rows(filled) == {**before, "price_history": []}


def test_a_message_that_is_being_changed_keeps_its_conversation(migrated, tmp_path):
    put(migrated, "ai_conversations", "goes", CASES["ai_conversations"][0])
    said_more(migrated)

    with open_transaction(migrated, "UPDATE ai_messages SET content = 'v1:sealed'") as site:
        result = swept(migrated, "ai_conversations", tmp_path)
        site.execute("COMMIT")

    assert (result.removed, result.archives, list(tmp_path.iterdir())) == (0, (), [])
    assert migrated.execute("SELECT content FROM ai_messages") == [("v1:sealed",)]


def test_what_stayed_and_changed_is_not_put_back_as_it_was(migrated, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, "notifications", "held", CASES["notifications"][0])
    put(migrated, "notifications", "goes", CASES["notifications"][0])
    with open_transaction(migrated, "SELECT FROM notifications WHERE id = 'held' FOR UPDATE"):
        first = swept(migrated, "notifications", tmp_path)
    migrated.execute("UPDATE notifications SET title = 'newer'")
    second = swept(migrated, "notifications", tmp_path)

    put_back(migrated, tmp_path)

    assert (first.removed, second.removed) == (1, 1)
    assert migrated.execute("SELECT id, title FROM notifications ORDER BY id") == [("goes", "t"), ("held", "newer")]


def test_a_run_that_was_killed_is_settled_by_the_next(migrated, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, "notifications", "removed", CASES["notifications"][0])
    put(migrated, "notifications", "still there", CASES["notifications"][0])
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        Archives(store_at(str(tmp_path)), migrated.name).keep(connection, RULES["notifications"], part, Progress())
    migrated.execute("DELETE FROM notifications WHERE id = 'removed'; UPDATE notifications SET title = 'newer'")

    again = swept(migrated, "notifications", tmp_path)
    put_back(migrated, tmp_path)

    assert again.removed == 1
    assert list(tmp_path.glob("*.ids")) == []
    assert migrated.execute("SELECT id, title FROM notifications ORDER BY id") == [("removed", "t"), ("still there", "newer")]


def test_a_trail_whose_person_was_gone_before_comes_back(migrated, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    for number, person in enumerate(("u", "ghost", None)):
        put(
            migrated, "user_activities", f"a{number}", {**CASES["user_activities"][0], **({"userId": person} if person else {})}
        )
    before = rows(migrated)["user_activities"]
    swept(migrated, "user_activities", tmp_path)

    put_back(migrated, tmp_path)

    assert rows(migrated)["user_activities"] == before


@pytest.mark.parametrize("grants", [("SELECT",), ("SELECT, DELETE",)], ids=["reads", "may not lock"])
def test_where_nothing_may_be_removed_nothing_is_archived(filled, grants, tmp_path):
    with filled.role(f"GRANT {grants[0]} ON ALL TABLES IN SCHEMA public TO {{role}}") as url:
        result = manage(
            "dbmaintain",
            "weekly",
            "--format",
            "json",
            url=url,
            RETENTION="price_history=0",
            ARCHIVE_LOCATION=str(tmp_path / "a"),
        )

    failed = [one["message"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.failed"]
    assert (result.returncode, len(failed)) == (4, 1), result.stdout
    assert "permission denied for table price_history" in failed[0]
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_which_nothing_was_removed_is_not_kept(filled, tmp_path):
    filled.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        " CREATE TRIGGER keep BEFORE DELETE ON price_history FOR EACH ROW EXECUTE FUNCTION keep()"
    )

    result = maintain(filled, "weekly", RETENTION="price_history=0", ARCHIVE_LOCATION=str(tmp_path / "a"))

    assert "maintenance.locked at price_history" in result.stdout
    assert list((tmp_path / "a").iterdir()) == []


def test_a_session_that_is_ended_in_the_middle_is_a_finding_and_the_rest_goes_on(migrated, tmp_path):
    migrated.execute(
        'INSERT INTO price_history (id, origin, destination, "departDate", price, provider, timestamp)'
        " SELECT 'p' || n, 'JFK', repeat('x', 300), '2026-01-01', n, 'mock', '2020-01-01' FROM generate_series(1, 400000) AS n"
    )

    running = start_manage(
        "dbmaintain", "weekly", url=migrated.url, RETENTION="price_history=0", ARCHIVE_LOCATION=str(tmp_path / "a")
    )
    wait_until(
        migrated,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%%'"
        " AND application_name = 'fly2any'",
    )
    out, err = running.communicate()

    assert (running.returncode, err) == (4, "")
    assert "maintenance.failed at retention of price_history\n          The " in out
    assert migrated.execute("SELECT count(*) FROM price_history") == [(400_000,)]


def test_an_archive_of_another_database_is_refused(filled, migrated, tmp_path):
    maintain(filled, "weekly", RETENTION="price_history=0", ARCHIVE_LOCATION=str(tmp_path / "a"))
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path / "a"))

    assert result.returncode == 2
    assert result.stderr.startswith(
        f"{name} is of the database {filled.name}, and this is {migrated.name}: connect to that one"
    )
    assert migrated.execute("SELECT count(*) FROM price_history") == [(0,)]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE price_history ALTER provider TYPE int USING 1",
        "ALTER TABLE price_history ADD must text NOT NULL",
        "ALTER TABLE price_history DROP currency",
    ],
)
def test_an_archive_that_does_not_fit_the_table_any_more_is_one_sentence(filled, tmp_path, change):
    maintain(filled, "weekly", RETENTION="price_history=0", ARCHIVE_LOCATION=str(tmp_path / "a"))
    filled.execute(change)
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=filled.url, ARCHIVE_LOCATION=str(tmp_path / "a"))

    assert result.returncode == 2
    assert re.fullmatch(r"\S+ (does not fit its table any more \(.*\)|has the column currency, which price_history has no more): load it with the code of \d{4}-\d\d-\d\d\.\n", result.stderr), result.stderr  # fmt: skip


def test_a_row_that_another_has_taken_the_place_of_is_said(migrated, tmp_path):
    put(migrated, "ai_conversations", "old", {**CASES["ai_conversations"][0], "sessionId": "s"})
    migrated.execute(
        "INSERT INTO ai_messages (id, \"conversationId\", role, content, timestamp) VALUES ('m', 'old', 'user', 'x', 1)"
    )
    swept(migrated, "ai_conversations", tmp_path)
    put(migrated, "ai_conversations", "new", {"sessionId": "s", "updatedAt": NEW})
    [name] = [path.stem for path in tmp_path.glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    assert result.stdout.splitlines() == [
        "Put back  0 rows of ai_conversations; 0 were there already; 1 kept out: another row has what must be unique.",
        "Put back  0 rows of ai_messages; 0 were there already; 1 left out: their row in ai_conversations is gone.",
    ]


def test_what_is_restored_while_retention_is_on_is_said_to_go_again(filled, tmp_path):
    place = {"RETENTION": "price_history=0", "ARCHIVE_LOCATION": str(tmp_path / "a")}
    maintain(filled, "weekly", **place)
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]

    first = manage("dbrestore", "--archive", name, url=filled.url, **place)
    second = manage("dbrestore", "--archive", name, url=filled.url, **place)

    assert first.stdout.splitlines()[-1].startswith("Retention  is on for price_history: before the next dbmaintain")
    assert re.match(r"Put back  0 rows of price_history; [\d,]+ were there already\.\n", second.stdout)


def test_files_that_are_no_archives_are_listed_as_such(filled, tmp_path):
    place = {"ARCHIVE_LOCATION": str(tmp_path / "a")}
    maintain(filled, "weekly", RETENTION="price_history=0", **place)
    (tmp_path / "a" / "notes.json").write_text("{}")
    (tmp_path / "a" / "half.zip").touch()

    text = maintain(filled, "archives", **place)
    data = json.loads(maintain(filled, "archives", "--format", "json", **place).stdout)

    assert "  notes.json belongs to no archive, or cannot be read." in text.stdout
    assert ([one["table"] for one in data["archives"]], data["odd"]) == (["price_history"], ["notes.json", "half.zip"])


def test_a_waiver_holds_for_what_maintenance_finds(filled, settings, tmp_path):
    settings.WAIVERS = tmp_path / "waivers.toml"
    settings.RETENTION = {"days": {"price_history": 0}, "archive": ""}
    settings.WAIVERS.write_text(
        '[[waiver]]\ncode = "maintenance.unfinished"\nwhere = "retention of price_history"\nowner = "a"\nuntil = 2100-01-01\nreason = "b"\n'
    )

    with django(filled) as connection:
        run = run_of(connection, "weekly", seconds=0, progress=Progress())

    assert [(one.code, one.where) for one, _ in run.waived] == [("maintenance.unfinished", "retention of price_history")]
    assert [one.code for one in run.findings if one.code.startswith("maintenance")] == []


@pytest.mark.parametrize("seconds", ["3000000", "1e300"])
def test_a_deadline_longer_than_the_servers_is_taken(filled, seconds):
    result = maintain(filled, "monthly", "--deadline", seconds)

    assert (result.returncode, result.stderr) == (0, ""), result.stdout


def test_a_dry_run_waits_for_nobody_for_long(filled):
    with open_transaction(filled, "LOCK TABLE price_history IN ACCESS EXCLUSIVE MODE"):
        result = maintain(filled, "weekly", "--dry-run", RETENTION="price_history=0")

    assert result.returncode == 2
    assert result.stderr.startswith("Another transaction held a lock for too long")


def test_a_dry_run_as_json(filled):
    number = len(rows(filled)["price_history"])

    data = json.loads(maintain(filled, "weekly", "--dry-run", "--format", "json", RETENTION="price_history=0").stdout)

    assert [(one["table"], one["days"], one["rows"]) for one in data["would_remove"]] == [("price_history", 0, number)]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RETENTION": "users=1"}, f"RETENTION names users, for which there is no rule: there are {', '.join(RULES)}."),
        ({"RETENTION": "price_history"}, "RETENTION is not table=days,table=days, each table once, at “price_history”: correct it."),
        ({"RETENTION": "price_history=-1"}, "RETENTION is not table=days,table=days, each table once, at “price_history=-1”: correct it."),
        ({"RETENTION": "sessions=1,sessions=2"}, "RETENTION is not table=days,table=days, each table once, at “sessions=2”: correct it."),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "/b/", "BACKUP_LOCATION": "/b"},
            "ARCHIVE_LOCATION is where backups are, which `dbbackup --prune` removes: give archives a folder of their own.",
        ),
        ({"RETENTION": "price_history=\u0663"}, "RETENTION is not table=days,table=days, each table once, at “price_history=\u0663”: correct it."),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "/tmp/../b", "BACKUP_LOCATION": "/b"},
            "ARCHIVE_LOCATION is where backups are, which `dbbackup --prune` removes: give archives a folder of their own.",
        ),
        (
            {"RETENTION": "sessions=1", "ARCHIVE_LOCATION": "b"},
            "ARCHIVE_LOCATION is b, which depends on where a command is run: write it from / on, or as s3://bucket/folder.",
        ),
    ],
)  # fmt: skip
def test_what_is_configured_wrongly_is_one_sentence(migrated, environment, said):
    result = maintain(migrated, "weekly", **environment)

    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{said}\n")


def test_where_archives_cannot_be_kept_nothing_is_removed(filled, tmp_path):
    (tmp_path / "file").touch()
    before = rows(filled)

    result = maintain(
        filled, "weekly", "--format", "json", RETENTION="price_history=0", ARCHIVE_LOCATION=str(tmp_path / "file")
    )

    failed = [one["message"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.failed"]
    assert result.returncode == 4
    assert failed == [f"{tmp_path}/file cannot be made or is no folder (File exists): correct ARCHIVE_LOCATION."]
    assert rows(filled) == before


def test_nothing_is_removed_unless_it_is_switched_on_and_a_dry_run_only_counts(filled):
    filled.execute("DELETE FROM sessions; DELETE FROM price_history WHERE timestamp > now() - interval '2 days'")
    before = rows(filled)

    off = maintain(filled, "quarterly")
    dry = maintain(filled, "weekly", "--dry-run", RETENTION="price_history=0,sessions=3")

    number, now = len(before["price_history"]), datetime.now(UTC)
    assert off.returncode in (0, 4)
    assert dry.stdout.splitlines() == [
        "Nothing was changed. Retention would remove:",
        f"  price_history         {number:>12,} prices of before {now:%Y-%m-%d}, 0 days ago",
        f"  sessions              {0:>12,} expired sessions of NextAuth of before {now - timedelta(days=3):%Y-%m-%d}, 3 days ago",
    ]
    assert rows(filled) == before


def test_the_deadline_is_kept_and_what_is_left_is_said(filled):
    before = rows(filled)

    result = maintain(filled, "monthly", "--deadline", "0", "--format", "json", RETENTION="price_history=0")

    left = [one["where"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.unfinished"]
    assert result.returncode == 4
    assert left[0] == "retention of price_history"
    assert left[1].startswith("vacuum and analyse from ")
    assert rows(filled) == before


def test_one_run_at_a_time_and_who_holds_it_is_named(migrated):
    with migrated.connect(application_name="the other") as other:
        other.execute("SELECT pg_advisory_lock(72707370)")
        result = maintain(migrated, "weekly", "--lock-wait", "0.5")

    assert result.returncode == 2
    assert re.search(
        r"The maintenance lock is held by pid \d+ \(the other, .*\), for longer than 0 s: run the command again when that is done", result.stderr
    )  # fmt: skip


BY_HAND = "ALTER TABLE price_history SET (autovacuum_enabled = off)"


def periods(database, period):
    return json.loads(maintain(database, period, "--format", "json").stdout)


def test_each_period_does_what_the_one_before_does_and_more(filled):
    filled.execute(f"{BY_HAND}; ALTER TABLE verification_tokens SET (autovacuum_enabled = off)")
    filled.execute("DELETE FROM price_history; INSERT INTO verification_tokens VALUES ('a', 'b', now())")
    wait_until(filled, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'price_history' AND n_dead_tup > 0")

    weekly, monthly, quarterly = (periods(filled, period) for period in ("weekly", "monthly", "quarterly"))

    names = [[topic["name"] for topic in report["topics"]] for report in (weekly, monthly, quarterly)]
    assert (weekly["vacuumed"], weekly["analysed"]) == ([], [])
    assert "price_history" in monthly["vacuumed"]
    assert "verification_tokens" in monthly["analysed"]
    assert names[0] == ["connections", "queries", "tables"]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert {"privileges", "encryption", "passwords", "exposure", "audit", "secrets"} < set(names[2])


def test_a_role_that_owns_nothing_sweeps_and_says_what_it_may_not(filled):
    with filled.role(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT USAGE ON SCHEMA public TO {role}",
    ) as url:
        result = manage("dbmaintain", "monthly", "--format", "json", url=url, RETENTION="price_history=0")

    codes = [one["code"] for one in json.loads(result.stdout)["findings"]]
    assert result.returncode == 4
    assert codes.count("maintenance.not_owner") == 1
    assert filled.execute("SELECT count(*) FROM price_history") == [(0,)]


def test_a_topic_that_could_not_be_asked_is_a_finding(filled):
    with filled.role() as url:
        result = manage("dbmaintain", "quarterly", "--format", "json", url=url)

    asked = [one["where"] for one in json.loads(result.stdout)["findings"] if one["code"] == "maintenance.not_asked"]
    assert (result.returncode, asked) == (4, ["passwords"])


def test_a_table_that_vacuum_may_not_have_is_said(filled):
    filled.execute(f"{BY_HAND}; DELETE FROM price_history")
    wait_until(filled, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'price_history' AND n_dead_tup > 0")

    with open_transaction(filled, "LOCK TABLE price_history IN SHARE UPDATE EXCLUSIVE MODE"):
        report = periods(filled, "monthly")

    assert [one["where"] for one in report["findings"] if one["code"] == "maintenance.locked"] == ["price_history"]
    assert "axes_accesslog" in report["analysed"]


def test_the_last_line_is_the_summary_and_with_v0_the_only_one(filled):
    number = len(rows(filled)["price_history"])

    result = maintain(filled, "weekly", "-v0", RETENTION="price_history=0")
    found = re.fullmatch(
        rf"dbmaintain weekly of {filled.name}: {number:,} rows removed, 1 table vacuumed, no finding; .*, exit code 0\n",
        result.stdout,
    )

    assert (result.returncode, bool(found), result.stderr) == (0, True, ""), result.stdout


def test_the_archives_are_listed_with_the_times_of_their_rows(migrated, tmp_path):
    place = {"ARCHIVE_LOCATION": str(tmp_path / "a")}
    put(migrated, "price_history", "a", {"timestamp": "2019-03-01 00:00+00"})
    put(migrated, "price_history", "b", {"timestamp": "2020-05-01 00:00+00"})

    none = manage("dbmaintain", "archives", url=migrated.url)
    maintain(migrated, "weekly", RETENTION="price_history=0", **place)
    listed = maintain(migrated, "archives", **place)
    missing = manage("dbrestore", "--archive", "nothing", url=migrated.url, **place)

    assert (none.returncode, none.stderr) == (2, "ARCHIVE_LOCATION is not set: nothing is archived.\n")
    assert re.search(r"price_history-\S+ +2 rows +[\d.]+ \wB? +2019-03-01 to 2020-05-01", listed.stdout), listed.stdout
    assert (missing.returncode, missing.stderr) == (
        2, f"{tmp_path}/a has no archive nothing: `manage.py dbmaintain archives` lists them.\n",
    )  # fmt: skip
    assert os.stat(next((tmp_path / "a").glob("*.zip"))).st_mode & 0o77 == 0
