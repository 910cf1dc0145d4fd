"""The site keeps writing, in its own way, before, during and after an adoption and the later migrations."""

import pytest

from tests import prisma
from tests.conftest import manage, start_manage
from tests.database.sites import KINDS, fill, is_as_migrated
from tests.servers import open_transaction, wait_until
from tests.writer import Writer


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_that_never_stops_sees_no_error(database, kind):
    fill(database, KINDS[kind])

    with Writer(database, "a") as first, Writer(database, "b") as second:
        plan = manage("dbadopt", url=database.url)
        adoption = manage("dbadopt", "--yes", url=database.url)
        back = manage("migrate", "travel", "0001", "--yes", "--without-backup", url=database.url)
        again = manage("migrate", url=database.url)

    assert [done.returncode for done in (plan, adoption, back, again)] == [0, 0, 0, 0], adoption.stdout + adoption.stderr
    assert first.errors + second.errors == []
    assert min(first.rounds, second.rounds) >= 3
    assert is_as_migrated(database)
    # Deleting users removes dependent rows; tables without a foreign key keep one row per round.
    for table in ("price_history", "user_activities", "verification_tokens"):
        rows = database.execute(f'SELECT count(*) FROM "{table}"')[0][0]
        assert rows == 50 + first.rounds + second.rounds
    assert database.execute("SELECT count(*), count(DISTINCT id) FROM verification_tokens WHERE id IS NULL") == [(0, 0)]


@pytest.mark.slow
def test_the_site_waits_no_longer_than_the_timeout_while_another_client_locks_a_table(database):
    fill(database, KINDS["exact"])

    with open_transaction(database, "SELECT FROM notifications") as client, Writer(database) as writer:
        pid = client.info.backend_pid
        result = manage("dbadopt", "--yes", "--lock-wait", "4", url=database.url, LOCK_TIMEOUT="")

    assert result.returncode == 2
    assert f"because of pid {pid} (the site, role {database.user}, idle in transaction" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        "notifications (2 time columns to timestamp with time zone, 1 index rebuilt)"
    )
    assert writer.errors == []
    assert writer.rounds >= 3
    assert writer.longest[0] < 4  # The timeout, plus the delay of a busy machine.
    assert manage("dbadopt", "--yes", url=database.url).returncode == 0
    assert is_as_migrated(database)


@pytest.mark.slow
def test_a_null_written_meanwhile_leaves_flight_data_nullable_and_the_site_unharmed(database):
    fill(database, KINDS["exact"])
    database.execute('ALTER TABLE wishlist_items ALTER "flightData" DROP NOT NULL')
    null = """UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 3'"""
    with open_transaction(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users") as client:
        # The adoption has checked for NULLs and waits for its concurrent build.
        client.execute("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM _prisma_migrations")
        process = start_manage("dbadopt", "--yes", url=database.url)
        wait_until(database, "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()")
        database.execute(null)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (
        0,
        "wishlist_items: flightData NOT NULL was skipped, because the column has NULLs.\n",
    ), out
    database.execute("""UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 4'""")
    assert manage("dbstatus", url=database.url).returncode == 0


def test_rows_with_every_column_that_prisma_knows_go_into_a_migrated_database(migrated):
    migrated.execute("".join(prisma.fill(table, 20) for table in prisma.PHASE7))

    assert {table: migrated.execute(f'SELECT count(*) FROM "{table}"') for table in prisma.PHASE7} == {
        key: [(20,)] for key in prisma.PHASE7
    }
