"""The tables that the site's role may only read or add to, and its excess privileges on them.

Default privileges let it write to every table that is created after `dbroles` ran, including these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings
from django.db import Error

from ..facts import tables
from ..findings import Finding, Severity
from ..server import JOURNAL, read_schema
from ..sql import RECORD, execute, fetch_all, quote, time_limits
from .objects import Catalog

# Only the role that migrates writes them. They are created when they are first needed, whatever is recorded.
LEDGERS = (RECORD, JOURNAL)
PRISMAS_LEDGER = "_prisma_migrations"
APPEND_ONLY = tables("append_only")  # The access records (fly2any_accesses).

# The excess privileges of a role PREFIX_app that `dbroles` creates. The sequence of a column counts as its table.
EXCESS_SQL = f"""
    SELECT c.relname AS name, c.relkind AS kind, r.rolname AS role,
           pg_catalog.string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS privileges,
           pg_catalog.pg_has_role(c.relowner, 'USAGE') AS is_ours_to_revoke
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_depend AS d ON c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_catalog.pg_class AS o ON o.oid = d.refobjid
    CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
    JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'S') AND r.rolname ~ '_app$'
      AND EXISTS (SELECT FROM pg_catalog.pg_roles AS m WHERE m.rolname = pg_catalog.regexp_replace(r.rolname, '_app$', '_migrate'))
      AND (COALESCE(o.relname, c.relname) IN ({", ".join(f"'{name}'" for name in (*LEDGERS, PRISMAS_LEDGER))})
               AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'USAGE')
           OR c.relname IN ({", ".join(f"'{name}'" for name in APPEND_ONLY)}) AND a.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE'))
    GROUP BY c.relname, c.relkind, c.relowner, r.rolname
    ORDER BY c.relname COLLATE "C", r.rolname COLLATE "C"
"""


@dataclass(frozen=True, slots=True)
class Excess:
    """Privileges of the site's role on a ledger, or on the access records, that `dbroles` does not give it."""

    name: str
    kind: str  # of pg_class
    role: str
    privileges: str
    is_ours_to_revoke: bool  # by the role of the connection

    def revoke(self, schema: str) -> str:
        place = f"{'SEQUENCE ' if self.kind == 'S' else ''}{quote(schema)}.{quote(self.name)}"
        return f"REVOKE {self.privileges} ON {place} FROM {quote(self.role)};"


def read_excess(connection, *, schema: str) -> list[Excess]:
    return [Excess(*row) for row in fetch_all(connection, EXCESS_SQL, {"schema": schema})]


def protect(connection) -> None:
    """Revoke excess privileges of the site's role if the role of the connection may; dbstatus reports the rest."""
    with suppress(Error), time_limits(connection, lock=settings.LOCK_TIMEOUT):
        schema = read_schema(connection)
        for one in read_excess(connection, schema=schema):
            if one.is_ours_to_revoke:
                execute(connection, one.revoke(schema))


def untrusted_findings(catalog: Catalog) -> Iterator[Finding]:
    """Yield the relations that are named as a migration ledger and belong to another role."""
    for table in catalog.tables:
        if table.name in (PRISMAS_LEDGER, *LEDGERS) and not table.trusted:
            yield Finding(
                Severity.WARNING if table.name == PRISMAS_LEDGER else Severity.ERROR,
                "migrations.untrusted",
                table.name,
                f"The {table.kind} {table.name} belongs to the role {table.owner}, whose code would run with the privileges of the role that reads it: it was not read.",
                f"If it is the ledger: ALTER TABLE {quote(table.name)} OWNER TO the owner of the other tables; if all of them"
                f" belong to {table.owner}: GRANT CREATE ON SCHEMA … TO {quote(table.owner)} WITH GRANT OPTION. Otherwise drop it.",
            )
