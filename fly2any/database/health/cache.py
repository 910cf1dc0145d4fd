"""The share of blocks that were in shared_buffers when they were read."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import Finding, Severity
from ..units import plural, share
from .examine import Figure, Reader
from .indexes import RESET_SQL

# The scan of a large table reads its blocks into a small ring (the context bulkread), and finds none there. For the whole server; until
# PostgreSQL 17, `reads` counts blocks.
SINGLE_BLOCKS_SQL = """
    SELECT COALESCE(sum(s.hits), 0)::float AS hit,
           COALESCE(sum(COALESCE((pg_catalog.to_jsonb(s) ->> 'read_bytes')::numeric / current_setting('block_size')::numeric, s.reads)), 0)::float AS read
    FROM pg_catalog.pg_stat_io AS s
    WHERE s.object = 'relation' AND s.context = 'normal' AND s.backend_type IN ('client backend', 'background worker')
"""
# Before PostgreSQL 16, only the blocks of indexes are known to be read one by one.
INDEX_BLOCKS_SQL = """
    SELECT COALESCE(sum(idx_blks_hit), 0)::float AS hit, COALESCE(sum(idx_blks_read), 0)::float AS read FROM pg_catalog.pg_statio_all_indexes
"""


def cache(read: Reader, *, enough: float = 0.95, least: int = 1_000_000) -> Iterator[Figure | Finding]:
    """Report how often a requested block was in memory."""
    row = read.one(RESET_SQL)
    asked = row.hit + row.read
    if asked < least:
        yield Figure(
            "cache hits",
            f"not enough data: {plural(asked, 'block request')} since {row.since:%Y-%m-%d}, and {least:,} are needed",
        )
        return
    yield Figure(
        "cache hits",
        f"{share(row.hit / asked)} of {plural(asked, 'block request')} since {row.since:%Y-%m-%d}",
        row.hit / asked,
        "cache_hit_ratio",
    )
    if row.hit < enough * asked and _reads_single_blocks(read, enough):
        yield Finding(
            Severity.WARNING, "cache.misses", "shared_buffers",
            f"{share(row.hit / asked)} of requested blocks were in shared_buffers (limit {share(enough)}): the rest were read from disk or the operating system's cache.",
            "Give the server more memory, or set shared_buffers to a quarter of it.",
        )  # fmt: skip


def _reads_single_blocks(read: Reader, enough: float) -> bool:
    """Return whether too few blocks were in memory also without scans of whole tables, as those of a backup, which more memory does not help."""
    row = read.one(SINGLE_BLOCKS_SQL if read.connection.pg_version >= 160000 else INDEX_BLOCKS_SQL)
    return row.hit < enough * (row.hit + row.read)
