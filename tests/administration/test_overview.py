"""The overview of a person: events, numbers, the state of alerts, and nothing about others."""

import re
from datetime import timedelta
from html import unescape
from secrets import token_hex
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts.models import User
from ai_consultant.models import Conversation, Message
from engagement.models import LoginHistory, Notification, UserActivity, UserSession, WishlistItem
from fly2any.administration.models import Access
from tests.administration.conftest import address
from travel.alert_states import alert_state
from travel.models import PriceAlert, PriceHistory, RecentSearch, SavedSearch

pytestmark = pytest.mark.django_db
ROUTE = {"origin": "JFK", "destination": "GRU"}


def text_of(html):
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", part)).split()) for part in html]


def test_the_timeline_says_what_happened_naming_each_thing_once(member):
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    activities = [("search", ROUTE), ("view", None), ("book", ROUTE), ("error:payment", None), ("guest_email_captured", None)]
    for place, (kind, data) in enumerate(activities):
        UserActivity.objects.create(user=ana, event_type=kind, event_data=data, created_at=now - timedelta(days=place))
    for place, success in enumerate((True, False)):
        at = now - timedelta(days=10 + place)
        LoginHistory.objects.create(user=ana, ip_address="203.0.113.8", success=success, timestamp=at)
    UserSession.objects.create(user=ana, token="t", device="Mobile", browser="Safari", last_active=now - timedelta(days=20))
    Notification.objects.create(
        user=ana, type="promotion", title="Half price", message="m", created_at=now - timedelta(days=21)
    )
    RecentSearch.objects.create(
        user=ana, city="Lisbon", country="PT", airport_code="LIS", price=1, viewed_at=now - timedelta(days=22)
    )
    SavedSearch.objects.create(
        user=ana, name="Summer", **ROUTE, depart_date="2026-07-01", last_searched=now - timedelta(days=23)
    )
    WishlistItem.objects.create(
        user=ana, flight_data={**ROUTE, "departureDate": "2026-07-01"}, created_at=now - timedelta(days=400)
    )

    page = member("Support").get(address(User, "overview", ana.pk)).content.decode()

    timeline = re.search(r'<ol class="timeline">(.*?)</ol>', page, re.S)[1]
    assert text_of(re.findall(r"<div>(.*?)</div>", timeline, re.S)) == [
        "Searched JFK → GRU",
        "Viewed a page",
        "Booked JFK → GRU",
        "An error occurred (payment)",
        "Guest e-mail captured",
        "Signed in from 203.0.113.8",
        "Sign-in failed from 203.0.113.8",
        "Active on Mobile, Safari",
        "Notified: Half price",
        "Viewed Lisbon (LIS)",
        "Searched JFK\xa0→\xa0GRU, saved as “Summer”".replace("\xa0", " "),
        "Added JFK → GRU, 2026-07-01 to the wishlist",
    ]
    chart = re.search(r'<svg class="chart bars".*?</svg>', page, re.S)[0]
    assert "to today: 11 events, 5 in the busiest week" in chart
    assert len(re.findall("<rect", chart)) == 12


def test_empty_tables_are_one_line_and_second_factors_appear_for_staff_only(member):
    ana = User.objects.create(email="ana@example.com")
    Conversation.objects.create(user=ana, session_id="s", metadata={})
    client = member("superuser")

    [page, of_staff] = [client.get(address(User, "overview", user.pk)).content.decode() for user in (ana, client.user)]

    [[empty], [of_staff]] = [re.findall(r'<p class="quiet">No rows in: (.*?)\.</p>', one) for one in (page, of_staff)]
    assert {"OAuth accounts", "price alerts", "sign-ins"} < set(empty.split(", "))
    assert (len(re.findall('<section class="module panel">', page)), "Conversations</h2>" in page) == (4, True)
    assert ["authenticator apps, passkeys" in one for one in (empty, of_staff)] == [False, True]


