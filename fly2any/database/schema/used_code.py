"""The code of untrusted roles that parts of tables use, as parts of queries: WITH RECURSIVE, after `trusted` and `checked`."""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL
from .trigger_creators import OF_SUPABASE_SQL

# The catalogues of what can run code.
CODE_CLASSES = (
    "'pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_type'::regclass,"
    " 'pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_opfamily'::regclass"
)
# The catalogues of what can read tables that it names.
READING_CLASSES = "'pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_rewrite'::regclass, 'pg_catalog.pg_proc'::regclass"
# The node trees of the object (`u.used_class`, `u.used`).
TREES_SQL = """
    SELECT t.tgqual::text FROM pg_catalog.pg_trigger AS t WHERE u.used_class = 'pg_catalog.pg_trigger'::regclass AND t.oid = u.used
    UNION ALL
    SELECT k.conbin::text FROM pg_catalog.pg_constraint AS k WHERE u.used_class = 'pg_catalog.pg_constraint'::regclass AND k.oid = u.used
    UNION ALL
    SELECT f.adbin::text FROM pg_catalog.pg_attrdef AS f WHERE u.used_class = 'pg_catalog.pg_attrdef'::regclass AND f.oid = u.used
    UNION ALL
    SELECT pg_catalog.concat(y.polqual, y.polwithcheck) FROM pg_catalog.pg_policy AS y
    WHERE u.used_class = 'pg_catalog.pg_policy'::regclass AND y.oid = u.used
    UNION ALL
    SELECT pg_catalog.concat(r.ev_qual, r.ev_action) FROM pg_catalog.pg_rewrite AS r
    WHERE u.used_class = 'pg_catalog.pg_rewrite'::regclass AND r.oid = u.used
    UNION ALL
    SELECT pg_catalog.concat(i.indexprs, i.indpred) FROM pg_catalog.pg_index AS i
    WHERE u.used_class = 'pg_catalog.pg_class'::regclass AND i.indexrelid = u.used
    UNION ALL
    SELECT h.partexprs::text FROM pg_catalog.pg_partitioned_table AS h
    WHERE u.used_class = 'pg_catalog.pg_class'::regclass AND h.partrelid = u.used
    UNION ALL
    SELECT s.stxexprs::text FROM pg_catalog.pg_statistic_ext AS s WHERE u.used_class = 'pg_catalog.pg_statistic_ext'::regclass AND s.oid = u.used
    UNION ALL
    SELECT pg_catalog.concat(p.prosqlbody, p.proargdefaults) FROM pg_catalog.pg_proc AS p
    WHERE u.used_class = 'pg_catalog.pg_proc'::regclass AND p.oid = u.used
"""
# Whether a node tree `x` converts values of any type to JSON: it contains a constructor (JSON_OBJECT, …), or calls a function or an
# aggregate for json that has a polymorphic argument, such as to_jsonb(anyelement) or row_to_json(record).
CONVERTS_SQL = r"""
    (x.tree ~ '\{JSONCONSTRUCTOREXPR' OR EXISTS (
        SELECT FROM pg_catalog.regexp_matches(x.tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) ([0-9]+)', 'g') AS f (oid)
        JOIN pg_catalog.pg_proc AS p ON p.oid = f.oid[1]::oid
        WHERE p.proname::text ~ 'json' AND p.proargtypes::oid[] && ARRAY['anyelement', 'anyarray', '"any"', 'record']::regtype[]::oid[]))
"""
# For the tables in `checked`: what `part` of which (a trigger, an index, statistics, a constraint, a default, a policy, a rule, or the
# table itself, for its columns and partition key) uses a function, an operator or a type of which role that is not in `trusted`, and
# whether all of these run as their owner. Enums and composite types run no code of their own, except by casts, which their owner
# defines. The functions of casts count: statements convert columns to text. One to json may be defined at any time: these types count in
# the condition of a trigger, and where the part, or a function that it uses, converts values to JSON (`by_json`); then also the types of the columns that it can read, looked for if there are such `types`. Collations and schemas run none.
# Nothing is recorded of PostgreSQL's own objects, nor of what belongs to the first superuser, nor of the owners of tables' row types.
USED_CODE_SQL = f"""
    parts AS (
        SELECT c.oid AS "table", 'pg_catalog.pg_class'::regclass::oid AS class, c.oid AS object FROM checked AS c
        UNION
        SELECT p."table", d.classid, d.objid
        FROM parts AS p JOIN pg_catalog.pg_depend AS d ON d.refclassid = p.class AND d.refobjid = p.object AND d.deptype IN ('a', 'i', 'P', 'S')
        WHERE p.class IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_constraint'::regclass)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                          WHERE d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('r', 'p'))
    ), types AS (
        SELECT t.oid FROM pg_catalog.pg_type AS t
        WHERE t.typtype <> 'd' AND t.typowner NOT IN (SELECT oid FROM trusted) AND EXISTS (
            SELECT FROM pg_catalog.pg_depend AS d
            WHERE d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid = t.oid AND d.deptype = 'n')
    ), uses AS (
        SELECT p."table", p.class, p.object, s.class AS used_class, s.object AS used, s.by_json
        FROM parts AS p CROSS JOIN LATERAL (VALUES (p.class, p.object, false), ('pg_catalog.pg_class'::regclass::oid, p."table", true))
            AS s (class, object, by_json)
        WHERE p.class <> 'pg_catalog.pg_type'::regclass AND (NOT s.by_json OR EXISTS (SELECT FROM types))
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                          WHERE p.class = 'pg_catalog.pg_trigger'::regclass AND t.oid = p.object AND (t.tgenabled = 'D' OR NOT {EXPLICIT_TRIGGER_SQL}))
        UNION
        SELECT u."table", u.class, u.object, n.class, n.object, u.by_json OR n.by_json FROM uses AS u, LATERAL (
            SELECT d.refclassid, d.refobjid, false FROM pg_catalog.pg_depend AS d
            WHERE d.classid = u.used_class AND d.objid = u.used
              AND d.refclassid IN ({CODE_CLASSES})
            UNION ALL
            SELECT d.refclassid, d.refobjid, u.used_class <> 'pg_catalog.pg_type'::regclass FROM pg_catalog.pg_depend AS d
            WHERE d.classid = u.used_class AND d.objid = u.used AND d.refclassid = 'pg_catalog.pg_class'::regclass
              AND (u.used_class = 'pg_catalog.pg_type'::regclass OR u.used_class IN ({READING_CLASSES}) AND EXISTS (SELECT FROM types))
            UNION ALL
            SELECT d.classid, d.objid, false FROM pg_catalog.pg_depend AS d
            WHERE u.used_class = 'pg_catalog.pg_type'::regclass AND d.refclassid = u.used_class AND d.refobjid = u.used
              AND d.classid = 'pg_catalog.pg_cast'::regclass
            UNION ALL
            SELECT d.classid, d.objid, false FROM pg_catalog.pg_depend AS d
            WHERE d.refclassid = u.used_class AND d.refobjid = u.used AND d.deptype IN ('a', 'i')
              AND u.used_class IN ('pg_catalog.pg_type'::regclass, 'pg_catalog.pg_opclass'::regclass)
              AND d.classid IN ('pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_class'::regclass,
                                'pg_catalog.pg_amop'::regclass, 'pg_catalog.pg_amproc'::regclass)
        ) AS n (class, object, by_json)
    ), converting AS (
        SELECT DISTINCT u."table", u.class, u.object FROM uses AS u, LATERAL ({TREES_SQL}) AS x (tree) WHERE NOT u.by_json AND {CONVERTS_SQL}
    ), used_code AS (
        SELECT u."table", u.class, u.object, o.role, pg_catalog.bool_and(p.prosecdef IS TRUE) AS is_definer,
               pg_catalog.min(pg_catalog.pg_describe_object(u.used_class, u.used, 0) COLLATE "C") AS used
        FROM uses AS u JOIN (
            SELECT o.classid, o.objid, o.refobjid FROM pg_catalog.pg_shdepend AS o
            WHERE o.deptype = 'o' AND o.dbid = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database())
            UNION ALL
            SELECT 'pg_catalog.pg_type'::regclass, t.oid, t.typowner FROM pg_catalog.pg_type AS t WHERE t.typtype = 'c'
        ) AS o (class, object, role) ON o.class = u.used_class AND o.object = u.used
        LEFT JOIN pg_catalog.pg_proc AS p ON u.used_class = 'pg_catalog.pg_proc'::regclass AND p.oid = u.used
        LEFT JOIN pg_catalog.pg_type AS t ON u.used_class = 'pg_catalog.pg_type'::regclass AND t.oid = u.used
        WHERE u.used_class <> 'pg_catalog.pg_class'::regclass AND o.role NOT IN (SELECT oid FROM trusted)
          AND {OF_SUPABASE_SQL} IS NOT TRUE
          AND CASE WHEN u.by_json OR t.typtype IN ('c', 'e')
                   THEN t.typtype <> 'd' AND (NOT u.by_json AND u.class = 'pg_catalog.pg_trigger'::regclass OR EXISTS (
                       SELECT FROM converting AS v WHERE v."table" = u."table" AND v.class = u.class AND v.object = u.object)) ELSE true END
        GROUP BY u."table", u.class, u.object, o.role
    )
"""
