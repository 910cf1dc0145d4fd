"""Removes, in batches, the rows of a table that are too old, after archiving them; removal.py has the statements of a batch.

rules.py decides which rows are too old, and of which tables they are archived. maintenance/run.py sweeps one table after the other.

A plain table is scanned by block. The rows of a partitioned table, and of one that Citus distributes, are found by time and
removed by key: such a table has no blocks of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.db import Error

from ..errors import Refusal, sqlstate
from ..migration.retry import LOCKED_OUT, try_again
from ..progress import Progress
from ..schema.relation_kinds import Kind, read_relations
from ..schema.untrusted_code import refuse_untrusted_code
from ..server import read_schema
from ..sql import quote
from ..units import plural
from .archive import Archives
from .removal import delete_archived, delete_old, keeping, require_own, short_transaction
from .rules import Rule

T = TypeVar("T")

BATCH_BLOCKS = 512  # Blocks of 8 kB per transaction: some ten thousand rows.
PART_BLOCKS = 16_384  # Blocks per archive, including those of TOAST and dependent tables.
BATCH_ROWS = 10_000
PART_ROWS = 50_000  # Keys of old rows that are read at once.
SPLIT = 8  # The number of parts into which a batch with a locked row is divided, down to a single row.
CHANGED = "40001"  # serialization_failure: another session changed a row after the snapshot.
BATCH_PATIENCE = 10  # Seconds that a batch with a locked row waits.

# The current sizes: relpages in pg_class may be outdated.
SIZES_SQL = """
    SELECT pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint,
           (pg_catalog.pg_table_size(c.oid) + COALESCE(pg_catalog.pg_table_size(pg_catalog.to_regclass(%(child)s)), 0))
               / pg_catalog.current_setting('block_size')::bigint
    FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%(table)s)::oid
"""
# Raises if this role or this server cannot remove rows, before anything is archived.
MAY_DELETE_SQL = "DELETE FROM {rows} WHERE false"
MAY_LOCK_SQL = "SELECT FROM {rows} WHERE false FOR UPDATE"
KEYS_SQL = "SELECT {key} FROM {rows} WHERE {condition} AND NOT ({key} = ANY (%(left)s)) LIMIT %(most)s"
COUNT_SQL = "SELECT count(*) FROM {rows} WHERE {condition}"


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a rule: the number of removed rows, their archives, and whether the whole table was scanned."""

    table: str
    what: str
    before: datetime
    removed: int = 0
    skipped: int = 0  # Batches that other sessions had locked.
    archives: tuple[str, ...] = ()
    finished: bool = True
    kept: int = 0  # Old rows that triggers kept.
    keeping: tuple[str, ...] = ()  # Triggers that can, as SQL.


def count(connection, rule: Rule, before: datetime) -> int:
    """Return how many rows are too old."""
    refuse_untrusted_code(connection, rule.tables, reads=True)
    rule = _with_table_kinds(connection, rule)
    with short_transaction(connection) as cursor:
        cursor.execute(COUNT_SQL.format(rows=rule.rows, condition=rule.condition), {"before": before})
        return cursor.fetchone()[0]


def _with_table_kinds(connection, rule: Rule) -> Rule:
    """Return the rule with the kinds of its tables; raise Refusal if rows cannot be removed there."""
    relations = read_relations(connection, schema=read_schema(connection))
    names = rule.tables
    if missing := [name for name in names if name not in relations]:
        raise Refusal(f"The table {missing[0]} does not exist: run `manage.py migrate`.")
    kinds = {name: relations[name].kind for name in names}
    for name, kind in kinds.items():
        if kind in (Kind.FOREIGN, Kind.VIEW):
            raise Refusal(
                f"{name} is a {kind}: remove {rule.table} from RETENTION, or restore the table (`manage.py dbstatus` shows how)."
            )
    return replace(rule, kinds=frozenset(kinds.values()))


def sweep(connection, rule: Rule, *, before: datetime, archives: Archives | None, deadline: float, progress: Progress) -> Swept:
    """Remove the rows of `rule` from before a time, after archiving them if there are `archives` and the rule is archived.

    Begins no batch after `deadline`, a time.monotonic(). Raises Refusal, with nothing removed, if the table is not suitable.
    """
    run = _Sweep(connection, rule, before, archives if rule.archived else None, deadline, progress)
    finished = run.to_the_end()
    triggers: list[str] = []
    if run.kept:
        with short_transaction(connection) as cursor:
            triggers = keeping(cursor, rule)
    return Swept(
        rule.table,
        rule.what,
        before,
        run.removed,
        run.skipped,
        tuple(run.archive_names),
        finished,
        len(run.kept),
        tuple(triggers),
    )


