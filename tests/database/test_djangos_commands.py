"""Django's commands that delete or overwrite rows require what `dbreset` and a destructive reversal require."""

import io
import json
import os
import shutil
import stat
import threading

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError

from fly2any.database.backup import required_backup
from fly2any.database.errors import Refusal
from tests.conftest import django, manage
from tests.database.old_rows import put
from tests.servers import open_transaction, wait_until

USER = """INSERT INTO users (id, email, "updatedAt") VALUES ('a', 'a@example.com', now())"""
EMAILS = "SELECT email FROM users ORDER BY id"
GO_ON = ", so nothing was changed: take a backup (`manage.py dbbackup --verify`), then run the command again with --yes."
NO_BACKUP = (
    "A verified backup newer than 26 h is required before rows are deleted or overwritten, but there is none:"
    " run `manage.py dbbackup --verify`, or add --without-backup."
)


@pytest.fixture
def used(migrated):
    migrated.execute(USER)
    return migrated


@pytest.fixture(autouse=True)
def no_backups(tmp_path, monkeypatch):
    monkeypatch.setitem(settings.BACKUPS, "location", str(tmp_path / "backups"))


def call(database, *arguments, **options):
    """Run a command on `database` in this process, and return what it prints."""
    out = io.StringIO()
    with django(database) as connection:
        call_command(*arguments, database=connection.alias, stdout=out, **options)
    return out.getvalue()


def fixture(folder, email, identifier="a"):
    file = folder / "users.json"
    moment = "2026-01-01T00:00:00Z"
    row = {"model": "accounts.user", "pk": identifier, "fields": {"email": email, "created_at": moment, "updated_at": moment}}
    file.write_text(json.dumps([row]))
    return str(file)


def test_flush_without_input_deletes_nothing_and_names_what_it_would_delete(used):
    result = manage("flush", "--no-input", url=used.url)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("flush would empty table auth_group (")
    assert ", table users (1 row)" in result.stderr
    assert result.stderr.endswith(f"{GO_ON}\n")
    assert used.execute(EMAILS) == [("a@example.com",)]


def test_flush_with_yes_requires_a_verified_backup(used):
    with pytest.raises(Refusal) as refused:
        call(used, "flush", interactive=False, yes=True)

    assert str(refused.value) == NO_BACKUP
    assert used.execute(EMAILS) == [("a@example.com",)]


def test_flush_empties_the_tables_and_keeps_the_migrations(used):
    recorded = used.execute("SELECT count(*) FROM django_migrations")

    said = call(used, "flush", yes=True, without_backup=True)

    assert said.startswith("Emptied ")
    assert used.execute("SELECT count(*) FROM users") == [(0,)]
    assert used.execute("SELECT count(*) > 0 FROM auth_permission") == [(True,)]  # Made anew, as after `migrate`.
    assert used.execute("SELECT count(*) FROM django_migrations") == recorded


def test_flush_has_a_lock_timeout(used):
    with open_transaction(used, "SELECT FROM users"), pytest.raises(OperationalError, match="lock timeout"):
        call(used, "flush", yes=True, without_backup=True)

    assert used.execute(EMAILS) == [("a@example.com",)]


def test_flush_and_loaddata_do_not_run_beside_migrations(used, tmp_path):
    file = fixture(tmp_path, "b@example.com", identifier="b")
    for words, options in ((["flush"], {"yes": True, "without_backup": True}), (["loaddata", file], {})):
        with (
            open_transaction(used, "SELECT pg_advisory_lock(72707369)"),
            pytest.raises(Refusal, match=r"^Nothing was changed\. The migration lock is held by pid \d+ .*: try again when"),
        ):
            call(used, *words, **options)

    assert used.execute(EMAILS) == [("a@example.com",)]
    call(used, "loaddata", file)
    assert used.execute(EMAILS) == [("a@example.com",), ("b@example.com",)]


def test_a_refused_flush_says_why(used):
    used.execute("CREATE TABLE theirs (u text REFERENCES users)")

    result = manage("flush", "--yes", "--without-backup", url=used.url, timeout=30)

    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        "The database refused (NotSupportedError, SQLSTATE 0A000): cannot truncate a table referenced in a foreign key constraint."
        ' Truncate table "theirs" at the same time, or use TRUNCATE ... CASCADE (--traceback shows where).\n',
    )


@pytest.mark.skipif(not shutil.which("psql"), reason="psql is not installed")
def test_dbshell_works_in_the_requested_schema(used):
    used.execute("CREATE SCHEMA app; CREATE TABLE app.users ()")

    result = manage("dbshell", "--", "-Atc", "SELECT current_schema(), count(*) FROM users", url=f"{used.url}&schema=app")

    assert (result.returncode, result.stdout, result.stderr) == (0, "app|0\n", "")


