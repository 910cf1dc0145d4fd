"""The text of a server's error, without the rows and values that it quotes."""

from __future__ import annotations

import re

import psycopg
from django.db import utils

# In this class of SQLSTATEs, the primary message quotes a value, except for these, which quote an encoding or a setting.
DATA_EXCEPTION = "22"
WITHOUT_VALUE = ("22021", "22023", "22P05")
# Source functions that raise a function's own message, which may quote a row.
RAISED_IN = ("pl_exec.c", "plpy_elog.c", "plperl.c", "pltcl.c")
QUOTED = re.compile(r'["«»„“”‚‘「].*["«»“”‘’」]', re.DOTALL)  # A value in the quotation marks of the server's language.


class DatabaseErrorWrapper(utils.DatabaseErrorWrapper):
    """Django's wrapper, which here keeps only the primary message of a server's error.

    DETAIL and CONTEXT quote rows, and LINE quotes the statement with its values. The text of an error reaches logs, pages and
    messages in many ways, so it is cut where it comes from. `diag` still has every field.
    """

    def __exit__(self, exc_type, exc_value, traceback):
        if isinstance(exc_value, psycopg.Error):
            exc_value.args = (public_text(exc_value),)
        super().__exit__(exc_type, exc_value, traceback)


def public_text(error: psycopg.Error) -> str:
    """Return the primary message of a server's error, without a value that it or a function quotes; any other error's text as it is."""
    message = error.diag.message_primary
    if message is None:  # The driver's own error, or a connection that failed.
        return str(error)
    state = error.sqlstate or ""
    if (error.diag.source_file or "").rpartition("/")[2] in RAISED_IN:
        return f"A function or trigger of the database raised SQLSTATE {state}."
    if state.startswith(DATA_EXCEPTION) and state not in WITHOUT_VALUE:
        return QUOTED.sub('"…"', message)
    return message
