from django.apps import AppConfig
from django.core.checks import Tags, register
from django.db.migrations.recorder import MigrationRecorder


class DatabaseConfig(AppConfig):
    name = "fly2any.database"
    label = "database"

    def ready(self):
        register(check_schema, Tags.database)
        register(check_backups, "backups", deploy=True)
        MigrationRecorder.has_table = require_own_record(MigrationRecorder.has_table)  # type: ignore[method-assign]


def check_schema(**options):
    """Check the schema if a database is named; the import is here because no other command needs it."""
    from .checks import check_schema

    return check_schema(**options) if options.get("databases") else []


def check_backups(**options):
    """Check that backups are taken, for `check --deploy` only."""
    from .checks import check_backups

    return check_backups(**options)


def require_own_record(has_table):
    """Keep Django from reading another role's migration ledger, because planning the query could run that role's code."""

    def asked(recorder):
        from .server import read_home  # Imported here, because most commands do not need it.

        read_home(recorder.connection)
        return has_table(recorder)

    return asked
