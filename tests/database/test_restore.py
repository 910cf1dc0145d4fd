"""Restoring: beside or in place, refused for a reason, and no row lost."""

import dataclasses
import time
from contextlib import suppress
from datetime import UTC, datetime

import psutil
import psycopg
import pytest

from fly2any.database.backup import tools
from fly2any.database.backup.proof import check
from fly2any.database.backup.properties import copy_grants, copy_properties, create, literals
from fly2any.database.backup.restore import beside, dropped_where_it_fails, restore_into, restore_over, swap, want_name
from fly2any.database.backup.retention import prune
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django, manage, start_manage
from tests.database.taken import Told, change, databases, rows, run, the_one
from tests.servers import Database, open_transaction


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"server": "99.1"}, "is of PostgreSQL 99.1, and this server is"),
        (
            {"migrations": ["accounts.0001_initial", "accounts.9999_future"]},
            "was taken by newer code, which has accounts.9999_future",
        ),
        ({"migrations": ["blog.0001_initial"], "tables": {}}, "is not of a Fly2Any database"),
        ({"tables": 7}, "is no manifest of a backup, or is damaged"),
        ({"format": 99}, "has a format that this code does not read"),
    ],
)
def test_what_cannot_be_restored_here_is_refused_with_its_reason(filled, place, facts, said):
    run(filled, "dbbackup", place=place)
    change(place, **facts)
    name = the_one(place)
    before = databases(filled)

    answers = [run(filled, *words, place=place) for words in (["dbbackup", "--check", name], ["dbrestore", name, "--yes"])]

    assert [(answer.returncode, said in answer.stderr, answer.stderr.count("\n")) for answer in answers] == [(2, True, 1)] * 2
    assert databases(filled) == before


@pytest.mark.slow
def test_a_restore_puts_back_every_row_and_what_the_database_is_dressed_with(filled, place):
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
    assert run(filled, "dbstatus", place=place).returncode == 0


