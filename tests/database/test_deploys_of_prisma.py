"""`prisma migrate deploy` during a run of ours: its backend waits in pg_advisory_lock long after its client gave up."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from fly2any.database.adoption import adopt
from fly2any.database.migration.advisory_locks import MIGRATION_LOCK
from fly2any.database.migration.run import LockedOut, migrating
from tests.conftest import django
from tests.database.sites import KINDS, fill, is_as_migrated
from tests.database.taken import RecordedProgress
from tests.servers import open_transaction, wait_until

BUILD = "CREATE INDEX CONCURRENTLY probe_idx ON users (name)"
VALID_SQL = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('probe_idx')"
WAITING_SQL = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
BUILDING_SQL = "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()"
WRITE = "LOCK TABLE users IN ROW EXCLUSIVE MODE"  # A build waits for its end before it reads the table.


class Deploy:
    """A session that waits for the migration lock as Prisma's does: without a time limit."""

    def __init__(self, database, *before):
        self.client = database.connect(application_name="prisma")
        self.pid = self.client.info.backend_pid
        self.end = None
        self.client.execute("SET deadlock_timeout = '10min'")  # The run decides how its wait ends.
        for statement in before:
            self.client.execute(statement)
        self.thread = threading.Thread(target=self.wait)
        self.thread.start()
        wait_until(database, WAITING_SQL + " AND pid = %s", [self.pid])

    def wait(self):
        try:
            self.client.execute(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
            self.end = "locked"
        except psycopg.Error as error:
            self.end = error.sqlstate

    def ended(self):
        """Return how its wait ended: "locked", or by which SQLSTATE."""
        self.thread.join(timeout=60)
        return self.end


@pytest.fixture
def deploy(database):
    """A function that starts such a session."""
    started = []

    def start(*before, on=database):
        started.append(Deploy(on, *before))
        return started[-1]

    yield start
    for one in started:
        database.execute("SELECT pg_terminate_backend(%s)", [one.pid])
        one.thread.join(timeout=60)
        one.client.close()


@contextmanager
def running(database, role=None):
    """A run on `database`, and the sentences that it reported."""
    recorded = RecordedProgress()
    with django(database) as opened:
        opened.settings_dict["USER"] = role or database.user
        with migrating(opened.alias, patience=20, progress=recorded) as run:
            yield run, recorded.sentences


def build(run):
    with run.connection.cursor() as cursor:
        cursor.execute(BUILD)


def cancelled(database, pid):
    return [
        f"Cancelled pid {pid} (prisma, role {database.user}, active for … s: SELECT pg_advisory_lock(…)): it waited for the"
        " migration lock and would have blocked this run. Start that command again after this run."
    ]


def timeless(recorded):
    return [re.sub(r"active for \d+ s", "active for … s", sentence) for sentence in recorded]


def test_a_deploy_that_waits_before_a_concurrent_build_is_cancelled_with_a_message(migrated, deploy):
    with running(migrated) as (run, recorded):
        waiting = deploy(on=migrated)
        build(run)

    assert waiting.ended() == "57014"
    assert timeless(recorded) == cancelled(migrated, waiting.pid)
    assert migrated.execute(VALID_SQL) == [(True,)]


def test_a_deploy_that_starts_during_a_concurrent_build_is_cancelled_before_the_build_is_lost(migrated, deploy):
    with running(migrated) as (run, recorded), open_transaction(migrated, WRITE) as client, ThreadPoolExecutor() as pool:

        def come():
            wait_until(migrated, BUILDING_SQL)
            waiting = deploy(on=migrated)
            end = waiting.ended()
            client.execute("COMMIT")  # Until here the build waits for it.
            return waiting, end

        coming = pool.submit(come)
        build(run)
        waiting, end = coming.result()

    assert end == "57014"
    assert timeless(recorded) == cancelled(migrated, waiting.pid)
    assert migrated.execute(VALID_SQL) == [(True,)]


def test_a_deploy_that_locks_a_table_is_cancelled_if_a_run_waits_for_the_table(migrated, deploy):
    with running(migrated) as (run, recorded), run.connection.cursor() as cursor:
        waiting = deploy("BEGIN", WRITE, on=migrated)
        cursor.execute("ALTER TABLE users ADD COLUMN probe integer")

    assert waiting.ended() == "57014"
    assert timeless(recorded) == cancelled(migrated, waiting.pid)


def test_a_deploy_in_a_deadlock_is_cancelled_too(migrated, deploy):
    with running(migrated) as (run, recorded), run.connection.cursor() as cursor:
        waiting = deploy("BEGIN", WRITE, on=migrated)
        run.execute("SET deadlock_timeout = '10ms'")
        cursor.execute("ALTER TABLE users ADD COLUMN probe integer")

    assert waiting.ended() == "57014"
    [first, second] = timeless(recorded)
    assert [first] == cancelled(migrated, waiting.pid)
    assert re.fullmatch(r"the run ran into a deadlock and was rolled back; retrying in \d\.\d s\.", second)


@pytest.mark.slow
def test_a_deploy_that_waits_during_an_adoption_is_cancelled_before_its_concurrent_build(database, deploy):
    fill(database, KINDS["exact"])
    waiting, recorded = [], RecordedProgress()

    def done(step, seconds):
        if not waiting:
            waiting.append(deploy())

    with django(database) as opened:
        adopt(opened.alias, patience=20, progress=recorded, repair=False, end_idle=False, done=done)

    assert waiting[0].ended() == "57014"
    assert timeless(recorded.sentences) == cancelled(database, waiting[0].pid)
    assert is_as_migrated(database)


@pytest.mark.slow
def test_a_deploy_that_blocks_no_statement_gets_the_lock_after_the_run(migrated, deploy):
    with running(migrated) as (run, recorded), run.connection.cursor() as cursor:
        waiting = deploy(on=migrated)
        cursor.execute("ALTER TABLE users ADD COLUMN probe integer")
        cursor.execute("SELECT pg_sleep(1.2)")

    assert waiting.ended() == "locked"
    assert recorded == []


@pytest.fixture
def owner(migrated):
    """A role that owns the table and may cancel nobody else's session."""
    role = f"{migrated.name}_owner"
    migrated.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE users OWNER TO {role}")
    yield role
    migrated.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")


def may_not_cancel(database, role, pid):
    return (
        f"The session of pid {pid} (prisma, role {database.user}) waits for the migration lock that this run holds, and the run would"
        f" in turn wait for that session. The role {role} may not cancel it. As {database.user} or a superuser, run"
        f" SELECT pg_cancel_backend({pid}); or wait until the session ends. Then run the command again."
    )


def test_a_deploy_that_this_role_may_not_cancel_is_named_before_a_build(migrated, owner, deploy):
    with running(migrated, role=owner) as (run, recorded):
        waiting = deploy(on=migrated)
        with pytest.raises(LockedOut) as refused:
            build(run)

    assert waiting.ended() == "locked"
    assert (str(refused.value), recorded) == (may_not_cancel(migrated, owner, waiting.pid), [])
    assert migrated.execute(VALID_SQL) == []


@pytest.mark.slow
def test_a_build_lost_to_a_deploy_that_this_role_may_not_cancel_is_given_up_at_once(migrated, owner, deploy, settings):
    settings.LOCK_TIMEOUT = 2000  # After that it would name the session that it waits for.
    with (
        running(migrated, role=owner) as (run, recorded),
        open_transaction(migrated, WRITE) as client,
        ThreadPoolExecutor() as pool,
    ):

        def come():
            wait_until(migrated, BUILDING_SQL)
            waiting = deploy("SET deadlock_timeout = '10ms'", on=migrated)  # It checks once, before there is a deadlock.
            client.execute("SELECT pg_sleep(0.2); COMMIT")
            return waiting

        coming = pool.submit(come)
        with pytest.raises(LockedOut) as refused:
            build(run)

    waiting = coming.result()
    assert waiting.ended() == "locked"
    assert (str(refused.value), recorded) == (may_not_cancel(migrated, owner, waiting.pid), [])
    assert migrated.execute(VALID_SQL) == []
