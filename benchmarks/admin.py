"""the admin over 57 million rows, ten million in each of the largest tables, against Django's stock ModelAdmin with the same columns"""

import logging
import os
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

import django.contrib.admin
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection, models
from django.test import Client
from django.test.utils import override_settings, setup_test_environment
from django.urls import path, reverse

from benchmarks.measure import seconds, show, sized
from fly2any.administration import dashboard, deadlines
from fly2any.administration.export import rows_as_csv
from fly2any.database.seed import seed

USERS = sized(1_000_000, 300)  # 57 million rows in all; made on the first run, which takes a quarter of an hour, and kept.
DAY = date(2026, 5, 1)
LARGE = ("price_history", "user_activities", "notifications", "ai_messages", "users")
PATIENCE = 60_000  # Milliseconds, the time limit of a statement of the stock pages.
DEEP = sized(100_000, 4)  # A page number far into the list.

HEAVY = sized(1_000_000, 2_000)  # Notifications of one user.
HEAVY_SQL = f"""
    INSERT INTO users (id, email, "updatedAt") VALUES ('heavy', 'heavy@demo.fly2any.example', now()) ON CONFLICT DO NOTHING;
    INSERT INTO notifications (id, "userId", type, title, message, "createdAt")
    SELECT 'heavy' || i, 'heavy', 'promotion', 't', 'm', timestamptz '2026-04-01' - interval '1 second' * i FROM generate_series(1, {HEAVY}) AS i
    ON CONFLICT DO NOTHING;
    ANALYZE users; ANALYZE notifications;
"""

AGAIN = 2  # Responses measured per URL after the first.
CACHES = Path("/proc/sys/vm/drop_caches")

stock = admin.AdminSite(name="stock")


def register_stock():
    """Register the tables as Django's documentation would: the same columns, filters and search, and a date hierarchy."""
    for model, ours in admin.site._registry.items():
        if model._meta.app_label == "auth":
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
                    "list_filter": [
                        name if isinstance(name, str) else name[0] for name in ours.list_filter if name != time_field
                    ],
                    "search_fields": search,
                    "date_hierarchy": time_field,
                    "ordering": ours.ordering,
                    "list_per_page": 50,
                    "raw_id_fields": [name for name, field in fields.items() if field.remote_field],
                    "exclude": ours.secrets,
                },
            ),
        )


admin.autodiscover()
register_stock()
urlpatterns = [path("admin/", admin.site.urls), path("stock/", stock.urls)]


def fill():
    """Create the rows, which later runs reuse."""
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


@dataclass(frozen=True, slots=True)
class Answer:
    """The time of a page in seconds: in total, waiting for the database, and processor time of this process."""

    url: str
    status: int
    wall: float
    sql: float
    cpu: float


def ask(client, url):
    waited = 0.0

    def waiting(execute, *arguments):
        nonlocal waited
        begun = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            waited += time.perf_counter() - begun

    cpu = time.process_time()
    with connection.execute_wrapper(waiting):
        begun = time.perf_counter()
        status = client.get(url).status_code
        wall = time.perf_counter() - begun
    return Answer(url, status, wall, waited, time.process_time() - cpu)


def report(what, answers):
    """Print the percentiles of all responses, and how much of the slowest page was waiting for the database."""
    for name in ("wall", "sql", "cpu"):
        times = [getattr(answer, name) * 1000 for answer in answers]
        centiles = statistics.quantiles(times, n=100, method="inclusive")
        said = {"wall": what, "sql": "  of it waiting for the database", "cpu": "  of it processor time"}[name]
        print(f"  {said:<46}p50 {centiles[49]:>6.0f} ms   p95 {centiles[94]:>6.0f} ms   p99 {centiles[98]:>6.0f} ms   slowest {max(times):>6.0f} ms", flush=True)  # fmt: skip
    print(f"    the slowest is {max(answers, key=lambda answer: answer.wall).url}")


@contextmanager
def patience():
    """Let each statement of a page take PATIENCE instead of the admin's own limit, which would end the stock pages."""
    usual, deadlines.STATEMENT = deadlines.STATEMENT, PATIENCE
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        deadlines.STATEMENT = usual
        logging.disable(logging.NOTSET)


def patient(client, url):
    """Return the answer of a stock page, None if a statement of it takes longer than PATIENCE."""
    begun = time.perf_counter()
    try:
        with patience():
            return ask(client, url)
    except OperationalError:
        if time.perf_counter() - begun < PATIENCE / 1000:
            raise  # It was something else that ended it.
        return None


def address(model, site, name="changelist", *arguments):
    return reverse(f"{site}:{model._meta.app_label}_{model._meta.model_name}_{name}", args=arguments)


def addresses(client) -> Iterable[str]:
    """Yield every list, filter, order, search and last page."""
    for model, ours in admin.site._registry.items():
        base = address(model, "admin")
        listing = client.get(base).context["cl"]
        queries = {choice["query_string"] for spec in listing.filter_specs for choice in spec.choices(listing)}
        queries |= {
            f"?o={sign}{n}" for n, name in enumerate(listing.list_display) if name in listing.sortable_by for sign in ("", "-")
        }
        queries |= {listing.last_page, f"{listing.later_page}"} if listing.has_later else set()
        if listing.result_list and ours.search:
            row = listing.result_list[-1]
            terms = [row.pk, "nobody@nowhere.example", "GRU-LIS", getattr(getattr(row, "user", row), "email", "silva")]
            queries |= {f"?q={quote(str(term))}" for term in terms}
        yield from (base + query for query in sorted(queries))
    yield reverse("admin:index")
    yield from (f"{reverse('admin:search')}?q={term}" for term in ("silva", "ana+silva", "GRU-LIS", "nobody@nowhere.example"))


