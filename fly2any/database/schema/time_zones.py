"""The time zones in which sessions of the roles that write to our tables begin."""

from __future__ import annotations

from ..session_defaults import HIDDEN_ZONE_SQL

# The initial time zone of sessions of each role that writes to our tables, by where it is set; postgresql.conf is not visible here.
ZONES_SQL = """
    WITH setting AS (
        SELECT z.setrole AS role, z.setdatabase <> 0 AS here, pg_catalog.split_part(c, '=', 2) AS zone
        FROM pg_catalog.pg_db_role_setting AS z CROSS JOIN LATERAL unnest(z.setconfig) AS c
        WHERE lower(c) LIKE 'timezone=%%'
          AND z.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
    ), effective AS (
        SELECT DISTINCT ON (r.oid) r.rolname, s.zone, s.role <> 0 AS own, s.here
        FROM pg_catalog.pg_roles AS r JOIN setting AS s ON s.role IN (0, r.oid)
        WHERE r.rolcanlogin AND pg_catalog.has_database_privilege(r.oid, current_database(), 'CONNECT')
          AND EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                      WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p')
                        AND pg_catalog.has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE'))
        ORDER BY r.oid, s.role <> 0 DESC, s.here DESC
    )
    SELECT DISTINCT CASE WHEN own THEN rolname WHEN here THEN current_database() ELSE 'ALL' END,
           CASE WHEN own THEN 'the role ' || rolname WHEN here THEN current_database() ELSE 'all roles' END, zone,
           CASE WHEN here AND NOT own THEN 'ALTER DATABASE ' || quote_ident(current_database())
                ELSE 'ALTER ROLE ' || CASE WHEN own THEN quote_ident(rolname) ELSE 'ALL' END
                     || CASE WHEN here THEN ' IN DATABASE ' || quote_ident(current_database()) ELSE '' END END
    FROM effective WHERE pg_catalog.lower(zone) <> ALL (%(utc)s)
    ORDER BY 1
"""
# Also that of this session, before Django sets UTC: what the server, the database or the role sets.
OF_WRITERS_SQL = f"""
    SELECT DISTINCT w.zone FROM ({ZONES_SQL}) AS w (place, what, zone, alter)
    UNION
    SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name = 'TimeZone' AND pg_catalog.lower(s.reset_val) <> ALL (%(utc)s)
    UNION
    SELECT 'the zone of the server' WHERE {HIDDEN_ZONE_SQL.format(schema="%(schema)s")}
    ORDER BY 1
"""
