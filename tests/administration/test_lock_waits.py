"""How long pages wait for a lock, and what they say if it is not released."""

import time

import pytest
from django.contrib import admin
from django.contrib.messages import get_messages
from django.db import connection
from django.urls import reverse

from accounts.models import User
from ai_consultant.models import Conversation
from engagement.models import Notification
from fly2any.administration import deadlines
from fly2any.administration.models import Note
from tests.administration.conftest import address
from tests.administration.test_deadlines import LIST, busy

pytestmark = pytest.mark.django_db(transaction=True)
LOCKED = "This page waited too long for a lock that another session holds, and was stopped. Nothing was changed."


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 200)


def test_a_locked_table_is_reported_by_lists_actions_and_exports(staff):
    user = User.objects.create(email="ana@example.com")
    notice = Notification.objects.create(user=user, type="promotion", title="t", message="m")
    action = {"action": "mark_read", "_selected_action": notice.pk, "index": "0", "post": "yes"}
    with busy("notifications"):
        answers = [
            staff.get(reverse(LIST)),
            staff.post(reverse(LIST), action),
            staff.post(reverse("admin:engagement_notification_export")),
        ]

    for page in answers:
        assert (page.status_code, LOCKED in page.content.decode(), "Simplify" in page.content.decode()) == (503, True, False)
    notice.refresh_from_db()
    assert notice.read is False
    assert staff.post(reverse(LIST), action).status_code == 302
    notice.refresh_from_db()
    assert notice.read is True


@pytest.mark.parametrize(
    ("table", "page", "back"),
    [
        ("login_history", "password_change", "/admin/password_change/"),
        ("fly2any_accesses", "engagement_notification_export", "../"),
    ],
)
def test_a_page_that_writes_waits_for_a_lock_no_longer_than_documented(staff, monkeypatch, table, page, back):
    if table == "fly2any_accesses":  # A change of the password is as short as a sign-in.
        monkeypatch.setattr(deadlines, "LOCK", 200)
    with busy(table):
        begun = time.monotonic()
        answer = staff.post(reverse(f"admin:{page}"), {"old_password": "wrong", "new_password1": "x", "new_password2": "x"})
        took = time.monotonic() - begun

    said = [str(message) for message in get_messages(answer.wsgi_request)]
    assert said == ["Another transaction holds a lock on this: nothing was saved. Try again in a moment."]
    assert (answer.status_code, answer.url, took < 4) == (302, back, True)


def test_only_lists_suggest_a_narrower_query(staff, monkeypatch):
    talk = Conversation.objects.create(session_id="s", metadata={})
    pages = [reverse(LIST), reverse("admin:ai_consultant_conversation_change", args=[talk.pk])]
    with busy("fly2any_accesses"):
        locked = staff.get(pages[1]).content.decode()

    def slow(*_, **__):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1)")

    monkeypatch.setattr(admin.ModelAdmin, "changelist_view", slow)
    monkeypatch.setattr(admin.ModelAdmin, "changeform_view", slow)
    texts = [staff.get(page).content.decode() for page in pages]

    assert (LOCKED in locked, "Simplify" in locked) == (True, False)
    assert [("did not answer in time" in text, "Simplify the query" in text) for text in texts] == [(True, True), (True, False)]


def test_a_note_does_not_wait_for_the_row_of_an_administrator(staff):
    """Only pages that change someone's access lock the administrators."""
    person = User.objects.create(email="ana@example.com")
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute('BEGIN; SELECT FROM users WHERE "isSuperuser" FOR NO KEY UPDATE')
        page = staff.post(f"{address(User, 'overview', person.pk)}note/", {"text": "Wants a window seat"})
    finally:
        other.close()

    assert (page.status_code, page["Location"]) == (302, address(User, "overview", person.pk))
    assert [note.text for note in Note.objects.all()] == ["Wants a window seat"]
