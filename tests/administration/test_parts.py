"""The parts of the lists: orders and positions, indexes, searches, deadlines and formats."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib import admin
from django.db import OperationalError, connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Account, Session, User, VerificationToken
from ai_consultant.models import Conversation, Message
from engagement.models import LoginHistory, Notification, UserActivity
from fly2any.administration import deadlines, formats
from fly2any.administration.access_paths import best_path, orders, time_added, time_of, time_within
from fly2any.administration.counts import Count, bounded, exact, of_table, short
from fly2any.administration.deadlines import TooSlow, within
from fly2any.administration.models import Access
from fly2any.administration.overview import relations, timeline
from fly2any.administration.paging import Order, page_of
from fly2any.administration.search import values_of
from tests.administration.conftest import address
from travel.models import PriceAlert, PriceHistory

MOMENT = datetime(2026, 5, 1, tzinfo=UTC)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), max_size=25), st.integers(1, 6), st.booleans())
@pytest.mark.django_db
def test_paging_in_either_direction_yields_all_rows_in_order(seconds, size, descending):
    Access.objects.all()._raw_delete("default")
    Access.objects.bulk_create(
        Access(at=MOMENT + timedelta(seconds=second), staff_id="s", staff_email="e", action="opened", table="t")
        for second in seconds
    )
    order = Order(Access._meta.get_field("at"), Access._meta.pk, descending)
    rows = Access.objects.all()
    expected = list(rows.order_by(*order.by()))

    there, page = [], page_of(rows, order, size=size)
    while True:
        there += page.rows
        if not page.has_later:
            break
        page = page_of(rows, order, size=size, after=order.token(page.rows[-1]))
    back, page = [], page_of(rows, order, size=size, before="")
    while True:
        back = [row for row in page.rows if row not in back] + back
        if not page.has_earlier:
            break
        page = page_of(rows, order, size=size, before=order.token(page.rows[0]))

    assert there == expected
    assert back == expected


def test_the_index_that_looks_up_most_is_found():
    assert best_path(Notification, {"user": "u", "read": True}).looks_up({"user": "u", "read": True}) == {"user", "read"}
    assert best_path(Notification, {"user": "u"}).served({"user": "u"}) == 1
    assert best_path(Notification, {"type": "promotion"}) is None
    assert (
        best_path(PriceAlert, {"active": True, "triggered": False}).following({"active": True, "triggered": False})
        == "last_checked"
    )
    assert best_path(PriceAlert, {"triggered": True}) is None
    assert best_path(User, {"is_staff": True}).following({"is_staff": True}) == "created_at"
    assert best_path(User, {"is_staff": False}) is None
    assert (
        best_path(PriceHistory, {"origin": "GRU", "destination": "LIS"}).following({"origin": "GRU", "destination": "LIS"})
        == "depart_date"
    )


def test_only_orders_that_an_index_serves_are_offered():
    assert orders(User) == {"id", "email", "created_at"}
    assert orders(Account) == {"id"}
    assert orders(Notification) == {"id", "created_at"}
    assert orders(UserActivity) == {"id", "created_at"}
    assert (time_of(PriceAlert), time_of(LoginHistory), time_within(LoginHistory, "user")) == (None, "timestamp", "timestamp")
    assert time_within(Account, "user") is None
    assert [time_added(model) for model in (PriceAlert, LoginHistory, Account, Session)] == [
        "created_at",
        "timestamp",
        None,
        None,
    ]


@pytest.mark.django_db
def test_values_of_a_column_are_found_one_by_one():
    user = User.objects.create(email="ana@example.com")
    for number, provider in enumerate(["google", "apple", "google", "facebook"]):
        Account.objects.create(user=user, type="oauth", provider=provider, provider_account_id=str(number))

    assert values_of(Account, "provider") == ["apple", "facebook", "google"]
    assert values_of(Account, "provider", most=2) == ["apple", "facebook"]
    assert values_of(PriceHistory, "origin") == []


@pytest.mark.django_db
def test_a_search_term_is_looked_up_by_its_form(member):
    client = member("superuser")
    ana = User.objects.create(email="Ana.Silva@Example.com", name="Ana Silva")
    talk = Conversation.objects.create(user=ana, session_id="session-1", metadata={})
    said = Message.objects.create(conversation=talk, role="user", content="x", timestamp=1)
    account = Account.objects.create(user=ana, type="oauth", provider="google", provider_account_id="10001")
    token = VerificationToken.objects.create(identifier="guest@example.com", token="t", expires=MOMENT)
    prices = [
        PriceHistory.objects.create(origin=origin, destination=to, depart_date="2026-07-01", price=1, provider="mock")
        for origin, to in (("GRU", "LIS"), ("GRU", "MAD"), ("LIS", "GRU"))
    ]

    def found(model, term):
        return set(client.get(address(model), {"q": term}).context["cl"].result_list)

    for term in (ana.pk, "ana.silva@example.com", "Ana.Silva@Example.com", "silva", "NA SIL", "  silva  "):
        assert found(User, term) == {ana}, term
    assert found(User, "si") == set()
    for query in ("q=%00", "id=%00", "id__in=a,%00", "is_staff=%00", "after=%00"):
        page = client.get(f"{address(User)}?{query}", follow=True)
        assert (page.status_code, "contained a NUL character" in page.content.decode()) == (200, True), query
    assert client.get(address(User, "overview", "a\x00")).status_code == 404
    assert found(User, "---") == set()
    for term in (talk.pk, "session-1", "Ana.Silva@Example.com", "ana.silva@example.com", ana.pk):
        assert found(Conversation, term) == {talk}, term
    for term in (said.pk, talk.pk, "session-1"):
        assert found(Message, term) == {said}, term
    for term in ("10001", account.pk, "Ana.Silva@Example.com"):
        assert found(Account, term) == {account}, term
    assert found(VerificationToken, "guest@example.com") == {token}
    for term in ("GRU-LIS", "gru lis", "GRU → LIS", "gru/lis"):
        assert found(PriceHistory, term) == {prices[0]}, term
    assert found(PriceHistory, "GRU") == {prices[0], prices[1]}
    assert found(PriceHistory, prices[2].pk) == {prices[2]}


@pytest.mark.django_db
def test_a_page_is_read_only_and_cancels_slow_queries(rf, monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 200)

    def view(sql):
        def ask(request):
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchone()

        return deadlines.in_time(ask, lambda request, *, locked: f"too slow, {locked}")

    assert view("SELECT current_setting('transaction_read_only'), current_setting('statement_timeout')")(rf.get("/")) == (
        "on",
        "200ms",
    )
    assert view("SELECT pg_sleep(5)")(rf.get("/")) == "too slow, False"
    assert view("SELECT current_setting('transaction_read_only')")(rf.post("/")) == ("off",)
    with pytest.raises(Exception, match="read-only transaction"):
        view("INSERT INTO auth_group (name) VALUES ('x') RETURNING id")(rf.get("/"))


@pytest.mark.django_db
def test_a_figure_that_takes_too_long_is_omitted_from_the_page():
    with pytest.raises(TooSlow), within(50), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(5)")
    with pytest.raises(OperationalError), within(), connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE SQLSTATE '57P03'; END $$")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@pytest.mark.django_db
def test_counts_are_exact_while_they_are_cheap(monkeypatch):
    monkeypatch.setattr("fly2any.administration.counts.MOST_COUNTED", 3)
    for number in range(4):
        User.objects.create(email=f"{number}@example.com")

    assert str(bounded(User.objects.all())) == "3+"
    assert bounded(User.objects.filter(email__lt="3")) == Count(3)
    assert exact(User.objects.all()) == Count(4)
    assert str(Count(None)) == "not computed"
    assert str(Count(10_000_000, estimated=True)) == "~10.0M"
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_class SET reltuples = -1 WHERE relname = 'users'")
        assert str(of_table(User)) == "3+"
        cursor.execute("UPDATE pg_class SET reltuples = 12345 WHERE relname = 'users'")
        assert str(of_table(User)) == "~12.3k"
    assert [short(number) for number in (0, 999, 1000, 12_345, 9_999_999, 3e9, 5e12)] == [
        "0",
        "999",
        "1.0k",
        "12.3k",
        "10.0M",
        "3.0B",
        "5000.0B",
    ]


@pytest.mark.django_db
def test_the_timeline_shows_every_event_once_even_if_times_tie(rf, monkeypatch):
    monkeypatch.setattr("fly2any.administration.overview.MOST_EVENTS", 4)
    ana = User.objects.create(email="ana@example.com", is_superuser=True, is_staff=True)
    rows = [Notification.objects.create(user=ana, type="promotion", title=str(n), message="m") for n in range(7)]
    rows += [LoginHistory.objects.create(user=ana) for _ in range(6)]
    Notification.objects.update(created_at=MOMENT)
    LoginHistory.objects.update(timestamp=MOMENT)
    request = rf.get("/")
    request.user = ana
    seen, before = [], ""

    while True:
        events = timeline(ana, relations(admin.site._registry[User], request, ana), before=before)
        seen += [event.url for event in events[:4]]
        if len(events) <= 4:
            break
        before = events[3].token

    assert len(seen) == 13
    assert set(seen) == {address(type(row), "change", row.pk) for row in rows}
    for bad in ("x", "2026 a b", "2026-01-01T00:00:00.000000+0000 a"):
        with pytest.raises(ValueError, match=r"time data|unpack|not enough"):
            timeline(ana, relations(admin.site._registry[User], request, ana), before=bad)


def test_values_are_shown_for_people():
    now = timezone.now()
    assert formats.age(now - timedelta(days=3, hours=2)) == "3\xa0days ago"
    assert formats.age(now + timedelta(hours=5, minutes=1)) == "in 5\xa0hours"
    assert formats.age(now) == "just now"
    assert formats.when(MOMENT).startswith('<time datetime="2026-05-01T00:00:00+00:00" title="2026-05-01 00:00:00 UTC">')
    assert "2026-05-01 00:00:00 UTC" in formats.epoch(unit=0.001)(1_777_593_600_000, None)
    assert formats.epoch(unit=1)(2**62, None) == f"{2**62:,}"
    assert formats.money()(1234.5, Notification()) == '<span class="number">1,234.50</span>'
    assert formats.money()(1234.5, PriceAlert(currency="USD")) == '<span class="number">1,234.50\xa0USD</span>'
    amounts = [formats.plain_amount(1234.5, currency) for currency in ("JPY", "KRW", "KWD", "EUR", "?", None)]
    assert amounts == ["1,234\xa0JPY", "1,234\xa0KRW", "1,234.500\xa0KWD", "1,234.50\xa0EUR", "1,234.50\xa0?", "1,234.50"]
    assert formats.cell("Short") == "<bdi>Short</bdi>"
    assert formats.cell("ana@example.com") == '<bdi class="cut email" title="ana@example.com">ana@example.com</bdi>'
    assert formats.identifier("a<b") == '<bdi class="cut id" title="a&lt;b">a&lt;b</bdi>'
    assert formats.fingerprint("a") != formats.fingerprint("b")
    assert len(formats.fingerprint("a")) == 8
    assert formats.tree({"startedAt": 1_777_593_600_000}).count("2026-05-01 00:00:00 UTC") == 1
    assert "297 more" not in formats.tree(list(range(10)))
    assert "… 700 more" in formats.tree(list(range(1000)))
    assert "8,000 more characters" in formats.tree("x" * 10_000)


@pytest.mark.django_db
def test_a_time_range_is_a_preset_or_days_and_anything_else_is_reported(member):
    client = member("superuser")
    user = client.user
    now = timezone.now()
    LoginHistory.objects.all().delete()  # Entries of this test's own sign-in.
    for days in (0, 2, 20, 200):
        LoginHistory.objects.create(id=f"d{days}", user=user, timestamp=now - timedelta(days=days))

    def ids(**query):
        listing = client.get(address(LoginHistory), query).context["cl"].result_list
        return [row.pk for row in listing]

    assert ids() == ["d0", "d2", "d20", "d200"]
    assert ids(timestamp__within="1h") == ["d0"]
    assert ids(timestamp__within="7d") == ["d0", "d2"]
    assert ids(timestamp__within="30d", success="0") == []
    until = f"{now - timedelta(days=10):%Y-%m-%d}"
    assert ids(timestamp__until=until) == ["d20", "d200"]
    assert ids(timestamp__from=f"{now - timedelta(days=100):%Y-%m-%d}", timestamp__until=until) == ["d20"]
    # Both days belong to the range; a moment ends it.
    second, twentieth = (f"{now - timedelta(days=days):%Y-%m-%d}" for days in (2, 20))
    assert ids(timestamp__from=twentieth, timestamp__until=second) == ["d2", "d20"]
    assert ids(timestamp__from=twentieth, timestamp__until=f"{second}T00:00:00Z") == ["d20"]

    def label(**query):
        return [value for _, value, _ in client.get(address(LoginHistory), query).context["cl"].chips]

    assert label(timestamp__from=twentieth, timestamp__until=second) == [f"from {twentieth} to {second}"]
    assert label(timestamp__from=twentieth, timestamp__until=f"{second}T00:00Z") == [f"from {twentieth} to {second} 00:00 UTC"]
    assert label(o="1.-0", q="nobody", _popup="1", timestamp__within="1h") == ["Last hour"]
    someone = User.objects.create(email="someone@example.com")
    for lookup in ("user", "user__exact", "user__id__exact"):
        assert label(**{lookup: someone.pk}) == ["someone@example.com"], lookup
    assert label(user="unknown") == ["unknown"]
    assert label(timestamp__until="2026-01-01T09:30+02:00") == ["to 2026-01-01 09:30 UTC+02:00"]
    for bad in ("yesterday", "2026-13-01"):
        said = client.get(address(LoginHistory), {"timestamp__from": bad}, follow=True).content.decode()
        assert "is not a date. Enter it as YYYY-MM-DD." in said
    page = client.get(address(Access), {"at__within": "7d"})
    assert [(label, chosen) for label, chosen, _ in page.context["cl"].chips] == [("time", "Last 7 days")]
    assert {"From (UTC)", "To (UTC)"} <= {*re.findall(r"<label>([^<]*?) <input", page.content.decode())}


@pytest.mark.django_db
def test_a_session_is_found_only_by_its_own_columns(member):
    client = member("superuser")
    assert client.get(address(Session), {"user": "x", "user__email": "a"}).status_code == 400
