"""Restores and erasures: the people whom a backup brings back are named, by id alone."""

import dataclasses

import pytest

from fly2any.database.backup import erasures, staff_after_restore
from fly2any.database.backup.erasures import Erasures, keep_erasures
from fly2any.database.backup.staff_after_restore import StaffChanges, sign_out_staff
from tests.conftest import django, manage
from tests.database.taken import databases, run
from tests.servers import open_transaction

ERASED = (
    'INSERT INTO fly2any_accesses (staff_id, staff_email, action, "table", row_id, person_id, certificate)'
    " VALUES ('boss', 'boss@example.com', 'erased', 'users', %(id)s, %(id)s, jsonb_build_object('person', %(id)s::text))"
)

STRANGERS = """
    CREATE TRIGGER strangers BEFORE INSERT ON public.fly2any_accesses FOR EACH ROW
    WHEN (query_to_xml('SELECT setval(''public.fly2any_notes_id_seq'', 4242)', false, false, '') IS NULL)
    EXECUTE FUNCTION suppress_redundant_updates_trigger()
"""


def restored(database, place):
    done = run(database, "dbrestore", "latest", "--yes", place=place)
    assert (done.returncode, done.stderr) == (0, "")
    for old in [name for name in databases(database) if name.startswith(f"{database.name}_before_")]:
        database.execute(f'DROP DATABASE "{old}"')
    return [line for line in done.stdout.splitlines() if line.startswith("Erased")]


@pytest.mark.slow
def test_people_erased_in_the_admin_since_the_backup_are_named_with_the_command_that_repeats_it(filled, place):
    person = 'INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())'
    for name in ("p1", "p2", "p3"):
        filled.execute(person, [name, f"{name}@example.com"])
    filled.execute(ERASED, {"id": "p0"})  # Before the backup.
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    for name in ("p2", "p1"):
        filled.execute(ERASED, {"id": name})
        filled.execute("DELETE FROM users WHERE id = %s", [name])
    accesses = filled.execute("SELECT * FROM fly2any_accesses ORDER BY certificate->>'person'")

    assert restored(filled, place) == [
        "Erased    in the admin, by the access records: p1, p2. For each: `manage.py dbperson erase ID --yes`."
    ]

    for _ in range(2):  # The certificates are in the restored database too.
        assert restored(filled, place) == [
            "Erased    in the admin, by the access records: p1, p2. For each: `manage.py dbperson erase ID --yes`."
        ]
    assert filled.execute("SELECT * FROM fly2any_accesses ORDER BY certificate->>'person'") == [
        (number, *row) for number, (_, *row) in zip((1, 3, 2), accesses, strict=True)
    ]

    for name in ("p1", "p2"):
        assert manage("dbperson", "erase", name, "--yes", "--no-search", url=filled.url).returncode == 4
    assert filled.execute("SELECT id FROM users WHERE id LIKE 'p%'") == [("p3",)]


@pytest.mark.slow
def test_certificates_are_copied_where_the_database_is_read_only_by_default(filled, place):
    """As dbrestore.md advises before a restore, to keep the site from writing."""
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    filled.execute(ERASED, {"id": "p1"})
    whole = dataclasses.replace(filled, name="postgres")
    whole.execute(f"ALTER DATABASE {filled.name} SET default_transaction_read_only = on")

    done = run(filled, "dbrestore", "latest", "--yes", place=place)

    [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
    whole.execute(f'DROP DATABASE "{old}"')
    assert (done.returncode, done.stderr, [line for line in done.stdout.splitlines() if line.startswith("Erased")]) == (
        0,
        "",
        [],
    )
    assert filled.execute("SELECT certificate ->> 'person' FROM fly2any_accesses") == [("p1",)]


@pytest.mark.slow
def test_an_old_database_without_certificates_names_nobody_and_one_that_cannot_be_read_is_reported(filled, place):
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    filled.execute("ALTER TABLE fly2any_accesses DROP certificate")
    assert restored(filled, place) == []

    filled.execute("ALTER TABLE fly2any_accesses RENAME action TO did")
    [line] = restored(filled, place)
    assert line.startswith("Erased    in the admin: unknown, because the old database's access records could not be read (")


@pytest.mark.slow
def test_certificates_that_the_restored_database_refuses_are_reported(filled, place):
    filled.execute("ALTER TABLE fly2any_accesses ADD CONSTRAINT none CHECK (action <> 'erased')")
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    filled.execute("ALTER TABLE fly2any_accesses DROP CONSTRAINT none")
    filled.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', ["p1", "p1@example.com"])
    filled.execute(ERASED, {"id": "p1"})

    [line] = restored(filled, place)

    assert line.startswith("Erased    in the admin: the certificates are only in the old database (")
    assert line.endswith("). Save them before you drop it.")


@pytest.mark.slow
def test_no_trigger_that_another_role_added_runs_as_the_role_that_restores(filled, place):
    """Its condition could call any function with the privileges of that role, such as a superuser's."""
    role = f"{filled.name}_stranger"
    filled.execute(f"CREATE ROLE {role}; GRANT TRIGGER ON fly2any_accesses TO {role}; SET ROLE {role}; {STRANGERS}")
    try:
        assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
        filled.execute("ALTER TABLE fly2any_accesses DISABLE TRIGGER strangers")
        filled.execute(ERASED, {"id": "p1"})

        [line] = restored(filled, place)

        assert line.startswith(
            "Erased    in the admin: the certificates are only in the old database (Trigger strangers ON public.fly2any_accesses"
        )
        assert filled.execute("SELECT last_value FROM fly2any_notes_id_seq") == [(1,)]
    finally:
        filled.execute(f"DROP TRIGGER strangers ON fly2any_accesses; DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_locked_table_of_the_database_in_use_does_not_stop_a_restore(migrated, monkeypatch):
    for module in (erasures, staff_after_restore):
        monkeypatch.setattr(module, "LOCK_WAIT", 100)
    with (
        open_transaction(migrated, "LOCK TABLE users, fly2any_accesses IN ACCESS EXCLUSIVE MODE"),
        django(migrated) as connection,
    ):
        kept, staff = keep_erasures(connection, connection), sign_out_staff(connection, connection)

    reason = kept.error
    assert reason.startswith("Another transaction holds a lock (canceling statement due to lock timeout): ")
    assert (kept, staff) == (Erasures(error=reason), StaffChanges(uncompared=reason))
