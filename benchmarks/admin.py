"""the admin over 57 million rows, ten million in each of the largest tables, against Django's stock ModelAdmin with the same columns"""

import statistics
import time
from datetime import date
from urllib.parse import quote

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection, models
from django.test import Client
from django.test.utils import override_settings, setup_test_environment
from django.urls import path, reverse

from benchmarks.measure import seconds, show
from fly2any.administration.export import rows_as_csv
from fly2any.database.seed import seed

USERS = 1_000_000  # 57 million rows in all; made on the first run, which takes a quarter of an hour, and kept.
DAY = date(2026, 5, 1)
LARGE = ("price_history", "user_activities", "notifications", "ai_messages", "users")
PATIENCE = 60_000  # Milliseconds that the stock pages are waited for; longer is shown as that.
DEEP = 100_000  # The number of a page far down.

HEAVY_SQL = """
    INSERT INTO users (id, email, "updatedAt") VALUES ('heavy', 'heavy@demo.fly2any.example', now()) ON CONFLICT DO NOTHING;
    INSERT INTO notifications (id, "userId", type, title, message, "createdAt")
    SELECT 'heavy' || i, 'heavy', 'promotion', 't', 'm', timestamptz '2026-04-01' - interval '1 second' * i FROM generate_series(1, 1000000) AS i
    ON CONFLICT DO NOTHING;
    ANALYZE users; ANALYZE notifications;
"""

stock = admin.AdminSite(name="stock")


def register_stock():
    """Register the large tables as Django's documentation would: the same columns, filters and search, and a date hierarchy."""
    for model, ours in admin.site._registry.items():
        if model._meta.db_table not in LARGE or stock.is_registered(model):
            continue
        fields = {field.name: field for field in model._meta.local_fields}
        columns = [name if name in fields else "__str__" for name in ours.list_display if isinstance(name, str)]
        time_field = next((name for name in ours.list_filter if isinstance(fields.get(name), models.DateTimeField)), None)
        search = ["id__exact", *(["user__email__icontains"] if "user" in fields else [])]
        search += [f"{name}__icontains" for name in ("email", "name", "origin", "destination", "content") if name in fields]
        stock.register(
            model,
            type(
                "Stock",
                (admin.ModelAdmin,),
                {
                    "list_display": [*dict.fromkeys(columns), *(["user"] if "user" in fields else [])],
                    "list_filter": [name for name in ours.list_filter if name != time_field],
                    "search_fields": search,
                    "date_hierarchy": time_field,
                    "ordering": ours.ordering,
                    "list_per_page": 50,
                    "raw_id_fields": [name for name, field in fields.items() if field.remote_field],
                    "exclude": ours.secrets,
                },
            ),
        )


register_stock()
urlpatterns = [path("admin/", admin.site.urls), path("stock/", stock.urls)]


def fill():
    """Make the rows, which a later run finds."""
    call_command("migrate", verbosity=0)
    if get_user_model().objects.filter(pk="heavy").exists():
        return  # The last of them.
    seed(connection, users=USERS, seed=1, until=DAY)
    with connection.cursor() as cursor:
        cursor.execute(HEAVY_SQL)


def run():
    fill()
    people = get_user_model().objects
    staff = people.filter(email="bench@demo.fly2any.example").first() or people.create_superuser("bench@demo.fly2any.example")
    setup_test_environment()
    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECURE_SSL_REDIRECT=False):
        client = Client(raise_request_exception=True)
        client.force_login(staff)
        measure(client)


def taken(client, url, times=3):
    """Return the seconds of the quickest of `times` answers."""
    return min(seconds(lambda: answer(client, url)) for _ in range(times))


def answer(client, url):
    response = client.get(url)
    if response.status_code != 200:
        raise RuntimeError(f"{url}: {response.status_code}")
    return response


