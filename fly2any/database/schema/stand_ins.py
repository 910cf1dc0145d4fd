"""What is missing of our tables and columns, and statements that would read another role's view, function or type in its place.

New code may run before its migrations. A query of a missing table then reads any view of that name, and of a missing column
calls any function of that name that takes a row of the table: both run their owner's code as the role of the session. So does a
query of a column whose type is not ours, where another role has an operator that fits that type better than PostgreSQL's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from django.apps import apps
from django.db import connection as default

from fly2any.postgres.search_path import names_of

from ..errors import Refusal
from ..server import read_home
from ..sql import asked_path, fetch_all, pinned
from ..trusted_roles import TRUSTED_ROLES_SQL
from .contract import catalog_of, load
from .lookalike_functions import IS_LOOKALIKE_SQL, NAMED_SQL
from .type_changes import BELOW_SQL

# Whether the type of the column `a`, or one below a domain or an array, belongs to an untrusted role: it may create casts of its type
# to text at any time, also of an enum, which queries then call.
OF_OTHERS_SQL = f"""
    EXISTS ({BELOW_SQL.format(type="a.atttypid")}
            SELECT FROM below JOIN pg_catalog.pg_type AS t ON t.oid = below.oid WHERE t.typowner NOT IN (SELECT oid FROM trusted))
