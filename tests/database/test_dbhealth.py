"""Each problem is created for real and found; a healthy database has no finding."""

import contextlib
import dataclasses
import json
import threading
import time
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django, manage
from tests.servers import Database, open_transaction, wait_until

pytestmark = pytest.mark.usefixtures("server")
NOW = timedelta(0)


def found(database, topic, **limits):
    """What a topic finds, as (code, where)."""
    with django(database) as connection:
        connection.ensure_connection()
        return [
            (one.code, one.where) for one in TOPICS[topic](Reader(connection, "public"), **limits) if isinstance(one, Finding)
        ]


def of(server):
    """The database on a test's own server."""
    return Database(host=str(server.home / "data"), port=str(server.port), user="postgres", password="", name="fly2any")


@contextmanager
def waiting(database, statement):
    """A session that waits for a lock with `statement`; its process id."""
    with closing(database.connect(application_name="the waiter")) as client:
        pid = client.info.backend_pid

        def run():
            try:
                client.execute(statement)
            except Exception:
                return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        wait_until(database, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [pid])
        yield pid
        client.cancel()
        thread.join(10)


@pytest.mark.slow
def test_a_healthy_database_has_no_finding(own_server):
    server = own_server(migrated=True, fsync="on", full_page_writes="on", shared_preload_libraries="pg_stat_statements")
    server.execute("CREATE EXTENSION pg_stat_statements")
    assert (
        manage("dbseed", "--production", "--users", "200", "--seed", "1", "--until", "2026-05-01", url=server.url()).returncode
        == 0
    )

    text = manage("dbhealth", url=server.url())
    as_json = manage("dbhealth", "--format", "json", url=server.url())

    assert (text.returncode, text.stderr, text.stdout.splitlines()[-4:]) == (
        *(0, ""),
        ["Findings", "  none", "", f"OK: {len(TOPICS)}/{len(TOPICS)} topics answered, 0 findings (exit code 0)"],
    )
    report = json.loads(as_json.stdout)
    assert [(topic["name"], topic["trouble"]) for topic in report["topics"]] == [(name, "") for name in TOPICS]
    assert (report["findings"], report["exit_code"]) == ([], 0)


@pytest.mark.slow
def test_waits_are_found_and_the_lock_holder_can_be_terminated(migrated):
    lock = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"
    with closing(migrated.connect(application_name="the site")) as holder:
        holder.execute(f"BEGIN; {lock}")
        with waiting(migrated, "SELECT count(*) FROM users"):
            assert found(migrated, "locks") == []
            pid = str(holder.info.backend_pid)
            assert found(migrated, "locks", longest=NOW) == [("locks.blocked", f"session {pid}")]
            shown = manage("dbhealth", "--terminate", pid, url=migrated.url)
            asks = f"Nothing was changed. --yes terminates pid {pid} (the site, role postgres" in shown.stdout
            assert (shown.returncode, asks) == (0, True)
            ended = manage("dbhealth", "--terminate", pid, "--yes", url=migrated.url)
            assert (ended.returncode, ended.stdout.startswith(f"Terminated pid {pid} ")) == (0, True)
            assert found(migrated, "locks", longest=NOW) == []
            again = manage("dbhealth", "--terminate", pid, "--yes", url=migrated.url)
            assert (again.returncode, again.stderr) == (
                2,
                f"There is no session {pid}: it has ended, or it is a server process.\n",
            )


def test_a_wait_in_another_database_is_not_ours_to_end(database, migrated):
    lock = "SELECT pg_advisory_lock(1)"
    with open_transaction(database, lock) as holder, waiting(database, lock):
        assert found(database, "locks", longest=NOW) == [("locks.blocked", f"session {holder.info.backend_pid}")]
        assert found(migrated, "locks", longest=NOW) == []


def test_long_and_idle_transactions_are_found(migrated):
    with open_transaction(migrated, "SELECT 1") as idle:
        where = f"session {idle.info.backend_pid}"
        assert found(migrated, "transactions") == []
        assert found(migrated, "transactions", idle=NOW) == [("transactions.idle", where)]
        assert found(migrated, "transactions", longest=NOW) == [("transactions.long", where)]


def test_a_forgotten_prepared_transaction_is_found(own_server):
    server = own_server(max_prepared_transactions="2")
    server.execute("CREATE TABLE t (id int)")
    with of(server).connect() as client:
        client.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'forgotten'")

    assert found(of(server), "transactions") == []
    assert found(of(server), "transactions", idle=NOW) == [("transactions.prepared", "forgotten")]


