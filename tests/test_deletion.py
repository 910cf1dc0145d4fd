"""Deletion leaves child rows to the database: none is fetched, and all are deleted."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from ai_consultant.models import Conversation, Message
from engagement.models import Notification, UserActivity


@pytest.fixture
def user(db):
    user = User.objects.create_user("ana@example.com", is_staff=True)
    user.groups.add(Group.objects.create(name="support"))
    user.user_permissions.add(Permission.objects.first())
    LogEntry.objects.create(user=user, content_type=ContentType.objects.first(), object_repr="x", action_flag=1)
    Notification.objects.bulk_create(Notification(user=user, type="promotion", title="t", message="m") for _ in range(50))
    talk = Conversation.objects.create(user=user, session_id="s", metadata={})
    Message.objects.create(conversation=talk, role="user", content="Hello", timestamp=1)
    UserActivity.objects.create(user=user, event_type="search")
    return user


def left():
    return {
        model._meta.db_table: model.objects.count()
        for model in (
            User,
            Notification,
            Conversation,
            Message,
            UserActivity,
            LogEntry,
            User.groups.through,
            User.user_permissions.through,
        )
    }


NOTHING_BUT_THE_TRAIL = {
    "users": 0,
    "notifications": 0,
    "ai_conversations": 0,
    "ai_messages": 0,
    "user_activities": 1,
    "django_admin_log": 0,
    "users_groups": 0,
    "users_user_permissions": 0,
}


def test_django_fetches_no_child_rows(user):
    with CaptureQueriesContext(connection) as queries:
        user.delete()

    statements = [query["sql"] for query in queries]
    # The staff's devices are django-otp's own, whose tables Django asks for children.
    devices = ("otp_static_staticdevice", "django_otp_webauthn_webauthncredential")
    assert [sql for sql in statements if sql.startswith("SELECT") and sql.split('"')[1] not in devices] == []
    assert sorted(sql.split('"')[1] for sql in statements if sql.startswith("DELETE")) == [
        "django_admin_log",
        "django_otp_webauthn_webauthnuserhandle",
        "otp_totp_totpdevice",
        "users",
        "users_groups",
        "users_user_permissions",
    ]
    assert left() == NOTHING_BUT_THE_TRAIL


def test_the_sites_plain_delete_works_for_staff_too(user):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM users WHERE id = %s", [user.pk])

    assert left() == NOTHING_BUT_THE_TRAIL


def test_a_new_id_follows_its_children(user):
    User.objects.filter(pk=user.pk).update(id="another")

    assert Notification.objects.filter(user_id="another").count() == 50


def test_the_sites_inserts_which_do_not_name_our_columns_work(db):
    with connection.cursor() as cursor:
        cursor.execute("""INSERT INTO users (id, email, "updatedAt") VALUES ('c1', 'ana@example.com', now())""")
        cursor.execute(
            "INSERT INTO verification_tokens (identifier, token, expires) VALUES ('ana@example.com', 't', now()), ('b', 'u', now())"
        )
        cursor.execute("SELECT count(DISTINCT id) FROM verification_tokens")
        assert cursor.fetchone() == (2,)

    user = User.objects.get()
    assert (user.is_active, user.is_staff, user.is_superuser, user.profile_completed) == (True, False, False, False)


def test_a_row_created_here_has_an_id_that_sorts_by_time(db):
    users = [User.objects.create_user(f"{n}@example.com") for n in range(3)]

    assert [user.pk for user in users] == sorted(user.pk for user in users)
    assert {user.pk[14] for user in users} == {"7"}
