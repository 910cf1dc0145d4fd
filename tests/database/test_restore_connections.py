"""Restores whose connection is lost before or at the swap."""

import dataclasses
import re

import pytest
from django.db import Error, OperationalError

from fly2any.database.backup import restore
from fly2any.database.backup import swap as swapping
from fly2any.database.backup.not_dumped import read_attached
from fly2any.database.backup.restore import restore_over
from fly2any.database.backup.restore_connections import connection_to
from fly2any.database.backup.store import store_at
from fly2any.database.backup.swap import STARTED_SQL, swap
from fly2any.database.backup.take import take
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.database.sql import fetch_one
from tests.conftest import django
from tests.database.taken import databases


@pytest.fixture
def pair(database):
    """A database and the one that is to replace it."""
    new, old = f"{database.name}_new", f"{database.name}_old"
    database.execute("CREATE TABLE before ()")
    database.execute(f"CREATE DATABASE {new}")
    yield new, old
    for name in (new, old):
        database.execute(f"DROP DATABASE IF EXISTS {name}")


def losing(monkeypatch, connection, *, commits):
    """Lose the connection at the COMMIT of the swap, before or after the server has run it."""
    real, statements = connection._commit, []

    def listen(execute, statement, parameters, many, context):
        statements.append(str(statement))
        return execute(statement, parameters, many, context)

    def lose():
        if not any("RENAME" in statement for statement in statements):
            return real()
        statements.clear()
        if commits:
            real()
        connection.connection.close()
        raise OperationalError("the connection is closed")

    connection.execute_wrappers.append(listen)
    monkeypatch.setattr(connection, "_commit", lose)


def swapped(monkeypatch, database, new, old, *, commits):
    with django(database) as connection, connection_to(connection, "postgres") as elsewhere:
        oid, (started,) = read_origin(connection).oid, fetch_one(elsewhere, STARTED_SQL)
        connection.close()
        losing(monkeypatch, elsewhere, commits=commits)
        swap(elsewhere, database.name, oid=oid, new=new, old=old, description=None, started=started)


def test_a_swap_whose_answer_is_lost_is_known_to_have_happened(monkeypatch, database, pair):
    swapped(monkeypatch, database, *pair, commits=True)

    assert database.execute("SELECT to_regclass('before')") == [(None,)]


def test_a_swap_that_did_not_commit_raises_the_error(monkeypatch, database, pair):
    with pytest.raises(Error, match="the connection is closed"):
        swapped(monkeypatch, database, *pair, commits=False)

    assert database.execute("SELECT to_regclass('before')::text") == [("before",)]


def test_a_swap_after_which_the_server_does_not_answer_says_how_to_know(monkeypatch, database, pair):
    old = pair[1]
    monkeypatch.setattr(swapping, "REACHABLE_AGAIN", -1)

    with django(database) as connection, connection_to(connection, "postgres") as elsewhere:
        elsewhere.settings_dict["PORT"] = "1"
        with pytest.raises(Refusal) as refusal:
            swapping._is_swapped(elsewhere, database.name, old, oid=1)

    assert re.sub(r"\(There is no .*?\)", "(…)", str(refusal.value)) == (
        f"The connection was lost when {database.name} was replaced, and the server does not answer (…). If the database {old} exists,"
        f" {database.name} was replaced: then sign all staff out of the admin, and erase again everyone who has been erased since the backup."
    )


@pytest.mark.slow
def test_staff_are_signed_out_although_the_connection_is_lost_once(filled, place, monkeypatch):
    filled.execute("INSERT INTO django_session VALUES ('k', 'of one who is gone', now() + interval '1 day')")
    real, calls = restore._home, []

    def lose_once(connection, manifest, **options):
        calls.append(manifest.name)
        if len(calls) == 1:
            filled.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return real(connection, manifest, **options)

    monkeypatch.setattr(restore, "_home", lose_once)
    with django(filled) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        replaced = restore_over(connection, store, manifest, Progress(), empty=False)

    assert (len(calls), replaced.staff.ended, replaced.staff.error, replaced.erasures.error) == (2, 1, "", "")
    assert filled.execute("SELECT count(*) FROM django_session") == [(0,)]
    [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
    filled.execute(f'DROP DATABASE "{old}"')


def test_nothing_is_restored_where_no_database_can_be_renamed_from(filled, place, monkeypatch):
    monkeypatch.setattr(swapping, "MAINTENANCE", ("missing", "absent"))
    before = databases(filled)
    with django(filled) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        with pytest.raises(
            Refusal, match=r"^To rename databases, a restore connects to missing or absent, but this role cannot: "
        ):
            restore_over(connection, store, manifest, Progress(), empty=False)

    assert databases(filled) == before


@pytest.mark.slow
def test_a_session_that_the_role_may_not_end_is_named_before_and_after(migrated):
    """The rename waits 5 s for it."""
    name, new = migrated.name, f"{migrated.name}_new"
    with migrated.role("ALTER ROLE {role} CREATEDB"):
        role = f"{name}_role"
        migrated.execute(f"ALTER DATABASE {name} OWNER TO {role}")
        migrated.execute(f"CREATE DATABASE {new} OWNER {role}")
        with (
            migrated.connect() as held,
            django(dataclasses.replace(migrated, user=role)) as connection,
            connection_to(connection, "postgres") as elsewhere,
        ):
            [note] = read_attached(connection).notes()
            oid, (started,) = read_origin(connection).oid, fetch_one(elsewhere, STARTED_SQL)
            connection.close()
            with pytest.raises(Refusal) as refusal:
                swap(elsewhere, name, oid=oid, new=new, old=f"{name}_old", description=None, started=started)
            pid = held.info.backend_pid
        migrated.execute(f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
        migrated.execute(f"DROP DATABASE {new}")

    hindrance = (
        f"This role may not end sessions that use the database: pid {pid} (no application name, role postgres). End them, as a superuser:"
        f" SELECT pg_terminate_backend({pid}); A member of pg_signal_backend can also end sessions of roles that are not superusers."
    )
    assert note == f"{hindrance} Otherwise the swap fails at the end."
    assert str(refusal.value) == f"Nothing was replaced. {hindrance} Then run the command again."
