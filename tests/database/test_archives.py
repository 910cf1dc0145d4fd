"""Archives: removed rows are restored unchanged, or the reason is reported."""

import json
import os
import re
import time

import pytest

from fly2any.database.backup.signing import signature
from fly2any.database.backup.store import Folder, store_at
from fly2any.database.errors import Refusal
from fly2any.database.migration.advisory_locks import MAINTENANCE_LOCK, advisory_lock
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.description import PURPOSE
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from tests.conftest import django, manage
from tests.database.old_rows import BEFORE, CASES, EVERY, NEW, OLD, maintain, put, put_back, swept
from tests.database.taken import KEY, rows
from tests.servers import open_transaction

ODD = [
    ("price_monitor_logs", {"errors": "null"}), ("price_monitor_logs", {"errors": None}),
    ("price_history", {"price": "NaN"}), ("price_history", {"price": "-Infinity"}), ("price_history", {"price": 0.1 + 0.2}),
    ("price_history", {"origin": "a\tb\nc\\N\r", "destination": "\\.", "currency": ""}),
    ("price_history", {"timestamp": "-infinity"}), ("price_history", {"timestamp": "0044-03-15 12:00:00+00 BC"}),
    ("user_activities", {"eventData": '{"a": [1.0, 1e400, "\\u00e9"]}'}), ("user_activities", {"userId": "u"}),
]  # fmt: skip


@pytest.mark.slow
def test_archived_rows_are_restored_unchanged(filled, tmp_path):
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


@pytest.mark.slow
def test_a_row_of_over_a_gigabyte_as_text_is_archived_and_restored(migrated, tmp_path):
    put(migrated, "price_history", "big", CASES["price_history"][0])
    migrated.execute("UPDATE price_history SET currency = repeat('\"', 540000000)")

    removed = swept(migrated, "price_history", tmp_path, deadline=time.monotonic() + 600).removed
    with django(migrated) as connection:
        [name] = [path.stem for path in tmp_path.glob("*.json")]
        _, [loaded] = Archives(store_at(str(tmp_path)), migrated.name).load(connection, name, Progress())

    assert (removed, loaded.added) == (1, 1)
    assert migrated.execute("SELECT id, length(currency) FROM price_history") == [("big", 540000000)]


def test_rows_with_a_generated_always_identity_are_restored(migrated, tmp_path):
    put(migrated, "price_history", "first", CASES["price_history"][0])
    migrated.execute("ALTER TABLE price_history ADD COLUMN seq int GENERATED ALWAYS AS IDENTITY (START 7)")

    swept(migrated, "price_history", tmp_path)
    with django(migrated) as connection:
        [name] = [path.stem for path in tmp_path.glob("*.json")]
        Archives(store_at(str(tmp_path)), migrated.name).load(connection, name, Progress())

    assert migrated.execute("SELECT id, seq FROM price_history") == [("first", 7)]


OLD_HASHES = """
    SELECT count(*), COALESCE(sum(('x' || left(md5(ROW(t.*)::text), 16))::bit(64)::bigint), 0)::text FROM {table} AS t
"""


@pytest.mark.parametrize("table", ["ai_conversations", "ai_messages"])
def test_rows_of_a_table_with_percent_signs_in_a_column_are_restored(migrated, tmp_path, table):
    put(migrated, "ai_conversations", "old", CASES["ai_conversations"][0])
    migrated.execute(f'ALTER TABLE {table} ADD "d%s" int DEFAULT 7, ADD "%(keys)s" int DEFAULT 8, ADD "100%" int DEFAULT 9')
    before = rows(migrated)["ai_conversations"]

    removed = swept(migrated, "ai_conversations", tmp_path).removed
    with django(migrated) as connection:
        [name] = [path.stem for path in tmp_path.glob("*.json")]
        Archives(store_at(str(tmp_path)), migrated.name).load(connection, name, Progress())

    assert (removed, rows(migrated)["ai_conversations"]) == (1, before)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True], ids=["as it was", "with another hash"])
