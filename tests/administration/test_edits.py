"""A form writes exactly what the user changed, and nothing that it did not show."""

import threading
import time

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.db import connection, models
from django.urls import reverse

from accounts.models import User, UserPreferences
from engagement.models import Notification, WishlistItem
from fly2any.administration.backends import DEVICE
from fly2any.administration.options import ReadOnlyModelAdmin
from tests.administration.conftest import address
from tests.administration.html_form import controls
from travel.models import PriceAlert, SavedSearch

pytestmark = pytest.mark.django_db
EDITABLE = [
    model for model, page in admin.site._registry.items() if not isinstance(page, ReadOnlyModelAdmin) and model is not Group
]
TEXTS = [
    "",
    " ",
    "  two \t blanks ",
    "a\nb",
    "a\r\nb\rc",
    "\nfirst",
    "last\n",
    "<b>\"&amp;'</b>",
    "ünï 漢字 🛫",
    "\x01\x7f",
    "None",
    "{}",
]
ODD = {
    models.TextField: TEXTS,
    models.DateTimeField: [
        "2026-01-02 03:04:05.678+00", "2026-01-02 03:04:05.678901+00", "0001-01-01 00:00:00+00",
        "9999-12-31 23:59:59.999+00", "2026-01-02 23:59:59.9+00", "infinity", "0044-03-15 00:00:00+00 BC",
    ],
    models.FloatField: ["NaN", "Infinity", "-Infinity", "-0", "0.1", "1e300", "5e-324", "123456789012345680"],
    models.IntegerField: ["-2147483648", "0", "2147483647"],
    models.BooleanField: ["true", "false"],
    models.JSONField: [
        "null", "[]", "{}", '""', "0", "1.0", "1.10", "false", '{"b": 1, "a": [null, 1e3]}', "12345678901234567890123",
        "0.1234567890123456789", '"a\\r\\nb"', '{"é": " <&> "}',
    ],
    "array": ["{}", "{NULL,AA}", '{"A,B"}', '{"","x "}', '{"[1]"}', '{None}', '{"\\"q\\"","a\\nb"}', "{{A},{B}}", "{AA,BB}"],
}  # fmt: skip


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else None


def odd_values(field):
    """Return odd values for a column, as SQL reads them; None where NULL may be in it."""
    if isinstance(field, models.ForeignKey) or not field.editable or field.unique:
        return []
    kind = "array" if field.get_internal_type() == "ArrayField" else field.get_internal_type()
    values = next((texts for key, texts in ODD.items() if key == kind or getattr(key, "__name__", "") == kind), [])
    return [*values, *([None] if field.null else [])]


def rows_of(model):
    """Return the whole row as the server has it, with the transaction that wrote it, for every row."""
    return sql(f'SELECT t::text, t.ctid::text, t.xmin::text, t.cmin::text FROM "{model._meta.db_table}" t ORDER BY 1')


@pytest.fixture
def ana():
    return User.objects.create(email="ana@example.com")


@pytest.fixture
def make(ana):
    """A function that makes a row of a model."""
    trip = {"user": ana, "origin": "GRU", "destination": "LIS", "depart_date": "2026-07-01"}
    made = {
        User: lambda: ana,
        UserPreferences: lambda: UserPreferences.objects.create(user=ana),
        SavedSearch: lambda: SavedSearch.objects.create(name="n", **trip),
        PriceAlert: lambda: PriceAlert.objects.create(current_price=500, target_price=400, **trip),
        WishlistItem: lambda: WishlistItem.objects.create(user=ana, flight_data={"origin": "GRU"}),
        Notification: lambda: Notification.objects.create(user=ana, type="t", title="t", message="m"),
    }
    return lambda model: made[model]()


def form_of(staff, row):
    """Open the form of a row; return its URL, and what a browser sends for the untouched form."""
    url = address(type(row), "change", row.pk)
    return url, controls(staff.get(url), f"{type(row)._meta.model_name}_form")


def test_every_table_with_a_form_has_a_row_made_for_it(make):
    assert [type(make(model)) for model in EDITABLE] == EDITABLE


