"""On a busy database, pages and actions end with a sentence and change nothing."""

import re
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core import signing
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from accounts import passwords
from accounts.models import User
from engagement.models import Notification
from fly2any.administration import backends, changelist, deadlines
from fly2any.administration.backends import TURN_SQL
from fly2any.database.migration.advisory_locks import SIGN_IN_LOCK

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "admin:engagement_notification_changelist"


@contextmanager
def busy(table):
    """Another session with an exclusive lock on `table`."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        other.close()


@pytest.fixture
def staff(client, monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 200)
    client.force_login(User.objects.create_superuser("staff@example.com"))
    return client


def test_a_timeout_that_postgresql_reports_late_does_not_fail_the_page():
    """A timeout that fires as a statement ends is the response to the next one, which is not executed."""
    late = iter([True])

    def report_late(execute, sql, parameters, many, context):
        if sql.startswith("ROLLBACK TO") and next(late, False):
            sql = "SET LOCAL statement_timeout = 1; SELECT pg_sleep(10)"
        return execute(sql, parameters, many, context)

    with transaction.atomic(), connection.cursor() as cursor, connection.execute_wrapper(report_late):
        with deadlines.within(60_000):
            cursor.execute("SELECT 1")
        cursor.execute("SELECT current_setting('statement_timeout')")

        assert (cursor.fetchone(), next(late, "reported")) == (("0",), "reported")


def test_an_export_with_a_bad_url_redirects_to_the_list(staff):
    answer = staff.post(f"{reverse('admin:engagement_notification_export')}?created_at__from=yesterday", follow=True)

    assert answer.redirect_chain == [("../", 302)]
    assert (answer.status_code, answer.request["PATH_INFO"]) == (200, reverse(LIST))
    assert "“yesterday” is not a date. Enter it as YYYY-MM-DD." in answer.content.decode()


def test_read_only_pages_refuse_post(staff):
    user = User.objects.create(email="ana@example.com")
    pages = [reverse("admin:index"), reverse("admin:app_list", args=["travel"]), reverse("admin:travel_pricehistory_route")]
    pages += [reverse(f"admin:accounts_user_{name}", args=[user.pk]) for name in ("overview", "history")]

    assert [staff.post(page).status_code for page in pages] == [405] * 5


@pytest.mark.parametrize("selected", ["\0", "abc"])
def test_an_action_on_a_missing_row_changes_nothing(staff, selected):
    Group.objects.create(name="stays")
    groups = reverse("admin:auth_group_changelist")

    answer = staff.post(
        groups, {"action": "delete_selected", "_selected_action": selected, "index": "0", "post": "yes"}, follow=True
    )

    assert (answer.status_code, answer.content.decode().count('class="error"')) == (200, 1)
    assert Group.objects.filter(name="stays").exists()


def add_notifications(number, *, each):
    """Add notifications whose times are one step of `each` apart."""
    user = User.objects.create(email="ana@example.com")
    Notification.objects.bulk_create(
        Notification(user=user, type="t", title=f"{n}", message="m", created_at=datetime(2026, 1, 1, tzinfo=UTC) + each(n))
        for n in range(number)
    )


@pytest.mark.parametrize(("slow", "window", "found"), [(0, 1024, 50), (1, 64, 50), (2, 16, 17), (9, 4, 5)])
def test_a_window_that_takes_too_long_is_made_smaller_until_the_page_is_shown(staff, monkeypatch, slow, window, found):
    add_notifications(60, each=lambda n: timedelta(minutes=n))
    monkeypatch.setattr(changelist, "WINDOW", 64)
    usual = changelist.page_of
    pages = []

    def page_of(rows, *args, **kwargs):
        pages.append(rows)
        if len(pages) <= slow and len(pages) < 4:  # The fourth window is the smallest, which has no deadline but the page's.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(1)")
        return usual(rows, *args, **kwargs)

    monkeypatch.setattr(changelist, "LONGEST_LOOK", 50)
    monkeypatch.setattr(changelist, "page_of", page_of)
    listing = staff.get(f"{reverse(LIST)}?read=0&look=16").context["cl"]

    assert (listing.window, len(listing.result_list), bool(listing.further)) == (window, found, window < 60)


def test_a_window_ends_after_tied_rows_and_the_next_begins_there(staff, monkeypatch):
    add_notifications(90, each=lambda n: timedelta(days=n // 30))
    monkeypatch.setattr(changelist, "WINDOW", 10)
    monkeypatch.setattr(admin.site._registry[Notification], "list_per_page", 100)
    expected = [*Notification.objects.order_by("-created_at", "-pk").values_list("pk", flat=True)]

    windows, url = [], f"{reverse(LIST)}?read=0"
    while url:
        listing = staff.get(url).context["cl"]
        windows.append([row.pk for row in listing.result_list])
        url = reverse(LIST) + listing.further if listing.further else None

    assert windows == [expected[:30], expected[30:90], []]


def test_a_list_does_not_fetch_the_json_that_it_does_not_show(staff, django_assert_max_num_queries):
    with django_assert_max_num_queries(30) as captured:
        staff.get(reverse(LIST))

    assert [query["sql"] for query in captured.captured_queries if '"metadata"' in query["sql"]] == []


def test_a_secret_that_postgresql_cannot_store_finds_nothing(staff):
    answer = staff.post(reverse("admin:accounts_session_find"), {"secret": "a\0b"}, follow=True)

    assert (answer.status_code, answer.content.decode().count('class="error"')) == (200, 1)


@pytest.mark.parametrize("address", ["?id=abc", "?e=1&created_at__from=abc", "?created_at__from=" + "9" * 5000])
def test_a_bad_url_parameter_is_reported_above_the_list_and_ignored(staff, address):
    answer = staff.get(reverse("admin:auth_group_changelist" if "id=" in address else LIST) + address, follow=True)

    page = answer.content.decode()
    assert (answer.status_code, answer.request["QUERY_STRING"], page.count('class="error"')) == (200, "", 1)
    assert len(page) < 100_000


@pytest.mark.parametrize("table", ["django_session", "users"])
def test_the_time_limit_applies_from_the_first_query_of_a_request(staff, table):
    staff.raise_request_exception = False
    with busy(table):
        begun = time.monotonic()
        page = staff.get(reverse(LIST))

    text = page.content.decode()
    assert (page.status_code, "The database is unavailable" in text, "Nothing was changed." in text) == (503, True, True)
    assert time.monotonic() - begun < 5


def test_a_sign_in_that_waits_for_its_record_ends(client, monkeypatch):
    monkeypatch.setattr(deadlines, "STATEMENT", 200)
    client.raise_request_exception = False
    with busy("axes_accessattempt"):
        page = client.post(reverse("admin:login"), {"username": "a@example.com", "password": "p"})

    assert page.status_code == 503


def test_a_change_whose_connection_is_lost_is_said_to_be_perhaps_saved(staff):
    group = Group.objects.create(name="Guests")
    staff.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;"
            "CREATE CONSTRAINT TRIGGER cut AFTER DELETE ON auth_group DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()"
        )
    try:
        page = staff.post(reverse("admin:auth_group_delete", args=[group.pk]), {"post": "yes"})
    finally:
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION cut CASCADE")

    text = page.content.decode()
    assert (page.status_code, "Your change may have been saved" in text, "Nothing was changed" in text) == (503, True, False)


def test_the_limit_of_a_request_does_not_stay_on_its_connection(staff):
    staff.get(reverse(LIST))
    staff.post(reverse("admin:login"), {"username": "a@example.com", "password": "p"})
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)


NO_TURN = (429, "2", b"Too many sign-ins at once. Try again in a moment.\n")
IN_TRANSACTION_SQL = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
"""


