"""Installed extensions: their versions, and whether the server has their files."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import Error, transaction

from ..errors import sqlstate
from ..extensions import FUNCTION_SQL, INSTALLED_SQL, NEEDED, of_unavailable
from ..findings import Finding, Severity
from ..sql import quote
from .examine import Figure, Reader


def extensions(read: Reader) -> Iterator[Figure | Finding]:
    """Report installed extensions that are older than their files on the server, or whose files it lacks."""
    rows = read(INSTALLED_SQL)
    yield Figure("extensions", ", ".join(f"{row.name} {row.installed}" for row in rows) or "none", len(rows))
    for row in rows:
        if row.offered is None:
            yield of_unavailable(row.name)
        elif row.can_update is False:
            yield Finding(
                Severity.WARNING, "extensions.outdated", row.name,
                f"Version {row.installed} is installed, but the server provides {row.offered}, and no update script leads to that version.",
                f"If the server's files are older, install those of {row.installed} or newer again; otherwise update as the documentation of the extension says.",
            )  # fmt: skip
        elif row.installed != row.offered:
            yield Finding(
                Severity.WARNING, "extensions.outdated", row.name,
                f"Version {row.installed} is installed, but the server provides {row.offered}.",
                f"ALTER EXTENSION {quote(row.name)} UPDATE;", is_sql=True,
            )  # fmt: skip
    if NEEDED not in [row.name for row in rows if row.offered is None]:
        yield from library(read)


def library(read: Reader) -> Iterator[Finding]:
    """Report that the library of the extension that our indexes need cannot be loaded: no catalogue shows that, only a call."""
    for row in read(FUNCTION_SQL):
        try:
            with transaction.atomic(using=read.connection.alias):
                read(f"SELECT {row.call.replace('%', '%%')}")
        except Error as error:
            if sqlstate(error) != "58P01":
                raise
            yield of_unavailable(NEEDED)