@pytest.mark.slow
def test_a_restore_beside_leaves_the_database_alone_and_takes_no_used_one(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    beside = f"{filled.name}_beside"
    try:
        first = run(filled, "dbrestore", "latest", "--into", beside, place=place)
        again = run(filled, "dbrestore", "latest", "--into", beside, place=place)

        assert (first.returncode, f"into {beside}, compared: every row is there." in first.stdout) == (0, True)
        assert (again.returncode, again.stderr) == (
            2,
            f"The database {beside} is not empty: name another, which is made, or an empty one.\n",
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
def test_where_nothing_is_to_be_restored_is_refused_in_a_sentence(filled, place, words):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)

    refused = run(filled, "dbrestore", "latest", *words, place=place)

    assert (refused.returncode, "Traceback" in refused.stderr) == (2, False)
    assert rows(filled) == held


@pytest.mark.slow
def test_a_restore_gives_everything_back_to_its_owner_or_says_whom_it_misses(filled, place):
    role = f"{filled.name}_owner"
    filled.execute(f"CREATE ROLE {role} LOGIN; CREATE ROLE {role}_reads; ALTER TABLE notifications OWNER TO {role}")
    filled.execute(f"GRANT SELECT (email) ON users TO {role}_reads; ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    filled.execute(f"CREATE POLICY p ON users TO {role}_reads USING (true)")
    try:
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        shown = run(filled, "dbrestore", "latest", place=place)  # It promises only what --yes does.
        assert (shown.returncode, shown.stderr.startswith(f"Code of {role} in ")) == (2, True)
        assert run(filled, "dbrestore", "latest", "--yes", "--trust", role, place=place).returncode == 0
        owners = "SELECT tableowner FROM pg_tables WHERE tablename IN ('notifications', 'users') ORDER BY tablename"
        assert filled.execute(owners) == [(role,), ("postgres",)]
        assert filled.execute(f"SELECT has_column_privilege('{role}_reads', 'users', 'email', 'SELECT')") == [(True,)]
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')

        filled.execute(f"DROP POLICY IF EXISTS p ON users; DROP OWNED BY {role}_reads; DROP ROLE {role}_reads")
        refused = run(filled, "dbrestore", "latest", "--yes", place=place)
        assert (refused.returncode, refused.stderr) == (
            2,
            f'The backup names roles that this server has not: run CREATE ROLE "{role}_reads" NOLOGIN; and the command again.\n',
        )
    finally:
        filled.execute(f"REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}; DROP ROLE IF EXISTS {role}_reads")


@pytest.mark.slow
def test_an_owner_who_is_no_superuser_backs_up_and_restores(filled, place):
    """Also what belongs to another role of which it is a member, as the role that migrates is made by dbroles."""
    role, other = f"{filled.name}_owner", f"{filled.name}_migrate"
    filled.execute(f"CREATE ROLE {role} LOGIN CREATEDB; ALTER DATABASE {filled.name} OWNER TO {role}")
    filled.execute(f"CREATE ROLE {other}; GRANT {other} TO {role}; GRANT CREATE ON SCHEMA public TO {other}")
    tables = [name for (name,) in filled.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    filled.execute("; ".join(f'ALTER TABLE "{name}" OWNER TO {role}' for name in tables))
    filled.execute(f"ALTER TABLE users OWNER TO {other}")
    url = filled.url.replace("//postgres", f"//{role}")
    held = rows(filled)
    try:
        taken = manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place)
        filled.execute("DELETE FROM users")
        restored = manage("dbrestore", "latest", "--yes", url=url, BACKUP_LOCATION=place)

        assert [(answer.returncode, answer.stderr) for answer in (taken, restored)] == [(0, ""), (0, "")]
        assert rows(filled) == held
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY tableowner"
        assert filled.execute(owners) == [(other,), (role,)]
        assert filled.execute(f"SELECT has_schema_privilege('{other}', 'public', 'CREATE')") == [(True,)]
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')
    finally:
        filled.execute(
            f"REASSIGN OWNED BY {role}, {other} TO postgres; ALTER DATABASE {filled.name} OWNER TO postgres;"
            f"DROP OWNED BY {other}; DROP ROLE {role}, {other}"
        )


@pytest.mark.slow
def test_a_database_sorts_as_before_when_it_was_restored(filled, place):
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
def test_an_empty_database_is_replaced_without_yes_and_kept_like_any_other(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)
    filled.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    restored = run(filled, "dbrestore", "latest", place=place)

    assert (restored.returncode, f"Restored  {filled.name}, compared" in restored.stdout) == (0, True)
    [old] = databases(filled) - {filled.name}
    assert (rows(filled), old.startswith(f"{filled.name}_before_")) == (held, True)
    filled.execute(f'DROP DATABASE "{old}"')


@pytest.mark.slow
def test_a_restore_that_fails_leaves_an_empty_database_empty(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    change(place, tables={"public.users": {"rows": 1, "hash": "1"}})
    filled.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    restored = run(filled, "dbrestore", "latest", place=place)

    assert (restored.returncode, "Nothing was replaced" in restored.stderr) == (2, True)
    assert (rows(filled), databases(filled)) == ({}, {filled.name})


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
def test_what_is_bound_to_the_database_is_said_before_it_is_replaced(own_server, filled, place):
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
        "Note      Replication slots stay with the old database (feed): recreate the slots, and let their consumers resynchronize.",
    ]
    assert (refused.returncode, refused.stderr) == (
        2,
        "Prepared transactions keep \"fly2any_bound\" from being replaced: commit them, or run ROLLBACK PREPARED 'half'; in it."
        " Nothing was changed.\n",
    )
    assert (done.returncode, done.stderr) == (0, "")


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
        with pytest.raises(Refusal, match=r"^The server was restarted or replaced by another during the restore, "):
            restore_over(connection, store, manifest, restarted, empty=False)

        assert len(restarted.before) == 1
        assert server.execute("SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1") == [
            ("fly2any",),
            ("postgres",),
        ]
        restore_over(connection, store, manifest, restarted, empty=False)
        with pytest.raises(Refusal, match=r"^The server was restarted or replaced by another during the restore, "):
            restore_into(connection, "restored_beside", store, manifest, Restarted(server))
        assert server.execute("SELECT 1 FROM pg_database WHERE datname = 'restored_beside'") == []
        before = datetime(2026, 1, 1, tzinfo=UTC)
        with (
            beside(connection, "postgres") as elsewhere,
            pytest.raises(Refusal, match=r"^The server was restarted or replaced"),
        ):
            swap(elsewhere, "fly2any", new="none", old="none", said=None, started=before)


@pytest.mark.slow
def test_when_the_server_is_lost_the_latest_is_restored_on_a_new_one(filled, own_server, place):
    run(filled, "dbbackup", "--verify", place=place)
    server = own_server()
    server.execute(f"CREATE DATABASE {filled.name}", database="postgres")
    new = dataclasses.replace(filled, host=str(server.home / "data"), port=str(server.port))

    restored = run(new, "dbrestore", "latest", place=place)

    assert (restored.returncode, restored.stderr) == (0, "")
    assert f"Origin    it is not of {filled.name} on this server, but of another.\n" in restored.stdout
    assert rows(new) == rows(filled)


@pytest.fixture
def empty(migrated):
    """An empty database beside that of a test, as an administrator makes it."""
    name = f"{migrated.name}_empty"
    migrated.execute(f"CREATE DATABASE {name}")
    migrated.execute(f"ALTER DATABASE {name} SET statement_timeout = '77s'")
    yield dataclasses.replace(migrated, name=name)
    for name in databases(migrated) - {migrated.name}:
        migrated.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.slow
def test_an_empty_database_that_is_there_is_replaced_by_what_was_restored_beside_it(migrated, empty, place):
    migrated.execute(f"""COMMENT ON DATABASE {empty.name} IS 'fly2any: {{"purpose": "into"}}'""")
    with django(migrated) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        kept = restore_into(connection, empty.name, store, manifest, Progress())
        with pytest.raises(Refusal, match=rf"^The database {empty.name} is not empty: name another"):
            restore_into(connection, empty.name, store, manifest, Progress())

    assert (rows(empty), rows(dataclasses.replace(empty, name=kept.name)), kept.filled) == (rows(migrated), {}, False)
    assert empty.execute("SHOW statement_timeout") == [("77s",)]
    about = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert empty.execute(about) == [(None,)]
    assert databases(migrated) == {migrated.name, empty.name, kept.name}


@pytest.mark.slow
def test_a_database_that_only_reads_by_default_is_restored_and_stays_so(migrated, empty, place):
    whole = dataclasses.replace(migrated, name="postgres")
    with django(migrated) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        connection.close()
        try:
            for name in (migrated.name, empty.name):
                whole.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            restore_into(connection, empty.name, store, manifest, Progress())
        finally:
            whole.execute(f"ALTER DATABASE {migrated.name} RESET default_transaction_read_only")

    assert empty.execute("SHOW default_transaction_read_only") == [("on",)]
    assert rows(empty) == rows(migrated)


class Meanwhile(Progress):
    """Has another client create a table in a database as soon as something is restored."""

    def __init__(self, database):
        self.database = database

    def show(self, what, percent):
        if what.startswith("restoring"):
            self.database.execute("CREATE TABLE IF NOT EXISTS orders AS SELECT 1 AS id")


@pytest.mark.slow
def test_an_empty_database_that_is_used_during_the_restore_is_not_replaced(migrated, empty, place):
    with django(migrated) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        with pytest.raises(Refusal, match=rf"^{empty.name} is no longer empty: tables were created in it during the restore"):
            restore_into(connection, empty.name, store, manifest, Meanwhile(empty))

    assert (rows(empty), databases(migrated)) == ({"orders": [("(1)",)]}, {migrated.name, empty.name})


@pytest.fixture
def newest_tools(monkeypatch):
    """Only the embedded server's tools, which are newer than the server of POSTGRES_URL."""
    monkeypatch.setattr(tools, "package_folders", list)
    monkeypatch.setattr("os.get_exec_path", list)


def has_internal_options(database):
    """Return whether the server's release writes an option that the embedded server's pg_dump does not know."""
    [(found,)] = database.execute("SELECT EXISTS (SELECT FROM pg_attribute WHERE attoptions::text LIKE '%pg_attver=%')")
    return found


@pytest.mark.slow
def test_the_embedded_servers_tools_back_up_and_restore_an_older_server_or_say_what_they_do_not_know(
    filled, place, newest_tools
):
    held, into = rows(filled), f"{filled.name}_into"
    with django(filled) as connection:
        store = store_at(place)
        if has_internal_options(filled):
            with pytest.raises(
                Refusal, match=r"^pg_dump 18\.\d+ does not know an internal option of PostgreSQL .* \(pg_attver\)"
            ):
                take(connection, store, Progress())
            assert list(store.names()) == []
            return
        try:
            manifest = check(connection, store, take(connection, store, Progress()), Progress())
            restore_into(connection, into, store, manifest, Progress())

            assert manifest.tool.startswith("18.")
            assert (manifest.state, manifest.verdict.reason) == ("good", "")
            assert rows(dataclasses.replace(filled, name=into)) == held
        finally:
            filled.execute(f"DROP DATABASE IF EXISTS {into}")


@pytest.mark.slow
def test_the_embedded_servers_tools_restore_nothing_where_a_statement_fails_on_an_older_server(migrated, empty, place, request):
    migrated.execute(
        "CREATE FUNCTION picky(int) RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN"
        f" IF current_database() <> '{migrated.name}' THEN RAISE E'no\nCommand was: SET transaction_timeout = 0;'; END IF;"
        " RETURN true; END $f$; CREATE TABLE picked (id int CHECK (picky(id))); INSERT INTO picked VALUES (1)"
    )
    with django(migrated) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        request.getfixturevalue("newest_tools")
        with pytest.raises(Refusal, match=r'^pg_restore ended with -?\d+: COPY failed for table "picked": ERROR:  no'):
            restore_into(connection, empty.name, store, manifest, Progress())

    assert (rows(empty), databases(migrated)) == ({}, {migrated.name, empty.name})


@pytest.mark.slow
def test_where_a_restore_fails_half_way_an_empty_database_that_is_there_stays_empty(migrated, empty, place):
    migrated.execute(
        "CREATE FUNCTION picky(int) RETURNS bool LANGUAGE plpgsql AS $f$"
        f" BEGIN RETURN current_database() = '{migrated.name}'; END $f$;"
        " CREATE TABLE picked (id int CHECK (picky(id))); INSERT INTO picked VALUES (1)"
    )
    with django(migrated) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        with pytest.raises(Refusal, match='violates check constraint "picked_id_check"'):
            restore_into(connection, empty.name, store, manifest, Progress())

    assert (rows(empty), databases(migrated)) == ({}, {migrated.name, empty.name})


@pytest.mark.slow
def test_a_server_that_ends_idle_connections_stops_neither_a_trial_nor_a_restore(migrated, place):
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


def test_code_of_others_runs_as_the_role_that_restores_only_where_that_trusts_them(migrated, place):
    role, name = f"{migrated.name}_mallory", f"{migrated.name}_copy"
    migrated.execute(f"CREATE ROLE {role} LOGIN; CREATE SCHEMA mal AUTHORIZATION {role}; CREATE ROLE {role}_trusted")
    migrated.execute(f"REVOKE CONNECT ON DATABASE {migrated.name} FROM PUBLIC; ALTER TABLE users OWNER TO {role}_trusted")
    datacl = "SELECT ARRAY(SELECT a::text FROM unnest(datacl) AS a ORDER BY 1) FROM pg_database WHERE datname = %s"
    try:
        migrated.execute(
            "CREATE FUNCTION mal.is_fine(int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
            f" CREATE TABLE mal.checked (a int CHECK (mal.is_fine(a))); INSERT INTO mal.checked VALUES (1);"
            f" ALTER FUNCTION mal.is_fine(int) OWNER TO {role}"
        )
        with django(migrated) as connection:
            store = store_at(place)
            manifest = take(connection, store, Progress())
            with pytest.raises(Refusal, match=rf"^Code of {role} in .* would run as this role .* add --trust {role}\.$"):
                restore_into(connection, name, store, manifest, Progress())
            assert name not in databases(migrated)

            restore_into(connection, name, store, manifest, Progress(), trust=[role])
            with pytest.raises(Refusal, match="is the database in use: leave --into out"):
                want_name(connection, migrated.name)

        assert migrated.execute(datacl, [name]) == migrated.execute(datacl, [migrated.name])
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")
        migrated.execute(
            f"REASSIGN OWNED BY {role}_trusted TO postgres; DROP OWNED BY {role} CASCADE; DROP ROLE {role}, {role}_trusted"
        )


def test_a_database_that_is_being_restored_lets_no_other_role_in(migrated):
    name = f"{migrated.name}_copy"
    try:
        with django(migrated) as connection:
            create(connection, name)
            public = f"SELECT has_database_privilege('pg_monitor', '{name}', 'CONNECT')"
            closed = migrated.execute(public)
            copy_grants(connection, name)
        assert (closed, migrated.execute(public)) == ([(False,)], [(True,)])
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {name}")


def test_why_a_restore_failed_is_said_although_the_database_cannot_be_dropped(migrated):
    told = Told()
    with (
        django(migrated) as connection,
        pytest.raises(Refusal, match=r"^the reason$"),
        dropped_where_it_fails(connection, migrated.name, told),
    ):
        raise Refusal("the reason")

    [sentence] = told.sentences
    assert sentence.startswith(f"The unfinished database {migrated.name} could not be dropped (")
    assert sentence.endswith(f'): DROP DATABASE "{migrated.name}";')


def test_a_restore_that_would_fill_the_servers_disk_is_refused(migrated, place):
    with django(migrated) as connection:
        manifest = take(connection, store_at(place), Progress())
        larger = dataclasses.replace(manifest, size=2**60)
        with pytest.raises(
            Refusal, match=r"takes about 1,048,576\.0 TB on the server's disk, and .* are free there: make room in /"
        ):
            restore_into(connection, f"{migrated.name}_copy", store_at(place), larger, Progress())
        with migrated.connect() as client:
            [(size,)] = client.execute("SELECT pg_database_size(current_database())").fetchall()

    assert manifest.size == pytest.approx(size, rel=0.2)
    assert f"{migrated.name}_copy" not in databases(migrated)


def test_settings_are_copied_as_values_and_run_no_sql_of_the_role_that_made_them(migrated):
    role, new = f"{migrated.name}_mallory", f"{migrated.name}_new"
    migrated.execute(f"CREATE ROLE {role} LOGIN")
    migrated.execute(f"CREATE DATABASE {new} TEMPLATE template0")
    theirs = dataclasses.replace(migrated, user=role)
    hostile = f"x;ALTER/**/ROLE/**/{role}/**/SUPERUSER"
    kept = f"""SELECT s.setconfig FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
               WHERE d.datname = '{new}' ORDER BY s.setrole"""
    try:
        theirs.execute(
            f"SELECT set_config('search_path', '{hostile}', false), set_config('local_preload_libraries', '\"; {hostile}', false);"
            f"ALTER ROLE {role} IN DATABASE {migrated.name} SET search_path FROM CURRENT;"
            f"ALTER ROLE {role} IN DATABASE {migrated.name} SET local_preload_libraries FROM CURRENT"
        )
        migrated.execute(
            f"""ALTER DATABASE {migrated.name} SET search_path = "$user", public, "a "", b";
                ALTER DATABASE {migrated.name} SET DateStyle = 'ISO, DMY'; ALTER DATABASE {migrated.name} SET "my.own" = 'it''s; \\ so'"""
        )
        told = Told()
        with django(migrated) as connection, beside(connection, "postgres") as elsewhere:
            copy_properties(connection, elsewhere, new, told)

        assert migrated.execute(f"SELECT rolsuper FROM pg_roles WHERE rolname = '{role}'") == [(False,)]
        assert migrated.execute(kept) == [
            (['search_path="$user", public, "a "", b"', "DateStyle=ISO, DMY", "my.own=it's; \\ so"],),
            ([f'search_path="{hostile.lower()}"'],),
        ]
        assert told.sentences == [
            f"The setting local_preload_libraries of the role {role} is not a valid list and was not copied: ALTER … SET it again."
        ]
    finally:
        migrated.execute(f"DROP DATABASE {new}")
        migrated.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("public", "'public'"),
        ('"$user", Public', "'$user', 'public'"),
        ('""', "''"),
        ("", "''"),
        ("a b", None),
        ("a,", None),
        ('"a', None),
        ("x;DROP/**/ROLE/**/r", "'x;drop/**/role/**/r'"),
    ],
)
def test_a_list_is_read_as_postgresql_reads_it(value, expected):
    shown = literals("search_path", value)

    assert (shown and shown.as_string(None)) == expected
