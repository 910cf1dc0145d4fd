"""Turns an error of the database into a sentence without values of the row, and into the form fields that it is about."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import DatabaseError, DataError, Error, IntegrityError, connection, models, transaction

from fly2any.database.errors import sqlstate

AGAIN = "Try again in a moment."
SENTENCES = {
    "22001": "A value is too long for its column: shorten it.",
    "22003": "A number is out of range for its column: enter one within the range.",
    "25006": "The database is read-only at the moment: nothing was saved. Try again when it accepts writes.",
    "40001": f"Another transaction changed the same rows: nothing was saved. {AGAIN}",
    "40P01": f"Another transaction waited for the same rows: nothing was saved. {AGAIN}",
    "42501": "The admin's database role lacks the privilege to write this. Ask an administrator of the database server to grant it.",
    "55P03": f"Another transaction holds a lock on this: nothing was saved. {AGAIN}",
    "57014": f"The database took too long: nothing was saved. {AGAIN}",
}
KINDS = {
    "23502": "{what} must have a value.",
    "23503": "Rows of other tables refer to this, or {what} refers to a row that does not exist.",
    "23001": "Rows of other tables still refer to this, and the database keeps them ({constraint}).",
    "23505": "Another row has the same value of {what}.",
    "23514": "The constraint {constraint} does not allow this value of {what}.",
    "23P01": "The constraint {constraint} does not allow this value of {what} together with the other rows.",
}
VALUES = ("22", "53")  # Classes that describe a failed statement inside a trigger well enough.
SKIPPED = (
    "The database did not write or delete every row: nothing was saved. A trigger or a policy of the table skipped a row, "
    "or another client deleted it first."
)
REFUSED = (
    "09",
    "22",
    "23",
    "25",
    "27",
    "39",
    "40",
    "44",
    "53",
    "54",
    "55",
    "P0",
)  # SQLSTATE classes that concern the statement, not the connection.

COLUMNS_OF_A_CONSTRAINT = """
    SELECT a.attname
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%(table)s) AND a.attnum OPERATOR(pg_catalog.=) ANY (COALESCE(
        (SELECT c.conkey FROM pg_catalog.pg_constraint c WHERE c.conrelid OPERATOR(pg_catalog.=) a.attrelid AND c.conname OPERATOR(pg_catalog.=) %(name)s),
        (SELECT i.indkey::pg_catalog.int2[] FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class n ON n.oid OPERATOR(pg_catalog.=) i.indexrelid
         WHERE i.indrelid OPERATOR(pg_catalog.=) a.attrelid AND n.relname OPERATOR(pg_catalog.=) %(name)s)))
    ORDER BY a.attnum
"""
# A trigger's message may quote the row: it is shown only if a function contains it literally.
FUNCTIONS_THAT_SAY = """
    SELECT 1 FROM pg_catalog.pg_proc WHERE pg_catalog.strpos(prosrc, pg_catalog.quote_literal(%s)) OPERATOR(pg_catalog.>) 0 LIMIT 1
"""


def is_refusal(error: BaseException) -> bool:
    """Return whether the database refused only this statement: not if the connection or the schema is broken.

    A function or trigger may raise any SQLSTATE, so what comes from one is a refusal by where it comes from.
    """
    state, diagnostics = sqlstate(error), getattr(error.__cause__, "diag", None)
    if state:
        from_a_function = diagnostics is not None and diagnostics.severity_nonlocalized == "ERROR" and bool(diagnostics.context)
        return state in SENTENCES or state.startswith(REFUSED) or from_a_function
    return isinstance(error, IntegrityError | DataError) or _is_skipped(error)


def _is_skipped(error: BaseException) -> bool:
    """Return whether a row was not written without an error of the server: a DatabaseError of Django's or of ours.

    For a row that save() did not find, Django 6.0 has a class below it; every other class below it is of the server's errors.
    """
    return (isinstance(error, DatabaseError) and type(error).__module__ != "django.db.utils") or type(error) is DatabaseError


def refusal(error: Error, model: type[models.Model] | None = None) -> ValidationError:
    """Return why the database refused to write a row of `model`, as an error of the field if one is known."""
    state, diagnostics = sqlstate(error), getattr(error.__cause__, "diag", None)
    if diagnostics and diagnostics.context and (message := _text_in_function(diagnostics.message_primary or "", state)):
        return ValidationError(message)
    if state in SENTENCES:
        return ValidationError(SENTENCES[state])
    fields = _fields(diagnostics, model) if diagnostics else []
    what = ", ".join(str(field.verbose_name) for field in fields) or "a column"
    constraint = (diagnostics and diagnostics.constraint_name) or "of the database"
    if state in KINDS:
        sentence = KINDS[state].format(what=what, constraint=constraint)
        sentence = sentence[0].upper() + sentence[1:]
    elif diagnostics and diagnostics.context and not state.startswith(VALUES):
        sentence = f"A trigger of the database refused this (SQLSTATE {state}): the server's log says why."
    elif _is_skipped(error):
        sentence = SKIPPED
    elif isinstance(error, IntegrityError) and not state:
        sentence = "Rows of other tables still refer to this."
    else:
        code = f" (SQLSTATE {state})" if state else ""
        of_a_value = not state or state.startswith("22")
        sentence = f"The database rejected this{code}: nothing was saved. The server's log says why."
        if of_a_value:
            sentence = f"The database rejected a value that is not valid for its column{code}."
    return ValidationError({fields[0].name: sentence} if len(fields) == 1 else sentence)


def in_one_sentence(error: Error, model: type[models.Model] | None = None) -> str:
    return " ".join(refusal(error, model).messages)


def _fields(diagnostics: Any, model: type[models.Model] | None) -> list[Any]:
    """Return the fields of `model` that the server's error names, itself or by a constraint."""
    if model is None or diagnostics.table_name != model._meta.db_table:
        return []
    columns = [diagnostics.column_name] if diagnostics.column_name else []
    if not columns and diagnostics.constraint_name:
        quote = connection.ops.quote_name
        table = f"{quote(diagnostics.schema_name)}.{quote(diagnostics.table_name)}"
        columns = [name for (name,) in _ask(COLUMNS_OF_A_CONSTRAINT, {"table": table, "name": diagnostics.constraint_name})]
    return [field for field in model._meta.local_fields if field.column in columns]


def _text_in_function(message: str, state: str) -> str:
    return message if message not in ("", state) and _ask(FUNCTIONS_THAT_SAY, [message]) else ""


def _ask(statement: str, parameters: Any) -> list[tuple]:
    """Return the rows of a query about the refusal, [] if it fails: the refusal is then shown without details."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall()
    except Error:
        return []


class Refused:
    """A form that is shown again with the refusal as an error; its class is created per request."""

    refused: ValidationError

    def _post_clean(self):
        super()._post_clean()  # type: ignore[misc]
        for name, errors in getattr(self.refused, "error_dict", {None: self.refused}).items():
            self.add_error(name if name in self.fields else None, errors)  # type: ignore[attr-defined]


def with_refusal(form: type, error: ValidationError) -> type:
    return type(form.__name__, (Refused, form), {"refused": error})