def test_an_earlier_archive_is_compared_by_its_own_hash(migrated, tmp_path, changed):
    for number, (table, values) in enumerate(ODD):
        if table == "price_history":
            put(migrated, table, f"odd{number}", {**CASES[table][0], **values})
    held = rows(migrated)["price_history"]
    with migrated.connect(options="-c TimeZone=UTC") as client:
        [(number, total)] = client.execute(OLD_HASHES.format(table="price_history")).fetchall()
    swept(migrated, "price_history", tmp_path)
    [description] = tmp_path.glob("*.json")
    data = json.loads(description.read_text()) | {"format": 1}
    del data["signature"], data["hashing"]
    data["parts"][0]["content"] = {"rows": number, "hash": str(int(total) + 1) if changed else total}
    description.write_text(json.dumps(data | {"signature": signature(data, purpose=PURPOSE, key=KEY)}))

    with django(migrated) as connection:
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        if changed:
            with pytest.raises(Refusal, match="does not have the archived rows of price_history"):
                archives.load(connection, description.stem, Progress())
        else:
            archives.load(connection, description.stem, Progress())

    assert rows(migrated)["price_history"] == ([] if changed else held)


@pytest.mark.slow
def test_archives_are_encrypted_like_backups(filled, tmp_path):
    import pyrage

    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{key}\n")
    place = {"ARCHIVE_LOCATION": str(tmp_path / "a"), "BACKUP_RECIPIENT": str(key.to_public())}
    before = rows(filled)

    maintain(filled, "weekly", RETENTION="price_history=1", **place)
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]
    without = manage("dbrestore", "--archive", name, url=filled.url, **place)
    with_key = manage("dbrestore", "--archive", name, url=filled.url, **place, BACKUP_IDENTITY_FILE=str(tmp_path / "key"))

    assert not (tmp_path / "a" / f"{name}.zip.age").read_bytes().startswith(b"PK")
    assert (without.returncode, without.stderr) == (
        2, "The backup is encrypted: set BACKUP_IDENTITY_FILE to the file with the key that age-keygen created.\n",
    )  # fmt: skip
    assert with_key.returncode == 0, with_key.stderr
    assert rows(filled)["price_history"] == before["price_history"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "manifest", "other rows"])
def test_a_damaged_archive_restores_nothing(filled, tmp_path, harm):
    place = tmp_path / "a"
    maintain(filled, "weekly", RETENTION="price_history=1", ARCHIVE_LOCATION=str(place))
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
        del data["signature"]
        manifest.write_text(json.dumps(data | {"signature": signature(data, purpose=PURPOSE, key=KEY)}))
    before = rows(filled)

    result = manage("dbrestore", "--archive", manifest.stem, url=filled.url, ARCHIVE_LOCATION=str(place))

    said = {
        "cut": r".*zip has [\d,]+ bytes instead of [\d,]+ \(cut short\): use another\.",
        "flipped": r".*zip is damaged \(its SHA-256 differs\): use another\.",
        "gone": r".*zip does not exist: nothing has been stored there yet, or ARCHIVE_LOCATION is wrong\.",
        "manifest": r".*json does not describe an archive, or is damaged: use another one, and remove this one if it is not needed\.",
        "other rows": r".*zip does not have the archived rows of price_history: use another archive\.",
    }[harm]
    assert result.returncode == 2
    assert re.fullmatch(said, result.stderr.strip()), result.stderr
    assert rows(filled) == before


@pytest.mark.slow
def test_rows_of_deleted_people_are_not_restored(filled, tmp_path):
    before = len(rows(filled)["login_history"])
    maintain(filled, "weekly", RETENTION="login_history=1,ai_conversations=1", ARCHIVE_LOCATION=str(tmp_path / "a"))
    filled.execute("DELETE FROM users")

    put_back(filled, tmp_path / "a")

    assert before > 0
    assert filled.execute("SELECT count(*) FROM login_history") == [(0,)]
    assert filled.execute('SELECT count(*) FROM ai_conversations WHERE "userId" IS NOT NULL') == [(0,)]
    assert filled.execute(
        'SELECT count(*) FROM ai_messages WHERE "conversationId" NOT IN (SELECT id FROM ai_conversations)'
    ) == [(0,)]


def test_rows_that_stayed_and_changed_are_not_overwritten_by_a_restore(migrated, tmp_path):
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


