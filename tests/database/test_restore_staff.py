"""Restores and staff: whose privileges a backup brings back, and that no session of it is valid."""

import dataclasses

import pytest

from fly2any.database.backup import restore
from fly2any.database.backup.restore import restore_over
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django, manage
from tests.database.taken import databases, run

# An app and a recovery code of a person.
DEVICES = """
    WITH person AS (SELECT id FROM users WHERE email = %(email)s), app AS (
        INSERT INTO otp_totp_totpdevice (user_id, name, confirmed, key, step, t0, digits, tolerance, drift, last_t, throttling_failure_count)
        SELECT id, 'App', true, '0123', 30, 0, 6, 1, 0, -1, 0 FROM person
    ), codes AS (
        INSERT INTO otp_static_staticdevice (user_id, name, confirmed, throttling_failure_count)
        SELECT id, 'Recovery codes', true, 0 FROM person RETURNING id
    )
    INSERT INTO otp_static_statictoken (device_id, token) SELECT id, 'used' FROM codes
"""
# One permission is taken from a group, which a restore brings back, and one is given to another, which it does not.
CHANGED_GROUPS = """
    DELETE FROM auth_group_permissions WHERE id = (
        SELECT p.id FROM auth_group_permissions AS p JOIN auth_group AS g ON g.id = p.group_id WHERE g.name = 'Support' LIMIT 1
    );
    INSERT INTO auth_group_permissions (group_id, permission_id)
    SELECT g.id, p.id FROM auth_group AS g, auth_permission AS p WHERE g.name = 'Operations' AND p.codename = 'delete_user'
"""


