"""adopting a table, as `dbadopt` does, against the naive ALTER … USING; and a million rows adopted under a constant writer"""

import os
import re
import subprocess
import sys
import time

from django.conf import settings
from django.db import connection, transaction

from benchmarks.measure import rounds, seconds, show, sized
from fly2any.database.adoption import assess
from fly2any.database.adoption.steps import REBUILT_PER_SECOND
from fly2any.database.scratch import scratch_database
from tests import prisma
from tests.servers import Database
from tests.writer import Writer

SIZES = sized((1_000_000, 5_000_000, 10_000_000), (10_000,))  # Rows.
WRITTEN = sized(1_000_000, 10_000)  # Rows adopted under a writer, half of them prices.

NAIVE = """ALTER TABLE price_history ALTER "timestamp" TYPE timestamptz USING "timestamp" AT TIME ZONE 'UTC'"""


def run():
    by_size()
    under_a_writer()


def by_size():
    with scratch_database(connection) as database:
        with database.cursor() as cursor:
            cursor.execute(prisma.exact())
        there = 0
        for size in SIZES:
            with database.cursor() as cursor:
                while there < size:
                    cursor.execute(prisma.fill("price_history", rows := min(size - there, 1_000_000), first=1 + there))
                    there += rows
                cursor.execute("VACUUM ANALYZE price_history")
                cursor.execute("CHECKPOINT")
            # ANALYZE, the table's other step, blocks no other session.
            [step] = [step for step in assess(database).steps if step.table == "price_history" and step.index_bytes]

            def undone(statements):
                """Measure how long a lock is held, and roll back, so that each side starts from the same table."""

                def measure():
                    with transaction.atomic(using=database.alias), database.cursor() as cursor:
                        taken = seconds(lambda: [cursor.execute(statement) for statement in statements])
                        transaction.set_rollback(True, using=database.alias)
                    with database.cursor() as cursor:
                        cursor.execute("CHECKPOINT")
                    return taken

                return measure

            taken = rounds(3, ours=undone(step.statements), naive=undone([NAIVE]))
            show(f"lock held, {size:,} rows", taken["ours"], taken["naive"], "ALTER … USING", "aim: far below 1")
            rate = step.index_bytes / taken["ours"] / 1e6
            print(
                f"    {step.index_bytes / 1e6:,.0f} MB of index rebuilt at {rate:,.0f} MB/s; the plan reckons with {REBUILT_PER_SECOND / 1e6:,.0f}"
            )


def under_a_writer():
    with scratch_database(connection) as scratch:
        place = scratch.settings_dict
        database = Database(place["HOST"], "5432", place["USER"], "", place["NAME"])
        database.execute(prisma.exact())
        database.execute("".join(prisma.fill(table, 1000) for table in prisma.PHASE7))
        for table, rows in (
            ("price_history", WRITTEN // 2),
            ("notifications", WRITTEN * 3 // 10),
            ("ai_messages", WRITTEN // 5),
        ):
            database.execute(prisma.fill(table, rows, first=2000))
        database.execute("VACUUM ANALYZE")
        with Writer(database) as writer:
            time.sleep(3)
            quiet, writer.waits[:] = writer.longest[0], writer.waits[-1:]
            begun = time.monotonic()
            out = command("dbadopt", "--yes", database=database)
            adopted = time.monotonic() - begun
            command("migrate", "engagement", "0001", "--yes", "--without-backup", database=database)
            command("migrate", database=database)
            command("dbstatus", database=database)
        timeout = settings.LOCK_TIMEOUT / 1000
        rebuild = max(float(found) for found in re.findall(r"\((\d+\.\d+) s\)$", out, re.M))
        print(
            f"  {WRITTEN:,} rows adopted in {adopted:.1f} s, and migrated back and forth, beside a writer: {len(writer.waits):,} statements,"
        )
        print(
            f"    {len(writer.errors)} errors, the longest wait {writer.longest[0]:.2f} s (before the adoption {quiet:.2f} s), on {writer.longest[1]};"
        )
        print(
            f"    the limit is the timeout of {timeout:g} s and the longest rebuild, {rebuild:.2f} s: {writer.longest[0] / (timeout + rebuild):.2f} ×"
        )


def command(*words, database):
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "fly2any.settings", "POSTGRES_URL": database.url}
    ran = subprocess.run([sys.executable, "manage.py", *words], env=environment, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(words)}: {ran.returncode}: {ran.stderr or ran.stdout}")
    return ran.stdout