@dataclass(slots=True)
class _Sweep:
    """A sweep of one table, and its results so far."""

    connection: Any
    rule: Rule
    before: datetime
    archives: Archives | None
    deadline: float
    progress: Progress
    removed: int = 0
    skipped: int = 0
    archive_names: list[str] = field(default_factory=list)
    kept: set[Any] = field(default_factory=set)  # The keys of old rows that triggers kept.

    def to_the_end(self) -> bool:
        """Remove all rows that are too old; return whether the whole table was scanned."""
        self.rule = _with_table_kinds(self.connection, self.rule)
        blocks, whole = _with_retries(partial(_prepare, self.connection, self.rule)) or (None, 0)
        if blocks is None:
            self.skipped = 1
            return True
        if self.archives:
            self.archives.settle(self.connection, self.rule)
        finished = self._by_key() if self.rule.by_key else self._by_blocks(blocks, whole)
        self.progress.clear()
        return finished

    def _by_blocks(self, blocks: int, whole: int) -> bool:
        step = max(BATCH_BLOCKS, PART_BLOCKS * blocks // max(whole, 1)) if self.archives else BATCH_BLOCKS
        for first in range(0, blocks, step):
            if self._is_late():
                return False
            percent = 100 * first / blocks
            self.progress.show(f"{self.rule.table}, {plural(self.removed, 'row')} removed", percent)
            part = {"first": f"({first},0)", "last": f"({min(first + step, blocks)},0)", "before": self.before}
            if self.archives is None:
                removed_keys = _with_retries(partial(delete_old, self.connection, self.rule, part, self.kept))
                self.skipped += removed_keys is None
                self.removed += len(removed_keys or ())
            elif not self._archive_and_delete(self.archives, part, percent)[1]:
                return False
        return True

    def _by_key(self) -> bool:
        left: set[Any] = set()  # Rows that other sessions have locked or changed.
        while not self._is_late():
            keys = _with_retries(partial(_read_keys, self.connection, self.rule, self.before, left))
            if keys is None:
                self.skipped += 1
                return True
            if not keys:
                return True
            self.progress.show(f"{self.rule.table}, {plural(self.removed, 'row')} removed", None)
            if self.archives:
                removed_keys, in_time = self._archive_and_delete(self.archives, {"keys": keys, "before": self.before}, None)
            else:
                removed_keys, in_time = self._remove(
                    keys,
                    lambda keys: delete_old(self.connection, self.rule, {"keys": keys, "before": self.before}, self.kept),
                    None,
                )
                self.removed += len(removed_keys)
            if not in_time:
                return False
            if not removed_keys and not self.kept.issuperset(keys):  # Other sessions have locked all remaining rows.
                self.skipped = self.skipped or 1
                return True
            left.update(set(keys) - removed_keys)
        return False

    def _remove(self, keys: list[Any], action: Callable[[list[Any]], set[Any]], percent: float | None) -> tuple[set[Any], bool]:
        """Remove rows by key with `action`; return the keys of removed rows, and whether there was time for all.

        Citus cannot skip locked rows, so there a batch with a locked row is divided until only locked rows remain.
        """
        removed_keys: set[Any] = set()
        todo = list(_batches(keys, BATCH_ROWS))[::-1]
        while todo:
            if self._is_late():
                return removed_keys, False
            batch = todo.pop()
            found = _with_retries(partial(action, batch))
            if found is None and self.rule.is_of_citus and len(batch) > 1:
                todo += _batches(batch, max(1, len(batch) // SPLIT))
            else:
                self.skipped += found is None
            removed_keys |= found or set()
            self.progress.show(f"{self.rule.table}, {plural(self.removed + len(removed_keys), 'row')} removed", percent)
        return removed_keys, True

    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def _archive_and_delete(self, archives: Archives, part: dict[str, Any], percent: float | None) -> tuple[set[str], bool]:
        """Remove the old rows of a part of the table that are archived and have not changed since.

        Return the ids of removed rows, and whether there was time for all.
        """
        kept = _with_retries(partial(archives.keep, self.connection, self.rule, part, self.progress))
        archive, versions = kept or (None, None)
        self.skipped += versions is None
        if archive is None or versions is None:
            return set(), True
        begun: set[str] = set()

        def delete(ids: list[str]) -> set[str]:
            if new := {*ids} - begun:
                archives.begin(archive, sorted(begun | new))
                begun.update(new)
            return delete_archived(self.connection, self.rule, ids, versions, self.before, self.kept)

        try:
            removed_keys, in_time = self._remove(list(versions), delete, percent)
        except BaseException:
            if not begun:  # No row was removed, because the place is full, say: the archive would only fill it further.
                with suppress(Refusal):
                    archives.discard(archive)
            raise
        self.removed += len(removed_keys)
        if archives.finish(archive, [identity for identity in versions if identity not in removed_keys]):
            self.archive_names.append(archive.name)
        elif in_time and not self.kept.issuperset(versions):
            self.skipped += 1
        return removed_keys, in_time


def _prepare(connection, rule: Rule) -> tuple[int, int]:
    """Return the number of blocks of the table, and that with its TOAST and dependent tables; raise Refusal if it cannot be swept."""
    with short_transaction(connection, rule) as cursor:
        require_own(cursor, connection, rule)
        cursor.execute(SIZES_SQL, {"table": quote(rule.table), "child": quote(rule.child) if rule.child else None})
        sizes = cursor.fetchone()
        cursor.execute(MAY_DELETE_SQL.format(rows=rule.rows))
        if not rule.is_of_citus:
            cursor.execute(MAY_LOCK_SQL.format(rows=rule.rows))
        return sizes


def _with_retries(action: Callable[[], T]) -> T | None:
    """Return the result of `action`, retried while it does not get its locks; None if it never does, or if rows were changed meanwhile."""
    try:
        return try_again(action, patience=BATCH_PATIENCE, again=lambda error, pause: None)
    except Error as error:
        if sqlstate(error) not in (*LOCKED_OUT, CHANGED):
            raise
        return None


def _read_keys(connection, rule: Rule, before: datetime, left: set[Any]) -> list[Any]:
    """Return the keys of some of the rows that are too old, without those of `left`."""
    with short_transaction(connection, rule) as cursor:
        refuse_untrusted_code(connection, rule.tables, deletes=True)
        places = {"key": quote(rule.key), "rows": rule.rows, "condition": rule.condition}
        cursor.execute(KEYS_SQL.format(**places), {"before": before, "left": list(left), "most": PART_ROWS})
        return [key for (key,) in cursor.fetchall()]


def _batches(ids: list[Any], size: int) -> Iterable[list[Any]]:
    return (ids[first : first + size] for first in range(0, len(ids), size))
