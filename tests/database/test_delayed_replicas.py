"""Clients that receive WAL and do not replay it: those that store it, and standbys that are delayed or paused."""

import re
from contextlib import contextmanager
from datetime import timedelta

import pytest
from psycopg import pq

from tests.database.test_dbhealth import NOW, of
from tests.database.test_health_privileges import asked
from tests.servers import open_transaction, wait_until

pytestmark = pytest.mark.usefixtures("server")


def position(database, lsn="pg_current_wal_lsn()"):
    [(number,)] = database.execute(f"SELECT ({lsn} - '0/0')::bigint")
    return number


@contextmanager
def receiver(database, **confirmed):
    """A client that was sent all WAL, among it 50 kB after its start, and has confirmed the positions `confirmed`, 0 being none."""
    client = pq.PGconn.connect(
        f"host={database.host} port={database.port} user={database.user} application_name=store replication=true".encode()
    )
    assert client.status == pq.ConnStatus.OK, client.error_message
    [(start,)] = database.execute("SELECT pg_current_wal_lsn()::text")
    assert client.exec_(f"START_REPLICATION PHYSICAL {start}".encode()).status == pq.ExecStatus.COPY_BOTH
    first = position(database)
    database.execute("SELECT pg_logical_emit_message(true, '', repeat('x', 50000))")  # The socket's buffer holds it.
    wait_until(database, "SELECT 1 FROM pg_stat_replication WHERE sent_lsn = pg_current_wal_flush_lsn()")
    last = position(database)
    places = {"start": first, "end": last, "none": 0}
    positions = [places[confirmed[name]] for name in ("write", "flush", "replay")]
    client.put_copy_data(b"r" + b"".join(number.to_bytes(8) for number in (*positions, 0)) + b"\0")
    client.flush()
    name = next(name for name in ("replay", "flush", "write") if confirmed[name] != "none")
    wait_until(database, f"SELECT 1 FROM pg_stat_replication WHERE {name}_lsn - '0/0' = {places[confirmed[name]]}")
    try:
        yield
    finally:
        client.finish()  # The server waits for it when it shuts down.


@pytest.mark.parametrize("flush", ["end", "none"])
def test_a_client_that_only_stores_wal_does_not_lag(own_server, flush):
    database = of(own_server())
    with receiver(database, write="end", flush=flush, replay="none"):
        wait_until(database, "SELECT 1 FROM pg_stat_replication WHERE replay_lag > interval '0'")
        figures, found = asked(database, "replication", longest=NOW)

    assert re.fullmatch(r"streaming, \d{1,3}(\.\d kB| B) behind", figures["store"][0])
    assert found == []


@pytest.mark.parametrize(("flush", "message", "cure"), [
    ("end", r"Replica store has received the latest WAL, but has not replayed the last [\d.]+ kB( and \d+ \w+)? of it \(limits 9\.8 kB, 5 min\)\.",
     "On the replica: SELECT pg_get_wal_replay_pause_state(); SHOW recovery_min_apply_delay; and end long queries, which delay the replay."
     " If it is delayed on purpose, waive this finding."),
    ("start", r"Replica store is [\d.]+ kB( and \d+ \w+)? behind \(limits 9\.8 kB, 5 min\)\.", "Check its log, and whether the network or its disk is too slow."),
])  # fmt: skip
def test_a_replica_that_has_received_what_it_does_not_replay_is_told_from_a_slow_one(own_server, flush, message, cure):
    database = of(own_server())
    with receiver(database, write=flush, flush=flush, replay="start"):
        [found] = asked(database, "replication", most=10_000)[1]

    assert (str(found.severity), found.code, found.where, found.cure) == ("warning", "replication.lag", "store", cure)
    assert re.fullmatch(message, found.message)


@pytest.mark.slow
def test_a_standby_may_lag_by_its_own_delay_and_says_that_its_replay_is_paused(own_server, tmp_path_factory):
    primary = own_server()
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    try:
        primary.execute("CREATE TABLE t ()")
        wait_until(of(standby), "SELECT 1 FROM pg_class WHERE relname = 't'")
        standby.execute("ALTER SYSTEM SET recovery_min_apply_delay = '8h'")
        standby.execute("SELECT pg_reload_conf()")
        wait_until(of(standby), "SELECT 1 WHERE current_setting('recovery_min_apply_delay') = '8h'")
        primary.execute("CREATE TABLE u ()")
        wait_until(of(standby), "SELECT 1 WHERE pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn()")
        figures, found = asked(of(standby), "replication", longest=NOW)
        standby.execute("SELECT pg_wal_replay_pause()")
        [paused] = asked(of(standby), "replication", longest=timedelta(hours=-8))[1]
    finally:
        standby.remove()

    assert figures["this standby"][0].endswith(" behind, delayed by 8 h (recovery_min_apply_delay)")
    assert found == []
    assert paused.message.endswith("): its replay is paused.")
    assert paused.cure == "SELECT pg_wal_replay_resume();"


@pytest.mark.slow
def test_a_query_that_delays_the_replay_of_a_standby_is_the_cause_that_is_named(own_server, tmp_path_factory):
    primary = own_server()
    primary.execute("CREATE TABLE u AS SELECT 1 AS a")
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    try:
        standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = -1")
        standby.execute("SELECT pg_reload_conf()")
        wait_until(of(standby), "SELECT 1 FROM u")
        with open_transaction(of(standby), "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM u"):
            primary.execute("DELETE FROM u")
            primary.execute("VACUUM u")
            wait_until(of(standby), "SELECT 1 FROM pg_stat_activity WHERE wait_event LIKE 'RecoveryConflict%%'", ())
            _, [found] = asked(of(standby), "replication", longest=NOW)
    finally:
        standby.remove()

    assert found.message.endswith("): it has received later WAL, but not replayed it.")
    assert found.cure.startswith("End long queries here, which delay the replay")
