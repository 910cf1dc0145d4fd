from django.db.backends.postgresql import client
from psycopg.conninfo import make_conninfo

from . import embedded


class DatabaseClient(client.DatabaseClient):
    """`dbshell`, in the schema of ?schema=, over the direct connection, since what psql sets must not reach other clients.

    The embedded server is started first, and its own psql is used.
    """

    @classmethod
    def settings_to_cmd_args_env(cls, settings_dict, parameters):
        # psql takes a name with "=" or "://" for a connection string.
        named = {**settings_dict, "NAME": make_conninfo(dbname=name)} if (name := settings_dict.get("NAME")) else settings_dict
        arguments, environment = super().settings_to_cmd_args_env(named, parameters)
        if settings_dict.get("EMBEDDED"):
            arguments[0] = str(embedded.bin_folder() / arguments[0])
        if options := settings_dict["OPTIONS"].get("options"):
            environment = {**(environment or {}), "PGOPTIONS": options}
        return arguments, environment

    def runshell(self, parameters):
        self.connection.start_embedded_server()  # type: ignore[attr-defined]
        with self.connection.direct():  # type: ignore[attr-defined]
            super().runshell(parameters)
