from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import flush
from django.db import connections

from fly2any.database.backup.required_backup import backup_required
from fly2any.database.errors import Refusal
from fly2any.database.management.arguments import add_consent
from fly2any.database.migration.advisory_locks import MIGRATION_LOCK, hold
from fly2any.database.migration.losses import read_rows, require_consent
from fly2any.database.schema.untrusted_code import refuse_untrusted_code
from fly2any.database.sql import quote, time_limits
from fly2any.database.units import plural


class Command(flush.Command):
    help = "Delete all rows of all tables that belong to models, including rows that migrations inserted."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        add_consent(parser, "Delete the rows")

    def handle(self, *, yes=False, without_backup=False, **options):
        if "inhibit_post_migrate" in options:  # Only Django's test cases pass it, to clear their test database.
            super().handle(**options)
            return
        connection = connections[options["database"]]
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        refuse_untrusted_code(connection, tables, reads=True)
        if lost := read_rows(connection, tables):
            require_consent(
                connection, "flush would empty", lost, yes=yes, require_backup=backup_required(without_backup=without_backup)
            )
        try:
            with time_limits(connection, lock=settings.LOCK_TIMEOUT):
                hold(connection, MIGRATION_LOCK)
                refuse_untrusted_code(connection, tables)
                if tables and not lost:
                    self.require_empty(connection, tables)
                super().handle(**options | {"interactive": False})
        except CommandError as error:
            if (cause := error.__cause__) is None:
                raise
            raise cause from cause.__cause__  # Django's own message only guesses the cause.
        self.stdout.write(
            f"Emptied {plural(len(tables), 'table')}." if tables else "No tables of our models found: nothing was changed."
        )

    def require_empty(self, connection, tables):
        """Lock the tables; raise Refusal if one has rows by now."""
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {', '.join(map(quote, sorted(tables)))} IN ACCESS EXCLUSIVE MODE")
            if lost := read_rows(connection, tables):
                raise Refusal(
                    f"Rows were written in the meantime ({', '.join(map(str, lost))}), so nothing was changed: run the command again."
                )
            cursor.execute("SET LOCAL row_security TO DEFAULT")
