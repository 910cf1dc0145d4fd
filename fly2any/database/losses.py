"""What a command takes away, with its number of rows: the tables and columns that migrations drop, and what Django's commands empty."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.migrations import operations
from django.db.migrations.migration import Migration

from .catalog import quote
from .diagnosis import Refusal
from .reset import MOST_COUNTED, require_backup
from .sql import time_limits

# Of RunSQL only this is known: the rest of its text is the server's to understand.
DROPS_TABLE = re.compile(
    r'\s*DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:"(?P<quoted>\w+)"|(?P<plain>\w+))\s*(?:CASCADE|RESTRICT)?\s*;?\s*', re.I
)
TAKES_AWAY = re.compile(
    r"\b(DROP\s+(TABLE|COLUMN|SCHEMA|OWNED)|TRUNCATE|DELETE\s+FROM|ALTER\s+TABLE\b[^;]*\bDROP\s+(?!CONSTRAINT|NOT|DEFAULT|IDENTITY|EXPRESSION))\b",
    re.I,
)
RENAMES = (operations.RenameModel, operations.RenameField, operations.AlterModelTable)
PLACE_SQL = """
    SELECT pg_catalog.to_regclass(%(table)s) IS NOT NULL AND (%(column)s::text IS NULL OR EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = pg_catalog.to_regclass(%(table)s) AND a.attname = %(column)s::text AND NOT a.attisdropped))
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """What one migration, or one command, takes away."""

    migration: str  # app.name, "" of a command
    backwards: bool
    table: str  # "" for SQL of the migration's own
    column: str  # "" for the whole table
    rows: int | None = None  # that have a value there, MOST_COUNTED at most; None where they cannot be counted
    is_of_sql: bool = False  # then its name is a guess

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"table {self.table}"
        many = "rows that cannot be counted" if self.rows is None else f"{self.rows:,} row{'s' if self.rows != 1 else ''}"
        more = " or more" if self.rows == MOST_COUNTED else ""
        return f"{what if self.table else 'SQL of ' + self.migration} ({many}{more})"


def read_losses(connection, loader, plan: list[tuple[Migration, bool]]) -> list[Loss]:
    """Return what the migrations of `plan`, each with whether it is reversed, take away, of which some row is there."""
    found = [loss for migration, backwards in plan for loss in _of_migration(connection, loader, migration, backwards)]
    if not found:
        return []
    dropped = {loss.table for loss in found if not loss.column}
    renames = any(isinstance(operation, RENAMES) for migration, _ in plan for operation in _flat(migration.operations))
    lost = []
    with time_limits(connection, read_only=True), connection.cursor() as cursor:
        cursor.execute("SET LOCAL row_security TO off")  # Rows that a policy hides would count as none.
        for loss in found:
            if loss.column and loss.table in dropped:
                continue
            rows = _count(cursor, loss, missing=None if renames or loss.is_of_sql else 0) if loss.table else None
            if rows != 0:
                lost.append(replace(loss, rows=rows))
    return lost


def read_rows(connection, tables: Iterable[str]) -> list[Loss]:
    """Return the rows of `tables`, as what a command takes away that empties them; nothing of an empty one."""
    with time_limits(connection, read_only=True), connection.cursor() as cursor:
        cursor.execute("SET LOCAL row_security TO off")
        found = [Loss("", False, table, "") for table in sorted(tables)]
        return [replace(loss, rows=rows) for loss in found if (rows := _count(cursor, loss, missing=0))]


def guard(
    connection, loader, plan: list[tuple[Migration, bool]], *, yes: bool, without_backup: bool, say: Callable[[str], Any]
) -> None:
    """Raise Refusal where a migration that is reversed takes rows away, unless `yes` and there is a good backup, or none is wanted.

    What migrations take away as they are applied is only said: who wrote them wanted that.
    """
    losses = read_losses(connection, loader, plan)
    for loss in losses:
        if not loss.backwards:
            say(f"{loss.migration} drops the {loss}." if loss.table else f"{loss.migration} has SQL that drops or deletes.")
    lost = [loss for loss in losses if loss.backwards]
    if lost:
        want_consent(connection, f"Reversing {_named(plan)} drops", lost, yes=yes, without_backup=without_backup)


