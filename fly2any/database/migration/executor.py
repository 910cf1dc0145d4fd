"""Django's migration executor, with its steps inside a Run, and without rendering models that no operation needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from django.db import transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from ..schema.write_refusals import checked_writes, recording
from ..sql import RECORD
from .lazy_state import LazyState
from .losses import Consent
from .run import Run

T = TypeVar("T")


class Recorder(MigrationRecorder):
    """Django's record, whose writes run no code of other roles; a migration that is not atomic has no transaction around them."""

    def __init__(self, connection, run: Run):
        super().__init__(connection)
        self.run = run

    def record_applied(self, app, name):
        self._write(partial(super().record_applied, app, name), deletes=False)

    def record_unapplied(self, app, name):
        self._write(partial(super().record_unapplied, app, name), deletes=True)

    def _write(self, write: Callable[[], None], *, deletes: bool) -> None:
        def once():
            with recording(self.connection, RECORD, deletes=deletes):
                write()

        self.ensure_schema()
        if self.connection.in_atomic_block:
            once()
        else:
            self.run.with_retries(once, what="the migration ledger")


class Executor(MigrationExecutor):
    """Django's executor, with its steps in a Run; reversals delete rows only with `consent`.

    `guard` gets the loader and the plan, and may refuse it.
    """

    def __init__(self, connection, progress_callback=None, *, run: Run, consent: Consent | None = None, guard=None):
        super().__init__(connection, progress_callback)
        self.recorder = Recorder(connection, run)
        self.run = run
        self.consent = consent
        self.guard = guard

    def migration_plan(self, targets, clean_start=False):
        plan = super().migration_plan(targets, clean_start)
        if self.guard and not clean_start:  # With clean_start, Django only wants the order of all migrations, not a plan.
            self.guard(self.connection, self.loader, plan)
        return plan

    def _create_project_state(self, with_applied_migrations=False):
        state = super()._create_project_state(with_applied_migrations)  # type: ignore[misc]
        return LazyState(state.models, state.real_apps)

    def _migrate_all_forwards(self, state, plan, full_plan, fake, fake_initial):
        wanted = {migration for migration, _ in plan}
        for migration, _ in full_plan:  # Django renders all models here.
            if migration in wanted:
                state = self.apply_migration(state, migration, fake=fake, fake_initial=fake_initial)
        return state

    def apply_migration(self, state, migration, fake=False, fake_initial=False):
        apply = super().apply_migration
        with self.report_once():
            return self.run.migrate(
                migration,
                "faked" if fake else "forwards",
                lambda: self.in_one_transaction(
                    migration, lambda: apply(state.prepared_for(migration), migration, fake, fake_initial)
                ),
            )

    def unapply_migration(self, state, migration, fake=False):
        unapply = super().unapply_migration
        with self.report_once():
            return self.run.migrate(
                migration,
                "faked" if fake else "backwards",
                lambda: self.in_one_transaction(migration, lambda: unapply(state.prepared_for(migration), migration, fake)),
                consent=None if fake else self.consent,
            )

    def in_one_transaction(self, migration, action: Callable[[], T]) -> T:
        """Run `action`, which applies or reverses `migration`, and return its result; the record commits with an atomic migration.

        Django records a reversal, and a migration with deferred SQL such as foreign keys, after the commit: a run that is killed
        between the two would leave tables that no migration seems to have created.
        """
        with self.refuse_untrusted_code():
            if not migration.atomic:
                return action()
            with transaction.atomic(using=self.connection.alias):
                return action()

    @contextmanager
    def refuse_untrusted_code(self) -> Iterator[None]:
        """Check each statement that writes rows in a transaction, before the Run watches it."""
        checked = checked_writes(self.connection)

        def check(execute, *statement):
            return checked(execute, *statement) if self.connection.in_atomic_block else execute(*statement)

        wrappers = self.connection.execute_wrappers
        wrappers.insert(0, check)
        try:
            yield
        finally:
            wrappers.remove(check)

    @contextmanager
    def report_once(self) -> Iterator[None]:
        """Report the start of a migration once, however often it is retried, and its success after the commit."""
        report, reported, successes = self.progress_callback, set(), []

        def once(action, *arguments):
            if action.endswith("_success"):
                successes.append((action, *arguments))
            elif report and action not in reported:
                reported.add(action)
                report(action, *arguments)

        self.progress_callback = once
        try:
            yield
        finally:
            self.progress_callback = report
        if report and successes:
            report(*successes[-1])
