from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.migrations.recorder import MigrationRecorder


class DatabaseConfig(AppConfig):
    name = "fly2any.database"
    label = "database"

    def ready(self):
        register(check_schema, Tags.database)
        MigrationRecorder.has_table = require_own_record(MigrationRecorder.has_table)  # type: ignore[method-assign]


def check_schema(**options):
    """Ask the database, where one is named: what that imports is for no other command."""
    from .checks import check_schema

    return check_schema(**options) if options.get("databases") else []


def require_own_record(has_table):
    """Let Django read no record of migrations that another role made: planning the query could run that role's code."""

    def asked(recorder):
        from .server import read_home  # Which the start of most commands does not need.

        read_home(recorder.connection)
        return has_table(recorder)

    return asked
