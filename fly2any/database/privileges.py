"""What the role of the connection lacks on our tables, so that the site or the admin would fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .findings import Finding, Severity
from .schema.ledgers import APPEND_ONLY, LEDGERS
from .sql import fetch_all, quote

# A column that an INSERT leaves to a sequence asks for USAGE on it; an identity column does not.
HELD_SQL = """
    SELECT c.relname AS "table",
           ARRAY(SELECT p.name FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (name, place)
                 WHERE has_table_privilege(c.oid, p.name) OR p.name = 'SELECT' AND has_any_column_privilege(c.oid, 'SELECT')
                    OR p.name IN ('INSERT', 'UPDATE') AND NOT EXISTS (
                           SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                             AND NOT has_column_privilege(c.oid, a.attnum, p.name))
                 ORDER BY p.place) AS held,
           ARRAY(SELECT DISTINCT s.oid::regclass::text FROM pg_catalog.pg_attrdef AS d
                 JOIN pg_catalog.pg_depend AS e ON e.classid = 'pg_catalog.pg_attrdef'::regclass AND e.objid = d.oid
                     AND e.refclassid = 'pg_catalog.pg_class'::regclass
                 JOIN pg_catalog.pg_class AS s ON s.oid = e.refobjid AND s.relkind = 'S'
                 WHERE d.adrelid = c.oid AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') AND NOT has_sequence_privilege(s.oid, 'UPDATE') END
                 ORDER BY 1) AS sequences
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND c.relkind IN ('r', 'p')
    ORDER BY c.relname COLLATE "C"
"""
ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
# What a role that serves the site or the admin does not need.
NEEDLESS = dict.fromkeys(LEDGERS, ALL[1:]) | dict.fromkeys(APPEND_ONLY, ALL[2:])


@dataclass(frozen=True, slots=True)
class Held:
    """What a role holds on a table of ours, and the sequences of its columns that the role may not use."""

    table: str
    privileges: frozenset[str]
    sequences: tuple[str, ...] = ()


def read_held(connection, schema: str | None, tables: list[str]) -> tuple[Held, ...]:
    """Return what the role of a session holds on each of `tables` that exists in `schema`."""
    found = fetch_all(connection, HELD_SQL, {"schema": schema, "tables": tables})
    return tuple(Held(table, frozenset(held), tuple(sequences)) for table, held, sequences in found)


def of_held(role: str, schema: str, held: tuple[Held, ...], *, may_use: bool, site: frozenset[str]) -> Iterator[Finding]:
    """Yield what a role lacks on some tables while it holds it on others.

    The tables of the admin and its packages are a group of their own: the site uses only those of `site`.
    """
    if held and not may_use and any(one.privileges for one in held):
        yield Finding(
            Severity.ERROR, "server.privileges", role,
            f"The role {role} holds privileges on our tables, but not USAGE on their schema {schema}, so it can read and write none of them.",
            f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)};", is_sql=True,
        )  # fmt: skip
        return
    grants: dict[tuple[str, ...], list[str]] = {}
    for group in ([one for one in held if one.table in site], [one for one in held if one.table not in site]):
        serves = {privilege for one in group if one.table not in LEDGERS for privilege in one.privileges}
        for one in group:
            wanted = serves - one.privileges - {*NEEDLESS.get(one.table, ())}
            if wanted:
                grants.setdefault(tuple(sorted(wanted, key=ALL.index)), []).append(one.table)
    if grants:
        lacking = "; ".join(f"{', '.join(privileges)} on {', '.join(sorted(tables))}" for privileges, tables in grants.items())
        cure = [
            f"GRANT {', '.join(privileges)} ON {', '.join(f'{quote(schema)}.{quote(table)}' for table in sorted(tables))} TO {quote(role)};"
            for privileges, tables in grants.items()
        ]
        yield Finding(
            Severity.WARNING, "server.privileges", role,
            f"The role {role} does not hold {lacking}, but holds the same on our other tables.", "\n".join(cure), is_sql=True,
        )  # fmt: skip
    closed = {name: one.table for one in held if "INSERT" in one.privileges for name in one.sequences}
    if closed:
        columns = ", ".join(f"{name} of {table}" for name, table in sorted(closed.items()))
        yield Finding(
            Severity.WARNING, "server.privileges", role,
            f"The role {role} may not use the sequence {columns}, so each of its INSERTs there fails.",
            f"GRANT USAGE ON SEQUENCE {', '.join(sorted(closed))} TO {quote(role)};", is_sql=True,
        )  # fmt: skip
