"""What Citus changes when it converts a table, and what is therefore restored: the values of identity columns, and privileges.

It creates each table anew. Then sequences begin at 1, and default privileges apply again, which may give a role more than it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..sql import ask, execute, fetch_all, literal, quote

# The identity columns of a schema, with the text that creates their sequence again.
IDENTITIES_SQL = """
    SELECT c.relname::text, a.attname::text,
           pg_catalog.format(
               'GENERATED %%s AS IDENTITY (SEQUENCE NAME %%I.%%I INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s START WITH %%s CACHE %%s%%s)',
               CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, n.nspname, o.relname,
               s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END),
           pg_catalog.pg_sequence_last_value(s.seqrelid), s.seqrelid::bigint
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
        AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
    JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = d.objid JOIN pg_catalog.pg_class AS o ON o.oid = s.seqrelid
    WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND a.attidentity <> '' AND {which}
    ORDER BY c.relname COLLATE "C"
"""
ALL_IDENTITIES_SQL = IDENTITIES_SQL.format(which="true")
OF_CITUS = "c.oid IN (SELECT p.logicalrelid::oid FROM pg_catalog.pg_dist_partition AS p)"
# Those of the owner are left out: NULL means that it has all, and the new table may list them.
PRIVILEGES_SQL = """
    SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname::text, COALESCE(l.attname::text, ''),
           a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
           a.is_grantable
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT NULL::name, c.relacl UNION ALL
        SELECT t.attname, t.attacl FROM pg_catalog.pg_attribute AS t WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped
    ) AS l (attname, acl)
    CROSS JOIN LATERAL pg_catalog.aclexplode(l.acl) AS a
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'S') AND a.grantee <> c.relowner
"""
# Citus refuses to change an identity column on all nodes; on this one it is enough.
HERE_ONLY = "SET LOCAL citus.enable_ddl_propagation TO {}"


@contextmanager
def kept(connection, schema: str, *, undoing: bool = False) -> Iterator[None]:
    """Keep, in a transaction in which Citus converts tables of `schema`, their privileges and what their sequences return next.

    `undoing` is for undistribute_table(), which does not convert a table with an identity column: such columns lack it meanwhile.
    """
    place = {"schema": schema}
    privileges = {*fetch_all(connection, PRIVILEGES_SQL, place)}
    identities = fetch_all(connection, IDENTITIES_SQL.format(which=OF_CITUS) if undoing else ALL_IDENTITIES_SQL, place)
    if undoing and identities:
        execute(connection, HERE_ONLY.format("off"))
        for table, column, *_ in identities:
            execute(connection, f"ALTER TABLE {quote(schema)}.{quote(table)} ALTER COLUMN {quote(column)} DROP IDENTITY")
        execute(connection, HERE_ONLY.format("on"))
    yield
    if undoing:
        for table, column, identity, *_ in identities:
            execute(connection, f"ALTER TABLE {quote(schema)}.{quote(table)} ALTER COLUMN {quote(column)} ADD {identity}")
    same = {(table, column): number for table, column, *_, number in fetch_all(connection, ALL_IDENTITIES_SQL, place)}
    for table, column, _, last, number in identities:
        if same.get((table, column)) != number:  # Others may use a sequence that was not created again.
            _set(connection, f"{quote(schema)}.{quote(table)}", column, last)
    for kind, name, column, privilege, role, _ in sorted({*fetch_all(connection, PRIVILEGES_SQL, place)} - privileges):
        execute(connection, f"REVOKE {_of(privilege, column)} ON {kind} {quote(schema)}.{quote(name)} FROM {role}")
    # Read again, because a REVOKE on a table revokes the privilege on its columns too.
    for kind, name, column, privilege, role, grantable in sorted(privileges - {*fetch_all(connection, PRIVILEGES_SQL, place)}):
        option = " WITH GRANT OPTION" if grantable else ""
        execute(connection, f"GRANT {_of(privilege, column)} ON {kind} {quote(schema)}.{quote(name)} TO {role}{option}")


def _set(connection, table: str, column: str, last: int | None) -> None:
    """Let the sequence of a column continue after `last`, and after the values in use."""
    highest = f"GREATEST(%s::bigint, (SELECT pg_catalog.max({quote(column)}) FROM {table}))"
    sequence = f"pg_catalog.pg_get_serial_sequence({literal(table)}, {literal(column)})"
    ask(connection, f"SELECT pg_catalog.setval({sequence}, h) FROM (SELECT {highest}) AS highest (h) WHERE h > 0", [last])


def _of(privilege: str, column: str) -> str:
    return f"{privilege} ({quote(column)})" if column else privilege
