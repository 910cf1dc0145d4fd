"""Actions on the overview of a person: offered by permission, confirmed with a count, logged and reported."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC

import psycopg
import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session as AdminSession
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.urls import reverse

from accounts.models import Account, Session, User, VerificationToken
from ai_consultant.models import Conversation, Message
from engagement.models import UserActivity, UserSession
from fly2any.administration.counts import Count
from fly2any.administration.models import Access, Note
from tests.administration.conftest import address
from travel.models import PriceAlert

pytestmark = pytest.mark.django_db
EMAIL = "ana@example.com"


@pytest.fixture
def person():
    user = User.objects.create(email=EMAIL, password="$2b$10$hash")
    for number in range(2):
        UserSession.objects.create(user=user, token=f"t{number}")
        Account.objects.create(user=user, type="oauth", provider="google", provider_account_id=str(number))
        PriceAlert.objects.create(
            user=user, origin="GRU", destination="LIS", depart_date="2026-07-01", current_price=1, target_price=1, active=number
        )
    Session.objects.create(user=user, session_token="secret-token", expires="2030-01-01T00:00:00Z")
    VerificationToken.objects.create(identifier=EMAIL, token="secret", expires="2030-01-01T00:00:00Z")
    return user


def overview(user, action=""):
    return address(User, "overview", user.pk) + (f"{action}/" if action else "")


def offered(client, user):
    """The labels of the actions that the overview offers."""
    tools = re.search(r'<ul class="object-tools[^"]*">(.*?)</ul>', client.get(overview(user)).content.decode(), re.S)[1]
    return re.findall(r'<a href="[^"]+">([^<]+)</a>', tools)


@pytest.mark.parametrize(
    ("role", "labels"),
    [
        ("Support", ["Unlink an account", "Sign out everywhere", "Pause alerts"]),
        ("Operations", []),
        (
            "Administrators",
            [
                "Deactivate",
                "Unlink an account",
                "Sign out everywhere",
                "Clear verification tokens",
                "Pause alerts",
                "Export everything",
                "Erase",
            ],
        ),
    ],
)
def test_a_role_is_offered_only_its_permitted_actions_and_others_are_refused(role, labels, member, person):
    client = member(role)
    actions = {
        "Deactivate": "deactivate", "Unlink an account": "unlink", "Sign out everywhere": "sign-out", "Pause alerts": "pause-alerts",
        "Clear verification tokens": "clear-tokens", "Export everything": "give-out", "Erase": "erase",
    }  # fmt: skip

    assert offered(client, person) == [*labels, "Details"]
    for label, action in actions.items():
        expected = 200 if label in labels else 403
        assert client.get(overview(person, action)).status_code == expected, label
        if expected == 403:
            assert client.post(overview(person, action), {"email": EMAIL}).status_code == 403, label
    assert client.get(overview(person, "none")).status_code == 404


def test_signing_out_everywhere_confirms_and_reports_the_numbers(member, person):
    other = User.objects.create(email="bob@example.com")
    UserSession.objects.create(user=other, token="bob")
    client = member("Support")

    asked = client.get(overview(person, "sign-out")).content.decode()
    done = client.post(overview(person, "sign-out"), follow=True).content.decode()

    assert "Sign out of 1 NextAuth session and 2 signed-in devices</button>" in asked
    cookie = "A browser may stay signed in to the site until its cookie expires"
    cure = "ask an administrator to set a new password, and the developers of the site to change the key of its cookies"
    assert [cookie in asked, cure in asked] == [True, True]
    assert "1 NextAuth session and 2 signed-in devices signed out." in done
    assert (Session.objects.count(), list(UserSession.objects.values_list("token", flat=True))) == (0, ["bob"])
    assert list(LogEntry.objects.values_list("user_id", "object_id", "action_flag", "change_message")) == [
        (client.user.pk, person.pk, CHANGE, "Sign out everywhere: 1 NextAuth session and 2 signed-in devices signed out.")
    ]
    assert f"no session or signed-in device that you can revoke is stored. {cookie}" in done
    assert cure in done
    assert "Sign out everywhere" not in offered(client, person)
    assert "There is nothing to do" in client.get(overview(person, "sign-out")).content.decode()
    assert "Nothing needed to be changed." in client.post(overview(person, "sign-out"), follow=True).content.decode()


def test_rows_that_take_too_long_to_count_are_an_unknown_number(member, person, monkeypatch):
    monkeypatch.setattr("fly2any.administration.overview_actions.bounded", lambda rows: Count(None))

    asked = member("Support").get(overview(person, "sign-out")).content.decode()

    nouns = ("NextAuth sessions, ", "admin sessions and ", "signed-in devices")
    concerned = "".join(f"an unknown number of {noun}" for noun in nouns)
    assert f"<p>This affects {concerned} of <b>" in asked
    assert f">Sign out of {concerned}</button>" in asked


def test_staff_are_also_signed_out_of_the_admin_except_in_this_browser(member):
    boss = User.objects.create(email="boss@example.com", is_staff=True)
    for _ in range(2):
        Client().force_login(boss)
    Session.objects.create(user=boss, session_token="site", expires="2030-01-01T00:00:00Z")
    UserSession.objects.create(user=boss, token="boss")
    client = member("superuser")

    done = client.post(overview(boss, "sign-out"), follow=True).content.decode()
    client.post(overview(client.user, "sign-out"))

    assert "1 NextAuth session, 2 admin sessions and 1 signed-in device signed out." in done
    assert [one.get_decoded()["_auth_user_id"] for one in AdminSession.objects.all()] == [client.user.pk]
    assert "Deactivate" not in offered(client, client.user)
    assert client.post(overview(client.user, "deactivate")).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_a_device_that_the_site_signs_out_meanwhile_leaves_no_other_signed_in(client, person, url):
    client.force_login(User.objects.create_superuser("boss@example.com"))
    with psycopg.connect(url) as site, psycopg.connect(url, autocommit=True) as observer:
        [(pid,)] = site.execute("DELETE FROM user_sessions WHERE token = 't0' RETURNING pg_backend_pid()")

        def commit():
            for _ in range(200):
                if [*observer.execute("SELECT FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", [pid])]:
                    break
                time.sleep(0.05)
            site.commit()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(commit)
            done = client.post(overview(person, "sign-out"), follow=True).content.decode()

    assert "1 NextAuth session and 1 signed-in device signed out." in done
    assert not UserSession.objects.exists()


def test_support_ends_no_session_of_administrators_in_the_admin(member):
    boss = User.objects.create(email="boss@example.com", is_staff=True, is_superuser=True)
    Client().force_login(boss)
    Session.objects.create(user=boss, session_token="site", expires="2030-01-01T00:00:00Z")
    client = member("Support")

    done = client.post(overview(boss, "sign-out"), follow=True).content.decode()

    assert "1 NextAuth session signed out." in done
    assert sorted(one.get_decoded()["_auth_user_id"] for one in AdminSession.objects.all()) == sorted([boss.pk, client.user.pk])


def test_a_person_is_deactivated_and_reactivated_alerts_paused_and_tokens_cleared(member, person):
    client = member("Administrators")

    said = [
        re.search(r'<li class="(?:success|info)">(.*?)</li>', client.post(overview(person, action), follow=True).content.decode())[1]
        for action in ("deactivate", "reactivate", "pause-alerts", "clear-tokens")
    ]  # fmt: skip

    assert said == ["1 user deactivated.", "1 user reactivated.", "1 price alert paused.", "1 verification token deleted."]
    person.refresh_from_db()
    assert (person.is_active, PriceAlert.objects.filter(active=True).count(), VerificationToken.objects.count()) == (True, 0, 0)
    assert sorted(LogEntry.objects.values_list("content_type__model", "change_message")) == [
        ("pricealert", "Paused."),
        ("user", "Clear verification tokens: 1 verification token deleted."),
        ("user", "Deactivated."),
        ("user", "Pause alerts: 1 price alert paused."),
        ("user", "Reactivated."),
    ]


def test_a_page_of_confirmation_says_what_is_affected(member, person):
    client = member("Administrators")
    other = User.objects.create(email="bob@example.com", is_active=False)

    said = [
        re.search(r"<p>(This affects .*?)</p>", client.get(overview(user, action)).content.decode())[1]
        for user, action in (
            (person, "deactivate"), (other, "reactivate"), (person, "sign-out"), (person, "pause-alerts"), (person, "clear-tokens"),
        )
    ]  # fmt: skip

    assert said == [
        f"This affects <b>{EMAIL}</b>.",
        "This affects <b>bob@example.com</b>.",
        f"This affects 1 NextAuth session and 2 signed-in devices of <b>{EMAIL}</b>.",
        f"This affects 1 price alert of <b>{EMAIL}</b>.",
        f"This affects 1 verification token of <b>{EMAIL}</b>.",
    ]


def test_an_account_is_unlinked_by_choice_and_staff_are_left_alone(member, person):
    boss = User.objects.create(email="boss@example.com", is_staff=True)
    Account.objects.create(user=boss, type="oauth", provider="google", provider_account_id="b")
    first, second = Account.objects.filter(user=person).order_by("pk")
    client = member("Support")

    none = client.post(overview(person, "unlink"), follow=True).content.decode()
    done = client.post(overview(person, "unlink"), {"chosen": [first.pk, "nobody"]}, follow=True).content.decode()

    assert "Nothing was chosen." in none
    assert "1 OAuth account unlinked." in done
    assert list(Account.objects.filter(user=person)) == [second]
    assert client.post(overview(boss, "unlink"), {"chosen": [boss.accounts.get().pk]}).status_code == 403


def test_all_data_about_a_person_is_exported_without_secrets_and_recorded(member, person):
    client = member("Administrators")

    response = client.post(overview(person, "give-out"))
    held = json.loads(b"".join(response.streaming_content))

    assert held["person"] == {"id": person.pk, "email": EMAIL}
    assert {name: len(rows) for name, rows in held["tables"].items() if rows} == {
        "accounts": 2, "price_alerts": 2, "sessions": 1, "user_sessions": 2, "users": 1, "verification_tokens": 1,
    }  # fmt: skip
    assert "secret" not in json.dumps(held["tables"])
    assert list(Access.objects.values_list("action", "table", "row_id", "person_id")) == [
        ("exported", "users", person.pk, person.pk)
    ]


def test_an_erasure_requires_the_typed_address_and_logs_a_certificate(member, person):
    talk = Conversation.objects.create(user=person, session_id="s", metadata={})
    Message.objects.create(conversation=talk, role="user", content="I am ill", timestamp=1)
    UserActivity.objects.create(user=person, event_type="search")
    client = member("Administrators")

    asked = client.get(overview(person, "erase")).content.decode()
    wrong = client.post(overview(person, "erase"), {"email": "bob@example.com"})
    kept = User.objects.filter(pk=person.pk).exists()
    done = client.post(overview(person, "erase"), {"email": f" {EMAIL.upper()} "}, follow=True)

    assert dict(re.findall(r'<th scope="row">([\w -]+)</th><td class="number">(\d+)</td><td>removed', asked)) == {
        "Users": "1", "Verification tokens": "1", "Activities": "1", "OAuth accounts": "2", "Conversations": "1",
        "Price alerts": "2", "NextAuth sessions": "1", "Signed-in devices": "2", "Messages": "1",
    }  # fmt: skip
    tables = [re.findall(r'<th scope="row">(.*?)</th><td class="number">', page) for page in (asked, done.content.decode())]
    assert tables[0] == tables[1] == sorted(tables[0], key=str.lower)
    trail = re.findall(r"<a href[^>]*>(.*?)</a>", asked.partition('class="breadcrumbs">')[2].partition("</div>")[0])
    assert trail == ["Home", "Accounts", "Users", EMAIL]
    assert ("nothing was erased" in wrong.content.decode(), kept) == (True, True)
    assert (User.objects.filter(pk=person.pk).exists(), Message.objects.exists(), UserActivity.objects.exists()) == (
        False, False, False,
    )  # fmt: skip
    assert list(LogEntry.objects.values_list("user_id", "object_id", "object_repr", "action_flag", "change_message")) == [
        (client.user.pk, person.pk, "(erased)", DELETION, "Erased.")
    ]
    [access] = Access.objects.all()
    certificate = access.certificate
    assert (access.staff_id, access.staff_email, access.action, access.table, access.row_id, access.person_id) == (
        client.user.pk, client.user.email, "erased", "users", person.pk, person.pk,
    )  # fmt: skip
    assert (certificate["person"], certificate["removed"]["users"], EMAIL in str(certificate)) == (person.pk, 1, False)
    place = reverse("admin:accounts_user_erased", args=[access.pk])
    assert done.redirect_chain == [(place, 302)]
    said = done.content.decode()
    assert "Other texts in the database: not searched by the admin for the e-mail address" in said
    assert "as requested" not in said
    assert f"<dt>Erased by</dt><dd>{client.user.email}</dd>" in done.content.decode()
    assert json.loads(client.get(place, {"download": ""}).content) == certificate
    entry = client.get(address(Access, "change", access.pk)).content.decode()
    assert f'<a href="{place}">Certificate of erasure</a>' in entry
    in_words = f">{access.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC</time>"
    assert (in_words in said, in_words in entry) == (True, True)


def test_a_certificate_outlives_the_staff_and_is_shown_to_those_who_may_read_the_record_of_access(member, person):
    boss = member("Administrators")
    boss.post(overview(person, "erase"), {"email": EMAIL})
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM users WHERE id = %s", [boss.user.pk])
    page = reverse("admin:accounts_user_erased", args=[Access.objects.get(certificate__person=person.pk).pk])

    reader = member("Support")
    refused = reader.get(page).status_code
    reader.user.user_permissions.add(Permission.objects.get(codename="view_access"))
    shown = Client()
    shown.force_login(User.objects.get(pk=reader.user.pk))

    assert (refused, LogEntry.objects.count()) == (403, 0)
    assert f"<dd>{person.pk}</dd>" in shown.get(page).content.decode()


@pytest.mark.parametrize("page", ["erase", "give-out", "note"])
def test_an_action_after_a_colleagues_erasure_redirects_to_the_list_with_the_reason(member, person, page):
    client = member("Administrators")
    assert client.post(overview(person, "erase"), {"email": EMAIL}).status_code == 302

    said = client.post(overview(person, page), {"email": EMAIL, "text": "x"}, follow=True)

    assert said.redirect_chain == [(reverse("admin:accounts_user_changelist"), 302)]
    assert "This person does not exist: another member of the staff may have erased or deleted them." in said.content.decode()
    assert LogEntry.objects.count() == 1


def test_staff_cannot_be_erased(member):
    client = member("Administrators")
    boss = User.objects.create(email="boss@example.com", is_staff=True)

    said = client.post(overview(boss, "erase"), {"email": boss.email}, follow=True).content.decode()

    assert "is a staff account: remove its staff status in the admin first." in said
    assert User.objects.filter(pk=boss.pk).exists()
    assert {"Erase", "Export everything"}.isdisjoint(offered(client, boss))


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_an_erasure_commits_with_its_certificate_and_without_a_deadline_of_two_seconds(client):
    person = User.objects.create(email=EMAIL)
    boss = User.objects.create_superuser("boss@example.com")
    client.force_login(boss)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2.5); RETURN OLD; END';"
            "CREATE TRIGGER slowly BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    try:
        done = client.post(overview(person, "erase"), {"email": EMAIL}, follow=True)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION slowly CASCADE")
    assert "The person was erased. This is the certificate." in done.content.decode()
    assert list(User.objects.values_list("email", flat=True)) == ["boss@example.com"]
    assert LogEntry.objects.filter(object_id=person.pk, action_flag=DELETION).count() == 1


def test_notes_about_a_person_are_added_shown_exported_and_erased_and_never_changed(member, person):
    client = member("Support")
    client.post(overview(person, "note"), {"text": " Wants a window seat <b>\n"})
    empty = client.post(overview(person, "note"), {"text": " "}, follow=True).content.decode()

    note = Note.objects.get()
    assert (note.text, note.person_id, note.staff_id) == ("Wants a window seat <b>", person.pk, client.user.pk)
    assert "A note must have 1 to 10,000 characters: nothing was added." in empty
    page = client.get(overview(person)).content.decode()
    assert re.search(r"support@staff.example · <time.*Wants a window seat &lt;b&gt;", page, re.S)
    assert "Staff notes" not in re.findall(r"<h2>(.*?)</h2>", page)[2:]  # It appears once, as a separate part.
    assert client.post(address(Note, "change", note.pk), {"text": "x"}).status_code == 403
    assert client.post(address(Note, "delete", note.pk), {"post": "yes"}).status_code == 403
    with pytest.raises(DatabaseError), transaction.atomic():
        Note.objects.update(text="x")

    client.force_login(User.objects.create_superuser("boss@example.com"))
    held = json.loads(b"".join(client.post(overview(person, "give-out")).streaming_content))["tables"]["fly2any_notes"]
    client.post(overview(person, "erase"), {"email": EMAIL})
    assert [(row["text"], "staff_id" in row) for row in held] == [("Wants a window seat <b>", False)]
    assert (User.objects.filter(pk=person.pk).exists(), Note.objects.count()) == (False, 0)


def test_operations_neither_see_nor_add_notes(member, person):
    client = member("Operations")

    assert "Staff notes" not in client.get(overview(person)).content.decode()
    assert client.post(overview(person, "note"), {"text": "x"}).status_code == 403
