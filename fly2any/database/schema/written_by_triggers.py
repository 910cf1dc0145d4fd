"""The tables of trusted roles that triggers and rules of the site may write to, where that could run code of an untrusted role.

What a trigger writes is not known: any table counts that an untrusted role may add triggers or foreign keys to, or has added some to,
and any that uses code of such a role, as in an index.
"""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL, literal
from ..trusted_roles import TRUSTED_ROLES_SQL
from .trigger_creators import HARMLESS_EXTENSIONS, HARMLESS_TRIGGERS, OF_SUPABASE_SQL, ONLY_TIMES_SQL
from .used_code import CODE_CLASSES

# Triggers of functions of trusted roles come with TRIGGER, except for their conditions (trigger_creators.py). `dependents` are
# what uses code of untrusted roles (used_code.py), and what that is a part of.
OPEN_SQL = f"""
    WITH RECURSIVE trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s)")}),
    dependents AS (
        SELECT o.classid AS class, o.objid AS object FROM pg_catalog.pg_shdepend AS o
        WHERE o.deptype = 'o' AND o.dbid = (SELECT b.oid FROM pg_catalog.pg_database AS b WHERE b.datname = current_database())
          AND o.classid IN ({CODE_CLASSES}) AND o.refobjid NOT IN (SELECT oid FROM trusted)
        UNION
        SELECT 'pg_catalog.pg_type'::regclass::oid, t.oid FROM pg_catalog.pg_type AS t WHERE t.typtype = 'c' AND t.typowner NOT IN (SELECT oid FROM trusted)
        UNION
        SELECT n.class, n.object FROM dependents AS u, LATERAL (
            SELECT d.classid, d.objid FROM pg_catalog.pg_depend AS d
            WHERE d.refclassid = u.class AND d.refobjid = u.object AND (u.class IN ({CODE_CLASSES}) OR d.classid = 'pg_catalog.pg_type'::regclass)
            UNION ALL
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend AS d
            WHERE d.classid = u.class AND d.objid = u.object AND d.deptype IN ('a', 'i', 'P', 'S') AND u.class NOT IN ({CODE_CLASSES})
        ) AS n (class, object)
    )
    SELECT c.oid::bigint FROM pg_catalog.pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.oid >= 16384 AND c.relowner IN (SELECT oid FROM trusted) AND (
        EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) AS a
                WHERE a.privilege_type IN ('TRIGGER', 'REFERENCES') AND a.grantee NOT IN (SELECT oid FROM trusted))
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute AS t CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) AS a
                   WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND a.privilege_type = 'REFERENCES'
                     AND a.grantee NOT IN (SELECT oid FROM trusted))
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
                   WHERE t.tgrelid = c.oid AND {EXPLICIT_TRIGGER_SQL} AND t.tgenabled <> 'D'
                     AND (t.tgqual IS NOT NULL OR p.proowner NOT IN (SELECT oid FROM trusted)))
        OR EXISTS (SELECT FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS o ON o.oid = k.conrelid
                   WHERE k.confrelid = c.oid AND k.contype = 'f' AND o.relowner NOT IN (SELECT oid FROM trusted))
        OR c.oid IN (SELECT u.object FROM dependents AS u WHERE u.class = 'pg_catalog.pg_class'::regclass))
    ORDER BY 1
"""
# One trigger or rule that a write to a table of `reached` runs, and that may write to other tables, with the table that is written.
FIRED_SQL = f"""
    SELECT f.origin, f.name || ' ON ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) FROM (
        SELECT r.oid, r.origin, 'trigger ' || pg_catalog.quote_ident(t.tgname)
        FROM reached AS r JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.oid JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
        WHERE {EXPLICIT_TRIGGER_SQL} AND t.tgenabled <> 'D'
          AND t.tgtype & CASE r.event WHEN 'i' THEN 36 WHEN 'd' THEN 8 WHEN 'u' THEN 16 ELSE 0 END <> 0
          AND NOT (p.oid < 16384 AND p.proname::text = ANY (pg_catalog.string_to_array({literal(HARMLESS_TRIGGERS)}, ' ')))
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
                          WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid
                            AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
                            AND e.extname::text = ANY (pg_catalog.string_to_array({literal(HARMLESS_EXTENSIONS)}, ' ')))
          AND {OF_SUPABASE_SQL} IS NOT TRUE
          AND NOT {ONLY_TIMES_SQL}
        UNION ALL
        SELECT r.oid, r.origin, 'rule ' || pg_catalog.quote_ident(w.rulename)
        FROM reached AS r JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = r.oid
        WHERE w.ev_enabled <> 'D' AND w.ev_type::text = CASE r.event WHEN 'i' THEN '3' WHEN 'd' THEN '4' WHEN 'u' THEN '2' END
    ) AS f (oid, origin, name) JOIN pg_catalog.pg_class AS c ON c.oid = f.oid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relowner IN (SELECT oid FROM trusted)
    ORDER BY 1, 2 LIMIT 1
"""
