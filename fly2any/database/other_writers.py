"""Other roles that write our tables, such as the site's: those that cannot connect or use the schema, and what each holds on each table.

`together`, `place_of` and `named` make one finding of many roles, also for missing_privileges.py and schema/sequences.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fly2any.postgres.schema import API_ROLES

from .findings import Finding, Severity
from .session_defaults import MAY_WRITE
from .sql import literal, quote
from .units import few

# Roles that sign in and may insert into the table that marks our schema, and lack CONNECT or USAGE; `home` and `known` are those of server.HOME_CTES.
OTHER_WRITERS_SQL = f"""
    SELECT * FROM (
        SELECT r.rolname::text AS role, pg_catalog.has_database_privilege(r.oid, current_database(), 'CONNECT')::text AS connects,
               pg_catalog.has_schema_privilege(r.oid, home.schema, 'USAGE')::text AS uses
        FROM home CROSS JOIN pg_catalog.pg_roles AS r
        WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> session_user AND {MAY_WRITE.format(role="r.oid")}
    ) AS writer
    WHERE 'false' IN (writer.connects, writer.uses)
"""
# For the other roles that are granted INSERT on a table of ours, and PUBLIC (""): what they hold on each of them, and what they should hold
# by the default privileges of their owners, or because `dbroles` made them for the site; `hidden` are the columns that they may not read,
# unless they may read all or none, or not insert. A group counts if it has members, PUBLIC if a role signs in. Supabase grants every new
# table to the roles of its API. Roles with the same grants and memberships are one row, because each check reads the grants of all roles;
# so does each row of aclexplode(), which therefore gets one grant at a time.
GRANTED_SQL = f"""
    WITH ours AS (
        SELECT c.oid, c.relname, c.relacl, c.relowner, c.relnamespace, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
        FROM home JOIN pg_catalog.pg_namespace AS n ON n.nspname = home.schema JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
        WHERE c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)
    ), explicit AS MATERIALIZED (
        SELECT a.grantee, pg_catalog.string_agg(a.place || a.privilege, ' ') AS held, bool_or(a.privilege = 'INSERT') AS inserts
        FROM (SELECT a.grantee, ours.oid::text AS place, a.privilege_type AS privilege
              FROM ours CROSS JOIN LATERAL pg_catalog.unnest(COALESCE(ours.relacl, pg_catalog.acldefault('r', ours.relowner))) AS i (item)
              CROSS JOIN LATERAL pg_catalog.aclexplode(ARRAY[i.item]) AS a
              UNION ALL
              SELECT a.grantee, ours.oid::text, '.' || c.attnum || a.privilege_type
              FROM ours JOIN pg_catalog.pg_attribute AS c ON c.attrelid = ours.oid CROSS JOIN LATERAL pg_catalog.aclexplode(c.attacl) AS a) AS a
        GROUP BY a.grantee
    ), granted AS (
        SELECT grantee, NULL AS expected FROM explicit WHERE inserts
        UNION ALL
        SELECT a.grantee, pg_catalog.string_agg(a.privilege_type, ' ')
        FROM pg_catalog.pg_default_acl AS d CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) AS a
        WHERE d.defaclobjtype = 'r' AND EXISTS (SELECT FROM ours WHERE ours.relowner = d.defaclrole AND d.defaclnamespace IN (0, ours.relnamespace))
        GROUP BY d.oid, a.grantee HAVING bool_or(a.privilege_type = 'INSERT')
        UNION ALL
        SELECT r.oid, 'SELECT INSERT UPDATE DELETE' FROM pg_catalog.pg_roles AS r
        WHERE EXISTS (SELECT FROM ours WHERE ours.owner ~ '_migrate$' AND r.rolname = pg_catalog.regexp_replace(ours.owner, '_migrate$', '_app'))
    ), other AS (
        SELECT r.oid, r.rolname, r.rolcanlogin,
               pg_catalog.concat_ws(' ', r.rolinherit, r.oid = (SELECT datdba FROM pg_catalog.pg_database WHERE datname = current_database()),
                                    (SELECT pg_catalog.string_agg((pg_catalog.to_jsonb(m) - ARRAY['oid', 'member', 'grantor'])::text, ' ' ORDER BY m.roleid)
                                     FROM pg_catalog.pg_auth_members AS m WHERE m.member = r.oid)) AS member_of
        FROM pg_catalog.pg_roles AS r
        WHERE r.rolname <> current_user AND NOT r.rolsuper AND NOT EXISTS (SELECT FROM ours WHERE ours.relowner = r.oid)
          AND r.rolname NOT IN ({", ".join(map(literal, (*API_ROLES, "service_role")))})
          AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid))
    ), writer AS (
        SELECT r.oid, r.rolname, r.member_of, COALESCE(pg_catalog.string_agg(granted.expected, ' '), '') AS expected
        FROM granted JOIN (SELECT oid, rolname, member_of FROM other
                           UNION ALL SELECT 0, '', '' WHERE EXISTS (SELECT FROM other WHERE rolcanlogin)) AS r ON r.oid = granted.grantee
        GROUP BY 1, 2, 3
    ), alike AS (
        SELECT min(writer.oid) AS oid, pg_catalog.json_agg(writer.rolname ORDER BY writer.rolname)::text AS roles, writer.expected
        FROM writer LEFT JOIN explicit ON explicit.grantee = writer.oid
        GROUP BY writer.expected, writer.member_of, explicit.held
    )
    SELECT writer.roles, writer.expected, ours.relname::text AS "table",
           pg_catalog.concat_ws(' ', CASE WHEN pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'SELECT') THEN 'SELECT' END,
                                CASE WHEN pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'INSERT') THEN 'INSERT' END,
                                CASE WHEN pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'UPDATE') THEN 'UPDATE' END,
                                CASE WHEN pg_catalog.has_table_privilege(writer.oid, ours.oid, 'DELETE') THEN 'DELETE' END) AS held,
           CASE WHEN NOT pg_catalog.has_table_privilege(writer.oid, ours.oid, 'SELECT')
                     AND pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'SELECT') AND pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'INSERT')
                THEN (SELECT pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                      WHERE a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
                        AND NOT pg_catalog.has_column_privilege(writer.oid, ours.oid, a.attnum, 'SELECT')) END AS hidden
    FROM alike AS writer CROSS JOIN ours
