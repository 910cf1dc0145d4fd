"""What pages call a number of rows or findings."""

import re

import pytest
from django.db import connection
from django.urls import reverse

from accounts.models import User, UserPreferences
from ai_consultant.chat import cards
from ai_consultant.models import Message
from engagement import user_agents
from engagement.models import LoginHistory, UserSession
from fly2any.database.findings import Severity
from fly2any.database.units import plural
from tests.administration.conftest import address
from travel.models import PriceHistory

pytestmark = pytest.mark.django_db


def chips(page):
    state = re.search(r'<section class="card state".*?</section>', page.content.decode(), re.S)[0]
    return re.findall(r'<span class="chip ?(\w*)">(.*?)</span>', state)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [("", ("good", "dbstatus: OK")), ('DROP INDEX "price_alerts_active_idx"', ("bad", "1 finding"))],
    ids=["notes", "notes and a finding"],
)
def test_the_first_page_counts_notes_apart_from_findings(member, damage, expected):
    connection.cursor().execute(f'ALTER TABLE wishlist_items ALTER COLUMN "flightData" DROP NOT NULL; {damage}')

    page = member("Administrators").get(reverse("admin:index"))

    notes = sum(finding.severity is Severity.NOTE for finding in page.context["report"].findings)
    assert notes > 0
    assert chips(page) == [expected, ("", plural(notes, "note"))]


@pytest.mark.parametrize(
    ("model", "one", "many"),
    [(PriceHistory, "price", "prices"), (LoginHistory, "sign-in", "sign-ins"), (User, "user", "users")],
)
def test_a_list_counts_its_rows_with_a_noun_that_has_a_plural(member, model, one, many):
    client = member("Administrators")
    ana = User.objects.create(email="ana@example.com")
    for _ in range(2):
        LoginHistory.objects.create(user=ana, ip_address="203.0.113.8", success=True)
        PriceHistory.objects.create(origin="JFK", destination="GRU", depart_date="2026-07-01", price=1, currency="USD")

    found = client.get(address(model, "changelist")).content.decode()
    nothing = client.get(address(model, "changelist"), {"q": "e" * 40 + "@example.com"}).content.decode()

    assert re.search(r'<span class="count">\d+ ([\w-]+)', found)[1] == many
    assert f"<p>No {many} match" in nothing or "did not recognise" in nothing


def test_one_row_of_preferences_is_a_set(member):
    ana = UserPreferences.objects.create(user=User.objects.create(email="ana@example.com"))
    client = member("Administrators")

    page = client.get(address(UserPreferences, "delete", ana.pk)).content.decode()
    deleted = client.post(address(UserPreferences, "delete", ana.pk), {"post": "yes"}, follow=True).content.decode()

    assert (
        re.search(r"<button[^>]*>(.*?)</button>\s*<a class=\"button cancel-link", page)[1] == "Delete this set of preferences"
    )
    assert f"The set of preferences “{ana}” was deleted successfully." in deleted


def test_a_device_shows_only_what_is_known_of_it():
    assert str(UserSession(device="Desktop", browser="Chrome", os="Unknown")) == "Desktop, Chrome"
    assert str(UserSession(device="Unknown", browser="Unknown", os=None)) == "Unknown device"
    assert user_agents.shown("Mozilla/5.0 Chrome/120") == "Chrome"
    assert user_agents.shown("curl/8") == "curl/8"


@pytest.mark.parametrize(
    ("seats", "shown"),
    [(1, "1 seat"), (4, "4 seats"), ("few", "few seats"), (None, ""), ([1], "[1] seats"), (True, "True seats")],
)
def test_a_flight_counts_its_seats(seats, shown):
    [card] = cards(Message(flight_results=[{"flightNumber": "LA1", "seatsAvailable": seats}]))

    assert card.lines[3] == shown
