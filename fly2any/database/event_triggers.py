"""Event triggers that run with changes to the schema, and so with migrations."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Severity
from .sql import fetch_all, quote

# Those of extensions are left out: their authors made them for any schema.
EVENT_TRIGGERS_SQL = """
    SELECT e.evtname::text FROM pg_catalog.pg_event_trigger AS e
    WHERE e.evtenabled IN ('O', 'A') AND e.evtevent IN ('ddl_command_start', 'ddl_command_end', 'sql_drop', 'table_rewrite')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e')
    ORDER BY 1
"""


def of_event_triggers(database: str, names: list[str]) -> Iterator[Finding]:
    """Yield the note about event triggers, if there are any."""
    if names:
        yield Finding(
            Severity.NOTE, "server.event_trigger", database,
            f"Event triggers run whenever the schema changes: {', '.join(names)}. If one raises an error, migrations fail.",
            "\n".join(
                ["If a migration fails because of one, ask its owner, or as a superuser:"]
                + [f"ALTER EVENT TRIGGER {quote(name)} DISABLE;" for name in names]
            ),
        )  # fmt: skip


def warning(connection) -> str:
    """Return the warning to print before the schema is changed, "" if there is no event trigger."""
    names = [name for (name,) in fetch_all(connection, EVENT_TRIGGERS_SQL)]
    if not names:
        return ""
    listed = f"The event trigger {names[0]} runs" if len(names) == 1 else f"The event triggers {', '.join(names)} run"
    return f"{listed} with each migration: if one raises an error, the migration fails, and `manage.py dbstatus` prints how to disable it."