def test_a_wait_for_a_prepared_transaction_has_a_cure(own_server):
    server = own_server(max_prepared_transactions="2")
    server.execute("CREATE TABLE t (id int)")
    with of(server).connect() as client:
        client.execute("BEGIN; LOCK TABLE t; PREPARE TRANSACTION 'forgotten'")

    with waiting(of(server), "SELECT FROM t"), django(of(server)) as connection:
        [finding] = [one for one in TOPICS["locks"](Reader(connection, "public"), longest=NOW) if isinstance(one, Finding)]

    assert (finding.where, finding.cure) == (
        "forgotten",
        "ROLLBACK PREPARED 'forgotten' or COMMIT PREPARED 'forgotten', after asking its owner.",
    )
    assert " for the prepared transaction forgotten." in finding.message


def test_queries_without_a_text_are_still_counted(own_server):
    server = own_server(shared_preload_libraries="pg_stat_statements")
    server.execute("CREATE EXTENSION pg_stat_statements; SELECT 1")
    server.execute("SELECT 1")
    texts = server.home / "data" / "pg_stat_tmp" / "pgss_query_texts.stat"
    texts.unlink()
    texts.mkdir()  # Unreadable also for a server that may read every file, as that of root in a closed folder may.

    shown = manage("dbhealth", "queries", url=server.url())

    assert (shown.returncode, shown.stderr) == (0, "")
    assert "a query whose text the server has lost" in shown.stdout


def test_transaction_ids_are_those_of_the_servers_oldest_database(own_server):
    server = own_server()
    server.execute("CREATE DATABASE another", database="postgres")
    server.execute(
        "SET allow_system_table_mods = on; UPDATE pg_database SET datfrozenxid = '3000000000' WHERE datname = 'another'"
    )

    with django(of(server)) as connection:
        [finding] = [one for one in TOPICS["wraparound"](Reader(connection, "public")) if isinstance(one, Finding)]

    assert (finding.code, finding.where) == ("wraparound.near", "transaction IDs")
    assert finding.message.startswith("The oldest transaction ID in the database another is 1,29")


def test_connections_near_the_limit_are_found(own_server):
    server = own_server(max_connections="13")  # 3 are the superuser's.
    assert found(of(server), "connections") == []

    clients = [of(server).connect() for _ in range(8)]

    assert found(of(server), "connections") == [("connections.near_limit", "max_connections")]
    for client in clients:
        client.close()


def test_the_limits_of_the_database_and_the_role_are_checked_too(own_server):
    server = own_server()
    server.execute("CREATE ROLE site LOGIN CONNECTION LIMIT 50; ALTER DATABASE fly2any CONNECTION LIMIT 10")
    site = dataclasses.replace(of(server), user="site")

    def wait_for_sessions_to_end():
        sessions = "SELECT 1 FROM pg_stat_activity WHERE datname = 'fly2any' HAVING count(*) = 8"
        wait_until(dataclasses.replace(of(server), name="postgres"), sessions)

    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(closing(site.connect()))
        for _ in range(3):
            stack.enter_context(closing(dataclasses.replace(site, name="postgres").connect()))

        assert found(site, "connections") == [("connections.near_limit", "database fly2any")]
        wait_for_sessions_to_end()
        with django(site) as connection:
            answers = list(TOPICS["connections"](Reader(connection, "public")))
        figures = {one.label: one.text for one in answers if isinstance(one, Figure)}
        assert figures["connections of the database fly2any"] == "9 of 10"
        assert figures["connections of the role site"] == "12 of 50"
        wait_for_sessions_to_end()
        status = json.loads(manage("dbstatus", "--format", "json", url=server.url("site")).stdout)["server"]
    assert (status["connections"], status["max_connections"]) == (9, 10)