def test_an_alert_says_why_it_did_not_fire(member):
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    usual = {"user": ana, **ROUTE, "depart_date": "2999-07-01", "current_price": 512, "target_price": 400, "last_checked": now}
    said = {
        "Waiting: 512.00\xa0USD is above 400.00\xa0USD, checked just now": {},
        "Fires at the next check if the price is still as low: 399.00\xa0USD is at or below 400.00\xa0USD, checked just now": {"current_price": 399},
        "The departure date has passed": {"depart_date": "2026-01-01"},
        "Paused": {"active": False},
        "Fired 2\xa0days ago; re-arm it to let it fire again": {
            "triggered": True, "active": False, "triggered_at": now - timedelta(days=2, hours=1)
        },
    }  # fmt: skip
    alerts = [PriceAlert.objects.create(**{**usual, **values}) for values in said.values()]

    assert [alert_state(alert) for alert in alerts] == list(said)
    client = member("Support")
    overview = unescape(client.get(address(User, "overview", ana.pk)).content.decode())
    assert [sentence in overview for sentence in said] == [True] * 5
    facts = "Target: 400.00\xa0USD or less. Last checked price: {}.00\xa0USD, just now."
    in_full = [
        f"Active, waiting for a lower price. {facts.format(512)}",
        f"Active; fires at the next check if the price is still as low. {facts.format(399)}",
        f"The departure date has passed; will not fire. {facts.format(512)}",
        f"Paused; will not fire until active. {facts.format(512)}",
        f"Fired 2\xa0days ago; will not fire again until re-armed. {facts.format(512)}",
    ]
    pages = [unescape(client.get(address(PriceAlert, "change", alert.pk)).content.decode()) for alert in alerts]
    assert [sentence in page for sentence, page in zip(in_full, pages, strict=True)] == [True] * 5
    query = {**ROUTE, "day": "2999-07-01", "alert": alerts[0].pk}
    route = f"{reverse('admin:travel_pricehistory_route')}?{urlencode(query)}"
    assert [f'href="{route}"' in page for page in (overview, pages[0])] == [True] * 2
    listed = client.get(address(PriceAlert)).content.decode()
    chips = re.findall(r'<td class="field-state_chip"><span class="chip[^"]*">(.*?)</span>', listed)
    assert sorted(chips) == ["Departed", "Fired", "Fires next", "Paused", "Waiting"]


def test_an_empty_list_says_in_one_sentence_what_its_rows_are(member):
    client, said = member("superuser"), {}
    for model in (PriceAlert, PriceHistory, TOTPDevice, Access):
        page = client.get(address(model)).content.decode()
        said[model] = re.search(r'<p>No [\w -]+ yet\.</p>\s*<p class="quiet">(.*?)</p>', page)[1]

    assert said == {
        PriceAlert: "An alert that fires when the price of a route falls to the target.",
        PriceHistory: "A price recorded for a route and a departure date.",
        TOTPDevice: "A second factor that a staff member has set up.",
        Access: "A conversation that staff opened, rows that they exported, or a person they erased.",
    }
    PriceHistory.objects.create(**ROUTE, depart_date="2999-07-01", price=400, provider="mock")
    listed = client.get(address(PriceHistory)).content.decode()
    assert re.findall(r'<option value="delete_selected">(.*?)</option>', listed) == ["Delete prices"]


def test_a_list_by_id_is_said_to_be_newest_first_only_where_its_rows_are(member):
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    usual = {"user": ana, **ROUTE, "depart_date": "2999-07-01", "current_price": 2, "target_price": 1}
    for place in range(3):
        PriceAlert.objects.create(**usual, id=f"id-{place}", created_at=now + timedelta(days=place))
    client = member("Support")

    def said(model, query=""):
        return client.get(address(model) + query).context["cl"].order_description

    assert said(PriceAlert) == "Newest first, by ID"
    PriceAlert.objects.filter(pk="id-1").update(created_at=now + timedelta(days=9))
    assert said(PriceAlert) == "By ID, descending"
    assert (said(User), said(Conversation)) == ("Newest first", "Newest first")
    assert said(PriceAlert, "?active=1&triggered=0") == "By last checked, newest first"


