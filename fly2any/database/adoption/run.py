"""Runs an adoption: step by step, each in a short transaction, resuming where an earlier run ended.

assessment.py decides which steps are due and what `--repair` does; steps.py has their statements.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from django.core.management import call_command
from django.db import IntegrityError, transaction

from ..errors import Refusal, sqlstate
from ..migration import journal
from ..migration.executor import Executor
from ..migration.run import Run, migrating
from ..progress import Progress
from ..schema.untrusted_code import refuse_untrusted_code
from ..sql import ask, execute, pinned
from .assessment import FIRST, Assessment, Kind, assess
from .steps import Step

CHECK_VIOLATION = "23514"

# A client's prepared statements fail after a column's type has changed, until it prepares them again on a new connection.
END_IDLE_SQL = """
    SELECT count(*) FILTER (WHERE pg_catalog.pg_terminate_backend(a.pid))
    FROM pg_catalog.pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_type = 'client backend'
      AND a.state = 'idle' AND a.application_name <> 'fly2any' AND pg_catalog.pg_has_role(a.usesysid, 'USAGE')
"""


def adopt(
    alias: str, *, patience: float, progress: Progress, repair: bool, end_idle: bool, done: Callable[[Step, float], None]
) -> Assessment:
    """Convert the database `alias`, record our first migrations, run the later ones, and return the assessment.

    `done` is called with each step and its duration in seconds. With `end_idle`, other clients' idle connections are terminated once, after the
    last step that changes a type. With blockers (after the repairs, if `repair`) nothing further is changed.
    """
    with migrating(alias, patience=patience, progress=progress) as run:
        connection = run.connection
        assessment = assess(connection)
        if repair and (steps := [step for blocker in assessment.blockers for step in blocker.repairs]):
            for step in steps:
                _timed(run, step, done)
            assessment = assess(connection)
        if assessment.kind is Kind.EMPTY or assessment.blockers:
            return assessment
        if assessment.kind is not Kind.OURS:  # Otherwise an earlier run did this.
            ended, last = 0, max((number for number, step in enumerate(assessment.steps) if step.retypes), default=None)
            for number, step in enumerate(assessment.steps):
                _timed(run, step, done)
                if end_idle and number == last:  # Once, because clients reconnect and would be disconnected after each step.
                    with pinned(connection):
                        ended = ask(connection, END_IDLE_SQL)
            if end_idle:
                progress.say(f"Ended {ended} idle {'connection' if ended == 1 else 'connections'} of other clients.")
            _record(run)
    call_command("migrate", database=alias, lock_wait=patience, verbosity=0, interactive=False)
    return assessment


def _timed(run: Run, step: Step, done: Callable[[Step, float], None]) -> None:
    begun = time.monotonic()
    run.migration = f"{step.table}: {step.what}"
    try:
        while not step.repeated or ask(run.connection, step.repeated):
            changed = [_transact(run, step, statements) for statements in step.transactions]
            if not step.repeated:
                break
            if changed == [0] and ask(run.connection, step.repeated):
                raise Refusal(
                    f"The rows of {step.table} cannot be filled ({step.what}): an unmanaged trigger or rule undoes the update."
                    " Disable it for the adoption, then run `manage.py dbadopt` again."
                )
    except IntegrityError as error:
        if not step.undo or sqlstate(error) != CHECK_VIOLATION:
            raise
        _transact(run, step, (step.undo,))
        if not step.may_fail:
            raise
        run.progress.say(f"{step.table}: {step.what} was skipped, because the column has NULLs.")
    done(step, time.monotonic() - begun)


def _transact(run: Run, step: Step, statements: tuple[str, ...]) -> int:
    """Run `statements` and return how many rows the last one changed."""

    def once():
        with transaction.atomic(using=run.connection.alias):
            if step.fills:
                refuse_untrusted_code(run.connection, [step.table], updates=[step.fills])
            return [execute(run.connection, statement) for statement in statements][-1]

    if any(" CONCURRENTLY " in statement for statement in statements):
        return [execute(run.connection, statement) for statement in statements][-1]
    return run.with_retries(once, what=f"{step.table} ({step.what})")


def _record(run: Run) -> None:
    """Record our first migrations, once the database matches them."""
    remaining = assess(run.connection, ahead=False)
    # An ANALYZE may remain for a table that was never analysed: it lost no statistics, and autovacuum will analyse it.
    if remaining.blockers or any(
        not statement.startswith("ANALYZE ") for step in remaining.steps for statement in step.statements
    ):
        raise Refusal("The schema was changed during the adoption: run `manage.py dbadopt` again.")
    journal.ensure(run.connection)
    executor = Executor(run.connection, run=run)
    graph = executor.loader.graph
    first = [tuple(name.split(".", 1)) for name in FIRST]
    needed = {parent.key for name in first for parent in graph.node_map[name].parents} - set(first)
    # Django's own tables. Migrating to a migration that is already applied would reverse the later ones.
    executor.migrate(sorted(needed - set(executor.loader.applied_migrations)))
    with transaction.atomic(using=run.connection.alias):
        for app, name in first:
            with journal.recorded(run.connection, f"{app}.{name}", "adopted"):
                executor.recorder.record_applied(app, name)
