"""The assessment of a database before adoption: its kind, the steps of its adoption, and the blockers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import DatabaseError, transaction

from ..errors import NO_SCHEMA, Refusal
from ..exit_codes import ExitCode
from ..findings import Finding, Severity
from ..migration.ledger import MigrationState, has_ledger, read_migrations
from ..migration.other_tools import RECORD_IS_LOST, is_built
from ..migration.prisma import PrismaMigration, read_prisma
from ..schema import Catalog, Column, ForeignKey, Key, Object, Table, read_catalog, relative, where
from ..schema import contract as contracts
from ..schema.contract import FIRST_MIGRATIONS, MAY_BE_NULL, Contract
from ..schema.cures import duplicates, is_orphan
from ..schema.drift import compare
from ..schema.expressions_on_server import Live
from ..schema.objects import PARTITIONED
from ..schema.protected_tables import LEDGERS, PRISMAS_LEDGER, untrusted_findings
from ..schema.relation_kinds import read_relations
from ..schema.untrusted_code import read_untrusted_code
from ..server import Server, read_server
from ..sql import as_written, ask, fetch_all, literal, quote, snapshot
from ..verification import in_schema
from . import blockers
from .convertible import converted
from .later_migrations import later_steps
from .steps import Step, conversion, is_null, read_indexed, read_without_statistics, repair

FIRST = FIRST_MIGRATIONS  # These are recorded as applied; later ones are run.
UNMANAGED = (
    *("unique.extra", "check.extra", "index.extra", "foreign_key.extra", "foreign_key.restricts", "trigger.extra"),
    *("table.inherited", "grants.missing"),
)
SAMPLES = 5

# Unmanaged objects other than tables and objects on tables.
OTHERS_SQL = """
    SELECT 'types' AS kind, t.typname::text AS name
    FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE n.nspname = %(schema)s AND t.typtype IN ('e', 'd', 'r')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
    UNION
    SELECT 'functions', p.proname
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    UNION
    SELECT 'policies', tablename || '.' || policyname FROM pg_catalog.pg_policies WHERE schemaname = %(schema)s
    UNION
    SELECT 'publications', pubname || ' of ' || tablename
    FROM pg_catalog.pg_publication_tables WHERE schemaname = %(schema)s AND tablename = ANY (%(tables)s)
    UNION
    SELECT 'grants', COALESCE(r.rolname, 'PUBLIC') || ' on ' || c.relname
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN pg_catalog.aclexplode(c.relacl) AS a
    LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND a.grantee <> c.relowner
    ORDER BY 1, 2
"""

# Functions that name a table whose time columns change, and timestamps without time zone: they may fail afterwards.
FUNCTIONS_SQL = r"""
    SELECT DISTINCT p.oid::regprocedure::text, t.name
    FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    JOIN unnest(%(tables)s::text[]) AS t (name) ON p.prosrc ~ ('\y' || t.name || '\y')
    WHERE concat_ws(' ', pg_catalog.pg_get_function_result(p.oid), pg_catalog.pg_get_function_arguments(p.oid), p.prosrc)
          ~* '(?<!")\mtimestamp\M(?!\s*(\(\d\))?\s*with time zone)'
    ORDER BY 1, 2
