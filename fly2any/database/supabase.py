"""The tables that Supabase's API serves: its roles may use whatever the role postgres creates in the schema public."""

from __future__ import annotations

from fly2any.postgres.schema import API_ROLES

from . import facts
from .findings import Finding, Severity
from .sql import literal, quote
from .units import plural

# The API's roles, and the tables that each may use: those without row-level security, and those with secrets where a policy admits
# the role, since a policy chooses rows and not columns.
SERVED_SQL = f"""
    SELECT r.rolname::text AS role, count(*)::text AS number, pg_catalog.string_agg(c.relname, ', ' ORDER BY c.relname) AS tables
    FROM pg_catalog.pg_roles AS r, pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE r.rolname IN ({", ".join(map(literal, API_ROLES))}) AND n.nspname = home.schema AND c.relkind IN ('r', 'p')
      AND (NOT c.relrowsecurity OR c.relname IN ({", ".join(map(literal, facts.columns("secret_fields")))}) AND EXISTS (
               SELECT FROM pg_catalog.pg_policy AS p CROSS JOIN LATERAL pg_catalog.unnest(p.polroles) AS m (oid)
               WHERE p.polrelid = c.oid AND p.polpermissive AND (m.oid = 0 OR pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER'))))
      AND (pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE') OR pg_catalog.has_table_privilege(r.oid, c.oid, 'DELETE, TRUNCATE'))
    GROUP BY r.rolname
"""


def of_api_role(schema: str, role: str, number: str, tables: str) -> Finding:
    who = "any holder of the public key" if role == "anon" else "any signed-in user"
    return Finding(
        Severity.ERROR, "security.api", role, f"Supabase's API lets {who} use {plural(int(number), 'table')}: {tables[:200]}.",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA {quote(schema)} FROM {quote(role)};", is_sql=True,
    )  # fmt: skip
