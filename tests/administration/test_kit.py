"""Rules for every table of the admin, generated from the registry, so that a new table is covered at once."""

import re
from datetime import UTC, datetime

import pytest
from django.contrib import admin
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from fly2any.administration import changelist
from fly2any.administration.list_rows import rows_of
from fly2any.administration.models import Access, Note
from fly2any.administration.options import ReadOnlyModelAdmin
from tests.administration.conftest import CANARY, MODELS, ROLES, address, as_owner, lists_of, secrets_of
from tests.administration.test_list_rows import djangos_rows

MOST_QUERIES = 8  # Queries that read; the savepoints and time limits around them are not counted.
MOST_BYTES = 300_000
LARGE = 5_000  # A table of more rows must not be scanned.

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("filled")]
BETWEEN = ("Operations", "Administrators")  # Roles that may see more than Support and less than a superuser.
by_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.db_table)


def reads(captured):
    return [query["sql"] for query in captured if query["sql"].lstrip().startswith(("SELECT", "WITH"))]


def scanned(plan):
    """The tables that a plan scans sequentially without a limit."""
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    first_rows = (
        plan["Node Type"] == "Limit" and "Filter" not in plan["Plans"][0] and plan["Plans"][0]["Node Type"] == "Seq Scan"
    )
    for inner in plan.get("Plans", ()) if not first_rows else ():
        yield from scanned(inner)


def others(model, client):
    """The rows of a model except the signed-in user's."""
    return model._base_manager.exclude(pk=client.user.pk) if model is User else model._base_manager.all()


@by_model
def test_every_list_needs_few_queries_and_none_scans_a_large_table(model, member, monkeypatch):
    client = member("superuser")
    monkeypatch.setattr(changelist, "WINDOW", 500)  # In proportion to these tables as the real one is to large ones.
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE reltuples > %s AND relkind = 'r'", [LARGE])
        large = {name for (name,) in cursor.fetchall()}
    addresses = lists_of(client, model)
    assert len(addresses) > 2
    row = others(model, client).order_by("pk").last()
    if row is not None and admin.site._registry[model].search:
        assert list(client.get(address(model), {"q": row.pk}).context["cl"].result_list) == [row]

    explained = set()  # Each page looks up the signed-in user.
    for url in addresses:
        with CaptureQueriesContext(connection) as captured:
            response = client.get(url)
        asked = reads(captured)
        assert (response.status_code, len(asked) <= MOST_QUERIES, len(response.content) < MOST_BYTES) == (200, True, True), url
        if "count=exact" in url:
            continue  # On request, and with a deadline.
        for sql in {*asked} - explained:
            explained.add(sql)
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}")
                (plan,) = cursor.fetchone()[0]
            assert set(scanned(plan["Plan"])) & large == set(), (url, sql)


@by_model
def test_the_rows_of_a_list_equal_djangos(model, member):
    cl = member("superuser").get(address(model)).context["cl"]
    assert rows_of(cl) == djangos_rows(cl)


@pytest.mark.sampled(3)
@by_model
def test_paging_shows_every_row_once_though_all_values_of_the_order_tie(model, member, monkeypatch):
    client = member("superuser")
    monkeypatch.setattr(admin.site._registry[model], "list_per_page", 7)
    some = list(model._base_manager.order_by("pk").values_list("pk", flat=True)[:24])
    with as_owner():
        others(model, client).exclude(pk__in=some)._raw_delete(connection.alias)
    first = client.get(address(model)).context["cl"]
    if isinstance(first.order.field, models.DateTimeField):
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        with as_owner():
            model._base_manager.update(**{first.order.field.name: moment})
    all_of_them = set(model._base_manager.values_list("pk", flat=True))

    forwards, url = [], address(model)
    while url:
        page = client.get(url).context["cl"]
        forwards += [row.pk for row in page.result_list]
        url = address(model) + page.later_page if page.has_later else None
    backwards, url = [], address(model) + first.last_page
    while url:
        page = client.get(url).context["cl"]
        backwards = [row.pk for row in page.result_list if row.pk not in backwards] + backwards
        url = address(model) + page.earlier_page if page.has_earlier else None

    assert len(forwards) == len(set(forwards)) == len(all_of_them)
    assert set(forwards) == all_of_them
    assert backwards == forwards