@pytest.mark.sampled(3)
@pytest.mark.parametrize("model", EDITABLE, ids=lambda model: model._meta.db_table)
def test_saving_an_untouched_form_writes_nothing(model, make, staff):
    row = make(model)
    columns = {field: odd_values(field) for field in model._meta.local_fields}
    rounds = max(len(values) for values in columns.values())
    for number in range(rounds):
        odd = {field.column: values[number % len(values)] for field, values in columns.items() if values}
        places = ", ".join(f'"{column}" = %s' for column in odd)
        sql(f'UPDATE "{model._meta.db_table}" SET {places} WHERE id = %s', *odd.values(), row.pk)
        before = rows_of(model)

        url, sent = form_of(staff, row)
        answer = staff.post(url, sent)

        assert (answer.status_code, rows_of(model)) == (302, before), odd
    assert LogEntry.objects.count() == 0
    assert "No changes to save." in staff.get(address(model)).content.decode()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("model", EDITABLE, ids=lambda model: model._meta.db_table)
def test_changing_one_field_keeps_the_others_and_concurrent_changes(model, make, staff):
    row = make(model)
    changed = {
        User: "bio", UserPreferences: "language", SavedSearch: "name", PriceAlert: "currency", WishlistItem: "notes",
        Notification: "message",
    }[model]  # fmt: skip
    url, sent = form_of(staff, row)
    odd = {field: values[2 % len(values)] for field in model._meta.local_fields if (values := odd_values(field))}
    places = ", ".join(f'"{field.column}" = %s' for field in odd if field.name != changed)
    sql(
        f'UPDATE "{model._meta.db_table}" SET {places} WHERE id = %s',
        *(value for field, value in odd.items() if field.name != changed), row.pk,
    )  # fmt: skip
    columns = [field.column for field in model._meta.local_fields if not getattr(field, "auto_now", False)]
    texts = ", ".join(f'"{column}"::text' for column in columns)
    [before] = sql(f'SELECT {texts} FROM "{model._meta.db_table}" WHERE id = %s', row.pk)

    assert staff.post(url, {**sent, changed: "by staff"}).status_code == 302

    [after] = sql(f'SELECT {texts} FROM "{model._meta.db_table}" WHERE id = %s', row.pk)
    expected = dict(zip(columns, before, strict=True)) | {model._meta.get_field(changed).column: "by staff"}
    assert dict(zip(columns, after, strict=True)) == expected
    assert LogEntry.objects.get().get_change_message() == f"Changed {model._meta.get_field(changed).verbose_name.capitalize()}."


def test_a_conflict_is_reported_with_both_values_and_can_be_overwritten(ana, staff):
    url, sent = form_of(staff, ana)
    sql("UPDATE users SET phone = %s, bio = %s", "+55 11 1", "theirs")

    page = staff.post(url, {**sent, "phone": "+351 2", "country": "PT"})

    assert page.status_code == 200
    [message] = page.context["adminform"].form.errors["phone"]
    assert message == (
        "Another client changed this to “+55 11 1” after you opened the form; you entered “+351 2”. Save again to replace it."
    )
    assert sql("SELECT phone, country, bio FROM users WHERE id = %s", ana.pk) == [("+55 11 1", None, "theirs")]

    assert staff.post(url, controls(page, "user_form")).status_code == 302
    assert sql("SELECT phone, country, bio FROM users WHERE id = %s", ana.pk) == [("+351 2", "PT", "theirs")]


@pytest.mark.parametrize(("name", "column", "theirs", "ours"), [
    ("email_notifications", "emailNotifications", False, None),
    ("currency", "currency", "EUR", "BRL"),
    ("preferred_airlines", "preferredAirlines", ["AA"], "BB"),
    ("home_airport", "homeAirport", "", "LIS"),
])  # fmt: skip
def test_every_kind_of_field_is_compared(make, staff, name, column, theirs, ours):
    row = make(UserPreferences)
    url, sent = form_of(staff, row)
    sql(f'UPDATE user_preferences SET "{column}" = %s', theirs)

    unchanged = staff.post(url, sent)
    changed = {key: value for key, value in {**sent, name: ours}.items() if value is not None}
    page = staff.post(url, changed)

    assert unchanged.status_code == 302
    if name == "email_notifications":  # Both switched it off.
        assert page.status_code == 302
    else:
        assert (page.status_code, list(page.context["adminform"].form.errors)) == (200, [name])
    assert sql(f'SELECT "{column}" FROM user_preferences WHERE id = %s', row.pk) == [(theirs,)]