"""
# Columns that are missing, or whose table or type belongs to an untrusted role; and whether such a role has put something in their place,
# or could: roles that may create in a schema of the search path, owners of functions of these names, and owners of relations.
# In that case also the columns whose type is not ours, and whether it has a function or operator for that type with a name of PostgreSQL's.
MISSING_SQL = f"""
    WITH home AS (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s),
    trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM home)")}), ours AS (
        SELECT c.oid, c.relname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS trusted
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY (%(tables)s::text[])
    ), missing AS (
        SELECT e.name, e.field, EXISTS (SELECT FROM ours AS o WHERE o.trusted AND o.relname = e.name) AS has_table,
               f.of_others IS TRUE AS of_others, CASE WHEN NOT f.of_others THEN f.type END AS type
        FROM unnest(%(tables)s::text[], %(columns)s::text[], %(types)s::text[]) AS e (name, field, type)
        LEFT JOIN LATERAL (SELECT a.atttypid >= 16384 AND {OF_OTHERS_SQL}, a.atttypid
                           FROM ours AS o JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.oid
                           WHERE o.trusted AND o.relname = e.name AND a.attname = e.field AND NOT a.attisdropped) AS f (of_others, type) ON true
        WHERE f.of_others IS DISTINCT FROM false OR f.type <> pg_catalog.to_regtype(e.type)
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
    SELECT m.name, m.field, m.has_table, CASE WHEN m.type IS NOT NULL THEN 'type' WHEN m.of_others THEN 'owner' ELSE '' END,
           CASE WHEN m.type IS NULL THEN m.of_others OR m.may_be_made ELSE m.has_lookalike END
    FROM (SELECT m.*, EXISTS (SELECT FROM makers AS k WHERE k.role NOT IN (SELECT oid FROM trusted)) AS may_be_made,
                 m.type IS NOT NULL AND EXISTS (SELECT FROM ({NAMED_SQL}) AS o WHERE o.schema IN (SELECT oid FROM path) AND m.type = ANY (o.types)
                                                  AND {IS_LOOKALIKE_SQL}) AS has_lookalike
          FROM missing AS m) AS m
    WHERE m.type IS NULL OR m.may_be_made OR m.has_lookalike ORDER BY 1, 2
"""
# A table whose name the search path resolves, and a column of an alias. Other statements of ours name the schema, and read which
# columns exist before.
READ = re.compile(r'\b(?:FROM|JOIN|INTO|UPDATE|ON) (?:ONLY )?"((?:[^"]|"")+)"(?!\.)')
QUERY = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|DECLARE|COPY|CREATE (UNIQUE )?INDEX)\b", re.I)
OF_ALIAS = re.compile(r'\b[A-Za-z]\w*\."')


@dataclass(frozen=True, slots=True)
class Missing:
    """A column of our models that is missing, perhaps with its table."""

    table: str
    column: str
    has_table: bool
    fault: str  # "" if it is missing; "owner": its type belongs to an untrusted role; "type": its type is not ours.
    is_open: bool  # Reading it may run code of such a role.

    @property
    def why(self) -> str:
        """Return what is wrong with it, after its name."""
        return {
            "owner": "has a type of another role",
            "type": "does not have our type, and another role has a function or operator for its type with the name of one of PostgreSQL's",
        }.get(self.fault, "is missing, and another role may create something in its place")

    def is_read_by(self, statement: str, *, is_pinned: bool = False) -> bool:
        """Return whether a statement reads it, or may; `is_pinned`: with a search path in which no other role's code is."""
        if self.fault == "type":  # Statements of ours join and compare columns without naming the table.
            return not is_pinned and f'"{self.table}"' in statement and QUERY.match(statement) is not None
        if not self.has_table:
            return self.table in READ.findall(statement)
        return f'"{self.table}"' in statement and f'."{self.column}"' in statement


def read_missing(connection) -> list[Missing]:
    """Return the columns of our models that are missing, and those of other types that another role may have chosen, or prepared for."""
    schema, _ = read_home(connection)
    if schema is None:
        return []
    with pinned(connection) as path:
        wanted = {"schema": schema, **_columns(), "path": [*names_of(path), schema]}
        return [Missing(*row) for row in fetch_all(connection, MISSING_SQL, wanted)]


@cache
def _columns() -> dict[str, list[str]]:
    options = [
        model._meta for model in apps.get_models(include_auto_created=True) if model._meta.managed and not model._meta.proxy
    ]
    # A migration may have given a column of a package another type than its model has now.
    contracted = {(column.table, column.name): column.type for column in catalog_of(load().expected(load().migrations)).columns}
    found = [
        (one.db_table, name := str(field.column), contracted.get((one.db_table, name)) or str(field.db_type(default)))
        for one in options
        for field in one.local_concrete_fields
    ]
    return dict(zip(("tables", "columns", "types"), map(list, zip(*found, strict=True)), strict=True))


def refuse_stand_ins(connection) -> None:
    """Make `connection` raise Refusal at the first statement that reads what is missing, while another role may stand in for it.

    It asks at the first statement that reads a table of ours, and then, while something is missing, before it refuses one.
    """
    known: list[Missing] | None = None
    asks = False

    def check(execute, statement, parameters, many, context):
        nonlocal known, asks
        is_pinned = asked_path(connection) is not None
        if not asks and known != [] and isinstance(statement, str) and _is_concerned(statement, known, is_pinned=is_pinned):
            asks = True
            try:
                known = [one for one in read_missing(connection) if one.is_open]
            finally:
                asks = False
            if found := next((one for one in known if one.is_read_by(statement, is_pinned=is_pinned)), None):
                cure = (
                    "change the column back to its own type with the cure that `manage.py dbstatus` prints, and run the command again"
                    if found.fault
                    else "run `manage.py migrate`; if nothing is pending, run `manage.py dbstatus`"
                )
                raise Refusal(f"{found.table}.{found.column} {found.why}, whose code this command would run: {cure}.")
        return execute(statement, parameters, many, context)

    connection.execute_wrappers.append(check)


def _is_concerned(statement: str, known: Iterable[Missing] | None, *, is_pinned: bool) -> bool:
    if known is not None:
        return any(one.is_read_by(statement, is_pinned=is_pinned) for one in known)
    tables = {*_columns()["tables"]}
    return not tables.isdisjoint(READ.findall(statement)) or (
        OF_ALIAS.search(statement) is not None and any(f'"{table}"' in statement for table in tables)
    )
