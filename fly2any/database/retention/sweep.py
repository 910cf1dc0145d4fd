"""Removing rows that are too old: along the table's blocks, a batch a transaction, without waiting for anybody's lock."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error

from ..errors import Refusal, sqlstate
from ..migration.retry import LOCKED_OUT, try_again
from ..progress import Progress
from ..schema.strangers import refuse_strangers
from ..sql import quote, time_limits
from .archive import Archives, version_of
from .rules import Rule

T = TypeVar("T")

BATCH_BLOCKS = 128  # Of 8 kB, read and emptied in a transaction: some thousand rows.
PART_BLOCKS = 4096  # Of what goes into one archive, with what is stored beside and what hangs on it.
BATCH_ROWS = 2_000
STATEMENT_TIMEOUT = 60_000
PATIENCE = 10  # Seconds for a batch that is locked out.

# reltuples and pg_class's pages may be old; these are what there is.
SIZES_SQL = """
    SELECT pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint,
           (pg_catalog.pg_table_size(c.oid) + COALESCE(pg_catalog.pg_table_size(pg_catalog.to_regclass(%(child)s)), 0))
               / pg_catalog.current_setting('block_size')::bigint
    FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%(table)s)::oid
"""
# What makes a table other than the plain one that these statements are for: rows of it that are elsewhere, or of others that go with it.
IN_THE_WAY_SQL = """
    SELECT 'is partitioned, or no table' FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%(table)s)::oid AND c.relkind <> 'r'
    UNION ALL
    SELECT 'has rows in ' || i.inhrelid::regclass::text || ', which inherits from it' FROM pg_catalog.pg_inherits AS i
    WHERE i.inhparent = pg_catalog.to_regclass(%(table)s)::oid
    UNION ALL
    SELECT 'is what a foreign key of ' || k.conrelid::regclass::text || ' points at, whose rows would go too'
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.confrelid = pg_catalog.to_regclass(%(table)s)::oid AND k.conrelid <> k.confrelid
      AND k.conrelid IS DISTINCT FROM pg_catalog.to_regclass(%(child)s)::oid
    ORDER BY 1
"""
# Raises where this role, or this server, removes nothing: better before anything is archived.
MAY_SQL = "DELETE FROM ONLY {table} WHERE false; SELECT FROM ONLY {table} WHERE false FOR UPDATE"
# A row that another session has locked is skipped; one that was changed meanwhile is checked again, and kept if it is no longer old.
DELETE_SQL = """
    DELETE FROM ONLY {table}
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table} WHERE ctid >= %(first)s::tid AND ctid < %(last)s::tid AND {condition}
                            FOR UPDATE SKIP LOCKED))
      AND {condition}
"""
LOCK_SQL = "SELECT id FROM ONLY {table} WHERE id = ANY (%(ids)s) AND {condition} FOR UPDATE SKIP LOCKED"
LOCK_CHILDREN_SQL = "SELECT {key} FROM ONLY {child} WHERE {key} = ANY (%(ids)s) FOR UPDATE SKIP LOCKED"
CHILDREN_SQL = "SELECT {key}, count(*) FROM ONLY {child} WHERE {key} = ANY (%(ids)s) GROUP BY {key}"
VERSIONS_SQL = "SELECT id, {version} FROM ONLY {table} WHERE id = ANY (%(ids)s)"
DELETE_BY_ID_SQL = "DELETE FROM ONLY {table} WHERE id = ANY (%(ids)s) RETURNING id"
COUNT_SQL = "SELECT count(*) FROM ONLY {table} WHERE {condition}"


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


def count(connection, rule: Rule, before: datetime) -> int:
    """Return how many rows are too old."""
    refuse_strangers(connection, [rule.table], reads=True)
    with _briefly(connection) as cursor:
        cursor.execute(COUNT_SQL.format(table=quote(rule.table), condition=rule.condition), {"before": before})
        return cursor.fetchone()[0]


def want_plain(connection, rule: Rule) -> None:
    """Raise Refusal where more than the rule's own rows would go, or not all of them would be seen."""
    for table, child in ((rule.table, rule.child), (rule.child, "")):
        if table:
            with _briefly(connection) as cursor:
                cursor.execute(IN_THE_WAY_SQL, {"table": quote(table), "child": quote(child) if child else None})
                if row := cursor.fetchone():
                    raise Refusal(f"{table} {row[0]}: take {rule.table} out of RETENTION, or fix that.")


def sweep(connection, rule: Rule, *, before: datetime, archives: Archives | None, deadline: float, progress: Progress) -> Swept:
    """Remove the rows of `rule` from before a time, into `archives` first where they are given and the rule is archived.

    Begins nothing after `deadline`, a time.monotonic(). Raises Refusal where the table is not as it should be, of which nothing
    is removed then.
    """
    run = _Sweep(connection, rule, before, archives if rule.archived else None, deadline, progress)
    finished = run.to_the_end()
    return Swept(rule.table, rule.what, before, run.removed, run.skipped, tuple(run.made), finished)


