"""What each group of the staff may do, and that more is refused."""

import base64
import json
import re
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.urls import reverse

from accounts.models import Account, Session, User
from ai_consultant.models import Conversation, Message
from engagement.models import LoginHistory, Notification, UserSession
from fly2any.administration.models import Access
from fly2any.database.health.security import TOPICS as SECURITY
from fly2any.database.health.topics import TOPICS
from tests.administration.conftest import address
from travel.models import PriceAlert, PriceHistory

pytestmark = pytest.mark.django_db


@pytest.fixture
def person():
    return User.objects.create(email="ana@example.com", password="$2b$10$hash")


def test_the_groups_of_the_roles_cannot_be_renamed_in_the_admin(client):
    client.force_login(User.objects.create_superuser("boss@example.com"))
    own = Group.objects.create(name="Night shift")
    for group in (Group.objects.get(name="Administrators"), own):
        permissions = list(group.permissions.values_list("pk", flat=True))
        client.post(address(Group, "change", group.pk), {"name": f"{group.name} 2", "permissions": permissions})

    assert {*Group.objects.values_list("name", flat=True)} == {"Administrators", "Operations", "Support", "Night shift 2"}


@pytest.mark.slow
def test_forms_name_permissions_as_the_other_pages_name_their_models(member, person):
    client = member("superuser")
    support = Group.objects.get(name="Support")

    for page in (address(Group, "add"), address(Group, "change", support.pk), address(User, "change", person.pk)):
        named = client.get(page).content.decode()
        assert "Second factor: passkeys | passkey | Can view passkey" in named
        assert "Second factor: recovery codes | recovery code | Can view recovery code" in named
        assert "Can see the database&#x27;s health and backups" in named
        assert "WebAuthn" not in named


def test_the_groups_have_what_the_migrations_grant():
    granted = {
        group.name: {f"{p.content_type.app_label}.{p.codename}" for p in group.permissions.select_related("content_type")}
        for group in Group.objects.all()
    }
    assert granted.keys() == {"Support", "Operations", "Administrators"}
    assert {name for name in granted["Support"] if ".view_" not in name} == {
        "accounts.delete_account", "accounts.delete_session", "engagement.delete_usersession", "engagement.change_notification",
        "travel.change_pricealert", "administration.add_note",
    }  # fmt: skip
    assert {name for name in granted["Operations"] if name.startswith("ai_consultant") or "token" in name} == set()
    assert {name for name in granted["Operations"] if ".view_" not in name} == {
        "engagement.export_useractivity", "travel.export_pricehistory", "travel.export_pricemonitorlog",
    }  # fmt: skip
    assert {"administration.view_access", "auth.view_group", "accounts.export_user"} <= granted["Administrators"]
    assert {name for name in granted["Administrators"] if name.startswith("administration")} == {
        "administration.view_access", "administration.view_database", "administration.export_person", "administration.erase_person",
        "administration.view_note", "administration.add_note",
    }  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("role", "status"), [("Support", 403), ("Operations", 200), ("Administrators", 200), ("superuser", 200)]
)
def test_the_database_page_needs_its_permission(member, role, status):
    connection.cursor().execute('DROP INDEX "price_alerts_active_idx"; CREATE INDEX theirs ON price_alerts ("userId", id)')
    connection.cursor().execute("CREATE INDEX theirs_too ON price_alerts (id)")
    client = member(role)

    page = client.get(reverse("admin:database"))

    first = client.get(reverse("admin:index")).content.decode()
    assert (page.status_code, reverse("admin:database") in first) == (status, status == 200)
    if status == 200:
        codes = {finding.code for finding in page.context["report"].findings}
        assert {"index.missing", "indexes.redundant"} <= codes
        assert "CREATE INDEX CONCURRENTLY &quot;price_alerts_active_idx&quot;" in page.content.decode()
        assert [[topic.trouble for topic in asked] for _, asked in page.context["topics"]] == [
            [""] * len(TOPICS),
            [""] * len(SECURITY),
        ]


