"""The topics, in the order in which they are asked. docs/reference/dbhealth.md describes each."""

from __future__ import annotations

from . import cache, indexes, queries, replication, sequences, server, sessions, tables
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
    "wraparound": server.wraparound,
    "settings": server.settings,
    "extensions": server.extensions,
}
