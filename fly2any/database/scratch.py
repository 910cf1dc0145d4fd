"""A scratch database on the server of a connection, for work that must not touch the real one."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from psycopg import sql

from .errors import Refusal
from .marked_databases import SCRATCH, drop_leftovers, mark
from .migration import journal
from .migration.ledger import conflicts, known_migrations
from .schema import read_catalog
from .schema.contract import Contract, grow
from .sql import fetch_one, quote

PREFIX = "fly2any_scratch_"
CREATEDB_SQL = """
    SELECT r.rolname::text, r.rolcreatedb OR r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user
"""


@contextmanager
def scratch_database(connection, make: Callable[[Any, str], None] | None = None) -> Iterator:
    """Yield a connection to a new, empty database on the server of `connection`, and drop the database at the end.

    `make` creates it, given a connection and the name, if it needs special properties.
    """
    require_createdb(connection)
    name = f"{PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(4)}"
    outside = connection.copy()  # Databases are not created in a transaction, which `connection` may be in.
    drop_leftovers(outside, SCRATCH)
    # Under an alias of its own, so that transactions and migrations find it.
    options = {option: value for option, value in connection.settings_dict["OPTIONS"].items() if option != "options"}
    connections.databases[name] = {**connection.settings_dict, "NAME": name, "OPTIONS": options}
    try:
        (make or _make)(outside, name)
        mark(outside, name, SCRATCH)
        yield connections[name]
    finally:
        connections[name].close()
        del connections[name], connections.databases[name]
        drop(outside, name)
        outside.close()


def require_createdb(connection) -> None:
    """Raise Refusal if this role may not create databases."""
    role, creates = fetch_one(connection, CREATEDB_SQL)
    if not creates:
        raise Refusal(
            f"The role {role} may not create databases, as this command must: as a superuser, run ALTER ROLE {quote(role)} CREATEDB;"
        )


def _make(connection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name)))


def drop(connection, name: str) -> None:
    """Drop the database `name`, if it is there, and end its sessions."""
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def built_contract(connection) -> Contract:
    """Return the contract that the code's migrations build, applied one at a time on a scratch database."""
    loader = MigrationLoader(None)
    for one in conflicts(loader):
        raise Refusal(f"{one.message} {one.cure}")
    contract = Contract((), ())
    with scratch_database(connection) as scratch:
        executor = MigrationExecutor(scratch)
        executor.recorder.ensure_schema()
        journal.ensure(scratch)
        state = None
        for name in known_migrations(loader):
            app, _, migration = name.partition(".")
            step = executor.loader.get_migration(app, migration)
            # The state is passed on from one to the next: rendering all models for each would take longer than applying it.
            state = executor.migrate([(app, migration)], plan=[(step, False)], state=state)
            contract = grow(contract, name, read_catalog(scratch, schema="public"))
    return contract
