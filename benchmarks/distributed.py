"""a database distributed by Citus against the same database on the coordinator alone (CITUS_URL, an empty database of a cluster)"""

import logging
import statistics
import sys
from datetime import UTC, datetime, timedelta
from time import monotonic

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import override_settings, setup_test_environment
from django.urls import reverse

from benchmarks.measure import seconds, show
from benchmarks.retention import ROWS_SQL
from fly2any.database.distribution.run import distribute
from fly2any.database.progress import Progress
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from fly2any.database.seed import seed

PRICES, USERS, CHILDREN, INSERTS, REQUESTS = 1_000_000, 4_000, 10_000, 300, 9
NEWEST = datetime(2026, 5, 1, tzinfo=UTC)
INSERT_SQL = 'INSERT INTO user_activities (id, "userId", "eventType") VALUES (%s, %s, \'view\')'
CHILDREN_SQL = """
    INSERT INTO notifications (id, "userId", type, title, message)
    SELECT %(user)s || n, %(user)s, 'promotion', 't', 'm' FROM generate_series(1, %(number)s) AS n
"""


def run():
    call_command("migrate", verbosity=0)
    people = get_user_model().objects
    if people.exists():
        sys.exit("CITUS_URL leads to a database with people: use an empty one.")
    seed(connection, users=USERS, seed=1, until=NEWEST)
    with connection.cursor() as cursor:
        cursor.execute(ROWS_SQL, {"rows": PRICES, "newest": NEWEST})
        cursor.execute("ANALYZE")
    staff = people.create_superuser("bench@demo.fly2any.example")
    setup_test_environment()
    logging.disable(logging.INFO)  # Of each request.
    with override_settings(ALLOWED_HOSTS=["*"], SECURE_SSL_REDIRECT=False):
        client = Client(raise_request_exception=True)
        client.force_login(staff)
        alone = dict(measured(client, 0))
        took = seconds(lambda: distribute(connection, patience=60, progress=Progress()))
        with connection.cursor() as cursor:
            cursor.execute("SET citus.multi_shard_modify_mode TO 'sequential'; SET citus.enable_repartition_joins TO on")
        for what, taken in measured(client, 1):
            show(what, taken, alone[what], "one server")
    print(f"  distributing it took {took:,.0f} s")


def measured(client, turn):
    """Yield what was done and its seconds; `turn` makes the rows of each side differ."""
    user = get_user_model().objects.exclude(notifications=None).order_by("pk")[10 + turn]
    prices, notices = reverse("admin:travel_pricehistory_changelist"), reverse("admin:engagement_notification_changelist")
    for what, url in (
        ("first page of the prices", prices),
        ("notifications of a person", f"{notices}?user={user.pk}"),
        ("people by two parts of a name", f"{reverse('admin:search')}?q=ana+silva"),
        ("a person's overview", reverse("admin:accounts_user_overview", args=[user.pk])),
    ):
        yield what, statistics.median(seconds(lambda url=url: ask(client, url)) for _ in range(REQUESTS))
    with connection.cursor() as cursor:
        activities = [(f"b{turn}-{n}", user.pk) for n in range(INSERTS)]
        yield f"{INSERTS} inserts", seconds(lambda: [cursor.execute(INSERT_SQL, row) for row in activities])
        cursor.execute(CHILDREN_SQL, {"user": user.pk, "number": CHILDREN})
        yield (
            f"deleting a user with {CHILDREN:,} rows",
            seconds(lambda: cursor.execute("DELETE FROM users WHERE id = %s", [user.pk])),
        )
    before = NEWEST - timedelta(seconds=10 * PRICES) * (1 - 0.4 * (turn + 1))
    options = {"before": before, "archives": None, "deadline": monotonic() + 3600, "progress": Progress()}
    yield f"retention of {PRICES * 4 // 10:,} prices", seconds(lambda: sweep(connection, RULES["price_history"], **options))


def ask(client, url):
    if (status := client.get(url).status_code) != 200:
        sys.exit(f"{status} at {url}")
