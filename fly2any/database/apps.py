from django.apps import AppConfig
from django.db.migrations.recorder import MigrationRecorder


class DatabaseConfig(AppConfig):
    name = "fly2any.database"
    label = "database"

    def ready(self):
        MigrationRecorder.has_table = require_own_record(MigrationRecorder.has_table)  # type: ignore[method-assign]


def require_own_record(has_table):
    """Let Django read no record of migrations that another role made: planning the query could run that role's code."""

    def asked(recorder):
        from .server import read_home  # Which the start of most commands does not need.

        read_home(recorder.connection)
        return has_table(recorder)

    return asked
