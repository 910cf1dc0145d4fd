"""What a backup of a standby lacks: transactions that it has not replayed, and the rows of UNLOGGED tables."""

from __future__ import annotations

from datetime import UTC, datetime

from ..clock import LIMIT
from ..errors import Refusal
from ..progress import Progress
from ..schema.untrusted_code import our_tables
from ..server import read_home
from ..sql import catalogue, quote
from ..units import few, span

SHOWN = 5
# A standby has what its primary committed until then: all that was received, or all that there was to receive, is not known.
STANDBY_SQL = """
    SELECT pg_catalog.pg_is_in_recovery(), LEAST(pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.now())
"""
# UNLOGGED tables, whose rows no standby has: reading one fails there, and pg_dump leaves the rows out. The second column: whether
# it is a table of ours, or a partition of one.
UNLOGGED_SQL = """
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), ours.oid IS NOT NULL
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_class AS ours ON ours.relname = ANY (%(tables)s::text[]) AND ours.relnamespace = pg_catalog.to_regnamespace(%(schema)s)
        AND ours.oid = COALESCE(pg_catalog.pg_partition_root(c.oid), c.oid)
    WHERE pg_catalog.pg_is_in_recovery() AND c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    ORDER BY 2 DESC, n.nspname COLLATE "C", c.relname COLLATE "C"
"""


def data_of(cursor, now: datetime, progress: Progress) -> datetime:
    """Return the time up to which the database has all commits: `now`, or on a standby that of its last replayed transaction.

    Tells `progress` if these are far apart; raises Refusal if a standby does not know it.
    """
    cursor.execute(STANDBY_SQL)
    is_standby, replayed = cursor.fetchone()
    if not is_standby:
        return now
    if replayed is None:
        raise Refusal(
            "The age of the data is not known: this standby has replayed no transaction since it started. Take the backup on the"
            " primary, or run the command again once a transaction is replayed."
        )
    if now - replayed > LIMIT:
        progress.say(
            f"This server is a standby whose newest transaction is {span(now - replayed)} old, so the backup is dated"
            f" {replayed.astimezone(UTC):%Y-%m-%d %H:%M} UTC. If the primary has newer transactions, repair the replication."
        )
    return replayed


def require_logged(connection, progress: Progress) -> None:
    """Raise Refusal if the server is a standby that lacks the rows of a table of ours; report other such tables to `progress`."""
    schema = read_home(connection)[0]
    with catalogue(connection) as cursor:
        cursor.execute(UNLOGGED_SQL, {"tables": our_tables(), "schema": schema and quote(schema)})
        found = cursor.fetchall()
    if found and found[0][1]:
        name = found[0][0]
        raise Refusal(
            f"{name} is UNLOGGED, and this server is a standby, which has none of its rows, so no backup was taken: take it on the"
            f" primary, or run there: ALTER TABLE {name} SET LOGGED;"
        )
    if found:
        named = few([name for name, _ in found], SHOWN)
        progress.say(f"Not in the backup: the rows of {named}, because a standby has none of UNLOGGED tables.")
