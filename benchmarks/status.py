"""the report of `dbstatus` on 18 tables with ten million rows against the same with a handful"""

from datetime import date

from django.core.management import call_command
from django.db import connection

from benchmarks.measure import migrated_database, rounds, seconds, show, sized
from fly2any.database.seed import seed
from fly2any.database.verification import verify

USERS = sized(178_000, 500)  # 10 million rows in all; made on the first run, which takes some minutes, and kept.
DAY = date(2026, 5, 1)


def run():
    call_command("migrate", verbosity=0)
    seed(connection, users=USERS, seed=1, until=DAY)
    with migrated_database() as small:
        seed(small, users=1, seed=1, until=DAY)
        taken = rounds(15, large=lambda: seconds(lambda: verify(connection)), small=lambda: seconds(lambda: verify(small)))
    show(f"dbstatus, {USERS * 56:,} rows", taken["large"], taken["small"], "about 50 rows", "must not grow")
