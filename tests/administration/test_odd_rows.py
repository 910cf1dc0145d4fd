"""Rows with values that Python cannot represent: every page shows them, and saving one changes nothing."""

import base64
import copy
import json
import pickle
from datetime import UTC

import pytest
from django.contrib import admin
from django.db import connection
from django.urls import reverse

from accounts.models import Session, User
from engagement.models import Notification, UserActivity, WishlistItem
from fly2any.postgres.values import Beyond, Unreadable
from tests.administration.conftest import address

pytestmark = pytest.mark.django_db
DEEP = f"{'[' * 3000}{']' * 3000}"
TIMES = ["infinity", "-infinity", "20000-01-01 00:00:00+00", "0044-03-15 12:00:00+00 BC"]


@pytest.fixture
def ana():
    return User.objects.create(email="ana@example.com")


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else None


@pytest.mark.slow
@pytest.mark.parametrize("email", [None, " ", "ana@example.com "])
def test_a_person_without_an_exact_address_has_every_page_and_can_be_erased(client, email):
    sql("ALTER TABLE users ALTER email DROP NOT NULL")
    client.force_login(User.objects.create_superuser("staff@example.com"))
    key = User.objects.create(email="ana@example.com").pk
    sql("UPDATE users SET email = %s WHERE id = %s", email, key)
    erase, export = (f"{address(User, 'overview', key)}{name}/" for name in ("erase", "give-out"))

    pages = [*(address(User, name, key) for name in ("change", "history", "overview", "delete")), erase, export]
    for page in pages:
        assert (client.get(page).status_code, page) == (200, page)
    held = json.loads(b"".join(client.post(export).streaming_content))
    left = []
    for typed in ("", (email or "").strip() or key):
        client.post(erase, {"email": typed})
        left.append(User.objects.filter(pk=key).exists())

    assert (held["person"], left) == ({"id": key, "email": email}, [True, False])


def open_everything(client, *rows):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    pages = [reverse("admin:index"), reverse("admin:app_list", args=["engagement"])]
    for row in rows:
        ours = admin.site._registry[type(row)]
        pages += [address(type(row)), f"{address(type(row))}?before=", f"{address(type(row))}?q={row.pk}"]
        pages += [address(type(row), name, row.pk) for name in ("change", "history", *(["overview"] if ours.overview else []))]
    for page in pages:
        assert (client.get(page).status_code, page) == (200, page)


@pytest.mark.parametrize("time", [TIMES[0], *(pytest.param(time, marks=pytest.mark.slow) for time in TIMES[1:])])
def test_times_beyond_the_calendar_are_shown_and_paged(client, ana, time):
    notices = [Notification.objects.create(user=ana, type="t", title=f"n{n}", message="m") for n in range(3)]
    session = Session.objects.create(user=ana, session_token="t", expires="2026-01-01T00:00:00Z")
    sql('UPDATE notifications SET "createdAt" = %s', time)
    sql("UPDATE sessions SET expires = %s", time)
    sql('UPDATE users SET "dateOfBirth" = %s', time)

    open_everything(client, ana, session, *notices)
    ours, seen, url = address(Notification), [], ""
    admin.site._registry[Notification].list_per_page = 1
    try:
        for _ in notices:
            listing = client.get(ours + url).context["cl"]
            seen += [row.title for row in listing.result_list]
            url = listing.later_page
    finally:
        del admin.site._registry[Notification].list_per_page
    assert sorted(seen) == ["n0", "n1", "n2"]
    assert time.split(" ")[0] in client.get(address(Notification)).content.decode()


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "text",
    [DEEP, "9" * 5000, f"[1{'0' * 400}.5]", "[0.1234567890123456789]"],
    ids=["deep", "a number of 5,000 digits", "a number beyond floats", "a number that a float rounds"],
)
def test_json_that_python_cannot_read_is_shown_as_such(client, ana, text):
    activity = UserActivity.objects.create(user_id=ana.pk, event_type="e")
    item = WishlistItem.objects.create(user=ana, flight_data={})
    sql('UPDATE user_activities SET "eventData" = %s::jsonb', text)
    sql('UPDATE wishlist_items SET "flightData" = %s::jsonb', text)

    open_everything(client, activity, item, ana)
    page = client.get(address(WishlistItem, "change", item.pk))
    assert "JSON that is nested too deeply or has a number that is not a float" in page.content.decode()
    form = {"user": ana.pk, "notes": "kept", "notify_on_drop": "on"}
    assert client.post(address(WishlistItem, "change", item.pk), form).status_code == 302
    [(notes, kept)] = sql('SELECT notes, "flightData"::text FROM wishlist_items')
    assert (notes, kept) == ("kept", text)


