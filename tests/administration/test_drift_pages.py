"""If a table or a column is missing, renamed or of another type, no page of the admin is a 500: it names the finding."""

import re
from collections import defaultdict
from functools import cache

import pytest
from django.db import connection, models, transaction
from django.urls import reverse

from accounts.models import User
from fly2any.administration import drift_pages
from fly2any.administration.models import Access, Note
from fly2any.database.schema.contract import PHASE7_APPS
from fly2any.database.seed import seed
from tests.administration.conftest import DAY, MODELS, address

pytestmark = pytest.mark.django_db
OURS = [model for model in MODELS if model._meta.app_label in (*PHASE7_APPS, "administration")]


@pytest.fixture(scope="module")
def rows(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        seed(connection, users=60, seed=1, until=DAY)
        yield
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(connection.ops.quote_name(model._meta.db_table) for model in OURS)} CASCADE")
        connection.close()


# Pages that read no column, or the same ones as the list or the row's page.
SAME_FOR_A_COLUMN = re.compile(r"/(delete|history|add)/$|\?q=|^/admin/(\w+/)?$")


WITH_TYPE = defaultdict(list)
for _model in OURS:
    for _kind in {type(field).__name__ for field in _model._meta.local_fields if not field.primary_key}:
        WITH_TYPE[_kind].append(_model)


class Undone(Exception):  # noqa: N818
    """Ends a transaction."""


def damages(model, containing=""):
    """The statements that damage a table, those with a word in them, each with where the finding is: one column of each type.

    What another type does is decided by the type: of all damages, each type is changed in the first two tables that have it.
    """
    table = model._meta.db_table
    found = [(f'ALTER TABLE "{table}" RENAME TO gone', table)]
    kinds = set()
    for field in model._meta.local_fields:
        kind = type(field).__name__
        if kind not in kinds:
            kinds.add(kind)
            column, other = field.column, "bytea" if isinstance(field, models.TextField | models.ForeignKey) else "text"
            found.append((f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO gone', f"{table}.{column}"))
            if not field.primary_key and (containing or model in WITH_TYPE[kind][:2]):
                retyped = f'DROP COLUMN "{column}" CASCADE, ADD "{column}" {other} NOT NULL DEFAULT \'odd\''
                found.append((f'ALTER TABLE "{table}" {retyped}', f"{table}.{column}"))
    return (one for one in found if containing in one[0])


def pages(model):
    """Every page of a table, and those on which it stands beside others."""
    row = model._base_manager.order_by("pk").first()
    yield address(model)
    yield from (address(model, name, row.pk) for name in ("change", "delete", "history"))
    yield address(model) + f"?q={row.pk}"
    yield address(model, "add")
    yield address(User, "overview", User.objects.filter(is_staff=False).order_by("pk").first().pk)
    yield reverse("admin:index")
    yield reverse("admin:app_list", args=[model._meta.app_label])
    if model._meta.db_table == "price_history":
        yield f"{reverse('admin:travel_pricehistory_route')}?origin={row.origin}&destination={row.destination}&day={row.depart_date}"


def outside_a_transaction(execute, sql, parameters, many, context):
    """Let a failed query leave the test's transaction usable, as outside a transaction."""
    if not isinstance(sql, str) or not sql.startswith("SELECT"):
        return execute(sql, parameters, many, context)
    with connection.connection.transaction():
        return execute(sql, parameters, many, context)


def assert_named(client, model, damage, where, urls):
    """Damage the table, and check that each page is shown, is refused, or names the difference."""
    read_once = cache(drift_pages.read_verification)  # The schema does not change from page to page.
    try:
        with transaction.atomic(), connection.execute_wrapper(outside_a_transaction), pytest.MonkeyPatch.context() as patch:
            patch.setattr(drift_pages, "read_verification", read_once)
            with connection.cursor() as cursor:
                cursor.execute(damage)
            for url in urls:
                response = client.get(url)
                text = response.content.decode()
                assert response.status_code in (200, 302, 403, 503), (damage, url)
                # Without users it is unknown which owners are trusted, because the owner of users is.
                named = where.partition(".")[0] in text or "tables.untrusted" in text
                assert response.status_code != 503 or named, (damage, url)
            raise Undone
    except Undone:
        pass


@pytest.mark.parametrize("table", ["users", "price_alerts", "ai_conversations"])
def test_a_list_names_the_table_or_column_that_differs(table, rows, client):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    model = next(model for model in OURS if model._meta.db_table == table)
    tried = [next(found) for found in (damages(model), damages(model, "RENAME COLUMN"), damages(model, "bytea"))]
    for damage, where in tried:
        assert_named(client, model, damage, where, [address(model)])


def test_the_page_of_the_second_factor_explains_a_schema_that_differs(client):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    connection.cursor().execute("ALTER TABLE axes_accessattempt RENAME COLUMN failures_since_start TO gone")

    page = client.post(reverse("admin:second_factor"), {"code": "123456"})

    assert (page.status_code, "The database differs" in page.content.decode()) == (503, True)


def test_findings_are_not_named_to_a_browser_that_is_not_signed_in(client):
    User.objects.create_superuser("staff@example.com", password="a-long-password-1")
    connection.cursor().execute("ALTER TABLE login_history RENAME COLUMN browser TO gone")

    page = client.post(reverse("admin:login"), {"username": "staff@example.com", "password": "wrong"})

    assert page.status_code == 503
    assert "<p>Run manage.py dbstatus: it lists the differences and their cures.</p>" in page.content.decode()
    assert "login_history" not in page.content.decode()


@pytest.mark.slow
@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.db_table)
def test_no_page_fails_with_500_if_a_table_or_column_differs(model, rows, client):
    staff = User.objects.create_superuser("staff@example.com")
    Access.objects.create(staff_id="s", staff_email="e@example.com", action="opened", table="t")
    Note.objects.create(person=User.objects.order_by("pk").first(), staff_id=staff.pk, text="Called.")
    client.force_login(staff)
    urls = list(pages(model))
    whole, *parts = damages(model)
    assert_named(client, model, *whole, urls)
    for damage, where in parts:
        assert_named(client, model, damage, where, [url for url in urls if not SAME_FOR_A_COLUMN.search(url)])


@pytest.mark.slow
def test_the_first_page_and_an_overview_show_what_can_be_read_and_name_the_rest(rows, client):
    client.force_login(User.objects.create_superuser("staff@example.com"))
    ana = User.objects.filter(login_history__isnull=False, price_alerts__isnull=False).order_by("pk").first()
    with connection.cursor() as cursor:
        cursor.execute('ALTER TABLE price_alerts RENAME COLUMN "targetPrice" TO gone; ALTER TABLE notifications RENAME TO gone')

    first = client.get(reverse("admin:index"))
    overview = client.get(address(User, "overview", ana.pk))

    text = first.content.decode()
    assert (first.status_code, text.count("Cannot be read"), "column.missing" in text or "column.renamed" in text) == (
        200,
        1,
        True,
    )
    assert [tile.label for tile in first.context["tiles"]][:2] == ["Armed alerts", "Armed alerts not checked for 6 hours"]
    text = overview.content.decode()
    assert overview.status_code == 200
    assert "Price alerts, notifications: these tables do not match the migrations (see <a href" in text
    assert len(overview.context["events"]) > 3
