"""A schema outside the search path that has our tables, where the path leads to none: `migrate` would create a second, empty database."""

from __future__ import annotations

from .findings import Finding, Severity
from .session_defaults import MARKING_TABLE
from .sql import RECORD, literal, quote
from .trusted_roles import TRUSTED_SQL

# Those with both the migration ledger and the table that marks our schema, of trusted roles, unless the path leads to one of the two;
# `path` and `known` are those of server.HOME_CTES.
OTHER_SCHEMAS_SQL = f"""
    SELECT n.nspname::text FROM pg_catalog.pg_namespace AS n
    WHERE NOT EXISTS (SELECT FROM known WHERE known.trusted) AND n.oid NOT IN (SELECT path.oid FROM path)
      AND (SELECT count(*) FROM pg_catalog.pg_class AS c
           WHERE c.relnamespace = n.oid AND c.relname IN ({literal(RECORD)}, {literal(MARKING_TABLE)}) AND {TRUSTED_SQL}) = 2
    ORDER BY n.nspname COLLATE "C"
"""


def of_other_schemas(database: str, schema: str, others: list[str], place: str | None = None) -> Finding:
    """Return the finding that not `schema`, but `others` have our tables; `place` begins the statement that sets the search path."""
    have = f"the {'schema' if len(others) == 1 else 'schemas'} {', '.join(others)}, outside the search path, {'has' if len(others) == 1 else 'have'}"
    return Finding(
        Severity.ERROR, "server.schema", database, f"None of our tables is in the schema {schema}, but {have} them.",
        f"Add ?schema={others[0]} to POSTGRES_URL, or: {place or f'ALTER DATABASE {quote(database)}'} SET search_path TO {quote(others[0])};"
        f" for another installation beside it, add ?schema={schema}, and `migrate` creates its tables there.",
    )  # fmt: skip
