"""The statements that remove a batch of old rows, each in one transaction; sweep.py chooses the batches, and archive.py
lists the rows of each first, so that an interrupted run is settled by the next one.

They wait for no row lock, except on Citus, which cannot skip locked rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from django.conf import settings
from django.db import transaction

from ..errors import Refusal
from ..schema.untrusted_code import refuse_untrusted_code
from ..sql import execute, quote, time_limits
from .row_versions import read_versions, version_of
from .rules import Rule

STATEMENT_TIMEOUT = 60_000  # Milliseconds.
# Citus sends these to the workers. One connection at a time, because a cascade reaches shards that a parallel statement locks.
ON_WORKERS_SQL = """
    SET LOCAL citus.propagate_set_commands TO 'local';
    SET LOCAL citus.multi_shard_modify_mode TO 'sequential';
    SET LOCAL lock_timeout TO '{lock}ms'
"""
UNLOCKED_SQL = "SELECT {address} FROM {rows} WHERE {part} AND {condition} FOR UPDATE SKIP LOCKED"
# A row that another session has locked is skipped; one that was changed meanwhile is checked again, and kept if it is no longer old.
DELETE_SQL = "DELETE FROM {rows} WHERE {chosen} AND {condition} RETURNING {key}"
# For partitioned tables, and Citus, which cannot lock rows of several shards: the statement compares each row with its archived version.
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
LOCK_SQL = "SELECT id FROM {rows} WHERE id = ANY (%(ids)s) AND {condition} FOR UPDATE SKIP LOCKED"
LOCK_CHILDREN_SQL = "SELECT {key} FROM {children} WHERE {key} = ANY (%(ids)s) FOR UPDATE SKIP LOCKED"
CHILDREN_SQL = "SELECT {key}, count(*) FROM {children} WHERE {key} = ANY (%(ids)s) GROUP BY {key}"
VERSIONS_SQL = "SELECT id, {version} FROM {rows} WHERE id = ANY (%(ids)s)"
DELETE_BY_ID_SQL = "DELETE FROM {rows} WHERE id = ANY (%(ids)s) RETURNING id"
DELETE_CHILDREN_SQL = "DELETE FROM {children} WHERE {key} = ANY (%(ids)s)"
# Why these statements cannot be used, and the cure: rows are in an inheriting table, or rows that are not the rule's refer to these.
UNSUITABLE_SQL = """
    SELECT 'has rows in ' || i.inhrelid::regclass::text || ', which inherits from it',
           'end the inheritance, once the owner of that table agrees: ALTER TABLE ' || i.inhrelid::regclass::text || ' NO INHERIT ' || i.inhparent::regclass::text || ';'
    FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
    WHERE i.inhparent = pg_catalog.to_regclass(%(table)s)::oid AND c.relkind <> 'p'
    UNION ALL
    SELECT 'is referenced by a foreign key of '
           || CASE WHEN k.conrelid = k.confrelid THEN 'its own, ' || pg_catalog.quote_ident(k.conname) || ', so that newer rows'
                   ELSE k.conrelid::regclass::text || ', whose rows' END
           || CASE WHEN k.confdeltype = 'c' THEN ' would be deleted too'
                   WHEN k.confdeltype IN ('n', 'd') THEN ' would be changed too' ELSE ' would prevent the deletion' END,
           'drop that foreign key, once its owner agrees: ALTER TABLE ' || k.conrelid::regclass::text || ' DROP CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ';'
    FROM pg_catalog.pg_constraint AS k
    WHERE k.contype = 'f' AND k.conparentid = 0::oid AND k.confrelid = pg_catalog.to_regclass(%(table)s)::oid
      AND NOT (k.conrelid = pg_catalog.to_regclass(%(child)s)::oid
               AND k.conkey OPERATOR(pg_catalog.=) ARRAY(SELECT a.attnum FROM pg_catalog.pg_attribute AS a
                                                         WHERE a.attrelid = k.conrelid AND a.attname = %(key)s::name))
    ORDER BY 1
