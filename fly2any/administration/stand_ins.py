"""Refuses pages while another role's view or function could stand in for a table or a column of ours that is missing.

New code may run before its migrations. A query of a missing table then reads any view of that name, and of a missing column
calls any function of that name that takes a row of the table: both run their owner's code as the role of the admin.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import cache

from django.apps import apps
from django.db import OperationalError, connection, connections
from django.http import HttpResponse

from fly2any.database.server import read_home
from fly2any.database.sql import TRUSTED_ROLES_SQL, fetch_one, pinned
from fly2any.postgres.search_path import names_of

SENTENCE = (
    "The database lacks tables or columns that this page needs, and another role may create others in their place. No page is"
    " shown until they exist: run manage.py migrate, and see manage.py dbstatus.\n"
)
# The first table or column that is not there, or belongs to an untrusted role; and who could put something in place of one, or has:
# roles that may create in a schema of the search path, owners of functions of these names, and owners of relations.
MISSING_SQL = f"""
    WITH home AS (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = %(schema)s),
    trusted AS ({TRUSTED_ROLES_SQL.format(schema="(SELECT oid FROM home)")}), ours AS (
        SELECT c.oid, c.relname, c.relowner, c.relowner IN (SELECT oid FROM trusted) AS trusted
        FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY (%(tables)s::text[])
    ), missing AS (
        SELECT e.name, e.field
        FROM unnest(%(tables)s::text[], %(columns)s::text[]) AS e (name, field)
        WHERE NOT EXISTS (SELECT FROM ours AS o JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.oid
                          WHERE o.trusted AND o.relname = e.name AND a.attname = e.field AND NOT a.attisdropped)
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
    SELECT m.name || '.' || m.field, EXISTS (SELECT FROM makers AS k WHERE k.role NOT IN (SELECT oid FROM trusted))
    FROM missing AS m ORDER BY 1 LIMIT 1
"""
_log = logging.getLogger("fly2any.schema")
is_complete = False  # Once nothing is missing, only the owner of the tables can change that.


def refused(get_response):
    """Answer 503 in place of every page that reads the database while something could stand in for a missing table or column."""

    def respond(request):
        if is_complete:
            return get_response(request)
        answers: list[bool] = []

        def check(execute, statement, parameters, many, context):
            if not answers:
                answers.append(True)  # For the statements of the question itself.
                answers[0] = may_read()
            if not answers[0]:
                raise OperationalError(SENTENCE)
            return execute(statement, parameters, many, context)

        with ExitStack() as stack:
            for alias in connections:
                stack.enter_context(connections[alias].execute_wrapper(check))
            response = get_response(request)
        return response if all(answers) else HttpResponse(SENTENCE, status=503, content_type="text/plain")

    return respond


def may_read() -> bool:
    """Return whether reading our tables runs no code of another role; this process asks until no table or column is missing."""
    global is_complete
    if is_complete:
        return True
    missing, is_open = read_missing()
    is_complete = missing is None
    if is_open:
        _log.error("%s is missing, and another role could create something in its place", missing)
    return not is_open


def read_missing() -> tuple[str | None, bool]:
    """Return a table and column of our models that is missing, None if none is, and whether another role may stand in for it."""
    schema, _ = read_home(connection)
    with pinned(connection) as path:
        tables, columns = _columns()
        row = fetch_one(
            connection, MISSING_SQL, {"schema": schema, "tables": tables, "columns": columns, "path": [*names_of(path), schema]}
        )
    return row or (None, False)


@cache
def _columns() -> tuple[list[str], list[str]]:
    options = [model._meta for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    pairs = [(one.db_table, str(field.column)) for one in options if not one.proxy for field in one.local_concrete_fields]
    return [table for table, _ in pairs], [column for _, column in pairs]
