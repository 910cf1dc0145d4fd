"""The tablespace of the database in use, and those that a dump names: a new server lacks them, and most providers allow none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..sql import fetch_all, quote
from ..terminal_text import one_line
from .script import NAME, plain

SET = re.compile(rf"SET default_tablespace = ({NAME})")
# Those of the given tablespaces that do not exist, or in which this role may create nothing.
UNUSABLE_SQL = """
    SELECT name FROM pg_catalog.unnest(%s::text[]) AS name
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace AS t
                      WHERE t.spcname = name AND pg_catalog.has_tablespace_privilege(t.oid, 'CREATE'))
    ORDER BY name COLLATE "C"
"""

# The tablespace of the database in use, unless it is the one that every server has; `folder` is relative to the data directory if it
# is in it.
OWN_SQL = """
    SELECT t.spcname::text, pg_catalog.pg_tablespace_location(t.oid), pg_catalog.has_tablespace_privilege(t.oid, 'CREATE'), current_user::text
    FROM pg_catalog.pg_database AS d JOIN pg_catalog.pg_tablespace AS t ON t.oid = d.dattablespace
    WHERE d.datname = pg_catalog.current_database() AND t.spcname <> 'pg_default'
"""


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace, its folder, and whether this role may create objects in it."""

    name: str
    folder: str
    is_usable: bool
    role: str


def read_own(connection) -> Tablespace | None:
    """Return the tablespace of the database of `connection`, None if it is pg_default."""
    rows = fetch_all(connection, OWN_SQL)
    return Tablespace(*rows[0]) if rows else None


def describe_unusable(connection) -> str:
    """Return a sentence about the tablespace of the database in use, in which this role cannot create its copy; otherwise ""."""
    own = read_own(connection)
    if not own or own.is_usable:
        return ""
    return one_line(
        f"This role may create nothing in {own.name}, the tablespace of the database in use, so the restored database is in pg_default, on the"
        f" disk of the data directory. To prevent it, as a superuser, before the restore: GRANT CREATE ON TABLESPACE {quote(own.name)} TO"
        f" {quote(own.role)};"
    )


def find_unusable(connection, statements: Iterable[str]) -> list[str]:
    """Return the tablespaces in the statements of a dump that a restore over `connection` cannot use."""
    names = sorted({plain(match[1]) for one in statements if (match := SET.fullmatch(one))})
    return [name for (name,) in fetch_all(connection, UNUSABLE_SQL, [names])] if names else []