def test_bad_indexes_are_found_and_those_of_the_contract_never_proposed_for_dropping(migrated):
    migrated.execute(
        "INSERT INTO users (id, email, \"updatedAt\") SELECT i, i || '@x', now() FROM generate_series(1, 20000) AS i"
    )
    migrated.execute(
        "INSERT INTO notifications (id, \"userId\", type, title, message) SELECT i, 1, 't', 't', 'm' FROM generate_series(1, 40000) AS i"
    )
    migrated.execute("ANALYZE")
    assert found(migrated, "indexes", young=NOW) == []

    migrated.execute('CREATE INDEX theirs_redundant ON notifications ("userId", "createdAt" DESC)')
    migrated.execute('CREATE INDEX theirs_prefix ON notifications ("userId")')
    migrated.execute("CREATE INDEX theirs_unused ON notifications (title)")
    migrated.execute("CREATE INDEX theirs_partial ON notifications (\"userId\") WHERE title = 'x'")
    with migrated.connect() as client, pytest.raises(Exception, match="could not create unique index"):
        client.execute("CREATE UNIQUE INDEX CONCURRENTLY theirs_invalid ON notifications (type)")
    migrated.execute("CREATE TABLE theirs (id int, whose text REFERENCES users)")
    migrated.execute("INSERT INTO theirs SELECT i, i FROM generate_series(1, 11000) AS i; ANALYZE theirs")

    assert found(migrated, "indexes") == [
        ("indexes.invalid", "notifications.theirs_invalid"),
        ("indexes.redundant", "notifications.theirs_prefix"),
        ("indexes.redundant", "notifications.theirs_redundant"),
        ("indexes.missing", "theirs.theirs_whose_fkey"),
    ]
    assert ("indexes.unused", "notifications.theirs_unused") in found(migrated, "indexes", young=NOW)
    migrated.execute("CREATE INDEX ON theirs (whose); DROP INDEX theirs_invalid, theirs_prefix, theirs_redundant")
    assert found(migrated, "indexes") == []


@pytest.mark.slow
def test_a_bloated_index_and_its_table_are_found_until_they_are_rebuilt(migrated):
    migrated.execute("CREATE TABLE swollen (id int PRIMARY KEY) WITH (autovacuum_enabled = off)")
    migrated.execute("INSERT INTO swollen SELECT generate_series(1, 600000); ANALYZE swollen")
    assert found(migrated, "indexes") == []

    migrated.execute("DELETE FROM swollen WHERE id % 10 <> 0")
    migrated.execute("VACUUM ANALYZE swollen")
    assert found(migrated, "indexes") == [("indexes.bloat", "swollen.swollen_pkey")]
    assert found(migrated, "tables") == []
    assert found(migrated, "tables", huge=2**20) == [("tables.bloat", "swollen")]
    migrated.execute('REINDEX INDEX CONCURRENTLY "swollen_pkey"')
    assert found(migrated, "indexes") == []
    migrated.execute('ALTER INDEX "swollen_pkey" SET (fillfactor = 10); REINDEX INDEX "swollen_pkey"')
    assert found(migrated, "indexes") == []
    for filled in (100, 10):
        migrated.execute(f"ALTER TABLE swollen SET (fillfactor = {filled})")
        migrated.execute("VACUUM (FULL, ANALYZE) swollen")
        assert found(migrated, "tables", huge=2**20) == []


