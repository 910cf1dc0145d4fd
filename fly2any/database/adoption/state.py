"""What kind of database it is, what adoption would do with it, and what is in its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from django.db import DatabaseError, transaction

from .. import contract as contracts
from .. import journal
from ..catalog import Catalog, Column, ForeignKey, Key, Object, Table, quote, read_catalog, where
from ..contract import FIRST_MIGRATIONS, MAY_BE_NULL, Contract
from ..drift import compare
from ..findings import Finding, Severity
from ..migration_state import LEDGERS, MigrationState, read_migrations, unrecorded
from ..prisma import LEDGER, PrismaMigration, read_prisma
from ..server import Server, read_server
from ..status import in_schema, snapshot
from .forms import ADDED, converted, index_for, is_convertible
from .later import later_steps
from .steps import Indexed, Step, conversion, is_null, read_indexed, repair

FIRST = FIRST_MIGRATIONS  # These are recorded, later ones are run.
FOREIGN = ("unique.extra", "check.extra", "index.extra", "foreign_key.extra", "trigger.extra")
SAMPLES = 5
PRIMARY_KEY = Key(ADDED[0], f"{ADDED[0]}_pkey", (ADDED[1],), primary=True)

# What hinders a change of a column's type: views and rules, triggers, policies, publications, functions, generated columns; or
# would change with it: checks, which would be read by the session's time zone, and inheriting tables.
IN_USE_SQL = """
    SELECT c.relname AS "table", a.attname AS "column", pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) AS what
    FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_class AS c ON d.refclassid = 'pg_catalog.pg_class'::regclass AND c.oid = d.refobjid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
    LEFT JOIN pg_catalog.pg_attrdef AS f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
      AND d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_policy'::regclass,
                        'pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_publication_rel'::regclass, 'pg_catalog.pg_attrdef'::regclass)
      AND (f.oid IS NULL OR f.adnum <> a.attnum)
    UNION
    SELECT c.relname, a.attname, pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::regclass, k.oid, 0)
    FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey)
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND k.contype IN ('c', 'x')
    UNION
    SELECT c.relname, a.attname, 'column ' || o.attname || ' of ' || o.attrelid::regclass || ', of the table''s row type'
    FROM pg_catalog.pg_attribute AS o
    JOIN pg_catalog.pg_type AS y ON y.oid = o.atttypid
    JOIN pg_catalog.pg_class AS c ON y.oid = c.reltype OR y.typelem = c.reltype
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND c.reltype <> 0 AND o.attnum > 0 AND NOT o.attisdropped
    UNION
    SELECT c.relname, a.attname, 'the inheriting table ' || i.inhrelid::regclass
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
    ORDER BY 1, 2, 3
"""

TAKEN_SQL = """
    SELECT c.relname, COALESCE(t.relname, ''), pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, c.oid, 0)
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = c.oid
    LEFT JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s)
    ORDER BY c.relname COLLATE "C"
"""

PUBLISHED_SQL = """
    SELECT c.relname, p.pubname
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_publication_tables AS pt ON pt.schemaname = n.nspname AND pt.tablename = c.relname
    JOIN pg_catalog.pg_publication AS p ON p.pubname = pt.pubname
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND p.pubupdate AND c.relreplident IN ('d', 'n')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
    ORDER BY 1, 2
"""

OWNED_SQL = """
    SELECT c.relname, pg_catalog.pg_get_userbyid(c.relowner)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
    ORDER BY c.relname COLLATE "C"
"""


class Kind(StrEnum):
    EXACT = "exact"  # as Prisma's migration made it
    SUPERSET = "superset"  # and more, which is not ours
    DRIFTED = "drifted"  # something of ours is missing or different
    EMPTY = "empty"  # none of our tables
    OURS = "ours"  # recorded as our migrations'


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a database cannot be adopted as it is; `rows` in which it shows, with the ids of five at most, by `query`."""

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
    migrations: tuple[Step, ...]  # that run afterwards
    recorded: tuple[str, ...]  # that are recorded
    blockers: tuple[Blocker, ...]
    notes: tuple[str, ...]
    foreign: Catalog

    @property
    def schema(self) -> str:
        return self.server.schema or "public"

    @property
    def exit_code(self) -> int:
        return 4 if self.blockers else 0


