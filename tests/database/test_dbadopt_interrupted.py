"""Adoptions that are killed, that wait for other sessions, or that run at the same time."""

import pytest

from fly2any.database.adoption import adopt, assess
from fly2any.database.progress import Progress
from tests import prisma
from tests.conftest import django, manage, start_manage
from tests.database.sites import adopted, contents, is_as_migrated, plan
from tests.servers import open_transaction, wait_until


@pytest.mark.slow
@pytest.mark.parametrize("table", ["accounts", "notifications", "users", "verification_tokens", "wishlist_items"])
def test_after_a_kill_during_a_lock_wait_the_site_works_and_a_second_run_resumes(exact, table):
    before = contents(exact)
    with open_transaction(exact, f"SELECT FROM {table}"):
        process = start_manage("dbadopt", "--yes", url=exact.url)
        wait_until(
            exact,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE %s",
            [f'ALTER TABLE "{table}"%'],
        )
        process.kill()
        process.communicate()
    assert contents(exact) == before
    exact.execute(
        "BEGIN; " + "".join(prisma.fill(name, 1, first=10_001) for name in ("users", table) if table != "users") + "ROLLBACK"
    )
    assert manage("migrate", url=exact.url).returncode == 2

    adopted(exact)

    assert contents(exact) == before
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_after_a_kill_during_a_concurrent_build_a_second_run_resumes(exact):
    before = contents(exact)
    invalid = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('verification_tokens_pkey') AND NOT indisvalid"
    with open_transaction(exact, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM push_subscriptions LIMIT 0"):
        # An old snapshot, although of a table that this run has finished.
        process = start_manage("dbadopt", "--yes", "--lock-wait", "60", url=exact.url)
        wait_until(
            exact,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE %s",
            ['ALTER TABLE "push%'],
        )
    with open_transaction(exact, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1"):
        (builder,) = wait_until(exact, "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()")
        wait_until(exact, invalid)
        process.kill()
        process.communicate()
        exact.execute("SELECT pg_terminate_backend(%s, 10000)", [builder])
    assert exact.execute(invalid) == [(1,)]

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 0
    assert (
        result.stderr == "The index verification_tokens_pkey was left invalid by an earlier build: it is dropped and rebuilt.\n"
    )
    assert contents(exact) == before
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_time_columns_have_statistics_afterwards_even_if_a_run_was_killed(exact):
    columns = "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public' AND attname IN ('createdAt', 'timestamp') ORDER BY 1, 2"
    exact.execute("ANALYZE")
    before = exact.execute(columns)
    exact.execute("SET TimeZone TO 'UTC'; ALTER TABLE users ALTER \"createdAt\" TYPE timestamptz")  # As a killed run leaves it.

    adopted(exact)

    assert len(before) > 10
    assert exact.execute(columns) == before


@pytest.mark.slow
def test_of_two_adoptions_at_once_one_adopts_and_both_succeed(exact):
    processes = [start_manage("dbadopt", "--yes", url=exact.url) for _ in range(2)]
    ends = [(process.communicate(timeout=120), process.returncode)[1] for process in processes]

    assert ends == [0, 0]
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_after_a_kill_once_recorded_a_second_run_resumes_the_migrations(exact):
    snapshot = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM _prisma_migrations")
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND wait_event = 'virtualxid' AND datname = current_database()"
    )
    with open_transaction(exact, *snapshot) as first:
        process = start_manage("dbadopt", "--yes", url=exact.url)
        wait_until(exact, waiting, ["CREATE UNIQUE INDEX CONCURRENTLY %"])
        # The build has noted whom it waits for: a snapshot from now on holds up the next build only.
        with open_transaction(exact, *snapshot):
            first.execute("COMMIT")
            wait_until(exact, waiting, ['CREATE INDEX CONCURRENTLY "accounts%'])
            process.kill()
            process.communicate()
            exact.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_progress_create_index WHERE datname = current_database()"
            )
    report = plan(exact)
    assert report["kind"] == "ours"
    assert "migration accounts.0003_account_user_index" in [step["what"] for step in report["migrations"]]

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 0, result.stdout + result.stderr
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_a_locked_row_is_waited_for_and_the_lock_holder_named(exact):
    with open_transaction(exact, "SELECT FROM verification_tokens WHERE identifier = 'identifier 3' FOR UPDATE") as client:
        # The row alone: the table's own conversion comes first, and needs it all.
        client.execute("COMMIT")
        exact.execute(
            "ALTER TABLE verification_tokens ADD COLUMN id text, ALTER COLUMN id SET DEFAULT gen_random_uuid()::text, ALTER COLUMN expires TYPE timestamptz"
        )
        for name in ("verification_tokens_identifier_token_key", "verification_tokens_token_key"):
            exact.execute(f"ALTER TABLE verification_tokens ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
        client.execute("BEGIN; SELECT FROM verification_tokens WHERE identifier = 'identifier 3' FOR UPDATE")
        result = manage("dbadopt", "--yes", "--lock-wait", "1", url=exact.url)
        pid = client.info.backend_pid

    assert result.returncode == 2
    assert f"because of pid {pid} (the site" in result.stderr
    assert manage("dbadopt", "--yes", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_a_check_left_by_a_killed_run_is_dropped_even_if_nulls_were_added(exact):
    exact.execute('ALTER TABLE wishlist_items ALTER "flightData" DROP NOT NULL')
    exact.execute("""UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 7'""")
    exact.execute(
        """ALTER TABLE wishlist_items ADD CONSTRAINT "adopting_not_null_flightData" CHECK ("flightData" IS NOT NULL) NOT VALID"""
    )

    adopted(exact)

    assert exact.execute("SELECT conname FROM pg_constraint WHERE conname LIKE 'adopting%'") == []
    assert manage("dbstatus", url=exact.url).returncode == 0


@pytest.mark.slow
def test_after_each_step_the_rest_of_the_plan_remains(exact):
    planned, left = [], []

    def is_looked_at(step):  # Steps that only change rows are repeated, with nothing to change.
        return step.table == "verification_tokens" and "statistics" not in step.what and not step.repeated

    def steps(assessment):
        return [step.what for step in assessment.steps if is_looked_at(step)]

    def done(step, seconds):
        if is_looked_at(step):
            again = assess(connection)
            left.append((steps(again), again.blockers))

    with django(exact) as connection:
        planned += steps(assess(connection))
        adopt(connection.alias, patience=10, progress=Progress(), repair=False, end_idle=False, done=done)

    assert left == [(planned[number:], ()) for number in range(1, len(planned) + 1)]


@pytest.mark.slow
def test_a_unique_constraint_in_place_of_the_primary_key_is_replaced(exact):
    """Left by an interrupted run of an earlier version."""
    exact.execute(
        "ALTER TABLE verification_tokens ADD id text NOT NULL DEFAULT gen_random_uuid()::text,"
        " ADD CONSTRAINT verification_tokens_pkey UNIQUE (id)"
    )

    adopted(exact)

    assert is_as_migrated(exact)
