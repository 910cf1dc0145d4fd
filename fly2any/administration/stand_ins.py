"""Refuses pages while another role's view or function could stand in for a table or a column of ours that is missing.

Both run their owner's code as the role of the admin; fly2any.database.schema.stand_ins has the question.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

from django.db import OperationalError, connection, connections
from django.http import HttpResponse

from fly2any.database.schema.stand_ins import read_missing

SENTENCE = (
    "The database lacks tables or columns that this page needs, and another role may create others in their place, or the type of a column"
    " lets another role's code run. No page is shown until that is corrected: run manage.py migrate, and see manage.py dbstatus.\n"
)
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
    missing = read_missing(connection)
    is_complete = not missing
    first = next((one for one in sorted(missing, key=lambda one: not one.fault) if one.is_open), None)
    if first:
        _log.error("%s.%s %s", first.table, first.column, first.why)
    return first is None