def assess(connection, *, contract: Contract | None = None) -> Assessment:
    """Return what the database behind `connection` is, and what adoption would do with it; read in one snapshot.

    Raises django.db.Error where the database cannot be reached or read.
    """
    contract = contract or contracts.load()
    expected = contracts.catalog_of(contract.expected(FIRST))
    expected = expected.where(lambda thing: thing.table not in LEDGERS)
    names = [table.name for table in expected.tables]
    with snapshot(connection):
        server = read_server(connection, tables=names)
        schema = server.schema or "public"
        live = read_catalog(connection, schema=schema)
        there = {table.name for table in live.tables}
        migrations = read_migrations(
            connection, schema=schema, recorded="django_migrations" in there, readable=server.may_read_migrations
        )
        prisma = read_prisma(connection, schema=schema, catalog=live)
        applied = {record.name for record in migrations.applied}
        if applied.issuperset(FIRST) or there.isdisjoint(names):
            kind = Kind.OURS if applied.issuperset(FIRST) else Kind.EMPTY
            later = tuple(Step("", f"migration {name}", ()) for name in migrations.pending if kind is Kind.OURS)
            return Assessment(kind, server, prisma, (), later, (), (), (), Catalog())
        indexed = read_indexed(connection, schema=schema, tables=names)
        pending = contracts.catalog_of(v for v in contract.versions if v.until is None and v.since not in FIRST)
        comparison = compare(expected, converted(expected, live), pending=pending)
        nulls = frozenset(place for place in MAY_BE_NULL if _has_nulls(connection, live, place))
        steps = tuple(conversion(expected, live, indexed, nulls=nulls))
        blockers = (
            *(_blocker(connection, finding, expected, live, schema) for finding in comparison.findings if _blocks(finding)),
            *map(Blocker, _in_use(connection, schema, expected, live, indexed)),
            *map(Blocker, _taken(contract, migrations, live)),
            *map(Blocker, _name_taken(connection, schema, pending, live)),
            *map(Blocker, _unfillable(connection, schema, steps)),
            *map(Blocker, _failed(prisma)),
            *map(Blocker, (finding for finding in server.findings() if finding.code == "server.schema")),
            *map(Blocker, _not_ours(connection, schema, names, server)),
        )
    later = later_steps(connection, [name for name in migrations.pending if name not in FIRST], live)
    foreign = comparison.foreign.where(lambda thing: thing.table not in (LEDGER, *LEDGERS))
    kind = Kind.DRIFTED if blockers else Kind.SUPERSET if any(foreign) else Kind.EXACT
    notes = [
        f"{finding.message} Values are read as UTC, as Prisma writes them; what raw SQL wrote by a default in another zone is off by"
        f" its hours. `dbstatus` exits 4 until: {finding.cure}"
        for finding in server.findings()
        if finding.code == "server.time_zone"
    ]
    notes += [finding.message for finding in comparison.findings if finding.code in FOREIGN]
    made = {(table, column) for step in steps for table, column in MAY_BE_NULL if step.table == table and step.may_fail}
    notes += [
        f"{table}.{column} is made NOT NULL; should the site store rows without it: ALTER TABLE {quote(table)} ALTER COLUMN"
        f" {quote(column)} DROP NOT NULL, which `dbstatus` notes, and exits 0."
        for table, column in sorted(made)
    ]
    notes += [
        f"{table}.{column} holds NULLs, so it stays as it is; `dbstatus` says so, and exits 0."
        for table, column in sorted(nulls)
    ]
    return Assessment(kind, server, prisma, steps, later, FIRST, blockers, tuple(notes), foreign)


def _has_nulls(connection, live: Catalog, place: tuple[str, str]) -> bool:
    column = next((c for c in live.columns if (c.table, c.name) == place), None)
    is_table = any(table.name == place[0] and table.kind == "table" for table in live.tables)
    return column is not None and is_table and column.nullable and _ask(connection, is_null(column))


def _blocks(finding: Finding) -> bool:
    return finding.severity is not Severity.NOTE and finding.code not in FOREIGN


