"""Django's PostgreSQL backend, where the Fly2Any schema and its embedded server need it to differ."""

from pathlib import Path

from django.db.backends.postgresql import base

from . import embedded
from .client import DatabaseClient
from .schema import DatabaseSchemaEditor


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that starts the embedded server, where DATABASES has an `EMBEDDED` entry, when it is needed.

    `EMBEDDED` is {"HOME": the server's folder, "NAME": the database to create, "SETTINGS": {name: value of postgresql.conf}}.
    """

    SchemaEditorClass = DatabaseSchemaEditor
    client_class = DatabaseClient

    def get_connection_params(self):
        self.start_embedded_server()
        return super().get_connection_params()

    def start_embedded_server(self):
        """Start the embedded server unless it runs or this connection is to another server."""
        if server := self.settings_dict.get("EMBEDDED"):
            embedded.hold(Path(server["HOME"]), server["SETTINGS"], server["NAME"])
