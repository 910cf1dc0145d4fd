import sys

from django.core.management.base import BaseCommand
from django.db import connections

from fly2any.database.backup.required_backup import backup_required
from fly2any.database.exit_codes import ExitCode
from fly2any.database.management.arguments import add_database, add_lock_wait
from fly2any.database.migration.losses import MOST_COUNTED, Consent
from fly2any.database.migration.reset import plan_reset, reset
from fly2any.database.progress import Terminal
from fly2any.database.sql import snapshot


class Command(BaseCommand):
    help = "Drop the tables of the four apps, and those that depend on them, with all their rows."
    requires_system_checks = []

    def add_arguments(self, parser):
        add_database(parser, "to reset")
        parser.add_argument("--yes", action="store_true", help="Drop the tables; without it, nothing is changed.")
        parser.add_argument("--without-backup", action="store_true", help="Proceed even if there is no recent verified backup.")
        add_lock_wait(parser)

    def handle(self, *, database, yes, without_backup, lock_wait, **options):
        connection = connections[database]
        if yes:
            consent = Consent(
                connection, yes=True, require_backup=backup_required(without_backup=without_backup), is_reset=True
            )
            plan = reset(database, consent=consent, patience=lock_wait, progress=Terminal(self.stderr))
        else:
            with snapshot(connection):
                plan = plan_reset(connection)
        if plan.dependents:
            self.stdout.write("Unmanaged objects depend on our tables, so the tables cannot be dropped:")
            for table, what in plan.dependents:
                self.stdout.write(f"  {table}: {what}")
            self.stdout.write("Nothing was changed. Ask their owners, then drop these objects first.")
            sys.exit(ExitCode.FOUND)
        if not plan.migrations:
            self.stdout.write("None of our migrations is recorded here: there is nothing to reset.")
            return
        self.stdout.write(f"{'Reversed' if yes else 'Would reverse'}: {', '.join(plan.migrations)}")
        width = max((len(table) for table, _ in plan.tables), default=0)
        for table, rows in plan.tables:
            self.stdout.write(
                f"  {table:<{width}}{rows:>14,} {'row' if rows == 1 else 'rows'}{' or more' if rows == MOST_COUNTED else ''}"
            )
        if yes:
            self.stdout.write("These tables were dropped; `manage.py migrate` creates them again, empty.")
        else:
            self.stdout.write(
                "Take a backup (`manage.py dbbackup --verify`); then `manage.py dbreset --yes` drops these tables with all their rows."
            )
