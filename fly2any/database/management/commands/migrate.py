from contextlib import contextmanager
from functools import partial

from django.core.checks import Tags
from django.core.checks.registry import registry
from django.core.management.commands import migrate
from django.db import Error, connections

from fly2any.database import event_triggers
from fly2any.database.backup.required_backup import backup_required
from fly2any.database.errors import Refusal, sqlstate
from fly2any.database.management.arguments import add_consent, add_lock_wait
from fly2any.database.migration import journal, losses
from fly2any.database.migration.executor import Executor
from fly2any.database.migration.other_tools import refuse_hidden_records, refuse_tables_of_other_tools
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Terminal

# Checks of pages, and of the database that the command is about to change.
NOT_ASKED = {Tags.admin, Tags.templates, Tags.urls, Tags.database}


class Command(migrate.Command):
    help = "Apply or reverse migrations: one run at a time, with short lock timeouts, every run recorded in the journal."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        add_lock_wait(parser)
        add_consent(parser, "Reverse migrations even if that deletes rows")

    def check(self, app_configs=None, tags=None, *args, **options):
        """Run the checks that migrations depend on; those of pages, whose import takes longest, are left to `manage.py check`."""
        super().check(app_configs, tags or sorted(registry.tags_available() - NOT_ASKED), *args, **options)

    def handle(self, *args, database, lock_wait, yes=False, without_backup=False, **options):
        if options["fake_initial"]:
            raise Refusal(
                "--fake-initial checks only the names of tables: run `manage.py dbadopt`, which compares their definitions."
            )
        if options["plan"] or options["check_unapplied"]:
            refuse_hidden_records(connections[database])
            super().handle(*args, database=database, **options)
            return
        progress = Terminal(self.stderr)
        consent = losses.Consent(connections[database], yes=yes, require_backup=backup_required(without_backup=without_backup))
        asked = partial(before, consent=consent, say=progress.say)
        with migrating(database, patience=lock_wait, progress=progress) as run:
            app, name = options["app_label"], options["migration_name"]
            refuse_tables_of_other_tools(connections[database], fake=options["fake"], app=app, name=name)
            with executed_by(partial(Executor, run=run, consent=consent, guard=None if options["fake"] else asked)):
                super().handle(*args, database=database, **options)
            if (
                run.ask("SELECT pg_catalog.current_setting('transaction_read_only')") == "on"
            ):  # A run with something to write has failed by now.
                progress.say(
                    "The database is read-only (a standby, or default_transaction_read_only is on), but there was nothing to do."
                )
            with suppress_missing_privilege():
                journal.ensure(connections[database])


def before(connection, loader, plan, *, consent, say):
    """Say what may make the migrations of `plan` fail, and refuse losses without consent."""
    if plan and (warning := event_triggers.warning(connection)):
        say(warning)
    losses.guard(connection, loader, plan, consent=consent, say=say)


@contextmanager
def suppress_missing_privilege():
    """Let a role without CREATE, or on a standby, find that there is nothing to migrate."""
    try:
        yield
    except Error as error:
        if sqlstate(error) not in ("42501", "25006"):
            raise


@contextmanager
def executed_by(executor):
    """Make Django's command use `executor`: it has no other hook."""
    djangos, migrate.MigrationExecutor = migrate.MigrationExecutor, executor  # type: ignore[attr-defined]
    try:
        yield
    finally:
        migrate.MigrationExecutor = djangos  # type: ignore[attr-defined]
