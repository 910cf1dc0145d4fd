"""The extensions of a backup: whether the role that restores may create them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import Error

from ..errors import Refusal, first_line
from ..extensions import NEEDED
from ..scratch import scratch_database
from ..sql import execute, fetch_all, fetch_one, quote
from ..terminal_text import one_line
from .extension_entries import unknown_extension
from .manifest import Manifest
from .owners import SUPERUSER_SQL
from .properties import create
from .restore_connections import prepare_session
from .row_hashes import read_registered
from .trial_server import STATEMENTS

# The extensions that pg_dump dumps: all but those that initdb creates, such as plpgsql.
EXTENSIONS_SQL = 'SELECT extname::text FROM pg_catalog.pg_extension WHERE oid >= 16384 ORDER BY extname COLLATE "C"'
UNAVAILABLE_SQL = """
    SELECT name FROM pg_catalog.unnest(%s::text[]) AS name
    WHERE name NOT IN (SELECT a.name::text FROM pg_catalog.pg_available_extensions AS a)
"""
# Any database can have these: a superuser, or in the case of pg_trgm the owner, need not try them.
USUAL = (NEEDED, STATEMENTS)
UNTRIED = re.compile(r"EXTENSION (.+) \([0-9A-Z]{5}\)")


def read_extensions(connection) -> dict[str, Any]:
    """Return what the manifest has of the extensions: their names, and the tables and sequences that they registered."""
    return {
        "extensions": tuple(name for (name,) in fetch_all(connection, EXTENSIONS_SQL)),
        "registered": read_registered(connection),
    }


def require_extensions(connection, manifest: Manifest, *, without: Sequence[str] = ()) -> None:
    """Raise Refusal if an extension of the backup, other than those `without`, cannot be created by this role on this server.

    It is tried in a scratch database: some extensions refuse all databases but one, and providers let roles create extensions that
    PostgreSQL reserves for superusers. `manifest` names all extensions, or those that the verification could not create.
    """
    _require_known(manifest, without)
    left_out = manifest.verdict.left_out if manifest.verdict else ()
    untried = [match[1] for one in left_out if (match := UNTRIED.fullmatch(one))]
    names = [name for name in dict.fromkeys((*manifest.extensions, *untried)) if name not in without]
    reasons = dict.fromkeys((name for (name,) in fetch_all(connection, UNAVAILABLE_SQL, [names])), "it is not available")
    (is_superuser,) = fetch_one(connection, SUPERUSER_SQL)
    harmless = USUAL if is_superuser else [name for name in USUAL if name not in untried]
    if tried := [name for name in names if name not in reasons and name not in harmless]:
        with connection.direct(), scratch_database(connection, _create) as scratch:
            reasons |= _failures(scratch, tried)
    if not reasons:
        return
    named = ", ".join(f"{name} ({one_line(reason)})" for name, reason in reasons.items())
    options = " ".join(f"--without-extension {shlex.quote(name)}" for name in reasons if name != NEEDED)
    raise Refusal(
        f"Extensions of the backup cannot be created on this server: {named}. Fix the cause{'' if is_superuser else ', or restore as a superuser'}"
        + (f"; or leave them out, with the rows of their tables: {options}." if options else ".")
    )


def _require_known(manifest: Manifest, names: Sequence[str]) -> None:
    """Raise Refusal if the extensions `names` cannot be left out."""
    if NEEDED in names:
        raise Refusal(f"The extension {NEEDED} cannot be left out: indexes of Fly2Any need it.")
    if manifest.extensions and (unknown := [name for name in names if name not in manifest.extensions]):
        raise unknown_extension(manifest, unknown[0])


def _failures(scratch, names: Sequence[str]) -> dict[str, str]:
    """Return the reasons for which extensions cannot be created in the database of `scratch`."""
    reasons = {}
    prepare_session(scratch)
    for name in names:
        # The role's own path may name no schema of this database; a dump names one for each extension.
        execute(scratch, "SET search_path TO public")
        try:
            execute(scratch, f"CREATE EXTENSION IF NOT EXISTS {quote(name)} CASCADE")
        except Error as error:
            # The text that the extension's script raises quotes no row: the database has none.
            message = error.__cause__.diag.message_primary if isinstance(error.__cause__, psycopg.Error) else None
            reasons[name] = first_line(message or str(error))
            scratch.close()  # Some extensions end the session of a server that has not preloaded them.
            prepare_session(scratch)
    return reasons


def _create(connection, name: str) -> None:
    prepare_session(connection)
    create(connection, name)
