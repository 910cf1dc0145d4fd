"""The archive of WAL: a server keeps each segment until it is archived."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..units import plural, size, span
from .examine import Figure, Reader

ARCHIVER_SQL = """
    SELECT current_setting('archive_command') = '' AND COALESCE(current_setting('archive_library', true), '') = '' AS is_unset,
           a.last_failed_time > COALESCE(a.last_archived_time, '-infinity') AS fails, a.failed_count AS failures,
           a.last_failed_wal AS failed, now() - a.last_failed_time AS since_failure,
           a.last_archived_wal AS archived, now() - a.last_archived_time AS since_archived,
           pg_catalog.has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE') AS may_list
    FROM pg_catalog.pg_stat_archiver AS a WHERE current_setting('archive_mode') <> 'off'
"""
WAITING_SQL = """
    SELECT (count(*) * pg_catalog.pg_size_bytes(current_setting('wal_segment_size')))::bigint AS bytes
    FROM pg_catalog.pg_ls_archive_statusdir() AS f WHERE f.name LIKE '%%.ready'
"""


def archiving(read: Reader, *, most: int) -> Iterator[Figure | Finding]:
    """Report how much WAL waits to be archived, and whether the server cannot archive it."""
    for row in read(ARCHIVER_SQL):
        waiting = read.one(WAITING_SQL).bytes if row.may_list else None
        shown = "not visible to this role: GRANT pg_monitor" if waiting is None else size(waiting)
        yield Figure("WAL to archive", shown, waiting, "wal_to_archive_bytes")
        if row.is_unset:
            yield _finding(
                Severity.ERROR,
                "archive_mode is on, but no archive_command (or archive_library) is set: the server archives no WAL, and keeps it until its disk is full.",
                "Set archive_command and run SELECT pg_reload_conf(); or, if no archive is wanted, set archive_mode to off and restart the server.",
            )
        elif row.fails:
            after = f" after {row.archived}" if row.archived else ""
            yield _finding(
                Severity.ERROR,
                f"Archiving failed {span(row.since_failure)} ago for {row.failed}, {plural(row.failures, 'time')} in total, and nothing has been archived since: the server keeps"
                f" WAL until its disk is full, and no WAL{after} can be recovered from the archive.",
                "Read the command's output in the server's log, and fix it (SHOW archive_command); the server then tries again by itself.",
            )
        elif waiting is not None and waiting > most:
            last = (
                f"the last segment was archived {span(row.since_archived)} ago"
                if row.archived
                else "no segment has been archived yet"
            )
            yield _finding(
                Severity.WARNING,
                f"{size(waiting)} of WAL waits to be archived (limit {size(most)}), which fills the disk; {last}.",
                "Check on the server whether the command (SHOW archive_command) hangs or is too slow.",
            )


def _finding(severity: Severity, message: str, cure: str) -> Finding:
    return Finding(severity, "replication.archive", "archive_command", message, cure)
