"""Removes rows that are too old, one batch per transaction, without waiting for row locks.

A plain table is scanned by block. The rows of a partitioned table, and of one that Citus distributes, are found by time and
removed by key: such a table has no blocks of its own.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error

from ..errors import Refusal, sqlstate
from ..migration.retry import LOCKED_OUT, try_again
from ..progress import Progress
from ..schema.relations import Kind, read_relations
from ..schema.untrusted_code import refuse_untrusted_code
from ..server import read_schema
from ..sql import quote, time_limits
from .archive import Archives, version_of
from .rules import Rule

T = TypeVar("T")

BATCH_BLOCKS = 512  # Blocks of 8 kB per transaction: some ten thousand rows.
PART_BLOCKS = 16_384  # Blocks per archive, including those of TOAST and dependent tables.
BATCH_ROWS = 10_000
PART_ROWS = 50_000  # Keys of old rows that are read at once.
SPLIT = 8  # The number of parts into which a batch with a locked row is divided, down to a single row.
# Citus sends these to the workers. One connection at a time, because a cascade reaches shards that a parallel statement locks.
ON_WORKERS_SQL = """
    SET LOCAL citus.propagate_set_commands TO 'local';
    SET LOCAL citus.multi_shard_modify_mode TO 'sequential';
    SET LOCAL lock_timeout TO '{lock}ms'
"""
STATEMENT_TIMEOUT = 60_000
PATIENCE = 10  # Seconds that a batch with a locked row waits.

# The current sizes: relpages in pg_class may be outdated.
SIZES_SQL = """
    SELECT pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint,
           (pg_catalog.pg_table_size(c.oid) + COALESCE(pg_catalog.pg_table_size(pg_catalog.to_regclass(%(child)s)), 0))
               / pg_catalog.current_setting('block_size')::bigint
    FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%(table)s)::oid
"""
# Why these statements cannot be used: rows are in an inheriting table, or other tables' rows would be deleted too.
UNSUITABLE_SQL = """
    SELECT 'has rows in ' || i.inhrelid::regclass::text || ', which inherits from it'
    FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
    WHERE i.inhparent = pg_catalog.to_regclass(%(table)s)::oid AND c.relkind <> 'p'
    UNION ALL
    SELECT 'is referenced by a foreign key of ' || k.conrelid::regclass::text || ', whose rows would be deleted too'
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = pg_catalog.to_regclass(%(table)s)::oid AND k.conrelid <> k.confrelid
      AND k.conrelid IS DISTINCT FROM pg_catalog.to_regclass(%(child)s)::oid
    ORDER BY 1
"""
# Raises if this role or this server cannot remove rows, before anything is archived.
MAY_DELETE_SQL = "DELETE FROM {rows} WHERE false"
MAY_LOCK_SQL = "SELECT FROM {rows} WHERE false FOR UPDATE"
KEYS_SQL = "SELECT {key} FROM {rows} WHERE {condition} AND NOT ({key} = ANY (%(left)s)) LIMIT %(most)s"
UNLOCKED_SQL = "SELECT {address} FROM {rows} WHERE {part} AND {condition} FOR UPDATE SKIP LOCKED"
# A row that another session has locked is skipped; one that was changed meanwhile is checked again, and kept if it is no longer old.
DELETE_SQL = "DELETE FROM {rows} WHERE {chosen} AND {condition} RETURNING {key}"
# Citus cannot lock rows of several shards: the statement that removes a row compares it with its archived version.
DELETE_ARCHIVED_SQL = (
    "DELETE FROM {rows} WHERE {chosen} AND {condition} AND id || ' ' || {version} = ANY (%(versions)s) RETURNING id"
)
# Both conditions hold for the row's latest version: one that was changed since it was archived is not locked.
DELETE_SAME_SQL = """
    WITH archived AS (SELECT key AS id, value AS version FROM pg_catalog.json_each_text(%(versions)s))
    DELETE FROM ONLY {table} WHERE {condition} AND ctid = ANY (ARRAY(
        SELECT {table}.ctid FROM ONLY {table} JOIN archived USING (id)
        WHERE {version} = archived.version AND {condition} FOR UPDATE OF {table} SKIP LOCKED))
    RETURNING id