def _blocker(connection, finding: Finding, expected: Catalog, live: Catalog, schema: str) -> Blocker:
    """Return the finding with the rows that are in the way of its cure, and with what --repair would do if there are none."""
    cure, finding = finding.cure, in_schema(finding, schema)
    thing = _thing(finding, expected)
    if thing is None or not _is_there(thing, live):
        return Blocker(finding)
    condition = _condition(finding.code, thing)
    if not condition:
        return Blocker(finding, repairs=repair(finding.code, thing, cure))
    table = quote(thing.table)
    named = any((column.table, column.name) == (thing.table, "id") for column in live.columns)
    key = "t.id::text" if named else "t.ctid::text"
    query = f"SELECT {key} FROM {table} AS t WHERE {condition}"
    try:
        with transaction.atomic(using=connection.alias):
            rows = _ask(connection, f"SELECT count(*) FROM {table} AS t WHERE {condition}")
            ids = _column(connection, f"{query} ORDER BY 1 LIMIT {SAMPLES}") if rows else ()
    except DatabaseError:  # Columns of types that cannot be compared, for one.
        return Blocker(finding)
    there = "" if schema == "public" else f"SET search_path TO {quote(schema)}; "
    return Blocker(finding, rows, ids, f"{there}{query};", () if rows else repair(finding.code, thing, cure))


def _thing(finding: Finding, expected: Catalog) -> Object | None:
    kind = finding.code.partition(".")[0]
    kinds: dict[str, tuple[Any, ...]] = {
        "column": expected.columns, "default": expected.columns, "unique": expected.keys, "primary_key": expected.keys,
        "check": expected.checks, "index": expected.indexes, "foreign_key": expected.foreign_keys,
    }  # fmt: skip
    return next((thing for thing in kinds.get(kind, ()) if where(thing) == finding.where), None)


def _is_there(thing: Object, live: Catalog) -> bool:
    """Say whether the columns that `thing` is about are there, and those that it points at."""
    there = {(column.table, column.name) for column in live.columns}
    names = (thing.name,) if isinstance(thing, Column | Table) else thing.columns
    columns = {(thing.table, name) for name in names}
    if isinstance(thing, ForeignKey):
        columns |= {(thing.target, name) for name in thing.target_columns}
    return columns <= there


def _condition(code: str, thing: Object) -> str:
    """Return the condition for the rows of `t` that are in the way of a cure, "" where rows cannot be."""
    if isinstance(thing, Column):
        return f"t.{quote(thing.name)} IS NULL" if code == "column.weaker" else ""
    if isinstance(thing, Key) and code.endswith((".missing", ".weaker")):
        columns = ", ".join(map(quote, thing.columns))
        condition = f"({columns}) IN (SELECT {columns} FROM {quote(thing.table)} GROUP BY {columns} HAVING count(*) > 1)"
        return f"{condition} OR ({columns}) IS NULL" if thing.primary else condition
    if isinstance(thing, ForeignKey):
        given = " AND ".join(f"t.{quote(column)} IS NOT NULL" for column in thing.columns)
        same = " AND ".join(f"p.{quote(b)} = t.{quote(a)}" for a, b in zip(thing.columns, thing.target_columns, strict=True))
        return f"{given} AND NOT EXISTS (SELECT FROM {quote(thing.target)} AS p WHERE {same})"
    return ""


def _in_use(connection, schema: str, expected: Catalog, live: Catalog, indexed: tuple[Indexed, ...]) -> Iterator[Finding]:
    """Yield a finding for everything that keeps a column from changing its type."""
    wanted = {(column.table, column.name): column for column in expected.columns}
    retyped = {place for c in live.columns if (place := (c.table, c.name)) in wanted and is_convertible(wanted[place], c)}
    with connection.cursor() as cursor:
        cursor.execute(IN_USE_SQL, {"schema": schema, "tables": sorted({table for table, _ in retyped})})
        rows = cursor.fetchall()
    for table, column, what in rows:
        if (table, column) in retyped:
            yield Finding(
                Severity.ERROR,
                "adopt.in_use",
                f"{table}.{column}",
                f"Column {column} of {table} is used by {what}, so its type cannot change.",
                "Agree with whoever made it, drop it before the adoption, and make it again after.",
            )
    for entry in indexed:
        if entry.computed and (entry.table, entry.column) in retyped:
            yield Finding(
                Severity.ERROR,
                "adopt.computed",
                f"{entry.table}.{entry.index}",
                f"Index {entry.index} of {entry.table} is computed from {entry.column}, whose type changes: whether it still can be is not known.",
                f"Agree with whoever made it, and drop it before the adoption: DROP INDEX CONCURRENTLY {quote(entry.index)};",
            )