@pytest.mark.slow
def test_preferences_on_the_page_of_a_user_are_compared_too(make, ana, staff):
    row = make(UserPreferences)
    url, sent = form_of(staff, ana)
    sql("""UPDATE user_preferences SET theme = 'dark', currency = 'EUR'""")

    page = staff.post(url, {**sent, "preferences-0-theme": "system"})
    assert (page.status_code, "Another client changed this to" in page.content.decode()) == (200, True)
    assert staff.post(url, {**sent, "preferences-0-home_airport": "LIS"}).status_code == 302

    assert sql('SELECT theme, currency, "homeAirport" FROM user_preferences WHERE id = %s', row.pk) == [("dark", "EUR", "LIS")]


def test_a_field_that_was_read_only_when_displayed_is_not_emptied(ana, staff):
    sql("""UPDATE users SET "dateOfBirth" = 'infinity' WHERE id = %s""", ana.pk)
    url, sent = form_of(staff, ana)
    sql("""UPDATE users SET "dateOfBirth" = '1990-01-02' WHERE id = %s""", ana.pk)

    assert staff.post(url, {**sent, "name": "Ana"}).status_code == 302

    assert sql('SELECT "dateOfBirth"::date::text, name FROM users WHERE id = %s', ana.pk) == [("1990-01-02", "Ana")]


def test_a_field_that_can_no_longer_be_edited_is_reported(ana, staff):
    url, sent = form_of(staff, ana)
    sql("""UPDATE users SET "dateOfBirth" = 'infinity' WHERE id = %s""", ana.pk)

    page = staff.post(url, {**sent, "date_of_birth_0": "1990-01-02", "date_of_birth_1": "00:00", "name": "Ana"})
    again = staff.post(url, controls(page, "user_form"))

    assert page.context["adminform"].form.non_field_errors() == [
        "The date of birth can no longer be edited here, and stays as it is. Save again to save the rest."
    ]
    assert again.status_code == 302
    assert sql('SELECT "dateOfBirth"::text, name FROM users WHERE id = %s', ana.pk) == [("infinity", "Ana")]


def test_the_digests_of_a_form_are_valid_for_its_row_only_and_reveal_no_value(ana, make, staff):
    _, sent = form_of(staff, ana)
    other = User.objects.create(email="bob@example.com")
    _, others = form_of(staff, other)

    assert {name for name in sent if name.startswith("shown-")} == {f"shown-{name}" for name in (
        "email", "email_verified", "name", "first_name", "last_name", "phone", "date_of_birth", "gender", "country", "timezone",
        "bio", "image", "avatar_url", "profile_completed", "is_active", "is_staff", "is_superuser", "groups", "user_permissions",
    )}  # fmt: skip
    assert all(sent[name] != others[name] for name in sent if name.startswith("shown-"))


@pytest.mark.parametrize(("name", "sent", "stored"), [
    ("preferredAirlines", '["A,B", "AA", " x"]', ["A,B", "AA", " x"]),
    ("preferredAirlines", "AA, BB", ["AA", "BB"]),
])  # fmt: skip
def test_an_array_with_commas_is_edited_as_json(make, staff, name, sent, stored):
    row = make(UserPreferences)
    sql("""UPDATE user_preferences SET "preferredAirlines" = '{"A,B"}'""")
    url, form = form_of(staff, row)

    assert form["preferred_airlines"] == ['["A,B"]']
    assert staff.post(url, {**form, "preferred_airlines": sent}).status_code == 302
    assert sql('SELECT "preferredAirlines" FROM user_preferences WHERE id = %s', row.pk) == [(stored,)]


@pytest.mark.parametrize("sent", ['["\\ud800"]', "AA,,BB", '["AA", null]'])
def test_an_array_that_cannot_be_stored_is_reported(make, staff, sent):
    url, form = form_of(staff, make(UserPreferences))

    page = staff.post(url, {**form, "preferred_airlines": sent})

    assert (page.status_code, [*page.context["adminform"].form.errors]) == (200, ["preferred_airlines"])


@pytest.mark.parametrize("json", ["[]", "{}"])
def test_empty_json_is_a_value(make, staff, json):
    url, sent = form_of(staff, make(WishlistItem))

    assert staff.post(url, {**sent, "flight_data": json}).status_code == 302
    assert sql('SELECT "flightData"::text FROM wishlist_items') == [(json,)]