@pytest.mark.parametrize("role", ["Support", "Operations", "Administrators"])
def test_only_a_superuser_appoints_or_changes_staff(role, member, person):
    boss = User.objects.create_superuser("boss@example.com", "a-long-password-1")
    client = member(role)
    form = {
        "email": "ana@example.com",
        "is_staff": "on",
        "is_superuser": "on",
        "is_active": "on",
        "groups": Group.objects.get(name="Administrators").pk,
    }

    for user in (person, client.user, boss):
        client.post(address(User, "change", user.pk), {**form, "email": user.email})
    taken = client.post(
        reverse("admin:auth_user_password_change", args=[boss.pk]), {"password1": "x" * 14, "password2": "x" * 14}
    )
    client.post(address(User, "delete", boss.pk), {"post": "yes"})
    client.post(address(User), {"action": "delete_selected", "_selected_action": [boss.pk], "post": "yes"})

    boss.refresh_from_db()
    assert taken.status_code == 403
    assert boss.check_password("a-long-password-1")
    assert (boss.is_staff, boss.is_superuser) == (True, True)
    for user in (person, client.user):
        before = (user.is_staff, user.is_superuser, sorted(user.groups.values_list("name", flat=True)))
        user.refresh_from_db()
        assert (user.is_staff, user.is_superuser, sorted(user.groups.values_list("name", flat=True))) == before


def test_support_exports_nothing_and_creates_no_groups(member, person):
    client = member("Support")
    for model in (User, Notification, Account, PriceHistory):
        assert client.post(address(model, "export")).status_code == 403
    assert client.get(reverse("admin:auth_group_changelist")).status_code == 403
    assert client.get(address(Access)).status_code == 403
    assert Access.objects.count() == 0


def test_actions_change_the_selected_rows_as_they_say(member, person):
    client = member("Support")
    notices = [
        Notification.objects.create(user=person, type="promotion", title="t", message="m", read=read)
        for read in (False, True, False)
    ]
    alerts = [
        PriceAlert.objects.create(user=person, origin="GRU", destination="LIS", depart_date="2026-07-01", current_price=1, target_price=1, active=True, triggered=triggered)
        for triggered in (True, False)
    ]  # fmt: skip

    def act(model, action, rows, **more):
        return client.post(
            address(model),
            {"action": action, "index": "0", "post": "yes", "_selected_action": [row.pk for row in rows], **more},
            follow=True,
        )

    asked = act(Notification, "mark_read", notices[:2], post="").content.decode()
    assert ("Mark 2 notifications as read</button>" in asked, Notification.objects.filter(read=False).count()) == (True, 2)
    assert "1 notification marked as read." in act(Notification, "mark_read", notices[:2]).content.decode()
    assert list(Notification.objects.filter(read=False)) == [notices[2]]
    assert "2 price alerts paused." in act(PriceAlert, "pause", alerts).content.decode()
    assert PriceAlert.objects.filter(active=True).count() == 0
    assert "1 price alert re-armed." in act(PriceAlert, "rearm", alerts[:1]).content.decode()
    assert list(PriceAlert.objects.values_list("pk", "active", "triggered").order_by("-active")) == [
        (alerts[0].pk, True, False),
        (alerts[1].pk, False, False),
    ]
    history = LogEntry.objects.order_by("pk").values_list("object_id", "action_flag", "change_message")
    expected = [(notices[0].pk, "Marked as read."), *((alert.pk, "Paused.") for alert in alerts), (alerts[0].pk, "Re-armed.")]
    assert sorted(history) == sorted((pk, CHANGE, message) for pk, message in expected)
    everything = act(Notification, "mark_read", notices[:1], select_across="1")
    assert "not to the whole table" in everything.content.decode()
    assert Notification.objects.filter(read=False).count() == 1


def test_sessions_are_revoked_and_accounts_unlinked_by_support(member, person):
    client = member("Support")
    device = UserSession.objects.create(user=person, token="t")
    account = Account.objects.create(user=person, type="oauth", provider="google", provider_account_id="1")

    assert (
        '<option value="delete_selected">Revoke signed-in devices</option>' in client.get(address(UserSession)).content.decode()
    )
    assert '<option value="delete_selected">Unlink OAuth accounts</option>' in client.get(address(Account)).content.decode()
    said = []
    for row in (device, account):
        chosen = {"action": "delete_selected", "_selected_action": [row.pk]}
        asked = client.post(address(type(row)), chosen).content.decode()
        done = client.post(address(type(row)), {**chosen, "post": "yes"}, follow=True).content.decode()
        said += re.findall(r"<button[^>]*>([^<]*1[^<]*)</button>", asked) + re.findall(r'<li class="success">(.*?)</li>', done)
    assert said == [
        "Revoke 1 signed-in device",
        "1 signed-in device revoked.",
        "Unlink 1 OAuth account",
        "1 OAuth account unlinked.",
    ]
    assert (UserSession.objects.count(), Account.objects.count()) == (0, 0)


