"""Other roles that write our tables, such as the site's: those that cannot connect or use the schema, and what each holds on each table."""

from __future__ import annotations

from fly2any.postgres.schema import API_ROLES

from .findings import Finding, Severity
from .session_defaults import MAY_WRITE
from .sql import literal, quote

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
# For each other role that is granted INSERT on a table of ours: what it holds on each of them, and what it should hold by the default
# privileges of their owners, or because `dbroles` made it for the site; `hidden` are the columns that it may not read, unless it may read
# all or none, or not insert. A group counts if it has members. Supabase grants every new
# table to the roles of its API.
GRANTED_SQL = f"""
    WITH ours AS (
        SELECT c.oid, c.relname, c.relacl, c.relowner, c.relnamespace, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
        FROM home JOIN pg_catalog.pg_namespace AS n ON n.nspname = home.schema JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
        WHERE c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)
    ), granted AS (
        SELECT a.grantee, NULL AS expected FROM ours CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(ours.relacl, pg_catalog.acldefault('r', ours.relowner))) AS a
        WHERE a.privilege_type = 'INSERT'
        UNION ALL
        SELECT a.grantee, pg_catalog.string_agg(a.privilege_type, ' ')
        FROM pg_catalog.pg_default_acl AS d CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) AS a
        WHERE d.defaclobjtype = 'r' AND EXISTS (SELECT FROM ours WHERE ours.relowner = d.defaclrole AND d.defaclnamespace IN (0, ours.relnamespace))
        GROUP BY d.oid, a.grantee HAVING bool_or(a.privilege_type = 'INSERT')
        UNION ALL
        SELECT r.oid, 'SELECT INSERT UPDATE DELETE' FROM pg_catalog.pg_roles AS r
        WHERE EXISTS (SELECT FROM ours WHERE ours.owner ~ '_migrate$' AND r.rolname = pg_catalog.regexp_replace(ours.owner, '_migrate$', '_app'))
    ), writer AS (
        SELECT r.oid, r.rolname, COALESCE(pg_catalog.string_agg(granted.expected, ' '), '') AS expected
        FROM granted JOIN pg_catalog.pg_roles AS r ON r.oid = granted.grantee
        WHERE r.rolname <> current_user AND NOT r.rolsuper AND NOT EXISTS (SELECT FROM ours WHERE ours.relowner = r.oid)
          AND r.rolname NOT IN ({", ".join(map(literal, (*API_ROLES, "service_role")))})
          AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m WHERE m.roleid = r.oid))
        GROUP BY r.oid, r.rolname
    )
    SELECT writer.rolname::text AS role, writer.expected, ours.relname::text AS "table",
           pg_catalog.concat_ws(' ', CASE WHEN pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'SELECT') THEN 'SELECT' END,
                                CASE WHEN pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'INSERT') THEN 'INSERT' END,
                                CASE WHEN pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'UPDATE') THEN 'UPDATE' END,
                                CASE WHEN pg_catalog.has_table_privilege(writer.oid, ours.oid, 'DELETE') THEN 'DELETE' END) AS held,
           CASE WHEN NOT pg_catalog.has_table_privilege(writer.oid, ours.oid, 'SELECT')
                     AND pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'SELECT') AND pg_catalog.has_any_column_privilege(writer.oid, ours.oid, 'INSERT')
                THEN (SELECT pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                      WHERE a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
                        AND NOT pg_catalog.has_column_privilege(writer.oid, ours.oid, a.attnum, 'SELECT')) END AS hidden
    FROM writer CROSS JOIN ours
"""


def of_other_writer(database: str, schema: str, role: str, connects: str, uses: str) -> Finding:
    """Return the finding about a row of OTHER_WRITERS_SQL."""
    wanted = {
        f"CONNECT on the database {database}": (connects, f"GRANT CONNECT ON DATABASE {quote(database)} TO {quote(role)};"),
        f"USAGE on the schema {schema}": (uses, f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)};"),
    }
    lacks = {name: grant for name, (held, grant) in wanted.items() if held == "false"}
    message = f"The role {role} may write our tables, but lacks {' and '.join(lacks)}, so each of its queries fails."
    return Finding(
        Severity.NOTE, "server.privileges", role, message, "\n".join(lacks.values()), is_sql=True, loses="it may be on purpose"
    )
