"""Removing rows that are too old: along the table's blocks, a batch a transaction, without waiting for anybody's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.db import Error, transaction

from ..catalog import quote
from ..diagnosis import Refusal, sqlstate
from ..locks import LOCKED_OUT, try_again
from ..watching import Progress
from .archive import Archives, version_of
from .rules import Rule

T = TypeVar("T")

BATCH_BLOCKS = 128  # Of 8 kB, read and emptied in a transaction: some thousand rows.
PART_BLOCKS = 4096  # And that go into one archive.
BATCH_ROWS = 2_000
LOCK_TIMEOUT = 2_000  # Milliseconds: what is locked is left to the next run.
STATEMENT_TIMEOUT = 60_000
PATIENCE = 10  # Seconds for a batch that is locked out.

BLOCKS_SQL = """
    SELECT pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::bigint
    FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
# What hangs on a table by a foreign key: of somebody else's it would be removed too, or be in the way.
CHILDREN_SQL = """
    SELECT k.conrelid::regclass::text FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.confrelid = pg_catalog.to_regclass(%s) AND k.conrelid <> k.confrelid AND k.conparentid = 0
    ORDER BY 1
"""
# A row that somebody else has locked is skipped; one that was changed meanwhile is looked at again, and kept if it is no longer old.
DELETE_SQL = """
    DELETE FROM {table}
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE ctid >= %(first)s::tid AND ctid < %(last)s::tid AND {condition}
                            FOR UPDATE SKIP LOCKED))
"""
LOCK_SQL = "SELECT id FROM {table} WHERE id = ANY (%(ids)s) AND {condition} FOR UPDATE SKIP LOCKED"
VERSIONS_SQL = "SELECT id, {version} FROM {table} WHERE id = ANY (%(ids)s)"
DELETE_BY_ID_SQL = "DELETE FROM {table} WHERE id = ANY (%(ids)s)"
COUNT_SQL = "SELECT count(*) FROM {table} WHERE {condition}"


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a rule: how many rows were removed, into which archives they went, and whether all of the table was seen."""

    table: str
    what: str
    before: datetime
    removed: int = 0
    skipped: int = 0  # Batches that others held locked.
    archives: tuple[str, ...] = ()
    finished: bool = True


def blocks_of(connection, table: str) -> int | None:
    """Return how many blocks the table has; raise Refusal where there is no such table."""
    with _briefly(connection) as cursor:
        cursor.execute(BLOCKS_SQL, [quote(table)])
        if (row := cursor.fetchone()) is None:
            raise Refusal(f"The table {table} is not there: run `manage.py migrate`.")
        return row[0]


def count(connection, rule: Rule, before: datetime) -> int:
    """Return how many rows are too old."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SQL.format(table=quote(rule.table), condition=rule.condition), {"before": before})
        return cursor.fetchone()[0]


def sweep(connection, rule: Rule, *, before: datetime, archives: Archives | None, deadline: float, progress: Progress) -> Swept:
    """Remove the rows of `rule` from before a time, into `archives` first where they are given and the rule is archived.

    Begins nothing after `deadline`, a time.monotonic(). Raises Refusal where a table that is not ours hangs on this one, which
    it removes nothing of.
    """
    _want_no_other_child(connection, rule)
    step = PART_BLOCKS if archives and rule.archived else BATCH_BLOCKS
    removed, skipped = 0, 0
    made: list[str] = []
    blocks = _patiently(partial(blocks_of, connection, rule.table))
    if blocks is None:
        return Swept(rule.table, rule.what, before, skipped=1)
    for first in range(0, blocks, step):
        if time.monotonic() > deadline:
            return Swept(rule.table, rule.what, before, removed, skipped, tuple(made), finished=False)
        progress.show(f"{rule.table}, {removed:,} rows removed", 100 * first / blocks)
        part = {"first": f"({first},0)", "last": f"({min(first + step, blocks)},0)", "before": before}
        batches: Iterable[Callable[[], int]] = [partial(_delete, connection, rule, part)]
        if archives and rule.archived:
            kept = _patiently(partial(archives.keep, connection, rule, part, progress))
            archive, versions = kept or (None, {})
            made += [archive.name] if archive else []
            skipped += kept is None
            batches = _by_id(connection, rule, versions, before)
        for batch in batches:
            number = _patiently(batch)
            removed += number or 0
            skipped += number is None
    progress.clear()
    return Swept(rule.table, rule.what, before, removed, skipped, tuple(made))


def _patiently(action: Callable[[], T]) -> T | None:
    """Return what `action` returns, run again while it is locked out, None where it still is in the end."""
    try:
        return try_again(action, patience=PATIENCE, again=lambda pause: None)
    except Error as error:
        if sqlstate(error) not in LOCKED_OUT:
            raise
        return None


@contextmanager
def _briefly(connection) -> Iterator[Any]:
    """Yield a cursor in a transaction that waits for no lock for long."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT}")
        yield cursor


def _delete(connection, rule: Rule, part: dict[str, Any]) -> int:
    with _briefly(connection) as cursor:
        cursor.execute(DELETE_SQL.format(table=quote(rule.table), condition=rule.condition), part)
        return cursor.rowcount


def _by_id(connection, rule: Rule, versions: dict[str, str], before: datetime) -> Iterator[Callable[[], int]]:
    """Yield the batches that remove archived rows: those that are still what was archived."""
    ids = list(versions)
    for first in range(0, len(ids), BATCH_ROWS):
        yield partial(_delete_archived, connection, rule, ids[first : first + BATCH_ROWS], versions, before)


def _delete_archived(connection, rule: Rule, ids: list[str], versions: dict[str, str], before: datetime) -> int:
    table = quote(rule.table)
    with _briefly(connection) as cursor:
        cursor.execute(LOCK_SQL.format(table=table, condition=rule.condition), {"ids": ids, "before": before})
        locked = [identity for (identity,) in cursor.fetchall()]
        # Locked, they change no more, and nothing new can hang on them: only now is it seen whether they changed before.
        cursor.execute(VERSIONS_SQL.format(table=table, version=version_of(rule)), {"ids": locked})
        same = [identity for identity, version in cursor.fetchall() if versions[identity] == version]
        cursor.execute(DELETE_BY_ID_SQL.format(table=table), {"ids": same})
        return cursor.rowcount


def _want_no_other_child(connection, rule: Rule) -> None:
    with connection.cursor() as cursor:
        cursor.execute(CHILDREN_SQL, [quote(rule.table)])
        others = [name for (name,) in cursor.fetchall() if name != rule.child]
    if others:
        raise Refusal(
            f"{', '.join(others)} has a foreign key to {rule.table}, and its rows would go too: take {rule.table} out of RETENTION, or drop that key."
        )
