"""The admin of all 18 tables, beyond what the conformance kit checks for every table."""

import re
from html import unescape
from urllib.parse import urljoin, urlsplit

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import connection
from django.urls import resolve, reverse

from accounts.models import Account, Session, User, UserPreferences, VerificationToken
from ai_consultant.models import Conversation, Message
from engagement.models import Notification, PushSubscription, UserActivity
from fly2any.administration.access_paths import time_added
from fly2any.administration.counts import MOST_COUNTED
from fly2any.database.schema.contract import PHASE7_APPS
from fly2any.database.seed import seed
from tests.database.test_dbseed import DAY
from travel.models import PriceAlert

MODELS = [model for app in PHASE7_APPS for model in apps.get_app_config(app).get_models()]
THE_STAFF = {User: {"email": "staff@demo.fly2any.example"}}


@pytest.fixture
def staff(client, db):
    user = User.objects.create_superuser("staff@demo.fly2any.example")
    client.force_login(user)
    return client


def page(model, name, *arguments):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


@pytest.fixture(scope="module")
def rows(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        seed(connection, users=60, seed=1, until=DAY)
        yield
        with connection.cursor() as cursor:
            tables = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in MODELS)
            cursor.execute(f"TRUNCATE {tables} CASCADE")
        connection.close()


def test_all_18_tables_are_in_the_admin_under_their_four_groups(staff):
    assert {model for model in admin.site._registry if model._meta.app_label in PHASE7_APPS} == set(MODELS)
    assert len(MODELS) == 18
    text = staff.get(reverse("admin:index")).content.decode()
    for app in PHASE7_APPS:
        assert f"/admin/{app}/" in text


def test_the_first_page_shows_when_rows_were_last_added_or_why_not(staff, rows):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM push_subscriptions; ANALYZE")

    groups = staff.get(reverse("admin:index")).context["groups"]

    tables = {entry["model"]: table for _, tables in groups for entry, table, _ in tables if entry["model"] in MODELS}
    reasons = {Account: "No creation time", Session: "No creation time", PushSubscription: "No rows"}
    known = [model for model in MODELS if model not in (*reasons, VerificationToken)]
    assert {model: tables[model].reason for model in reasons} == reasons
    assert [tables[model].reason for model in known] == [""] * len(known)
    assert {model: tables[model].last for model in known} == {
        model: max(model._base_manager.values_list(time_added(model), flat=True)) for model in known
    }
    assert [model for model in known if not tables[model].growth] == []


def test_rows_of_a_user_are_reached_by_a_link(staff, rows):
    notice = Notification.objects.first()

    listing = staff.get(page(Notification, "changelist"), {"user__id__exact": notice.user_id})

    assert set(listing.context["cl"].result_list) == set(Notification.objects.filter(user_id=notice.user_id))
    assert f'<a href="{page(User, "overview", notice.user_id)}">' in listing.content.decode()


def test_an_activity_of_a_deleted_user_shows_the_bare_id(staff, rows):
    UserActivity.objects.update(user_id="gone")

    assert ">gone<" in staff.get(page(UserActivity, "changelist")).content.decode()


def test_deleting_a_user_previews_and_deletes_dependent_rows(staff, rows):
    user = User.objects.filter(notifications__isnull=False, conversations__messages__isnull=False).first()
    number = user.notifications.count()
    said = Message.objects.filter(conversation__user=user).count()

    asked = staff.get(page(User, "delete", user.pk)).content.decode()
    staff.post(page(User, "delete", user.pk), {"post": "yes"})

    assert 0 < number < MOST_COUNTED
    assert f"<li>Notifications: {number}</li>" in asked
    assert f"<li>Messages: {said}</li>" in asked
    assert not User.objects.filter(pk=user.pk).exists()
    assert not Notification.objects.filter(user_id=user.pk).exists()


def test_a_value_outside_the_choices_stays_when_another_field_changes(staff):
    user = User.objects.create_user("ana@example.com", gender="unsaid")
    preferences = UserPreferences.objects.create(user=user, currency="MXN", language="ko", home_airport=None)
    shown = staff.get(page(UserPreferences, "change", preferences.pk))
    form = shown.context["adminform"].form
    values = {name: value for name in form.fields if (value := form[name].value()) not in (None, False)}

    response = staff.post(page(UserPreferences, "change", preferences.pk), {**values, "theme": "dark"})
    preferences.refresh_from_db()

    assert '<option value="MXN" selected>MXN</option>' in shown.content.decode()
    assert response.status_code == 302
    assert (preferences.currency, preferences.language, preferences.theme, preferences.home_airport) == (
        "MXN",
        "ko",
        "dark",
        None,
    )


