"""Settings of a transaction end with the block that made them."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection as django_connection
from django.db import transaction

from fly2any.database.sql import fetch_one, pinned, time_limits, unpinned
from tests.conftest import django, manage

STATE = "SELECT current_setting('search_path'), current_setting('lock_timeout'), current_setting('statement_timeout')"
BLOCKS = {
    "time limits": lambda connection: time_limits(connection, lock=100, statement=200),
    "pinned": lambda connection: pinned(connection, lock=100, statement=200),
    "unpinned": lambda connection: unpinned(connection, lock=100, statement=200),
}


def state(connection):
    with connection.cursor() as cursor:
        cursor.execute(STATE)
        return cursor.fetchone()


@pytest.mark.parametrize("copied", [False, True], ids=["a connection", "a copy of one"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_failed_block_of_a_transaction_that_continues_leaves_no_setting(database, block, copied):
    with django(database) as connection:
        own = connection.copy() if copied else connection
        try:
            own.set_autocommit(False)
            before = state(own)
            with suppress(ZeroDivisionError), BLOCKS[block](own):
                during = state(own)
                raise ZeroDivisionError
            after = state(own)
        finally:
            own.rollback()
            own.close()

    assert during[1:] == ("100ms", "200ms")
    assert after == before


def test_transactions_see_others_commits_whatever_the_default_isolation_is(database):
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation TO 'repeatable read'")
    with django(database) as connection, connection.cursor() as cursor, transaction.atomic(using=connection.alias):
        cursor.execute("SELECT current_setting('transaction_isolation')")
        isolation = cursor.fetchone()
        with time_limits(connection, lock=1):
            cursor.execute("SELECT current_setting('transaction_isolation')")
            assert isolation == cursor.fetchone() == ("read committed",)


def test_a_backslash_in_a_literal_is_a_backslash_in_any_database(database):
    database.execute(f"ALTER DATABASE {database.name} SET standard_conforming_strings = off; CREATE TABLE t (v text)")

    with django(database) as connection:
        row = fetch_one(connection, r"SELECT '\(', %s", [r"\n"])

    assert row == (r"\(", r"\n")
    assert manage("dbstatus", url=database.url).returncode == 1


@pytest.mark.parametrize("tables", [(), ("t",)])
def test_a_transaction_without_a_limit_for_statements_has_none_of_its_own(database, tables):
    known = django_connection.pg_version >= 170000
    database.execute(
        f"CREATE TABLE t (); ALTER DATABASE {database.name} SET {'transaction' if known else 'statement'}_timeout = '1h'"
    )
    question = "SELECT current_setting('statement_timeout'), current_setting('transaction_timeout', true)"

    with django(database) as connection:
        with time_limits(connection, statement=0, snapshot=True, tables=tables):
            during = fetch_one(connection, question)
        after = fetch_one(connection, question)

    assert (during, after) == ((("0", "0"), ("0", "1h")) if known else (("0", None), ("1h", None)))


def test_intervals_and_times_are_read_in_any_output_style(database):
    database.execute(f"ALTER DATABASE {database.name} SET intervalstyle = sql_standard")
    database.execute(f"ALTER DATABASE {database.name} SET datestyle = 'German'")

    with django(database) as connection:
        row = fetch_one(connection, "SELECT '1 day 2 hours'::interval, '2026-11-05 00:00+00'::timestamptz")
        with connection.cursor() as cursor:
            cursor.execute("SHOW intervalstyle")
            after = cursor.fetchone()

    assert row == (timedelta(days=1, hours=2), datetime(2026, 11, 5, tzinfo=UTC))
    assert after == ("sql_standard",)


def test_queries_of_the_catalogue_are_not_compiled(database):
    database.execute(f"ALTER DATABASE {database.name} SET jit TO on")
    with django(database) as connection:
        with pinned(connection):
            during = fetch_one(connection, "SHOW jit")
        assert (during, fetch_one(connection, "SELECT s.reset_val FROM pg_settings AS s WHERE s.name = 'jit'")) == (
            ("off",),
            ("on",),
        )