def _taken(contract: Contract, migrations: MigrationState, live: Catalog) -> Iterator[Finding]:
    """Yield a finding for each later migration that would fail, because what it creates is there."""
    later = replace(migrations, pending=tuple(name for name in migrations.pending if name not in FIRST))
    known = Contract(contract.migrations, tuple(version for version in contract.versions if version.since not in FIRST))
    for found in unrecorded(known, later, live):
        if found.different or not found.is_leftover:
            there = found.different if found.is_leftover else found.there
            places = ", ".join(thing.name if isinstance(thing, Table) else where(thing) for thing in there[:SAMPLES])
            yield Finding(
                Severity.ERROR,
                "adopt.name_taken",
                found.migration,
                f"The migration {found.migration} would create what is there already: {places}.",
                "Agree with whoever made it, and rename or drop it.",
            )


def _name_taken(connection, schema: str, pending: Catalog, live: Catalog) -> Iterator[Finding]:
    """Yield a finding for each name that an index, a key or the journal of ours will need, and something else has."""
    tables = {table.name for table in live.tables}
    wanted = {index.name: index.table for index in pending.indexes if index.table in tables}
    wanted |= {PRIMARY_KEY.name: PRIMARY_KEY.table, journal.TABLE: ""}
    with connection.cursor() as cursor:
        cursor.execute(TAKEN_SQL, {"schema": schema, "names": list(wanted)})
        rows = cursor.fetchall()
    for name, table, what in rows:
        if name == journal.TABLE:
            taken = not (journal.is_readable(live) and Table(name) in live.tables)
        elif name == PRIMARY_KEY.name:
            half = [index for index in live.indexes if replace(index, valid=True, ready=True) == index_for(PRIMARY_KEY)]
            taken = not half and PRIMARY_KEY not in live.keys
        else:
            taken = table != wanted[name]  # On its own table it is compared with the definition.
        if taken:
            yield Finding(
                Severity.ERROR,
                "adopt.name_taken",
                name,
                f"The name {name}, which the adoption needs, is that of {what}.",
                "Agree with whoever made it, and rename or drop it.",
            )


def _unfillable(connection, schema: str, steps: tuple[Step, ...]) -> Iterator[Finding]:
    """Yield a finding for each table that must be filled, and cannot, since it is published without an identity of its rows."""
    with connection.cursor() as cursor:
        cursor.execute(PUBLISHED_SQL, {"schema": schema, "tables": [step.table for step in steps if step.repeated]})
        rows = cursor.fetchall()
    for table, publication in rows:
        yield Finding(
            Severity.ERROR,
            "adopt.in_use",
            table,
            f"Table {table} is in the publication {publication} and has neither primary key nor replica identity, so its rows cannot be filled.",
            f"Before the adoption: ALTER TABLE {quote(table)} REPLICA IDENTITY FULL; after it: REPLICA IDENTITY DEFAULT.",
        )


def _failed(prisma: tuple[PrismaMigration, ...]) -> Iterator[Finding]:
    for migration in prisma:
        if migration.failed:
            yield Finding(
                Severity.ERROR,
                "adopt.prisma_failed",
                migration.name,
                f"Prisma's migration {migration.name} was begun and never finished.",
                f"In the site: npx prisma migrate resolve --rolled-back {migration.name} (or --applied, if all of it is there).",
            )


def _not_ours(connection, schema: str, names: list[str], server: Server) -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(OWNED_SQL, {"schema": schema, "tables": names})
        owners = cursor.fetchall()
    if owners:
        yield Finding(
            Severity.ERROR,
            "adopt.not_owner",
            server.role,
            f"The role {server.role} does not own {len(owners)} of the tables, {owners[0][0]} among them, which {owners[0][1]} does.",
            f"Connect as {owners[0][1]}, or: GRANT {quote(owners[0][1])} TO {quote(server.role)};",
        )
    if not server.may_create:
        yield Finding(
            Severity.ERROR,
            "adopt.not_owner",
            schema,
            f"The role {server.role} may not create tables in the schema {schema}.",
            f"GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(server.role)};",
        )


def _ask(connection, question: str):
    return _column(connection, question)[0]


def _column(connection, question: str) -> tuple:
    with connection.cursor() as cursor:
        cursor.execute(question)
        return tuple(row[0] for row in cursor.fetchall())
