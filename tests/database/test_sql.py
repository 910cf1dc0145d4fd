"""Settings of a transaction end with the block that made them."""

from contextlib import suppress

import pytest

from fly2any.database.sql import pinned, time_limits, unpinned
from tests.conftest import django

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
def test_a_block_that_fails_within_a_transaction_that_goes_on_leaves_no_setting(database, block, copied):
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
