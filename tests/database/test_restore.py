"""Restores into another database or in place: refused with a reason, or without a lost row."""

import dataclasses
import re
import time
from contextlib import suppress
from datetime import UTC, datetime

import psutil
import psycopg
import pytest

from fly2any.database.backup.latest import find
from fly2any.database.backup.pruning import prune
from fly2any.database.backup.restore import drop_on_failure, restore_into, restore_over
from fly2any.database.backup.restore_connections import connection_to
from fly2any.database.backup.store import store_at
from fly2any.database.backup.swap import swap
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django, manage, start_manage
from tests.database.taken import RecordedProgress, change, databases, rows, run, the_one
from tests.servers import Database, open_transaction


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"server": "99.1"}, "is of PostgreSQL 99.1, and this server is"),
        (
            {"migrations": ["accounts.0001_initial", "accounts.9999_future"]},
            "was taken by newer code, which has accounts.9999_future",
        ),
        ({"migrations": ["blog.0001_initial"], "tables": {}}, "is not a backup of a Fly2Any database"),
        ({"tables": 7}, "is not the manifest of a backup, or is damaged"),
        ({"format": 99}, "has a format that this code cannot read"),
    ],
)
def test_a_backup_that_cannot_be_restored_here_is_refused_with_the_reason(filled, place, facts, said):
    run(filled, "dbbackup", place=place)
    change(place, **facts)
    name = the_one(place)
    before = databases(filled)

    answers = [run(filled, *words, place=place) for words in (["dbbackup", "--check", name], ["dbrestore", name, "--yes"])]

    assert [(answer.returncode, said in answer.stderr, answer.stderr.count("\n")) for answer in answers] == [(2, True, 1)] * 2
    assert databases(filled) == before


