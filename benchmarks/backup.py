"""dbbackup against pg_dump alone, and its verification against pg_restore alone, on 1.1 million rows"""

import tempfile
from datetime import date
from pathlib import Path

from benchmarks.measure import migrated_database, rounds, seconds, show, sized
from fly2any.database.backup import tools
from fly2any.database.backup.restore import load
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.progress import Progress
from fly2any.database.scratch import scratch_database
from fly2any.database.seed import seed

USERS, ROUNDS = sized((20_000, 3), (200, 1))


def run():
    with migrated_database() as connection, tempfile.TemporaryDirectory() as folder:
        seed(connection, users=USERS, seed=1, until=date(2026, 5, 1))
        store, quiet = Folder(folder), Progress()
        manifest = take(connection, store, quiet)

        def bare_dump():
            dump(connection, Path(folder, ".bare"))

        def bare_restore():
            with scratch_database(connection) as scratch, Path(folder, manifest.file).open("rb", buffering=0) as file:
                load(scratch, file, manifest, quiet)

        sides = rounds(
            ROUNDS,
            take=lambda: seconds(lambda: take(connection, store, quiet)),
            dump=lambda: seconds(bare_dump),
            check=lambda: seconds(lambda: check(connection, store, manifest, quiet)),
            restore=lambda: seconds(bare_restore),
        )
    show(f"dbbackup, {manifest.rows:,} rows", sides["take"], sides["dump"], "pg_dump")
    show("its verification: restored, hashed, compared", sides["check"], sides["restore"], "pg_restore and ANALYZE")


def dump(connection, path):
    with tools.reached(connection) as (place, environment):
        major, _ = tools.server_version(connection)
        arguments = ["--format=custom", f"--file={path}", f"--dbname={place}"]
        with tools.Running(
            tools.choose(major, tls=False).folder / "pg_dump", arguments, environment, lambda line: None
        ) as running:
            running.finish()
