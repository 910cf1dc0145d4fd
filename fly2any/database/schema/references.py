"""The foreign keys to a table that keep its rows from being deleted or changed, or could, as parts of the catalogue's query.

unmanaged_references.py judges them.
"""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL
from ..trusted_roles import TRUSTED_ROLES_SQL
from ..unprintable_definitions import printed
from .publications import PUBLICATIONS_SQL

# The tables of the contract; the enforced foreign keys; the tables that a DELETE from `origin`, one of those, reaches by cascades, including unmanaged ones; the columns `changed`
# of the table `oid` that change with the column `att` of `origin`, or with a deletion of its rows (0), also where foreign keys follow
# on; and what each foreign key then does: its command and the columns that it sets.
LINKS_CTES = """
    link AS MATERIALIZED (
        SELECT k.oid, k.conrelid, k.confrelid, k.conname, k.confdeltype, k.confupdtype, k.confmatchtype, k.conkey, k.confkey, s.keys AS sets,
               ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute AS a
                     WHERE a.attrelid = k.conrelid AND a.attnotnull AND (k.confdeltype = 'n' OR NOT a.atthasdef) AND a.attnum = ANY (s.keys) ORDER BY 1) AS required
        FROM pg_catalog.pg_constraint AS k CROSS JOIN LATERAL (SELECT COALESCE(
            (SELECT array_agg(v::int2) FROM jsonb_array_elements_text(NULLIF(to_jsonb(k) -> 'confdelsetcols', 'null')) AS v), k.conkey)) AS s (keys)
        WHERE k.contype = 'f' AND k.conparentid = 0 AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgrelid = k.confrelid AND t.tgenabled IN ('D', 'R'))
    ), ours AS MATERIALIZED (
        SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %(schema)s AND c.relname = ANY (%(ours)s::text[])
    ), reached AS (
        SELECT link.confrelid AS origin, link.confrelid AS oid FROM link WHERE link.confrelid IN (SELECT oid FROM ours)
        UNION SELECT r.origin, l.conrelid FROM reached AS r JOIN link AS l ON l.confrelid = r.oid AND l.confdeltype = 'c'
    ), changed AS (
        SELECT k.confrelid AS origin, k.att, k.confrelid AS oid, k.att AS changed
        FROM (SELECT link.confrelid, pg_catalog.unnest(link.confkey) AS att FROM link) AS k
        WHERE k.confrelid IN (SELECT oid FROM ours)
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = k.confrelid AND i.indisprimary AND k.att = ANY (i.indkey::int2[]))
        UNION SELECT r.origin, 0::int2, l.conrelid, pg_catalog.unnest(l.sets)
        FROM reached AS r JOIN link AS l ON l.confrelid = r.oid AND l.confdeltype IN ('n', 'd')
        UNION SELECT r.origin, r.att, l.conrelid, pg_catalog.unnest(
            CASE l.confupdtype WHEN 'c' THEN l.conkey[pg_catalog.array_position(l.confkey, r.changed):pg_catalog.array_position(l.confkey, r.changed)] ELSE l.conkey END)
        FROM changed AS r JOIN link AS l ON l.confrelid = r.oid AND l.confupdtype IN ('c', 'n', 'd') AND r.changed = ANY (l.confkey)
    ), effect AS MATERIALIZED (
        SELECT r.origin, l.oid AS link, l.confdeltype AS action, CASE l.confdeltype WHEN 'c' THEN 'DELETE' ELSE 'UPDATE' END AS command, l.sets,
               ''::text AS columns
        FROM reached AS r JOIN link AS l ON l.confrelid = r.oid AND l.confdeltype IN ('c', 'n', 'd')
        UNION ALL
        SELECT r.origin, l.oid, l.confupdtype, 'UPDATE', pg_catalog.array_agg(DISTINCT s.key), COALESCE(pg_catalog.string_agg(DISTINCT a.attname::text, ', '), '')
        FROM changed AS r JOIN link AS l ON l.confrelid = r.oid AND l.confupdtype IN ('c', 'n', 'd')
        CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(l.conkey), pg_catalog.unnest(l.confkey)) AS s (key, target)
        LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.origin AND a.attnum = r.att AND r.att > 0
        WHERE r.changed = ANY (l.confkey) AND (l.confupdtype <> 'c' OR s.target = r.changed)
        GROUP BY r.origin, l.oid, l.confupdtype, r.att = 0
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
# For each that keeps columns, other than the primary key's, from being changed, also where another foreign key would follow: its table,
# name, definition, referenced table, the columns ("" for the deletion of rows, which would change what it refers to), and its owner.
FIXED_SQL = f"""
    ARRAY(SELECT ARRAY[l.conrelid::regclass::text, l.conname::text, pg_catalog.pg_get_constraintdef(l.oid), l.confrelid::regclass::text,
                       COALESCE((SELECT pg_catalog.string_agg(a.attname::text, ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                                 WHERE a.attrelid = c.oid AND a.attnum = ANY (k.atts) AND a.attnum > 0), ''), {STRANGER_SQL}]
          FROM (SELECT l.oid, pg_catalog.array_agg(r.att) AS atts
                FROM changed AS r JOIN link AS l ON l.confrelid = r.oid AND r.changed = ANY (l.confkey) AND l.confupdtype IN ('a', 'r')
                WHERE r.origin = c.oid GROUP BY l.oid, r.att = 0) AS k
          JOIN link AS l ON l.oid = k.oid
          ORDER BY 1)
"""
# The base type of the column `a` if its type is a domain, whether that or a domain below it is NOT NULL, and its other conditions.
DOMAIN_SQL = f"""
    WITH RECURSIVE below AS (
        SELECT t.oid, t.typbasetype, t.typtypmod, t.typnotnull, 0 AS depth FROM pg_catalog.pg_type AS t WHERE t.oid = a.atttypid AND t.typtype = 'd'
        UNION ALL
        SELECT b.oid, b.typbasetype, b.typtypmod, b.typnotnull, below.depth + 1
        FROM below JOIN pg_catalog.pg_type AS b ON b.oid = below.typbasetype AND b.typtype = 'd'
    ), condition AS (
        SELECT {printed("k.oid", "pg_catalog.pg_get_expr(k.conbin, 0::oid)")} AS text FROM below JOIN pg_catalog.pg_constraint AS k ON k.contypid = below.oid AND k.contype = 'c'
    )
    SELECT (pg_catalog.array_agg(below.typbasetype ORDER BY below.depth DESC))[1] AS typbasetype,
           (pg_catalog.array_agg(below.typtypmod ORDER BY below.depth DESC))[1] AS typtypmod,
           pg_catalog.bool_or(below.typnotnull) OR EXISTS (SELECT FROM condition WHERE condition.text = '(VALUE IS NOT NULL)') AS required,
           (SELECT pg_catalog.string_agg(condition.text, ' AND ' ORDER BY condition.text) FROM condition) AS condition
    FROM below
"""
# A publication of the deletions or updates of the table `c`, which has no replica identity.
UNIDENTIFIED_SQL = """
    CASE e.command WHEN 'DELETE' THEN p.pubdelete ELSE p.pubupdate END AND c.relkind = 'r' AND c.relpersistence = 'p'
    AND (c.relreplident = 'n' OR c.relreplident IN ('d', 'i') AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_index AS i
             WHERE i.indrelid = c.oid AND i.indislive AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END))