def test_opening_a_conversation_is_recorded_before_it_is_shown(member, person):
    client = member("Support")
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})
    said = Message.objects.create(conversation=talk, role="user", content="I am ill", timestamp=1)

    page = client.get(address(Conversation, "change", talk.pk), REMOTE_ADDR="203.0.113.9")
    client.get(address(Message, "change", said.pk))
    client.get(address(Conversation))

    assert "I am ill" in page.content.decode()
    assert list(
        Access.objects.order_by("pk").values_list(
            "staff_id", "staff_email", "action", "table", "row_id", "person_id", "ip_address"
        )
    ) == [
        (client.user.pk, "support@staff.example", "opened", "ai_conversations", talk.pk, person.pk, "203.0.113.9"),
        (client.user.pk, "support@staff.example", "opened", "ai_messages", said.pk, person.pk, "127.0.0.1"),
    ]
    person.delete()
    assert Access.objects.count() == 2


def test_a_search_of_a_conversations_texts_is_recorded(member, person):
    """Letter by letter, its results tell the whole text."""
    client = member("Support")
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})
    Message.objects.create(conversation=talk, role="user", content="I am ill", timestamp=1)

    for asked in ({"conversation": talk.pk}, {"q": "ill"}, {"conversation": talk.pk, "q": "am i"}):
        assert client.get(address(Message), asked).status_code == 200

    query = f"conversation={talk.pk}&q=am+i"
    for method in (client.head, client.post):
        assert method(f"{address(Message)}?{query}").status_code == 200

    assert (
        list(Access.objects.values_list("action", "table", "row_id", "person_id", "query"))
        == [("opened", "ai_conversations", talk.pk, person.pk, query)] * 3
    )


@pytest.mark.parametrize("said", ["ill", "well"])
def test_a_search_is_recorded_even_if_its_position_is_not_one(member, person, said):
    """PostgreSQL reads the position only where a message contains the text, so the response tells whether one does."""
    client = member("Support")
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})
    Message.objects.create(conversation=talk, role="user", content="I am ill", timestamp=1)
    no_time = base64.urlsafe_b64encode(json.dumps(["xyz BC", "a"]).encode()).decode().rstrip("=")

    page = client.get(address(Message), {"conversation": talk.pk, "q": said, "after": no_time})

    assert (page.status_code, Access.objects.filter(row_id=talk.pk, person_id=person.pk).count()) == (
        {"ill": 302, "well": 200}[said],
        1,
    )


def test_an_export_of_a_search_is_recorded_once(member, person):
    client = member("superuser")
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})

    assert client.post(f"{address(Message)}export/?conversation={talk.pk}&q=ill").status_code == 200

    assert list(Access.objects.values_list("action", "table", "query")) == [
        ("exported", "ai_messages", f"conversation={talk.pk}&q=ill")
    ]


def test_the_record_of_access_is_read_only(member):
    client = member("superuser")
    access = Access.objects.create(staff_id="s", staff_email="e@example.com", action="opened", table="t")

    assert client.get(address(Access, "change", access.pk)).status_code == 200
    assert client.get(address(Access, "add")).status_code == 403
    assert client.post(address(Access, "change", access.pk), {"table": "x"}).status_code == 403
    assert client.post(address(Access, "delete", access.pk), {"post": "yes"}).status_code == 403
    client.post(address(Access), {"action": "delete_selected", "_selected_action": [access.pk], "post": "yes"})
    assert list(Access.objects.values_list("pk", "table")) == [(access.pk, "t")]


