"""Refuses the writes of a request that would run code of another role: a sign-in, for example, runs the triggers of its tables."""

from __future__ import annotations

import logging

from django.db import connection
from django.http import HttpResponse

from fly2any.database.errors import Refusal
from fly2any.database.schema.write_refusals import checked_writes

SENTENCE = (
    "This would run code of another database role, so nothing was done. The admin's log and manage.py dbstatus name the code.\n"
)
_log = logging.getLogger("fly2any.schema")


def refused(get_response):
    """Check each write of a request, and answer 503 if one was refused and the page does not say so itself."""

    def respond(request):
        found: list[Refusal] = []
        checked = checked_writes(connection)

        def check(execute, statement, parameters, many, context):
            try:
                return checked(execute, statement, parameters, many, context)
            except Refusal as refusal:
                found.append(refusal)
                raise

        with connection.execute_wrapper(check):
            response = get_response(request)
        if not found or response.status_code < 500:
            return response
        _log.error("%s", found[0])
        return HttpResponse(SENTENCE, status=503, content_type="text/plain")

    return respond