def test_those_who_may_not_erase_a_person_read_who_may(member):
    ana, staff = User.objects.create(email="ana@example.com"), User.objects.create(email="staff@example.com", is_staff=True)
    client = member("Support")

    pages = [client.get(address(User, "overview", person.pk)).content.decode() for person in (ana, staff)]
    pages.append(member("Administrators").get(address(User, "overview", ana.pk)).content.decode())

    said = ["Only administrators and members of the group Administrators can erase this person." in page for page in pages]
    assert said == [True, False, False]


def test_an_overview_says_that_nothing_can_be_signed_out_to_those_who_may(member):
    ana = User.objects.create(email="ana@example.com")
    said = "There is nothing to sign out of: no session or signed-in device that you can revoke is stored. A browser may stay signed in to the site until its cookie"
    support = member("Support")
    page = support.get(address(User, "overview", ana.pk)).content.decode()
    UserSession.objects.create(user=ana, token="t", device="Mobile")
    other = support.get(address(User, "overview", ana.pk)).content.decode()
    refused = member("Operations").get(address(User, "overview", User.objects.create(email="bob@example.com").pk))

    assert (said in page, "Sign out everywhere</a>" in page) == (True, False)
    assert (said in other, "Sign out everywhere</a>" in other) == (False, True)
    assert said not in refused.content.decode()


def test_an_overview_is_titled_with_the_name_or_the_address(member):
    ana = User.objects.create(email="ana@example.com", name="Ana <b>Souza</b>")
    nameless = User.objects.create(email="nameless@example.com", name="")
    support = member("Support")

    titles = [
        re.search(r"<h1>(.*?)</h1>", support.get(address(User, "overview", person.pk)).content.decode())[1]
        for person in (ana, nameless)
    ]

    assert titles == ["Ana &lt;b&gt;Souza&lt;/b&gt;", "nameless@example.com"]


def test_a_panel_shows_the_newest_rows_first_whatever_their_ids(member):
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    for place, days in enumerate((3, 9, 1, 4, 8, 6, 5)):
        at = now - timedelta(days=days, hours=1)
        common = {"user": ana, "id": f"id-{place}", "created_at": at}
        Conversation.objects.create(**common, session_id=f"s{place}", metadata={})
        PriceAlert.objects.create(**common, **ROUTE, depart_date=f"2999-01-0{days}", current_price=2, target_price=1)
    client = member("Support")

    page = client.get(address(User, "overview", ana.pk)).content.decode()

    for model, title in ((Conversation, "Conversations"), (PriceAlert, "Price alerts")):
        panel = page.partition(f"<h2>{title}</h2>")[2].partition("</table>")[0]
        ids = re.findall(r'<th scope="row"><a href="([^"]*)"', panel)
        assert ids == [address(model, "change", f"id-{place}") for place in (2, 0, 3, 6, 5)], title


def test_the_list_that_a_panel_leads_to_has_the_order_of_the_panel(member, monkeypatch):
    monkeypatch.setattr(admin.site._registry[PriceAlert], "list_per_page", 3)
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    for place, days in enumerate((3, 9, 1, 4, 8, 6, 5)):
        at = now - timedelta(days=days)
        PriceAlert.objects.create(
            user=ana, id=f"id-{place}", created_at=at, **ROUTE, depart_date="2999-01-01", current_price=2, target_price=1
        )
    client = member("Support")
    page = client.get(address(User, "overview", ana.pk)).content.decode()
    [url] = re.findall(rf'href="({address(PriceAlert)}[^"]*)">Show all', page)

    lists = [client.get(url).context["cl"]]
    while lists[-1].has_later:
        lists.append(client.get(address(PriceAlert) + lists[-1].later_page).context["cl"])

    assert [[row.pk for row in one.result_list] for one in lists] == [
        ["id-2", "id-0", "id-3"], ["id-6", "id-5", "id-4"], ["id-1"]
    ]  # fmt: skip
    assert {one.order_description for one in lists} == {"Newest first"}


def flights(origin, destination):
    return [{"outbound": {"departure": {"airport": origin}, "arrival": {"airport": destination}}}]


