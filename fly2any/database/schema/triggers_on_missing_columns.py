"""Triggers that set or read a column which their table does not have, such as `updated_at` for "updatedAt": every write that fires one fails."""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL

# The statements with which the body of a function in PL/pgSQL begins, if they set columns of NEW.
BEGINNING = r"^\s*begin\s+((new\.\x22?\w+\x22?\s*:?=\s*([^;'']|''[^'']*'')*;\s*)+)"
# Of the table `c`: each such trigger, the writes that fire it, and the column. A trigger with a condition, or on some columns only, may
# never be fired; a function with a handler may catch the error.
LACKING_SQL = f"""
    ARRAY(SELECT DISTINCT ON (t.tgname) ARRAY[t.tgname::text, pg_catalog.concat_ws(' and ', CASE WHEN t.tgtype & 4 <> 0 THEN 'INSERT' END,
                                                            CASE WHEN t.tgtype & 16 <> 0 THEN 'UPDATE' END), s.name]
          FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
          JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
          CROSS JOIN LATERAL (
              SELECT CASE WHEN m.name[1] = '' THEN pg_catalog.lower(m.name[2]) ELSE m.name[2] END
              FROM pg_catalog.regexp_matches(p.prosrc, '{BEGINNING}', 'i') AS b (text)
              CROSS JOIN LATERAL pg_catalog.regexp_matches(b.text[1], '\\mnew\\.(\\x22?)(\\w+)\\1\\s*:?=', 'gi') AS m (name)
              WHERE l.lanname = 'plpgsql' AND p.prosrc !~* '\\mexception\\M'
              UNION ALL
              SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\\000', 1)
              WHERE l.lanname = 'c' AND p.prosrc = 'moddatetime'
              UNION ALL
              SELECT w.name FROM pg_catalog.regexp_split_to_table(pg_catalog.encode(t.tgargs, 'escape'), '\\\\000') WITH ORDINALITY AS w (name, place)
              WHERE l.lanname = 'internal' AND w.name <> ''
                AND (p.prosrc = 'tsvector_update_trigger_bycolumn' OR p.prosrc = 'tsvector_update_trigger_byid' AND w.place <> 2)
          ) AS s (name)
          WHERE t.tgrelid = c.oid AND {EXPLICIT_TRIGGER_SQL} AND t.tgenabled NOT IN ('D', 'R') AND t.tgtype & 1 <> 0 AND t.tgtype & 20 <> 0
            AND t.tgqual IS NULL AND pg_catalog.cardinality(t.tgattr::int2[]) = 0
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname::text = s.name AND NOT a.attisdropped)
          ORDER BY t.tgname, s.name)
"""