"""
MOST_ALONE = 2  # Of more roles with the same finding, a program such as Vault creates each for a short time.


def together(roles: Sequence[str]) -> list[Sequence[str]]:
    """Return the roles of each finding: one by one, or all of them if they are many."""
    return [roles] if len(roles) > MOST_ALONE else [[role] for role in roles]


def place_of(roles: Sequence[str]) -> str:
    return "roles" if len(roles) > 1 else roles[0] or "PUBLIC"


def named(roles: Sequence[str]) -> str:
    """Return the roles of a finding as the beginning of a sentence."""
    if len(roles) > 1:
        return f"The roles {few([role or 'PUBLIC' for role in roles], 3)}"
    return f"The role {roles[0]}" if roles[0] else "PUBLIC"


def grantees(roles: Sequence[str]) -> str:
    return ", ".join(quote(role) if role else "PUBLIC" for role in roles)


def of_other_writers(database: str, schema: str, rows: Sequence[Sequence[str]]) -> Iterator[Finding]:
    """Yield the findings about the rows of OTHER_WRITERS_SQL."""
    for connects, uses in sorted({(row[1], row[2]) for row in rows}):
        for roles in together([role for role, *held in rows if held == [connects, uses]]):
            yield _of_other_writer(database, schema, roles, connects, uses)


def _of_other_writer(database: str, schema: str, roles: Sequence[str], connects: str, uses: str) -> Finding:
    wanted = {
        f"CONNECT on the database {database}": (connects, f"GRANT CONNECT ON DATABASE {quote(database)} TO {grantees(roles)};"),
        f"USAGE on the schema {schema}": (uses, f"GRANT USAGE ON SCHEMA {quote(schema)} TO {grantees(roles)};"),
    }
    lacks = {name: grant for name, (held, grant) in wanted.items() if held == "false"}
    lack, each = ("lack", "their") if len(roles) > 1 else ("lacks", "its")
    message = f"{named(roles)} may write our tables, but {lack} {' and '.join(lacks)}, so each of {each} queries fails."
    return Finding(
        Severity.NOTE,
        "server.privileges",
        place_of(roles),
        message,
        "\n".join(lacks.values()),
        is_sql=True,
        loses="it may be on purpose",
    )
