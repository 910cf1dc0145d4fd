"""Refuses pages while another role's view or function could stand in for a table or a column of ours that is missing.

Both run their owner's code as the role of the admin; fly2any.database.schema.stand_ins has the question.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from datetime import datetime
from time import monotonic

from django.db import OperationalError, connections
from django.http import HttpResponse

from fly2any.database.schema.stand_ins import read_missing
from fly2any.database.sql import fetch_one

SENTENCE = (
    "The database lacks tables or columns that this page needs, and another role may create others in their place, or the type of a column"
    " lets another role's code run. No page is shown until that is corrected: run manage.py migrate, and see manage.py dbstatus.\n"
)
# The run of the server, and the database.
PLACE_SQL = """
    SELECT pg_catalog.pg_postmaster_start_time(), d.oid::int8 FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()
"""
KNOWN_FOR = 600  # Seconds: a migration may drop a column that older code, which still serves, reads.
complete: dict[tuple[datetime, int], float] = {}  # The places where nothing was missing, and when that was asked.
_log = logging.getLogger("fly2any.schema")


def refused(get_response):
    """Answer 503 in place of every page that reads a database where something could stand in for a missing table or column."""

    def respond(request):
        answers: dict[str, bool] = {}

        def check(execute, statement, parameters, many, context):
            alias = context["connection"].alias
            if alias not in answers:
                answers[alias] = True  # For the statements of the question itself.
                answers[alias] = may_read(context["connection"])
            if not answers[alias]:
                raise OperationalError(SENTENCE)
            return execute(statement, parameters, many, context)

        with ExitStack() as stack:
            for alias in connections:
                stack.enter_context(connections[alias].execute_wrapper(check))
            response = get_response(request)
        return response if all(answers.values()) else HttpResponse(SENTENCE, status=503, content_type="text/plain")

    return respond


def may_read(connection) -> bool:
    """Return whether reading our tables over `connection` runs no code of another role.

    Once nothing is missing, only the owner of the tables can change that in the same database, so a new client asks again only after
    KNOWN_FOR. A restore puts another one into use, by dbrestore or in a server that is started again; a replica may lack what the primary
    already has. Only a client that keeps its session can reach no other database.
    """
    with connection.cursor():
        client = connection.connection
    may_be_shared = connection.settings_dict.get("POOLER") or hasattr(client, "transaction_path")
    if getattr(client, "is_complete", False) and not may_be_shared:
        return True
    place = tuple(fetch_one(connection, PLACE_SQL))
    missing = []
    if monotonic() - complete.get(place, -KNOWN_FOR) >= KNOWN_FOR and not (missing := read_missing(connection)):
        complete[place] = monotonic()
    client.is_complete = not missing
    first = next((one for one in sorted(missing, key=lambda one: not one.fault) if one.is_open), None)
    if first:
        _log.error("%s.%s %s", first.table, first.column, first.why)
    return first is None
