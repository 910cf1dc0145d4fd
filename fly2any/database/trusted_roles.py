"""Which roles are trusted: their code may run as the role of the connection.

schema/untrusted_code.py finds code of other roles, and docs/reference/findings.md (tables.untrusted) describes them.
"""

from fly2any.postgres.memberships import JOINED_SQL

from .sql import PEOPLE, RECORD, literal

# These are:
# - that role, superusers and the owner of the database;
# - if one of these owns the schema with the given oid, the roles to which it gave CREATE on it WITH GRANT OPTION;
# - for a role that is not a superuser, the owners of that schema, of the people's table and of the migration ledger, if it is a member of
#   them, and not because only they wanted it (memberships.py).
# Nothing else makes an owner trusted, nor does the right to create tables or schemas: a role may have created them before the site did.
# Predefined roles are not trusted, because any of their members may give them a table. Only pg_database_owner is: its one member is
# the owner of the database.
# Its aliases differ from those of the queries that contain it, because the schema is given by one of theirs.
IS_MEMBER = f"""NOT self.rolsuper AND owner.oid <> self.oid AND owner.rolname !~ '^pg_' AND pg_catalog.pg_has_role(owner.oid, 'USAGE')
                AND owner.oid IN ({JOINED_SQL})"""
TRUSTED_ROLES_SQL = f"""
    SELECT always.oid FROM pg_catalog.pg_roles AS always
    WHERE always.rolsuper OR always.rolname IN (current_user, 'pg_database_owner')
       OR always.oid = (SELECT this.datdba FROM pg_catalog.pg_database AS this WHERE this.datname = current_database())
    UNION ALL SELECT given.role
              FROM pg_catalog.pg_namespace AS place JOIN pg_catalog.pg_roles AS owner ON owner.oid = place.nspowner
              JOIN pg_catalog.pg_roles AS self ON self.rolname = current_user
              JOIN pg_catalog.pg_database AS this ON this.datname = current_database()
              CROSS JOIN LATERAL (SELECT owner.oid UNION ALL SELECT may.grantee FROM pg_catalog.aclexplode(place.nspacl) AS may
                                  WHERE may.privilege_type = 'CREATE' AND may.is_grantable) AS given (role)
              WHERE place.oid = {{schema}}
                AND (owner.rolsuper OR owner.oid IN (self.oid, this.datdba) OR owner.rolname = 'pg_database_owner' OR {IS_MEMBER})
    UNION ALL SELECT owner.oid
              FROM pg_catalog.pg_class AS marking JOIN pg_catalog.pg_roles AS owner ON owner.oid = marking.relowner
              JOIN pg_catalog.pg_roles AS self ON self.rolname = current_user
              WHERE marking.relnamespace = {{schema}} AND marking.relkind IN ('r', 'p')
                AND marking.relname IN ({literal(PEOPLE)}, {literal(RECORD)}) AND {IS_MEMBER}
"""
# Whether the relation `c` is a table of such a role: reading any other may run its owner's code, in a view, a policy or an index.
TRUSTED_SQL = f"(c.relkind IN ('r', 'p') AND c.relowner IN ({TRUSTED_ROLES_SQL.format(schema='c.relnamespace')}))"
