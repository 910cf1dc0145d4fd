"""The overview of a person: its timeline, where no index has the order or a row has several times, and names in words."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from accounts.models import User, UserPreferences
from ai_consultant.models import Conversation
from engagement.models import LoginHistory, PushSubscription, UserActivity
from fly2any.administration import overview, overview_page
from fly2any.administration.deadlines import TooSlow
from tests.administration.conftest import address, as_owner
from travel.models import PriceAlert

pytestmark = pytest.mark.django_db
ALERT = {"origin": "JFK", "destination": "GRU", "depart_date": "2999-07-01", "current_price": 2, "target_price": 1}


@pytest.fixture
def ana():
    """A person with an event in each table that has no index by time, and one in a table that has."""
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    ago = [now - timedelta(days=days) for days in range(10)]
    alert = PriceAlert.objects.create(user=ana, **ALERT, created_at=ago[6], triggered=True, triggered_at=ago[2])
    Conversation.objects.create(user=ana, session_id="s", metadata={}, created_at=ago[3])
    PushSubscription.objects.create(user=ana, endpoint="https://push.example", p256dh="p", auth="a", created_at=ago[4])
    UserPreferences.objects.create(user=ana, created_at=ago[5])
    LoginHistory.objects.create(user=ana, success=True, timestamp=ago[1])
    PriceAlert.objects.create(user=ana, **ALERT, created_at=ago[9])
    ana.alert = str(alert)
    return ana


def told(page):
    events = page.partition('<ol class="timeline">')[2].partition("</ol>")[0]
    return [unescape(re.sub("<[^>]*>", "", text)) for text in re.findall("<div>(.*?)</div>", events)]


def test_everything_with_a_time_is_on_the_timeline(member, ana, monkeypatch):
    client = member("Support")
    url = address(User, "overview", ana.pk)
    expected = [
        "Signed in", f"Price alert fired: {ana.alert}", "Talked to the AI consultants", "Subscribed to push notifications",
        "Preferences created", f"Created a price alert: {ana.alert}", f"Created a price alert: {ana.alert}",
    ]  # fmt: skip

    page = client.get(url).content.decode()

    assert (told(page), "6 events, 6 in the busiest week" in page) == (expected, False)
    assert "to today: 6 events" in page
    for module in (overview, overview_page):
        monkeypatch.setattr(module, "MOST_EVENTS", 2)
    found, query = [], ""
    while query is not None:
        page = client.get(url + query).content.decode()
        found += told(page)
        following = re.search('<a href="([?]before=[^"]*)">Earlier', page)
        query = unescape(following[1]) if following else None
    assert found == expected


def test_tables_that_take_too_long_to_sort_are_named_and_the_others_are_shown(member, ana, monkeypatch):
    client = member("Support")

    class Late:
        def __init__(self, *args):
            pass

        def __enter__(self):
            raise TooSlow

        def __exit__(self, *args):
            pass

    monkeypatch.setattr(overview, "within", Late)
    nobody = User.objects.create(email="new@example.com")
    pages = [client.get(address(User, "overview", one.pk)).content.decode() for one in (ana, nobody)]

    assert [told(page) for page in pages] == [["Signed in"], []]
    for page in pages:
        assert (
            "Missing here, because sorting took too long: price alerts, conversations, preferences, push subscriptions." in page
        )
        assert "Nothing has happened yet." not in page


@pytest.mark.slow
def test_only_a_complete_timeline_says_that_nothing_happened(member):
    client, nobody = member("Support"), User.objects.create(email="new@example.com")
    whole = client.get(address(User, "overview", nobody.pk)).content.decode()
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE login_history RENAME TO login_history_away")
    partial = client.get(address(User, "overview", nobody.pk)).content.decode()

    assert ["Cannot be read" in page for page in (whole, partial)] == [False, True]
    assert ["Nothing has happened yet." in page for page in (whole, partial)] == [True, False]


def test_panels_name_their_rows_by_words_and_not_by_codes_and_ids(member, ana):
    PushSubscription.objects.update(user_agent="Mozilla/5.0 (demo)")
    UserActivity.objects.create(user=ana, event_type="error:payment")

    page = member("Support").get(address(User, "overview", ana.pk)).content.decode()

    cells = {
        title: re.search(rf'<h2>{title}</h2>.*?<tbody><tr><th scope="row">(.*?)</th>', page, re.S)[1]
        for title in ("Activities", "Preferences", "Push subscriptions")
    }
    assert {title: re.sub("<[^>]*>", "", cell) for title, cell in cells.items()} == {
        "Activities": "An error occurred (payment)", "Preferences": "English", "Push subscriptions": "Mozilla/5.0 (demo)",
    }  # fmt: skip


def test_the_admins_pages_sign_in_and_out(member):
    client = member("Support")
    index = client.get(reverse("admin:index")).content.decode()
    left = client.post(reverse("admin:logout")).content.decode()
    client.force_login(User.objects.create(email="ana@example.com"))
    entering = client.post(reverse("admin:login"), {"username": "", "password": ""}).content.decode()

    assert ("<p>You are signed out.</p>" in left, "<title>Signed out |" in left, "quality time" in left) == (True, True, False)
    assert "You are signed in as ana@example.com, but you may not open this page." in entering
    assert "Correct the errors below." in entering
    assert '<input type="submit" value="Sign in">' in entering
    assert re.findall(r"(?i)\blog(?:ged)? (?:in|out)\b", f"{index}{left}{entering}") == []