def test_a_killed_run_is_settled_by_the_next(migrated, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    put(migrated, "notifications", "removed", CASES["notifications"][0])
    put(migrated, "notifications", "still there", CASES["notifications"][0])
    with django(migrated) as connection:
        part = {"first": "(0,0)", "last": "(100,0)", "before": BEFORE}
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        archive, versions = archives.keep(connection, RULES["notifications"], part, Progress())
        archives.begin(archive, versions)
    migrated.execute("DELETE FROM notifications WHERE id = 'removed'; UPDATE notifications SET title = 'newer'")

    again = swept(migrated, "notifications", tmp_path)
    put_back(migrated, tmp_path)

    assert again.removed == 1
    assert list(tmp_path.glob("*.ids")) == []
    assert migrated.execute("SELECT id, title FROM notifications ORDER BY id") == [("removed", "t"), ("still there", "newer")]


def test_an_activity_whose_person_no_longer_existed_is_restored(migrated, tmp_path):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
    for number, person in enumerate(("u", "ghost", None)):
        put(
            migrated, "user_activities", f"a{number}", {**CASES["user_activities"][0], **({"userId": person} if person else {})}
        )
    before = rows(migrated)["user_activities"]
    swept(migrated, "user_activities", tmp_path)

    put_back(migrated, tmp_path)

    assert rows(migrated)["user_activities"] == before


@pytest.mark.slow
def test_an_archive_is_stored_for_longer_than_sessions_may_be_idle(migrated, tmp_path, monkeypatch):
    put(migrated, "price_history", "old", CASES["price_history"][0])
    migrated.execute(f"ALTER DATABASE {migrated.name} SET idle_session_timeout = '500ms'")
    put_file = Folder.put
    monkeypatch.setattr(Folder, "put", lambda *arguments: time.sleep(1) or put_file(*arguments))

    with django(migrated) as connection, advisory_lock(connection, MAINTENANCE_LOCK, patience=1, say=print):
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        options = {"before": BEFORE, "archives": archives, "deadline": time.monotonic() + 60}
        removed = sweep(connection, RULES["price_history"], **options, progress=Progress()).removed

    assert (removed, archives.unfinished()) == (1, set())


def test_an_archive_without_removed_rows_is_not_kept(filled, tmp_path):
    filled.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        " CREATE TRIGGER keep BEFORE DELETE ON price_history FOR EACH ROW EXECUTE FUNCTION keep()"
    )

    result = maintain(filled, "weekly", RETENTION="price_history=1", ARCHIVE_LOCATION=str(tmp_path / "a"))

    assert "maintenance.failed at retention of price_history" in result.stdout
    assert "of price_history past the retention period could not be removed, because of the trigger keep." in result.stdout
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE price_history ALTER provider TYPE int USING 1",
        "ALTER TABLE price_history ADD must text NOT NULL",
        "ALTER TABLE price_history DROP currency",
    ],
)
def test_an_archive_that_no_longer_fits_the_table_is_reported_in_one_sentence(filled, tmp_path, change):
    maintain(filled, "weekly", RETENTION="price_history=1", ARCHIVE_LOCATION=str(tmp_path / "a"))
    filled.execute(change)
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=filled.url, ARCHIVE_LOCATION=str(tmp_path / "a"))

    assert result.returncode == 2
    assert re.fullmatch(r"\S+ (no longer matches its table \(.*\)|has the column currency, which price_history no longer has): load it with the code of \d{4}-\d\d-\d\d\.\n", result.stderr), result.stderr  # fmt: skip


def test_a_row_that_was_replaced_is_reported(migrated, tmp_path):
    put(migrated, "ai_conversations", "old", {**CASES["ai_conversations"][0], "sessionId": "s"})
    migrated.execute(
        "INSERT INTO ai_messages (id, \"conversationId\", role, content, timestamp, \"createdAt\") VALUES ('m', 'old', 'user', 'x', 1, %s)",
        [OLD],
    )
    swept(migrated, "ai_conversations", tmp_path)
    put(migrated, "ai_conversations", "new", {"sessionId": "s", "updatedAt": NEW})
    [name] = [path.stem for path in tmp_path.glob("*.json")]

    result = manage("dbrestore", "--archive", name, url=migrated.url, ARCHIVE_LOCATION=str(tmp_path))

    assert result.stdout.splitlines() == [
        "Restored  0 rows of ai_conversations; 0 existed already; 1 rejected: another row has the same unique value, or a trigger or rule rejects them.",
        "Restored  0 rows of ai_messages; 0 existed already; 1 skipped: their row in ai_conversations is missing.",
    ]


