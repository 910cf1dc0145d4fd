"""A long VACUUM is no alarm, and no printed cure ends a session that builds an index without blocking writes."""

from contextlib import closing, contextmanager

import pytest

from fly2any.database.health.examine import Reader
from fly2any.database.health.horizon import describe, end, read_holder
from tests.conftest import django
from tests.database.test_dbhealth import NOW, waiting
from tests.database.test_health_privileges import asked
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def table(database):
    database.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) AS n; DELETE FROM t WHERE n < 500")
    return database


@contextmanager
def running(database, *statements, shown_in):
    """A session in the middle of the last of `statements`, and what dbhealth finds of its transaction and of the oldest snapshot."""
    with closing(database.connect()) as client:
        for statement in statements[:-1]:
            client.execute(statement)
        client.pgconn.send_query(statements[-1].encode())
        pid = client.info.backend_pid
        wait_until(
            database,
            f"SELECT 1 FROM {shown_in} JOIN pg_stat_activity USING (pid) WHERE pid = %s AND backend_xmin IS NOT NULL",
            [pid],
        )
        found = asked(database, "transactions", longest=NOW)[1]
        with django(database) as connection:
            connection.ensure_connection()
            holder = read_holder(Reader(connection, "public"))
        yield pid, found, holder
        client.cancel()


def test_a_vacuum_is_neither_a_long_transaction_nor_one_that_keeps_dead_rows(table):
    slowly = ("SET vacuum_cost_delay = 100", "SET vacuum_cost_limit = 1", "VACUUM t")
    with running(table, *slowly, shown_in="pg_stat_progress_vacuum") as (_, found, holder):
        assert (found, holder) == ([], None)


def test_the_end_of_a_concurrent_build_is_to_be_waited_for(table):
    table.execute(
        "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN $1; END'"
    )
    build = "CREATE INDEX CONCURRENTLY ON t (slow(n))"
    with running(table, build, shown_in="pg_stat_progress_create_index") as (pid, [found], holder):
        assert (str(found.severity), found.code, found.where, found.cure) == (
            *("note", "transactions.long", f"session {pid}"),
            "Wait until the index is built: until then, VACUUM cannot remove rows that died after the transaction began.",
        )
        assert (describe(holder), end(holder)) == (f"session {pid}, which builds an index", "Wait until the index is built.")


def test_the_statement_that_waits_for_a_vacuum_is_ended_in_its_place(table):
    """The site's reads wait behind it for as long as the VACUUM takes."""
    slowly = ("SET vacuum_cost_delay = 100", "SET vacuum_cost_limit = 1", "VACUUM t")
    with (
        running(table, *slowly, shown_in="pg_stat_progress_vacuum") as (pid, _, _),
        waiting(table, "ALTER TABLE t ADD b int") as waiter,
        waiting(table, "SELECT FROM t"),
    ):
        [found] = asked(table, "locks", longest=NOW)[1]

    assert (str(found.severity), found.where, found.cure) == (
        *("error", f"session {pid}"),
        "Wait until its VACUUM or the build of its index ends: it blocks no reads or writes."
        f" If others wait for session {waiter}, end that: manage.py dbhealth locks --terminate {waiter} --yes",
    )
