"""`dbseed` against COPY of the same rows from files, in processor time"""

import tempfile
from datetime import date
from pathlib import Path

from django.db import transaction

from benchmarks.measure import migrated_database, processor_seconds, rounds, show, sized
from fly2any.database.seed import seed
from fly2any.database.seed.statements import STATEMENTS

USERS = sized(10_000, 200)
DAY = date(2026, 5, 1)


def run():
    with migrated_database() as database, tempfile.TemporaryDirectory() as folder:
        files = {table: Path(folder) / table for table in STATEMENTS}

        def empty():
            with database.cursor() as cursor:
                cursor.execute(f"TRUNCATE {', '.join(STATEMENTS)} CASCADE")
                cursor.execute("CHECKPOINT")

        def ours():
            empty()
            return processor_seconds(database, lambda: seed(database, users=USERS, seed=1, until=DAY))

        def copy():
            empty()
            return processor_seconds(database, read)

        def read():
            with transaction.atomic(using=database.alias), database.cursor() as cursor:
                for table, path in files.items():
                    with path.open("rb") as file, cursor.copy(f"COPY {table} FROM STDIN") as sink:
                        while data := file.read(1 << 20):
                            sink.write(data)
            with database.cursor() as cursor:
                for table in files:
                    cursor.execute(f"ANALYZE {table}")

        rows = sum(seed(database, users=USERS, seed=1, until=DAY).values())
        with database.cursor() as cursor:
            for table, path in files.items():
                with path.open("wb") as file, cursor.copy(f"COPY {table} TO STDOUT") as source:
                    for data in source:
                        file.write(data)
        taken = rounds(3, ours=ours, copy=copy)
    show(f"dbseed, {rows:,} rows", taken["ours"], taken["copy"], "COPY FROM", "aim ≤ 2 ×")
