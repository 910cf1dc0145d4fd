"""Look-alikes: functions and operators of untrusted roles that have the names of PostgreSQL's, or of the site's.

The body of most functions is a text. Its names are looked up each time in the search path, and PostgreSQL prefers the function whose
types of arguments fit best, in any schema of that path, to its own. Code that PostgreSQL stores parsed (BEGIN ATOMIC) looks up no
names.
"""

from __future__ import annotations

# All functions and operators, with the types of their arguments.
NAMED_SQL = """
    SELECT 'pg_catalog.pg_proc'::regclass AS class, f.oid, f.proname AS name, f.pronamespace AS schema, f.proowner AS owner,
           f.proargtypes::oid[] AS types FROM pg_catalog.pg_proc AS f
    UNION ALL
    SELECT 'pg_catalog.pg_operator'::regclass, f.oid, f.oprname, f.oprnamespace, f.oprowner, ARRAY[f.oprleft, f.oprright]
    FROM pg_catalog.pg_operator AS f
"""
# Whether `o`, one of these, is a look-alike; after `trusted`.
IS_LOOKALIKE_SQL = """
    (o.oid >= 16384 AND o.owner NOT IN (SELECT oid FROM trusted)
     AND (EXISTS (SELECT FROM pg_catalog.pg_proc AS f WHERE o.class = 'pg_catalog.pg_proc'::regclass AND f.proname = o.name
                    AND (f.oid < 16384 OR f.proowner IN (SELECT oid FROM trusted)))
          OR EXISTS (SELECT FROM pg_catalog.pg_operator AS f
                     WHERE o.class = 'pg_catalog.pg_operator'::regclass AND f.oprname = o.name AND f.oid < 16384)))
"""
# Rows for STRANGERS_SQL, after its `checked`, and `uses` of used_code.py: for each role one of its look-alikes in the search path of a
# function of the site (`mine`), and their number.
LOOKALIKES_SQL = f"""
    SELECT 'lookalike', pg_catalog.min(mine.origin COLLATE "C"), pg_catalog.min(pg_catalog.pg_describe_object(o.class, o.oid, 0) COLLATE "C"),
           pg_catalog.count(DISTINCT o.oid)::int, pg_catalog.pg_get_userbyid(o.owner)::text, false,
           pg_catalog.min(pg_catalog.pg_describe_object('pg_catalog.pg_proc'::regclass, mine.oid, 0) COLLATE "C")
    FROM (
        SELECT c.origin, p.oid, s.path
        FROM checked AS c JOIN uses AS u ON u."table" = c.oid AND u.used_class = 'pg_catalog.pg_proc'::regclass
        JOIN pg_catalog.pg_proc AS p ON p.oid = u.used JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
        LEFT JOIN pg_catalog.pg_trigger AS t ON u.class = 'pg_catalog.pg_trigger'::regclass AND t.oid = u.object
        LEFT JOIN LATERAL (SELECT pg_catalog.substr(one, 13) FROM pg_catalog.unnest(p.proconfig) AS one WHERE one ~ '^search_path=') AS own (path) ON true
        CROSS JOIN LATERAL (
            SELECT CASE WHEN own.path IS NULL THEN %(path)s::text[]
                        ELSE ARRAY(SELECT pg_catalog.replace(pg_catalog.btrim(one, ' "'), '""', '"') FROM pg_catalog.string_to_table(own.path, ',') AS one) END
        ) AS s (path)
        WHERE p.oid >= 16384 AND p.prosqlbody IS NULL AND l.lanname NOT IN ('internal', 'c') AND p.proowner IN (SELECT oid FROM trusted)
          AND (t.oid IS NULL OR c.place = '' OR t.tgtype & c.events <> 0)
    ) AS mine JOIN pg_catalog.pg_namespace AS n ON n.nspname = ANY (pg_catalog.array_replace(mine.path, '$user', current_user::text))
    JOIN ({NAMED_SQL}) AS o ON o.schema = n.oid AND {IS_LOOKALIKE_SQL}
    GROUP BY o.owner
"""
