"""Removes our four apps from a database, and the migrations of other apps that depend on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from django.conf import settings
from django.db.migrations.executor import MigrationExecutor

from ..errors import Refusal
from ..progress import Progress
from ..schema import contract as contracts
from ..schema import read_catalog, relative
from ..schema.contract import PHASE7_APPS
from ..schema.drift import compare
from ..schema.expressions_on_server import Live
from ..schema.untrusted_code import refuse_untrusted_code
from ..server import read_schema
from ..sql import catalogue, quote, snapshot
from . import journal
from .executor import Executor
from .losses import MOST_COUNTED, Consent, Loss
from .run import migrating

# Unmanaged objects that depend on our tables, which cannot be dropped before them.
DEPENDENTS_SQL = """
    SELECT c.relname AS "table", what
    FROM (
        SELECT k.confrelid AS ours, 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass AS what, k.conrelid AS theirs
        FROM pg_catalog.pg_constraint AS k WHERE k.contype = 'f' AND k.conparentid = 0
        UNION ALL
        SELECT d.refobjid, 'view or rule: ' || pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0), r.ev_class
        FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
        UNION ALL
        SELECT d.refobjid, pg_catalog.pg_describe_object(d.classid, d.objid, 0), 0
        FROM pg_catalog.pg_depend AS d
        WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
        UNION ALL
        SELECT t.typrelid, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), CASE WHEN d.classid = 'pg_catalog.pg_class'::regclass THEN d.objid ELSE 0 END
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_type AS e ON d.refclassid = 'pg_catalog.pg_type'::regclass AND e.oid = d.refobjid
        JOIN pg_catalog.pg_type AS t ON t.oid = e.oid OR t.typarray = e.oid
        WHERE t.typrelid <> 0 AND d.deptype = 'n' AND d.classid <> 'pg_catalog.pg_type'::regclass
        UNION ALL
        SELECT d.refobjid, pg_catalog.pg_describe_object(d.classid, d.objid, 0), p.polrelid
        FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_policy AS p ON p.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_policy'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
        UNION ALL
        SELECT i.inhparent, 'table that inherits: ' || i.inhrelid::regclass, i.inhrelid FROM pg_catalog.pg_inherits AS i
    ) AS dependent
    JOIN pg_catalog.pg_class AS c ON c.oid = dependent.ours
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS t
                      WHERE t.oid = dependent.theirs AND t.relnamespace = n.oid AND t.relname = ANY (%(tables)s))
    GROUP BY 1, 2
    ORDER BY 1, 2
"""

TABLES_SQL = """
    SELECT c.relname
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND c.relname = ANY (%(tables)s)
    ORDER BY c.relname COLLATE "C"
"""
# Findings that would make a reversal fail after earlier migrations were already reversed.
IRREVERSIBLE = ("table.missing", "table.renamed", "table.moved", "table.different", "column.missing", "column.renamed")


@dataclass(frozen=True, slots=True)
class Reset:
    """The effect of a reset: migrations, in the order in which they are reversed, and tables with their rows, a million at most."""

    migrations: tuple[str, ...]
    tables: tuple[tuple[str, int], ...]
    dependents: tuple[tuple[str, str], ...]  # (our table, the object that depends on it); the reset is then refused


def plan_reset(connection) -> Reset:
    """Return what a reset of the database behind `connection` would remove."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan([(app, None) for app in PHASE7_APPS])
    migrations = tuple(f"{migration.app_label}.{migration.name}" for migration, _ in plan)
    apps = {migration.app_label for migration, _ in plan}
    versions = [v for v in contracts.load().versions if v.app in apps]
    tables = [table.name for table in contracts.catalog_of(versions).tables]
    if not migrations:
        return Reset((), (), ())
    refuse_untrusted_code(connection, tables, reads=True)
    schema = read_schema(connection)
    place = {"schema": schema, "tables": tables}
    applied = [f"{app}.{name}" for app, name in executor.loader.applied_migrations]
    expected = contracts.catalog_of(version for version in contracts.load().expected(applied) if version.app in apps)
    comparison = compare(expected, read_catalog(connection, schema=schema), live=Live(connection, schema))
    differ = [one for one in comparison.findings if one.code in IRREVERSIBLE]
    if differ:
        raise Refusal(
            f"{differ[0].where} differs from what our migrations created ({differ[0].code}), so they cannot be reversed: fix the findings of"
            " `manage.py dbstatus`, then run the command again."
        )
    dropped = [table.name for table in contracts.catalog_of(v for v in versions if v.since in migrations).tables]
    with catalogue(connection) as cursor:
        cursor.execute(TABLES_SQL, {**place, "tables": dropped})
        tables = [name for (name,) in cursor.fetchall()]
        rows = tuple((name, _count(cursor, schema, name)) for name in tables)
        cursor.execute(DEPENDENTS_SQL, place)
        return Reset(migrations, rows, tuple((table, relative(what, schema)) for table, what in cursor.fetchall()))


def _count(cursor, schema: str, table: str) -> int:
    cursor.execute(f"SELECT count(*) FROM (SELECT 1 FROM {quote(schema)}.{quote(table)} LIMIT {MOST_COUNTED}) AS rows")
    return cursor.fetchone()[0]


def reset(alias: str, *, consent: Consent, patience: float, progress: Progress) -> Reset:
    """Reverse the migrations of the four apps, and those of other apps that depend on them; return what was removed.

    Changes nothing if unmanaged objects depend on our tables. Raises Refusal if rows would be lost without `consent`.
    """
    with migrating(alias, patience=patience, progress=progress) as run:
        with snapshot(run.connection), run.connection.cursor() as cursor:
            cursor.execute("SET LOCAL row_security TO off")  # Otherwise rows that a policy hides would be counted as 0.
            plan = plan_reset(run.connection)
        if not plan.migrations or plan.dependents:
            return plan
        if lost := [Loss(table, rows=rows) for table, rows in plan.tables if rows]:
            consent.ask("Resetting", lost, "nothing was changed")
        journal.ensure(run.connection)
        report = partial(_report, progress)
        Executor(run.connection, report, run=run, consent=consent).migrate([(app, None) for app in PHASE7_APPS])
        counted = {loss.table: loss.rows for loss in consent.lost if loss.rows is not None}
        return replace(plan, tables=tuple((table, counted.get(table, rows)) for table, rows in plan.tables))


def _report(progress: Progress, action: str, migration=None, *unused) -> None:
    if action == "unapply_start":
        progress.step(f"Reversing {migration}")


def refuse_test_database(command: str) -> None:
    """Raise Refusal if the server is not the embedded one: Django's test database would replace one of that name."""
    if not settings.DEVELOPMENT:
        raise Refusal(
            f"{command} creates a database test_… on the server of POSTGRES_URL, and drops an existing database of that name:"
            " unset POSTGRES_URL to use the embedded server."
        )
