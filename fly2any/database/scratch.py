"""A scratch database on the server of a connection: for what must not touch the real one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from . import journal
from .catalog import read_catalog
from .contract import Contract, grow
from .migration_state import known_migrations


@contextmanager
def scratch_database(connection) -> Iterator:
    """Yield a connection to a new, empty database beside that of `connection`, and drop the database in the end."""
    name = f"scratch_{secrets.token_hex(6)}"
    identifier = sql.Identifier(name)
    beside = connection.copy()  # Databases are not created in a transaction, which `connection` may be in.
    with beside.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(identifier))
    # Under an alias of its own, so that transactions and migrations find it.
    options = {option: value for option, value in connection.settings_dict["OPTIONS"].items() if option != "options"}
    connections.databases[name] = {**connection.settings_dict, "NAME": name, "OPTIONS": options}
    try:
        yield connections[name]
    finally:
        connections[name].close()
        del connections[name], connections.databases[name]
        with beside.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))
        beside.close()


def built_contract(connection) -> Contract:
    """Return the contract that the code's migrations build, applied one at a time on a scratch database."""
    contract = Contract((), ())
    with scratch_database(connection) as scratch:
        executor = MigrationExecutor(scratch)
        executor.recorder.ensure_schema()
        journal.ensure(scratch)
        for name in known_migrations():
            app, _, migration = name.partition(".")
            executor.migrate([(app, migration)])
            executor.loader.build_graph()
            contract = grow(contract, name, read_catalog(scratch, schema="public"))
    return contract