def forget_files():
    """Drop the operating system's file cache; return whether that is allowed."""
    os.sync()
    try:
        CACHES.write_text("3", encoding="utf-8")
    except OSError:
        return False
    return True


def measure(client):
    urls = [*addresses(client)][:: sized(1, 8)]
    answers = []
    if sized(True, False):
        if forget_files():
            cold = [ask(client, url) for url in urls]
            report(f"{len(urls)} addresses, the system's cache dropped", cold)
            answers += cold
        else:
            print("  the system's cache may not be dropped here: no answer without it was measured")
    first = [ask(client, url) for url in urls]
    report(f"{len(urls)} addresses, {'requested once more' if answers else 'their first answers'}", first)
    later = [ask(client, url) for _ in range(AGAIN) for url in urls]
    report("all later answers", later)
    answers += [*first, *later]
    compare(client)
    if failed := [answer for answer in answers if answer.status != 200]:
        sys.exit("\n".join(f"{answer.status} at {answer.url}" for answer in failed))


def compare(client):
    """Compare pages with Django's own: ours first, then the others with Django's templates."""
    pages = list(comparisons(client))
    ours = [ask(client, here).wall for _, here, _ in pages]
    lists = [model for model in stock._registry if model._base_manager.exists()]  # A list without rows is not one.
    cpu = [median_cpu(client, address(model, "admin")) for model in lists]
    with override_settings(TEMPLATES=[{**settings.TEMPLATES[0], "DIRS": [DJANGOS]}]):
        for (what, _, there), taken in zip(pages, ours, strict=True):
            answer = patient(client, there)
            show(what, taken, answer.wall if answer else PATIENCE / 1000, "stock" if answer else "stock, ended")
        with patience():
            ratios = {model: own / median_cpu(client, address(model, "stock")) for own, model in zip(cpu, lists, strict=True)}
    most = max(lists, key=ratios.__getitem__)
    print(
        f"  processor time of {len(lists)} lists beside stock's: median {statistics.median(ratios.values()):.2f} ×,"
        f" the most {ratios[most]:.2f} × ({most._meta.db_table})"
    )
    people = get_user_model()
    dashboard._known = None  # The first page then verifies the schema again.
    for what, url in (
        (f"a user with {HEAVY:,} notifications: overview", address(people, "admin", "overview", "heavy")),
        ("first page of the admin, verifying", reverse("admin:index")),
        ("the same within half a minute", reverse("admin:index")),
    ):
        show(what, ask(client, url).wall, 0.150, "the limit")
    rows = next(model for model in stock._registry if model._meta.db_table == "notifications")._base_manager.filter(
        user="heavy"
    )
    show(f"CSV of {HEAVY:,} rows", seconds(lambda: sum(map(len, rows_as_csv(rows, without=())))), copied(), "bare COPY")


DJANGOS = str(Path(django.contrib.admin.__file__).parent / "templates")


def median_cpu(client, url):
    return statistics.median(ask(client, url).cpu for _ in range(sized(5, 1)))


def comparisons(client):
    """Yield the name of the comparison, the URL of our page, and that of the stock one."""
    for model in stock._registry:
        table = model._meta.db_table
        if table not in LARGE:
            continue
        here, there = address(model, "admin"), address(model, "stock")
        yield f"{table}: first page", here, there
        listing = client.get(here).context["cl"]
        place = 50 * DEEP if table != "users" else 50 * DEEP // 10
        far = model._base_manager.order_by(*listing.order.by())[max(place - 1, 0)]
        yield f"{table}: page {place // 50:,}", f"{here}?after={listing.order.token(far)}", f"{there}?p={place // 50}"
        for spec in listing.filter_specs[1:2]:
            choice = list(spec.choices(listing))[1]["query_string"]
            value = choice.partition("=")[2]
            yield f"{table}: {choice}", here + choice, f"{there}?{spec.field_path}__exact={value}"
        if hasattr(listing.result_list[0], "user"):
            email = quote(next(row.user.email for row in listing.result_list if row.user))
            yield f"{table}: search for an e-mail address", f"{here}?q={email}", f"{there}?q={email}"
    people = get_user_model()
    notices = next(model for model in stock._registry if model._meta.db_table == "notifications")
    theirs = f"{address(notices, 'admin')}?user=heavy", f"{address(notices, 'stock')}?user__id__exact=heavy"
    yield f"a user with {HEAVY:,} notifications: theirs", *theirs
    yield "the same: delete preview", address(people, "admin", "delete", "heavy"), address(people, "stock", "delete", "heavy")


def copied():
    """Return the seconds that COPY of the same rows takes."""
    begun = time.perf_counter()
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY (SELECT * FROM notifications WHERE \"userId\" = 'heavy') TO STDOUT (FORMAT csv)") as copy,
    ):
        sum(len(data) for data in copy)
    return time.perf_counter() - begun
