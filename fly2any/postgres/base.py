"""Django's PostgreSQL backend, where the Fly2Any schema and its embedded server need it to differ."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base
from django.utils.functional import cached_property
from psycopg.sql import Composable

from . import embedded, pooler, search_path
from .client import DatabaseClient
from .error_text import DatabaseErrorWrapper
from .features import DatabaseFeatures
from .introspection import DatabaseIntrospection
from .operations import DatabaseOperations
from .response_timeout import limit_waits
from .schema import DatabaseSchemaEditor
from .values import accept_any_time

OF_NO_SCHEMA = re.compile(r"\s*(CREATE|DROP)\s+DATABASE\b", re.I)  # These statements cannot run in a transaction.


def in_a_transaction(execute, statement, parameters, many, context):
    """Run a statement in a transaction where its search path must be set with each: where it leads through a pooler."""
    connection = context["connection"]
    if (
        not connection.get_autocommit()
        or not hasattr(connection.connection, "transaction_path")
        or OF_NO_SCHEMA.match(statement.as_string(None) if isinstance(statement, Composable) else str(statement))
    ):
        return execute(statement, parameters, many, context)
    connection.set_autocommit(False)
    try:
        result = execute(statement, parameters, many, context)
        connection.commit()
        return result
    finally:
        if connection.connection and not connection.connection.closed:
            connection.rollback()
            connection.set_autocommit(True)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that starts the embedded server, where DATABASES has an `EMBEDDED` entry, when it is needed.

    `EMBEDDED` is {"HOME": the server's folder, "NAME": the database to create, "SETTINGS": {name: value of postgresql.conf}}.
    `DIRECT` is the entry for what needs a session of its own, where the rest goes through a pooler.
    """

    transaction_limit = ""  # A statement that sets the limit of a transaction whose first statement sets the search path.

    SchemaEditorClass = DatabaseSchemaEditor
    client_class = DatabaseClient
    features_class = DatabaseFeatures
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.execute_wrappers.append(in_a_transaction)

    @cached_property
    def wrap_database_errors(self):
        return DatabaseErrorWrapper(self)

    def get_connection_params(self):
        self.start_embedded_server()
        parameters = super().get_connection_params()
        if self.settings_dict.get("POOLER") and "options" in parameters:  # Poolers reject search_path in the options.
            parameters["options"], _ = search_path.split(parameters["options"])
        return parameters

    def get_new_connection(self, conn_params):
        try:
            connection = super().get_new_connection(conn_params)
        except Exception as error:
            error.database_variable = self.settings_dict.get("VARIABLE")  # type: ignore[attr-defined]
            error.database_place = {name: self.settings_dict[name] for name in ("HOST", "PORT")}  # type: ignore[attr-defined]
            raise
        # Named in each BEGIN, whatever the role's default: rows read after a lock is granted must be current.
        connection.isolation_level = self.isolation_level  # type: ignore[attr-defined]
        return connection

    def init_connection_state(self):
        try:
            super().init_connection_state()
        except search_path.SearchPathError:
            self.close()  # Django would continue to use the connection.
            raise
        accept_any_time(self.connection)
        status = self.connection.info.parameter_status
        if not status("DateStyle").startswith("ISO"):  # psycopg reads no other style.
            with self.connection.cursor() as cursor:
                cursor.execute("SET datestyle TO ISO")
        if status("standard_conforming_strings") == "off":  # A backslash in our literals is a backslash.
            with self.connection.cursor() as cursor:
                cursor.execute("SET standard_conforming_strings TO on")

    def _configure_connection(self, connection):  # Also called by psycopg's pool.
        limit_waits(connection)
        place = self.settings_dict
        _, path = search_path.split(place["OPTIONS"].get("options", ""))
        variable = place.get("VARIABLE", "POSTGRES_URL")
        keeps = place.get("KEEPS_SESSION", False)
        path, kept = search_path.require(
            connection, path, variable=variable, user=place["USER"], database=place["NAME"], keeps_session=keeps
        )
        connection.own_path = path
        # Another transaction may get a server connection with another path, unless it is known to keep its session.
        if path and not keeps and (place.get("POOLER") or not kept):
            connection.transaction_path = search_path.local(path)
        super()._configure_connection(connection)  # type: ignore[misc]
        return True  # A transaction must be ended.

    def _set_autocommit(self, autocommit):
        super()._set_autocommit(autocommit)  # type: ignore[misc]
        if not autocommit and (statement := getattr(self.connection, "transaction_path", None)):
            try:
                with self.connection.cursor() as cursor, self.wrap_database_errors:
                    cursor.execute("; ".join(filter(None, [statement, self.transaction_limit])))
            except BaseException:
                self.close()
                raise

    def start_embedded_server(self):
        """Start the embedded server unless it runs or this connection is to another server."""
        if server := self.settings_dict.get("EMBEDDED"):
            embedded.hold(Path(server["HOME"]), server["SETTINGS"], server["NAME"])

    @contextmanager
    def direct(self) -> Iterator[None]:
        """Use a connection straight to the server inside: one that keeps its session from one transaction to the next.

        Raises ImproperlyConfigured if DATABASES has none. May be nested.
        """
        configured, settings = self.settings_dict, self.settings_dict.get("DIRECT")
        try:
            if settings:
                usual = pooler.place(self) if not settings["POOLER"] else None
                self.close()
                self.settings_dict = {**configured, **settings, "DIRECT": None}
            if reason := pooler.keeps_no_session(self):
                raise ImproperlyConfigured(reason)
            if settings and (there := pooler.place(self)) != usual:
                raise ImproperlyConfigured(
                    f"{settings['VARIABLE']} points to the database {there}, and {configured['VARIABLE']} to {usual}: correct one of them."
                )
            self.settings_dict = {**self.settings_dict, "KEEPS_SESSION": True}  # Copies of the connection use it too.
            if statement := vars(self.connection).pop("transaction_path", None):
                with self.cursor() as cursor:
                    cursor.execute(statement.replace("SET LOCAL", "SET", 1))
            yield
        except Exception as error:
            if settings and self.settings_dict is not configured:
                error.database_variable = settings["VARIABLE"]  # type: ignore[attr-defined]
            raise
        finally:
            if settings:
                self.close()
            self.settings_dict = configured
