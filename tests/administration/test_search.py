"""The search of all tables and of single lists: what is found, and what must not be."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.contrib import admin
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from accounts.models import Session, User, VerificationToken
from ai_consultant.models import Conversation, Message
from engagement.models import LoginHistory, UserActivity, UserSession
from fly2any.administration import search
from fly2any.administration.deadlines import TooSlow
from fly2any.administration.models import Access
from fly2any.administration.overview import best_page
from fly2any.database.schema.contract import PHASE7_APPS
from fly2any.database.seed import seed
from tests.administration.conftest import DAY, address
from travel.models import PriceAlert, PriceHistory

pytestmark = pytest.mark.django_db
MODELS = [model for model in admin.site._registry if model._meta.app_label in PHASE7_APPS]


def found(client, term):
    """The results of the search of all tables: title → the URLs of its rows."""
    response = client.get("/admin/search/", {"q": term})
    assert response.status_code == 200
    return {panel.title: [url for url, _ in panel.rows] for panel in response.context["panels"]}


def person(email, **names):
    return User.objects.create(email=email, **names)


def page(row, name="change"):
    return address(type(row), name, row.pk)


def listed(client, model, **query):
    return client.get(address(model), query).context["cl"]


@pytest.mark.slow
def test_a_person_is_found_by_parts_of_names_in_any_order_and_without_accents(member):
    luis = person("lp@example.com", name="Luís Park")
    decomposed = person("b@example.com", name=unicodedata.normalize("NFD", "Zoë Müller"))
    parts = person("other.address@example.com", name=None, first_name="Łukasz", last_name="Ørsted")
    person("ana@example.com", name="Ana Silva")
    person("100%@example.com", name="A_B")
    client = member("Support")

    users = {
        term: found(client, term).get("users", [])
        for term in (
            "luis park", "park luís", "LUÍS", "uis pa", "lp@example", "zoe muller", "Müller", "lukasz orsted", "address other",
            "luis ark", "uís pa", "luis zz", "ana_", "0%@", "%%%",
        )
    }  # fmt: skip

    for term in ("luis park", "park luís", "LUÍS", "uis pa", "lp@example", "luis ark", "uís pa"):
        assert users[term] == [page(luis, "overview")], term
    for term in ("zoe muller", "Müller"):
        assert users[term] == [page(decomposed, "overview")], term
    for term in ("lukasz orsted", "address other"):
        assert users[term] == [page(parts, "overview")], term
    assert [users[term] for term in ("luis zz", "ana_", "0%@", "%%%")] == [[], [], [], []]  # No wildcards.
    assert list(listed(client, User, q="park luís").result_list) == [luis]


@pytest.mark.slow
def test_any_row_is_found_by_its_id_if_the_user_may_see_it(member):
    seed(connection, users=40, seed=1, until=DAY)
    rows = {model: model._base_manager.order_by("pk").last() for model in MODELS}
    client = member("Operations")
    hidden = [model for model in MODELS if not client.user.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")]
    talk = Conversation.objects.exclude(user=None).order_by("pk").last()

    assert {Conversation, Message, Session, VerificationToken} <= {*hidden}
    for model in hidden:
        assert found(client, rows[model].pk) == {}, model
    assert found(client, talk.session_id) == {}
    denied = client.post("/admin/search/", {"secret": rows[Session].session_token}, follow=True)
    assert "No row has this token or endpoint." in denied.content.decode()

    client.force_login(User.objects.create(email="s@example.com", is_staff=True, is_superuser=True))
    for model, row in rows.items():
        urls = found(client, row.pk)
        assert list(urls) == [model._meta.verbose_name_plural], model
        assert urls[model._meta.verbose_name_plural] in ([best_page(row)], [""]), model
    assert found(client, talk.session_id) == {"conversations": [page(talk)]}
    for secret in (rows[Session].session_token, rows[UserSession].token):
        sent = client.post("/admin/search/", {"secret": secret})
        assert (sent.status_code, secret in sent.headers["Location"]) == (302, False)
    assert client.post("/admin/search/", {"secret": rows[UserSession].token}).headers["Location"] == page(rows[UserSession])


def test_the_form_that_finds_a_row_by_its_secret_names_it(client):
    client.force_login(User.objects.create(email="s@example.com", is_staff=True, is_superuser=True))
    labels = {}
    for path in ("engagement/pushsubscription", "engagement/usersession", "accounts/session", "accounts/user"):
        labels[path] = re.findall(r'<label for="secret">(.*?)</label>', client.get(f"/admin/{path}/").content.decode())
    wrong = client.post("/admin/engagement/pushsubscription/find/", {"secret": "https://push.example/1"}, follow=True)

    assert [*labels.values()] == [["Find by endpoint"], ["Find by token"], ["Find by session token"], []]
    assert "No push subscription has this endpoint." in wrong.content.decode()


@pytest.mark.slow
def test_routes_airports_and_addresses_lead_to_their_pages_and_rows(member):
    ana = person("ana@example.com", name="Ana Silva")
    moment = datetime(2026, 5, 1, 12, tzinfo=UTC)
    alerts = [
        PriceAlert.objects.create(
            user=ana, origin="GRU", destination=to, depart_date="2026-06-01", current_price=2, target_price=1
        )
        for to in ("LIS", "LIS", "MAD")
    ]
    PriceAlert.objects.filter(pk=alerts[0].pk).update(created_at=moment + timedelta(days=9999))
    PriceHistory.objects.create(origin="GRU", destination="LIS", depart_date="2026-06-01", price=431.5, provider="duffel")
    device = UserSession.objects.create(user=ana, token="t", ip_address="203.0.113.8", last_active=moment)
    logins = [
        LoginHistory.objects.create(user=ana, ip_address=ip, timestamp=moment + timedelta(minutes=minute))
        for minute, ip in enumerate(("203.0.113.8", "2001:db8::1", "203.0.113.8", "203.0.113.80"))
    ]
    # The site's texts may have any length, but index entries have a limit.
    LoginHistory.objects.create(user=ana, ip_address="".join(map(str, range(9_000))))
    PriceAlert.objects.create(user=ana, origin="".join(map(str, range(9_000))), destination="x", depart_date="x", current_price=2, target_price=1)  # fmt: skip
    client = member("Support")

    assert found(client, "gru-lis") == {
        "Route": ["/admin/travel/pricehistory/route/?origin=GRU&destination=LIS&day=2026-06-01"],
        "price alerts": [page(alerts[0]), page(alerts[1])],
    }
    said = re.sub(r"\s+", " ", client.get("/admin/search/?q=gru-lis").content.decode())
    assert "Sao Paulo, BR" in said
    assert "431.50" in said
    assert "The departure date has passed" in said  # Why it did not fire.
    assert found(client, "GRU") == {
        "Airports": ["/admin/travel/pricehistory/?q=GRU"],
        "price alerts": sorted(map(page, alerts), reverse=True),
    }
    assert found(client, "lisbo")["Airports"][0] == "/admin/travel/pricehistory/?q=LIS"
    assert found(client, "203.0.113.8") == {
        "signed-in devices": [page(device)],
        "sign-ins": [page(logins[2]), page(logins[0])],
    }
    panels = client.get("/admin/search/", {"q": "203.0.113.8"}).context["panels"]
    assert panels[1].headers == ["timestamp", "user", "success", "IP address", "device"]
    assert found(client, "2001:DB8::1") == {"sign-ins": [page(logins[1])]}
    assert list(listed(client, LoginHistory, q="203.0.113.8").result_list) == [logins[2], logins[0]]
    assert listed(client, LoginHistory, q="203.0.113.8").order_description == "Newest first"
    assert list(listed(client, UserSession, q="203.0.113.8").result_list) == [device]
    assert list(listed(client, PriceAlert, q="GRU-LIS").result_list) == alerts[:2]
    assert list(listed(client, PriceAlert, q="GRU-LIS", active="0").result_list) == []


def test_lists_find_by_a_name_and_messages_by_a_text_in_one_conversation(member, monkeypatch):
    luis = person("luis@example.com", name="Luís Park")
    talk, other = (Conversation.objects.create(user=luis, session_id=name, metadata={}) for name in "ab")
    said = [
        Message.objects.create(conversation=where, role="user", content=text, timestamp=1)
        for where, text in ((talk, "Do I need a visa?"), (talk, "v1:00:00:00"), (other, "A VISA"))
    ]
    UserActivity.objects.create(user=luis, event_type="search")
    client = member("superuser")

    assert {*listed(client, Conversation, q="park luis").result_list} == {talk, other}
    assert listed(client, UserActivity, q="park luis").result_list[0].user_id == luis.pk
    assert f'href="{address(Message)}?conversation={talk.pk}">Search messages</a>' in client.get(page(talk)).content.decode()
    inside = listed(client, Message, conversation=talk.pk, q="VISA")
    assert (list(inside.result_list), inside.found.note) == ([said[0]], "Encrypted messages are not searched.")
    assert list(listed(client, Message, conversation=talk.pk, q="v1:").result_list) == []
    monkeypatch.setattr(search, "MOST_CANDIDATES", 0)
    assert (
        listed(client, Message, conversation=talk.pk, q="VISA").found.note
        == f"{search.MORE} Encrypted messages are not searched."
    )
    assert (listed(client, Message, q="visa").found.is_understood, listed(client, Message, q="visa").result_list) == (False, [])


@pytest.mark.parametrize(
    ("model", "understood", "not_understood"),
    [
        (LoginHistory, ("203.0.113.8", "c000000000000000000000001", "no@example.com"), ("GRU-LIS", "hello there", "x")),
        (PriceAlert, ("GRU-LIS", "no@example.com"), ("203.0.113.8", "hello there")),
        (VerificationToken, ("no@example.com",), ()),
        (User, ("hello there", "no@example.com"), ()),
        (Message, ("c000000000000000000000001",), ("hello there", "GRU-LIS")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_list_reports_a_search_that_it_did_not_understand(member, model, understood, not_understood):
    client = member("Administrators")
    for terms, expected in ((understood, False), (not_understood, True)):
        for term in terms:
            said = client.get(address(model), {"q": term}).content.decode()
            assert (f"The search did not recognise “{term}”. It accepts: " in said) is expected, term


def test_a_search_needs_few_queries_and_accepts_any_text(member):
    client = member("superuser")
    for term in (
        "",
        " ",
        "luis park",
        "GRU-LIS",
        "203.0.113.8",
        "c000000000000000000000001",
        "%_\\'\"",
        "a" * 5000,
        "x " * 90,
    ):
        with CaptureQueriesContext(connection) as captured:
            assert {*found(client, term)} <= {"Route"}, term
        assert len([query for query in captured if query["sql"].startswith(("SELECT", "WITH", "("))]) <= 12, term
    assert client.get("/admin/search/?q=%ED%A0%80").status_code == 200  # An unpaired surrogate.
    nul = client.get("/admin/search/", {"q": "a\0b"}, follow=True)
    assert "The request contained a NUL character, so the request was ignored." in nul.content.decode()
    assert client.get("/admin/").content.decode().count('id="search-box"') == 1
    assert 'id="search-box"' not in client.get("/admin/accounts/user/?_popup=1").content.decode()
    client.logout()
    assert client.get("/admin/search/").status_code == 302


def test_searched_fields_are_in_the_order_of_the_index():
    index = next(index for index in User._meta.indexes if index.name == "users_words_trgm_idx")
    assert [leaf.name for leaf in index.expressions[0].flatten() if isinstance(leaf, models.F)] == list(User.named_by)


def test_a_search_too_short_for_a_person_says_so(member):
    client = member("Support")

    pages = [client.get("/admin/search/", {"q": term}).content.decode() for term in ("xq qx", "xqq", "")]

    hint = "A search for a person needs at least 3 consecutive letters or digits of a name or an e-mail address."
    assert [hint in page for page in pages] == [True, False, False]
    assert ["at least one with three consecutive letters or digits" in page for page in pages] == [True] * 3


@pytest.mark.parametrize("cause", ["too many", "too slow"])
def test_no_page_says_nothing_found_and_no_export_is_sent_if_a_search_does_not_find_every_row(member, monkeypatch, cause):
    client = member("Administrators")
    for number in range(2):
        person(f"ana{number}@example.com", name="Commonia Xyz")
    if cause == "too many":
        monkeypatch.setattr(search, "MOST_CANDIDATES", 1)
        note = search.MORE
    else:
        monkeypatch.setattr(search, "people_named", raise_too_slow)
        note = search.TOO_MANY

    everywhere = client.get("/admin/search/", {"q": "commonia"}).content.decode()
    refused = client.post(f"{address(User, 'export')}?q=commonia", follow=True).content.decode()

    assert (f">Users: {note}<" in everywhere, "Nothing found" in everywhere) == (True, False)
    assert f"The search does not find every row, so nothing was exported. {note}" in refused
    assert [*Access.objects.values_list("action", "table", "query")] == [("opened", "users", "q=commonia")]


def raise_too_slow(*arguments, **options):
    raise TooSlow


def test_the_search_says_when_only_places_match_and_how_many_rows_it_shows(member):
    client = member("Support")

    def said(term):
        return unescape(client.get("/admin/search/", {"q": term}).content.decode())

    nobody = "No person or row matches “ander”."
    places, code = said("ander"), said("GRU")
    ander = person("anderson@example.com")
    both = said("ander")
    for number in range(8):
        person(f"anderson{number}@example.com", name="Ana Anderson")

    assert ["<h2" in places and "Airports" in places, nobody in places, "No person" in code, nobody in both] == [
        True,
        True,
        False,
        False,
    ]
    assert [re.findall('<span class="quiet">([^<]*)</span><a href="[^"]*">([^<]*)</a>', page) for page in (both, said("ander"))] == [
        [("1", "Show all")], [("First 8", "Show all")]
    ]  # fmt: skip
    assert ander.email in both
