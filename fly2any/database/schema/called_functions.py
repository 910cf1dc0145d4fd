"""The functions that defaults, constraints, indexes, statistics and policies call, for which PostgreSQL records a dependency."""

from __future__ import annotations

# Whether an object's expression calls only PostgreSQL's own functions and operators, for which no dependency is recorded. Before
# PostgreSQL 15 what the expression of a generated column calls is recorded for the column.
OWN_SQL = """
    NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS own
                WHERE own.classid = 'pg_catalog.{kind}'::regclass AND own.objid = {oid} AND own.refobjid <> {besides}
                  AND own.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass, 'pg_catalog.pg_type'::regclass))
"""
# The first name without a schema in the source of the function `p` that PostgreSQL does not find with an empty search path: a function,
# a relation or a type.
UNQUALIFIED_SQL = r"""
    CASE WHEN p.prosqlbody IS NULL AND p.prolang IN (SELECT l.oid FROM pg_catalog.pg_language AS l WHERE l.lanname IN ('sql', 'plpgsql'))
              AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) AS s WHERE s LIKE 'search_path=%%')
         THEN (SELECT pg_catalog.min(w.name) FROM (
                   SELECT m[1] AS name FROM pg_catalog.regexp_matches(p.prosrc, '(?<![.\w$])"?(\w+)"?\s*\(', 'g') AS m
                   WHERE EXISTS (SELECT FROM pg_catalog.pg_proc AS q WHERE q.proname = m[1])
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS q WHERE q.proname = m[1] AND q.pronamespace = 'pg_catalog'::regnamespace)
                   UNION ALL
                   SELECT m[1] FROM pg_catalog.regexp_matches(p.prosrc, '\m(?:from|join|into|update)\s+"?(\w+)\M(?!"?\s*[.(])', 'gi') AS m
                   WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS q WHERE q.relname = m[1] AND q.relnamespace <> 'pg_catalog'::regnamespace)
                   UNION ALL
                   SELECT m[1] FROM pg_catalog.regexp_matches(p.prosrc, '::\s*"?(\w+)\M(?!"?\s*\.)', 'g') AS m
                   WHERE EXISTS (SELECT FROM pg_catalog.pg_type AS q WHERE q.typname = m[1])
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS q WHERE q.typname = m[1] AND q.typnamespace = 'pg_catalog'::regnamespace)
                   UNION ALL
                   SELECT m[1] FROM pg_catalog.regexp_matches(p.prosrc, '\m(?:unaccent|ts_lexize|to_tsvector|\w*to_tsquery|ts_headline)"?\s*\(\s*''(\w+)''', 'g') AS m
                   WHERE EXISTS (SELECT dictname FROM pg_catalog.pg_ts_dict WHERE dictname = m[1] AND dictnamespace <> 'pg_catalog'::regnamespace
                                 UNION ALL SELECT cfgname FROM pg_catalog.pg_ts_config WHERE cfgname = m[1] AND cfgnamespace <> 'pg_catalog'::regnamespace)) AS w) END
"""
# Those called for the table `c` that this role may not execute, or that find another object by the search path: what calls it,
# its signature, the role if that may not execute it, and the name that it looks for.
CALLED_SQL = f"""
    ARRAY(WITH RECURSIVE domains AS (
              SELECT a.atttypid AS oid, a.attname FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              UNION
              SELECT t.typbasetype, b.attname FROM domains AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.oid AND t.typtype = 'd'
          ), used AS (
              SELECT 'pg_catalog.pg_attrdef'::regclass AS classid, f.oid AS objid, 'column ' || a.attname AS what, a.attgenerated <> '' AS stored
              FROM pg_catalog.pg_attrdef AS f JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.adrelid AND a.attnum = f.adnum WHERE f.adrelid = c.oid
              UNION ALL
              SELECT 'pg_catalog.pg_constraint'::regclass, k.oid, 'constraint ' || k.conname, true FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = c.oid
              UNION ALL
              SELECT 'pg_catalog.pg_class'::regclass, x.oid, 'index ' || x.relname, true
              FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid
              UNION ALL
              SELECT 'pg_catalog.pg_class'::regclass, c.oid, 'a generated column', true WHERE pg_catalog.current_setting('server_version_num')::int < 150000
              UNION ALL
              SELECT 'pg_catalog.pg_statistic_ext'::regclass, s.oid, 'statistics ' || s.stxname, true FROM pg_catalog.pg_statistic_ext AS s WHERE s.stxrelid = c.oid
              UNION ALL
              SELECT 'pg_catalog.pg_policy'::regclass, y.oid, 'policy ' || y.polname, false
              FROM pg_catalog.pg_policy AS y WHERE y.polrelid = c.oid AND row_security_active(c.oid)
              UNION ALL
              SELECT 'pg_catalog.pg_constraint'::regclass, k.oid, 'column ' || b.attname, true FROM domains AS b JOIN pg_catalog.pg_constraint AS k ON k.contypid = b.oid
              UNION ALL
              SELECT 'pg_catalog.pg_type'::regclass, t.oid, 'column ' || b.attname, false
              FROM domains AS b JOIN pg_catalog.pg_type AS t ON t.oid = b.oid AND t.typtype = 'd'
          )
          SELECT DISTINCT ARRAY[used.what, p.oid::regprocedure::text, CASE WHEN r.denied THEN quote_ident(current_user) ELSE '' END,
                                CASE WHEN used.stored THEN COALESCE(r.name, '') ELSE '' END]
          FROM used JOIN pg_catalog.pg_depend AS d ON d.classid = used.classid AND d.objid = used.objid
          LEFT JOIN pg_catalog.pg_operator AS o ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.refobjid
          JOIN pg_catalog.pg_proc AS p ON p.oid = CASE WHEN d.refclassid = 'pg_catalog.pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
          CROSS JOIN LATERAL (SELECT NOT pg_catalog.has_function_privilege(p.oid, 'EXECUTE') AND used.classid <> 'pg_catalog.pg_statistic_ext'::regclass AS denied,
                                     {UNQUALIFIED_SQL} AS name) AS r
          WHERE r.denied OR used.stored AND r.name IS NOT NULL
          ORDER BY 1)
"""