def test_saving_a_row_preserves_values_that_python_cannot_represent(ana):
    sql("""UPDATE users SET "dateOfBirth" = '0044-03-15 12:00:00+00 BC'""")
    item = WishlistItem.objects.create(user=ana, flight_data={})
    sql('UPDATE wishlist_items SET "flightData" = %s::jsonb', DEEP)

    user, wish = User.objects.get(), WishlistItem.objects.get()
    assert (type(user.date_of_birth), type(wish.flight_data)) == (Beyond, Unreadable)
    user.name = wish.notes = "changed"
    user.save()
    wish.save()

    assert sql('SELECT "dateOfBirth"::text, name FROM users') == [("0044-03-15 12:00:00+00 BC", "changed")]
    assert sql('SELECT "flightData"::text, notes FROM wishlist_items WHERE id = %s', item.pk) == [(DEEP, "changed")]


@pytest.mark.parametrize(
    "json",
    [
        '{"a": NaN}',
        "[Infinity]",
        "[1e400]",
        '{"a": "\\u0000"}',
        '{"a": "\\ud800"}',
        '{"a": 0.12345678901234567890123}',
        "[1e-400]",
        '{"a": 1, "a": 2}',
        "9" * 5000,
        "[" * 100_000,
    ],
)
def test_a_form_rejects_json_that_the_database_rejects(client, ana, json):
    notice = Notification.objects.create(user=ana, type="t", title="t", message="m", metadata={"a": 1})
    client.force_login(User.objects.create_superuser("staff@example.com"))

    form = {"user": ana.pk, "type": "t", "title": "t", "message": "m", "metadata": json, "priority": "low"}
    page = client.post(address(Notification, "change", notice.pk), form)

    assert (page.status_code, "This JSON cannot be saved" in page.content.decode()) == (200, True)
    notice.refresh_from_db()
    assert notice.metadata == {"a": 1}


@pytest.mark.parametrize("json", ['{"a": "\\\\u0000"}', '{"a": 1.5}', '"text"', "[]"])
def test_a_form_accepts_json_that_the_database_accepts(client, ana, json):
    notice = Notification.objects.create(user=ana, type="t", title="t", message="m", metadata={"a": 1})
    client.force_login(User.objects.create_superuser("staff@example.com"))

    form = {"user": ana.pk, "type": "t", "title": "t", "message": "m", "metadata": json, "priority": "low"}
    page = client.post(address(Notification, "change", notice.pk), form)

    assert page.status_code == 302
    assert sql("SELECT metadata = %s::jsonb FROM notifications", json) == [(True,)]


@pytest.mark.parametrize("place", ["foo BC", "99999-99-99 x", "-1 BC", "10000000-01-01 00:00:00+00"])
def test_an_impossible_time_is_reported(client, ana, place):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    token = base64.urlsafe_b64encode(json.dumps([place, "x"]).encode()).decode().rstrip("=")

    page = client.get(f"{address(Notification)}?after={token}", follow=True)

    assert (page.status_code, "The URL names no position in this list" in page.content.decode()) == (200, True)


def test_times_beyond_the_calendar_survive_copying():
    time = Beyond.of("infinity")

    copies = [copy.copy(time), copy.deepcopy(time), pickle.loads(pickle.dumps(time)), time.astimezone(UTC)]
    assert [one.text for one in copies] == ["infinity"] * 4
    assert (str(time), f"{time:%Y}", time.isoformat(), time.strftime("%Y")) == ("infinity",) * 4


@pytest.mark.parametrize("time", ["infinity", "-infinity", "2026-04-01 12:00:00+00"])
def test_the_timeline_pages_over_equal_times(client, ana, time):
    Notification.objects.bulk_create(Notification(user=ana, type="t", title=f"n{n:02}", message="m") for n in range(70))
    sql('UPDATE notifications SET "createdAt" = %s', time)
    client.force_login(User.objects.create_superuser("staff@example.com"))

    seen, url = [], ""
    for _ in range(3):
        page = client.get(address(User, "overview", ana.pk) + url).context
        seen += [event.text for event in page["events"]]
        url = page["next_events"]

    assert (sorted(seen), url) == (sorted(f"Notified: {one}" for one in Notification.objects.all()), "")


@pytest.fixture
def hotel(ana):
    """A wish for a hotel, as the site's later schema stores it: without a flight."""
    sql('ALTER TABLE wishlist_items ALTER "flightData" DROP NOT NULL')
    item = WishlistItem.objects.create(user=ana, flight_data={})
    sql('UPDATE wishlist_items SET "flightData" = NULL')
    return item


def test_a_wish_without_a_flight_is_shown_and_kept(client, ana, hotel):
    open_everything(client, hotel, ana)
    wish = WishlistItem.objects.get()
    wish.notes = "changed"
    wish.save()

    assert wish.flight_data is None
    assert sql('SELECT "flightData", notes FROM wishlist_items') == [(None, "changed")]
    assert hotel.pk in client.get(address(WishlistItem)).content.decode()


def test_another_field_of_a_wish_without_a_flight_can_be_saved(client, ana, hotel):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    page = address(WishlistItem, "change", hotel.pk)
    form = client.get(page).context["adminform"].form
    shown = form["flight_data"].value()

    answer = client.post(page, {"user": ana.pk, "flight_data": shown, "notify_on_drop": "on", "notes": "changed"})

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    assert sql('SELECT "flightData", notes FROM wishlist_items') == [(None, "changed")]
