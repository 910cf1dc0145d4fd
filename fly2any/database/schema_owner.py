"""The owner of the schema of our tables: it may drop each of them, so another role must not have created the schema."""

from __future__ import annotations

from .findings import Finding, Severity
from .sql import quote
from .trusted_roles import TRUSTED_ROLES_SQL

# The owner of the schema `home`, NULL if it is trusted.
SCHEMA_OWNER_SQL = f"""(
    SELECT pg_catalog.pg_get_userbyid(n.nspowner)::text FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname = home.schema AND n.nspowner NOT IN ({TRUSTED_ROLES_SQL.format(schema="n.oid")})
)"""


def of_schema_owner(database: str, schema: str, owner: str) -> Finding:
    """Return the finding about a schema whose owner is not trusted."""
    return Finding(
        Severity.ERROR,
        "server.schema",
        database,
        f"The schema {schema} belongs to the role {owner}, which may be another tenant's and may drop each table in it.",
        f"If it is the site's role, make it the owner of the database (ALTER DATABASE … OWNER TO {quote(owner)};), or give the schema to"
        f" the owner of the database (ALTER SCHEMA {quote(schema)} OWNER TO …; GRANT USAGE, CREATE ON SCHEMA {quote(schema)} TO"
        f" {quote(owner)};). Otherwise name another schema in POSTGRES_URL (?schema=).",
    )
