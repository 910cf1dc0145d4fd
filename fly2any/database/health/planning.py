"""Whether a query of the statistics can be planned again without running code of untrusted roles.

The planner calls immutable functions, and evaluates expressions of indexes and statistics, as the current role. A query is therefore
planned only where it can name nothing but objects of our schema and PostgreSQL's own, and where all of our schema is of trusted roles.
"""

from __future__ import annotations

import re

from ..schema.used_code import USED_CODE_SQL
from ..trusted_roles import TRUSTED_ROLES_SQL
from .examine import Reader

# Why planning a query of our schema could run code of an untrusted role; no row if it could not: such a role may create objects in it,
# or owns one, or a table that a view or inheritance leads to, or the type of a column, or code that one of these tables uses.
OBSTACLE_SQL = f"""
    WITH RECURSIVE home AS (SELECT n.oid, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s),
    trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM home)")}),
    reached AS (
        SELECT c.oid FROM pg_catalog.pg_class AS c JOIN home AS h ON h.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
        UNION
        SELECT n.oid FROM reached AS r, LATERAL (
            SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = r.oid
            UNION ALL
            SELECT d.refobjid FROM pg_catalog.pg_rewrite AS w JOIN pg_catalog.pg_depend AS d
                ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
            WHERE w.ev_class = r.oid) AS n (oid)
    ), checked AS (SELECT r.oid FROM reached AS r), {USED_CODE_SQL},
    owned AS (
        SELECT d.classid AS class, d.objid AS object, o.refobjid AS role, ' belongs to the role ' AS verb FROM home AS h
        JOIN pg_catalog.pg_depend AS d ON d.refclassid = 'pg_catalog.pg_namespace'::regclass AND d.refobjid = h.oid
        JOIN pg_catalog.pg_shdepend AS o ON o.classid = d.classid AND o.objid = d.objid AND o.deptype = 'o'
            AND o.dbid = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database())
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, c.oid, c.relowner, ' belongs to the role ' FROM reached AS r JOIN pg_catalog.pg_class AS c ON c.oid = r.oid
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, t.oid, t.typowner, ' belongs to the role '
        FROM reached AS r JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND NOT a.attisdropped
        JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        UNION ALL
        SELECT u.class, u.object, u.role, ' uses code of the role ' FROM used_code AS u
    )
    SELECT CASE WHEN a.grantee = 0 THEN 'every role' ELSE 'the role ' || pg_catalog.pg_get_userbyid(a.grantee) END
           || ' may create objects in the schema ' || %(schema)s AS obstacle, 1 AS place
    FROM home AS h, pg_catalog.aclexplode(h.nspacl) AS a
    WHERE a.privilege_type = 'CREATE' AND a.grantee NOT IN (SELECT oid FROM trusted)
    UNION ALL
    SELECT pg_catalog.pg_describe_object(o.class, o.object, 0) || o.verb || pg_catalog.pg_get_userbyid(o.role), 2
    FROM owned AS o WHERE o.role NOT IN (SELECT oid FROM trusted)
    ORDER BY 2, 1 LIMIT 1
"""
OTHER_SCHEMAS_SQL = """
    SELECT n.nspname AS name FROM pg_catalog.pg_namespace AS n
    WHERE n.nspname NOT IN (%(schema)s, 'pg_catalog') UNION ALL SELECT 'pg_temp'
"""
# At each place, so that no quotation mark in a literal hides a name.
BEFORE_A_DOT = re.compile(r'(?=("(?:[^"]|"")+"|[^\W\d][\w$]*)\s*\.)')
# What the statistics of PostgreSQL 18 write for all but the first value of a list.
MORE_VALUES = "/*, ... */"
HIDING = re.compile(r"--|/\*|\bU&", re.IGNORECASE)


class Planning:
    """What prevents that queries are planned again; the catalogue is read at most once."""

    def __init__(self, read: Reader):
        self.read = read
        self.schemas: set[str] | None = None
        self.obstacle: str | None = None

    def prevented(self, query: str) -> str | None:
        """Return why a query cannot be planned without running code of untrusted roles, None if it can."""
        if self.schemas is None:
            self.schemas = {row.name.lower() for row in self.read(OTHER_SCHEMAS_SQL)}
            self.obstacle = next((row.obstacle for row in self.read(OBSTACLE_SQL)), None)
        if self.obstacle:
            return self.obstacle
        if HIDING.search(query):
            return "it has a comment or an escaped name"
        names = {name.strip('"').replace('""', '"').lower() for name in BEFORE_A_DOT.findall(query)}
        return next((f"it names the schema {name}" for name in sorted(names & self.schemas)), None)
