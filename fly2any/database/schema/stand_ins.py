"""What is missing of our tables and columns, and statements that would read another role's view, function or type in its place.

New code may run before its migrations. A query of a missing table then reads any view of that name, and of a missing column
calls any function of that name that takes a row of the table: both run their owner's code as the role of the session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from django.apps import apps

from fly2any.postgres.search_path import names_of

from ..errors import Refusal
from ..server import read_home
from ..sql import TRUSTED_ROLES_SQL, fetch_all, pinned
from .conversions import BELOW_SQL

# Whether the type of the column `a`, or one below a domain or an array, belongs to an untrusted role: it may create casts of its type
# to text at any time, also of an enum, which queries then call.
OF_OTHERS_SQL = f"""
    EXISTS ({BELOW_SQL.format(type="a.atttypid")}
            SELECT FROM below JOIN pg_catalog.pg_type AS t ON t.oid = below.oid WHERE t.typowner NOT IN (SELECT oid FROM trusted))
"""
# The tables and columns that are not there, or belong to an untrusted role, or have its type; and whether one could put something in place of one, or has:
# roles that may create in a schema of the search path, owners of functions of these names, and owners of relations.
MISSING_SQL = f"""
    WITH home AS (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s),
    trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM home)")}), ours AS (
        SELECT c.oid, c.relname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS trusted
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY (%(tables)s::text[])
    ), missing AS (
        SELECT e.name, e.field, EXISTS (SELECT FROM ours AS o WHERE o.trusted AND o.relname = e.name) AS has_table,
               f.of_others IS TRUE AS of_others
        FROM unnest(%(tables)s::text[], %(columns)s::text[]) AS e (name, field)
        LEFT JOIN LATERAL (SELECT a.atttypid >= 16384 AND {OF_OTHERS_SQL} FROM ours AS o JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.oid
                           WHERE o.trusted AND o.relname = e.name AND a.attname = e.field AND NOT a.attisdropped) AS f (of_others) ON true
        WHERE f.of_others IS DISTINCT FROM false
    ), path AS (
        SELECT n.oid, n.nspowner, n.nspacl FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname IN (SELECT CASE s.name WHEN '$user' THEN current_user ELSE s.name END FROM pg_catalog.unnest(%(path)s::text[]) AS s (name))
    ), makers AS (
        SELECT CASE WHEN a.grantee = 'pg_database_owner'::regrole
                    THEN (SELECT d.datdba FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) ELSE a.grantee END AS role
        FROM path AS p, LATERAL pg_catalog.aclexplode(COALESCE(p.nspacl, pg_catalog.acldefault('n', p.nspowner))) AS a
        WHERE a.privilege_type = 'CREATE'
        UNION ALL SELECT p.proowner FROM pg_catalog.pg_proc AS p JOIN missing AS m ON p.proname = m.field
        WHERE p.pronamespace IN (SELECT oid FROM path)
        UNION ALL SELECT o.relowner FROM ours AS o
    )
    SELECT m.name, m.field, m.has_table, m.of_others,
           m.of_others OR EXISTS (SELECT FROM makers AS k WHERE k.role NOT IN (SELECT oid FROM trusted))
    FROM missing AS m ORDER BY 1, 2
"""
# A table whose name the search path resolves, and a column of an alias. Other statements of ours name the schema, and read which
# columns exist before.
READ = re.compile(r'\b(?:FROM|JOIN|INTO|UPDATE) (?:ONLY )?"((?:[^"]|"")+)"(?!\.)')
OF_ALIAS = re.compile(r'\b[A-Za-z]\w*\."')


@dataclass(frozen=True, slots=True)
class Missing:
    """A column of our models that is missing, perhaps with its table."""

    table: str
    column: str
    has_table: bool
    of_others: bool = False  # It is there, but its type belongs to an untrusted role.

    def is_read_by(self, statement: str) -> bool:
        if not self.has_table:
            return self.table in READ.findall(statement)
        return f'"{self.table}"' in statement and f'."{self.column}"' in statement


def read_missing(connection) -> tuple[list[Missing], bool]:
    """Return the columns of our models that are missing, and whether another role may stand in for one of them."""
    schema, _ = read_home(connection)
    if schema is None:
        return [], False
    with pinned(connection) as path:
        tables, columns = _columns()
        wanted = {"schema": schema, "tables": tables, "columns": columns, "path": [*names_of(path), schema]}
        rows = fetch_all(connection, MISSING_SQL, wanted)
    return [Missing(*one) for *one, _ in rows], any(is_open for *_, is_open in rows)


@cache
def _columns() -> tuple[list[str], list[str]]:
    options = [model._meta for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    pairs = [(one.db_table, str(field.column)) for one in options if not one.proxy for field in one.local_concrete_fields]
    return [table for table, _ in pairs], [column for _, column in pairs]


def refuse_stand_ins(connection) -> None:
    """Make `connection` raise Refusal at the first statement that reads what is missing, while another role may stand in for it.

    It asks at the first statement that reads a table of ours, and then, while something is missing, before it refuses one.
    """
    known: list[Missing] | None = None
    asks = False

    def check(execute, statement, parameters, many, context):
        nonlocal known, asks
        if not asks and known != [] and isinstance(statement, str) and _is_concerned(statement, known):
            asks = True
            try:
                missing, is_open = read_missing(connection)
            finally:
                asks = False
            known = missing if is_open else []
            if found := next((one for one in known if one.is_read_by(statement)), None):
                if found.of_others:
                    raise Refusal(
                        f"The type of {found.table}.{found.column} belongs to another role, whose code this command would run: change the"
                        " column back to its own type with the cure that `manage.py dbstatus` prints, and run the command again."
                    )
                raise Refusal(
                    f"{found.table}.{found.column} is missing, and another role may create something in its place, whose code"
                    " this command would run: run `manage.py migrate`; if nothing is pending, run `manage.py dbstatus`."
                )
        return execute(statement, parameters, many, context)

    connection.execute_wrappers.append(check)


def _is_concerned(statement: str, known: Iterable[Missing] | None) -> bool:
    if known is not None:
        return any(one.is_read_by(statement) for one in known)
    tables = {*_columns()[0]}
    return not tables.isdisjoint(READ.findall(statement)) or (
        OF_ALIAS.search(statement) is not None and any(f'"{table}"' in statement for table in tables)
    )
