"""Triggers that set columns before an INSERT stores them: a NOT NULL, a key or a check of such a column does not judge its default."""

from __future__ import annotations

from ..sql import EXPLICIT_TRIGGER_SQL

# An assignment to a column of NEW. Without a colon, only at the beginning of a statement: elsewhere it is a comparison.
ASSIGNED = r"(?:new\.(\x22?)(\w+)\1\s*:=|(?:;|\mbegin|\mthen|\melse|\mloop)\s*new\.(\x22?)(\w+)\3\s*=|(?<=\minto\s+(?:strict\s+)?(?:[\w.\x22]+\s*,\s*)*)new\.(\x22?)(\w+)\5)"
SOURCE = r"pg_catalog.regexp_replace(pg_catalog.regexp_replace(p.prosrc, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g')"  # without comments
# Of the table `c`: each trigger that runs before an INSERT, with a column that it sets according to its source, or that its source in
# another language or one of its arguments names, as for tsvector_update_trigger.
FILLING_SQL = f"""
    ARRAY(SELECT DISTINCT ARRAY[t.tgname::text, a.attname::text]
          FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
          CROSS JOIN LATERAL (
              SELECT CASE WHEN COALESCE(m.name[1], m.name[3], m.name[5]) = '' THEN pg_catalog.lower(COALESCE(m.name[2], m.name[4], m.name[6]))
                          ELSE COALESCE(m.name[2], m.name[4], m.name[6]) END
              FROM pg_catalog.regexp_matches({SOURCE}, '{ASSIGNED}', 'gi') AS m (name) WHERE l.lanname = 'plpgsql'
              UNION ALL
              SELECT m.name[1] FROM pg_catalog.regexp_matches(p.prosrc, '\\m\\w+\\M', 'g') AS m (name) WHERE l.lanname NOT IN ('plpgsql', 'c', 'internal')
              UNION ALL
              SELECT w.name FROM pg_catalog.regexp_split_to_table(pg_catalog.encode(t.tgargs, 'escape'), '\\\\000') AS w (name)
          ) AS s (name)
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname::text = s.name AND NOT a.attisdropped
          WHERE t.tgrelid = c.oid AND {EXPLICIT_TRIGGER_SQL} AND t.tgenabled IN ('O', 'A') AND t.tgtype & 7 = 7
          ORDER BY 1)
"""
