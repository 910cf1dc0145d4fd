"""Subscriptions of this database: changes of another one that do not arrive."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..sql import quote
from ..units import plural
from .examine import Figure, Reader

# A worker that fails is started again after some seconds. One for a table copies its existing rows.
SUBSCRIPTIONS_SQL = """
    SELECT s.subname::text AS name, s.subenabled AS enabled, {failures}
           EXISTS (SELECT FROM pg_catalog.pg_stat_subscription AS w WHERE w.subid = s.oid AND w.pid IS NOT NULL AND w.relid IS NULL) AS applies,
           EXISTS (SELECT FROM pg_catalog.pg_stat_subscription AS w WHERE w.subid = s.oid AND w.relid IS NOT NULL) AS copies,
           ARRAY(SELECT r.srrelid::regclass::text FROM pg_catalog.pg_subscription_rel AS r
                 WHERE r.srsubid = s.oid AND r.srsubstate NOT IN ('r', 's') ORDER BY r.srrelid::regclass::text COLLATE "C") AS missing
    FROM pg_catalog.pg_subscription AS s
    WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) ORDER BY s.subname
"""
# PostgreSQL 14 counts no failures.
FAILURES = """
    (SELECT e.apply_error_count FROM pg_catalog.pg_stat_subscription_stats AS e WHERE e.subid = s.oid) AS failures,
    (SELECT (pg_catalog.to_jsonb(e) ->> 'sync_error_count')::bigint FROM pg_catalog.pg_stat_subscription_stats AS e WHERE e.subid = s.oid) AS failed_copies,
"""
NO_FAILURES = "NULL::bigint AS failures, NULL::bigint AS failed_copies,"


def subscriptions(read: Reader) -> Iterator[Figure | Finding]:
    """Report subscriptions that are disabled, and those whose workers fail."""
    counts = FAILURES if read.connection.pg_version >= 15_00_00 else NO_FAILURES
    for row in read(SUBSCRIPTIONS_SQL.format(failures=counts)):
        state = "applies changes" if row.applies else "applies nothing" if row.enabled else "disabled"
        yield Figure(f"subscription {row.name}", state, row.applies)
        name = quote(row.name)
        if not row.enabled:
            yield _finding(
                row.name, f"Subscription {row.name} is disabled (disable_on_error does that after an error), so no changes arrive.",
                f"Fix the cause that the server's log reports, then ALTER SUBSCRIPTION {name} ENABLE; if it is not needed: DROP SUBSCRIPTION {name};",
            )  # fmt: skip
        elif not row.applies:
            failed = f", and it has failed {plural(row.failures, 'time')}" if row.failures else ""
            yield _finding(
                row.name, f"No worker applies the changes of subscription {row.name}{failed}: no changes arrive, and its publisher keeps WAL for it.",
                "Fix what the server's log reports. For a conflict, change the row here, or skip the transaction whose LSN the log"
                f" names: ALTER SUBSCRIPTION {name} SKIP (lsn = …); (PostgreSQL 15 or later).",
            )  # fmt: skip
        elif row.failed_copies and row.missing and not row.copies:
            yield _finding(
                row.name, f"Subscription {row.name} has not copied the rows of {plural(len(row.missing), 'table')}, for example {row.missing[0]}, and copying has failed {plural(row.failed_copies, 'time')}.",
                "Fix what the server's log reports; the server then tries again by itself.",
            )  # fmt: skip


def _finding(name: str, message: str, cure: str) -> Finding:
    return Finding(Severity.WARNING, "replication.subscription", name, message, cure)
