"""The topics, in the order in which they are asked. docs/reference/dbhealth.md describes each."""

from __future__ import annotations

from . import queries, server, sessions, storage
from .examine import Question

TOPICS: dict[str, Question] = {
    "connections": sessions.connections,
    "locks": sessions.locks,
    "transactions": sessions.transactions,
    "queries": queries.queries,
    "indexes": storage.indexes,
    "tables": storage.tables,
    "cache": storage.cache,
    "sequences": storage.sequences,
    "replication": server.replication,
    "wraparound": server.wraparound,
    "settings": server.settings,
    "extensions": server.extensions,
}