"""
# The triggers that can keep a row of the table, or of one of its partitions, from being deleted: BEFORE DELETE FOR EACH ROW.
KEEPING_SQL = """
    SELECT DISTINCT pg_catalog.quote_ident(t.tgname) FROM pg_catalog.pg_trigger AS t
    WHERE (t.tgrelid = pg_catalog.to_regclass(%(table)s)::oid
           OR t.tgrelid IN (SELECT p.relid::oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%(table)s)) AS p))
      AND t.tgtype & 11::int2 = 11 AND t.tgenabled NOT IN ('D', 'R')
    ORDER BY 1
"""
ORPHANS_SQL = "SELECT EXISTS (SELECT 1 FROM {child} WHERE {key} = ANY (%(keys)s))"


@contextmanager
def short_transaction(connection, rule: Rule | None = None) -> Iterator[Any]:
    """Yield a cursor in a transaction that waits for no lock for long, and in which a policy that hides rows is an error."""
    with time_limits(connection, lock=settings.LOCK_TIMEOUT, statement=STATEMENT_TIMEOUT), connection.cursor() as cursor:
        if rule and rule.is_of_citus:
            cursor.execute(ON_WORKERS_SQL.format(lock=settings.LOCK_TIMEOUT))
        cursor.execute("SET LOCAL row_security TO off")
        yield cursor


def require_own(cursor, connection, rule: Rule) -> None:
    """Lock the tables of the rule; raise Refusal if a deletion would run another role's code, or if other rows refer to those of the rule.

    Each transaction that deletes asks: a table may get its foreign key during the run.
    """
    refuse_untrusted_code(connection, rule.tables, deletes=True)
    for table, child in ((rule.table, rule.child), (rule.child, "")):
        if table:
            cursor.execute(
                UNSUITABLE_SQL, {"table": quote(table), "child": quote(child) if child else None, "key": rule.child_key}
            )
            if row := cursor.fetchone():
                raise Refusal(f"{table} {row[0]}: remove {rule.table} from RETENTION, or {row[1]}")


def delete_old(connection, rule: Rule, part: dict[str, Any], kept: set[Any]) -> set[Any]:
    """Remove the rows of a part of the table that are too old, and return their keys; add those that a trigger keeps to `kept`."""
    key, chosen, locked = quote(rule.key), _chosen(rule), None
    with short_transaction(connection, rule) as cursor:
        require_own(cursor, connection, rule)
        if (rule.child or keeping(cursor, rule)) and not rule.is_of_citus:
            # Nothing new can refer to a locked row: the next statement sees every row that does.
            cursor.execute(_unlocked(rule, key), part)
            locked = _without_busy(cursor, rule, {found for (found,) in cursor.fetchall()})
            part, chosen = {**part, "keys": list(locked)}, f"{key} = ANY (%(keys)s)"
        cursor.execute(DELETE_SQL.format(key=key, rows=rule.rows, condition=rule.condition, chosen=chosen), part)
        removed = _removed(cursor, rule)
        if locked is not None:
            kept |= locked - removed
        return removed


def keeping(cursor, rule: Rule) -> list[str]:
    """Return the triggers that could keep a row of the table from being deleted, as SQL."""
    cursor.execute(KEEPING_SQL, {"table": quote(rule.table)})
    return [name for (name,) in cursor.fetchall()]


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


def delete_archived(
    connection, rule: Rule, ids: list[str], versions: dict[str, str], before: datetime, kept: set[Any]
) -> set[str]:
    """Remove the archived rows `ids` that have not changed since, and return their ids; add those that a trigger keeps to `kept`."""
    if rule.child:
        delete = _delete_with_children_of_citus if rule.is_of_citus else _delete_with_children
    else:
        delete = _delete_by_key if rule.by_key else _delete_by_place
    return delete(connection, rule, {identity: versions[identity] for identity in ids}, before, kept)


def _delete_by_place(connection, rule: Rule, archived: dict[str, str], before: datetime, kept: set[Any]) -> set[str]:
    statement = DELETE_SAME_SQL.format(table=quote(rule.table), condition=rule.condition, version=version_of(rule))
    with short_transaction(connection) as cursor:
        require_own(cursor, connection, rule)
        if keeping(cursor, rule):
            return _delete_unchanged(cursor, rule, archived, before, kept)
        # As JSON, because psycopg takes longer to quote an array than PostgreSQL to delete the rows.
        cursor.execute(statement, {"versions": msgspec.json.encode(archived).decode(), "before": before})
        return {identity for (identity,) in cursor.fetchall()}


def _delete_by_key(connection, rule: Rule, archived: dict[str, str], before: datetime, kept: set[Any]) -> set[str]:
    statement = DELETE_ARCHIVED_SQL.format(
        rows=rule.rows, chosen=_chosen(rule), condition=rule.condition, version=version_of(rule)
    )
    same = [f"{identity} {version}" for identity, version in archived.items()]
    with short_transaction(connection, rule) as cursor:
        require_own(cursor, connection, rule)
        if not rule.is_of_citus and keeping(cursor, rule):
            return _delete_unchanged(cursor, rule, archived, before, kept)
        cursor.execute(statement, {"keys": list(archived), "before": before, "versions": same})
        return {identity for (identity,) in cursor.fetchall()}


def _delete_with_children(connection, rule: Rule, archived: dict[str, str], before: datetime, kept: set[Any]) -> set[str]:
    with short_transaction(connection) as cursor:
        require_own(cursor, connection, rule)
        return _delete_unchanged(cursor, rule, archived, before, kept)


def _delete_unchanged(cursor, rule: Rule, archived: dict[str, str], before: datetime, kept: set[Any]) -> set[str]:
    """Lock the archived rows, remove those that have not changed since, and return their ids."""
    cursor.execute(LOCK_SQL.format(rows=rule.rows, condition=rule.condition), {"ids": list(archived), "before": before})
    locked = _without_busy(cursor, rule, {identity for (identity,) in cursor.fetchall()})
    # Once locked, they cannot change or get new dependent rows: only now can earlier changes be detected.
    cursor.execute(VERSIONS_SQL.format(rows=rule.rows, version=version_of(rule)), {"ids": list(locked)})
    unchanged = [identity for identity, version in cursor.fetchall() if archived[identity] == version]
    cursor.execute(DELETE_BY_ID_SQL.format(rows=rule.rows), {"ids": unchanged})
    removed = _removed(cursor, rule)
    kept |= set(unchanged) - removed
    return removed


def _without_busy(cursor, rule: Rule, locked: set[Any]) -> set[Any]:
    """Lock the dependent rows of the locked rows `locked`, and return those without one that another session is changing."""
    if not rule.child:
        return locked
    places = {"children": rule.children, "key": quote(rule.child_key)}
    cursor.execute(LOCK_CHILDREN_SQL.format(**places), {"ids": list(locked)})
    held = Counter(parent for (parent,) in cursor.fetchall())
    cursor.execute(CHILDREN_SQL.format(**places), {"ids": list(locked)})
    return locked - {parent for parent, number in cursor.fetchall() if number != held[parent]}


def _delete_with_children_of_citus(
    connection, rule: Rule, archived: dict[str, str], before: datetime, kept: set[Any]
) -> set[str]:
    """Remove the rows in one snapshot per node: PostgreSQL then refuses to delete a row that was changed or added since, also by a cascade.

    A lock would not do: Citus locks a row of a reference table on one node only, and rows of several shards not at all.
    """
    places = {"rows": rule.rows, "children": rule.children, "key": quote(rule.child_key)}
    with transaction.atomic(using=connection.alias):
        execute(connection, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with short_transaction(connection, rule) as cursor:
            require_own(cursor, connection, rule)
            found = read_versions(cursor, rule, {"keys": list(archived), "before": before})
            unchanged = {"ids": [identity for identity, version, _ in found if archived[identity] == version]}
            cursor.execute(DELETE_CHILDREN_SQL.format(**places), unchanged)
            cursor.execute(DELETE_BY_ID_SQL.format(**places), unchanged)
            return _removed(cursor, rule)


def _chosen(rule: Rule) -> str:
    """Return SQL for the old rows of a part that no other session has locked; on Citus, for all old rows."""
    address = quote(rule.key) if rule.by_key else "ctid"
    return rule.part if rule.is_of_citus else f"{address} = ANY (ARRAY({_unlocked(rule, address)}))"


def _unlocked(rule: Rule, address: str) -> str:
    return UNLOCKED_SQL.format(address=address, rows=rule.rows, part=rule.part, condition=rule.condition)