@pytest.mark.slow
def test_a_restore_brings_back_every_row_and_the_databases_properties(filled, place):
    filled.execute(f"ALTER DATABASE {filled.name} SET statement_timeout = '77s'")
    filled.execute(f"ALTER DATABASE {filled.name} SET search_path = public, other")
    filled.execute(f"REVOKE CONNECT ON DATABASE {filled.name} FROM PUBLIC")
    with filled.role(f"GRANT CONNECT ON DATABASE {filled.name} TO {{role}}", "GRANT SELECT ON users TO {role}") as of_role:
        held = rows(filled)
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        filled.execute("DELETE FROM users; UPDATE price_history SET price = 1")

        plan = run(filled, "dbrestore", "latest", place=place)
        assert (plan.returncode, "Nothing was changed." in plan.stdout) == (0, True)
        assert rows(filled)["users"] == []
        with open_transaction(filled, "SELECT count(*) FROM price_history") as site:
            restored = run(filled, "dbrestore", "latest", "--yes", place=place)
            with pytest.raises(psycopg.OperationalError):
                site.execute("SELECT 1")

        assert (restored.returncode, restored.stderr) == (0, "")
        assert rows(filled) == held
        assert filled.execute("SHOW statement_timeout") + filled.execute("SHOW search_path") == [
            ("77s",),
            ("public, other",),
        ]
        with psycopg.connect(of_role) as theirs:
            assert theirs.execute("SELECT count(*) FROM users").fetchone() == (40,)
        public = "SELECT has_database_privilege('pg_monitor', current_database(), 'CONNECT')"
        assert filled.execute(public) == [(False,)]
        [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
        assert f'DROP DATABASE "{old}"' in restored.stdout
        filled.execute(f'DROP DATABASE "{old}"')
    assert manage("dbstatus", url=filled.url).returncode == 0


@pytest.mark.slow
def test_objects_that_no_dump_contains_do_not_stop_a_restore(filled, place):
    filled.execute(
        "CREATE STATISTICS raises ON (1 / length(name)), country FROM users; UPDATE users SET name = '' WHERE id = (SELECT min(id) FROM users);"
        "CREATE TABLE logins (who text)"
    )
    [(version,)] = filled.execute("SELECT current_setting('server_version_num')::int / 10000")
    if version >= 17:
        filled.execute(
            "CREATE FUNCTION log() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql"
            " AS 'BEGIN INSERT INTO public.logins VALUES (session_user); END';"
            f"CREATE EVENT TRIGGER {filled.name} ON login EXECUTE FUNCTION log()"
        )
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0

    restored = run(filled, "dbrestore", "latest", "--yes", place=place)

    assert (restored.returncode, restored.stderr) == (
        0,
        "ANALYZE public.users failed (division by zero), so the table has no statistics, as in the old database: correct the index or the"
        " statistics object (\\dX in psql) whose expression raises the error.\n",
    )
    assert filled.execute("SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'notifications'") == [(True,)]
    [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
    filled.execute(f'DROP DATABASE "{old}"')


@pytest.mark.slow
def test_a_restore_into_another_database_leaves_this_one_alone_and_refuses_a_used_one(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    beside = f"{filled.name}_beside"
    try:
        first = run(filled, "dbrestore", "latest", "--into", beside, place=place)
        again = run(filled, "dbrestore", "latest", "--into", beside, place=place)

        assert (first.returncode, f"into {beside}: every row was compared and matches." in first.stdout) == (0, True)
        assert re.fullmatch(
            r"Erasures  since \d{4}-\d\d-\d\d \d\d:\d\d UTC are not in the backup: run `dbperson erase` again for each\.",
            first.stdout.splitlines()[-2],
        )
        assert (again.returncode, again.stderr) == (
            2,
            f"The database {beside} is not empty: give --into an empty database or a new name.\n",
        )
    finally:
        filled.execute(f"DROP DATABASE IF EXISTS {beside}")


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.2, 0.4, 0.7, 1.1])
def test_a_restore_that_is_killed_leaves_the_database_in_use_as_it_was(filled, place, moment):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)

    process = start_manage("dbrestore", "latest", "--yes", url=filled.url, BACKUP_LOCATION=place)
    time.sleep(moment)
    with suppress(psutil.NoSuchProcess):  # It has ended already.
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.communicate()

    assert rows(filled) == held
    assert run(filled, "dbrestore", "latest", "--yes", place=place).returncode == 0
    assert rows(filled) == held
    for name in databases(filled):
        if name.startswith((f"{filled.name}_before_", f"{filled.name}_restored_")):
            filled.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--into", ""], ["--into", "postgres"], ["--into", "template0"], ["--into", "x" * 64], ["--into", "x", "--yes"]]
)
def test_a_restore_into_an_unsuitable_database_is_refused_in_one_sentence(filled, place, words):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)

    refused = run(filled, "dbrestore", "latest", *words, place=place)

    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert rows(filled) == held


@pytest.mark.slow
def test_a_restored_database_sorts_as_before(filled, place):
    provider = "SELECT datlocprovider, datcollate FROM pg_database WHERE datname = current_database()"
    whole = dataclasses.replace(filled, name="postgres")
    libc = dataclasses.replace(filled, name=f"{filled.name}_libc")
    whole.execute(f"CREATE DATABASE {libc.name} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C.UTF-8'")
    try:
        assert manage("migrate", url=libc.url).returncode == 0
        assert run(libc, "dbbackup", "--verify", place=place).returncode == 0
        restored = run(libc, "dbrestore", "latest", "--yes", place=place)

        assert (restored.returncode, libc.execute(provider)) == (0, [("c", "C.UTF-8")])
    finally:
        for name in databases(libc):
            whole.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.slow
def test_a_database_in_a_schema_of_its_own_is_restored_and_compared_there(filled, place):
    filled.execute("ALTER SCHEMA public RENAME TO fly2any; CREATE SCHEMA public")
    url = f"{filled.url}&schema=fly2any"
    backup = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
    filled.execute("DELETE FROM fly2any.users")

    restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)

    assert (backup.returncode, restored.returncode, restored.stderr) == (0, 0, "")
    assert filled.execute("SELECT count(*) FROM fly2any.users") == [(40,)]
    for old in databases(filled) - {filled.name}:
        filled.execute(f'DROP DATABASE "{old}"')