@dataclass(slots=True)
class _Sweep:
    """A sweep of one table, and what came of it so far."""

    connection: Any
    rule: Rule
    before: datetime
    archives: Archives | None
    deadline: float
    progress: Progress
    removed: int = 0
    skipped: int = 0
    made: list[str] = field(default_factory=list)

    def to_the_end(self) -> bool:
        """Go along the table's blocks; return whether all of it was seen."""
        blocks, whole = _patiently(partial(_prepare, self.connection, self.rule)) or (None, 0)
        if blocks is None:
            self.skipped = 1
            return True
        if self.archives:
            self.archives.settle(self.connection, self.rule)
        step = max(BATCH_BLOCKS, PART_BLOCKS * blocks // max(whole, 1)) if self.archives else BATCH_BLOCKS
        for first in range(0, blocks, step):
            if self._is_late():
                return False
            percent = 100 * first / blocks
            self.progress.show(f"{self.rule.table}, {self.removed:,} rows removed", percent)
            part = {"first": f"({first},0)", "last": f"({min(first + step, blocks)},0)", "before": self.before}
            if self.archives is None:
                self._delete(part)
            elif not self._archive_and_delete(self.archives, part, percent):
                return False
        self.progress.clear()
        return True

    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline

    def _delete(self, part: dict[str, Any]) -> None:
        """Remove the old rows of a part of the table."""
        number = _patiently(partial(_delete, self.connection, self.rule, part))
        self.skipped += number is None
        self.removed += number or 0

    def _archive_and_delete(self, archives: Archives, part: dict[str, Any], percent: float) -> bool:
        """Remove the old rows of a part of the table that are archived and did not change since; return whether there was time for all."""
        kept = _patiently(partial(archives.keep, self.connection, self.rule, part, self.progress))
        archive, versions = kept or (None, None)
        self.skipped += versions is None
        if archive is None or versions is None:
            return True
        gone: set[str] = set()
        in_time = True
        for batch in _batches(list(versions)):
            if not (in_time := not self._is_late()):
                break
            ids = _patiently(partial(delete_archived, self.connection, self.rule, batch, versions, self.before))
            self.skipped += ids is None
            gone.update(ids or ())
            self.progress.show(f"{self.rule.table}, {self.removed + len(gone):,} rows removed", percent)
        self.removed += len(gone)
        if archives.finish(archive, [identity for identity in versions if identity not in gone]):
            self.made.append(archive.name)
        elif in_time:
            self.skipped += 1
        return in_time


def _prepare(connection, rule: Rule) -> tuple[int, int]:
    """Return how many blocks the table has, and with what is stored beside and hangs on it; raise Refusal where it cannot be swept."""
    want_plain(connection, rule)
    with _briefly(connection) as cursor:
        _refuse_strangers(connection, rule)
        cursor.execute(SIZES_SQL, {"table": quote(rule.table), "child": quote(rule.child) if rule.child else None})
        if (row := cursor.fetchone()) is None:
            raise Refusal(f"The table {rule.table} is not there: run `manage.py migrate`.")
        cursor.execute(MAY_SQL.format(table=quote(rule.table)))
        return row


def _patiently(action: Callable[[], T]) -> T | None:
    """Return what `action` returns, run again while it is locked out, None where it still is in the end."""
    try:
        return try_again(action, patience=PATIENCE, again=lambda error, pause: None)
    except Error as error:
        if sqlstate(error) not in LOCKED_OUT:
            raise
        return None


@contextmanager
def _briefly(connection) -> Iterator[Any]:
    """Yield a cursor in a transaction that waits for no lock for long, and in which a policy that hides rows is an error."""
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=STATEMENT_TIMEOUT), connection.cursor() as cursor:
        cursor.execute("SET LOCAL row_security TO off")
        yield cursor


def _delete(connection, rule: Rule, part: dict[str, Any]) -> int:
    with _briefly(connection) as cursor:
        _refuse_strangers(connection, rule)
        cursor.execute(DELETE_SQL.format(table=quote(rule.table), condition=rule.condition), part)
        return cursor.rowcount


def _refuse_strangers(connection, rule: Rule) -> None:
    refuse_strangers(connection, [table for table in (rule.table, rule.child) if table], deletes=True)


def _batches(ids: list[str]) -> Iterable[list[str]]:
    return (ids[first : first + BATCH_ROWS] for first in range(0, len(ids), BATCH_ROWS))


def delete_archived(connection, rule: Rule, ids: list[str], versions: dict[str, str], before: datetime) -> set[str]:
    """Remove those of the archived rows `ids` that are still what was archived, and return their ids."""
    table = quote(rule.table)
    with _briefly(connection) as cursor:
        _refuse_strangers(connection, rule)
        cursor.execute(LOCK_SQL.format(table=table, condition=rule.condition), {"ids": ids, "before": before})
        locked = {identity for (identity,) in cursor.fetchall()}
        if rule.child:
            places = {"child": quote(rule.child), "key": quote(rule.child_key)}
            cursor.execute(LOCK_CHILDREN_SQL.format(**places), {"ids": list(locked)})
            held = Counter(parent for (parent,) in cursor.fetchall())
            cursor.execute(CHILDREN_SQL.format(**places), {"ids": list(locked)})
            locked -= {parent for parent, number in cursor.fetchall() if number != held[parent]}  # Somebody is changing one.
        # Locked, they change no more, and nothing new can hang on them: only now is it seen whether they changed before.
        cursor.execute(VERSIONS_SQL.format(table=table, version=version_of(rule)), {"ids": list(locked)})
        same = [identity for identity, version in cursor.fetchall() if versions[identity] == version]
        cursor.execute(DELETE_BY_ID_SQL.format(table=table), {"ids": same})
        return {identity for (identity,) in cursor.fetchall()}
