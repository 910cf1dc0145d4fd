"""The topics, in the order in which they are asked. docs/reference/dbhealth.md describes each."""

from __future__ import annotations

from . import queries, replication, server, sessions, storage, tables
from .examine import Question

TOPICS: dict[str, Question] = {
    "connections": sessions.connections,
    "locks": sessions.locks,
    "transactions": sessions.transactions,
    "queries": queries.queries,
    "indexes": storage.indexes,
    "tables": tables.tables,
    "cache": storage.cache,
    "sequences": storage.sequences,
    "replication": replication.replication,
    "wraparound": server.wraparound,
    "settings": server.settings,
    "extensions": server.extensions,
}
