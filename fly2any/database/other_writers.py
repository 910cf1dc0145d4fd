"""Other roles that may write our tables, such as the site's, but cannot connect or use the schema."""

from __future__ import annotations

from .findings import Finding, Severity
from .session_defaults import MAY_WRITE
from .sql import quote

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
