"""The recorded prices that reached the target of an alert, which did not fire it: said, linked and marked."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from tests.administration.conftest import address
from travel.models import PriceAlert, PriceHistory
from travel.prices import Reached, next_departure, read_prices, read_reached

pytestmark = pytest.mark.django_db
ROUTE = {"origin": "ATL", "destination": "LAX"}
DAY = "2999-01-09"


def alert_of(email, **values):
    person, _ = User.objects.get_or_create(email=email)
    usual = {"user": person, **ROUTE, "depart_date": DAY, "current_price": 268.5, "target_price": 250, "currency": "USD"}
    return PriceAlert.objects.create(**{**usual, "created_at": timezone.now() - timedelta(days=60), **values})


def recorded(days, price, **values):
    """Record a price that was seen `days` ago, and return when."""
    at = timezone.now() - timedelta(days=days, hours=1)
    usual = {**ROUTE, "depart_date": DAY, "currency": "USD", "provider": "mock", "timestamp": at, "price": price}
    PriceHistory.objects.create(**{**usual, **values})
    return at


def test_prices_that_reached_the_target_are_those_of_the_alert_since_it_was_created():
    waiting, others = alert_of("zoe@example.com"), [alert_of("bob@example.com", **more) for more in (
        {"target_price": 200}, {"triggered": True}, {"depart_date": "2999-01-10"}, {"currency": "EUR"}, {"origin": "JFK"},
    )]  # fmt: skip
    recorded(6, 242.74)
    lowest_at = recorded(28, 229.07)
    recorded(28, 229.07 + 40)
    recorded(70, 100)
    recorded(5, 100, destination="SFO")

    with CaptureQueriesContext(connection) as captured:
        found = read_reached([waiting, *others])

    at = found[waiting.pk].at
    assert abs(at - lowest_at) < timedelta(milliseconds=1)
    assert found == {waiting.pk: Reached(2, 229.07, at)}
    assert len([query for query in captured if "FROM price_history" in query["sql"]]) == 1
    assert read_reached([]) == read_reached([others[1]]) == {}


@pytest.mark.slow
def test_an_alert_whose_time_is_infinite_has_a_page(member):
    alert = alert_of("zoe@example.com")
    recorded(6, 1)
    for moment in ("infinity", "-infinity"):
        with connection.cursor() as cursor:
            cursor.execute("""UPDATE price_alerts SET "createdAt" = %s::timestamptz, "targetPrice" = 'NaN'""", [moment])
        client = member("superuser")
        for url in (address(PriceAlert, "change", alert.pk), address(User, "overview", alert.user_id)):
            assert client.get(url).status_code == 200
        User.objects.filter(pk=client.user.pk).delete()


def test_an_alert_says_which_recorded_prices_reached_its_target(member, client):
    alert = alert_of("zoe@example.com")
    recorded(6, 242.74)
    recorded(28, 229.07)
    member("Support")

    pages = [client.get(url).content.decode() for url in (
        address(PriceAlert, "change", alert.pk), address(User, "overview", alert.user_id), f"{reverse('admin:search')}?q=ATL-LAX"
    )]  # fmt: skip

    [form, overview, found] = [unescape(page).replace("\xa0", " ") for page in pages]
    assert (
        "Since the alert was created, 2 recorded prices reached the target, the lowest 229.07 USD 4 weeks ago. The site's check "
        "decides whether an alert fires. The check looks up the price itself, and that price may differ from the recorded ones."
    ) in form
    assert form.count("The check looks up the price itself") == 1
    in_line = "Waiting: 268.50 USD is above 250.00 USD, checked just now; recorded at 229.07 USD 4 weeks ago"
    assert [in_line in overview, in_line in found] == [True, True]


def test_the_route_page_marks_the_alert_it_was_reached_from(member):
    mine = alert_of("zoe@example.com", created_at=timezone.now() - timedelta(days=90))
    for number in range(21):
        alert_of("bob@example.com", created_at=timezone.now() - timedelta(days=number), depart_date=f"2999-02-{number + 1:02}")
    recorded(6, 242.74)
    recorded(28, 312)
    client = member("Support")
    url = f"{reverse('admin:travel_pricehistory_route')}?origin=ATL&destination=LAX&day={DAY}"

    page, plain, foreign = [
        unescape(client.get(address).content.decode()).replace("\xa0", " ")
        for address in (f"{url}&alert={mine.pk}", url, f"{url.replace('ATL', 'JFK')}&alert={mine.pk}")
    ]

    rows = re.findall(r"<tr( class=[^>]*)?><th scope=\"row\">(.*?)</tr>", page)
    assert [bool(marked) for marked, _ in rows] == [True] + [False] * 20
    assert re.findall('href="(.*?)"', rows[0][1]) == [
        address(PriceAlert, "change", mine.pk), address(User, "overview", mine.user_id)
    ]  # fmt: skip
    chart = re.search(r'<svg class="chart".*?</svg>', page, re.S)[0]
    target = f"250.00 USD since {mine.created_at:%Y-%m-%d}"
    assert re.findall(r'class="target">(.*?)<', page) == [f"Target {target}"]
    assert re.search('aria-label="(.*?)"', chart)[1].endswith(f"last 242.74 USD, target {target}")
    assert ['class="target"' in plain, 'class="marked"' in plain, 'class="target"' in foreign] == [False] * 3
    assert len(re.findall('<th scope="row">', plain)) == 20


@pytest.mark.parametrize(
    ("created", "line"),
    [(60, (64, 704)), (18, (384, 704)), (4, (576, 704))],
    ids=["before the prices", "between them", "after the last one"],
)
def test_the_target_is_marked_from_the_creation_of_the_alert_on(created, line):
    now = timezone.now()
    alert = alert_of("zoe@example.com", created_at=now - timedelta(days=created))
    for days in (28, 8) if created != 4 else (20, 8):
        recorded(days, 300, timestamp=now - timedelta(days=days))

    chart = read_prices(**ROUTE, depart_date=DAY, alert=alert).chart

    [found] = re.findall(r'<line class="target" x1="([\d.]+)" x2="([\d.]+)"', chart)
    assert [round(float(x)) for x in found] == [*line]


def test_a_route_without_a_future_departure_names_its_last_one(member):
    recorded(30, 400, depart_date="2026-01-02")
    recorded(30, 300, depart_date="2026-01-05")
    client = member("Support")
    found = client.get(f"{reverse('admin:search')}?q=ATL-LAX").content.decode()
    past = next_departure("ATL", "LAX")
    recorded(3, 200)
    later = client.get(f"{reverse('admin:search')}?q=ATL-LAX").content.decode()

    assert (past, next_departure("ATL", "LAX"), next_departure("ATL", "XXX")) == (
        ("2026-01-05", True), (DAY, False), (None, False)
    )  # fmt: skip
    assert [("Last departure" in page, "Next departure" in page) for page in (found, later)] == [(True, False), (False, True)]
    assert f"{reverse('admin:travel_pricehistory_route')}?origin=ATL&amp;destination=LAX&amp;day=2026-01-05" in found
