from django.apps import AppConfig
from django.conf import settings
from django.core.checks import Tags, Warning, register
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


def check_backups(**_):
    """Warn about a deployment without BACKUP_LOCATION."""
    if settings.BACKUPS["location"]:
        return []
    hint = (
        "Set it and run `manage.py dbbackup --verify` every night, or silence this check if the provider verifies its backups."
    )
    return [Warning("BACKUP_LOCATION is not set: no backups of this database are taken.", hint=hint, id="fly2any.W002")]


def require_own_record(has_table):
    """Keep Django from reading another role's migration ledger, because planning the query could run that role's code."""

    def asked(recorder):
        from .server import read_home  # Imported here, because most commands do not need it.

        read_home(recorder.connection)
        return has_table(recorder)

    return asked
