"""The foreign keys to a table that keep its rows from being deleted or changed, or could, as parts of the catalogue's query.

unmanaged_references.py judges them.
"""

from __future__ import annotations

from ..sql import TRUSTED_ROLES_SQL
from .publications import PUBLICATIONS_SQL

# The enforced foreign keys, and the tables that a DELETE from `origin` reaches by cascades, including unmanaged ones.
LINKS_CTES = """
    link AS MATERIALIZED (
        SELECT k.oid, k.conrelid, k.confrelid, k.conname, k.confdeltype, k.confupdtype, k.confkey, s.keys AS sets,
               ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                     WHERE a.attrelid = k.conrelid AND a.attnotnull AND (k.confdeltype = 'n' OR NOT a.atthasdef) AND a.attnum = ANY (s.keys) ORDER BY 1) AS required
        FROM pg_catalog.pg_constraint AS k CROSS JOIN LATERAL (SELECT COALESCE(
            (SELECT array_agg(v::int2) FROM jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')) AS v), k.conkey)) AS s (keys)
        WHERE k.contype = 'f' AND k.conparentid = 0 AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgrelid = k.confrelid AND t.tgenabled IN ('D', 'R'))
    ), reached AS (
        SELECT link.confrelid AS origin, link.confrelid AS oid FROM link
        UNION SELECT r.origin, l.conrelid FROM reached AS r JOIN link AS l ON l.confrelid = r.oid AND l.confdeltype = 'c'
    )
"""
# The owner of the table of the foreign key `l`, "" if its code may run as the role that follows a cure.
STRANGER_SQL = f"""
    (SELECT CASE WHEN s.relowner IN ({TRUSTED_ROLES_SQL.format(schema="c.relnamespace")}) THEN '' ELSE pg_catalog.pg_get_userbyid(s.relowner)::text END
     FROM pg_catalog.pg_class AS s WHERE s.oid = l.conrelid)
"""
# For each that keeps rows: its table, name, definition, referenced table, the columns whose NOT NULL rejects SET NULL, and its owner.
REFERENCES_SQL = f"""
    ARRAY(SELECT ARRAY[l.conrelid::regclass::text, l.conname::text, pg_catalog.pg_get_constraintdef(l.oid), l.confrelid::regclass::text,
                       CASE WHEN l.confdeltype IN ('n', 'd') THEN pg_catalog.array_to_string(l.required, ', ') ELSE '' END, {STRANGER_SQL}]
          FROM reached AS r JOIN link AS l ON l.confrelid = r.oid
          WHERE r.origin = c.oid AND (l.confdeltype IN ('a', 'r') OR l.confdeltype IN ('n', 'd') AND l.required <> '{{}}')
          ORDER BY 1)
"""
# For each that keeps columns, other than the primary key's, from being changed: its table, name, definition, the columns, and its owner.
FIXED_SQL = f"""
    ARRAY(SELECT ARRAY[l.conrelid::regclass::text, l.conname::text, pg_catalog.pg_get_constraintdef(l.oid), c.oid::regclass::text,
                       (SELECT pg_catalog.string_agg(a.attname::text, ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                        WHERE a.attrelid = c.oid AND a.attnum = ANY (l.confkey)), {STRANGER_SQL}]
          FROM link AS l
          WHERE l.confrelid = c.oid AND l.confupdtype IN ('a', 'r') AND NOT EXISTS (
              SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary AND l.confkey <@ i.indkey::int2[])
          ORDER BY 1)
"""
# A publication of the deletions or updates of the table `c`, which has no replica identity.
UNIDENTIFIED_SQL = """
    CASE l.confdeltype WHEN 'c' THEN p.pubdelete ELSE p.pubupdate END AND c.relkind = 'r' AND c.relpersistence = 'p'
    AND (c.relreplident = 'n' OR c.relreplident IN ('d', 'i') AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_index AS i
             WHERE i.indrelid = c.oid AND i.indislive AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END))
"""
# For each that deletes or changes rows: its table, name and referenced table, and what these rows meet: its kind, its name or
# definition, and for a default its column, the column that the foreign key refers to if there is only one, and its owner.
MET_SQL = f"""
    ARRAY(SELECT ARRAY[l.conrelid::regclass::text, l.conname::text, l.confrelid::regclass::text, m.kind, m.what, m.own, m.target, {STRANGER_SQL}]
          FROM reached AS r JOIN link AS l ON l.confrelid = r.oid CROSS JOIN LATERAL (
              SELECT 'publication'::text, pg_catalog.unnest({PUBLICATIONS_SQL.format(which=UNIDENTIFIED_SQL)}), ''::text, ''::text
              FROM pg_catalog.pg_class AS c WHERE c.oid = l.conrelid
              UNION ALL
              SELECT 'trigger', t.tgname::text, '', '' FROM pg_catalog.pg_trigger AS t
              WHERE t.tgrelid = l.conrelid AND NOT t.tgisinternal AND t.tgenabled NOT IN ('D', 'R')
                AND t.tgtype::int & CASE l.confdeltype WHEN 'c' THEN 8 ELSE 16 END <> 0
              UNION ALL
              SELECT 'check', k.conname::text || ' ' || pg_catalog.pg_get_constraintdef(k.oid), '', '' FROM pg_catalog.pg_constraint AS k
              WHERE l.confdeltype = 'n' AND k.conrelid = l.conrelid AND k.contype = 'c' AND k.conkey && l.sets
                AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)
              UNION ALL
              SELECT 'unique', i.indexrelid::regclass::text, '', '' FROM pg_catalog.pg_index AS i
              WHERE l.confdeltype = 'n' AND i.indrelid = l.conrelid AND i.indkey::int2[] && l.sets AND (to_jsonb(i) ->> 'indnullsnotdistinct')::boolean
              UNION ALL
              SELECT 'domain', pg_catalog.format_type(t.typbasetype, t.typtypmod), a.attname::text, ''
              FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid AND t.typtype = 'd' AND t.typnotnull
              WHERE l.confdeltype = 'n' AND a.attrelid = l.conrelid AND a.attnum = ANY (l.sets)
              UNION ALL
              SELECT 'rule', r.rulename::text, '', '' FROM pg_catalog.pg_rewrite AS r
              WHERE r.ev_class = l.conrelid AND r.is_instead AND r.ev_enabled NOT IN ('D', 'R')
                AND r.ev_type = CASE l.confdeltype WHEN 'c' THEN '4' ELSE '2' END
              UNION ALL
              SELECT 'owner', g.granted, pg_catalog.pg_get_userbyid(c.relowner)::text, '' FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL (
                  SELECT 'USAGE ON SCHEMA ' || c.relnamespace::regnamespace::text WHERE NOT pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'USAGE')
                  UNION ALL SELECT p.name || ' ON ' || c.oid::regclass::text
                  FROM (VALUES ('SELECT'), (CASE l.confdeltype WHEN 'c' THEN 'DELETE' ELSE 'UPDATE' END)) AS p (name)
                  WHERE NOT pg_catalog.has_table_privilege(c.relowner, c.oid, p.name)) AS g (granted)
              WHERE c.oid = l.conrelid
              UNION ALL
              SELECT 'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attname::text,
                     CASE WHEN pg_catalog.cardinality(l.confkey) = 1 THEN f.attname::text ELSE '' END
              FROM pg_catalog.pg_attrdef AS d JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
              JOIN pg_catalog.pg_attribute AS f ON f.attrelid = l.confrelid AND f.attnum = l.confkey[1]
              WHERE l.confdeltype = 'd' AND d.adrelid = l.conrelid AND d.adnum = ANY (l.sets)
          ) AS m (kind, what, own, target)
          WHERE r.origin = c.oid AND l.confdeltype IN ('c', 'n', 'd')
          ORDER BY 1)
"""
