"""A list does not fetch texts of ten megabytes."""

import tracemalloc

import pytest
from django.db import connection
from django.db.models import Value
from django.db.models.functions import Repeat

from accounts.models import Account, User
from ai_consultant.models import Conversation, Message
from engagement.models import LoginHistory, Notification, UserSession, WishlistItem
from fly2any.administration.long_values import with_short_values
from tests.administration.conftest import address
from travel.models import SavedSearch

pytestmark = pytest.mark.django_db
LONG = 1_000_000  # Letters.
MOST = 12_000_000  # Bytes: less than the texts of one page.


@pytest.fixture
def staff(client):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    return client


@pytest.fixture
def ana():
    """A user whose every text is long, with rows of several tables whose texts are."""
    ana = User.objects.create(email="ana@example.com")
    long = Repeat(Value("x"), LONG)
    User.objects.filter(pk=ana.pk).update(bio=long, name=long, image=long)
    Notification.objects.bulk_create(Notification(user=ana, type="promotion", title="t", message="m") for _ in range(15))
    Notification.objects.update(title=long, message=long)
    LoginHistory.objects.bulk_create(LoginHistory(user=ana, success=True) for _ in range(15))
    LoginHistory.objects.update(location=long)
    UserSession.objects.bulk_create(UserSession(user=ana, token=str(number)) for number in range(5))
    UserSession.objects.update(device=long)
    WishlistItem.objects.bulk_create(WishlistItem(user=ana, flight_data={"origin": "GRU"}) for _ in range(15))
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE wishlist_items SET "flightData" = jsonb_build_object('origin', repeat('x', %s)) WHERE id > (SELECT min(id) FROM wishlist_items)""",
            [LONG],
        )
    talk = Conversation.objects.create(user=ana, session_id="s", metadata={})
    Message.objects.bulk_create(Message(conversation=talk, role="user", content="x", timestamp=1) for _ in range(15))
    Message.objects.update(content=long)
    return ana


def peak(client, url):
    tracemalloc.start()
    try:
        page = client.get(url)
        return page.status_code, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LISTS = [User, Notification, LoginHistory, UserSession, WishlistItem, Conversation, Message, Account]


@pytest.mark.slow
def test_lists_and_overviews_take_little_memory_however_long_texts_are(staff, ana):
    staff.get(address(User))  # So that everything is imported and compiled.

    peaks = {model.__name__: peak(staff, address(model)) for model in LISTS}
    peaks["overview"] = peak(staff, address(User, "overview", ana.pk))

    assert {name: status for name, (status, _) in peaks.items()} == dict.fromkeys(peaks, 200)
    assert {name: bytes_ for name, (_, bytes_) in peaks.items() if bytes_ > MOST} == {}


@pytest.mark.slow
def test_a_list_shows_the_same_texts_as_before_but_truncated(staff, ana):
    SavedSearch.objects.create(user=ana, name="y" * 200, origin="GRU", destination="LIS", depart_date="2026-07-01")

    assert f"{'y' * 80}…" in staff.get(address(SavedSearch)).content.decode()
    shown = staff.get(address(WishlistItem)).content.decode()
    assert (shown.count("GRU → ?, ?"), shown.count("? → ?, ?") > 14) == (2, True)


def test_a_row_of_a_list_cannot_be_saved():
    [row] = with_short_values([SavedSearch(name="whole")])
    row.short_name = "who"
    with_short_values([row])

    assert row.name == "who"
    with pytest.raises(TypeError, match="Fetch it again to save it"):
        row.save()