def guess(client, **more):
    """Try to sign in, and return the response's text."""
    page = client.post(reverse("admin:login"), {"username": " a@example.com", "password": "p"}, **more)
    return page.status_code, page.headers.get("Retry-After"), page.content


@pytest.mark.slow
def test_a_waiting_sign_in_holds_no_transaction(client, caplog):
    """Behind a pooler a transaction keeps a server connection, of which the site has few."""
    other, watching, answers, seen = connection.copy(), connection.copy(), [], []

    def wait():
        answers.append(guess(client))
        connections.close_all()

    waiting = Thread(target=wait)
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(TURN_SQL, [SIGN_IN_LOCK, "a@example.com 127.0.0.1"])
            waiting.start()
            while waiting.is_alive():
                with watching.cursor() as watcher:
                    watcher.execute(IN_TRANSACTION_SQL)
                    seen.append(watcher.fetchone()[0])
                waiting.join(0.02)
    finally:
        other.close()
        watching.close()

    assert answers == [NO_TURN]
    assert [re.sub(r"\d+", "N", message) for message in caplog.messages if "turn" in message] == [
        "A sign-in did not get its turn within N s. pid N (flyNany, role postgres, idle in transaction for N s: SELECT pg_catalog.pg_try_advisory_xact_lock(…, pg_catalog.hashtext('…'))) holds a turn, perhaps for another user."
        " If that session is not the admin's, end it: manage.py dbhealth locks --terminate N --yes"
    ]
    assert seen.count(1) > len(seen) / 2  # The other's own.


