"""Access to secrets and tables by ways other than privileges on the tables themselves."""

from __future__ import annotations

from collections.abc import Iterator

from fly2any.postgres.search_path import names_of

from ..findings import Finding, Severity
from ..roles import SECRETS
from ..schema.cures import preceded
from ..server import PATH_SQL
from ..sql import PEOPLE, literal, quote
from ..trusted_roles import TRUSTED_ROLES_SQL, TRUSTED_SQL
from .examine import Figure, Reader

# The existing secret columns. Parameters: schema, and the parallel arrays secret_tables and secret_columns.
PRIVATE_SQL = """
    WITH RECURSIVE secret AS (
        SELECT c.oid AS relation, c.relname, c.relowner, a.attnum, a.attname
        FROM unnest(%(secret_tables)s::text[], %(secret_columns)s::text[]) AS s (relname, attname)
        JOIN pg_catalog.pg_class AS c ON c.relname = s.relname AND c.relkind IN ('r', 'p')
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = %(schema)s
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = s.attname AND NOT a.attisdropped
    )
"""
COLUMNS = {
    "secret_tables": [table for table, columns in SECRETS.items() for _ in columns],
    "secret_columns": [column for columns in SECRETS.values() for column in columns],
}
# Memberships count, even those without INHERIT: the member can use SET ROLE. There may be a thousand roles, so that only groups are asked for
# each role. The owner of the database is a member of pg_database_owner without a row of pg_auth_members.
READERS_SQL = f"""
    {PRIVATE_SQL}, reads AS MATERIALIZED (
        SELECT r.oid, pg_catalog.array_agg(DISTINCT s.relname) AS tables,
               r.rolname = 'pg_database_owner' OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid) AS is_group
        FROM pg_catalog.pg_roles AS r CROSS JOIN secret AS s
        WHERE pg_catalog.has_column_privilege(r.oid, s.relation, s.attnum, 'SELECT') GROUP BY r.oid, r.rolname
    )
    SELECT l.rolname AS name, pg_catalog.string_agg(DISTINCT t.name, ', ' ORDER BY t.name) AS tables
    FROM pg_catalog.pg_roles AS l JOIN reads ON reads.oid = l.oid OR (reads.is_group AND pg_catalog.pg_has_role(l.oid, reads.oid, 'MEMBER'))
    CROSS JOIN LATERAL pg_catalog.unnest(reads.tables) AS t (name)
    WHERE l.rolcanlogin AND NOT l.rolsuper
    GROUP BY l.rolname ORDER BY l.rolname COLLATE "C"
"""
COLUMN_GRANTS_SQL = f"""
    {PRIVATE_SQL}
    SELECT s.relname || '.' || s.attname AS place, s.relname, s.attname,
           CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END AS role,
           pg_catalog.string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type) AS privileges
    FROM secret AS s JOIN pg_catalog.pg_attribute AS a ON a.attrelid = s.relation AND a.attnum = s.attnum
    CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS g
    WHERE g.grantee <> s.relowner
    GROUP BY s.relname, s.attname, g.grantee ORDER BY 1, 4
"""
# Views over a secret column or a whole row of its table, and views over those, granted to a role that may not read the secret itself.
VIEWS_SQL = f"""
    {PRIVATE_SQL}, leak AS (
        SELECT r.ev_class AS view, s.relation, s.attnum
        FROM secret AS s JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = s.relation
            AND d.classid = 'pg_catalog.pg_rewrite'::regclass
        JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid AND r.ev_class <> s.relation
        WHERE d.refobjsubid = s.attnum OR r.ev_action::text ~ ':varattno 0 '
        UNION
        SELECT r.ev_class, l.relation, l.attnum
        FROM leak AS l JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = l.view
            AND d.classid = 'pg_catalog.pg_rewrite'::regclass
        JOIN pg_catalog.pg_rewrite AS r ON r.oid = d.objid AND r.ev_class <> l.view
    ), granted AS (
        SELECT c.oid, a.grantee FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a
        WHERE a.privilege_type = 'SELECT' AND a.grantee <> c.relowner
        UNION SELECT b.attrelid, a.grantee FROM pg_catalog.pg_attribute AS b, pg_catalog.aclexplode(b.attacl) AS a
        WHERE a.privilege_type = 'SELECT'
    )
    SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS place,
           CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END AS kind,
           pg_catalog.string_agg(DISTINCT s.relname || '.' || s.attname, ', ') AS secrets,
           pg_catalog.string_agg(DISTINCT CASE WHEN g.grantee = 0 THEN 'PUBLIC'
                                               ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END, ', ') AS roles
    FROM leak AS l JOIN pg_catalog.pg_class AS c ON c.oid = l.view AND c.relkind IN ('v', 'm')
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN secret AS s ON s.relation = l.relation AND s.attnum = l.attnum
    JOIN granted AS g ON g.oid = c.oid
    WHERE g.grantee = 0 OR NOT pg_catalog.has_column_privilege(g.grantee, l.relation, l.attnum, 'SELECT')
    GROUP BY n.nspname, c.relname, c.relkind ORDER BY 1
"""
OWNERS_SQL = f"""
    SELECT c.relname AS name, pg_catalog.pg_get_userbyid(c.relowner) AS owner, pg_catalog.pg_get_userbyid(people.relowner) AS of_people,
           (SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) AS of_database,
           (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user) AS may
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_class AS people ON people.relnamespace = n.oid AND people.relname = {literal(PEOPLE)}
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p') AND NOT {TRUSTED_SQL}
    ORDER BY c.relname COLLATE "C"
"""
# Memberships without INHERIT too, and those by way of other roles; the one of a role in the owner itself is `direct`.
MEMBERS_SQL = f"""
    WITH owner AS MATERIALIZED (
        SELECT o.oid, o.rolname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner
        WHERE n.nspname = %(schema)s AND c.relname = {literal(PEOPLE)} AND c.relkind IN ('r', 'p')
    )
    SELECT l.rolname AS name, owner.rolname AS owner,
           EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = owner.oid AND m.member = l.oid) AS direct
    FROM owner JOIN pg_catalog.pg_roles AS l
        ON l.rolcanlogin AND NOT l.rolsuper AND l.oid <> owner.oid AND pg_catalog.pg_has_role(l.oid, owner.oid, 'MEMBER')
    ORDER BY l.rolname COLLATE "C"
"""
PUBLICATIONS_SQL = """
    SELECT p.pubname AS name FROM pg_catalog.pg_publication AS p WHERE p.puballtables ORDER BY p.pubname COLLATE "C"
"""
# PostgreSQL itself grants PUBLIC functions and types, so only tables, sequences and schemas are informative.
DEFAULTS_SQL = """
    SELECT pg_catalog.pg_get_userbyid(d.defaclrole) AS role, COALESCE(n.nspname, '') AS schema,
           CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'SCHEMAS' END AS kind,
           pg_catalog.string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS privileges
    FROM pg_catalog.pg_default_acl AS d LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace
    CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) AS a
    WHERE a.grantee = 0 AND d.defaclobjtype IN ('r', 'S', 'n') AND COALESCE(n.nspname, %(schema)s) = %(schema)s
    GROUP BY d.defaclrole, n.nspname, d.defaclobjtype ORDER BY 1, 2, 3
"""
RESET_PATH_SQL = "SELECT s.reset_val AS path FROM pg_catalog.pg_settings AS s WHERE s.name = 'search_path'"
# PUBLIC's privileges on the schema of our tables are reported as security.public.
CREATORS_SQL = f"""
    {PATH_SQL}, places AS (SELECT oid FROM path UNION SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s)
    SELECT n.nspname AS schema, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END AS role
    FROM places AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.oid
    CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
    WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND (a.grantee <> 0 OR n.nspname <> %(schema)s)
      AND a.grantee NOT IN ({TRUSTED_ROLES_SQL.format(schema="n.oid")})
    ORDER BY 1, 2
"""


