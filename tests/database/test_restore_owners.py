"""Restores and the owner of the restored database: from its beginning that of the one in use, or a refusal before rows are restored."""

import dataclasses

import pytest
from django.db import OperationalError

from fly2any.database.backup import restore
from fly2any.database.backup.restore import restore_into, restore_over
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django, manage
from tests.database.taken import change, databases, rows, run

pytestmark = pytest.mark.slow
STATE_SQL = """
    SELECT pg_get_userbyid(d.datdba)::text, shobj_description(d.oid, 'pg_database'), (SELECT count(*) FROM django_session)
    FROM pg_database AS d WHERE d.datname = current_database()
"""


@pytest.fixture
def owned(migrated):
    """A database of a role that owns its tables too and is no superuser, with a session of the admin; `operator` is a member of that role."""
    role, operator = f"{migrated.name}_owner", f"{migrated.name}_operator"
    migrated.execute(f"CREATE ROLE {role}; CREATE ROLE {operator} LOGIN CREATEDB")
    migrated.execute(f"GRANT {role}, pg_signal_backend, pg_read_all_data TO {operator}")
    migrated.give_tables(role)
    migrated.execute(f"ALTER DATABASE {migrated.name} OWNER TO {role}")
    migrated.execute("INSERT INTO django_session VALUES ('k', 'of one who is gone', now() + interval '1 day')")
    yield role, operator
    migrated.execute(f"ALTER DATABASE {migrated.name} OWNER TO postgres; REASSIGN OWNED BY {role}, {operator} TO postgres")
    for name in databases(migrated) - {migrated.name}:
        migrated.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    migrated.execute(f"DROP OWNED BY {operator}, {role}; DROP ROLE {operator}, {role}")


def test_a_superuser_restores_a_database_of_another_role_into_a_new_one(migrated, owned, place):
    new = dataclasses.replace(migrated, name=f"{migrated.name}_new")
    assert run(migrated, "dbbackup", "--verify", place=place).returncode == 0

    restored = run(migrated, "dbrestore", "latest", "--into", new.name, place=place)

    assert (restored.returncode, restored.stderr) == (0, "")
    assert restored.stdout.splitlines()[-1] == "Sessions  of the admin in the backup were ended (1)."
    assert new.execute(STATE_SQL) == [(owned[0], None, 0)]


@pytest.mark.parametrize("words", [["--yes"], ["--into", "{}_new"]], ids=["over", "into"])
def test_a_member_of_the_owner_restores_what_the_owner_creates_in_public(migrated, owned, place, words):
    role, operator = owned
    url = dataclasses.replace(migrated, user=operator).url
    assert manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place).returncode == 0

    words = [word.format(migrated.name) for word in words]
    restored = manage("dbrestore", "latest", *words, url=url, BACKUP_LOCATION=place)

    new = dataclasses.replace(migrated, name=words[-1]) if "--into" in words else migrated
    assert (restored.returncode, restored.stderr) == (0, "")
    assert new.execute(STATE_SQL) == [(role, None, 0)]


