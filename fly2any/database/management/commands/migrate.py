from contextlib import contextmanager
from functools import partial

from django.core.management.commands import migrate
from django.db import Error, connections

from fly2any.database import journal
from fly2any.database.diagnosis import Refusal, sqlstate
from fly2any.database.management.arguments import add_lock_wait
from fly2any.database.migrating import Executor, migrating, refuse_what_another_tool_made
from fly2any.database.terminal import Terminal


class Command(migrate.Command):
    help = "Apply or reverse migrations: one run at a time, no lock waited for long, every run in the journal."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        add_lock_wait(parser)

    def handle(self, *args, database, lock_wait, **options):
        if options["fake_initial"]:
            raise Refusal(
                "--fake-initial believes in a table because of its name: run `manage.py dbadopt`, which looks at all of it first."
            )
        if options["plan"] or options["check_unapplied"]:
            super().handle(*args, database=database, **options)
            return
        with migrating(database, patience=lock_wait, progress=Terminal(self.stderr)) as run:
            refuse_what_another_tool_made(connections[database], fake=options["fake"])
            with executed_by(partial(Executor, run=run)):
                super().handle(*args, database=database, **options)
            with suppress_where_nothing_may_be_made():
                journal.ensure(connections[database])


@contextmanager
def suppress_where_nothing_may_be_made():
    """Let a role without CREATE, or on a standby, find that there is nothing to migrate."""
    try:
        yield
    except Error as error:
        if sqlstate(error) not in ("42501", "25006"):
            raise


@contextmanager
def executed_by(executor):
    """Let Django's command use `executor`: it has no other door."""
    djangos, migrate.MigrationExecutor = migrate.MigrationExecutor, executor  # type: ignore[attr-defined]
    try:
        yield
    finally:
        migrate.MigrationExecutor = djangos  # type: ignore[attr-defined]
