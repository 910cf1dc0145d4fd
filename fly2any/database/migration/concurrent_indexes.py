"""CREATE INDEX CONCURRENTLY in a migration: an index that an interrupted build left behind is dropped and rebuilt.

run.py calls `build`, and lifts the lock timeout for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import Error

from ..errors import Refusal
from ..schema import Index, read_catalog
from ..schema import contract as contracts
from ..sql import quote

T = TypeVar("T")

NAME = r'(?:"(?P<quoted>(?:[^"]|"")+)"|(?P<plain>\w+))'
TABLE = r'(?P<table>(?:"(?:[^"]|"")+"|\w+)(?:\.(?:"(?:[^"]|"")+"|\w+))?)'
CREATES_INDEX = re.compile(
    rf"\s*CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}\s+ON\s+(?:ONLY\s+)?{TABLE}", re.I
)

# Each runs with the search path of the run. Their operators match exactly, so no role can create a better match.
STATE_SQL = """
    SELECT i.indisvalid AND i.indislive FROM pg_catalog.pg_index AS i
    WHERE i.indexrelid = pg_catalog.to_regclass(%s)::oid AND i.indrelid = pg_catalog.to_regclass(%s)::oid
"""
BUILDER_SQL = """
    SELECT pid FROM pg_catalog.pg_stat_progress_create_index
    WHERE datname = current_database() AND index_relid = pg_catalog.to_regclass(%s)::oid
"""
SCHEMA_SQL = """
    SELECT n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass(%s)::oid
"""


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """The index of a CREATE INDEX CONCURRENTLY: its name, and how the statement writes it and its table."""

    name: str
    quoted: str
    table: str

    @classmethod
    def of(cls, statement: str) -> BuiltIndex | None:
        """Return the index that `statement` creates, None if it creates none."""
        match = CREATES_INDEX.match(statement)
        if match is None:
            return None
        name = match["quoted"].replace('""', '"') if match["quoted"] else match["plain"].lower()
        return cls(name, quote(name), match["table"])


def build(run: Any, index: BuiltIndex, statement: Callable[[], T]) -> T | None:
    """Build `index` by `statement` unless it exists as defined; raise Refusal while another session builds it.

    `run` is the Run of the migrations.
    """
    if (builder := run.ask(BUILDER_SQL, index.quoted)) is not None:
        raise Refusal(f"The index {index.name} is being built by pid {builder}: run the command again when it is finished.")
    if (valid := _is_valid(run, index)) is False:  # Left by an interrupted build.
        run.progress.say(f"The index {index.name} was left invalid by an earlier build: it is dropped and rebuilt.")
        run.without_lock_timeout(lambda: _drop(run, index))
    elif valid and _is_as_defined(run, index):
        run.progress.say(f"The index {index.name} already exists as defined: it is kept.")
        return None
    try:
        return run.without_lock_timeout(statement)
    except Error:
        # With the lock timeout: if the index cannot be dropped now, the next run drops it.
        with suppress(Error):
            if _is_valid(run, index) is False:
                _drop(run, index)
        raise


def _is_valid(run: Any, index: BuiltIndex) -> bool | None:
    """Return whether the index is valid, None if its table has no index of that name."""
    return run.ask(STATE_SQL, index.quoted, index.table)


def _is_as_defined(run: Any, index: BuiltIndex) -> bool:
    """Return whether the index is as the contract defines it for the current migration."""
    wanted = [
        version.object
        for version in contracts.load().versions
        if version.since == run.migration and isinstance(version.object, Index) and version.object.name == index.name
    ]
    return bool(wanted) and wanted[0] in read_catalog(run.connection, schema=run.ask(SCHEMA_SQL, index.table)).indexes


def _drop(run: Any, index: BuiltIndex) -> None:
    run.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.quoted}")