def test_a_role_that_may_not_act_as_the_owner_restores_into_a_database_of_its_own(migrated, owned, place):
    role, operator = owned
    migrated.execute(f"ALTER DATABASE {migrated.name} OWNER TO postgres; GRANT CREATE ON SCHEMA public TO {role}")
    new = dataclasses.replace(migrated, name=f"{migrated.name}_new")
    url = dataclasses.replace(migrated, user=operator).url
    assert manage("dbbackup", "--verify", url=url, BACKUP_LOCATION=place).returncode == 0

    restored = manage("dbrestore", "latest", "--into", new.name, url=url, BACKUP_LOCATION=place)

    assert (restored.returncode, restored.stderr) == (0, "")
    assert new.execute(STATE_SQL) == [(operator, None, 0)]


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "of an earlier version"])
def test_on_a_new_server_a_database_of_another_owner_is_refused_before_the_restore(migrated, owned, place, is_known):
    role = owned[0]
    held = {name: found for name, found in rows(migrated).items() if name != "django_session"}
    assert run(migrated, "dbbackup", "--verify", place=place).returncode == 0
    if not is_known:
        change(place, database_owner="", trusted=[role])
    migrated.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner")
    migrated.execute(f"ALTER DATABASE {migrated.name} OWNER TO postgres")

    refused = [run(migrated, "dbrestore", "latest", *words, place=place) for words in ([], ["--into", f"{migrated.name}_new"])]
    unchanged = databases(migrated)
    migrated.execute(f'ALTER DATABASE "{migrated.name}" OWNER TO "{role}";')
    restored = run(migrated, "dbrestore", "latest", place=place)

    sentence = (
        f"The original database and objects in it belong to {role}, but the restored one would belong to postgres, and {role} would be"
        " neither trusted there nor allowed to create tables: {}\n"
    )
    cures = (
        f'if {migrated.name} is empty, run ALTER DATABASE "{migrated.name}" OWNER TO "{role}"; and the command again; otherwise restore with'
        " --into NAME.",
        f'run CREATE DATABASE "{migrated.name}_new" OWNER "{role}"; and the command again.',
    )
    assert [(one.returncode, one.stderr) for one in refused] == [(2, sentence.format(cure)) for cure in cures]
    assert (unchanged, restored.returncode, restored.stderr) == ({migrated.name}, 0, "")
    assert migrated.execute(STATE_SQL) == [(role, None, 0)]
    assert {name: found for name, found in rows(migrated).items() if name != "django_session"} == held


def test_a_role_that_is_no_superuser_is_refused_where_the_original_owner_could_not_create(migrated, owned, place):
    """From 15 on; the database is then that of its other member."""
    role, operator = owned
    if migrated.execute("SHOW server_version_num") < [("150000",)]:
        return
    with django(migrated) as connection:
        manifest = take(connection, store_at(place), Progress())
    migrated.execute(
        f"DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner; ALTER DATABASE {migrated.name} OWNER TO {operator}"
    )

    with django(dataclasses.replace(migrated, user=operator)) as connection:
        with pytest.raises(
            Refusal, match=rf"would belong to {operator}, and {role} would be neither trusted there nor allowed"
        ):
            restore_over(connection, store_at(place), manifest, Progress(), empty=True)
        migrated.execute(f"ALTER DATABASE {migrated.name} OWNER TO {role}")
        connection.close()
        restore_over(connection, store_at(place), manifest, Progress(), empty=True)

    assert migrated.execute(STATE_SQL) == [(role, None, 0)]


@pytest.mark.parametrize("times", [1, 2])
def test_a_new_database_whose_staff_cannot_be_signed_out_is_tried_again_and_dropped(migrated, place, monkeypatch, times):
    real, marks = restore.sign_out_staff, []
    new = dataclasses.replace(migrated, name=f"{migrated.name}_new")
    migrated.execute("INSERT INTO django_session VALUES ('k', 'of one who is gone', now() + interval '1 day')")

    def lose(connection, old=None):
        marks.append(new.execute(STATE_SQL)[0][1:])
        if len(marks) <= times:
            raise OperationalError("the connection is lost")
        return real(connection, old)

    monkeypatch.setattr(restore, "sign_out_staff", lose)
    try:
        with django(migrated) as connection:
            store = store_at(place)
            manifest = take(connection, store, Progress())
            if times == 1:
                assert restore_into(connection, new.name, store, manifest, Progress()).staff.ended == 1
                assert new.execute(STATE_SQL) == [("postgres", None, 0)]
            else:
                with pytest.raises(OperationalError, match="is lost"):
                    restore_into(connection, new.name, store, manifest, Progress())
                assert databases(migrated) == {migrated.name}
    finally:
        migrated.execute(f"DROP DATABASE IF EXISTS {new.name}")

    assert [(text.startswith("fly2any: "), sessions) for text, sessions in marks] == [(True, 1)] * 2