@pytest.mark.slow
def test_objects_bound_to_the_database_are_reported_before_it_is_replaced(own_server, filled, place):
    server = own_server(max_prepared_transactions="2", wal_level="logical")
    server.execute("CREATE DATABASE fly2any_bound", database="postgres")
    bound = dataclasses.replace(filled, host=str(server.home / "data"), port=str(server.port), name="fly2any_bound")
    assert manage("migrate", url=bound.url).returncode == 0
    assert run(bound, "dbbackup", "--verify", place=place).returncode == 0
    bound.execute("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
    bound.execute("BEGIN; DELETE FROM users; PREPARE TRANSACTION 'half'")

    plan = run(bound, "dbrestore", "latest", place=place)
    refused = run(bound, "dbrestore", "latest", "--yes", place=place)
    bound.execute("ROLLBACK PREPARED 'half'")
    done = run(bound, "dbrestore", "latest", "--yes", place=place)

    *notes, room = [line for line in plan.stdout.splitlines() if line.startswith("Note")]
    assert room.startswith("Note      The restored database takes about ")
    assert notes == [
        "Note      Prepared transactions prevent the swap until they end (half).",
        "Note      Replication slots stay with the old database (feed): recreate the slots, and let their consumers resynchronise.",
    ]
    assert (refused.returncode, refused.stderr) == (
        2,
        "Prepared transactions prevent the replacement of \"fly2any_bound\": commit them, or run in it: ROLLBACK PREPARED 'half';"
        " Nothing was changed.\n",
    )
    assert (done.returncode, done.stderr) == (0, "")


class Beside(Progress):
    """Calls `action` once, when rows are being restored."""

    def __init__(self, action):
        self.action, self.result = action, None

    def show(self, what, percent):
        if what.startswith("restoring") and self.result is None:
            self.result = "begun"
            self.result = "done" if (result := self.action()) is None else result


def replace_database(database):
    elsewhere = dataclasses.replace(database, name="postgres")
    elsewhere.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.name}'")
    elsewhere.execute(f"ALTER DATABASE {database.name} RENAME TO {database.name}_aside")
    elsewhere.execute(f"CREATE DATABASE {database.name}")


@pytest.mark.slow
@pytest.mark.parametrize("restored", [True, False], ids=["by a second restore", "by a person"])
def test_a_database_that_was_replaced_meanwhile_is_not_replaced_again(filled, place, restored):
    before = databases(filled)
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    beside = Beside(
        lambda: run(filled, "dbrestore", "latest", "--yes", place=place).returncode if restored else replace_database(filled)
    )
    try:
        with django(filled) as connection:
            manifest = find(
                store_at(place),
                "latest",
                of=read_origin(connection),
                good=True,
                others=False,
                now=datetime.now(UTC),
                progress=beside,
            )
            with pytest.raises(Refusal) as refused:
                restore_over(connection, store_at(place), manifest, beside, empty=False)

        assert str(refused.value) == (
            f"{filled.name} was replaced by another database during the restore: nothing was replaced by this one."
        )
        assert beside.result == (0 if restored else "done")
        assert len(databases(filled) - before) == 1  # The old one of the second restore, or of the person.
    finally:
        for name in databases(filled) - before:
            filled.execute(f'DROP DATABASE "{name}"')


class Restarted(Progress):
    """Restarts a server, once, when a restored database was compared."""

    def __init__(self, server):
        self.server, self.before = server, []

    def clear(self):
        there = self.server.execute("SELECT datname::text FROM pg_database WHERE datname LIKE '%restored%'")
        if there and not self.before:
            self.before = there
            self.server.stop()
            self.server.start()


