"""The rows and columns that a command deletes, and the consent that it needs for that.

reversing.py finds what a reversed migration drops, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.migrations import operations
from django.db.migrations.migration import Migration

from ..errors import Refusal
from ..sql import quote, time_limits
from ..units import plural

# Raises Refusal if the database of a connection has no recent verified backup.
RequireBackup = Callable[[Any], None]

MOST_COUNTED = 1_000_000
PLACE_SQL = """
    SELECT pg_catalog.to_regclass(%(table)s) IS NOT NULL AND (%(column)s::text IS NULL OR EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = pg_catalog.to_regclass(%(table)s)::oid AND a.attname = %(column)s::text AND NOT a.attisdropped))
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows, or a column, that a command or a migration deletes."""

    table: str  # "" if unknown
    column: str = ""  # "" for the whole table
    rows: int | None = None  # rows with a value, MOST_COUNTED at most; None if they cannot be counted
    doing: str = "would drop"
    migration: str = ""  # app.name
    backwards: bool = False

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"table {self.table}"
        many = "rows that cannot be counted" if self.rows is None else plural(self.rows, "row")
        more = " or more" if self.rows == MOST_COUNTED else ""
        return f"{what} ({many}{more})" if self.table else "objects that cannot be determined"

    @property
    def sentence(self) -> str:
        return f"{self.doing} {self}" if self.table else self.doing


def outcome_of(require_backup: RequireBackup, connection) -> RequireBackup:
    """Call `require_backup` now, and return a function that raises the Refusal that it raised."""
    refused: Refusal | None = None
    try:
        require_backup(connection)
    except Refusal as refusal:
        refused = refusal

    def outcome(connection):
        if refused:
            raise refused

    return outcome


class Consent:
    """The consent that a command needs to delete rows: `yes`, and after `require_backup` if given; required once."""

    def __init__(self, connection, *, yes: bool, require_backup: RequireBackup | None, is_reset: bool = False):
        self.connection, self.yes, self.require_backup = connection, yes, require_backup
        self.is_reset = is_reset  # For a reset, drops are always counted, and consent is asked only for them.
        self.given = False
        self.has_read = False
        self.lost: list[Loss] = []

    def read_backup(self) -> None:
        """Read the backup before a transaction, which would keep its locks meanwhile; a refusal is raised when consent is asked for."""
        if self.yes and self.require_backup and not (self.given or self.has_read):
            self.require_backup, self.has_read = outcome_of(self.require_backup, self.connection), True

    def ask(self, doing: str, lost: Sequence[Loss], so: str) -> None:
        """Raise Refusal unless consent is given; `doing` is the beginning of its sentence, `so` says what did not happen."""
        if not self.given:
            sentences = [loss.sentence for loss in lost]
            require_consent(self.connection, doing, sentences, yes=self.yes, require_backup=self.require_backup, so=so)
            self.given = True


def read_losses(connection, loader, plan: list[tuple[Migration, bool]]) -> list[Loss]:
    """Return the tables and columns with rows that operations of `plan` drop by name; `plan` says which migrations are reversed.

    What SQL and functions drop is known only afterwards: see reversing.py.
    """
    found = [loss for migration, backwards in plan for loss in _of_migration(connection, loader, migration, backwards)]
    if not found:
        return []
    dropped = {loss.table for loss in found if not loss.column}
    return [loss for loss in _with_rows(connection, found) if not loss.column or loss.table not in dropped]


def read_rows(connection, tables: Iterable[str]) -> list[Loss]:
    """Return the losses of a command that empties `tables`, none for an empty table."""
    return _with_rows(connection, [Loss(table, doing="would empty") for table in sorted(tables)])


def _with_rows(connection, found: list[Loss]) -> list[Loss]:
    with time_limits(connection, read_only=True), connection.cursor() as cursor:
        cursor.execute("SET LOCAL row_security TO off")  # Otherwise rows that a policy hides would be counted as 0.
        return [replace(loss, rows=rows) for loss in found if (rows := _count(cursor, loss))]


def guard(connection, loader, plan: list[tuple[Migration, bool]], *, consent: Consent, say: Callable[[str], Any]) -> None:
    """Require consent, before anything is reversed, if rows are known to be dropped.

    What applied migrations drop is only reported, because they are meant to.
    """
    losses = read_losses(connection, loader, plan)
    for loss in losses:
        if not loss.backwards:
            say(f"{loss.migration} drops the {loss}.")
    if lost := [loss for loss in losses if loss.backwards]:
        consent.ask(f"Reversing {_named(plan)}", lost, "nothing was changed")


def require_consent(
    connection,
    doing: str,
    lost: Sequence[object],
    *,
    yes: bool,
    require_backup: RequireBackup | None,
    so: str = "nothing was changed",
) -> None:
    """Raise Refusal unless `yes`, or what `require_backup` raises; `doing` is the beginning of the sentence."""
    if not yes:
        names = ", ".join(map(str, lost[:20])) + (f", and {len(lost) - 20} more" if len(lost) > 20 else "")
        raise Refusal(
            f"{doing} {names}, so {so}: take a backup (`manage.py dbbackup --verify`), then run the command again with --yes."
        )
    if require_backup:
        require_backup(connection)


def _named(plan: list[tuple[Migration, bool]]) -> str:
    back = [f"{migration.app_label}.{migration.name}" for migration, backwards in plan if backwards]
    return back[0] if len(back) == 1 else f"{plural(len(back), 'migration')} from {back[0]} to {back[-1]}"


def _flat(given: Iterable[Any]) -> Iterator[Any]:
    """Yield the operations that change the database."""
    for operation in given:
        if isinstance(operation, operations.SeparateDatabaseAndState):
            yield from _flat(operation.database_operations)
        else:
            yield operation


def _is_destructive(operation: Any, backwards: bool) -> bool:
    undone = (operations.CreateModel, operations.AddField) if backwards else (operations.DeleteModel, operations.RemoveField)
    return isinstance(operation, undone)


def _of_migration(connection, loader, migration: Migration, backwards: bool) -> Iterator[Loss]:
    if not any(_is_destructive(operation, backwards) for operation in _flat(migration.operations)):
        return
    name = f"{migration.app_label}.{migration.name}"
    state = loader.project_state((migration.app_label, migration.name), at_end=False)
    for operation in migration.operations:
        inside = state.clone()
        for one in _flat([operation]):
            before = inside.clone()
            one.state_forwards(migration.app_label, inside)
            if not _is_destructive(one, backwards):
                continue
            there = inside.clone() if backwards else before  # A clone, because a rendered state would be copied at each step.
            for table, column in _places(connection, there, migration.app_label, one):
                yield Loss(table, column, migration=name, backwards=backwards)
        operation.state_forwards(migration.app_label, state)


def _places(connection, state, app: str, operation: Any) -> Iterator[tuple[str, str]]:
    """Yield (table, column or "") for what `operation` creates or drops, by the names in `state`."""
    is_model = isinstance(operation, operations.CreateModel | operations.DeleteModel)
    model = state.apps.get_model(app, operation.name if is_model else operation.model_name)
    if not model._meta.can_migrate(connection):
        return
    fields = model._meta.local_many_to_many if is_model else [model._meta.get_field(operation.name)]
    if is_model:
        yield model._meta.db_table, ""
    for field in fields:
        if field.many_to_many:
            if field.remote_field.through._meta.auto_created:
                yield field.remote_field.through._meta.db_table, ""
        elif field.column and not field.generated:  # The server can recompute generated values.
            yield model._meta.db_table, field.column


def _count(cursor, loss: Loss) -> int:
    cursor.execute(PLACE_SQL, {"table": quote(loss.table), "column": loss.column or None})
    if not cursor.fetchone()[0]:
        return 0
    having = f"WHERE {quote(loss.column)} IS NOT NULL" if loss.column else ""
    cursor.execute(f"SELECT pg_catalog.count(*) FROM (SELECT 1 FROM {quote(loss.table)} {having} LIMIT {MOST_COUNTED}) AS rows")
    return cursor.fetchone()[0]