@pytest.mark.skipif(not shutil.which("psql"), reason="psql is not installed")
def test_dbshell_opens_a_database_whose_name_looks_like_a_connection_string(database):
    name = f"dbname={database.name}"
    database.execute(f'CREATE DATABASE "{name}"')
    try:
        url = database.url.replace(database.name, name.replace("=", "%3D"))
        result = manage("dbshell", "--", "-Atc", "SELECT current_database()", url=url)
    finally:
        database.execute(f'DROP DATABASE "{name}"')

    assert (result.returncode, result.stdout, result.stderr) == (0, f"{name}\n", "")


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_rows_that_are_committed_while_flush_waits_for_its_locks_stay(database, isolation):
    database.execute("CREATE TABLE users (id text, email text)")  # The only table of a model that is there.
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation TO '{isolation}'")

    def commit(site):
        wait_until(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        site.execute("COMMIT")

    with open_transaction(database, "INSERT INTO users VALUES ('a', 'a@example.com')") as site:
        thread = threading.Thread(target=commit, args=[site])
        thread.start()
        with pytest.raises(Refusal) as refused:
            call(database, "flush")
        thread.join()

    assert str(refused.value) == (
        "Rows were written in the meantime (table users (1 row)), so nothing was changed: run the command again."
    )
    assert database.execute(EMAILS) == [("a@example.com",)]


def test_fixtures_overwrite_no_row_without_yes(used, tmp_path):
    file = fixture(tmp_path, "b@example.com")

    with pytest.raises(Refusal) as refused:
        call(used, "loaddata", file)
    assert str(refused.value) == f"Loading the fixtures would overwrite rows of table users (1 row){GO_ON}"
    with pytest.raises(Refusal) as refused:
        call(used, "loaddata", file, yes=True)
    assert str(refused.value) == NO_BACKUP
    assert used.execute(EMAILS) == [("a@example.com",)]

    call(used, "loaddata", file, yes=True, without_backup=True)
    assert used.execute(EMAILS) == [("b@example.com",)]


def test_the_backup_is_read_before_the_transaction_that_locks_rows(used, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(required_backup, "require_backup", lambda connection: seen.append(connection.in_atomic_block))

    call(used, "loaddata", fixture(tmp_path, "b@example.com"), yes=True)

    assert (seen, used.execute(EMAILS)) == ([False], [("b@example.com",)])
    call(used, "flush", yes=True)
    assert (seen, used.execute(EMAILS)) == ([False, False], [])


def test_fixtures_of_new_rows_are_loaded_without_a_question(used, tmp_path):
    file = fixture(tmp_path, "b@example.com", "b")

    call(used, "loaddata", file, file)  # Twice, because fixtures may overwrite their own rows.

    assert used.execute(EMAILS) == [("a@example.com",), ("b@example.com",)]


@pytest.mark.parametrize("command", ["test", "testserver"])
def test_no_test_database_is_created_on_another_server(database, command, monkeypatch):
    monkeypatch.setattr(settings, "DEVELOPMENT", False)

    with pytest.raises(Refusal) as refused:
        call_command(command, interactive=False)

    assert str(refused.value) == (
        f"{command} creates a database test_… on the server of POSTGRES_URL, and drops an existing database of that name:"
        " unset POSTGRES_URL to use the embedded server."
    )


def test_a_fixture_that_cannot_be_read_is_one_sentence_without_its_values(used, tmp_path):
    file = tmp_path / "users.json"
    file.write_text(
        '[{"model": "accounts.user", "pk": "z", "fields": {"email": "secret@example.com", "date_of_birth": "0044 BC"}}]'
    )

    with pytest.raises(Refusal) as refused:
        call(used, "loaddata", str(file))

    assert (
        str(refused.value)
        == f"A fixture cannot be read ({file}): it is damaged, or belongs to another schema. Nothing was changed."
    )
    assert used.execute(EMAILS) == [("a@example.com",)]


def test_json_that_no_fixture_can_hold_is_not_dumped(used):
    put(used, "price_monitor_logs", "log", {"errors": '{"n": 12345678901234567890123.5}'})

    with pytest.raises(CommandError) as refused:
        call(used, "dumpdata", "travel.PriceMonitorLog")

    assert str(refused.value) == (
        "Unable to serialize database: price_monitor_logs.errors holds JSON that no fixture can hold: use dbbackup"
    )


def test_fixtures_in_xml_are_refused_because_texts_lose_blanks(used, tmp_path):
    path = tmp_path / "users.xml"
    path.write_text("<django-objects version='1.0'></django-objects>")

    results = [
        manage(*words, url=used.url) for words in (("dumpdata", "--format", "xml", "accounts.User"), ("loaddata", str(path)))
    ]

    sentence = "Texts in XML lose blanks and line breaks when they are loaded: use the format json, jsonl or yaml.\n"
    assert [(one.returncode, one.stdout, one.stderr) for one in results] == [(2, "", sentence)] * 2


@pytest.mark.parametrize("existing", [False, True])
def test_only_the_user_can_read_the_file_of_a_fixture(used, tmp_path, existing):
    path, before = tmp_path / "users.json", os.umask(0o022)
    if existing:
        path.write_text("of an earlier dump")
    try:
        result = manage("dumpdata", "accounts.User", "--output", str(path), url=used.url)
    finally:
        os.umask(before)

    assert (result.returncode, result.stderr, stat.S_IMODE(path.stat().st_mode)) == (0, "", 0o600)
    assert [row["fields"]["email"] for row in json.loads(path.read_text())] == ["a@example.com"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_fixture_is_not_written_to_a_file_of_another_user(used, tmp_path):
    path = tmp_path / "users.json"
    path.write_text("theirs")
    os.chown(path, 65534, 65534)

    result = manage("dumpdata", "accounts.User", "--output", str(path), url=used.url)

    assert (result.returncode, path.read_text()) == (2, "theirs")
    assert result.stderr == f"{path} belongs to another user, who could read the rows: name another file.\n"
