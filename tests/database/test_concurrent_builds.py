"""Concurrent index builds, and what happens when they are interrupted."""

import contextlib
import os
import pty
import re
import signal
import threading

import psycopg
import pytest

from fly2any.database.findings import Severity
from fly2any.database.health.examine import examine
from fly2any.database.health.topics import TOPICS
from fly2any.database.report.collect import compare_and_collect
from fly2any.database.schema.unmanaged_findings import AGREE
from fly2any.database.verification import verify
from tests.conftest import django, manage, start_manage
from tests.servers import open_transaction, recorded, runs, wait_until

INDEX = "RunSQL('CREATE {}INDEX CONCURRENTLY \"Probe_idx\" ON users (email, name)', 'DROP INDEX \"Probe_idx\"')"
VALID_SQL = """SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('"Probe_idx"')"""
BUILDING_SQL = "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()"


@pytest.mark.slow
def test_a_concurrent_build_waits_for_an_old_snapshot_and_names_its_holder(migrated, probe):
    environment = probe(INDEX.format(""), atomic=False)
    migrated.execute("ALTER ROLE CURRENT_USER IN DATABASE " + migrated.name + " SET statement_timeout = '3s'")
    with open_transaction(migrated, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users") as client:
        process = start_manage("migrate", url=migrated.url, **environment)
        line = process.stderr.readline()
        assert process.poll() is None
        pid = client.info.backend_pid
    _, err = process.communicate(timeout=60)

    assert re.fullmatch(
        rf"Waiting for pid {pid} \(the site, .*SELECT FROM users\); to end it: SELECT pg_terminate_backend\({pid}\);\n", line
    )
    assert (process.returncode, err) == (0, "")
    assert migrated.execute(VALID_SQL) == [(True,)]


def test_an_index_that_is_being_built_is_noted_and_one_left_invalid_is_an_error(migrated):
    found = []
    migrated.execute("DROP INDEX price_alerts_active_idx")
    for build in (
        "CREATE INDEX CONCURRENTLY price_alerts_active_idx ON price_alerts (active)",
        "REINDEX TABLE CONCURRENTLY price_alerts",
    ):
        with (
            open_transaction(migrated, "LOCK TABLE price_alerts IN ROW EXCLUSIVE MODE"),
            contextlib.closing(migrated.connect()) as builder,
        ):
            builder.pgconn.send_query(build.encode())
            wait_until(migrated, BUILDING_SQL)
            with django(migrated) as connection:
                found.append([(one.severity, one.code, one.where, one.message) for one in verify(connection).findings])
            migrated.execute("SELECT pg_terminate_backend(%s, 10000)", [builder.info.backend_pid])

    place = "price_alerts.price_alerts_active_idx"
    being_built = "Index price_alerts_active_idx of price_alerts is being built: no query uses it yet."
    assert found[0] == [(Severity.NOTE, "index.weaker", place, being_built)]
    assert [one[:3] for one in found[1]] == [(Severity.ERROR, "index.weaker", place)]


@pytest.mark.parametrize("valid", ["true", "false"])
def test_an_index_whose_removal_was_interrupted_is_invalid_and_rejects_nothing(migrated, valid):
    migrated.execute("CREATE INDEX extra_idx ON users (phone); CREATE UNIQUE INDEX extra_key ON users (phone)")
    ours = ["price_alerts_active_idx", "users_pkey"]
    migrated.execute(
        f"UPDATE pg_index SET indislive = false, indisready = false, indisvalid = {valid}"
        " WHERE indexrelid::regclass::text = ANY (%s)",
        [["extra_idx", "extra_key", *ours]],
    )

    with django(migrated) as connection:
        found = [(one.code, one.where, one.message) for one in verify(connection).findings]
        [topic] = examine(connection, {"indexes": TOPICS["indexes"]})

    ignored = "invalid: queries and writes ignore it, because its build or its removal was interrupted."
    assert found == [
        (
            "primary_key.weaker",
            "users.users_pkey",
            "Primary key users_pkey of users has an invalid index, so duplicates can be stored.",
        ),
        ("index.weaker", "price_alerts.price_alerts_active_idx", f"Index price_alerts_active_idx of price_alerts is {ignored}"),
        ("index.extra", "users.extra_idx", f"Index extra_idx of users is unmanaged and {ignored}"),
        ("index.extra", "users.extra_key", f"Index extra_key of users is unmanaged and {ignored}"),
    ]
    assert [one.where for one in topic.findings if one.code == "indexes.invalid" and one.message == f"Index {one.where.split('.')[1]} is {ignored}"] == [
        "price_alerts.price_alerts_active_idx", "users.extra_idx", "users.extra_key", "users.users_pkey"
    ]  # fmt: skip


def test_what_an_interrupted_reindex_leaves_is_reported_once_and_dropped_without_asking(migrated):
    """On the name of a copy of an index of another table, or of none, nothing follows."""
    copies = ["price_alerts_active_idx_ccold1", "users_email_key_ccnew", "notifications_createdAt_idx_ccnew", "theirs_ccnew"]
    for name in copies:
        table = "users" if name.startswith("users") else "price_alerts"
        migrated.execute(f'CREATE INDEX "{name}" ON {table} (id)')
    migrated.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text ~ 'cc(new|old)'")

    with django(migrated) as connection:
        report = compare_and_collect(connection, health={"indexes": TOPICS["indexes"]})
    found = {one.where.partition(".")[2]: one for one in report.findings if one.code in ("index.extra", "indexes.invalid")}

    assert sorted(one.where for one in report.findings) == sorted(one.where for one in found.values())
    assert {name: (one.code, one.is_sql, one.cure) for name, one in found.items()} == {
        name: ("index.extra", ours, f'{"" if ours else AGREE}DROP INDEX CONCURRENTLY "{name}";')
        for name, ours in zip(copies, [True, True, False, False], strict=True)
    }


@pytest.mark.slow
def test_a_concurrent_build_that_fails_leaves_no_index(migrated, probe):
    environment = probe("RunSQL('CREATE UNIQUE INDEX CONCURRENTLY \"Probe_idx\" ON users (name)')", atomic=False)
    migrated.execute(
        """INSERT INTO users (id, email, name, "updatedAt") SELECT n, n, 'same', now() FROM generate_series(1, 2) AS n"""
    )

    result = manage("migrate", url=migrated.url, **environment)

    assert result.returncode == 2
    assert result.stderr == (
        'The database refused (IntegrityError, SQLSTATE 23505): could not create unique index "Probe_idx" (--traceback shows where).\n'
    )
    assert migrated.execute(VALID_SQL) == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_concurrent_build_ends_at_once_and_the_next_run_repairs_it(migrated, probe, sent):
    environment = probe(INDEX.format(""), atomic=False)
    with open_transaction(migrated, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users"):
        process = start_manage("migrate", url=migrated.url, **environment)
        wait_until(migrated, BUILDING_SQL)
        wait_until(migrated, VALID_SQL)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == ({signal.SIGTERM: 143, signal.SIGINT: 130}[sent], "")
    assert migrated.execute(VALID_SQL) == [(False,)]
    assert [(ended, error) for *_, ended, error in runs(migrated, "probe")] == [(True, "The run was interrupted.")]
    assert manage("migrate", url=migrated.url, **environment).returncode == 0
    assert migrated.execute(VALID_SQL) == [(True,)]


@pytest.mark.slow
def test_a_concurrent_build_whose_processes_are_killed_is_repaired_by_the_next_run(migrated, probe):
    environment = probe(INDEX.format(""), atomic=False)
    with open_transaction(migrated, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users"):
        process = start_manage("migrate", url=migrated.url, **environment)
        (pid,) = wait_until(migrated, BUILDING_SQL)
        wait_until(migrated, VALID_SQL)
        process.kill()
        process.communicate()
        migrated.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    assert migrated.execute(VALID_SQL) == [(False,)]
    status = manage("dbstatus", url=migrated.url, **environment)
    assert "migrations.failed at probe.0001_step" in status.stdout
    assert re.search(
        r"The last run of probe\.0001_step, on .* never ended: it was killed, or its connection was cut\.", status.stdout
    )

    result = manage("migrate", url=migrated.url, **environment)

    assert (result.returncode, result.stderr) == (
        0,
        "The index Probe_idx was left invalid by an earlier build: it is dropped and rebuilt.\n",
    )
    assert migrated.execute(VALID_SQL) == [(True,)]
    assert recorded(migrated, "probe") == ["0001_step"]


@pytest.mark.slow
def test_a_build_that_the_server_finished_after_its_command_was_killed_is_kept(migrated):
    migrated.execute("DELETE FROM django_migrations WHERE app = 'engagement' AND name >= '0004'")
    status = manage("dbstatus", url=migrated.url)
    assert "migrations.unrecorded at engagement.0004_login_timestamp_index" in status.stdout
    (number,) = migrated.execute("""SELECT pg_relation_filenode('"login_history_timestamp_idx"')""")

    result = manage("migrate", url=migrated.url)

    indexes = ("login_history_timestamp_idx", "user_sessions_ipAddress_lastActive_idx", "login_history_ipAddress_timestamp_idx")
    kept = [f"The index {index} already exists as defined: it is kept." for index in indexes]
    assert (result.returncode, result.stderr.splitlines()) == (0, kept)
    assert migrated.execute("""SELECT pg_relation_filenode('"login_history_timestamp_idx"')""") == [number]
    assert manage("dbstatus", url=migrated.url).returncode == 0


def test_another_index_of_the_same_name_is_refused_with_its_cure(migrated):
    migrated.execute("DELETE FROM django_migrations WHERE app = 'engagement' AND name >= '0004'")
    migrated.execute(
        """DROP INDEX "login_history_timestamp_idx"; CREATE INDEX "login_history_timestamp_idx" ON login_history (success)"""
    )

    result = manage("migrate", url=migrated.url)
    status = manage("dbstatus", url=migrated.url)

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "`manage.py dbstatus` shows it and the cure." in result.stderr
    assert 'DROP INDEX CONCURRENTLY "login_history_timestamp_idx";\n' in status.stdout


def test_an_invalid_index_of_another_table_is_not_dropped(migrated):
    migrated.execute("CREATE TABLE theirs (id int)")
    migrated.execute(
        """DELETE FROM django_migrations WHERE app = 'engagement' AND name >= '0004'; DROP INDEX "login_history_timestamp_idx" """
    )
    migrated.execute("""CREATE INDEX "login_history_timestamp_idx" ON theirs (id)""")
    migrated.execute("""UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"login_history_timestamp_idx"'::regclass""")

    result = manage("migrate", url=migrated.url)

    assert result.returncode == 2
    assert result.stderr.startswith(
        "engagement.0004_login_timestamp_index cannot create login_history_timestamp_idx: an index of the role"
    )
    assert migrated.execute(
        """SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = '"login_history_timestamp_idx"'::regclass"""
    ) == [("theirs",)]


@pytest.mark.slow
def test_an_index_that_another_session_is_building_is_left_alone(migrated, probe):
    environment = probe(INDEX.format(""), atomic=False)
    snapshot = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users")
    with open_transaction(migrated, *snapshot), migrated.connect() as builder:
        build = 'CREATE INDEX CONCURRENTLY "Probe_idx" ON users (email, name)'
        thread = threading.Thread(target=suppress_all, args=[builder, build])
        thread.start()
        (pid,) = wait_until(migrated, BUILDING_SQL)
        wait_until(migrated, VALID_SQL)

        result = manage("migrate", url=migrated.url, **environment)

        migrated.execute("SELECT pg_cancel_backend(%s)", [pid])
        thread.join()

    assert result.returncode == 2
    assert result.stderr == f"The index Probe_idx is being built by pid {pid}: run the command again when it is finished.\n"


@pytest.mark.slow
def test_a_connection_lost_during_a_build_is_reported_in_one_sentence(migrated, probe):
    environment = probe(INDEX.format(""), atomic=False)
    with open_transaction(migrated, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users"):
        process = start_manage("migrate", url=migrated.url, **environment)
        (pid,) = wait_until(migrated, BUILDING_SQL)
        wait_until(migrated, VALID_SQL)
        migrated.execute("SELECT pg_terminate_backend(%s)", [pid])
        _, err = process.communicate(timeout=60)

    assert process.returncode == 2
    assert err.startswith("The server ended the connection: ")
    assert len(err.splitlines()) == 1
    assert manage("migrate", url=migrated.url, **environment).returncode == 0
    assert migrated.execute(VALID_SQL) == [(True,)]


def suppress_all(client, statement):
    with contextlib.suppress(psycopg.Error):
        client.execute(statement)


@pytest.mark.slow
def test_a_terminal_shows_the_progress_of_a_build(migrated, probe):
    environment = probe(INDEX.format(""), atomic=False)
    terminal, theirs = pty.openpty()
    with open_transaction(migrated, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users"):
        process = start_manage("migrate", url=migrated.url, stderr=theirs, TERM="xterm", COLUMNS="120", **environment)
        os.close(theirs)
        shown = ""
        while not re.search(r"probe\.0001_step: waiting for [a-z ]+.*\d+%", shown):
            shown += os.read(terminal, 4096).decode()
    drain = threading.Thread(target=suppress_reading, args=[terminal])
    drain.start()
    process.communicate(timeout=60)
    drain.join()

    assert process.returncode == 0


def suppress_reading(terminal):
    with contextlib.suppress(OSError):  # Its other end is closed.
        while os.read(terminal, 4096):
            pass