"""
LOCK_SQL = "SELECT id FROM ONLY {table} WHERE id = ANY (%(ids)s) AND {condition} FOR UPDATE SKIP LOCKED"
LOCK_CHILDREN_SQL = "SELECT {key} FROM ONLY {child} WHERE {key} = ANY (%(ids)s) FOR UPDATE SKIP LOCKED"
CHILDREN_SQL = "SELECT {key}, count(*) FROM ONLY {child} WHERE {key} = ANY (%(ids)s) GROUP BY {key}"
VERSIONS_SQL = "SELECT id, {version} FROM ONLY {table} WHERE id = ANY (%(ids)s)"
DELETE_BY_ID_SQL = "DELETE FROM ONLY {table} WHERE id = ANY (%(ids)s) RETURNING id"
ORPHANS_SQL = "SELECT EXISTS (SELECT 1 FROM {child} WHERE {key} = ANY (%(keys)s))"
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


def count(connection, rule: Rule, before: datetime) -> int:
    """Return how many rows are too old."""
    refuse_untrusted_code(connection, _tables(rule), reads=True)
    rule = _with_table_kinds(connection, rule)
    with _short_transaction(connection) as cursor:
        cursor.execute(COUNT_SQL.format(rows=rule.rows, condition=rule.condition), {"before": before})
        return cursor.fetchone()[0]


def _with_table_kinds(connection, rule: Rule) -> Rule:
    """Return the rule with the kinds of its tables; raise Refusal if rows cannot be removed there."""
    relations = read_relations(connection, schema=read_schema(connection))
    names = _tables(rule)
    if missing := [name for name in names if name not in relations]:
        raise Refusal(f"The table {missing[0]} does not exist: run `manage.py migrate`.")
    kinds = {name: relations[name].kind for name in names}
    for name, kind in kinds.items():
        if kind in (Kind.FOREIGN, Kind.VIEW):
            raise Refusal(f"{name} is a {kind}: remove {rule.table} from RETENTION, or fix that.")
    return replace(rule, kinds=frozenset(kinds.values()))


def require_own_rows(connection, rule: Rule) -> None:
    """Raise Refusal if more than the rule's own rows would be deleted, or not all of them would be found."""
    for table, child in ((rule.table, rule.child), (rule.child, "")):
        if table:
            with _short_transaction(connection) as cursor:
                cursor.execute(UNSUITABLE_SQL, {"table": quote(table), "child": quote(child) if child else None})
                if row := cursor.fetchone():
                    raise Refusal(f"{table} {row[0]}: remove {rule.table} from RETENTION, or fix that.")


def sweep(connection, rule: Rule, *, before: datetime, archives: Archives | None, deadline: float, progress: Progress) -> Swept:
    """Remove the rows of `rule` from before a time, after archiving them if there are `archives` and the rule is archived.

    Begins no batch after `deadline`, a time.monotonic(). Raises Refusal, with nothing removed, if the table is not suitable.
    """
    run = _Sweep(connection, rule, before, archives if rule.archived else None, deadline, progress)
    finished = run.to_the_end()
    return Swept(rule.table, rule.what, before, run.removed, run.skipped, tuple(run.archive_names), finished)


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

    def to_the_end(self) -> bool:
        """Remove all rows that are too old; return whether the whole table was scanned."""
        self.rule = _with_table_kinds(self.connection, self.rule)
        if self.rule.by_key and self.archives and self.rule.child:
            raise Refusal(
                f"{self.rule.table} and {self.rule.child} are not both plain tables, so that their rows cannot be archived together:"
                f" remove {self.rule.table} from RETENTION."
            )
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
            self.progress.show(f"{self.rule.table}, {self.removed:,} rows removed", percent)
            part = {"first": f"({first},0)", "last": f"({min(first + step, blocks)},0)", "before": self.before}
            if self.archives is None:
                removed_keys = _with_retries(partial(delete_old, self.connection, self.rule, part))
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
            self.progress.show(f"{self.rule.table}, {self.removed:,} rows removed", None)
            if self.archives:
                removed_keys, in_time = self._archive_and_delete(self.archives, {"keys": keys, "before": self.before}, None)
            else:
                removed_keys, in_time = self._remove(
                    keys, lambda keys: delete_old(self.connection, self.rule, {"keys": keys, "before": self.before}), None
                )
                self.removed += len(removed_keys)
            if not in_time:
                return False
            if not removed_keys:  # Other sessions have locked all remaining rows.
                self.skipped += not self.skipped
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
            self.progress.show(f"{self.rule.table}, {self.removed + len(removed_keys):,} rows removed", percent)
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
        delete = partial(delete_archived, self.connection, self.rule, versions=versions, before=self.before)
        removed_keys, in_time = self._remove(list(versions), delete, percent)
        self.removed += len(removed_keys)
        if archives.finish(archive, [identity for identity in versions if identity not in removed_keys]):
            self.archive_names.append(archive.name)
        elif in_time:
            self.skipped += 1
        return removed_keys, in_time