@pytest.mark.sampled(4)
@by_model
def test_a_filter_without_an_index_eventually_finds_every_row(model, member, monkeypatch):
    client = member("superuser")
    monkeypatch.setattr(changelist, "WINDOW", 20)
    monkeypatch.setattr(changelist, "MOST_WINDOWS", 4)
    monkeypatch.setattr(admin.site._registry[model], "list_per_page", 15)
    some = list(model._base_manager.order_by("pk").values_list("pk", flat=True)[:150])
    with as_owner():
        others(model, client).exclude(pk__in=some)._raw_delete(connection.alias)
    listing = client.get(address(model)).context["cl"]

    for spec in listing.filter_specs:
        for choice in list(spec.choices(listing))[1:3]:
            found, url = [], address(model) + choice["query_string"]
            while url:
                page = client.get(url).context["cl"]
                found += [row.pk for row in page.result_list]
                following = page.later_page if page.has_later else page.further
                url = address(model) + following if following else None
            expected = set(page.root_queryset.filter(pk__in=page.queryset.values("pk")).values_list("pk", flat=True))
            assert (len(found), set(found)) == (len(expected), expected), choice["display"]
            if first := client.get(address(model) + choice["query_string"]).context["cl"].earlier_page:
                before = client.get(address(model) + first)  # Nothing precedes the first row.
                assert before.status_code == 200
                assert before.context["cl"].result_list or ">First<" in before.content.decode(), choice["display"]


@pytest.mark.slow
def test_every_search_accepts_a_word_a_number_and_an_address(member):
    client = member("superuser")
    for model, page in admin.site._registry.items():
        for term in ("ana", "42", "9" * 30, "42²", "ana@example.com", "203.0.113.8") if getattr(page, "search", ()) else ():
            assert client.get(address(model), {"q": term}).status_code == 200, (model, term)


@pytest.mark.parametrize("role", [pytest.param(role, marks=[pytest.mark.slow] if role in BETWEEN else []) for role in ROLES])
@by_model
def test_no_page_shows_a_secret(model, role, member):
    client = member(role)
    row = others(model, client).order_by("pk").last()
    pages = [address(model)]
    if row is not None:
        pages += [address(model, name, row.pk) for name in ("change", "history", "delete")]
        if admin.site._registry[model].overview:
            pages.append(address(model, "overview", row.pk))

    for url in pages:
        response = client.get(url)
        assert response.status_code in (200, 302, 403)
        assert CANARY not in response.content.decode() + str(response.headers)
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]
    exported = client.post(address(model, "export"))
    if exported.status_code == 200:
        assert CANARY not in b"".join(exported.streaming_content).decode()


@by_model
def test_only_offered_lookups_are_allowed(model, member, rf):
    client = member("superuser")
    listing = client.get(address(model)).context["cl"]
    offered = {name for spec in listing.filter_specs for name in spec.expected_parameters()}
    asked = ["user__password", "user__password__startswith", "user__accounts__access_token__startswith"]
    for field in model._meta.local_fields:
        for lookup in ("", "__startswith", "__contains", "__gt", "__isnull", "__regex", "__in"):
            if f"{field.name}{lookup}" in offered or (lookup in ("", "__in") and field.primary_key):
                continue
            if isinstance(field, models.ForeignKey) and lookup == "":
                continue
            asked.append(f"{field.name}{lookup}")

    for name in asked:
        request = rf.get(address(model), {name: "a"})
        request.user = client.user
        with pytest.raises(DisallowedModelAdminLookup):
            admin.site._registry[model].get_changelist_instance(request)
    assert client.get(address(model), {asked[-1]: "a"}).status_code == 400