def readers(read: Reader) -> Iterator[Figure | Finding]:
    """Report which roles can read secrets (passwords, tokens and keys), and by which route."""
    found = read(READERS_SQL, **COLUMNS)
    listed = "; ".join(f"{row.name} ({row.tables})" for row in found)
    yield Figure("roles that read secrets", listed or "none but superusers", len(found))
    for row in read(COLUMN_GRANTS_SQL, **COLUMNS):
        privileges = ", ".join(f"{one} ({quote(row.attname)})" for one in row.privileges.split(", "))
        yield Finding(
            Severity.WARNING, "security.column", row.place,
            f"{row.role} has {row.privileges} on this secret column by a grant on the column, which the table's own privileges do not show.",
            f"REVOKE {privileges} ON {quote(read.schema)}.{quote(row.relname)} FROM {row.role};", is_sql=True,
        )  # fmt: skip
    for row in read(VIEWS_SQL, **COLUMNS):
        yield Finding(
            Severity.WARNING, "security.view", row.place,
            f"The {row.kind} reads the secrets {row.secrets}, and {row.roles} may select from it without the privilege to read them.",
            f"REVOKE SELECT ON {row.place} FROM {row.roles};", is_sql=True,
        )  # fmt: skip
    for row in read(PUBLICATIONS_SQL):
        yield Finding(
            Severity.WARNING, "security.publication", row.name,
            "The publication is FOR ALL TABLES: every subscriber receives all secrets, and those of tables that do not exist yet.",
            f"Create a publication of the tables that the subscriber needs, let the subscriber use that one, then: DROP PUBLICATION {quote(row.name)};",
        )  # fmt: skip


