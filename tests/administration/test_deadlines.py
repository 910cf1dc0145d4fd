"""A database that is kept busy: pages and actions end with a sentence, and change nothing."""

from contextlib import contextmanager

import pytest
from django.db import connection
from django.urls import reverse

from accounts.models import User
from engagement.models import Notification
from fly2any.administration import deadlines

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "admin:engagement_notification_changelist"


@contextmanager
def busy(table):
    """Another session that has `table` to itself."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        other.close()


@pytest.fixture
def staff(client, monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 200)
    client.force_login(User.objects.create_superuser("staff@example.com"))
    return client


def test_a_list_an_action_and_an_export_of_a_table_that_is_locked_end_with_a_sentence(staff):
    user = User.objects.create(email="ana@example.com")
    notice = Notification.objects.create(user=user, type="promotion", title="t", message="m")
    action = {"action": "mark_read", "_selected_action": notice.pk, "index": "0"}
    with busy("notifications"):
        answers = [
            staff.get(reverse(LIST)),
            staff.post(reverse(LIST), action),
            staff.post(reverse("admin:engagement_notification_export")),
        ]

    assert [(page.status_code, "This takes too long" in page.content.decode()) for page in answers] == [(503, True)] * 3
    notice.refresh_from_db()
    assert notice.read is False
    assert staff.post(reverse(LIST), action).status_code == 302
    notice.refresh_from_db()
    assert notice.read is True


def test_an_export_by_a_bad_address_leads_back_to_the_list(staff):
    answer = staff.post(f"{reverse('admin:engagement_notification_export')}?created_at__from=yesterday", follow=True)

    assert answer.redirect_chain == [("../", 302)]
    assert (answer.status_code, answer.request["PATH_INFO"]) == (200, reverse(LIST))
    assert "“yesterday” is no day: write it as" in answer.content.decode()


def test_pages_that_only_read_take_no_post(staff):
    user = User.objects.create(email="ana@example.com")
    pages = [reverse("admin:index"), reverse("admin:app_list", args=["travel"]), reverse("admin:travel_pricehistory_route")]
    pages += [reverse(f"admin:accounts_user_{name}", args=[user.pk]) for name in ("overview", "history")]

    assert [staff.post(page).status_code for page in pages] == [405] * 5


@pytest.mark.parametrize("selected", ["\0", ""])
def test_an_action_on_what_is_no_row_changes_nothing(staff, selected):
    answer = staff.post(reverse(LIST), {"action": "mark_read", "_selected_action": selected, "index": "0"}, follow=True)

    assert answer.status_code == 200


@pytest.mark.parametrize("address", ["?id=abc", "?e=1&created_at__from=abc", "?created_at__from=" + "9" * 5000])
def test_a_bad_address_is_a_sentence_above_the_list_without_it(staff, address):
    answer = staff.get(reverse("admin:auth_group_changelist" if "id=" in address else LIST) + address, follow=True)

    page = answer.content.decode()
    assert (answer.status_code, answer.request["QUERY_STRING"], page.count('class="error"')) == (200, "", 1)
    assert len(page) < 100_000