@pytest.mark.slow
def test_rows_restored_while_retention_is_on_are_reported_as_due(filled, tmp_path):
    place = {"RETENTION": "price_history=1", "ARCHIVE_LOCATION": str(tmp_path / "a")}
    maintain(filled, "weekly", **place)
    [name] = [path.stem for path in (tmp_path / "a").glob("*.json")]

    first = manage("dbrestore", "--archive", name, url=filled.url, **place)
    second = manage("dbrestore", "--archive", name, url=filled.url, **place)

    assert first.stdout.splitlines()[-1].startswith("Retention  is on for price_history: raise its number of days in RETENTION")
    assert re.match(r"Restored  0 rows of price_history; [\d,]+ existed already\.\n", second.stdout)


def test_files_that_are_not_archives_are_listed_as_such(filled, tmp_path):
    place = {"ARCHIVE_LOCATION": str(tmp_path / "a")}
    maintain(filled, "weekly", RETENTION="price_history=1", **place)
    (tmp_path / "a" / "notes.json").write_text("{}")
    (tmp_path / "a" / "half.zip").touch()

    text = maintain(filled, "archives", **place)
    data = json.loads(maintain(filled, "archives", "--format", "json", **place).stdout)

    assert "  notes.json belongs to no archive, or cannot be read." in text.stdout
    assert ([one["table"] for one in data["archives"]], data["odd"]) == (["price_history"], ["notes.json", "half.zip"])


def test_the_archives_are_listed_with_the_times_of_their_rows(migrated, tmp_path):
    place = {"ARCHIVE_LOCATION": str(tmp_path / "a")}
    put(migrated, "price_history", "a", {"timestamp": "2019-03-01 00:00+00"})
    put(migrated, "price_history", "b", {"timestamp": "2020-05-01 00:00+00"})

    none = manage("dbmaintain", "archives", url=migrated.url)
    maintain(migrated, "weekly", RETENTION="price_history=1", **place)
    listed = maintain(migrated, "archives", **place)
    missing = manage("dbrestore", "--archive", "nothing", url=migrated.url, **place)

    assert (none.returncode, none.stderr) == (
        2,
        "ARCHIVE_LOCATION is not set, so there are no archives: set it to their folder, or s3://bucket/folder.\n",
    )
    assert re.search(r"price_history-\S+ +2 rows +[\d.]+ \wB? +2019-03-01 to 2020-05-01", listed.stdout), listed.stdout
    assert (missing.returncode, missing.stderr) == (
        2, f"{tmp_path}/a has no archive nothing: `manage.py dbmaintain archives` lists them.\n",
    )  # fmt: skip
    assert os.stat(next((tmp_path / "a").glob("*.zip"))).st_mode & 0o77 == 0


@pytest.mark.slow
def test_a_damaged_list_of_ids_is_one_sentence_and_the_others_are_swept(filled, tmp_path):
    place = {"ARCHIVE_LOCATION": str(tmp_path), "RETENTION": "price_history=1,price_monitor_logs=1"}
    maintain(filled, "weekly", ARCHIVE_LOCATION=str(tmp_path), RETENTION="price_history=1")
    [name] = [path.stem for path in tmp_path.glob("*.json")]
    (tmp_path / f"{name}.ids").write_text('["a')

    report = json.loads(maintain(filled, "weekly", "--format", "json", **place).stdout)

    [said] = [one["message"] for one in report["findings"] if one["code"] == "maintenance.failed"]
    assert said == (
        f"{name}.ids is damaged, or not signed: write the IDs of its rows that are still in the table into `left` in the .json, remove the .ids file,"
        " and load the archive with --unsigned."
    )
    assert [one["table"] for one in report["removed"]] == ["price_monitor_logs"]


@pytest.mark.slow
def test_an_unsigned_archive_is_restored_only_if_allowed(migrated, tmp_path):
    put(migrated, "price_history", "goes", CASES["price_history"][0])
    held = rows(migrated)["price_history"]
    swept(migrated, "price_history", tmp_path)
    [description] = tmp_path.glob("*.json")
    data = json.loads(description.read_text())
    description.write_text(json.dumps({**data, "ghosts": ["nobody"]}))

    with django(migrated) as connection:
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        with pytest.raises(Refusal, match=r"is not signed with a key of this installation \(signature does not match\)"):
            archives.load(connection, description.stem, Progress())
        none = rows(migrated)["price_history"]
        archives.load(connection, description.stem, Progress(), unsigned=True)

    assert (none, rows(migrated)["price_history"]) == ([], held)