def test_tables_without_recent_vacuum_or_analyse_are_found(migrated):
    migrated.execute("CREATE TABLE busy (id int, n int) WITH (autovacuum_enabled = off)")
    migrated.execute("INSERT INTO busy SELECT generate_series(1, 60000), 1")
    assert wait_until(migrated, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_live_tup > 0")
    assert found(migrated, "tables") == [("tables.not_analysed", "busy")]

    migrated.execute("ANALYZE busy")
    migrated.execute("UPDATE busy SET n = 2")
    assert wait_until(migrated, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_dead_tup > 50000")
    assert found(migrated, "tables") == [("tables.dead_rows", "busy"), ("tables.not_analysed", "busy")]
    migrated.execute("VACUUM (ANALYZE) busy")
    assert wait_until(
        migrated, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_dead_tup + n_mod_since_analyze = 0"
    )
    assert found(migrated, "tables") == []


def test_a_sequence_near_its_end_is_found(migrated):
    migrated.execute("CREATE SEQUENCE theirs AS int; SELECT setval('theirs', 1610000000)")
    assert found(migrated, "sequences") == []

    migrated.execute("SELECT setval('theirs', 1611000000)")
    assert found(migrated, "sequences") == [("sequences.near_end", "theirs")]


@pytest.mark.slow
def test_an_unused_slot_and_a_lagging_replica_are_found(own_server, tmp_path_factory):
    server = own_server()
    database = of(server)
    server.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    standby = server.standby(tmp_path_factory.mktemp("standby"))
    try:
        wait_until(database, "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        server.execute("CREATE TABLE replayed ()")
        wait_until(of(standby), "SELECT 1 FROM pg_last_xact_replay_timestamp() AS t WHERE t IS NOT NULL")
        assert found(database, "replication") == []
        standby.execute("SELECT pg_wal_replay_pause()")
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 200000) AS n")
        time.sleep(0.5)

        assert found(database, "replication", most=1_000_000) == [
            ("replication.lag", "walreceiver"),
            ("replication.slot", "forgotten"),
        ]
        assert found(of(standby), "replication", longest=NOW) == [("replication.lag", "this standby")]
    finally:
        standby.remove()


def test_old_transaction_ids_are_found(migrated):
    assert found(migrated, "wraparound") == []
    assert ("wraparound.near", "transaction IDs") in found(migrated, "wraparound", near=10)


def test_a_database_left_by_an_interrupted_drop_is_not_counted(own_server):
    server = own_server()
    server.execute("CREATE DATABASE dead")
    server.execute("UPDATE pg_database SET datconnlimit = -2, datfrozenxid = '2600000000'::xid WHERE datname = 'dead'")

    assert server.execute("SELECT age(datfrozenxid) > 1000000000 FROM pg_database WHERE datname = 'dead'") == [(True,)]
    assert found(of(server), "wraparound") == []


def test_settings_that_lose_rows_are_found(own_server):
    server = own_server(fsync="off", autovacuum="off")

    assert found(of(server), "settings") == [("settings.wrong", "autovacuum"), ("settings.wrong", "fsync")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replica", "code"),
    [
        ("{primary}", "replication.not_standby"),
        ("postgresql://u@127.0.0.1:1/d", "replication.unreachable"),
        ("{standby}", None),
    ],
)
def test_a_replica_that_cannot_be_read_from_is_found(own_server, tmp_path_factory, replica, code):
    primary = own_server()
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    try:
        url = replica.format(primary=primary.url(), standby=standby.url())
        result = manage("dbhealth", "replication", "--format", "json", url=primary.url(), POSTGRES_REPLICA_URL=url)
    finally:
        standby.remove()

    found = [(one["code"], one["where"]) for one in json.loads(result.stdout)["findings"]]
    assert found == ([(code, "POSTGRES_REPLICA_URL")] if code else [])
    assert result.returncode == (4 if code else 0)


def test_a_query_of_this_role_is_shown_with_its_indexes_and_sequential_scans(own_server):
    server = own_server(shared_preload_libraries="pg_stat_statements")
    database = of(server)
    server.execute(
        "CREATE EXTENSION pg_stat_statements; CREATE TABLE users (id text PRIMARY KEY, name text); CREATE ROLE other LOGIN SUPERUSER"
    )
    server.execute("INSERT INTO users SELECT n, n FROM generate_series(1, 20000) AS n; ANALYZE users")
    with database.connect() as client:
        client.execute("SELECT name FROM users WHERE id = '7'")
        client.execute("SELECT id FROM users WHERE name = '7'")
        client.execute("SET ROLE other")
        client.execute("SELECT 1 FROM users WHERE name = '7'")

    with django(database) as connection:
        connection.ensure_connection()
        figures = [one for one in TOPICS["queries"](Reader(connection, "public"), shown=50) if isinstance(one, Figure)]
        planned = connection.pg_version >= 160000

    said = {one.label: one.text.partition("time, ")[2] for one in figures}
    assert said["SELECT name FROM users WHERE id = $1"] == "on accounts.User" + planned * ", by users_pkey"
    assert said["SELECT id FROM users WHERE name = $1"] == "on accounts.User" + planned * ", reading all of users"
    assert said["SELECT $1 FROM users WHERE name = $2"] == "on accounts.User"


def test_slow_and_heavy_queries_are_found_with_their_model_and_without_their_values(own_server):
    server = own_server(shared_preload_libraries="pg_stat_statements")
    database = of(server)
    assert found(database, "queries") == [("queries.not_counted", "pg_stat_statements")]
    server.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE users (id text)")

    with database.connect() as client:
        for _ in range(3):
            client.execute("SELECT pg_sleep(0.1), 'a secret' FROM (SELECT count(*) FROM users) AS u")
        client.execute("SELECT pg_catalog.pg_sleep(0.9)")  # Counted as ours: of all time, but not of the time in queries.

    with django(database) as connection:
        connection.ensure_connection()
        slow = [one for one in TOPICS["queries"](Reader(connection, "public"), slow=0.05, calls=3) if isinstance(one, Finding)]
        heavy = [one for one in TOPICS["queries"](Reader(connection, "public"), calls=9, busy=0.2) if isinstance(one, Finding)]
    assert [one.code for one in slow] == ["queries.slow"]
    assert [one.code for one in heavy] == ["queries.heavy"]
    assert " takes 100.0% of all time in queries (limit 30.0%), 3 calls of " in heavy[0].message
    assert ("on accounts.User" in slow[0].message, "secret" in slow[0].message) == (True, False)