"""


class Kind(StrEnum):
    EXACT = "exact"  # as Prisma's migration created it
    SUPERSET = "superset"  # with unmanaged objects too
    DRIFTED = "drifted"  # with tables that differ in a way that prevents an adoption
    EMPTY = "empty"  # none of our tables
    OURS = "ours"  # our migrations are recorded


@dataclass(frozen=True, slots=True)
class Blocker:
    """The reason why a database cannot be adopted yet, with the number of affected `rows` and the ids of up to five, found by `query`."""

    finding: Finding
    rows: int | None = None
    ids: tuple[str, ...] = ()
    query: str = ""
    repairs: tuple[Step, ...] = ()  # what --repair would do


@dataclass(frozen=True, slots=True)
class Assessment:
    kind: Kind
    server: Server
    prisma: tuple[PrismaMigration, ...]
    steps: tuple[Step, ...]
    migrations: tuple[Step, ...]  # run afterwards
    recorded: tuple[str, ...]  # recorded as applied
    blockers: tuple[Blocker, ...]
    notes: tuple[str, ...]
    unmanaged: Catalog
    others: tuple[tuple[str, str], ...] = ()  # Other unmanaged objects, as (kind, name).

    @property
    def schema(self) -> str:
        return self.server.schema or "public"

    @property
    def exit_code(self) -> int:
        return ExitCode.FOUND if self.blockers else ExitCode.OK


NO_RECORD_OF_PRISMA = "Prisma has no migration ledger here (`prisma db push` keeps none), so none of them can have failed."


def _refuse_citus(connection, schema: str, names: list[str]) -> None:
    """Raise Refusal if Citus has one of the tables: the steps tell rows apart by their place, which differs on each node."""
    relations = read_relations(connection, schema=schema)
    placed = [name for name in names if name in relations and relations[name].kind.is_of_citus]
    if placed:
        raise Refusal(
            f"Citus manages {placed[0]}: make its tables local again (SELECT undistribute_table('{placed[0]}',"
            " cascade_via_foreign_keys => true)), run `manage.py dbadopt`, and distribute them afterwards."
        )


def assess(connection, *, contract: Contract | None = None, ahead: bool = True) -> Assessment:
    """Return the state of the database and the steps of its adoption, read in one snapshot.

    The steps of the later migrations are determined only with `ahead`.
    Raises django.db.Error if the database cannot be reached or read, and Refusal if no schema of the search path exists, if its
    migration ledger is lost or hidden, or if Citus distributes its tables.
    """
    contract = contract or contracts.load()
    with snapshot(connection):
        site = _read_site(connection, contract)
        schema, live, expected, migrations = site.schema, site.live, site.expected, site.migrations
        names = [table.name for table in expected.tables]
        existing = {table.name for table in live.tables}
        if site.is_adopted or existing.isdisjoint(names):
            kind = Kind.OURS if site.is_adopted else Kind.EMPTY
            later = tuple(Step("", f"migration {name}", ()) for name in migrations.pending if kind is Kind.OURS)
            return Assessment(kind, site.server, site.prisma, (), later, (), (), (), Catalog())
        _refuse_citus(connection, schema, names)
        indexed = read_indexed(connection, schema=schema, tables=names)
        pending = contracts.catalog_of(v for v in contract.versions if v.until is None and v.since not in FIRST)
        comparison = compare(expected, converted(expected, live), pending=pending, live=Live(connection, schema))
        left_out = frozenset(place for place in MAY_BE_NULL if _is_omitted_by_site(live, place))
        nulls = frozenset(place for place in MAY_BE_NULL if place not in left_out and _has_nulls(connection, live, place))
        without_statistics = read_without_statistics(connection, schema=schema, tables=names)
        steps = tuple(conversion(expected, live, indexed, nulls=nulls | left_out, without_statistics=without_statistics))
        parted = [table.name for table in live.tables if table.name in names and table.kind == PARTITIONED]
        different = [one for one in comparison.findings if _blocks(one) and one.where.partition(".")[0] not in parted]
        found = (
            *map(Blocker, blockers.partitioned(parted)),
            *(_blocker(connection, finding, site) for finding in different),
            *map(Blocker, blockers.in_use(connection, schema, expected, live, indexed)),
            *map(Blocker, blockers.taken(contract, migrations, live)),
            *map(Blocker, blockers.name_taken(connection, schema, pending, live)),
            *map(Blocker, blockers.replica_identity_missing(connection, schema, steps)),
            *map(Blocker, blockers.failed(site.prisma)),
            *map(Blocker, _other_blockers(connection, site, names)),
        )
        others = tuple(fetch_all(connection, OTHERS_SQL, {"schema": schema, "tables": names}))
        functions = _functions(connection, schema, steps)
    later = later_steps(connection, [name for name in migrations.pending if name not in FIRST], live) if ahead else ()
    unmanaged = comparison.unmanaged.where(lambda thing: thing.table not in (PRISMAS_LEDGER, *LEDGERS))
    kind = Kind.DRIFTED if different or parted else Kind.SUPERSET if any(unmanaged) else Kind.EXACT
    noted = [finding.message for finding in comparison.findings if _is_noted(finding)]
    lost = [] if PRISMAS_LEDGER in existing else [NO_RECORD_OF_PRISMA]
    notes = (*noted, *_function_notes(functions), *lost, *_null_notes(steps, left_out, nulls))
    return Assessment(kind, site.server, site.prisma, steps, later, FIRST, found, notes, unmanaged, others)


@dataclass(frozen=True, slots=True)
class _Site:
    """The database as it was read, and what the first migrations would build."""

    server: Server
    schema: str
    live: Catalog
    migrations: MigrationState
    prisma: tuple[PrismaMigration, ...]
    expected: Catalog

    @property
    def is_adopted(self) -> bool:
        return {record.name for record in self.migrations.applied}.issuperset(FIRST)


def _read_site(connection, contract: Contract) -> _Site:
    """Return the database, read in the current snapshot; raise Refusal if its schema or its ledger is missing or hidden."""
    server = read_server(connection)
    if (schema := server.schema) is None:
        raise Refusal(NO_SCHEMA)
    live = read_catalog(connection, schema=schema)
    migrations = read_migrations(connection, schema=schema, recorded=has_ledger(live), readable=server.may_read_migrations)
    migrations.refuse_hidden()
    migrations.refuse_lost()
    prisma = read_prisma(connection, schema=schema, catalog=live)
    if migrations.readable and not migrations.applied and is_built(contract, live, Live(connection, schema)):
        raise Refusal(RECORD_IS_LOST)
    expected = contracts.catalog_of(contract.expected(FIRST)).where(lambda thing: thing.table not in LEDGERS)
    return _Site(server, schema, live, migrations, prisma, expected)


def _other_blockers(connection, site: _Site, names: list[str]) -> Iterator[Finding]:
    """Yield the blockers other than the schema's objects: privileges, the server, other roles' code."""
    server, schema, live = site.server, site.schema, site.live
    yield from untrusted_findings(live)
    yield from (one.finding for one in read_untrusted_code(connection, schema=schema, deletes=False))
    yield from blockers.unreadable(connection, schema, live, server.role)
    yield from blockers.extension(connection, schema, server.role)
    yield from blockers.zones(connection, schema, names, server)
    yield from (
        finding
        for finding in server.findings()
        if finding.code in ("server.schema", "server.encoding", "server.collation") and finding.severity is not Severity.NOTE
    )
    yield from blockers.ownership_missing(connection, schema, names, server)


def _functions(connection, schema: str, steps: tuple[Step, ...]) -> list[tuple[str, str]]:
    """Return the functions that read a table whose column types change, each with the table."""
    retyped = sorted({step.table for step in steps if step.retypes})
    return [(relative(name, schema), table) for name, table in fetch_all(connection, FUNCTIONS_SQL, {"tables": retyped})]


def _function_notes(functions: list[tuple[str, str]]) -> Iterator[str]:
    for function, table in functions:
        yield (
            f"The function {function} names {table} and timestamps without time zone, but the columns of {table} become timestamps with"
            " time zone: test it on a copy first."
        )


def _null_notes(steps: tuple[Step, ...], left_out: frozenset, nulls: frozenset) -> Iterator[str]:
    """Yield a note for each column of MAY_BE_NULL: whether it becomes NOT NULL."""
    made = {(table, column) for step in steps for table, column in MAY_BE_NULL if step.table == table and step.may_fail}
    for table, column in sorted(made):
        yield (
            f"{table}.{column} becomes NOT NULL. If the site stores rows without it, run ALTER TABLE {quote(table)} ALTER COLUMN"
            f" {quote(column)} DROP NOT NULL; `dbstatus` then shows a note and exits with 0."
        )
    for table, column in sorted(left_out):
        yield f"{table}.{column} stays nullable: the table has {MAY_BE_NULL[table, column]}, so the site stores rows without it."
    for table, column in sorted(nulls):
        yield f"{table}.{column} has NULLs, so it stays nullable; `dbstatus` shows a note and exits with 0."


def _is_omitted_by_site(live: Catalog, place: tuple[str, str]) -> bool:
    """Return whether the site has its later schema, whose inserts omit the column `place`."""
    existing = {(column.table, column.name) for column in live.columns}
    return {place, (place[0], MAY_BE_NULL[place])} <= existing


def _has_nulls(connection, live: Catalog, place: tuple[str, str]) -> bool:
    column = next((c for c in live.columns if (c.table, c.name) == place), None)
    is_table = any(table.name == place[0] and table.kind == "table" and table.trusted for table in live.tables)
    return column is not None and is_table and column.may_hold_null and ask(connection, is_null(column))


def _is_noted(finding: Finding) -> bool:
    return finding.code in UNMANAGED or (finding.code, finding.severity) == ("default.extra", Severity.NOTE)


def _blocks(finding: Finding) -> bool:
    return finding.severity is not Severity.NOTE and finding.code not in UNMANAGED


def _blocker(connection, finding: Finding, site: _Site) -> Blocker:
    """Return the finding with the rows that block its cure; without such rows, with the steps of --repair."""
    schema, live = site.schema, site.live
    cure, finding = finding.cure, in_schema(finding, schema)
    thing = _object_of(finding, site.expected)
    if thing is None or not _has_columns(thing, live) or not _is_trusted(thing, live):
        return Blocker(finding)
    if live.hides_rows(thing.table):
        return Blocker(finding)  # This role may not see every row.
    condition = _condition(finding.code, thing, can_ask=connection.pg_version >= 160000)
    if not condition:
        return Blocker(finding, repairs=repair(finding.code, thing, cure))
    table = quote(thing.table)
    named = any((column.table, column.name) == (thing.table, "id") for column in live.columns)
    key = as_written("t.id") if named else "t.ctid::text"
    query = f"SELECT {key} FROM {table} AS t WHERE {condition}"
    try:
        with transaction.atomic(using=connection.alias):
            rows = ask(connection, f"SELECT count(*) FROM {table} AS t WHERE {condition}")
            ids = _samples(connection, query) if rows else ()
    except DatabaseError:  # Columns whose types cannot be compared, for example.
        return Blocker(finding)
    set_path = "" if schema == "public" else f"SET search_path TO {quote(schema)}; "
    return Blocker(finding, rows, ids, f"{set_path}{query};", () if rows else repair(finding.code, thing, cure))


def _object_of(finding: Finding, expected: Catalog) -> Object | None:
    kind = finding.code.partition(".")[0]
    kinds: dict[str, tuple[Any, ...]] = {
        "column": expected.columns, "default": expected.columns, "unique": expected.keys, "primary_key": expected.keys,
        "check": expected.checks, "index": expected.indexes, "foreign_key": expected.foreign_keys,
    }  # fmt: skip
    return next((thing for thing in kinds.get(kind, ()) if where(thing) == finding.where), None)


def _has_columns(thing: Object, live: Catalog) -> bool:
    """Return whether the columns of `thing` exist, and those that it references."""
    existing = {(column.table, column.name) for column in live.columns}
    names = (thing.name,) if isinstance(thing, Column | Table) else thing.columns
    columns = {(thing.table, name) for name in names}
    if isinstance(thing, ForeignKey):
        columns |= {(thing.target, name) for name in thing.target_columns}
    return columns <= existing


def _is_trusted(thing: Object, live: Catalog) -> bool:
    """Return whether a query of the tables of `thing` runs no code of other roles."""
    names = {thing.table, thing.target} if isinstance(thing, ForeignKey) else {thing.table}
    return all(table.trusted for table in live.tables if table.name in names)


def _condition(code: str, thing: Object, *, can_ask: bool) -> str:
    """Return the condition for the rows of `t` that block a cure, "" if no row can or if they cannot be queried.

    `can_ask`: whether the server has pg_input_is_valid().
    """
    if isinstance(thing, Column):
        if code == "column.different" and can_ask:
            return f"NOT pg_catalog.pg_input_is_valid({as_written(f't.{quote(thing.name)}')}, {literal(thing.type)})"
        return f"t.{quote(thing.name)} IS NULL" if code == "column.weaker" else ""
    if isinstance(thing, Key) and code.endswith((".missing", ".weaker")):
        columns = ", ".join(map(quote, thing.columns))
        condition = f"({columns}) IN ({duplicates(thing)})"
        return f"{condition} OR ({columns}) IS NULL" if thing.primary else condition
    if isinstance(thing, ForeignKey):
        return is_orphan(thing, row="t")
    return ""


def _samples(connection, query: str) -> tuple:
    with connection.cursor() as cursor:
        cursor.execute(f"{query} ORDER BY 1 LIMIT {SAMPLES}")
        return tuple(value for (value,) in cursor.fetchall())
