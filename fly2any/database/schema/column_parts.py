"""Parts of the catalogue's query of columns (catalog.py): a column's domain, and the sequences that it owns or takes values from."""

from __future__ import annotations

from ..unprintable_definitions import PRINTABLE_SQL
from .called_functions import OWN_SQL

# The constraints of a domain, including those of the domains it is based on; NULL for one that calls other functions, or cannot be printed.
DOMAIN_SQL = f"""
    WITH RECURSIVE below AS (
        SELECT t.oid, t.typbasetype, t.typtypmod, t.typnotnull, t.typdefault, 0 AS depth
        UNION ALL
        SELECT b.oid, b.typbasetype, b.typtypmod, b.typnotnull, b.typdefault, below.depth + 1
        FROM below JOIN pg_catalog.pg_type AS b ON b.oid = below.typbasetype AND b.typtype = 'd'
    )
    SELECT pg_catalog.jsonb_build_object(
        'type', (SELECT pg_catalog.format_type(typbasetype, typtypmod) FROM below ORDER BY depth DESC LIMIT 1),
        'default', (SELECT typdefault FROM below WHERE typdefault IS NOT NULL ORDER BY depth LIMIT 1),
        'required', (SELECT bool_or(typnotnull) FROM below),
        'own', NOT EXISTS (SELECT FROM below JOIN pg_catalog.pg_depend AS own ON own.classid = 'pg_catalog.pg_type'::regclass AND own.objid = below.oid
                           WHERE own.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)),
        'conditions', ARRAY(SELECT CASE WHEN {PRINTABLE_SQL.format("k.oid")} AND {OWN_SQL.format(kind="pg_constraint", oid="k.oid", besides="k.contypid")}
                                        THEN 'CHECK (' || pg_catalog.pg_get_expr(k.conbin, 0) || ')' END
                            FROM below JOIN pg_catalog.pg_constraint AS k ON k.contypid = below.oid AND k.contype = 'c'
                            ORDER BY k.conname COLLATE "C"))
"""


# The dependency of an identity column's sequence is internal, not automatic.
SEQUENCES_SQL = """
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', s.seqrelid::regclass::text, 'largest', s.seqmax, 'owned', t.owned,
            'of_table_owner', (
                SELECT q.relowner = c.relowner AND (q.relnamespace = c.relnamespace OR p.nspowner = c.relowner)
                FROM pg_catalog.pg_class AS q JOIN pg_catalog.pg_namespace AS p ON p.oid = q.relnamespace WHERE q.oid = s.seqrelid),
            'shared', EXISTS (
                SELECT FROM pg_catalog.pg_depend AS u WHERE u.refclassid = 'pg_catalog.pg_class'::regclass AND u.refobjid = s.seqrelid
                  AND u.deptype <> 'i' AND NOT (u.classid = 'pg_catalog.pg_attrdef'::regclass AND u.objid = COALESCE(d.oid, 0::oid))
            )) ORDER BY s.seqrelid::regclass::text)
     FROM (SELECT k.oid, pg_catalog.bool_or(k.owned) AS owned
           FROM (SELECT o.objid AS oid, true AS owned FROM pg_catalog.pg_depend AS o
                 WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.deptype = 'a'
                   AND o.refclassid = 'pg_catalog.pg_class'::regclass AND o.refobjid = c.oid AND o.refobjsubid = a.attnum
                 UNION ALL
                 SELECT o.refobjid, false FROM pg_catalog.pg_depend AS o
                 WHERE o.classid = 'pg_catalog.pg_attrdef'::regclass AND o.objid = d.oid AND o.refclassid = 'pg_catalog.pg_class'::regclass) AS k
           GROUP BY k.oid) AS t
     JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = t.oid)
"""
