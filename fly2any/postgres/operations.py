"""Statements of the ORM that differ from Django's: functions and operators are PostgreSQL's own, and a skipped row is an error."""

import re

from django.db import DatabaseError
from django.db.backends.postgresql import operations
from django.db.backends.postgresql.compiler import InsertUnnest

VARYING = {"CharField", "EmailField", "FileField", "FilePathField", "SlugField", "URLField"}
COMPARED = {"exact", "in", "gt", "gte", "lt", "lte", "range"}
# Calls for which another role's function of the name could match the types of the arguments better than PostgreSQL's.
OF_SEQUENCES = re.compile(r"\b(setval|pg_get_serial_sequence)\(")


class DatabaseOperations(operations.DatabaseOperations):
    compiler_module = "fly2any.postgres.compiler"

    def lookup_cast(self, lookup_type, internal_type=None):
        """Compare varchar as text: PostgreSQL has no operators for varchar, so one that another role created would match best.

        PostgreSQL itself compares it as text, and an index serves the one as the other.
        """
        if lookup_type in COMPARED and internal_type in VARYING:
            return "%s::text"
        return super().lookup_cast(lookup_type, internal_type)

    def bulk_insert_sql(self, fields, placeholder_rows):
        """Qualify UNNEST of one array; PostgreSQL takes several for its own UNNEST only if it is not qualified."""
        if isinstance(placeholder_rows, InsertUnnest) and len(placeholder_rows) == 1:
            return f"SELECT * FROM pg_catalog.{placeholder_rows}"
        return super().bulk_insert_sql(fields, placeholder_rows)

    def sequence_reset_sql(self, style, model_list):
        return _qualified(super().sequence_reset_sql(style, model_list))

    def sequence_reset_by_name_sql(self, style, sequences):
        return _qualified(super().sequence_reset_by_name_sql(style, sequences))

    def fetch_returned_insert_columns(self, cursor, returning_params):
        """Return the values of the inserted row; raise DatabaseError if a trigger or a rule skipped it."""
        row = super().fetch_returned_insert_columns(cursor, returning_params)  # type: ignore[misc]
        if row is None:
            raise DatabaseError("The row was not added: a trigger or a rule of its table skipped it.")
        return row


def _qualified(statements: list[str]) -> list[str]:
    return [OF_SEQUENCES.sub(r"pg_catalog.\1(", statement) for statement in statements]