def _prepare(connection, rule: Rule) -> tuple[int, int]:
    """Return the number of blocks of the table, and that with its TOAST and dependent tables; raise Refusal if it cannot be swept."""
    require_own_rows(connection, rule)
    with _short_transaction(connection, rule) as cursor:
        _refuse_untrusted_code(connection, rule)
        cursor.execute(SIZES_SQL, {"table": quote(rule.table), "child": quote(rule.child) if rule.child else None})
        sizes = cursor.fetchone()
        cursor.execute(MAY_DELETE_SQL.format(rows=rule.rows))
        if not rule.is_of_citus:
            cursor.execute(MAY_LOCK_SQL.format(rows=rule.rows))
        return sizes


def _with_retries(action: Callable[[], T]) -> T | None:
    """Return the result of `action`, retried while it does not get its locks; None if it never does."""
    try:
        return try_again(action, patience=PATIENCE, again=lambda error, pause: None)
    except Error as error:
        if sqlstate(error) not in LOCKED_OUT:
            raise
        return None


@contextmanager
def _short_transaction(connection, rule: Rule | None = None) -> Iterator[Any]:
    """Yield a cursor in a transaction that waits for no lock for long, and in which a policy that hides rows is an error."""
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=STATEMENT_TIMEOUT), connection.cursor() as cursor:
        if rule and rule.is_of_citus:
            cursor.execute(ON_WORKERS_SQL.format(lock=settings.LOCK_TIMEOUT))
        cursor.execute("SET LOCAL row_security TO off")
        yield cursor


def _read_keys(connection, rule: Rule, before: datetime, left: set[Any]) -> list[Any]:
    """Return the keys of some of the rows that are too old, without those of `left`."""
    with _short_transaction(connection, rule) as cursor:
        _refuse_untrusted_code(connection, rule)
        places = {"key": quote(rule.key), "rows": rule.rows, "condition": rule.condition}
        cursor.execute(KEYS_SQL.format(**places), {"before": before, "left": list(left), "most": PART_ROWS})
        return [key for (key,) in cursor.fetchall()]


def delete_old(connection, rule: Rule, part: dict[str, Any]) -> set[Any]:
    """Remove the rows of a part of the table that are too old, and return their keys."""
    key, chosen = quote(rule.key), _chosen(rule)
    with _short_transaction(connection, rule) as cursor:
        _refuse_untrusted_code(connection, rule)
        if rule.child and not rule.is_of_citus:
            # Nothing new can refer to a locked row: the next statement sees every row that does.
            cursor.execute(_unlocked(rule, key), part)
            part, chosen = {**part, "keys": [found for (found,) in cursor.fetchall()]}, f"{key} = ANY (%(keys)s)"
        cursor.execute(DELETE_SQL.format(key=key, rows=rule.rows, condition=rule.condition, chosen=chosen), part)
        return _removed(cursor, rule)


