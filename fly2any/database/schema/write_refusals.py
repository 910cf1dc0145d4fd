"""The checks before each statement of Django's commands that writes: whose code it would run, whether a restore is about to replace the
database and, before a DELETE (`clearsessions`), this machine's clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction

from ..clock import server_time
from ..marked_databases import refuse_during_restore
from ..server import read_home
from ..sql import fetch_all, time_limits
from .untrusted_code import WRITTEN_SQL, refuse_untrusted_code

WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|TRUNCATE|MERGE|COPY)\b", re.IGNORECASE)
DJANGOS = re.compile(r'(?:INSERT INTO|UPDATE|DELETE FROM) "((?:[^"]|"")+)"(?!\.)')
SET = re.compile(r'(?<!\.)"((?:[^"]|"")+)" = ')  # In conditions and values, Django writes the table before a column.


@dataclass(frozen=True, slots=True)
class Write:
    """What a statement writes to: one table, or any of ours (None); `updates` are the columns that it changes, None for any."""

    kind: str
    table: str | None
    updates: frozenset[str] | None

    @property
    def deletes(self) -> bool:
        return self.kind in ("DELETE", "MERGE")


def read_write(statement: Any) -> Write | None:
    """Return what a statement writes to, None if it is not one that writes."""
    if not isinstance(statement, str) or not (found := WRITES.match(statement)):
        return None
    kind = found[1].upper()
    if table := DJANGOS.match(statement):
        names = SET.findall(statement) if kind != "DELETE" else ()
        return Write(kind, table[1].replace('""', '"'), frozenset(name.replace('""', '"') for name in names))
    return Write(kind, None, None if kind in ("UPDATE", "INSERT", "MERGE") else frozenset())


def checked_writes(connection, first: Callable[[Write, bool], None] = lambda write, is_first: None) -> Callable[..., Any]:
    """Return an execute wrapper that raises Refusal before a statement that would run code of another role.

    The statement runs in the transaction in which its tables are locked. A transaction checks equal writes once, unless it
    rolled back to a savepoint, which releases the locks. `first` is called with each kind of write.
    """
    kinds: set[str] = set()
    checked: list[tuple[Write, list[Any]]] = []

    def is_checked(write: Write) -> bool:
        blocks = connection.atomic_blocks
        return any(
            write == one and len(within) <= len(blocks) and all(map(_is, within, blocks)) for one, within in checked if within
        )

    def check(execute, statement, parameters, many, context):
        write = read_write(statement)
        if write is None or is_checked(write):
            return execute(statement, parameters, many, context)
        if write.kind not in kinds:
            first(write, not kinds)
            kinds.add(write.kind)
        if not connection.in_atomic_block:
            with transaction.atomic(using=connection.alias):
                return check(execute, statement, parameters, many, context)
        tables = None if write.table is None else [write.table]
        refuse_untrusted_code(connection, tables, deletes=write.deletes, updates=write.updates)
        checked.append((write, [*connection.atomic_blocks]))
        return execute(statement, parameters, many, context)

    return check


@contextmanager
def recording(connection, table: str, *, deletes: bool = False, updates: Iterable[str] = ()) -> Iterator[None]:
    """Run the block, which writes to `table` during a run of migrations, in a transaction.

    Raises Refusal before if it would run code of another role. For inserted and changed rows, the check at the start of the run is
    enough, unless that could not revoke TRIGGER from other roles.
    """
    with time_limits(connection, lock=settings.LOCK_TIMEOUT):
        if (schema := read_home(connection)[0]) and (
            deletes or dict(fetch_all(connection, WRITTEN_SQL, {"schema": schema, "tables": [table]})).get(table, True)
        ):
            refuse_untrusted_code(connection, [table], deletes=deletes, updates=updates)
        yield


def _is(one: Any, other: Any) -> bool:
    return one is other


def refuse_before_writes(connection) -> None:
    """Make `connection` raise Refusal at the first statement that would run code of another role, for Django's own commands.

    It also does so for a write while a restore is about to replace the database, and for a DELETE while this machine's clock is
    wrong, because some commands delete old rows.
    """

    def ask(write: Write, is_first: bool) -> None:
        if is_first:
            refuse_during_restore(connection)
        if write.kind == "DELETE":
            server_time(connection)

    connection.execute_wrappers.append(checked_writes(connection, ask))
