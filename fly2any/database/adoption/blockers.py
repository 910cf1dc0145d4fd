"""Blockers of an adoption other than differences from the contract; each function yields findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..extensions import NEEDED_SQL, read_untrusted
from ..findings import Finding, Severity
from ..migration import journal
from ..migration.ledger import MigrationState, unrecorded
from ..migration.prisma import PrismaMigration, may_read
from ..schema import Catalog, Key, Table, relative, where
from ..schema.contract import FIRST_MIGRATIONS as FIRST
from ..schema.contract import Contract
from ..schema.protected_tables import JOURNAL, PRISMAS_LEDGER
from ..schema.row_security import reveal
from ..schema.time_zones import ZONES_SQL
from ..server import Server
from ..session_defaults import HIDDEN_ZONE, UTC_NAMES
from ..sql import catalogue, fetch_all, fetch_one, literal, quote
from .convertible import ADDED, index_for, is_convertible
from .steps import Indexed, Step

MOST_NAMED = 5
PRIMARY_KEYS = {f"{table}_pkey": Key(table, f"{table}_pkey", (column,), primary=True) for table, column in ADDED}

# What prevents a change of a column's type: views and rules, triggers, policies, publications, functions, generated columns; or
# would change with it: checks, which would be read by the session's time zone, and inheriting tables. What a generated column uses is
# recorded for its expression, before PostgreSQL 15 for the column.
IN_USE_SQL = """
    WITH ours AS (
        SELECT c.oid, c.relname, c.reltype, a.attname, a.attnum, a.attinhcount
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
    )
    SELECT o.relname AS "table", o.attname AS "column",
           CASE WHEN r.rulename = '_RETURN' THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, r.ev_class, 0)
                WHEN f.oid IS NULL THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
                ELSE 'generated ' || pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, f.adrelid, f.adnum) END AS what,
           CASE WHEN f.oid IS NOT NULL THEN 'SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE oid = ' || f.oid
                WHEN d.classid = 'pg_catalog.pg_proc'::regclass THEN 'SELECT pg_get_functiondef(' || d.objid || ')'
                WHEN d.classid = 'pg_catalog.pg_trigger'::regclass THEN 'SELECT pg_get_triggerdef(' || d.objid || ')'
                WHEN r.ev_type = '1' THEN 'SELECT pg_get_viewdef(' || r.ev_class || ')'
                WHEN r.oid IS NOT NULL THEN 'SELECT pg_get_ruledef(' || r.oid || ')'
                ELSE '' END AS definition, '' AS cure
    FROM pg_catalog.pg_depend AS d
    JOIN ours AS o ON d.refclassid = 'pg_catalog.pg_class'::regclass AND o.oid = d.refobjid AND o.attnum = d.refobjsubid
    LEFT JOIN pg_catalog.pg_attrdef AS f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid
        OR d.classid = 'pg_catalog.pg_class'::regclass AND f.adrelid = d.objid AND f.adnum = d.objsubid
    LEFT JOIN pg_catalog.pg_rewrite AS r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
    WHERE d.classid IN ('pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_trigger'::regclass, 'pg_catalog.pg_policy'::regclass,
                        'pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_publication_rel'::regclass)
       OR f.adnum <> o.attnum
    UNION
    SELECT o.relname, o.attname, pg_catalog.pg_describe_object('pg_catalog.pg_constraint'::regclass, k.oid, 0),
           'SELECT pg_get_constraintdef(' || k.oid || ')', ''
    FROM pg_catalog.pg_constraint AS k
    JOIN ours AS o ON (o.oid = k.conrelid AND o.attnum = ANY (k.conkey)) OR (o.oid = k.confrelid AND o.attnum = ANY (k.confkey))
    WHERE k.contype IN ('c', 'x', 'f')
    UNION
    SELECT o.relname, o.attname, 'column ' || t.attname || ' of ' || t.attrelid::regclass || ', of the table''s row type', '',
           'Ask its owner first. Before the adoption, copy its values and drop it, or change its type.'
    FROM pg_catalog.pg_attribute AS t
    JOIN pg_catalog.pg_type AS y ON y.oid = t.atttypid
    JOIN ours AS o ON o.reltype <> 0 AND o.reltype IN (y.oid, y.typelem)
    WHERE t.attnum > 0 AND NOT t.attisdropped
    UNION
    SELECT o.relname, o.attname, 'the inheriting table ' || i.inhrelid::regclass, '',
           'Ask its owner first, then run: ALTER TABLE ' || i.inhrelid::regclass || ' NO INHERIT ' || i.inhparent::regclass || ';'
    FROM pg_catalog.pg_inherits AS i JOIN ours AS o ON o.oid = i.inhparent JOIN pg_catalog.pg_class AS k ON k.oid = i.inhrelid
    WHERE NOT k.relispartition
    UNION
    SELECT o.relname, o.attname, 'the table it inherits from, ' || i.inhparent::regclass, '',
           'Ask its owner first, then run: ALTER TABLE '
           || CASE WHEN k.relispartition THEN i.inhparent::regclass || ' DETACH PARTITION ' || i.inhrelid::regclass
                   ELSE i.inhrelid::regclass || ' NO INHERIT ' || i.inhparent::regclass END || ';'
    FROM pg_catalog.pg_inherits AS i JOIN ours AS o ON o.oid = i.inhrelid AND o.attinhcount > 0 JOIN pg_catalog.pg_class AS k ON k.oid = i.inhrelid
    ORDER BY 1, 2, 3
