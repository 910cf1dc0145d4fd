"""Rows as CSV: unchanged, except for secrets and for formulas."""

import csv
import io
import itertools
import re
from functools import partial
from pathlib import Path

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import TransactionStatus

from accounts.models import User, UserPreferences
from engagement.models import Notification
from fly2any.administration import export
from fly2any.administration.export import rows_as_csv
from fly2any.administration.models import Access
from tests.administration.conftest import address
from travel.models import PriceHistory

pytestmark = pytest.mark.django_db


def exported(rows, **options):
    return list(csv.reader(io.StringIO(b"".join(rows_as_csv(rows, **options)).decode(), newline="")))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1))
def test_texts_are_exported_unchanged_or_with_an_apostrophe_before_a_formula(text):
    User.objects.filter(email="ana@example.com").delete()
    User.objects.create(email="ana@example.com", name=text)

    header, row = exported(User.objects.filter(email="ana@example.com"), without=("password",))

    inside = re.sub(r'([;\t\r\n][ "]*)([=+@＝＋＠－-])', r"\1'\2", text)
    assert row[header.index("name")] == (f"'{inside}" if text[0] in "=+-@＝＋－＠\t\r\n" else inside)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from(';\t\r\n "=-x,'), min_size=1))
def test_no_cell_is_a_formula_where_another_character_separates_cells(text):
    User.objects.filter(email="ana@example.com").delete()
    user = User.objects.create(email="ana@example.com", name=text)
    UserPreferences.objects.create(user=user, preferred_airlines=[text])
    Notification.objects.create(user=user, type="t", title="t", message="m", metadata={text: text})

    for rows in (User.objects.filter(pk=user.pk), UserPreferences.objects.all(), Notification.objects.all()):
        sent = b"".join(rows_as_csv(rows, without=("password",))).decode()
        for separator, lines in itertools.product(";\t", (io.StringIO(sent, newline=""), re.split(r"[\r\n]+", sent))):
            cells = [cell for row in csv.reader(lines, delimiter=separator) for cell in row]
            assert [cell for cell in cells if cell.startswith(("=", "-"))] == []


def test_rows_are_also_exported_in_development(member, settings):
    settings.DEBUG = True  # Django then gives out cursors of its own.
    User.objects.create(email="ana@example.com")

    header, *rows = exported(User.objects.filter(email="ana@example.com"), without=("password",))

    assert [row[header.index("email")] for row in rows] == ["ana@example.com"]


def test_a_price_is_exported_as_it_is_stored_whatever_the_database_rounds(member):
    member()
    PriceHistory.objects.create(origin="GRU", destination="LIS", depart_date="2026-07-01", price=0.1 + 0.2, provider="mock")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL extra_float_digits = 0")

    header, row = exported(PriceHistory.objects.all(), without=())

    assert row[header.index("price")] == "0.30000000000000004"


def test_secrets_are_left_out_and_nothing_else(member):
    User.objects.create(email="ana@example.com", password="$2b$10$hash")
    header, *rows = exported(User.objects.filter(email="ana@example.com"), without=("password",))

    assert header == [field.attname for field in User._meta.local_fields if field.name != "password"]
    assert (len(rows), rows[0][header.index("email")]) == (1, "ana@example.com")


def test_the_filtered_list_is_exported_and_recorded(member):
    client = member("Administrators")
    user = User.objects.create(email="ana@example.com")
    for number, read in enumerate([True, False, False]):
        Notification.objects.create(id=f"n{number}", user=user, type="promotion", title="t", message="m", read=read)

    response = client.post(f"{address(Notification, 'export')}?read=0&user={user.pk}")
    header, *rows = csv.reader(io.StringIO(b"".join(response.streaming_content).decode()))

    assert response.headers["Content-Disposition"] == 'attachment; filename="notifications.csv"'
    assert sorted(row[header.index("id")] for row in rows) == ["n1", "n2"]
    assert list(Access.objects.values_list("staff_email", "action", "table", "query")) == [
        ("administrators@staff.example", "exported", "notifications", f"read=0&user={user.pk}")
    ]
    assert client.get(address(Notification, "export")).status_code == 405


def test_an_export_that_is_refused_is_recorded_as_a_list_that_was_opened(member):
    client = member("Administrators")

    assert client.post(f"{address(Notification, 'export')}?after=x").status_code == 302

    assert [*Access.objects.values_list("action", "table", "query")] == [("opened", "notifications", "after=x")]


def test_an_empty_list_is_exported_as_a_header(member):
    client = member("Administrators")

    response = client.post(f"{address(User, 'export')}?q=zz")

    assert b"".join(response.streaming_content).decode().splitlines() == [
        ",".join(field.attname for field in User._meta.local_fields if field.name != "password")
    ]


@pytest.mark.django_db(transaction=True)
def test_a_slow_reader_of_an_export_holds_no_transaction(client):
    client.force_login(User.objects.create_superuser("boss@example.com"))
    User.objects.bulk_create(User(email=f"{number}@example.com", name="a" * 100_000) for number in range(5))

    response = client.post(address(User, "export"))
    next(iter(response))

    assert connection.connection is None or connection.connection.info.transaction_status == TransactionStatus.IDLE
    assert int(response.headers["Content-Length"]) > 500_000
    response.close()


def test_the_number_of_exports_is_limited_so_that_threads_remain_for_other_pages(member):
    client = member("Administrators")
    sent = [client.post(address(User, "export")) for _ in range(export.AT_ONCE)]

    refused = client.post(address(User, "export"), follow=True)
    assert b"".join(sent.pop().streaming_content)
    sent.append(client.post(address(User, "export")))

    assert (refused.redirect_chain, sent[-1].status_code) == ([("../", 302)], 200)
    assert "Other exports are still being sent" in refused.content.decode()
    assert all(b"".join(one.streaming_content) for one in sent)
    assert Access.objects.filter(action="exported").count() == export.AT_ONCE + 1


@pytest.mark.parametrize("largest", [10, 10_000], ids=["too large", "a full disk"])
def test_an_export_that_does_not_fit_is_reported_and_frees_its_slot(member, monkeypatch, largest):
    client = member("Administrators")
    monkeypatch.setattr(export, "LARGEST", largest)
    monkeypatch.setattr(export.tempfile, "TemporaryFile", partial(Path("/dev/full").open, "wb", buffering=0))

    pages = [client.post(address(User, "export"), follow=True).content.decode() for _ in range(export.AT_ONCE + 1)]

    sentence = "The export exceeds 1 GB" if largest == 10 else "No space left on device"
    assert [sentence in page for page in pages] == [True] * len(pages)
    assert Access.objects.filter(action="exported").count() == 0
