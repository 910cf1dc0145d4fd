"""The first page shows one verification for a short time; the Database page verifies each time."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.urls import reverse

from fly2any.administration import dashboard, deadlines
from tests.administration.test_deadlines import busy

VERIFIED_FOR = 30


@pytest.fixture
def clock(monkeypatch):
    """The default age of a verification, and a function that lets the seconds of this process's clock pass."""
    now = [1_000.0]
    monkeypatch.setattr(dashboard, "VERIFIED_FOR", VERIFIED_FOR)
    monkeypatch.setattr(dashboard, "_known", None)
    monkeypatch.setattr(dashboard, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def found(client, page="index"):
    """The findings that count, by code and place, and whether the page says when they were verified."""
    response = client.get(reverse(f"admin:{page}"))
    problems = [(finding.code, finding.where) for finding in response.context["report"].problems]
    return [place for code, place in problems if code == "index.missing"], "Verified " in response.content.decode()


@pytest.mark.django_db
def test_a_verification_is_shown_for_half_a_minute_and_the_database_page_makes_its_own(staff, clock):
    before = found(staff)
    with connection.cursor() as cursor:
        cursor.execute('DROP INDEX "price_alerts_active_idx"')
    clock(VERIFIED_FOR - 1)
    meanwhile, now = found(staff), found(staff, "database")
    clock(1)

    missing = ["price_alerts.price_alerts_active_idx"]
    assert (before, meanwhile, now, found(staff)) == (([], True), ([], True), (missing, False), (missing, True))


@pytest.mark.django_db(transaction=True)
def test_a_verification_that_waits_for_a_lock_is_reported_and_not_kept(staff, clock, monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 200)
    with busy("django_migrations"):
        page = staff.get(reverse("admin:index"))

    shown = page.content.decode()
    assert '<span class="chip warn">1 finding</span>' in shown
    assert "The schema could not be queried: Another transaction holds a lock" in shown
    assert dashboard._known is None
    assert found(staff) == ([], True)


def test_a_curve_ends_at_the_last_time_that_python_has():
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    bounds = [first + (last - first) * place / 40 for place in range(40)] + [last]

    assert all(dashboard._spark([bounds[0] + timedelta(microseconds=more), *bounds[1:]]) for more in range(30))