"""

# Types whose names the later tables need for their row types; PostgreSQL renames a conflicting array type by itself.
TYPES_SQL = """
    SELECT t.typname FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE n.nspname = %(schema)s AND t.typname = ANY (%(names)s) AND t.typrelid = 0
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS e WHERE e.typarray = t.oid)
    ORDER BY t.typname COLLATE "C"
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


def in_use(connection, schema: str, expected: Catalog, live: Catalog, indexed: tuple[Indexed, ...]) -> Iterator[Finding]:
    """Yield a finding for each object that prevents the change of a column's type."""
    wanted = {(column.table, column.name): column for column in expected.columns}
    retyped = {place for c in live.columns if (place := (c.table, c.name)) in wanted and is_convertible(wanted[place], c)}
    rows = [
        tuple(text and relative(text, schema) for text in row)
        for row in fetch_all(connection, IN_USE_SQL, {"schema": schema, "tables": sorted({table for table, _ in retyped})})
    ]
    for table, column, what, definition, cure in rows:
        if (table, column) in retyped:
            keep = f"save its definition (the output of `{definition};`), " if definition else ""
            yield Finding(
                Severity.ERROR,
                "adopt.in_use",
                f"{table}.{column}",
                f"Column {column} of {table} is used by {what}, so the adoption does not change its type.",
                cure
                or f"Ask the owner of {what} first, then {keep}drop it before the adoption, and create it again afterwards.",
            )
    for entry in indexed:
        if entry.trouble and (entry.table, entry.column) in retyped:
            yield Finding(
                Severity.ERROR,
                "adopt.computed",
                f"{entry.table}.{entry.index}",
                f"The type of {entry.column} changes, and index {entry.index} of {entry.table} {entry.trouble}: rebuilding the index may fail.",
                f"Ask the owner of the index first, then save its definition (the output of `SELECT pg_get_indexdef({literal(quote(entry.index))}::regclass);`), drop"
                f" the index before the adoption, and create it again afterwards: DROP INDEX CONCURRENTLY {quote(entry.index)};",
            )


