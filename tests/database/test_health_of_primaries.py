"""What dbhealth says of a primary because of its standbys: dead rows that a slot keeps, and indexes that only a standby uses."""

import re
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
from django.db import connections

from fly2any.database.findings import Finding
from fly2any.database.health import standby_use
from fly2any.database.health.examine import Reader
from fly2any.database.health.horizon import describe, end, read_holder
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import of
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")

DEAD = """
    CREATE TABLE busy (id int, n int) WITH (autovacuum_enabled = off);
    INSERT INTO busy SELECT generate_series(1, 60000), 1; ANALYZE busy
"""
MANY_DEAD = "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_dead_tup > 50000"


def ask(connection, topic, **limits):
    connection.ensure_connection()
    return [one for one in TOPICS[topic](Reader(connection, "public"), **limits) if isinstance(one, Finding)]


def dead_rows(database):
    with django(database) as connection:
        return [
            (one.message.partition("UTC")[2], one.cure, one.is_sql)
            for one in ask(connection, "tables")
            if one.code == "tables.dead_rows"
        ]


def make_dead(database):
    database.execute("UPDATE busy SET n = n + 1")
    database.execute("VACUUM busy")
    assert wait_until(database, MANY_DEAD)


@pytest.mark.slow
def test_the_initial_copy_of_a_subscription_is_no_standby(own_server):
    server = own_server()
    database = of(server)
    with database.connect(application_name="pg_1_sync_2_3", replication="database") as copy:
        copy.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        copy.execute("SELECT count(*) FROM pg_class")
        with django(database) as connection:
            connection.ensure_connection()
            holder = read_holder(Reader(connection, "public"))

    assert (describe(holder), end(holder)) == (
        "session pg_1_sync_2_3, which copies rows to a subscriber",
        "Wait until the copy ends.",
    )


