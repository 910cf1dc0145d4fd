"""`migrate` and other sessions' locks: it waits, lets the site continue, and names the lock holder."""

import re
import time

import pytest
from django.core.management import call_command

from fly2any.database.migration.advisory_locks import MIGRATION_LOCK
from fly2any.database.redaction import without_literals
from fly2any.database.schema.contract import load
from tests.conftest import django, manage, start_manage
from tests.servers import open_transaction, recorded, runs, wait_until


def test_the_migration_lock_holder_is_named_and_a_timeout_is_reported_in_one_sentence(database):
    with database.connect(application_name="prisma migrate") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        pid = holder.info.backend_pid

        result = manage("migrate", "--lock-wait", "1", url=database.url)

    assert result.returncode == 2
    waiting, sentence = result.stderr.splitlines()
    assert re.fullmatch(
        rf"Waiting for the migration lock, held by pid {pid} \(prisma migrate, role {database.user}, idle for \d+ s: "
        r"SELECT pg_advisory_lock\(\$1\)\) …",
        waiting,
    )
    assert sentence.startswith(f"The migration lock is still held by pid {pid} (prisma migrate,")
    assert sentence.endswith(
        f" after 1 s: run the command again when it is released (or end that session: SELECT pg_terminate_backend({pid});)."
    )
    assert database.execute("SELECT to_regclass('django_migrations')") == [(None,)]


@pytest.mark.slow
def test_a_run_waits_for_a_lock_that_is_released(database):
    with database.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        process = start_manage("migrate", url=database.url)
        assert "Waiting for the migration lock" in process.stderr.readline()
    process.communicate(timeout=60)

    assert process.returncode == 0
    assert len(recorded(database, "accounts")) == len([name for name in load().migrations if name.startswith("accounts.")])


@pytest.mark.slow
def test_neither_the_lock_nor_a_setting_stays_with_the_session(migrated):
    with django(migrated) as opened:
        call_command("migrate", "engagement", "0005", database=opened.alias, verbosity=0, yes=True, without_backup=True)
        call_command("migrate", database=opened.alias, verbosity=0)

        with opened.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'")
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT name, setting = reset_val FROM pg_settings WHERE name LIKE '%_timeout'")
            assert {name for name, same in cursor.fetchall() if not same} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "atomic"),
    [
        ("""RunSQL('ALTER TABLE users ADD COLUMN probe int')""", True),
        ("""RunSQL('ALTER TABLE users ADD COLUMN probe int')""", False),
        ("""RunPython(lambda apps, editor: editor.execute('ALTER TABLE users ADD COLUMN probe int'))""", True),
        ("""RunPython(lambda apps, editor: editor.execute('ALTER TABLE users ADD COLUMN probe int'))""", False),
    ],
)
def test_a_table_in_use_is_waited_for_and_then_its_user_is_named(migrated, probe, operation, atomic):
    environment = probe(operation, atomic)
    with open_transaction(migrated, "SELECT email FROM users WHERE email = 'secret@example.com'") as client:
        pid = client.info.backend_pid
        process = start_manage("migrate", "--lock-wait", "1", url=migrated.url, **environment)
        wait_until(
            migrated,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%probe int%%' AND datname = current_database()",
        )
        _, err = process.communicate(timeout=60)

    assert process.returncode == 2
    sentence = err.splitlines()[-1]
    assert re.fullmatch(
        rf"probe\.0001_step did not get a lock within \d+ m?s, because of pid {pid} \(the site, role {migrated.user}, "
        r"idle in transaction for \d+ s: SELECT email FROM users WHERE email = '…'\): run the command again when that transaction has ended, "
        rf"or end it: SELECT pg_terminate_backend\({pid}\);",
        sentence,
    )
    assert runs(migrated, "probe") == [("probe.0001_step", "forwards", True, sentence)]
    assert recorded(migrated, "probe") == []


@pytest.mark.slow
def test_the_site_proceeds_while_a_run_waits_and_then_the_run_resumes(migrated, probe):
    environment = probe("RunSQL('ALTER TABLE users ADD COLUMN probe int'), RunPython(lambda apps, editor: None)")
    with open_transaction(migrated, "SELECT FROM users"):
        process = start_manage("migrate", url=migrated.url, LOCK_TIMEOUT="", **environment)
        line = process.stderr.readline()
        begun = time.monotonic()
        migrated.execute("SELECT FROM users")
        longest = time.monotonic() - begun
    process.communicate(timeout=60)

    assert re.fullmatch(
        r"probe\.0001_step waited 2 s for pid \d+ \(the site, .*\) and gave way to other sessions; retrying in \d\.\d s\.\n",
        line,
    )
    assert longest < 4  # The timeout, plus the delay of a busy machine.
    assert process.returncode == 0
    assert [(name, ended, error) for name, _, ended, error in runs(migrated, "probe")] == [("probe.0001_step", True, None)]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT 'it''s', 1", "SELECT '…', 1"),
        ("UPDATE users SET password = '$2b$12$abc", "UPDATE users SET password = '…'"),
        ("SELECT $tag$secret$tag$ FROM\n\t t -- secret", "SELECT '…' FROM t"),
        ("SELECT $1 /* secret /* more */ it's */ 'x'", "SELECT $1"),
        ("""SELECT "it's", 'secret', $té$secret$té$""", """SELECT "it's", '…', '…'"""),
        (r"SELECT E'a\'secret', q = 'x' WHERE phone = 491701234567 LIMIT 20", "SELECT '…', q = '…' WHERE phone = … LIMIT 20"),
        (r"SELECT 1 WHERE name LIKE'%\' AND email='bob@x.de'", "SELECT 1 WHERE name LIKE'…' AND email='…'"),
        ("SELECT " + "a" * 200, "SELECT " + "a" * 92 + "…"),
    ],
)
def test_a_query_is_shown_without_its_data(query, shown):
    assert without_literals(query) == shown


@pytest.mark.parametrize("word", ["-1", "soon", "nan", "inf"])
def test_an_invalid_number_of_seconds_is_refused(database, word):
    result = manage("migrate", f"--lock-wait={word}", url=database.url)

    assert result.returncode == 2
    assert result.stderr.endswith("error: argument --lock-wait: give a number of seconds, 0 or more\n")
