"""How long one attempt to get a migration's locks blocks the site."""

import threading
import time
from contextlib import ExitStack

import pytest
from django.db.migrations import Migration, RunSQL

from fly2any.database.migration.executor import Executor
from fly2any.database.migration.lazy_state import LazyState
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress
from tests.servers import open_transaction, wait_until

TABLES = ("one", "two", "three", "four")
WAITS = """
    SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = %s::regclass
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.mark.slow
def test_an_attempt_waits_for_all_its_locks_about_as_long_as_a_statement_for_one(database, settings):
    settings.LOCK_TIMEOUT = 2000
    for table in TABLES:
        database.execute(f"CREATE TABLE {table} ()")
    migration = Migration("0001", "probe")
    migration.operations = [RunSQL(f"ALTER TABLE {table} ADD word text") for table in TABLES]
    longest, over = 0.0, threading.Event()

    def read():
        nonlocal longest
        with database.connect() as client:
            while not over.is_set():
                begun = time.monotonic()
                client.execute("SELECT FROM one")
                longest = max(longest, time.monotonic() - begun)
                time.sleep(0.05)

    def let_go(sessions):
        for table, session in zip(TABLES, sessions, strict=True):
            wait_until(database, WAITS, [table])
            time.sleep(1.5)
            session.execute("COMMIT")

    recorded = RecordedProgress()
    with ExitStack() as stack, django(database) as connection:
        sessions = [stack.enter_context(open_transaction(database, f"SELECT FROM {table}")) for table in TABLES]
        threads = [threading.Thread(target=read), threading.Thread(target=let_go, args=[sessions])]
        with migrating(connection.alias, patience=60, progress=recorded) as run:
            executor = Executor(run.connection, run=run)
            executor.recorder.ensure_schema()
            for thread in threads:
                thread.start()
            executor.apply_migration(LazyState(), migration)
        over.set()
        for thread in threads:
            thread.join()

    assert longest < 4  # All together they were held for 6 s.
    assert [sentence.partition(" waited ")[0] for sentence in recorded.sentences if " waited " in sentence][:1] == [
        "probe.0001"
    ]
    assert database.execute("SELECT count(*) FROM pg_attribute WHERE attname = 'word' AND attrelid = 'four'::regclass") == [
        (1,)
    ]


def test_one_thread_watches_all_statements_of_a_run_and_ends_with_it(database):
    with django(database) as connection:
        before = threading.active_count()
        with migrating(connection.alias, patience=1, progress=Progress()) as run:
            for _ in range(20):
                run.connection.cursor().execute("SELECT 1")
            deadline = time.monotonic() + 30
            while (
                during := threading.active_count()
            ) > before + 1:  # A statement that took long on a busy machine has its own.
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with run.watcher.statement("a long one"):
                while run.watcher.current.thread is None:
                    time.sleep(0.05)

    deadline = time.monotonic() + 30
    while threading.active_count() > before:  # The watcher of the long statement closes its connection.
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert during - before == 1
