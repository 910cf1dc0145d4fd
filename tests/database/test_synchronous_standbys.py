"""Commits that wait for a synchronous standby are found."""

import pytest

from fly2any.database.health.examine import Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django, manage
from tests.database.test_dbhealth import found, of
from tests.servers import wait_until

FOUND = ("replication.synchronous", "synchronous_standby_names")


@pytest.mark.slow
def test_commits_that_wait_for_a_standby_that_is_not_connected_are_found(own_server, django_db_blocker):
    server = own_server(wal_level="replica")
    database = of(server)
    with django_db_blocker.unblock():
        assert FOUND not in found(database, "replication")
        database.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (a, b)'")
        database.execute("SELECT pg_reload_conf()")
        wait_until(database, "SELECT 1 WHERE current_setting('synchronous_standby_names') <> ''")
        assert FOUND in found(database, "replication")
        status = manage("dbstatus", url=server.url())
        assert f"ERROR   {FOUND[0]} at {FOUND[1]}\n" in status.stdout

        with django(database) as connection:
            connection.ensure_connection()
            (finding,) = (
                one for one in TOPICS["replication"](Reader(connection, "public")) if getattr(one, "code", "") == FOUND[0]
            )
        assert finding.message == (
            "Each COMMIT waits for 2 standbys, and 0 are connected (synchronous_standby_names is ANY 2 (a, b));"
            " 0 sessions wait now."
        )
        for statement in finding.cure.partition(": ")[2].split("; "):
            database.execute(statement)
        wait_until(database, "SELECT 1 WHERE current_setting('synchronous_standby_names') = ''")
        assert FOUND not in found(database, "replication")
