"""The migration that moves the certificates of erasures from the admin's log to the access records, and back."""

import json

import pytest
from django.core.management import call_command

from fly2any.administration import certificates
from tests.conftest import django

FIRST, LAST = "0005_notes", "0007_certificates_of_the_log"
KEPT = "SELECT staff_id, staff_email, action, \"table\", row_id, person_id, certificate->>'person' FROM fly2any_accesses ORDER BY id"
LOGGED = "SELECT user_id, object_id, object_repr, action_flag, change_message FROM django_admin_log ORDER BY id"


def certificate(person):
    return json.dumps({"format": 2, "person": person, "removed": {"users": 1}}, indent=2)


def migrate(database, name):
    with django(database) as connection:
        call_command("migrate", "administration", name, database=connection.alias, verbosity=0, yes=True, without_backup=True)


@pytest.mark.slow
def test_certificates_move_from_the_admins_log_to_the_record_of_access_and_back(migrated, monkeypatch):
    monkeypatch.setattr(certificates, "BATCH", 2)
    migrate(migrated, FIRST)
    for name in ("boss", "gone"):
        migrated.execute(
            'INSERT INTO users (id, email, "updatedAt", "isStaff", "isSuperuser") VALUES (%s, %s, now(), true, true)',
            [name, f"{name}@example.com"],
        )
    entry = (
        "INSERT INTO django_admin_log (action_time, user_id, object_id, object_repr, action_flag, change_message)"
        " VALUES (now(), %s, %s, %s, %s, %s)"
    )
    before = [
        ("gone", "p0", "(erased)", 3, certificate("p0")),
        ("boss", "p1", "(erased)", 3, certificate("p1")),
        ("boss", "p2", "(erased)", 3, certificate("p2")),
        ("boss", "p3", "(erased)", 3, "{ not one"),
        ("boss", "p4", "(erased)", 2, "[]"),
        ("boss", "p5", "Ana", 3, certificate("p5")),
    ]
    for values in before:
        migrated.execute(entry, list(values))

    migrate(migrated, LAST)

    assert migrated.execute(KEPT) == [
        (staff, f"{staff}@example.com", "erased", "users", person, person, person)
        for staff, person in (("gone", "p0"), ("boss", "p1"), ("boss", "p2"))
    ]
    assert migrated.execute(LOGGED) == [(*values[:4], "Erased.") for values in before[:3]] + before[3:]

    migrated.execute("DELETE FROM users WHERE id = 'gone'")
    migrate(migrated, FIRST)

    assert migrated.execute(LOGGED) == [*before[1:], ("boss", *before[0][1:])]
    assert migrated.execute("SELECT count(*) FROM fly2any_accesses") == [(0,)]
