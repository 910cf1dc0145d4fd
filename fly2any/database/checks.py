"""Django's checks fly2any.E001 to E004, W001 and W002: the state of a database (`manage.py check --database default`) and backups (`--deploy`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections

from .extensions import NEEDED_SQL
from .findings import Severity
from .report.collect import collect, serious
from .report.waivers import known_waivers
from .sql import fetch_one
from .verification import verify

EXTENSION_MADE_BY = "accounts.0007_trigrams"


def check_schema(*, databases: Iterable[str] | None = None, **_) -> list[CheckMessage]:
    """Return what `dbstatus` finds in each of `databases`, except waived findings; raise django.db.Error if one cannot be reached."""
    return [message for alias in databases or () for message in _messages(alias)]


def check_backups(**_) -> list[CheckMessage]:
    """Warn about a deployment without BACKUP_LOCATION."""
    if settings.BACKUPS["location"]:
        return []
    hint = (
        "Set it and run `manage.py dbbackup --verify` every night, or silence this check if the provider verifies its backups."
    )
    return [Warning("BACKUP_LOCATION is not set: no backups of this database are taken.", hint=hint, id="fly2any.W002")]


def _messages(alias: str) -> Iterator[CheckMessage]:
    connection = connections[alias]
    verified = verify(connection)
    report = collect(connection, verification=verified, waivers=known_waivers())
    for finding in serious(report.findings):
        kind, code = (Error, "E001") if finding.severity is Severity.ERROR else (Warning, "W001")
        yield kind(f"{finding.code}: {finding.message}", hint=finding.cure, obj=finding.where, id=f"fly2any.{code}")
    pending = verified.migrations.pending
    if verified.made_by:
        hint = "Run `manage.py dbadopt`: it shows its plan, and changes nothing without --yes."
        yield Error(
            f"{verified.made_by} created the tables, and they have not been adopted.", hint=hint, obj=alias, id="fly2any.E004"
        )
    elif pending:
        message = (
            f"Migrations are pending: {', '.join(pending[:3])}{f' and {len(pending) - 3} more' if len(pending) > 3 else ''}."
        )
        yield Error(message, hint="Run `manage.py migrate`.", obj=alias, id="fly2any.E002")
    available, place, _ = fetch_one(connection, NEEDED_SQL)
    if place is None and (not available or EXTENSION_MADE_BY not in pending):
        lacks = "is not installed in this database" if available else "is not on this server"
        hint = "CREATE EXTENSION pg_trgm;" if available else "Install PostgreSQL's contrib package there."
        yield Error(f"The extension pg_trgm {lacks}.", hint=hint, obj=alias, id="fly2any.E003")
