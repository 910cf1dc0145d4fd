"""Prisma finds rows by the times that Django writes: both use milliseconds."""

from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.contrib.auth.models import update_last_login
from django.core.serializers import deserialize
from django.db import connection, models
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now

from accounts.models import Session, User
from engagement.actions import mark_notifications_read
from engagement.models import Notification
from fly2any.database.schema.contract import catalog_of, load
from fly2any.database.schema.cures import add_column
from fly2any.postgres.fields import DateTimeField
from travel.models import PriceAlert, PriceHistory, SavedSearch

pytestmark = pytest.mark.django_db
PRECISE = datetime(2026, 5, 1, 12, 30, 15, 123_999, tzinfo=UTC)
IN_MILLISECONDS = PRECISE.replace(microsecond=123_000)
# What Prisma does with a time: it reads milliseconds, and sends them back.
FOUND_SQL = """
    SELECT count(*) FROM {table} WHERE "{column}" = to_timestamp(floor(extract(epoch FROM "{column}") * 1000) / 1000.0)
"""


def found(model, name):
    """Return how many rows Prisma's equality filter finds by a column."""
    with connection.cursor() as cursor:
        cursor.execute(FOUND_SQL.format(table=model._meta.db_table, column=model._meta.get_field(name).column))
        return cursor.fetchone()[0]


def test_a_row_is_found_by_the_times_that_django_and_the_database_gave_it():
    for n in range(50):
        user = User.objects.create(email=f"{n}@example.com", email_verified=PRECISE)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.0007)")
    update_last_login(None, user)

    assert [found(User, name) for name in ("created_at", "updated_at", "email_verified")] == [50, 50, 50]
    assert found(User, "last_login") == 1
    assert User.objects.filter(email_verified=IN_MILLISECONDS).count() == 50


def test_an_object_has_the_times_that_its_row_has():
    user = User.objects.create(email="a@example.com", email_verified=PRECISE)
    row = User.objects.get()

    assert (user.email_verified, user.updated_at) == (row.email_verified, row.updated_at) == (IN_MILLISECONDS, row.updated_at)


def test_rows_written_in_bulk_and_by_actions_are_found_too():
    user = User.objects.create(email="a@example.com")
    Notification.objects.bulk_create(Notification(user=user, type="promotion", title="t", message="m") for _ in range(3))
    notices = list(Notification.objects.all())
    mark_notifications_read(notifications=Notification.objects.filter(pk=notices[0].pk))
    Session.objects.create(session_token="t", user=user, expires=PRECISE)
    Session.objects.update(expires=PRECISE + timedelta(hours=1))
    for notice in notices:
        notice.read_at = PRECISE
    Notification.objects.bulk_update(notices[1:], ["read_at"])

    assert (found(Notification, "created_at"), found(Notification, "read_at"), found(Session, "expires")) == (3, 3, 1)
    assert Session.objects.get().expires == IN_MILLISECONDS + timedelta(hours=1)


def test_times_that_the_database_computes_are_found_too():
    user = User.objects.create(email="a@example.com")
    trip = {"user": user, "origin": "GRU", "destination": "LIS", "depart_date": "2026-07-01"}
    alert = PriceAlert.objects.create(current_price=500, target_price=400, **trip)
    written = [
        Value(PRECISE),
        Value("2026-05-01 12:30:15.123999+00"),
        Now(),
        F("last_checked") + timedelta(microseconds=123),
        Case(When(origin="GRU", then=Value(PRECISE))),
    ]

    times = []
    for value in written:
        PriceAlert.objects.update(last_checked=value)
        times.append(found(PriceAlert, "last_checked"))
    alert.last_checked = Now()
    alert.save()
    times.append(found(PriceAlert, "last_checked"))
    PriceAlert.objects.create(current_price=5, target_price=4, last_checked=Now(), **trip)
    times.append(found(PriceAlert, "last_checked"))
    User.objects.update(email_verified=Value(None))

    assert (times, User.objects.get().email_verified) == ([1, 1, 1, 1, 1, 1, 2], None)


def test_a_row_that_is_loaded_without_its_time_gets_one_that_is_found():
    row = {"model": "accounts.user", "pk": "u", "fields": {"email": "a@example.com", "updated_at": "2026-05-01T00:00:00Z"}}
    found_by = []
    for _ in range(2):  # Inserted, then updated.
        [loaded] = deserialize("python", [row])
        loaded.save()
        found_by.append(found(User, "created_at"))

    assert (found_by, User.objects.count()) == ([1, 1], 1)


def test_polling_for_newer_rows_ends():
    PriceHistory.objects.create(origin="GRU", destination="LIS", depart_date="2026-06-01", price=1, provider="duffel")
    last = PriceHistory.objects.get().timestamp
    as_prisma_has_it = last.replace(microsecond=last.microsecond // 1000 * 1000)

    assert list(PriceHistory.objects.filter(timestamp__gt=as_prisma_has_it)) == []


def test_times_of_years_that_python_does_not_have_stay():
    user = User.objects.create(email="a@example.com")
    with connection.cursor() as cursor:
        cursor.execute("""UPDATE users SET "emailVerified" = 'infinity'""")
    user = User.objects.get()
    user.save()

    with connection.cursor() as cursor:
        cursor.execute("""SELECT "emailVerified"::text FROM users""")
        assert cursor.fetchone() == ("infinity",)


def test_rows_whose_missing_time_the_cure_fills_are_found():
    User.objects.create(email="a@example.com")
    columns = catalog_of(load().versions).columns
    [column] = [column for column in columns if (column.table, column.name) == ("users", "createdAt")]
    with connection.cursor() as cursor:
        cursor.execute('ALTER TABLE users DROP COLUMN "createdAt" CASCADE')
        cursor.execute(add_column(column))
        assert found(User, "created_at") == 1
        cursor.execute(
            """SELECT column_default FROM information_schema.columns WHERE table_name = 'users' AND column_name = 'createdAt'"""
        )
        assert cursor.fetchone() == ("CURRENT_TIMESTAMP",)


def test_every_time_column_of_our_tables_is_truncated():
    fields = [
        field
        for app in ("accounts", "travel", "engagement", "ai_consultant")
        for model in apps.get_app_config(app).get_models()
        for field in model._meta.local_fields
        if isinstance(field, models.DateTimeField)
    ]

    assert [str(field) for field in fields if not isinstance(field, DateTimeField)] == []
    assert len(fields) > 30
    assert SavedSearch._meta.get_field("last_searched").deconstruct()[1] == "django.db.models.DateTimeField"
