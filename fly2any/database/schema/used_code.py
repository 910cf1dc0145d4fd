"""The code of untrusted roles that parts of tables use, as parts of queries: WITH RECURSIVE, after `trusted` and `checked`."""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL
from .trigger_creators import CALLED_SQL, OF_SUPABASE_SQL

# The catalogues of what can run code.
CODE_CLASSES = (
    "'pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_type'::regclass,"
    " 'pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_opfamily'::regclass"
)
# For the tables in `checked`: what `part` of which (a trigger, an index, statistics, a constraint, a default, a policy, a rule, or the
# table itself, for its columns and partition key) uses a function, an operator or a type of which role that is not in `trusted`, and
# whether all of these run as their owner. Enums and composite types run no code of their own, except by a cast to json in the condition
# of a trigger, which also uses the types of the columns if it calls a function for json; collations and schemas neither.
# Nothing is recorded of PostgreSQL's own objects, nor of what belongs to the first superuser.
USED_CODE_SQL = f"""
    parts AS (
        SELECT c.oid AS "table", 'pg_catalog.pg_class'::regclass::oid AS class, c.oid AS object FROM checked AS c
        UNION
        SELECT p."table", d.classid, d.objid
        FROM parts AS p JOIN pg_catalog.pg_depend AS d ON d.refclassid = p.class AND d.refobjid = p.object AND d.deptype IN ('a', 'i', 'P', 'S')
        WHERE p.class IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_constraint'::regclass)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                          WHERE d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p'))
    ), uses AS (
        SELECT p."table", p.class, p.object, p.class AS used_class, p.object AS used FROM parts AS p
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                          WHERE p.class = 'pg_catalog.pg_trigger'::regclass AND t.oid = p.object AND (t.tgenabled = 'D' OR NOT {EXPLICIT_TRIGGER_SQL}))
        UNION
        SELECT c.oid, 'pg_catalog.pg_trigger'::regclass, t.oid, 'pg_catalog.pg_class'::regclass, c.oid
        FROM checked AS c JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid
        WHERE t.tgenabled <> 'D' AND t.tgqual IS NOT NULL AND EXISTS (SELECT FROM {CALLED_SQL} WHERE p.proname::text ~ 'json')
        UNION
        SELECT u."table", u.class, u.object, n.class, n.object FROM uses AS u, LATERAL (
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend AS d
            WHERE d.classid = u.used_class AND d.objid = u.used
              AND d.refclassid IN ({CODE_CLASSES})
            UNION ALL
            SELECT d.classid, d.objid FROM pg_catalog.pg_depend AS d
            WHERE d.refclassid = u.used_class AND d.refobjid = u.used AND d.deptype IN ('a', 'i')
              AND u.used_class IN ('pg_catalog.pg_type'::regclass, 'pg_catalog.pg_opclass'::regclass)
              AND d.classid IN ('pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_class'::regclass,
                                'pg_catalog.pg_amop'::regclass, 'pg_catalog.pg_amproc'::regclass)
        ) AS n (class, object)
    ), used_code AS (
        SELECT u."table", u.class, u.object, o.refobjid AS role, pg_catalog.bool_and(p.prosecdef IS TRUE) AS is_definer,
               pg_catalog.min(pg_catalog.pg_describe_object(u.used_class, u.used, 0) COLLATE "C") AS used
        FROM uses AS u JOIN pg_catalog.pg_shdepend AS o ON o.classid = u.used_class AND o.objid = u.used AND o.deptype = 'o'
            AND o.dbid = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database())
        LEFT JOIN pg_catalog.pg_proc AS p ON u.used_class = 'pg_catalog.pg_proc'::regclass AND p.oid = u.used
        WHERE u.used_class <> 'pg_catalog.pg_class'::regclass AND o.refobjid NOT IN (SELECT oid FROM trusted)
          AND {OF_SUPABASE_SQL} IS NOT TRUE
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS t
                          WHERE u.used_class = 'pg_catalog.pg_type'::regclass AND t.oid = u.used AND t.typtype IN ('c', 'e')
                            AND u.class <> 'pg_catalog.pg_trigger'::regclass)
        GROUP BY u."table", u.class, u.object, o.refobjid
    )
"""