"""
# For each that deletes or changes rows: its table, name and referenced table, and what these rows meet: its kind, its name or
# definition, and for a default its column, the column that the foreign key refers to if there is only one, its owner, and the
# columns of `c` with which it changes them, "" for a deletion. A unique index ignores a row with NULL in one of its columns.
MET_SQL = f"""
    ARRAY(SELECT ARRAY[l.conrelid::regclass::text, l.conname::text, l.confrelid::regclass::text, m.kind, m.what, m.own, m.target, {STRANGER_SQL}, e.columns]
          FROM effect AS e JOIN link AS l ON l.oid = e.link CROSS JOIN LATERAL (
              SELECT 'publication'::text, pg_catalog.unnest({PUBLICATIONS_SQL.format(which=UNIDENTIFIED_SQL)}), ''::text, ''::text
              FROM pg_catalog.pg_class AS c WHERE c.oid = l.conrelid
              UNION ALL
              SELECT 'trigger', t.tgname::text, '', '' FROM pg_catalog.pg_trigger AS t
              WHERE t.tgrelid = l.conrelid AND {EXPLICIT_TRIGGER_SQL} AND t.tgenabled NOT IN ('D', 'R')
                AND t.tgtype::int & CASE e.command WHEN 'DELETE' THEN 8 ELSE 16 END <> 0
              UNION ALL
              SELECT 'check', k.conname::text || ' ' || {printed("k.oid", "pg_catalog.pg_get_constraintdef(k.oid)")}, e.action::text, '' FROM pg_catalog.pg_constraint AS k
              WHERE e.command = 'UPDATE' AND e.action IN ('n', 'c') AND k.conrelid = l.conrelid AND k.contype = 'c' AND k.conkey && e.sets
                AND COALESCE((to_jsonb(k) ->> 'conenforced')::boolean, true)
              UNION ALL
              SELECT 'unique', i.indexrelid::regclass::text, '', '' FROM pg_catalog.pg_index AS i
              WHERE e.action = 'n' AND i.indrelid = l.conrelid AND (i.indisunique OR i.indisexclusion)
                AND CASE WHEN (i.indkey::int2[])[:i.indnkeyatts - 1] && e.sets THEN (to_jsonb(i) ->> 'indnullsnotdistinct')::boolean
                         ELSE EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
                                        AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
                                        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = l.conrelid AND d.refobjsubid = ANY (e.sets)) END
              UNION ALL
              SELECT 'full', pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(l.oid), '(ON DELETE SET NULL) \\([^)]*\\)', '\\1'), '', ''
              WHERE e.action = 'n' AND l.confmatchtype = 'f' AND pg_catalog.cardinality(e.sets) < pg_catalog.cardinality(l.conkey)
              UNION ALL
              SELECT 'generated', {printed("f.oid", "pg_catalog.pg_get_expr(f.adbin, f.adrelid)")}, a.attname::text, ''
              FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
              WHERE e.action = 'n' AND a.attrelid = l.conrelid AND a.attgenerated <> '' AND a.attnotnull AND EXISTS (
                  SELECT FROM pg_catalog.pg_depend AS d
                  WHERE (d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
                         OR d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = a.attrelid AND d.objsubid = a.attnum)
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = l.conrelid AND d.refobjsubid = ANY (e.sets))
              UNION ALL
              SELECT 'domain', pg_catalog.format_type(t.typbasetype, t.typtypmod), a.attname::text, CASE WHEN t.required THEN '' ELSE t.condition END
              FROM pg_catalog.pg_attribute AS a CROSS JOIN LATERAL ({DOMAIN_SQL}) AS t
              WHERE e.action = 'n' AND a.attrelid = l.conrelid AND a.attnum = ANY (e.sets) AND (t.required OR t.condition IS NOT NULL)
              UNION ALL
              SELECT 'rule', r.rulename::text, '', '' FROM pg_catalog.pg_rewrite AS r
              WHERE r.ev_class = l.conrelid AND r.is_instead AND r.ev_enabled NOT IN ('D', 'R')
                AND r.ev_type = CASE e.command WHEN 'DELETE' THEN '4' ELSE '2' END
              UNION ALL
              SELECT 'owner', g.granted, pg_catalog.pg_get_userbyid(c.relowner)::text, '' FROM pg_catalog.pg_class AS c CROSS JOIN LATERAL (
                  SELECT 'USAGE ON SCHEMA ' || c.relnamespace::regnamespace::text WHERE NOT pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'USAGE')
                  UNION ALL SELECT p.name || ' ON ' || c.oid::regclass::text
                  FROM (VALUES ('SELECT'), (e.command)) AS p (name)
                  WHERE NOT pg_catalog.has_table_privilege(c.relowner, c.oid, p.name)) AS g (granted)
              WHERE c.oid = l.conrelid
              UNION ALL
              SELECT 'default', {printed("d.oid", "pg_catalog.pg_get_expr(d.adbin, d.adrelid)")}, a.attname::text,
                     CASE WHEN pg_catalog.cardinality(l.confkey) = 1 THEN f.attname::text ELSE '' END
              FROM pg_catalog.pg_attrdef AS d JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
              JOIN pg_catalog.pg_attribute AS f ON f.attrelid = l.confrelid AND f.attnum = l.confkey[1]
              WHERE e.action = 'd' AND d.adrelid = l.conrelid AND d.adnum = ANY (e.sets)
          ) AS m (kind, what, own, target)
          WHERE e.origin = c.oid
          ORDER BY 1)
"""
