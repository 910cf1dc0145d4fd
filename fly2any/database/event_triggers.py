"""Event triggers that run with changes to the schema, and so with migrations, or at each login (PostgreSQL 17)."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Severity
from .sql import fetch_all, quote

# Those of extensions are left out: their authors made them for any schema.
_RUNNING_SQL = """
    SELECT e.evtname::text FROM pg_catalog.pg_event_trigger AS e
    WHERE e.evtenabled IN ('O', 'A') AND e.evtevent IN ({events})
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e')
    ORDER BY 1
"""
EVENT_TRIGGERS_SQL = _RUNNING_SQL.format(events="'ddl_command_start', 'ddl_command_end', 'sql_drop', 'table_rewrite'")
LOGIN_TRIGGERS_SQL = _RUNNING_SQL.format(events="'login'")


def of_event_triggers(database: str, names: list[str], at_login: list[str]) -> Iterator[Finding]:
    """Yield the notes about event triggers, if there are any: those that run with changes to the schema, and at each login."""
    if names:
        yield _note(
            database, names, "Event triggers run whenever the schema changes: {}. If one raises an error, migrations fail.",
            "If a migration fails because of one, ask its owner, or as a superuser:",
        )  # fmt: skip
    if at_login:
        yield _note(
            database, at_login, "Event triggers run whenever a session begins: {}. If one raises an error, no role can connect.",
            "If that happens, connect as a superuser with PGOPTIONS='-c event_triggers=off' (psql), and run:",
        )  # fmt: skip


def _note(database: str, names: list[str], message: str, cure: str) -> Finding:
    disable = [f"ALTER EVENT TRIGGER {quote(name)} DISABLE;" for name in names]
    return Finding(
        Severity.NOTE, "server.event_trigger", database, message.format(", ".join(names)), "\n".join([cure, *disable])
    )


def warning(connection) -> str:
    """Return the warning to print before the schema is changed, "" if there is no event trigger."""
    names = [name for (name,) in fetch_all(connection, EVENT_TRIGGERS_SQL)]
    if not names:
        return ""
    listed = f"The event trigger {names[0]} runs" if len(names) == 1 else f"The event triggers {', '.join(names)} run"
    return f"{listed} with each migration: if one raises an error, the migration fails, and `manage.py dbstatus` prints how to disable it."