ODD = {
    "BinaryField": [b"\xff\x00"],
    "TextField": ["\u202eright to left\u202c العربية", "<b>&\"'", "v1:00ff:00ff:00ff", "x" * 200_000, ""],
    "JSONField": [{"deep": {"list": [None, True, 1.5, "<i>"]}}, ["x" * 1_000_000], [[[[[[[[[[[[[[1]]]]]]]]]]]]]], "text", 7],
    "DateTimeField": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)],
    "FloatField": [float("nan"), float("inf"), -1e300],
    "IntegerField": [-(2**31), 2**31 - 1],
    "BigIntegerField": [-(2**63), 2**63 - 1],
    "ArrayField": [[], [None, "<b>"]],
}


@pytest.mark.parametrize("number", [0, 1, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 3, 4))])
@by_model
def test_odd_values_are_shown_without_an_error(model, number, member):
    client = member("superuser")
    row = others(model, client).order_by("pk").last()
    if row is None:
        of_ours = {
            Access: {"staff_id": "s", "staff_email": "e", "table": "t"},
            Note: {"person": client.user, "staff_id": "s", "text": "t"},
        }
        values = of_ours.get(model, {"user": client.user, "name": "n"})
        row = model._base_manager.create(**values)
    values = {}
    named = (*model._meta.indexes, *model._meta.constraints)
    indexed = {name.lstrip("-") for thing in named for name in thing.fields} | {"name"}
    for field in model._meta.local_fields:
        if not (field.primary_key or field.remote_field or field.unique):
            if number == 3 and field.name in indexed:
                continue  # An index cannot hold so long a text.
            choices = ODD.get("TextField" if isinstance(field, models.TextField) else field.get_internal_type(), [True])
            values[field.name] = choices[number % len(choices)]
    with as_owner():
        model._base_manager.filter(pk=row.pk).update(**values)
    row.refresh_from_db()

    pages = [f"{address(model)}?id={row.pk}", address(model, "change", row.pk), address(model, "delete", row.pk)]
    for url in pages:
        response = client.get(url)
        text = response.content.decode()
        assert response.status_code in (200, 403), url
        assert ("<b>&" in text, "<i>" in text) == (False, False)
        if isinstance(admin.site._registry[model], ReadOnlyModelAdmin) and len(str(row)) < 1000:  # Its name is its title.
            assert len(text) < MOST_BYTES, url
    if number == 0:
        nulls = {field.name: None for field in model._meta.local_fields if field.null and not field.primary_key}
        with as_owner():
            model._base_manager.filter(pk=row.pk).update(**nulls)
        assert [client.get(url).status_code for url in pages[:2]] == [200, 200]


@by_model
def test_a_bad_url_of_a_list_is_reported_and_the_list_is_shown(model, member):
    client = member("superuser")
    # Invalid positions: no base64, no list, the wrong length, a NUL, an unpaired surrogate, endless nesting.
    tokens = ("x", "%%%", "W10", "WyJcdTAwMDAiLCAiYSJd", "WyJcdWQ4MDAiLCAiYSJd", "a" * 5000)
    for token in tokens:
        for name in ("after", "before"):
            response = client.get(address(model), {name: token})
            assert (response.status_code, response["Location"].partition("?")) == (302, (address(model), "", "")), (name, token)
    said = re.sub(r"\s+", " ", client.get(address(model)).content.decode())
    assert said.count("The URL names no position in this list, so this is the first page of the whole list.") == 2 * len(tokens)


def test_the_secret_fields_are_those_that_the_schema_names():
    """A token, key or hash that a migration adds must be named as a secret, or here as none."""
    looks_secret = re.compile("token|secret|password|auth$|p256dh|endpoint|session_state|key")
    harmless = {
        ("accounts", "token_type"),
        ("ai_conversations", "session_id"),
        ("django_otp_webauthn_webauthncredential", "public_key"),
    }
    found = {
        (model._meta.db_table, field.name)
        for model in MODELS
        for field in model._meta.local_fields
        if looks_secret.search(field.name) and (model._meta.db_table, field.name) not in harmless
    }
    assert found == {(model._meta.db_table, name) for model in MODELS for name in secrets_of(model)}
