"""The tablespaces that a dump names: a new server lacks them, and most providers allow none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..sql import fetch_all
from .script import NAME, plain

SET = re.compile(rf"SET default_tablespace = ({NAME})")
# Those of the given tablespaces that do not exist, or in which this role may create nothing.
UNUSABLE_SQL = """
    SELECT name FROM pg_catalog.unnest(%s::text[]) AS name
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace AS t
                      WHERE t.spcname = name AND pg_catalog.has_tablespace_privilege(t.oid, 'CREATE'))
    ORDER BY name COLLATE "C"
"""


def find_unusable(connection, statements: Iterable[str]) -> list[str]:
    """Return the tablespaces in the statements of a dump that a restore over `connection` cannot use."""
    names = sorted({plain(match[1]) for one in statements if (match := SET.fullmatch(one))})
    return [name for (name,) in fetch_all(connection, UNUSABLE_SQL, [names])] if names else []
