"""Extensions that are installed in the database, and whose files the server lacks, as after a move to a smaller image."""

from __future__ import annotations

from .findings import Finding, Severity
from .sql import TRUSTED_ROLES_SQL, literal, quote

NEEDED = "pg_trgm"  # By indexes of users.

# `can_update` says whether a script leads to the version that the server offers; it is NULL if that is installed, or none is offered.
INSTALLED_SQL = """
    SELECT e.extname::text AS name, e.extversion AS installed, a.default_version AS offered,
           CASE WHEN a.default_version <> e.extversion
                THEN EXISTS (SELECT FROM pg_catalog.pg_extension_update_paths(e.extname) AS u
                             WHERE u.source = e.extversion AND u.target = a.default_version AND u.path IS NOT NULL) END AS can_update
    FROM pg_catalog.pg_extension AS e LEFT JOIN pg_catalog.pg_available_extensions AS a ON a.name = e.extname
    ORDER BY e.extname COLLATE "C"
"""
UNAVAILABLE_SQL = f"SELECT i.name FROM ({INSTALLED_SQL}) AS i WHERE i.offered IS NULL"

# A function of the extension, in C, as only superusers can create it, that this role may call; not in the schema of an untrusted
# role, which could rename it and put another function in its place before the call.
FUNCTION_SQL = f"""
    SELECT pg_catalog.quote_ident(n.nspname) || '.show_limit()' AS call
    FROM pg_catalog.pg_extension AS e
    JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
    JOIN pg_catalog.pg_proc AS p ON d.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.objid
    JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
    JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
    WHERE e.extname = {literal(NEEDED)} AND p.proname = 'show_limit' AND p.pronargs = 0 AND l.lanname = 'c'
      AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE') AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
      AND n.nspowner IN ({TRUSTED_ROLES_SQL.format(schema="n.oid")})
"""


def of_unavailable(name: str) -> Finding:
    """Return the finding that the server lacks the files of an installed extension."""
    lacks = f"The extension {name} is installed in this database, but the server lacks its files"
    if name == NEEDED:
        return Finding(
            Severity.ERROR, "extensions.unavailable", name, f"{lacks}: every INSERT and UPDATE of users fails, and so does the admin's search.",
            "Install PostgreSQL's contrib package on the server (Debian: postgresql-NN; Red Hat and Alpine: postgresqlNN-contrib), or run an image that includes it.",
        )  # fmt: skip
    return Finding(
        Severity.WARNING, "extensions.unavailable", name, f"{lacks}: what uses it fails.",
        f"Install the package that has it on the server; if nothing uses it: DROP EXTENSION {quote(name)};",
    )  # fmt: skip
