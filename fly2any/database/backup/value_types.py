"""Types whose values a dump treats specially: money, which pg_dump writes in the server's own form, and those that name roles."""

# Whether values of a column have one of these types, also within an array, a domain, a range or a row.
HOLDS_SQL = """
    EXISTS (
        WITH RECURSIVE holding (oid) AS (
            SELECT * FROM pg_catalog.unnest('{types}'::pg_catalog.regtype[]::pg_catalog.oid[])
            UNION
            SELECT made.oid FROM holding CROSS JOIN LATERAL (
                SELECT t.oid FROM pg_catalog.pg_type AS t WHERE holding.oid IN (t.typelem, t.typbasetype)
                UNION ALL
                SELECT m.oid FROM pg_catalog.pg_range AS r CROSS JOIN LATERAL (VALUES (r.rngtypid), (r.rngmultitypid)) AS m (oid)
                WHERE r.rngsubtype = holding.oid
                UNION ALL
                SELECT c.reltype FROM pg_catalog.pg_attribute AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.attrelid
                WHERE p.atttypid = holding.oid AND p.attnum > 0 AND p.attrelid >= 16384
            ) AS made (oid)
        )
        SELECT FROM pg_catalog.pg_attribute AS a JOIN holding ON holding.oid = a.atttypid
        WHERE a.attnum > 0 AND a.attrelid >= 16384)
"""
# pg_dump would write amounts of the type money in the server's lc_monetary.
MONEY_SQL = f"SELECT {HOLDS_SQL.format(types='{money}')}"
# All roles, if values may name any.
NAMED_BY_VALUES_SQL = f"""
    SELECT r.rolname FROM pg_catalog.pg_roles AS r
    WHERE r.rolname !~ '^pg_' AND {HOLDS_SQL.format(types="{regrole,aclitem}")}
    ORDER BY 1
"""