@pytest.mark.slow
def test_an_unread_slot_that_keeps_dead_rows_is_found(own_server, tmp_path_factory):
    server = own_server()
    database = of(server)
    server.execute("SELECT pg_create_physical_replication_slot('gone', true)")
    standby = server.standby(tmp_path_factory.mktemp("standby"))
    try:
        for setting in ("hot_standby_feedback = on", "primary_slot_name = 'gone'"):
            standby.execute(f"ALTER SYSTEM SET {setting}", database="postgres")
        standby.execute("SELECT pg_reload_conf()")
        wait_until(database, "SELECT 1 FROM pg_replication_slots WHERE xmin IS NOT NULL")
    finally:
        standby.remove()
    wait_until(database, "SELECT 1 FROM pg_replication_slots WHERE NOT active")
    database.execute(DEAD)
    make_dead(database)

    drop = "Start its replica again, or SELECT pg_drop_replication_slot('gone');"
    assert dead_rows(database) == [
        (
            ". VACUUM cannot remove rows that died after the snapshot of the replication slot gone, which no client reads.",
            f'{drop} Then run VACUUM (ANALYZE) "busy";',
            False,
        )
    ]
    with django(database) as connection:
        assert ask(connection, "replication") == []
        [slot] = ask(connection, "replication", oldest=0)
    assert (slot.severity, slot.code, slot.where, slot.cure) == ("error", "replication.slot", "gone", drop)
    assert re.fullmatch(
        r"No client reads from the slot, and VACUUM keeps the rows that died in the last \d+ transactions for it \(limit 0\), in every database\.",
        slot.message,
    )

    database.execute(re.search(r"SELECT .*?;", slot.cure)[0])
    database.execute("VACUUM (ANALYZE) busy")
    assert wait_until(database, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_dead_tup = 0")
    assert dead_rows(database) == []


@contextmanager
def prepared(database):
    database.execute("BEGIN; CREATE TABLE held (); PREPARE TRANSACTION 'forgotten'")
    yield (
        "the prepared transaction forgotten",
        "ROLLBACK PREPARED 'forgotten' or COMMIT PREPARED 'forgotten', after asking its owner.",
    )
    database.execute("ROLLBACK PREPARED 'forgotten'")


@contextmanager
def session(database):
    with psycopg.connect(host=database.host, port=database.port, user=database.user, dbname=database.name) as client:
        client.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        pid = client.info.backend_pid
        yield f"session {pid}", f"Run `manage.py dbhealth transactions --terminate {pid} --yes`."


@pytest.mark.slow
@pytest.mark.parametrize("hold", [prepared, session])
def test_the_holder_of_dead_rows_is_named_until_it_ends(own_server, hold):
    database = of(own_server(max_prepared_transactions="2"))
    database.execute(DEAD)

    with hold(database) as (what, end):
        make_dead(database)
        held = dead_rows(database)
    free = dead_rows(database)

    vacuum = 'VACUUM (ANALYZE) "busy";'
    assert held == [(f". VACUUM cannot remove rows that died after the snapshot of {what}.", f"{end} Then run {vacuum}", False)]
    assert free == [(".", vacuum, True)]


@contextmanager
def configured(database, standby):
    """A connection to `database` as the site's own, with `standby` as its replica."""
    with django(database) as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(standby_use, "DEFAULT_DB_ALIAS", connection.alias)
        place = {"HOST": standby.host, "PORT": standby.port}
        patch.setitem(connections.databases, "replica", {**connections.databases[connection.alias], **place})
        yield connection
        connections["replica"].close()
        del connections["replica"]


@pytest.mark.slow
def test_an_index_that_only_a_standby_uses_is_not_unused(own_server, tmp_path_factory):
    server = own_server()
    primary = of(server)
    server.execute("CREATE TABLE t AS SELECT n, n AS m FROM generate_series(1, 20000) AS n; CREATE INDEX by_n ON t (n)")
    server.execute("CREATE INDEX by_m ON t (m); ANALYZE t")
    limits = {"young": timedelta()}

    def unused(connection):
        return [(one.severity, one.where) for one in ask(connection, "indexes", **limits) if one.code == "indexes.unused"]

    with django(primary) as connection:
        assert unused(connection) == [("warning", "t.by_m"), ("warning", "t.by_n")]
    standby = server.standby(tmp_path_factory.mktemp("standby"))
    try:
        wait_until(primary, "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        wait_until(of(standby), "SELECT 1 FROM pg_class WHERE relname = 'by_m'")
        with django(primary) as connection:
            [by_m, _] = [one for one in ask(connection, "indexes", **limits) if one.code == "indexes.unused"]
        with configured(primary, of(standby)) as connection:
            assert unused(connection) == [("warning", "t.by_m"), ("warning", "t.by_n")]
            standby.execute("SELECT FROM t WHERE n = 7")
            wait_until(of(standby), "SELECT 1 FROM pg_stat_user_indexes WHERE indexrelname = 'by_n' AND idx_scan > 0")
            assert unused(connection) == [("warning", "t.by_m")]
        with django(of(standby)) as connection:
            assert unused(connection) == [("note", "t.by_m")]
    finally:
        standby.remove()

    assert by_m.severity == "note"
    assert by_m.message.endswith(" Whether another server's queries use it is not known.")
    assert by_m.cure == (
        "Ask the primary and each standby: SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'by_m'; If none has used it:"
        ' DROP INDEX CONCURRENTLY "by_m";'
    )


def test_the_cures_of_a_partitioned_tables_indexes_work(database):
    """PostgreSQL neither creates nor drops such an index concurrently."""
    database.execute("CREATE TABLE parents (id int PRIMARY KEY); INSERT INTO parents VALUES (1)")
    database.execute(
        "CREATE TABLE t (n int, m int REFERENCES parents) PARTITION BY RANGE (n); CREATE TABLE t_d PARTITION OF t DEFAULT"
    )
    database.execute("CREATE INDEX by_n ON t (n); INSERT INTO t SELECT n, 1 FROM generate_series(1, 20000) AS n; ANALYZE t_d")

    with django(database) as connection:
        found = ask(connection, "indexes", young=timedelta())
        for finding in found:
            database.execute(finding.cure)
        left = ask(connection, "indexes")

    assert [(one.code, one.where) for one in found] == [("indexes.unused", "t.by_n"), ("indexes.missing", "t.t_m_fkey")]
    assert left == []