def test_a_password_hash_is_computed_outside_a_transaction(client, monkeypatch, settings):
    settings.SECOND_FACTOR = False
    boss = User.objects.create_superuser("a@example.com", "p")
    real, seen, statuses = passwords.verify, [], []

    def verify(password, stored):
        seen.append(connection.in_atomic_block)
        return real(password, stored)

    monkeypatch.setattr(passwords, "verify", verify)
    statuses += [guess(client)[0], guess(client)[0]]
    for name in ("A@example.com", "nobody@example.com"):
        statuses.append(client.post(reverse("admin:login"), {"username": name, "password": "p"}).status_code)
    boss.set_password("other")
    boss.save()
    statuses += [guess(Client())[0] for _ in range(6)]

    assert statuses == [302, 302, 200, 200, *[200] * 4, 429, 429]
    assert seen == [False] * len(seen)


def test_sign_ins_of_one_network_leave_a_slot_for_others_and_all_leave_threads(client):
    by_network = backends.by_network
    with ExitStack() as stack:
        for _ in range(by_network.each):
            stack.enter_context(by_network.slot("127.0.0.1"))
        begun = time.monotonic()
        answers = [guess(client)]
        took = time.monotonic() - begun
        answers.append(guess(client, REMOTE_ADDR="192.0.2.1"))
        for number in range(by_network.number - by_network.each):
            stack.enter_context(by_network.slot(f"192.0.2.{number}"))
        answers.append(guess(client, REMOTE_ADDR="198.51.100.1"))

    assert ([status for status, *_ in answers], answers[0], took < 1) == ([429, 200, 429], NO_TURN, True)
    assert by_network.taken == {}


def test_a_known_browser_signs_in_although_others_hold_every_slot(client, settings):
    settings.SECOND_FACTOR = False
    User.objects.create_superuser("boss@example.com", "a-long-password-1")

    def sign_in(client):
        sent = {"username": "boss@example.com", "password": "a-long-password-1"}
        return client.post(f"{reverse('admin:login')}?next=/admin/", sent)

    first = sign_in(client)
    client.post(reverse("admin:logout"))
    forged = Client()
    forged.cookies[backends.DEVICE] = f"{first.cookies[backends.DEVICE].value[:-1]}?"
    with ExitStack() as stack:
        for number in range(backends.by_network.number):
            stack.enter_context(backends.by_network.slot(f"192.0.2.{number}"))
        stack.enter_context(backends.by_network.turn_within(1))
        statuses = [sign_in(one).status_code for one in (Client(), forged, client)]
    client.post(reverse("admin:logout"))
    with ExitStack() as stack:
        for number in range(backends.by_user.number):
            stack.enter_context(backends.by_user.slot(f"other {number}"))
        statuses.append(sign_in(client).status_code)

    cookie = first.cookies[backends.DEVICE]
    assert (statuses, cookie["httponly"], cookie["samesite"]) == ([429, 429, 302, 302], True, "Strict")
    assert backends.DEVICE not in Client().post(reverse("admin:login"), {"username": "a@example.com", "password": "p"}).cookies


def test_a_browser_is_known_while_its_user_is_staff_and_keeps_the_password(rf):
    boss = User.objects.create_superuser("boss@example.com")
    request, response = rf.get("/"), HttpResponse()
    request.user = boss
    backends.remember_device(request, response)
    request.COOKIES[backends.DEVICE] = response.cookies[backends.DEVICE].value
    found = [backends.user_of_device(request)]
    for change in ({"is_staff": False}, {"is_active": False}, {"password": "another"}):
        User.objects.update(**change)
        found.append(backends.user_of_device(request))
        User.objects.update(is_staff=True, is_active=True, password=None)
    found.append(backends.user_of_device(request))
    request.COOKIES[backends.DEVICE] = signing.dumps(boss.pk, salt=backends.DEVICE_SALT)  # As earlier versions wrote it.
    found.append(backends.user_of_device(request))

    assert found == [boss.pk, None, None, None, boss.pk, None]


def test_one_sign_in_of_a_network_is_tried_at_a_time(client, monkeypatch):
    monkeypatch.setattr(backends, "TURN_PATIENCE", 0.2)
    one = guess(client)
    with backends.by_network.turn_within(1):
        answers = [one[0], guess(client)]

    assert answers == [200, NO_TURN]


def test_every_statement_is_limited_even_if_transactions_set_the_search_path():
    """As through a pooler that drops ?schema=, before the page: the session and the user are looked up outside its transaction."""
    limits = []

    def ask(_=None):
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
            limits.append(cursor.fetchone())

    def page(_):
        ask()
        with transaction.atomic():
            ask()
        with deadlines.writing_limit():
            ask()

    connection.ensure_connection()
    connection.connection.transaction_path = "SET LOCAL search_path TO public"
    try:
        deadlines.limited(page)(None)
        ask()
    finally:
        del connection.connection.transaction_path

    assert limits == [("2s", "1500ms"), ("2s", "1500ms"), ("1min", "5s"), ("0", "0")]