def _removed(cursor, rule: Rule) -> set[Any]:
    """Return the keys of the rows that a DELETE has just returned; raise Refusal if rows of `rule.child` still refer to one.

    The foreign key should have deleted them. It does not where it is missing or not enforced, or where a trigger prevents it.
    """
    keys = {key for (key,) in cursor.fetchall()}
    if rule.child and keys:
        cursor.execute(ORPHANS_SQL.format(child=quote(rule.child), key=quote(rule.child_key)), {"keys": list(keys)})
        if cursor.fetchone()[0]:
            raise Refusal(
                f"Rows of {rule.child} would remain after the rows of {rule.table} that they refer to: the foreign key is missing"
                f" or not enforced, or a trigger keeps them. Fix that (`manage.py dbstatus`), or remove {rule.table} from RETENTION."
            )
    return keys


def _refuse_untrusted_code(connection, rule: Rule) -> None:
    refuse_untrusted_code(connection, _tables(rule), deletes=True)


def _tables(rule: Rule) -> list[str]:
    return [table for table in (rule.table, rule.child) if table]


def _batches(ids: list[Any], size: int) -> Iterable[list[Any]]:
    return (ids[first : first + size] for first in range(0, len(ids), size))


def delete_archived(connection, rule: Rule, ids: list[str], versions: dict[str, str], before: datetime) -> set[str]:
    """Remove the archived rows `ids` that have not changed since, and return their ids."""
    if rule.by_key:
        return _delete_if_same(connection, rule, ids, versions, before)
    table, version = quote(rule.table), version_of(rule)
    with _short_transaction(connection) as cursor:
        _refuse_untrusted_code(connection, rule)
        if not rule.child:
            # As JSON, because psycopg takes longer to quote an array than PostgreSQL to delete the rows.
            same = {identity: versions[identity] for identity in ids}
            statement = DELETE_SAME_SQL.format(table=table, condition=rule.condition, version=version)
            cursor.execute(statement, {"versions": json.dumps(same), "before": before})
            return {identity for (identity,) in cursor.fetchall()}
        cursor.execute(LOCK_SQL.format(table=table, condition=rule.condition), {"ids": ids, "before": before})
        locked = {identity for (identity,) in cursor.fetchall()}
        places = {"child": quote(rule.child), "key": quote(rule.child_key)}
        cursor.execute(LOCK_CHILDREN_SQL.format(**places), {"ids": list(locked)})
        held = Counter(parent for (parent,) in cursor.fetchall())
        cursor.execute(CHILDREN_SQL.format(**places), {"ids": list(locked)})
        # Another session is changing a row.
        locked -= {parent for parent, number in cursor.fetchall() if number != held[parent]}
        # Once locked, they cannot change or get new dependent rows: only now can earlier changes be detected.
        cursor.execute(VERSIONS_SQL.format(table=table, version=version), {"ids": list(locked)})
        unchanged = [identity for identity, version in cursor.fetchall() if versions[identity] == version]
        cursor.execute(DELETE_BY_ID_SQL.format(table=table), {"ids": unchanged})
        return _removed(cursor, rule)


def _delete_if_same(connection, rule: Rule, ids: list[str], versions: dict[str, str], before: datetime) -> set[str]:
    statement = DELETE_ARCHIVED_SQL.format(
        rows=rule.rows, chosen=_chosen(rule), condition=rule.condition, version=version_of(rule)
    )
    same = [f"{identity} {versions[identity]}" for identity in ids]
    with _short_transaction(connection, rule) as cursor:
        _refuse_untrusted_code(connection, rule)
        cursor.execute(statement, {"keys": ids, "before": before, "versions": same})
        return {identity for (identity,) in cursor.fetchall()}


def _chosen(rule: Rule) -> str:
    """Return SQL for the old rows of a part that no other session has locked; on Citus, for all old rows."""
    address = quote(rule.key) if rule.by_key else "ctid"
    return rule.part if rule.is_of_citus else f"{address} = ANY (ARRAY({_unlocked(rule, address)}))"


def _unlocked(rule: Rule, address: str) -> str:
    return UNLOCKED_SQL.format(address=address, rows=rule.rows, part=rule.part, condition=rule.condition)
