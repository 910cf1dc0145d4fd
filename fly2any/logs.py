"""The log of this process: requests and all other messages, as text or as JSON, without passwords.

postgres/error_text.py has already cut the errors of the server to their messages, without DETAIL.
"""

from __future__ import annotations

import logging
import re
import time
from datetime import UTC, datetime

from django.core.exceptions import PermissionDenied
from django.utils.encoding import escape_uri_path
from pythonjsonlogger.json import JsonFormatter

from fly2any.database.errors import without_password

DISALLOWED = "django.security.DisallowedHost"
ASKED_OFTEN = ("/health/live", "/health/ready", "/metrics")  # Requested by machines every few seconds.
requests = logging.getLogger("fly2any.request")


def logged(get_response):
    """Log each request when it is answered, with its path but without the query string, which may contain an address."""

    def respond(request):
        begun = time.monotonic()
        path = escape_uri_path(request.path)[:500]  # Without characters that would begin a new line.
        response = get_response(request)
        if request.path_info not in ASKED_OFTEN and not request.path_info.startswith("/static/"):
            user = getattr(request, "_cached_user", None)  # Only if it was loaded already: a log line is not worth a query.
            requests.info(
                "%s %s %s", request.method, path, response.status_code,
                extra={
                    "method": request.method, "path": path, "status": response.status_code,
                    "milliseconds": round(1000 * (time.monotonic() - begun)), "user_id": getattr(user, "pk", None),
                },
            )  # fmt: skip
        return response

    return respond


class Unquoted(logging.Filter):
    """gunicorn's log without client input: gunicorn quotes malformed requests, and URLs with their query."""

    def filter(self, record):
        record.msg = re.sub(r"^(Invalid request from ip=\S+ [\w ]*).*", r"\1", str(record.msg), flags=re.DOTALL)
        if record.msg.startswith("Error handling request") and record.args:
            *method, address = record.args
            record.args = (*method, str(address).partition("?")[0])
        return True


class Unasked(logging.Filter):
    """Django's security log without client input: a query in a Referer, or the name of a filter, may be an address."""

    def filter(self, record):
        kind = record.name.removeprefix("django.security.")
        if kind == record.name or record.name == DISALLOWED:
            return True
        if kind == "csrf":
            record.msg, record.args = re.sub(r"\?\S*", "", record.getMessage()), ()
        else:  # For a refused request, the logger is named after the error, whose message quotes the input.
            record.msg, record.args = f"Refused with {kind}.", ()
            record.exc_info = record.exc_text = None
        return True


def without_needless_traceback(record):
    """Remove the traceback of a request that was refused as intended: it adds nothing to the message."""
    if record.name == DISALLOWED or (record.exc_info and isinstance(record.exc_info[1], PermissionDenied)):
        record.exc_info = record.exc_text = None


class Text(logging.Formatter):
    """A line for a person, without a password."""

    def __init__(self):
        super().__init__("{asctime} {levelname} {name}: {message}", style="{")

    def format(self, record):
        without_needless_traceback(record)
        return without_password(super().format(record))


class Json(JsonFormatter):
    """A line of JSON, without a password."""

    def __init__(self):
        names = {"asctime": "time", "levelname": "level", "name": "logger"}
        super().__init__("{asctime} {levelname} {name} {message}", style="{", rename_fields=names, json_ensure_ascii=False)

    def formatTime(self, record, datefmt=None):
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def format(self, record):
        record.__dict__.pop("request", None)  # Django passes the request object.
        without_needless_traceback(record)
        return super().format(record)

    def jsonify_log_record(self, log_data):
        # Before values are escaped, because an escaped password would not be recognised.
        return super().jsonify_log_record(
            {key: without_password(value) if isinstance(value, str) else value for key, value in log_data.items()}
        )
