"""The server's lock table, whose size is fixed: a backup locks every table twice, once for pg_dump and once for its own snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from django.db import Error

from ..errors import Refusal, sqlstate
from ..sql import fetch_one
from ..units import plural

FULL = "53200"  # out_of_memory
# In the message of the server, or in its hint, which names the setting in every language.
OF_LOCKS = re.compile("out of shared memory|max_locks_per_transaction")
# The number of locks for each transaction, and of transactions that the table has room for, apart from some of the server's own; the
# number of tables, and the role that owns the most, with its number.
SIZES_SQL = """
    SELECT pg_catalog.current_setting('max_locks_per_transaction')::int,
           pg_catalog.current_setting('max_connections')::int + pg_catalog.current_setting('max_prepared_transactions')::int,
           o.tables::int, pg_catalog.pg_get_userbyid(o.relowner)::text, o.own::int
    FROM (SELECT c.relowner, pg_catalog.count(*) AS own, pg_catalog.sum(pg_catalog.count(*)) OVER () AS tables
          FROM pg_catalog.pg_class AS c WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.oid >= 16384 GROUP BY c.relowner) AS o
    ORDER BY o.own DESC, 4 LIMIT 1
"""
LOCKS = 2  # For each table.
SPARE = 1.25  # For the locks of other sessions.


@contextmanager
def explained(connection) -> Iterator[None]:
    """Run the block; raise Refusal with the cure if it fails because the lock table is full."""
    try:
        yield
    except (Error, Refusal) as error:
        if not (OF_LOCKS.search(str(error)) and (isinstance(error, Refusal) or sqlstate(error) == FULL)):
            raise
        raise Refusal(_cure(connection)) from error


def _cure(connection) -> str:
    each, transactions, tables, owner, own = fetch_one(connection, SIZES_SQL)
    needed = max(2 * each, 64 * ceil(LOCKS * SPARE * tables / transactions / 64))
    return (
        f"The server's lock table is too small for a backup, which locks each of the {plural(tables, 'table')} twice; the role {owner} owns"
        f" {own:,} of them. Drop those that are not needed, or, as a superuser: ALTER SYSTEM SET max_locks_per_transaction = {needed}; and"
        " restart the server. Then run the command again."
    )