@pytest.mark.slow
def test_a_database_that_was_compared_on_another_server_is_not_swapped(own_server, place, django_db_setup, django_db_blocker):
    server = own_server(migrated=True)
    home = Database(host=str(server.home / "data"), port=str(server.port), user="postgres", password="", name="fly2any")
    with django_db_blocker.unblock(), django(home) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        restarted = Restarted(server)
        with pytest.raises(Refusal, match=r"^The server was restarted or replaced during the restore, "):
            restore_over(connection, store, manifest, restarted, empty=False)

        assert len(restarted.before) == 1
        assert server.execute("SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1") == [
            ("fly2any",),
            ("postgres",),
        ]
        restore_over(connection, store, manifest, restarted, empty=False)
        with pytest.raises(Refusal, match=r"^The server was restarted or replaced during the restore, "):
            restore_into(connection, "restored_beside", store, manifest, Restarted(server))
        assert server.execute("SELECT 1 FROM pg_database WHERE datname = 'restored_beside'") == []
        before = datetime(2026, 1, 1, tzinfo=UTC)
        with (
            connection_to(connection, "postgres") as elsewhere,
            pytest.raises(Refusal, match=r"^The server was restarted or replaced"),
        ):
            swap(elsewhere, "fly2any", oid=0, new="none", old="none", description=None, started=before)


@pytest.mark.slow
def test_the_latest_backup_of_a_lost_server_is_restored_on_a_new_one(filled, own_server, place):
    run(filled, "dbbackup", "--verify", place=place)
    server = own_server()
    server.execute(f"CREATE DATABASE {filled.name}", database="postgres")
    new = dataclasses.replace(filled, host=str(server.home / "data"), port=str(server.port))

    restored = run(new, "dbrestore", "latest", place=place)

    assert (restored.returncode, restored.stderr) == (0, "")
    assert f"Origin    a database named {filled.name} on another server.\n" in restored.stdout
    assert rows(new) == rows(filled)


@pytest.mark.slow
def test_a_server_that_closes_idle_connections_stops_neither_a_trial_nor_a_restore(migrated, place):
    name = f"{migrated.name}_copy"
    migrated.execute(f"ALTER DATABASE {migrated.name} SET idle_session_timeout = '1s'")
    try:
        with django(migrated) as connection:
            store = store_at(place)
            manifest = check(connection, store, take(connection, store, Progress()), Progress())
            pruned = prune(store, connection, Progress())
            restore_into(connection, name, store, manifest, Progress())

        assert (manifest.state, pruned, name in databases(migrated)) == ("good", [], True)
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")


def test_a_failed_restore_gives_its_reason_even_if_the_database_cannot_be_dropped(migrated):
    recorded = RecordedProgress()
    with (
        django(migrated) as connection,
        pytest.raises(Refusal, match=r"^the reason$"),
        drop_on_failure(connection, migrated.name, recorded),
    ):
        raise Refusal("the reason")

    [sentence] = recorded.sentences
    assert sentence.startswith(f"The unfinished database {migrated.name} could not be dropped (")
    assert sentence.endswith(f'): DROP DATABASE "{migrated.name}";')


def test_a_restore_that_would_fill_the_servers_disk_is_refused(migrated, place):
    with django(migrated) as connection:
        manifest = take(connection, store_at(place), Progress())
        larger = dataclasses.replace(manifest, size=2**60)
        with pytest.raises(
            Refusal, match=r"takes about 1,048,576\.0 TB on the server's disk, and only .* is free there: make room in /"
        ):
            restore_into(connection, f"{migrated.name}_copy", store_at(place), larger, Progress())
        with migrated.connect() as client:
            [(size,)] = client.execute("SELECT pg_database_size(current_database())").fetchall()

    assert manifest.size == pytest.approx(size, rel=0.2)
    assert f"{migrated.name}_copy" not in databases(migrated)
