"""Permissions of the admin that were deleted: dbstatus reports them, and migrate creates their rows again."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import connection

from accounts.models import User
from fly2any.database.verification import verify
from tests.database.test_writes import run


def found():
    return [(one.severity, one.where) for one in verify(connection).findings if one.code == "permissions.missing"]


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.parametrize(
    "deleted", ["DELETE FROM auth_group_permissions; DELETE FROM auth_permission", "DELETE FROM auth_group_permissions; DELETE FROM auth_permission; DELETE FROM django_content_type"]
)  # fmt: skip
def test_deleted_permissions_are_reported_until_migrate_and_their_groups_until_they_are_given(deleted):
    assert found() == []
    group = Group.objects.order_by("name").first()
    User.objects.create(email="a@example.com").groups.add(group)
    run("DELETE FROM django_admin_log", deleted, "SET CONSTRAINTS ALL IMMEDIATE")

    assert found() == [("warning", "auth_permission"), ("warning", f"group {group.name}")]
    call_command("migrate", verbosity=0)
    assert found() == [("warning", f"group {group.name}")]
    group.permissions.add(Permission.objects.first())
    assert found() == []


@pytest.mark.django_db
def test_one_missing_permission_is_named():
    run("DELETE FROM auth_group_permissions", "DELETE FROM auth_permission WHERE codename = 'view_user'")

    (finding,) = [one for one in verify(connection).findings if one.code == "permissions.missing"]

    assert (finding.message, finding.cure) == (
        "The permission accounts.view_user is missing, so only superusers may do what requires it in the admin.",
        "Run `manage.py migrate`, which creates it, then give it to the groups again (Groups in the admin), or restore a backup.",
    )


@pytest.mark.django_db
def test_a_group_without_permissions_may_have_members_with_others():
    Group.objects.create(name="empty").user_set.add(User.objects.create(email="a@example.com", is_superuser=True))

    (finding,) = [one for one in verify(connection).findings if one.code == "permissions.missing"]

    assert (finding.where, finding.message) == (
        "group empty",
        "The group empty has members but no permissions, so it gives them no permission in the admin.",
    )


@pytest.mark.django_db
@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE auth_group_permissions DROP group_id CASCADE",
        "ALTER TABLE auth_permission ALTER content_type_id TYPE text",
        "ALTER TABLE auth_group RENAME name TO label",
    ],
)
def test_a_damaged_table_of_permissions_is_reported_as_such(damage):
    run("ALTER TABLE auth_permission DROP CONSTRAINT auth_permission_content_type_id_fkey", damage)

    assert found() == []
    assert verify(connection).findings != ()
