"""The extensions of a backup: whether the role that restores may create them."""

from __future__ import annotations

import re
from typing import Any

from django.db import NotSupportedError, ProgrammingError

from ..errors import Refusal, first_line
from ..scratch import scratch_database
from ..sql import execute, fetch_all, fetch_one, quote
from .contents import read_registered
from .manifest import Manifest
from .owners import SUPERUSER_SQL
from .properties import create
from .restore_connections import prepare_session

# The extensions that pg_dump dumps: all but those that initdb creates, such as plpgsql.
EXTENSIONS_SQL = 'SELECT extname::text FROM pg_catalog.pg_extension WHERE oid >= 16384 ORDER BY extname COLLATE "C"'
UNTRIED = re.compile(r"EXTENSION (.+) \([0-9A-Z]{5}\)")


def read_extensions(connection) -> dict[str, Any]:
    """Return what the manifest has of the extensions: their names, and the tables and sequences that they registered."""
    return {
        "extensions": tuple(name for (name,) in fetch_all(connection, EXTENSIONS_SQL)),
        "registered": read_registered(connection),
    }


def require_extensions(connection, manifest: Manifest) -> None:
    """Raise Refusal if this role cannot create an extension that the verification could not create either.

    It is tried in a scratch database: providers let roles create extensions that PostgreSQL reserves for superusers.
    """
    left_out = manifest.verdict.left_out if manifest.verdict else ()
    names = [match[1] for one in left_out if (match := UNTRIED.fullmatch(one))]
    if not names or fetch_one(connection, SUPERUSER_SQL)[0]:
        return
    failures = []
    with connection.direct(), scratch_database(connection, _create) as scratch:
        prepare_session(scratch)
        for name in names:
            try:
                execute(scratch, f"CREATE EXTENSION IF NOT EXISTS {quote(name)} CASCADE")
            except (ProgrammingError, NotSupportedError) as error:
                failures.append(first_line(str(error)))
    if failures:
        raise Refusal(
            f"This role cannot create extensions of the backup ({'; '.join(failures)}): restore as a superuser, or drop them in the"
            " original, if they are not needed, and take another backup."
        )


def _create(connection, name: str) -> None:
    prepare_session(connection)
    create(connection, name)
