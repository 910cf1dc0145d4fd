"""Row-level security on a table of ours: what its policies restrict for this role, and which other roles no policy admits."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.text import get_text_list

from ..findings import Finding, Severity
from ..sql import quote
from ..unprintable_definitions import printed
from .objects import Table

CONDITION_SQL = (
    "pg_catalog.pg_get_expr(CASE WHEN w.is_check THEN COALESCE(p.polwithcheck, p.polqual) ELSE p.polqual END, c.oid)"
)
# The commands for which the policies of the table `c` do not admit every row to this role: no permissive one has the condition
# true, or a restrictive one has another.
RESTRICTED_SQL = """
    ARRAY(SELECT w.command
          FROM (VALUES (1, 'SELECT', 'r', false), (2, 'INSERT', 'a', true), (3, 'UPDATE', 'w', false), (3, 'UPDATE', 'w', true),
                       (4, 'DELETE', 'd', false)) AS w (place, command, letter, is_check)
          LEFT JOIN LATERAL (
              SELECT p.polpermissive AS permits,
                     {condition} AS condition
              FROM pg_catalog.pg_policy AS p
              WHERE p.polrelid = c.oid AND p.polcmd IN ('*'::"char", w.letter::"char") AND EXISTS (
                        SELECT FROM pg_catalog.unnest(p.polroles) AS m (oid) WHERE m.oid = 0::oid OR pg_catalog.pg_has_role(m.oid, 'USAGE'))
          ) AS applied ON true
          WHERE row_security_active(c.oid)
          GROUP BY w.place, w.command, w.is_check
          HAVING NOT COALESCE(bool_or(applied.condition = 'true'::text) FILTER (WHERE applied.permits), false)
              OR bool_or(applied.condition <> 'true'::text) FILTER (WHERE NOT applied.permits)
          ORDER BY w.place)
"""
# The other roles that sign in and may write to the table `c`, but find no row in it or can store none, and the commands that they
# hold and for which no policy admits them. A role that may not write, or that only others can become, may be meant to see nothing:
# Supabase's anon and authenticated hold every privilege on every table, and cannot sign in.
REJECTED_SQL = f"""
    ARRAY(SELECT ARRAY[l.rolname::text, pg_catalog.string_agg(w.command, ', ' ORDER BY w.place)]
          FROM pg_catalog.pg_roles AS l
          CROSS JOIN (VALUES (1, 'SELECT', 'r'), (2, 'INSERT', 'a'), (3, 'UPDATE', 'w'), (4, 'DELETE', 'd')) AS w (place, command, letter)
          WHERE c.relrowsecurity AND l.rolcanlogin AND NOT l.rolsuper AND NOT l.rolbypassrls AND l.rolname <> current_user
            AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role(l.oid, c.relowner, 'USAGE'))
            AND pg_catalog.has_schema_privilege(l.oid, c.relnamespace, 'USAGE')
            AND pg_catalog.has_table_privilege(l.oid, c.oid, 'INSERT') AND pg_catalog.has_table_privilege(l.oid, c.oid, w.command)
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_policy AS p
                WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('*'::"char", w.letter::"char")
                  AND {printed("p.oid", "pg_catalog.pg_get_expr(CASE w.letter WHEN 'a' THEN COALESCE(p.polwithcheck, p.polqual) ELSE p.polqual END, c.oid)")} <> 'false'
                  AND EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) AS m (oid)
                              WHERE m.oid = 0::oid OR pg_catalog.pg_has_role(l.oid, m.oid, 'USAGE')))
          GROUP BY l.rolname ORDER BY l.rolname)
"""


def of_row_security(table: Table) -> Iterator[Finding]:
    """Yield the finding that row-level security is enabled: an error where it restricts this role, or a role that writes."""
    if table.row_security is None:
        return
    if table.restricted:
        what = f"which restricts this role's {get_text_list([*dict.fromkeys(table.restricted)], 'and')}"
    elif table.row_security == "active":
        what = "whose policies admit every row for this role; a backup by it needs BYPASSRLS"
    else:
        what = "which applies to other roles, but not to this one"
    for role, commands in table.rejected:
        what += f"; no policy admits any row for the {get_text_list(commands.split(', '), 'and')} of the role {role}"
    yield Finding(
        Severity.ERROR if table.restricted or table.rejected else Severity.NOTE,
        "table.different",
        table.name,
        f"Table {table.name} has row-level security enabled, {what}.",
        f"Add policies for the roles that use it, or give them BYPASSRLS; if no other role may connect: ALTER TABLE {quote(table.name)} DISABLE ROW LEVEL SECURITY;",
    )


def reveal(table: str, role: str, command: str = "FOR SELECT ") -> str:
    """Return how to let `role` read every row of a table, or with an empty `command` also write them."""
    return (
        f"Connect as a role with BYPASSRLS, or as the owner of {table} if it has no FORCE ROW LEVEL SECURITY; or run as the owner: CREATE POLICY fly2any ON {table}"
        f" {command}TO {quote(role)} USING (true);"
    )
