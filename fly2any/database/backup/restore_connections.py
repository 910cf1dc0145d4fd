"""The connections of a restore: beside the database in use, without a time limit, and without event triggers.

swap.py ends the sessions of other clients, and staff_after_restore.py those of the admin that were in the backup.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from fly2any.postgres import search_path

from ..sql import execute, fetch_one
from . import tools

# A role or provider may limit each statement of a session to less than ANALYZE takes; transaction_timeout is of 17 and later.
UNLIMITED_SQL = """
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout')
"""
# For sessions on PostgreSQL 17 and later.
MAY_DISABLE_SQL = "SELECT pg_catalog.has_parameter_privilege('event_triggers', 'SET')"
NO_EVENT_TRIGGERS = "-c event_triggers=off"
# In a session that reads NULL in an array as text; pg_restore has the same options.
ARRAY_NULLS = "-c array_nulls=on"


@contextmanager
def connection_to(connection, name: str, *, schema: str | None = None) -> Iterator:
    """Yield a connection to the database `name` of the same server, in `schema` if given, prepared by prepare_session().

    If its role may, it fires no event trigger: one on login would change the rows that are compared.
    """
    alias = f"beside_{name}"
    options = {option: value for option, value in connection.settings_dict["OPTIONS"].items() if option != "options"}
    if schema:
        options["options"] = search_path.option(schema)
    connections.databases[alias] = {**connection.settings_dict, "NAME": name, "OPTIONS": options, "DIRECT": None}
    beside = connections[alias]
    try:
        beside.ensure_connection()
        added = [ARRAY_NULLS] if fetch_one(beside, "SHOW array_nulls") == ("off",) else []
        if tools.server_version(beside)[0] >= 17 and fetch_one(beside, MAY_DISABLE_SQL)[0]:
            added.append(NO_EVENT_TRIGGERS)
        if added:
            beside.close()
            options["options"] = " ".join([options.get("options", ""), *added]).strip()
        prepare_session(beside)
        yield beside
    finally:
        connections[alias].close()
        del connections[alias], connections.databases[alias]


def prepare_session(connection) -> None:
    """Let the session write even if the database is read-only by default, as an operator may set it before a restore, and take its time."""
    execute(connection, "SET default_transaction_read_only TO off")
    execute(connection, UNLIMITED_SQL)