@pytest.mark.slow
def test_staff_dismissed_since_the_backup_are_named_and_signed_out(filled, place):
    for email in ("stays@example.com", "gone@example.com", "phone@example.com", "codes@example.com"):
        assert manage("dbstaff", email, "--role", "administrator", url=filled.url).returncode == 0
    for role in ("support", "operations"):
        assert manage("dbstaff", f"{role}@example.com", "--role", role, url=filled.url).returncode == 0
    for email in ("stays", "phone", "codes"):
        filled.execute(DEVICES, {"email": f"{email}@example.com"})
    filled.execute("INSERT INTO django_session VALUES ('k', 'of one who is gone', now() + interval '1 day')")
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    assert manage("dbstaff", "gone@example.com", "--remove", url=filled.url).returncode == 0
    filled.execute(CHANGED_GROUPS)
    filled.execute("DELETE FROM django_session; UPDATE otp_totp_totpdevice SET last_t = 7, drift = 1")
    mine = "(SELECT id FROM users WHERE email = '{}@example.com')"
    filled.execute(f"DELETE FROM otp_totp_totpdevice WHERE user_id = {mine.format('phone')}")
    device = f"(SELECT id FROM otp_static_staticdevice WHERE user_id = {mine.format('codes')})"
    filled.execute(f"DELETE FROM otp_static_statictoken WHERE token = 'used' AND device_id = {device}")

    restored = run(filled, "dbrestore", "latest", "--yes", place=place)

    assert (restored.returncode, restored.stderr) == (0, "")
    assert restored.stdout.splitlines()[-2:] == [
        "Sessions  of the admin in the backup were ended (1): all staff must sign in again.",
        "Staff     codes@example.com, gone@example.com, phone@example.com, support@example.com: privileges, password or second factors"
        " have reverted to those in the backup. Correct them: `manage.py dbstaff EMAIL --remove` or --role, `manage.py changepassword EMAIL`,"
        " and *Second factor* and *Groups* in the admin.",
    ]
    assert filled.execute("SELECT count(*) FROM django_session") == [(0,)]
    [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
    filled.execute(f'DROP DATABASE "{old}"')


@pytest.mark.slow
def test_no_session_of_the_backup_is_valid_after_the_swap_even_if_nothing_more_is_done(filled, place, monkeypatch):
    filled.execute("INSERT INTO django_session VALUES ('k', 'of one who is gone', now() + interval '1 day')")
    found = []

    def swapped(elsewhere, current, *, new, **names):
        found.append(dataclasses.replace(filled, name=new).execute("SELECT count(*) FROM django_session"))
        raise Refusal("killed")

    monkeypatch.setattr(restore, "swap", swapped)
    with django(filled) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        with pytest.raises(Refusal, match=r"^killed$"):
            restore_over(connection, store, manifest, Progress(), empty=False)

    assert found == [[(0,)]]
    assert filled.execute("SELECT count(*) FROM django_session") == [(1,)]


@pytest.mark.slow
def test_sessions_that_a_trigger_keeps_are_not_reported_as_ended(filled, place):
    filled.execute(
        "INSERT INTO django_session VALUES ('k', 'd', now() + interval '1 day');"
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER keep BEFORE DELETE ON django_session FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0

    restored = run(filled, "dbrestore", "latest", "--yes", place=place)

    assert restored.returncode == 0
    assert restored.stdout.splitlines()[-1] == (
        "Staff     could not be signed out, and were not compared with the old database (a trigger or policy keeps sessions of the admin): check"
        " `manage.py dbstaff --list`, and sign all staff out of the admin."
    )
    [old] = [name for name in databases(filled) if name.startswith(f"{filled.name}_before_")]
    filled.execute(f'DROP DATABASE "{old}"')


@pytest.mark.slow
@pytest.mark.parametrize("place_of", ["new", "empty", "current"])
def test_no_session_of_the_backup_is_valid_where_nothing_is_replaced(migrated, place, place_of):
    migrated.execute("INSERT INTO django_session VALUES ('k', 'of one who is gone', now() + interval '1 day')")
    beside = dataclasses.replace(migrated, name=f"{migrated.name}_beside")
    try:
        with django(migrated) as connection:
            store = store_at(place)
            manifest = take(connection, store, Progress())
            if place_of == "current":
                migrated.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
                done = restore.restore_over(connection, store, manifest, Progress(), empty=True)
                beside = migrated
            else:
                if place_of == "empty":
                    migrated.execute(f"CREATE DATABASE {beside.name}")
                done = restore.restore_into(connection, beside.name, store, manifest, Progress())

        assert (done.staff.ended, done.staff.changed, done.staff.error) == (1, (), "")
        assert beside.execute("SELECT count(*) FROM django_session") == [(0,)]
        assert beside.execute("SELECT count(*) > 10 FROM django_migrations") == [(True,)]
    finally:
        for name in databases(migrated) - {migrated.name}:
            migrated.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.slow
def test_staff_of_another_installation_in_the_database_are_signed_out_too(filled, place):
    filled.execute("CREATE SCHEMA theirs")
    for (table,) in filled.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        filled.execute(f'CREATE TABLE theirs."{table}" (LIKE public."{table}" INCLUDING ALL)')
    filled.execute("INSERT INTO theirs.django_migrations SELECT * FROM django_migrations")
    for schema in ("public", "theirs"):
        filled.execute(f"INSERT INTO {schema}.django_session VALUES ('k', 'x', now() + interval '1 day')")
    assert run(filled, "dbbackup", "--verify", place=place).returncode == 0
    kept = "SELECT (SELECT count(*) FROM public.django_session), (SELECT count(*) FROM theirs.django_session)"

    notes = []
    for schema in ("public", "theirs"):
        restored = manage("dbrestore", "latest", "--yes", url=f"{filled.url}&schema={schema}", BACKUP_LOCATION=place)
        notes += [line for line in restored.stdout.splitlines() if line.startswith(("Note      The backup", "Sessions"))]
        assert (restored.returncode, filled.execute(kept)) == (0, [(0, 0)])
        for name in databases(filled) - {filled.name}:
            filled.execute(f'DROP DATABASE "{name}"')

    note = "Note      The backup also has such tables in other schemas ({}): the restore replaces those in use there too."
    ended = "Sessions  of the admin in the backup were ended (2): all staff must sign in again."
    assert notes == [note.format("theirs"), ended, note.format("public"), ended]
