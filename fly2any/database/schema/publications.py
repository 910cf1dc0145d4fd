"""The publications that make UPDATE and DELETE of a table fail, as parts of the catalogue's query."""

from __future__ import annotations

# The publications of updates or deletes of the table `c`, or of a table that it is a partition of: PostgreSQL rejects these where
# rows have no replica identity. Published schemas are read from pg_depend, because PostgreSQL 14 lacks pg_publication_namespace.
PUBLICATIONS_SQL = """
    ARRAY(SELECT p.pubname::text FROM pg_catalog.pg_publication AS p
          WHERE (p.pubupdate OR p.pubdelete) AND {which} AND (p.puballtables OR EXISTS (
              SELECT FROM (SELECT c.oid, c.relnamespace UNION SELECT a.oid, a.relnamespace FROM pg_catalog.pg_class AS a
                           WHERE a.oid IN (SELECT pg_catalog.pg_partition_ancestors(c.oid))) AS one
              WHERE EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS r WHERE r.prpubid = p.oid AND r.prrelid = one.oid)
                 OR EXISTS (SELECT FROM pg_catalog.pg_depend AS s JOIN pg_catalog.pg_depend AS n USING (classid, objid)
                            WHERE s.classid = pg_catalog.to_regclass('pg_catalog.pg_publication_namespace')::pg_catalog.oid
                              AND s.refclassid = 'pg_catalog.pg_publication'::regclass AND s.refobjid = p.oid
                              AND n.refclassid = 'pg_catalog.pg_namespace'::regclass AND n.refobjid = one.relnamespace)))
          ORDER BY 1)
"""
# Of these, the ones that do not publish a generated column of the replica identity, which PostgreSQL rejects from 18 on.
UNPUBLISHED_SQL = """EXISTS (
    SELECT FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.attgenerated <> ''
      AND (a.attgenerated = 'v' OR to_jsonb(p) ->> 'pubgencols' <> 's') AND to_jsonb(p) ->> 'pubgencols' IS NOT NULL
      AND (c.relreplident = 'f' OR EXISTS (
          SELECT FROM pg_catalog.pg_index AS i
          WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END
            AND a.attnum = ANY (i.indkey::int2[]))))"""
# The publications of updates or deletes of `c` that leave out a column of its replica identity, or filter by a column outside it:
# PostgreSQL rejects both. Before PostgreSQL 15 pg_publication_rel has no prattrs, so it is read from JSON, where it is the text `[1, 2]`.
NARROWED_SQL = """
    ARRAY(SELECT p.pubname::text FROM pg_catalog.pg_publication AS p JOIN pg_catalog.pg_publication_rel AS r ON r.prpubid = p.oid AND r.prrelid = c.oid
          CROSS JOIN LATERAL (SELECT ARRAY(SELECT k FROM pg_catalog.pg_index AS i, pg_catalog.unnest(i.indkey::int2[]) AS k
                                           WHERE i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END)) AS ident (keys)
          WHERE (p.pubupdate OR p.pubdelete)
            AND (to_jsonb(r) ->> 'prattrs' IS NOT NULL AND (c.relreplident = 'f' OR NOT ident.keys <@ ARRAY(
                     SELECT m[1]::int2 FROM pg_catalog.regexp_matches(to_jsonb(r) ->> 'prattrs', '\\d+', 'g') AS m))
                 OR to_jsonb(r) ->> 'prqual' IS NOT NULL AND c.relreplident <> 'f' AND EXISTS (
                     SELECT FROM pg_catalog.pg_depend AS d
                     WHERE d.classid = 'pg_catalog.pg_publication_rel'::regclass AND d.objid = r.oid
                       AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
                       AND NOT d.refobjsubid::int2 = ANY (ident.keys)))
          ORDER BY 1)
"""
