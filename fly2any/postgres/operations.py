"""How the ORM compares: with operators that are PostgreSQL's own, whatever another role created in the search path."""

from django.db.backends.postgresql import operations

VARYING = {"CharField", "EmailField", "FileField", "FilePathField", "SlugField", "URLField"}
COMPARED = {"exact", "in", "gt", "gte", "lt", "lte", "range"}


class DatabaseOperations(operations.DatabaseOperations):
    def lookup_cast(self, lookup_type, internal_type=None):
        """Compare varchar as text: PostgreSQL has no operator for varchar, so one that another role made would fit best.

        PostgreSQL itself compares it as text, and an index serves the one as the other.
        """
        if lookup_type in COMPARED and internal_type in VARYING:
            return "%s::text"
        return super().lookup_cast(lookup_type, internal_type)