def partitioned(names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        yield Finding(
            Severity.ERROR,
            "table.different",
            name,
            f"{name} is a partitioned table, which cannot be adopted: PostgreSQL cannot change the type of a column of its partition key.",
            f"Copy its rows into a table without partitions, give that table the name {name} and adopt it; afterwards it can be partitioned again.",
        )


def taken(contract: Contract, migrations: MigrationState, live: Catalog) -> Iterator[Finding]:
    """Yield a finding for each later migration that would fail because its objects already exist."""
    later = replace(migrations, pending=tuple(name for name in migrations.pending if name not in FIRST))
    known = Contract(contract.migrations, tuple(version for version in contract.versions if version.since not in FIRST))
    for found in unrecorded(known, later, live):
        if found.different or not found.is_leftover:
            existing = found.different if found.is_leftover else found.existing
            places = ", ".join(thing.name if isinstance(thing, Table) else where(thing) for thing in existing[:MOST_NAMED])
            yield Finding(
                Severity.ERROR,
                "adopt.name_taken",
                found.migration,
                f"The migration {found.migration} would create objects that already exist: {places}.",
                "Ask their owner first, then rename or drop them.",
            )


def name_taken(connection, schema: str, pending: Catalog, live: Catalog) -> Iterator[Finding]:
    """Yield a finding for each name that one of our indexes, keys or the journal will need, and that another object has."""
    tables = {table.name for table in live.tables}
    wanted = {index.name: index.table for index in pending.indexes if index.table in tables}
    wanted |= {name: key.table for name, key in PRIMARY_KEYS.items()} | {JOURNAL: ""}
    with catalogue(connection) as cursor:
        cursor.execute(TAKEN_SQL, {"schema": schema, "names": list(wanted)})
        rows = [(name, table, relative(what, schema)) for name, table, what in cursor.fetchall()]
        cursor.execute(TYPES_SQL, {"schema": schema, "names": [*(table.name for table in pending.tables), JOURNAL]})
        types = [(name, None, f"type {name}") for (name,) in cursor.fetchall()]
    for name, table, what in (*rows, *types):
        if table is None:
            taken = True
        elif name == JOURNAL:
            taken = not (journal.is_whole(live) and any((one.name, one.kind) == (name, "table") for one in live.tables))
        elif key := PRIMARY_KEYS.get(name):
            partial = [index for index in live.indexes if replace(index, valid=True, ready=True) == index_for(key)]
            taken = not partial and {key, replace(key, primary=False)}.isdisjoint(live.keys)
        else:
            taken = table != wanted[name]  # On its own table it is compared with the definition.
        if taken:
            yield Finding(
                Severity.ERROR,
                "adopt.name_taken",
                name,
                f"The name {name}, which the adoption needs, is already used by {what}.",
                f"Ask the owner of {what} first, then rename or drop it.",
            )


def replica_identity_missing(connection, schema: str, steps: tuple[Step, ...]) -> Iterator[Finding]:
    """Yield a finding for each table that must be filled, but cannot be, because it is published without a replica identity."""
    rows = fetch_all(connection, PUBLISHED_SQL, {"schema": schema, "tables": [step.table for step in steps if step.repeated]})
    for table, publication in rows:
        yield Finding(
            Severity.ERROR,
            "adopt.in_use",
            table,
            f"Table {table} is in the publication {publication} and has neither a primary key nor a replica identity, so the adoption cannot update its rows.",
            f"Before the adoption: ALTER TABLE {quote(table)} REPLICA IDENTITY FULL; after it: REPLICA IDENTITY DEFAULT.",
        )


def failed(prisma: tuple[PrismaMigration, ...]) -> Iterator[Finding]:
    for migration in prisma:
        if migration.failed:
            yield Finding(
                Severity.ERROR,
                "adopt.prisma_failed",
                migration.name,
                f"Prisma's migration {migration.name} was started but never finished.",
                f"Read its error: `SELECT logs FROM {PRISMAS_LEDGER} WHERE migration_name = {literal(migration.name)};`. Then, in the site: npx prisma migrate resolve --rolled-back {migration.name} (or --applied, if all its objects exist).",
            )


def unreadable(connection, schema: str, live: Catalog, role: str) -> Iterator[Finding]:
    """Yield a finding if Prisma's record exists but this role cannot see whether a migration failed."""
    if all(table.name != PRISMAS_LEDGER for table in live.tables):
        return
    if not may_read(connection, schema):
        yield Finding(
            Severity.ERROR,
            "adopt.prisma_unreadable",
            PRISMAS_LEDGER,
            f"The role {role} may not read Prisma's migration ledger, so failed migrations cannot be detected.",
            f"GRANT SELECT ON {PRISMAS_LEDGER} TO {quote(role)};",
        )
    elif live.hides_rows(PRISMAS_LEDGER):
        yield Finding(
            Severity.ERROR,
            "adopt.prisma_unreadable",
            PRISMAS_LEDGER,
            f"Row-level security may hide rows of Prisma's migration ledger from the role {role}, so failed migrations cannot be detected.",
            reveal(PRISMAS_LEDGER, role),
        )


def extension(connection, schema: str, role: str) -> Iterator[Finding]:
    """Yield a finding if a later migration needs pg_trgm, which the server lacks, this role cannot create, or another role can drop."""
    offered, place, may_create = fetch_one(connection, NEEDED_SQL)
    if not offered or (place is None and not may_create):
        lacks = f"the role {role} may not create it" if offered else "the server does not have it"
        yield Finding(
            Severity.ERROR,
            "adopt.extension",
            "pg_trgm",
            f"A later migration needs the extension pg_trgm, and {lacks}.",
            "Ask an administrator of the server to run in this database: CREATE EXTENSION pg_trgm;"
            if offered
            else "Install PostgreSQL's contrib package on the server.",
        )
    if untrusted := read_untrusted(connection, schema):
        yield untrusted


def zones(connection, schema: str, names: list[str], server: Server) -> Iterator[Finding]:
    """Yield a finding for the database, and for each role that writes to our tables, whose sessions are not at UTC."""
    zone_settings = [
        (place, f"The time zone of {what} is {zone}", f"{alter} SET timezone TO 'UTC';")
        for place, what, zone, alter in fetch_all(connection, ZONES_SQL, {"utc": UTC_NAMES, "schema": schema, "tables": names})
    ]
    for one in server.findings():  # The time zone of this session, whatever set it.
        is_own = one.code == "server.time_zone" and one.where == server.database
        if is_own and one.cure not in {cure for _, _, cure in zone_settings}:
            what = (
                f"{HIDDEN_ZONE}, and may not be UTC"
                if server.hides_zone
                else f"The time zone of {server.database} is {server.time_zone}"
            )
            zone_settings.append((one.where, what, one.cure))
    for place, what, cure in zone_settings:
        yield Finding(
            Severity.ERROR,
            "server.time_zone",
            place,
            f"{what}: Prisma's client with a driver adapter (the only way from its version 7 on) sends times in the time zone of"
            " its session, so after the adoption they would be off by hours. So are times that the database itself wrote in such a session,"
            " by a default or a trigger: the adoption reads all times as UTC.",
            f"{cure}\n-- Then restart the site's connections, and correct the times that defaults and triggers wrote"
            " (docs/how-to/adopt.md, step 4).",
        )


def ownership_missing(connection, schema: str, names: list[str], server: Server) -> Iterator[Finding]:
    owners = fetch_all(connection, OWNED_SQL, {"schema": schema, "tables": names})
    if owners:
        yield Finding(
            Severity.ERROR,
            "adopt.not_owner",
            server.role,
            f"The role {server.role} does not own {len(owners)} of the tables: {owners[0][0]}, for example, belongs to {owners[0][1]}.",
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
