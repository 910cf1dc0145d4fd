"""The privileges that owners need while a role that is no superuser restores their objects, and that they may have lost since.

PostgreSQL gives an object only to a role that may create one in its schema, and a publication only to one with CREATE on the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..sql import execute, fetch_all, quote

# What the roles may not create in, and this role may grant: the schemas and the database, each with the names of the roles.
LACKING_SQL = """
    SELECT p.place, pg_catalog.array_agg(r.rolname::text ORDER BY r.rolname)
    FROM (SELECT 'SCHEMA ' || pg_catalog.quote_ident(n.nspname) AS place, n.oid AS schema, n.nspowner AS owner FROM pg_catalog.pg_namespace AS n
          WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
          UNION ALL
          SELECT 'DATABASE ' || pg_catalog.quote_ident(d.datname), NULL, d.datdba FROM pg_catalog.pg_database AS d
          WHERE d.datname = pg_catalog.current_database()) AS p
    JOIN pg_catalog.pg_roles AS r ON r.rolname = ANY (%s::text[]) AND NOT CASE
        WHEN p.schema IS NULL THEN pg_catalog.has_database_privilege(r.oid, (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()), 'CREATE')
        ELSE pg_catalog.has_schema_privilege(r.oid, p.schema, 'CREATE') END
    WHERE pg_catalog.pg_has_role(p.owner, 'USAGE')
    GROUP BY p.place ORDER BY p.place
"""


@contextmanager
def may_create(connection, owners: Sequence[str]) -> Iterator[None]:
    """Run the block while the roles `owners` may create objects in the schemas of the new database, and publications in it.

    If the block raises, the privileges remain: the database is then dropped.
    """
    lacking = [(place, ", ".join(map(quote, roles))) for place, roles in fetch_all(connection, LACKING_SQL, [list(owners)])]
    for place, roles in lacking:
        execute(connection, f"GRANT CREATE ON {place} TO {roles}")
    connection.close()
    yield
    for place, roles in lacking:
        execute(connection, f"REVOKE CREATE ON {place} FROM {roles}")