def test_line_endings_are_written_as_the_row_had_them(make, staff):
    row = make(Notification)
    for stored, expected in (("a\nb", "a\nb\nc"), ("a\r\nb", "a\r\nb\r\nc")):
        sql("UPDATE notifications SET message = %s", stored)
        url, sent = form_of(staff, row)
        staff.post(url, {**sent, "message": f"{sent['message'][0]}\r\nc"})
        assert sql("SELECT message FROM notifications") == [(expected,)]


def test_groups_and_permissions_of_a_user_are_written_when_they_are_changed(ana, staff):
    group, other = Group.objects.create(name="a"), Group.objects.create(name="b")
    url, sent = form_of(staff, ana)
    ana.groups.add(other)

    assert staff.post(url, {**sent, "name": "Ana"}).status_code == 302
    assert list(ana.groups.all()) == [other]
    page = staff.post(url, {**sent, "groups": [group.pk]})
    assert list(page.context["adminform"].form.errors) == ["groups"]
    assert staff.post(url, controls(page, "user_form")).status_code == 302
    assert list(ana.groups.all()) == [group]


@pytest.mark.parametrize("own", [False, True], ids=["somebody's", "one's own"])
def test_a_new_password_writes_only_the_password_and_the_time_of_change(ana, staff, own):
    user = User.objects.get(email="staff@example.com") if own else ana
    user.set_password("a-long-password-1")
    user.save()
    staff.force_login(user if own else User.objects.get(email="staff@example.com"))
    url = reverse("admin:password_change") if own else reverse("admin:auth_user_password_change", args=[user.pk])
    names = ("old_password", "new_password1", "new_password2") if own else ("password1", "password2")
    sent = dict.fromkeys(names, "a-long-password-9") | ({"old_password": "a-long-password-1"} if own else {})
    written = []

    def note(instance, update_fields, **others):
        written.append(update_fields)

    models.signals.post_save.connect(note, sender=User)
    try:
        assert staff.post(url, sent).status_code == 302
    finally:
        models.signals.post_save.disconnect(note, sender=User)

    assert written == [frozenset({"password", "updated_at"})]
    assert User.objects.get(pk=user.pk).check_password("a-long-password-9")
    assert (DEVICE in staff.cookies) is own  # The browser stays known.


def test_no_list_of_the_admin_is_editable():
    assert [model for model, page in admin.site._registry.items() if page.list_editable] == []


@pytest.mark.django_db(transaction=True)
def test_a_change_committed_while_the_form_is_saved_is_detected(ana, staff):
    url, sent = form_of(staff, ana)
    written = threading.Event()

    def write():
        site, watcher = connection.copy(), connection.copy()
        try:
            site.cursor().execute("BEGIN; UPDATE users SET phone = 'theirs', bio = 'theirs'")
            written.set()
            with watcher.cursor() as cursor:
                for _ in range(600):
                    cursor.execute(
                        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                    )
                    if cursor.fetchone():
                        break
                    time.sleep(0.05)
            site.cursor().execute("COMMIT")
        finally:
            site.close()
            watcher.close()

    thread = threading.Thread(target=write)
    thread.start()
    written.wait(30)
    page = staff.post(url, {**sent, "phone": "ours"})
    thread.join()

    assert list(page.context["adminform"].form.errors) == ["phone"]
    assert sql("SELECT phone, bio FROM users WHERE id = %s", ana.pk) == [("theirs", "theirs")]


@pytest.mark.slow
def test_a_row_that_is_deleted_meanwhile_is_reported(make, ana, staff):
    preferences = make(UserPreferences)
    url, sent = form_of(staff, ana)
    preferences.delete()

    gone = staff.post(url, {**sent, "preferences-0-theme": "dark"})
    ana.delete()
    nobody = staff.post(url, sent, follow=True)

    assert (gone.status_code, UserPreferences.objects.filter(user_id=ana.pk).count()) == (200, 0)
    assert (nobody.status_code, "Perhaps it was deleted?" in nobody.content.decode()) == (200, True)


def test_permissions_of_a_group_are_compared_too(staff):
    group = Group.objects.create(name="g")
    one, two = Permission.objects.order_by("pk")[:2]
    url, sent = form_of(staff, group)
    group.permissions.add(one)

    assert staff.post(url, {**sent, "name": "other"}).status_code == 302
    assert list(group.permissions.all()) == [one]
    page = staff.post(url, {**sent, "permissions": [two.pk], "name": "other"})
    assert list(page.context["adminform"].form.errors) == ["permissions"]
