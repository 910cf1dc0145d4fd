"""The topic `cache`: how often a requested block was in memory."""

import re

import pytest

from fly2any.database.health.examine import Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import found, of
from tests.database.test_health_privileges import asked
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")

LARGE = (
    "CREATE TABLE t AS SELECT i, repeat('x', 500) AS x FROM generate_series(1, 20000) AS i; CREATE INDEX ON t (i); ANALYZE t"
)
SCATTERED = "SELECT (SELECT length(x) FROM t WHERE i = (n * 7919) % 20000) FROM generate_series(1, 20000) AS n"


def test_cache_misses_are_found(own_server):
    server = own_server(shared_buffers="1MB")
    server.execute(LARGE)
    assert found(of(server), "cache") == []
    server.execute(SCATTERED)

    assert wait_until(of(server), "SELECT 1 FROM pg_stat_database WHERE datname = 'fly2any' AND blks_read > 5000")
    assert found(of(server), "cache", least=1000) == [("cache.misses", "shared_buffers")]


def test_the_scans_of_a_backup_are_no_cache_misses(own_server):
    """They read each block of a table that is larger than shared_buffers, whatever the memory."""
    server = own_server(shared_buffers="1MB")
    server.execute(LARGE)
    server.execute("SELECT (SELECT length(x) FROM t WHERE i = 7 + n * 0) FROM generate_series(1, 2000) AS n")
    for _ in range(5):
        server.execute("SELECT count(*) FROM t")

    wait_until(of(server), "SELECT 1 FROM pg_stat_database WHERE datname = 'fly2any' AND blks_read > 5000")
    with django(of(server)) as connection:
        figure, *findings = TOPICS["cache"](Reader(connection, "public"), least=1000, enough=0.9)
    assert (figure.value < 0.9, findings) == (True, [])


def test_cache_misses_are_counted_as_requests(own_server):
    server = own_server(shared_buffers="1MB")
    server.execute(LARGE)
    server.execute(SCATTERED)
    assert wait_until(of(server), "SELECT 1 FROM pg_stat_database WHERE datname = 'fly2any' AND blks_read > 5000")

    figures, [finding] = asked(of(server), "cache", least=1000)

    assert re.fullmatch(r"[\d.]+% of [\d,]+ block requests since \d{4}-\d\d-\d\d", figures["cache hits"][0])
    assert re.fullmatch(
        r"[\d.]+% of requested blocks were in shared_buffers \(limit 95\.0%\): the rest were read from disk or the operating"
        r" system's cache\.",
        finding.message,
    )
