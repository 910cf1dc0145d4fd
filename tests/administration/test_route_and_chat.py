"""The pages of a route and of a conversation: the essential first, and nothing twice."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from ai_consultant.chat import cards
from ai_consultant.models import Conversation, Message
from fly2any.administration.charts import round_days, round_steps
from tests.administration.conftest import address
from travel.models import PriceAlert, PriceHistory
from travel.prices import departures

ROUTE = {"origin": "GRU", "destination": "LIS"}
DAY = "2999-07-01"


def test_the_steps_of_an_axis_are_round_and_hold_all_values():
    assert round_steps(97, 431) == [0, 100, 200, 300, 400, 500]
    assert round_steps(131.6, 131.6) == [130, 135]
    assert round_steps(0, 0) == [0, 0.5] or round_steps(0, 0)[0] == 0
    assert round_steps(1_240_000, 1_960_000) == [1_200_000, 1_400_000, 1_600_000, 1_800_000, 2_000_000]
    days = round_days(datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 5, 29, tzinfo=UTC))
    assert [f"{day:%m-%d %H}" for day in days] == [
        "03-02 00",
        "03-16 00",
        "03-30 00",
        "04-13 00",
        "04-27 00",
        "05-11 00",
        "05-25 00",
    ]


@pytest.mark.django_db
def test_a_route_shows_90_days_its_lowest_price_and_its_alerts(member):
    now = timezone.now()
    for days, price in ((0, 410), (3, 397.5), (30, 520), (120, 1)):
        at = now - timedelta(days=days)
        PriceHistory.objects.create(**ROUTE, depart_date=DAY, price=price, currency="EUR", provider="mock", timestamp=at)
    ana = User.objects.create(email="ana@example.com")
    usual = {"user": ana, **ROUTE, "depart_date": DAY, "target_price": 400, "currency": "EUR"}
    PriceAlert.objects.create(**usual, current_price=410)
    PriceAlert.objects.create(**{**usual, "destination": "OPO"}, current_price=410)
    url = f"{reverse('admin:travel_pricehistory_route')}?origin=GRU&destination=LIS&day={DAY}"

    page = unescape(member("Support").get(url).content.decode()).replace("\xa0", " ")

    tiles = re.findall(r"<strong>(.*?)</strong><span>(.*?)</span>", page)
    tiles = [[re.sub("<[^>]+>", "", part) for part in tile] for tile in tiles]
    assert tiles == [
        ["410.00 EUR", "Last recorded price, just now"], ["397.50 EUR", "Lowest, 3 days ago"], ["410.00 EUR", "Median"], ["3", "Recorded prices"],
    ]  # fmt: skip
    chart = re.search(r'<svg class="chart".*?</svg>', page, re.S)[0]
    assert re.findall('class="legend".*?</p>', page) == [
        'class="legend" aria-hidden="true"><span class="lowest">Lowest 397.50 EUR</span></p>'
    ]
    assert re.findall(r'text-anchor="end">([\d,]+)<', chart) == ["350", "400", "450", "500", "550"]
    assert len(re.findall(r'text-anchor="middle">\d\d-\d\d<', chart)) > 3
    assert re.findall(r"<td class=\"sentence\">(Waiting[^<]*)</td>", page) == [
        "Waiting: 410.00 EUR is above 400.00 EUR, checked just now"
    ]


LATE, EARLY = "9999-12-31 23:59Z", "0001-01-01 00:00Z"


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    "seen",
    [
        [(1e308, None), (-1e308, None)], [(5e-324, None), (1e-323, None)], [(1e300, None), (100, None)], [(1e14, None), (1e14 + 1, None)],
        [(1, LATE), (2, None)], [(1, LATE)], [(1, EARLY)], [(1, EARLY), (2, LATE)], [(float("nan"), None), (float("inf"), None)],
    ],
)  # fmt: skip
def test_a_route_with_extreme_prices_and_times_has_a_page(member, seen):
    for price, at in seen:
        at = at or timezone.now()
        PriceHistory.objects.create(**ROUTE, depart_date=DAY, price=price, currency="EUR", provider="mock", timestamp=at)

    url = f"{reverse('admin:travel_pricehistory_route')}?origin=GRU&destination=LIS&day={DAY}"

    assert member("Support").get(url).status_code == 200


@pytest.mark.django_db
def test_a_conversation_begins_with_the_chat_and_names_the_consultant_once(member):
    ana = User.objects.create(email="ana@example.com")
    talk = Conversation.objects.create(user=ana, session_id="s", metadata={"platform": "web"})
    Message.objects.create(conversation=talk, role="user", content="v1:00ff:00ff:00ff", timestamp=1)
    sarah = {"consultant_name": "Sarah Chen", "consultant_team": "flight-operations", "consultant_emoji": "✈️"}
    Message.objects.create(conversation=talk, role="assistant", content="Good morning", timestamp=2, **sarah)

    page = member("Support").get(address(Conversation, "change", talk.pk)).content.decode()

    assert re.findall(r'<div class="who">(.*?) ·', page) == ["User", "✈️ Sarah Chen, Flight operations"]
    assert (
        re.findall(r'<div class="said">\s*(.*?)\s*</div>', page)[0]
        == '<span class="chip warn" title="17 characters">Encrypted</span>'
    )
    places = [page.index(part) for part in ("Good morning", ">Facts</h2>", "<details><summary>", ">Stored as JSON</h2>")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("texts", "is_said"), [(["v1:00ff:00ff:00ff"] * 2, True), (["v1:00ff:00ff:00ff", "Hello"], False), ([], False)]
)
def test_a_conversation_of_encrypted_messages_says_why_they_cannot_be_read(member, texts, is_said):
    talk = Conversation.objects.create(session_id="s", metadata={})
    for place, text in enumerate(texts):
        Message.objects.create(conversation=talk, role="user", content=text, timestamp=place)

    page = member("Support").get(address(Conversation, "change", talk.pk)).content.decode()

    assert ("These messages cannot be read here: the site encrypted them, and only it has the key." in page) == is_said


@pytest.mark.parametrize(("email", "named"), [("ana@example.com", "ana@example.com"), (None, "s1")])
def test_a_conversation_is_titled_with_the_persons_address_or_its_session(member, email, named):
    person = User.objects.create(email=email) if email else None
    talk = Conversation.objects.create(user=person, session_id="s1", metadata={})

    page = member("Support").get(address(Conversation, "change", talk.pk)).content.decode()

    assert re.findall(r"<h[12]>(.*?)</h[12]>", page)[:2] == ["Conversation", named]


def test_an_offer_shows_price_and_duration_like_other_pages():
    flights = [
        {
            "flightNumber": "NH 126",
            "price": {"amount": "84210.00", "currency": "JPY"},
            "outbound": {
                "duration": "PT8H35M",
                "stops": 0,
                "departure": {"airport": "KUL", "time": "2027-03-16T09:30:00+08:00"},
                "arrival": {"airport": "LGW", "time": "2027-03-16T18:05"},
            },
            "cabinClass": "economy",
        },
        {
            "airline": "TP",
            "price": {"amount": 1550.5, "currency": "USD"},
            "outbound": {
                "duration": "PT55M",
                "stops": 2,
                "departure": {"airport": "LIS", "date": "2027-03-17", "time": "07:05"},
            },
        },
        {
            "airline": "TP",
            "price": {"amount": "ask us", "currency": ["x"]},
            "outbound": {"duration": ["PT"], "departure": {"time": [7]}},
        },
        {"airline": "TP", "price": {"amount": 10**400}, "outbound": {"duration": "PT"}},
        {"airline": "TP"},
    ]
    hotels = [{"name": "Hotel Lisbon", "totalPrice": 360, "currency": "USD"}, {"name": "Hotel Porto"}]

    found = list(cards(Message(flight_results=flights, hotel_results=hotels)))

    assert [card.title for card in found] == [
        "NH 126 · 84,210\xa0JPY", "TP · 1,550.50\xa0USD", "TP · ask us ['x']", f"TP · {10**400}", "TP", "Hotel Lisbon", "Hotel Porto",
    ]  # fmt: skip
    assert found[0].lines[:2] == ["2027-03-16", "KUL 09:30 → LGW 18:05"]
    assert found[1].lines[:2] == ["2027-03-17", "LIS 07:05 → ? "]
    assert found[2].lines[:2] == ["The offer contains no date", "? [7] → ? "]
    assert [card.lines[2] for card in found[:4]] == ["8 h 35 min · direct · economy", "55 min · 2 stops", "['PT']", "PT"]
    assert [card.lines[0] for card in found[5:]] == ["360.00\xa0USD in total", ""]


@pytest.mark.django_db
def test_the_departure_dates_of_a_route_are_one_query(django_assert_num_queries):
    days = [f"2999-01-{number:02}" for number in range(1, 29)]
    others = [("GRU", "OPO", "2999-02-01"), ("GIG", "LIS", "2999-02-02"), ("GRU", "LIS", "2999-03-01")]
    for origin, destination, day in [*(("GRU", "LIS", day) for day in days * 2), *others]:
        PriceHistory.objects.create(origin=origin, destination=destination, depart_date=day, price=1, provider="mock")

    with django_assert_num_queries(1):
        found = departures("GRU", "LIS", around="2999-01-03")

    assert found == [*days[2:], "2999-03-01"]
    assert departures("GRU", "XXX") == []


@pytest.mark.django_db
def test_the_figure_of_unchecked_alerts_leads_to_these_alerts(member):
    now = timezone.now()
    ana = User.objects.create(email="ana@example.com")
    usual = {"user": ana, **ROUTE, "depart_date": DAY, "target_price": 400, "current_price": 410}
    for hours, more in ((7, {}), (9, {}), (1, {}), (8, {"active": False}), (8, {"triggered": True})):
        alert = PriceAlert.objects.create(**usual, **more)
        PriceAlert.objects.filter(pk=alert.pk).update(last_checked=now - timedelta(hours=hours))
    client = member("Support")

    tile = next(tile for tile in client.get(reverse("admin:index")).context["tiles"] if "not checked" in tile.label)
    listing = client.get(tile.url).context["cl"]

    shown = [round((now - alert.last_checked) / timedelta(hours=1)) for alert in listing.result_list]
    assert (str(tile.value), shown, listing.is_windowed) == ("2", [7, 9], False)
    assert [chip[:2] for chip in listing.chips][:2] == [("active", "Yes"), ("fired", "No")]
    assert re.fullmatch(r"to \d{4}-\d\d-\d\d( \d\d:\d\d UTC)?", listing.chips[2][1])