def ownership(read: Reader) -> Iterator[Figure | Finding]:
    """Report who owns our tables, and where other roles may create objects."""
    tables = sorted({version.object.table for version in read.contract.versions if hasattr(version.object, "table")})
    others = read(OWNERS_SQL, tables=tables)
    yield Figure("tables of other roles", ", ".join(row.name for row in others) or "none", len(others))
    is_people = PEOPLE in [row.name for row in others]
    for row in others:
        owner = row.of_database if is_people or not row.of_people else row.of_people
        yield Finding(
            Severity.ERROR, "security.owner", row.name,
            f"Table {row.name} belongs to {row.owner}, which is not trusted: that role can read and change its rows, and add triggers to it.",
            preceded("" if row.may else "As a superuser:", f"ALTER TABLE {quote(read.schema)}.{quote(row.name)} OWNER TO {quote(owner)};"),
            is_sql=True, loses="" if row.may else "a superuser must run it",
        )  # fmt: skip
    for row in read(MEMBERS_SQL):
        yield Finding(
            Severity.NOTE, "security.member", row.name,
            f"Role {row.name} is a member of {row.owner}, which owns {PEOPLE}, so it can do all that the owner can, such as drop tables and triggers.",
            f"If it does not need this: REVOKE {quote(row.owner)} FROM {quote(row.name)};" if row.direct
            else f"If it does not need this, revoke the membership by which it can become {row.owner}.",
        )  # fmt: skip
    for row in read(DEFAULTS_SQL):
        place = f" IN SCHEMA {quote(row.schema)}" if row.schema else ""
        yield Finding(
            Severity.WARNING, "security.default_privileges", row.role,
            f"Every role that can connect gets {row.privileges} on {row.kind.lower()} that {row.role} creates.",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(row.role)}{place} REVOKE {row.privileges} ON {row.kind} FROM PUBLIC;", is_sql=True,
        )  # fmt: skip
    path = read.one(RESET_PATH_SQL).path
    for row in read(CREATORS_SQL, path=names_of(path)):
        yield Finding(
            Severity.WARNING, "security.create", f"SCHEMA {row.schema}",
            f"{row.role} may create objects in this schema, which is in the search path; they can shadow our tables and functions.",
            f"REVOKE CREATE ON SCHEMA {quote(row.schema)} FROM {row.role};", is_sql=True,
        )  # fmt: skip