def test_a_user_is_added_edited_and_given_a_password(staff):
    added = staff.post(
        page(User, "add"),
        {
            "email": "new@example.com",
            "name": "",
            "usable_password": "true",
            "password1": "a-long-password-1",
            "password2": "a-long-password-1",
        },
    )
    user = User.objects.get(email="new@example.com")
    changed = staff.post(
        page(User, "change", user.pk),
        {
            "email": "new@example.com", "name": "", "bio": "Hello", "is_active": "on", "country": "PT",
            "preferences-TOTAL_FORMS": "1", "preferences-INITIAL_FORMS": "0", "preferences-MIN_NUM_FORMS": "0", "preferences-MAX_NUM_FORMS": "1",
            "preferences-0-currency": "USD", "preferences-0-language": "en", "preferences-0-theme": "dark", "preferences-0-user": user.pk,
        },
    )  # fmt: skip
    user.refresh_from_db()

    assert (added.status_code, changed.status_code) == (302, 302)
    assert (user.name, user.bio, user.country, user.check_password("a-long-password-1")) == (None, "Hello", "PT", True)
    preferences = UserPreferences.objects.get(user=user)
    assert (preferences.theme, preferences.home_airport) == ("dark", None)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.db_table)
def test_a_form_to_add_a_row_asks_for_what_a_person_knows(model, staff):
    response = staff.get(page(model, "add"))

    assert response.status_code in (200, 403)
    assert " object at 0x" not in response.content.decode()
    assert "field-created_at" not in response.content.decode()


def test_an_alert_is_added_without_its_times(staff):
    user = User.objects.get(**THE_STAFF[User])
    form = staff.get(page(PriceAlert, "add")).context["adminform"].form
    shown = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    values = {
        "user": user.pk, "origin": "GRU", "destination": "LIS", "depart_date": "2026-07-01", "current_price": "500", "target_price": "400",
        "currency": shown["currency"], "active": "on", "notification_count": "0",
        "last_checked_0": f"{shown['last_checked']:%Y-%m-%d}", "last_checked_1": f"{shown['last_checked']:%H:%M:%S}",
    }  # fmt: skip

    assert staff.post(page(PriceAlert, "add"), values).status_code == 302
    alert = PriceAlert.objects.get(user=user)
    assert (alert.origin, alert.triggered_at) == ("GRU", None)


def test_machine_written_tables_are_read_only(staff, rows):
    talk = Conversation.objects.first()

    assert staff.get(reverse("admin:ai_consultant_conversation_add")).status_code == 403
    assert staff.post(page(Conversation, "change", talk.pk), {"status": "x"}).status_code == 403


def test_a_user_who_is_not_staff_stays_outside(client, db):
    client.force_login(User.objects.create_user("ana@example.com"))

    assert client.get(reverse("admin:index")).status_code == 302


@pytest.mark.slow
@pytest.mark.parametrize("role", ["Support", "Operations"])
def test_no_page_has_a_link_that_ends_in_a_403(role, client, db, rows):
    """Visit one page of each kind that a member reaches, and follow one link of each kind."""
    user = User.objects.create(email=f"member.{role}@staff.example", is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    colleague = User.objects.create(email=f"colleague.{role}@staff.example", is_staff=True)
    todo = [reverse("admin:index"), page(User, "change", colleague.pk), page(User, "overview", colleague.pk)]
    seen, forbidden, found = set(), [], set()
    while todo:
        url = todo.pop()
        response = client.get(url)
        if response.status_code == 403:
            forbidden.append(url)
        text = response.content.decode() if response.headers["Content-Type"].startswith("text/html") else ""
        for link in re.findall(r'<a [^>]*?href="([^"]*)"', text):
            target = urlsplit(urljoin(url, unescape(link)))
            match = resolve(target.path)
            kind = (match.view_name, colleague.pk in target.path)
            if kind not in seen:
                seen.add(kind)
                found.add(match.view_name)
                todo.append(target.path + (f"?{target.query}" if target.query else ""))
    assert forbidden == []
    assert {"admin:accounts_user_overview", "admin:accounts_user_change", "admin:travel_pricealert_changelist"} <= found
    assert len(found) > 20


def test_narrow_windows_have_a_menu_on_every_page_and_overviews_no_filters_of_a_list(staff, rows):
    user = User.objects.filter(is_staff=False).first()
    for url in (reverse("admin:index"), page(User, "overview", user.pk), page(User, "add"), reverse("admin:database")):
        menu = staff.get(url).content.decode().partition('<details class="phone-nav">')[2].partition("</details>")[0]
        assert menu.count("<li>") > len(MODELS), url
    listed = staff.get(page(User, "changelist"), {"is_active": "1"}).content.decode()
    assert f'{page(User, "overview", user.pk)}"' in listed
    assert "overview/?_changelist_filters" not in listed