@pytest.mark.slow
def test_successful_and_failed_sign_ins_are_in_the_login_history(client):
    staff = User.objects.create_superuser("boss@example.com", "a-long-password-1")
    agent = (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148 Safari/604.1"
    )
    sign_in = {"username": staff.email, "password": "a-wrong-password"}

    for password in ("a-wrong-password", "a-long-password-1"):
        client.post(
            reverse("admin:login"), {**sign_in, "password": password}, headers={"user-agent": agent}, REMOTE_ADDR="203.0.113.9"
        )
    client.post(reverse("admin:login"), {**sign_in, "username": "nobody@example.com"})

    assert list(
        LoginHistory.objects.order_by("timestamp", "pk").values_list(
            "user_id", "success", "device", "browser", "os", "ip_address"
        )
    ) == [
        (staff.pk, False, "Mobile", "Safari", "iOS", "203.0.113.9"),
        (staff.pk, True, "Mobile", "Safari", "iOS", "203.0.113.9"),
    ]


def test_a_token_finds_its_row_and_appears_in_no_url(member, person):
    client = member("Support")
    session = Session.objects.create(user=person, session_token="secret-token", expires="2030-01-01T00:00:00Z")

    found = client.post(address(Session, "find"), {"secret": "secret-token"})
    missed = client.post(address(Session, "find"), {"secret": "secret"}, follow=True)

    assert found.headers["Location"] == address(Session, "change", session.pk)
    assert "No NextAuth session has this session token." in missed.content.decode()
    assert client.get(address(Session, "find"), {"secret": "secret-token"}).status_code == 405


@pytest.mark.parametrize("method", ["get", "head", "options", "trace", "put", "patch"])
def test_no_http_method_shows_a_conversation_without_a_record(method, member, person):
    client = member("Support")
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})
    Message.objects.create(conversation=talk, role="user", content="I am ill", timestamp=1)

    page = getattr(client, method)(address(Conversation, "change", talk.pk))

    assert (b"I am ill" in page.content) is (method != "head")
    assert Access.objects.filter(row_id=talk.pk).count() == 1


def test_conversations_without_the_permission_to_see_messages_show_none(client, person):
    staff = User.objects.create(email="few@staff.example", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_conversation"))
    client.force_login(staff)
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})
    Message.objects.create(conversation=talk, role="user", content="I am ill", timestamp=1)

    page = client.get(address(Conversation, "change", talk.pk))

    assert (page.status_code, b"I am ill" in page.content) == (200, False)


def test_an_open_form_does_not_overwrite_what_the_price_monitor_writes(member, person):
    client = member("Support")
    alert = PriceAlert.objects.create(
        user=person, origin="GRU", destination="LIS", depart_date="2026-07-01", current_price=500, target_price=400
    )
    form = client.get(address(PriceAlert, "change", alert.pk)).context["adminform"].form
    values = {name: value for name in form.fields if (value := form[name].value()) not in (None, False)}
    PriceAlert.objects.update(triggered=True, current_price=390, notification_count=1)

    client.post(address(PriceAlert, "change", alert.pk), {**values, "target_price": "350"})

    alert.refresh_from_db()
    assert (alert.target_price, alert.triggered, alert.current_price, alert.notification_count) == (350, True, 390, 1)


def test_the_page_of_a_group_shows_its_tables_correctly(member):
    page = member("Support").get(reverse("admin:app_list", args=["travel"])).content.decode()

    assert "Price history" in page
    assert "Not computed" not in page
    assert "You do not have permission to view any table" not in page


def test_rows_of_price_history_are_opened_from_their_list(member):
    price = PriceHistory.objects.create(origin="GRU", destination="LIS", depart_date="2026-07-01", price=1, provider="mock")

    assert f'href="{address(PriceHistory, "change", price.pk)}' in member("Support").get(address(PriceHistory)).content.decode()


def test_reversing_a_migration_revokes_only_the_permissions_that_it_granted():
    support = Group.objects.get(name="Support")
    support.permissions.add(Permission.objects.get(codename="delete_pricealert"))
    [operation] = import_module("travel.migrations.0004_roles").Migration.operations

    with connection.schema_editor() as editor:
        operation.reverse_code(apps, editor)

    of_travel = support.permissions.filter(content_type__app_label="travel")
    assert list(of_travel.values_list("codename", flat=True)) == ["delete_pricealert"]
