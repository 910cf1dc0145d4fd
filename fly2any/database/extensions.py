"""Extensions that are installed in the database, and whose files the server lacks, as after a move to a smaller image."""

from __future__ import annotations

from .findings import Finding, Severity
from .sql import quote

NEEDED = "pg_trgm"  # By indexes of users.

INSTALLED_SQL = """
    SELECT e.extname::text AS name, e.extversion AS installed, a.default_version AS offered
    FROM pg_catalog.pg_extension AS e LEFT JOIN pg_catalog.pg_available_extensions AS a ON a.name = e.extname
    ORDER BY e.extname COLLATE "C"
"""
UNAVAILABLE_SQL = f"SELECT i.name FROM ({INSTALLED_SQL}) AS i WHERE i.offered IS NULL"


def of_unavailable(name: str) -> Finding:
    """Return the finding that the server lacks the files of an installed extension."""
    lacks = f"The extension {name} is installed in this database, but the server lacks its files"
    if name == NEEDED:
        return Finding(
            Severity.ERROR, "extensions.unavailable", name, f"{lacks}: every INSERT and UPDATE of users fails, and so does the admin's search.",
            "Install PostgreSQL's contrib package on the server (Debian: postgresql-NN; Red Hat and Alpine: postgresqlNN-contrib), or run an image that includes it.",
        )  # fmt: skip
    return Finding(
        Severity.WARNING, "extensions.unavailable", name, f"{lacks}: what uses it fails.",
        f"Install the package that has it on the server; if nothing uses it: DROP EXTENSION {quote(name)};",
    )  # fmt: skip
