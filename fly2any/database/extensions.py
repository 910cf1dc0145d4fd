"""Extensions that are installed in the database, whose files the server lacks, as after a move to a smaller image, or whose owner is not trusted.

health/extensions.py compares their versions.
"""

from __future__ import annotations

from .errors import Refusal
from .findings import Finding, Severity
from .sql import fetch_one, literal, quote
from .trusted_roles import TRUSTED_ROLES_SQL

NEEDED = "pg_trgm"  # By indexes of users.
# A hosting service's role for its customers, whose members create extensions, and its own superuser: elsewhere any role may have
# the first name, but only a superuser can create the second.
SERVICES = {
    "azure_pg_admin": "azuresu",
    "cloudsqlsuperuser": "cloudsqladmin",
    "neon_superuser": "cloud_admin",
    "rds_superuser": "rdsadmin",
}

# `can_update` says whether a script leads to the version that the server offers; it is NULL if that is installed, or none is offered.
INSTALLED_SQL = """
    SELECT e.extname::text AS name, e.extversion AS installed, a.default_version AS offered,
           CASE WHEN a.default_version <> e.extversion
                THEN EXISTS (SELECT FROM pg_catalog.pg_extension_update_paths(e.extname) AS u
                             WHERE u.source = e.extversion AND u.target = a.default_version AND u.path IS NOT NULL) END AS can_update
    FROM pg_catalog.pg_extension AS e LEFT JOIN pg_catalog.pg_available_extensions AS a ON a.name = e.extname
    ORDER BY e.extname COLLATE "C"
"""
# Whether the server has the files of what our indexes need, the schema where it is installed, and whether this role may create it.
NEEDED_SQL = f"""
    SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extensions AS a WHERE a.name = {literal(NEEDED)}),
           (SELECT n.nspname::text FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
            WHERE e.extname = {literal(NEEDED)}),
           pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
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
# The schema of the extension that our indexes need, and the owners of both that are not trusted.
OWNERS_SQL = f"""
    WITH trusted AS (
        {TRUSTED_ROLES_SQL.format(schema="(SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s)")}
        UNION ALL
        SELECT member.oid FROM (VALUES {", ".join(f"({literal(name)}, {literal(owner)})" for name, owner in SERVICES.items())}) AS s (name, owner)
        JOIN pg_catalog.pg_roles AS customers ON customers.rolname = s.name
        JOIN pg_catalog.pg_roles AS service ON service.rolname = s.owner AND service.rolsuper
        JOIN pg_catalog.pg_roles AS member ON pg_catalog.pg_has_role(member.oid, customers.oid, 'MEMBER')
    )
    SELECT n.nspname::text,
           CASE WHEN e.extowner NOT IN (SELECT oid FROM trusted) THEN pg_catalog.pg_get_userbyid(e.extowner)::text END,
           CASE WHEN n.nspowner NOT IN (SELECT oid FROM trusted) AND n.nspname <> %(schema)s THEN pg_catalog.pg_get_userbyid(n.nspowner)::text END
    FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
    WHERE e.extname = {literal(NEEDED)}
"""


def read_untrusted(connection, schema: str) -> Finding | None:
    """Return the finding that a role that is not trusted can drop the extension that our indexes need; `schema` has our tables."""
    place, owner, schema_owner = fetch_one(connection, OWNERS_SQL, {"schema": schema}) or ("", None, None)
    if owner is not None:
        return Finding(
            Severity.ERROR, "extensions.untrusted", NEEDED,
            f"The extension {NEEDED} belongs to the role {owner}, which may be another tenant's and may drop it, and with it the indexes of the table users that use it.",
            f"As a superuser: DROP EXTENSION {NEEDED} CASCADE; CREATE EXTENSION {NEEDED} SCHEMA {quote(schema)}; CASCADE drops all indexes that use it:"
            f" create ours again with the cures that `manage.py dbstatus` then prints. If the role is the site's: GRANT CREATE ON SCHEMA {quote(schema)}"
            f" TO {quote(owner)} WITH GRANT OPTION; instead.",
        )  # fmt: skip
    if schema_owner is not None:
        return Finding(
            Severity.ERROR, "extensions.untrusted", NEEDED,
            f"The extension {NEEDED} is in the schema {place} of the role {schema_owner}, which may be another tenant's and may drop the schema, and with"
            " it the indexes of the table users that use the extension.",
            f"As the owner of the extension: ALTER EXTENSION {NEEDED} SET SCHEMA {quote(schema)};",
        )  # fmt: skip
    return None


def refuse_untrusted(connection, schema: str) -> None:
    """Raise Refusal before an index is built with an extension that such a role can drop."""
    if found := read_untrusted(connection, schema):
        raise Refusal(f"{found.message} {found.cure}")


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
