"""Code in the database that runs with privileges other than its caller's, and triggers that do not run."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..session_defaults import REPLICATION_ROLE_SQL, of_replication_role
from ..sql import EXPLICIT_TRIGGER_SQL, quote
from .examine import Figure, Reader
from .security_access import COLUMNS, PRIVATE_SQL

# Functions that others may call and that read a table with secrets as their owner: by the dependencies that PostgreSQL records for the body, otherwise by its text.
DEFINERS_SQL = f"""
    {PRIVATE_SQL}
    SELECT p.oid::regprocedure::text AS place, pg_catalog.pg_get_userbyid(p.proowner) AS owner,
           pg_catalog.string_agg(DISTINCT s.relname, ', ') AS tables,
           pg_catalog.string_agg(DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                                               ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END, ', ') AS roles
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
    JOIN secret AS s ON pg_catalog.has_column_privilege(p.proowner, s.relation, s.attnum, 'SELECT')
        AND (p.prosrc ~ ('\\m' || pg_catalog.regexp_replace(s.relname, '\\W', '\\\\\\&', 'g') || '\\M')
             OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = s.relation))
    WHERE p.prosecdef AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) AND a.privilege_type = 'EXECUTE'
      AND a.grantee <> p.proowner AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND (a.grantee = 0 OR NOT pg_catalog.has_column_privilege(a.grantee, s.relation, s.attnum, 'SELECT'))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    GROUP BY p.oid, p.proowner ORDER BY 1
"""
EVENT_TRIGGERS_SQL = """
    SELECT e.evtname AS name, e.evtevent AS event, p.oid::regprocedure::text AS function, r.rolname AS owner, r.rolsuper AS of_superuser
    FROM pg_catalog.pg_event_trigger AS e JOIN pg_catalog.pg_proc AS p ON p.oid = e.evtfoid JOIN pg_catalog.pg_roles AS r ON r.oid = p.proowner
    WHERE e.evtenabled <> 'D' ORDER BY e.evtname COLLATE "C"
"""
TRIGGERS_SQL = f"""
    {PRIVATE_SQL}
    SELECT DISTINCT s.relname || '.' || t.tgname AS place, s.relname, p.oid::regprocedure::text AS function,
           pg_catalog.pg_get_userbyid(p.proowner) AS owner
    FROM secret AS s JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = s.relation AND {EXPLICIT_TRIGGER_SQL}
    JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
    ORDER BY 1
"""


def code(read: Reader) -> Iterator[Figure | Finding]:
    """Report code of other roles that sees secrets or runs with each change, and whether triggers and foreign keys run."""
    database = read.one("SELECT pg_catalog.current_database() AS name").name  # A pooler may have another name for it.
    yield from (of_replication_role(database, *row) for row in read(REPLICATION_ROLE_SQL))
    definers = read(DEFINERS_SQL, **COLUMNS)
    yield Figure("functions that expose secrets", str(len(definers)), len(definers))
    for row in definers:
        yield Finding(
            Severity.WARNING, "security.definer", row.place,
            f"The function runs as its owner {row.owner} (SECURITY DEFINER) and reads {row.tables}; {row.roles} may call it without the privilege to read their secrets.",
            f"REVOKE EXECUTE ON FUNCTION {row.place} FROM {row.roles};", is_sql=True,
        )  # fmt: skip
    for row in read(EVENT_TRIGGERS_SQL):
        runs_as = (
            "each role that connects, when its session begins"
            if row.event == "login"
            else f"the role that changes the schema ({row.event})"
        )
        yield Finding(
            Severity.NOTE if row.of_superuser else Severity.WARNING, "security.event_trigger", row.name,
            f"The event trigger runs {row.function}, which {row.owner} owns, as {runs_as}.",
            f"If it is not needed, as a superuser: DROP EVENT TRIGGER {quote(row.name)};",
        )  # fmt: skip
    for row in read(TRIGGERS_SQL, **COLUMNS):
        yield Finding(
            Severity.NOTE, "security.trigger", row.place,
            f"The trigger passes rows of {row.relname}, which hold secrets, to {row.function}, owned by {row.owner}.",
            "Read the function; drop the trigger if it is not needed.",
        )  # fmt: skip