def test_a_panel_says_what_a_conversation_is_about_without_its_texts(member, client):
    ana, now = User.objects.create(email="ana@example.com"), timezone.now()
    cipher = "v1:00ff:00ff:" + "ab" * 3_000
    texts, said = "I am ill", {
        "KUL → LGW": [{}, {"flight_results": flights("KUL", "LGW")}, {"flight_results": flights("LGW", "KUL")}],
        "GRU → LIS Encrypted": [{"content": cipher}, {"content": cipher, "flight_results": flights("GRU", "LIS")}],
        "Hotel Lisbon": [{"hotel_results": [{"name": "Hotel Lisbon"}]}, {"content": cipher}],
        "JFK → GRU": [{"flight_results": {"odd": 1}}, {"flight_results": [7], "hotel_results": [{"name": token_hex(20_000)}]}],
        "Paris": [],
        "Encrypted": [{"content": cipher}],
    }  # fmt: skip
    kept = {"JFK → GRU": {"search_history": [ROUTE]}, "Paris": {"conversation_context": {"destination": "Paris"}}}
    for place, (subject, messages) in enumerate(said.items()):
        usual = {"user": ana, "session_id": f"s{place}", "metadata": {}, "created_at": now - timedelta(days=place)}
        talk = Conversation.objects.create(**usual, **kept.get(subject, {}))
        for time, message in enumerate(messages):
            Message.objects.create(**{"conversation": talk, "role": "user", "content": texts, "timestamp": time, **message})
    reader = User.objects.create(email="reader@staff.example", is_staff=True)
    reader.user_permissions.add(*Permission.objects.filter(codename__in=["view_conversation", "view_user"]))
    client.force_login(reader)

    def subjects():
        page = client.get(address(User, "overview", ana.pk)).content.decode()
        assert texts not in page
        panel = page.partition("<h2>Conversations</h2>")[2].partition("</table>")[0]
        return text_of(re.findall(r'<th scope="row">(.*?)</th>', panel))

    assert subjects() == ["No route", "No route", "No route", "JFK → GRU", "Paris"]
    member("Support")
    with CaptureQueriesContext(connection) as captured:
        assert subjects() == list(said)[:5]
    assert len([query for query in captured if '"ai_messages"' in query["sql"]]) == 1
    Conversation.objects.exclude(session_id="s5").delete()
    assert subjects() == ["Encrypted"]
    found = client.get(f"{reverse('admin:search')}?q=s5").content.decode()
    assert text_of(re.findall(r'<th scope="row">(.*?)</th>', found)) == ["Encrypted"]


def test_a_person_without_a_password_is_said_to_have_none_in_the_same_words_on_both_pages(member):
    people = [User.objects.create(email=f"{name}@example.com", password=name) for name in ("ana", None)]
    client = member("Support")

    shown = [
        [
            "None: cannot sign in with a password." in client.get(address(User, name, person.pk)).content.decode()
            for person in people
        ]
        for name in ("overview", "change")
    ]

    assert shown == [[False, True], [False, True]]


def test_the_history_of_a_row_has_the_times_of_the_other_pages(member):
    ana = User.objects.create(email="ana@example.com")
    client = member("superuser")
    at = timezone.now() - timedelta(days=2, hours=1)
    LogEntry.objects.log_actions(client.user.pk, [ana], CHANGE, "Deactivated.", single_object=True)
    LogEntry.objects.update(action_time=at)

    page = client.get(address(User, "history", ana.pk)).content.decode().replace("\xa0", " ")
    unchanged = client.get(address(User, "history", client.user.pk)).content.decode()

    cells = [text_of(re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)) for row in re.findall("<tr>.*?</tr>", page, re.S)]
    assert cells[-2:] == [
        ["Time", "Staff", "Change"], [f"{at:%Y-%m-%d %H:%M:%S} UTC 2 days ago", client.user.email, "Deactivated."]
    ]  # fmt: skip
    assert " ".join(page.partition('aria-label="Pages">')[2].partition("</nav>")[0].split()) == "1 entry"
    assert "No changes to this row are recorded in the admin." in unchanged
