"""The tables that Citus distributes, as pages know them: most pages ask, so the answer is kept for a minute."""

from __future__ import annotations

import time

from django.db import models

from fly2any.database.schema.relation_kinds import DISTRIBUTED_SQL, HAS_CITUS_SQL
from fly2any.database.sql import ask_directly

from .replica import current

KNOWN = 60  # Seconds.

_known: dict[str, tuple[float, frozenset[str]]] = {}  # Per alias: when the tables were read, and their names.


def is_distributed(model: type[models.Model]) -> bool:
    """Return whether the rows of the model's table are in shards on several nodes."""
    connection = current()
    at, names = _known.get(connection.alias, (-KNOWN, frozenset()))
    if time.monotonic() - at > KNOWN:
        found = ask_directly(connection, DISTRIBUTED_SQL) if ask_directly(connection, f"SELECT {HAS_CITUS_SQL}") else ()
        names = frozenset(found or ())
        _known[connection.alias] = (time.monotonic(), names)
    return model._meta.db_table in names
