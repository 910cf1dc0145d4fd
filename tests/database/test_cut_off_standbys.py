"""Standbys that receive nothing from their primary, as dbhealth sees them from both servers."""

import json
import re
from contextlib import closing
from datetime import timedelta
from threading import Timer

import pytest

from fly2any.database.health import replication
from fly2any.database.sql import literal
from tests.conftest import manage
from tests.database.test_dbhealth import found, of
from tests.servers import wait_until

pytestmark = [pytest.mark.usefixtures("server"), pytest.mark.slow]

BEHIND = "this standby"


@pytest.fixture
def pair(own_server, tmp_path_factory):
    """A primary that keeps little WAL, and its standby."""
    primary = own_server(min_wal_size="32MB", max_wal_size="32MB")
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    wait_until(of(primary), "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
    yield primary, standby
    standby.remove()


def health(primary, standby, *options):
    """The exit code of dbhealth and its findings, with `standby` as the replica of `primary`."""
    words = ("dbhealth", "replication", "--format", "json", *options)
    result = manage(*words, url=primary.url(), POSTGRES_REPLICA_URL=standby.url())
    findings = json.loads(result.stdout)["findings"]
    return result.returncode, [(one["severity"], one["code"], one["where"], one["message"], one["cure"]) for one in findings]


def test_a_standby_whose_wal_the_primary_has_removed_is_found_on_both(pair):
    primary, standby = pair
    standby.stop()
    for number in range(6):
        primary.execute(f"CREATE TABLE t{number} (); SELECT pg_switch_wal()")
    primary.execute("CHECKPOINT")
    standby.start()
    log = standby.home / "log"
    while "has already been removed" not in log.read_text():
        wait_until(of(standby), "SELECT 1 FROM pg_sleep(0.1)")
    wait_until(of(standby), "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    on_primary, [lag] = health(primary, standby)
    on_standby, [cut_off] = health(primary, standby, "--database", "replica")

    assert (on_primary, on_standby) == (4, 4)
    assert (*lag[:3], lag[4]) == (
        *("warning", "replication.lag", "POSTGRES_REPLICA_URL"),
        "See `manage.py dbhealth replication --database replica`; until then the admin's lists are read from the primary.",
    )
    assert re.fullmatch(
        r"The replica lacks the last \d+\.\d MB of this server's WAL: it has replayed no transaction since its start \(limits 1\.0 GB, 5 min\)\.",
        lag[3],
    )
    assert cut_off == (
        *("error", "replication.lag", BEHIND),
        "This standby receives no WAL from its primary: it has replayed no transaction since its start.",
        "Read its log: if the primary has removed WAL that it needs, create the standby again (pg_basebackup); otherwise check that"
        " the primary runs, and primary_conninfo.",
    )


def test_a_standby_that_lost_its_primary_is_found_unless_it_restores_from_an_archive(pair):
    primary, standby = pair
    primary.execute("CREATE TABLE t ()")
    wait_until(of(standby), "SELECT 1 FROM pg_class WHERE relname = 't'")
    receiving = found(of(standby), "replication")
    primary.stop()
    wait_until(of(standby), "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
    cut_off = found(of(standby), "replication")
    standby.execute("ALTER SYSTEM SET restore_command = 'false'")
    standby.execute("SELECT pg_reload_conf()")
    wait_until(of(standby), "SELECT 1 WHERE current_setting('restore_command') = 'false'")

    assert receiving == []
    assert cut_off == [("replication.lag", BEHIND)]
    assert found(of(standby), "replication") == []


def test_a_replica_that_has_replayed_what_was_written_has_no_lag(pair):
    primary, standby = pair
    primary.execute("CREATE TABLE t AS SELECT generate_series(1, 100000)")

    assert health(primary, standby) == (0, [])


def test_a_standby_that_soon_replays_what_it_has_received_is_not_behind(pair, monkeypatch):
    """However old the last commit is: a long transaction writes WAL without one."""
    primary, standby = pair
    primary.execute("CREATE TABLE t (n int)")
    wait_until(of(standby), "SELECT 1 FROM pg_class WHERE relname = 't'")
    standby.execute("SELECT pg_wal_replay_pause()")
    wait_until(of(standby), "SELECT 1 WHERE pg_get_wal_replay_pause_state() = 'paused'")
    with closing(of(primary).connect()) as client:
        client.execute("BEGIN; INSERT INTO t SELECT generate_series(1, 100000)")
        wait_until(of(standby), "SELECT 1 WHERE pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
        paused = found(of(standby), "replication", longest=timedelta())

        def resume():
            client.execute("INSERT INTO t SELECT generate_series(1, 100000)")  # What was received may end within a record.
            standby.execute("SELECT pg_wal_replay_resume()")

        monkeypatch.setattr(replication, "SOON", 30.0)
        timer = Timer(0.1, resume)
        timer.start()
        resumed = found(of(standby), "replication", longest=timedelta())
        timer.join()

    assert (paused, resumed) == ([("replication.lag", BEHIND)], [])


def test_a_standby_of_another_database_is_no_replica(pair, own_server):
    _, standby = pair
    other = own_server()
    other.execute("DROP DATABASE fly2any", database="postgres")
    other.create_database()  # With another oid; the servers of tests are copies of one.

    assert health(other, standby) == (
        4,
        [
            (
                *("warning", "replication.not_standby", "POSTGRES_REPLICA_URL"),
                "The URL points to a standby of another database, so the admin does not read from it.",
                "Correct the URL, or remove it.",
            )
        ],
    )


def test_a_slot_of_a_standby_is_judged_unless_it_is_a_copy_of_the_primarys(own_server, tmp_path_factory):
    primary = own_server(wal_level="logical")
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    primary.execute("SELECT pg_create_physical_replication_slot('of_standby', true)")
    standby.execute("ALTER SYSTEM SET primary_slot_name TO 'of_standby'")
    standby.execute("ALTER SYSTEM SET wal_level TO logical")
    standby.execute("ALTER SYSTEM SET hot_standby_feedback TO on")
    [(conninfo,)] = standby.execute("SHOW primary_conninfo")
    standby.execute(f"ALTER SYSTEM SET primary_conninfo TO {literal(f'{conninfo} dbname=fly2any')}")
    standby.stop()
    standby.start()
    wait_until(of(primary), "SELECT 1 FROM pg_replication_slots WHERE xmin IS NOT NULL")
    standby.execute("SELECT pg_create_physical_replication_slot('left_over', true)")
    primary.execute("SELECT pg_create_logical_replication_slot('of_primary', 'pgoutput', failover => true)")
    try:
        [position] = primary.execute(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'of_primary'"
        )
        wait_until(of(standby), "SELECT 1 WHERE pg_last_wal_replay_lsn() >= %s::pg_lsn", position)
        of(standby).execute("SELECT pg_sync_replication_slots()")
        primary.execute("CREATE TABLE t AS SELECT generate_series(1, 100000)")
        wait_until(of(standby), "SELECT 1 FROM pg_class WHERE relname = 't'")
        names = standby.execute("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1")
        seen = found(of(standby), "replication", most=1_000_000)
    finally:
        standby.remove()

    assert (names, seen) == ([("left_over",), ("of_primary",)], [("replication.slot", "left_over")])