def want_consent(connection, doing: str, lost: Sequence[object], *, yes: bool, without_backup: bool) -> None:
    """Raise Refusal unless `yes`, and there is a good backup or none is wanted; `doing` is the beginning of its sentence."""
    if not yes:
        names = ", ".join(map(str, lost[:20])) + (f", and {len(lost) - 20} more" if len(lost) > 20 else "")
        raise Refusal(
            f"{doing} {names}, so nothing was changed: take a backup (`manage.py dbbackup --verify`),"
            " then run the command again with --yes."
        )
    if not without_backup:
        require_backup(connection)


def _named(plan: list[tuple[Migration, bool]]) -> str:
    back = [f"{migration.app_label}.{migration.name}" for migration, backwards in plan if backwards]
    return back[0] if len(back) == 1 else f"{len(back)} migrations from {back[0]} to {back[-1]}"


def _flat(given: Iterable[Any]) -> Iterator[Any]:
    """Yield the operations that change the database."""
    for operation in given:
        if isinstance(operation, operations.SeparateDatabaseAndState):
            yield from _flat(operation.database_operations)
        else:
            yield operation


def _takes_away(operation: Any, backwards: bool) -> bool:
    if isinstance(operation, operations.RunSQL):
        return bool(TAKES_AWAY.search(_text(operation, backwards)))
    undone = (operations.CreateModel, operations.AddField) if backwards else (operations.DeleteModel, operations.RemoveField)
    return isinstance(operation, undone)


def _text(operation: Any, backwards: bool) -> str:
    statements = operation.reverse_sql if backwards else operation.sql
    if not isinstance(statements, list | tuple):
        return statements or ""
    return ";\n".join(one if isinstance(one, str) else one[0] for one in statements)


def _of_migration(connection, loader, migration: Migration, backwards: bool) -> Iterator[Loss]:
    if not any(_takes_away(operation, backwards) for operation in _flat(migration.operations)):
        return
    name = f"{migration.app_label}.{migration.name}"
    state = loader.project_state((migration.app_label, migration.name), at_end=False)
    for operation in migration.operations:
        inside = state.clone()
        for one in _flat([operation]):
            before = inside.clone()
            one.state_forwards(migration.app_label, inside)
            if not _takes_away(one, backwards):
                continue
            if isinstance(one, operations.RunSQL):
                match = DROPS_TABLE.fullmatch(_text(one, backwards))
                table = (match["quoted"] or match["plain"].lower()) if match else ""
                yield Loss(name, backwards, table, "", is_of_sql=True)
            else:
                there = inside.clone() if backwards else before  # A clone: rendered, it would be copied with each step.
                yield from (Loss(name, backwards, *place) for place in _places(connection, there, migration.app_label, one))
        operation.state_forwards(migration.app_label, state)


def _places(connection, state, app: str, operation: Any) -> Iterator[tuple[str, str]]:
    """Yield (table, column or "") of what `operation` made, or drops, as `state` has it."""
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
        elif field.column and not field.generated:  # What the server computes it can compute anew.
            yield model._meta.db_table, field.column


def _count(cursor, loss: Loss, *, missing: int | None) -> int | None:
    cursor.execute(PLACE_SQL, {"table": quote(loss.table), "column": loss.column or None})
    if not cursor.fetchone()[0]:
        return missing
    having = f"WHERE {quote(loss.column)} IS NOT NULL" if loss.column else ""
    cursor.execute(f"SELECT pg_catalog.count(*) FROM (SELECT FROM {quote(loss.table)} {having} LIMIT {MOST_COUNTED}) AS rows")
    return cursor.fetchone()[0]
