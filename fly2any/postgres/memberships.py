"""The roles that the role of the connection was made a member of by someone who could act as it anyway.

A role with ADMIN OPTION on a role may make any other role a member of it; before PostgreSQL 15, each role may do so for itself. So a
membership alone does not show that the joined role is trusted. It counts only if each of its steps was granted by a superuser; by the
owner of the database or a member of it; or by the role of the connection, a member of it, or a role that may make members of it, which
before 16 is each role with CREATEROLE.
"""

# A query for their oids, with the role's own. Each name and operator is qualified, and its aliases differ from those around it.
JOINED_SQL = """
    WITH RECURSIVE acting AS (
        SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) CURRENT_USER
    ), granting AS (
        SELECT could.oid FROM pg_catalog.pg_roles AS could
        JOIN pg_catalog.pg_database AS inside ON inside.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        WHERE pg_catalog.pg_has_role(could.oid, inside.datdba, 'MEMBER')
           OR could.rolcreaterole AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 160000
           OR pg_catalog.pg_has_role(could.oid, CURRENT_USER, 'MEMBER, MEMBER WITH ADMIN OPTION')
    ), joined AS (
        SELECT oid FROM acting
        UNION SELECT link.roleid FROM joined JOIN pg_catalog.pg_auth_members AS link ON link.member OPERATOR(pg_catalog.=) joined.oid
              WHERE link.grantor IN (SELECT oid FROM granting)
    )
    SELECT oid FROM joined
"""
