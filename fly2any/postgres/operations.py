"""Statements of the ORM that differ from Django's: operators are PostgreSQL's own, and a skipped row is an error."""

from django.db import DatabaseError
from django.db.backends.postgresql import operations

VARYING = {"CharField", "EmailField", "FileField", "FilePathField", "SlugField", "URLField"}
COMPARED = {"exact", "in", "gt", "gte", "lt", "lte", "range"}


class DatabaseOperations(operations.DatabaseOperations):
    compiler_module = "fly2any.postgres.compiler"

    def lookup_cast(self, lookup_type, internal_type=None):
        """Compare varchar as text: PostgreSQL has no operators for varchar, so one that another role created would match best.

        PostgreSQL itself compares it as text, and an index serves the one as the other.
        """
        if lookup_type in COMPARED and internal_type in VARYING:
            return "%s::text"
        return super().lookup_cast(lookup_type, internal_type)

    def fetch_returned_insert_columns(self, cursor, returning_params):
        """Return the values of the inserted row; raise DatabaseError if a trigger or a rule skipped it."""
        row = super().fetch_returned_insert_columns(cursor, returning_params)  # type: ignore[misc]
        if row is None:
            raise DatabaseError("The row was not added: a trigger or a rule of its table skipped it.")
        return row
