"""The topics, in the order in which they are asked; the limits of most are the defaults of its function, those of `settings` are WANTED in server_settings.py. docs/reference/dbhealth.md describes them."""

from __future__ import annotations

from . import cache, extensions, indexes, queries, replication, sequences, server_settings, sessions, tables, wraparound
from .examine import Question

TOPICS: dict[str, Question] = {
    "connections": sessions.connections,
    "locks": sessions.locks,
    "transactions": sessions.transactions,
    "queries": queries.queries,
    "indexes": indexes.indexes,
    "tables": tables.tables,
    "cache": cache.cache,
    "sequences": sequences.sequences,
    "replication": replication.replication,
    "wraparound": wraparound.wraparound,
    "settings": server_settings.settings,
    "extensions": extensions.extensions,
}
