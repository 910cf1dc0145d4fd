"""The pages for errors that no view answers, and what Django's error reports hide."""

import re
import sys

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.views import defaults
from django.views.debug import SafeExceptionReporterFilter

from fly2any.database.errors import sqlstate

READ_ONLY = "25006"


class ExceptionReporterFilter(SafeExceptionReporterFilter):
    """Django's filter, which here also hides URLs (POSTGRES_URL contains the password), variables that contain a password, and the driver's variables."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|URL|DSN", re.IGNORECASE)

    def get_traceback_frame_variables(self, request, tb_frame):
        if tb_frame.f_globals.get("__name__", "").startswith(("django.db.", "psycopg", "fly2any.postgres.")):
            return []  # They hold statements and their values.
        secrets = {password for database in settings.DATABASES.values() if (password := database.get("PASSWORD"))}
        return [
            (name, self.cleansed_substitute if any(secret in repr(value) for secret in secrets) else value)
            for name, value in super().get_traceback_frame_variables(request, tb_frame)
        ]


def server_error(request):
    """Answer an error: with 503 where the database is unreachable or read-only, which is not the client's fault.

    A request that writes may have been committed before the error: the answer to its COMMIT may be lost, or the session, which is
    saved after the view, may fail. Only a read-only database rules that out.
    """
    error = sys.exc_info()[1]
    only_reads = sqlstate(error) == READ_ONLY
    if only_reads or isinstance(error, OperationalError | InterfaceError):
        may_be_saved = request.method == "POST" and not only_reads
        page = render_to_string("503.html", {"only_reads": only_reads, "may_be_saved": may_be_saved})
        return HttpResponse(page, status=503)
    return defaults.server_error(request)
