"""Restores into an empty database, and with tools newer than the server."""

import dataclasses

import pytest

from fly2any.database.backup import tools
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import change, databases, rows, run


@pytest.mark.slow
def test_an_empty_database_is_replaced_without_yes_and_kept_like_any_other(filled, place):
    run(filled, "dbbackup", "--verify", place=place)
    held = rows(filled)
    filled.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    restored = run(filled, "dbrestore", "latest", place=place)

    assert (restored.returncode, f"Restored  {filled.name}: every row was compared and matches." in restored.stdout) == (
        0,
        True,
    )
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
def test_an_existing_empty_database_is_replaced_by_the_restored_one(migrated, empty, place):
    migrated.execute(f"""COMMENT ON DATABASE {empty.name} IS 'fly2any: {{"purpose": "into"}}'""")
    with django(migrated) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        kept = restore_into(connection, empty.name, store, manifest, Progress())
        with pytest.raises(Refusal, match=rf"^The database {empty.name} is not empty: give --into"):
            restore_into(connection, empty.name, store, manifest, Progress())

    assert (rows(empty), rows(dataclasses.replace(empty, name=kept.name)), kept.filled) == (rows(migrated), {}, False)
    assert empty.execute("SHOW statement_timeout") == [("77s",)]
    about = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
    assert empty.execute(about) == [(None,)]
    assert databases(migrated) == {migrated.name, empty.name, kept.name}


@pytest.mark.slow
def test_a_database_that_is_read_only_by_default_is_restored_and_stays_so(migrated, empty, place):
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
        failed = r'^pg_restore exited with -?\d+: COPY failed for table "picked": the function public\.picky\(integer\) raised an error\. '
        with pytest.raises(Refusal, match=failed):
            restore_into(connection, empty.name, store, manifest, Progress())

    assert (rows(empty), databases(migrated)) == ({}, {migrated.name, empty.name})


COPY = 'COPY failed for table "t": '
RAISED = "CONTEXT:  PL/pgSQL function public.f(text) line 1 at RAISE"


@pytest.mark.parametrize(
    ("message", "more", "shown"),
    [
        (
            f"{COPY}ERROR:  bad a@example.com",
            ["CONTEXT:  of the text", RAISED],
            f"{COPY}the function public.f(text) raised an error",
        ),
        ("bad a@example.com", ['CONTEXT:  PL/Perl function "f"'], 'the function "f" raised an error'),
        (
            f'{COPY}ERROR:  invalid input syntax for type integer: "a" b@example.com"',
            ["CONTEXT:  PL/pgSQL function public.f(text) line 1 at RETURN"],
            f'{COPY}ERROR:  invalid input syntax for type integer: "…"',
        ),
        (
            f'{COPY}ERROR:  invalid input value for enum mood: "a',
            ["b"],
            f'{COPY}ERROR:  invalid input value for enum mood: "…"',
        ),
        (
            'ERROR:  value "5511999991234" is out of range for type integer',
            [],
            'ERROR:  value "…" is out of range for type integer',
        ),
        ('ERROR:  relation "lookup" does not exist', [], 'ERROR:  relation "lookup" does not exist'),
    ],
)
def test_a_message_of_pg_restore_is_shown_without_values(message, more, shown):
    assert tools.without_values(message, more) == shown


@pytest.mark.slow
def test_an_existing_empty_database_stays_empty_if_the_restore_fails_halfway(migrated, empty, place):
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
@pytest.mark.parametrize("elsewhere", [True, False], ids=["on a new server", "over the same database"])
def test_privileges_and_settings_of_a_lost_database_are_named_without_values(filled, place, elsewhere):
    name, role = filled.name, f"{filled.name}_site"
    filled.execute(f"CREATE ROLE {role}")
    filled.execute(
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {role} WITH GRANT OPTION;"
        f"ALTER DATABASE {name} CONNECTION LIMIT 50; ALTER DATABASE {name} SET \"my.key\" = 'canary';"
        # A role may give its own settings values that look like statements.
        f"ALTER ROLE {role} IN DATABASE {name} SET application_name = E'x\\nALTER ROLE {role} SUPERUSER; ALTER DATABASE {name} SET work_mem TO"
        f" x\\nALTER DATABASE {name} CONNECTION LIMIT = 0;\\n'; ALTER ROLE {role} IN DATABASE {name}"
        " SET search_path = 'public', 'a TO b'"
    )
    try:
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        if elsewhere:
            change(place, cluster="7000000000000000001")
            filled.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

        restored = run(filled, "dbrestore", "latest", *([] if elsewhere else ["--yes"]), place=place)

        sentence = (
            "The privileges and settings of the original database itself were not restored. Run what is missing, with the values that"
            f" `pg_restore --create --file=-` shows: REVOKE CONNECT,TEMPORARY ON DATABASE {name} FROM PUBLIC;"
            f" GRANT CONNECT ON DATABASE {name} TO {role} WITH GRANT OPTION; ALTER DATABASE {name} CONNECTION LIMIT = 50;"
            f' ALTER DATABASE {name} SET "my.key" TO …;'
            f" ALTER ROLE {role} IN DATABASE {name} SET application_name TO …; ALTER ROLE {role} IN DATABASE {name} SET search_path TO …;\n"
        )
        assert (restored.returncode, restored.stderr) == (0, sentence if elsewhere else "")
    finally:
        for other in databases(filled) - {name}:
            filled.execute(f'DROP DATABASE "{other}"')
        filled.execute(f"ALTER ROLE {role} IN DATABASE {name} RESET ALL; DROP OWNED BY {role}; DROP ROLE {role}")
