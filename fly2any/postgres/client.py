from django.db.backends.postgresql import client

from . import embedded


class DatabaseClient(client.DatabaseClient):
    """`dbshell`, for the embedded server too: it is started first, and its own psql is used."""

    @classmethod
    def settings_to_cmd_args_env(cls, settings_dict, parameters):
        arguments, environment = super().settings_to_cmd_args_env(settings_dict, parameters)
        if settings_dict.get("EMBEDDED"):
            arguments[0] = str(embedded.bin_folder() / arguments[0])
        return arguments, environment

    def runshell(self, parameters):
        self.connection.start_embedded_server()  # type: ignore[attr-defined]
        super().runshell(parameters)