def patient(client, url):
    """Return the seconds of a stock page, PATIENCE where it takes longer."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = {PATIENCE}")
        try:
            return seconds(lambda: answer(client, url))
        except OperationalError:
            return PATIENCE / 1000
        finally:
            cursor.execute("SET statement_timeout = 0")


def address(model, site, name="changelist", *arguments):
    return reverse(f"{site}:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


def measure(client):
    all_of_ours = []
    for model, ours in admin.site._registry.items():
        base = address(model, "admin")
        listing = answer(client, base).context["cl"]
        queries = {choice["query_string"] for spec in listing.filter_specs for choice in spec.choices(listing)}
        queries |= {
            f"?o={sign}{n}" for n, name in enumerate(listing.list_display) if name in listing.sortable_by for sign in ("", "-")
        }
        queries |= {listing.last_page, f"{listing.later_page}"} if listing.has_later else set()
        if listing.result_list and ours.search:
            row = listing.result_list[-1]
            terms = [row.pk, "nobody@nowhere.example", "GRU-LIS", getattr(getattr(row, "user", row), "email", "silva")]
            queries |= {f"?q={quote(str(term))}" for term in terms}
        all_of_ours += [taken(client, base + query) for query in sorted(queries)]
    centiles = statistics.quantiles(all_of_ours, n=100)
    print(f"  every list, filter, order, search and last page: {len(all_of_ours)} addresses, p50 {centiles[49] * 1000:.0f} ms, p95 {centiles[94] * 1000:.0f} ms, slowest {max(all_of_ours) * 1000:.0f} ms", flush=True)  # fmt: skip

    for model in admin.site._registry:
        if model._meta.db_table not in LARGE:
            continue
        table = model._meta.db_table
        here, there = address(model, "admin"), address(model, "stock")
        show(f"{table}: first page", taken(client, here), patient(client, there), "stock")
        listing = answer(client, here).context["cl"]
        place = 50 * DEEP if table != "users" else 50 * DEEP // 10
        far = model._base_manager.order_by(*listing.order.by())[place - 1]
        show(f"{table}: page {place // 50:,}", taken(client, f"{here}?after={listing.order.token(far)}"), patient(client, f"{there}?p={place // 50}"), "stock")  # fmt: skip
        for spec in listing.filter_specs[1:2]:
            choice = list(spec.choices(listing))[1]["query_string"]
            value = choice.partition("=")[2]
            show(
                f"{table}: {choice}",
                taken(client, here + choice),
                patient(client, f"{there}?{spec.field_path}__exact={value}"),
                "stock",
            )
        if hasattr(listing.result_list[0], "user"):
            email = next(row.user.email for row in listing.result_list if row.user)
            show(f"{table}: search for an e-mail address", taken(client, f"{here}?q={quote(email)}"), patient(client, f"{there}?q={quote(email)}"), "stock")  # fmt: skip
    people = get_user_model()
    notices = next(model for model in admin.site._registry if model._meta.db_table == "notifications")
    show("a user with a million notifications: theirs", taken(client, f"{address(notices, 'admin')}?user=heavy"), patient(client, f"{address(notices, 'stock')}?user__id__exact=heavy"), "stock")  # fmt: skip
    show("the same: overview", taken(client, address(people, "admin", "overview", "heavy")), 0.150, "the limit")
    show("the same: delete preview", taken(client, address(people, "admin", "delete", "heavy")), patient(client, address(people, "stock", "delete", "heavy")), "stock")  # fmt: skip
    show("first page of the admin", taken(client, reverse("admin:index")), 0.150, "the limit")
    rows = notices._base_manager.filter(user="heavy")
    show("CSV of a million rows", seconds(lambda: sum(map(len, rows_as_csv(rows, without=())))), copied(), "bare COPY")


def copied():
    """Return the seconds of the same rows by COPY, as they are."""
    begun = time.perf_counter()
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY (SELECT * FROM notifications WHERE \"userId\" = 'heavy') TO STDOUT (FORMAT csv)") as copy,
    ):
        sum(len(data) for data in copy)
    return time.perf_counter() - begun
