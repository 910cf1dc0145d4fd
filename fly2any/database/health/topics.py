"""The topics, in the order in which they are asked. docs/reference/dbhealth.md describes each."""

from __future__ import annotations

from . import indexes, queries, replication, server, sessions, tables
from .examine import Question

TOPICS: dict[str, Question] = {
    "connections": sessions.connections,
    "locks": sessions.locks,
    "transactions": sessions.transactions,
    "queries": queries.queries,
    "indexes": indexes.indexes,
    "tables": tables.tables,
    "cache": indexes.cache,
    "sequences": indexes.sequences,
    "replication": replication.replication,
    "wraparound": server.wraparound,
    "settings": server.settings,
    "extensions": server.extensions,
}
