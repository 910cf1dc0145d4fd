"""What dbhealth says of slots whose client is connected: the WAL that they keep, and clients that confirm nothing."""

import re
from contextlib import contextmanager

import pytest
from psycopg import pq

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import of
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")


def replication(database, **limits):
    """The figure about the client, and the findings."""
    with django(database) as connection:
        connection.ensure_connection()
        answers = list(TOPICS["replication"](Reader(connection, "public"), **limits))
    [client] = [one.text for one in answers if isinstance(one, Figure) and one.label == "etl"] or [None]
    return client, [
        (str(one.severity), one.code, one.where, one.message, one.cure) for one in answers if isinstance(one, Finding)
    ]


@contextmanager
def consumer(database):
    """A client that reads from the slot `etl`, and confirms only what `confirm` sends."""
    client = pq.PGconn.connect(
        f"host={database.host} port={database.port} user={database.user} dbname={database.name} application_name=etl"
        " replication=database".encode()
    )
    assert client.status == pq.ConnStatus.OK, client.error_message
    started = client.exec_(b"START_REPLICATION SLOT etl LOGICAL 0/0 (proto_version '1', publication_names 'none')")
    assert started.status == pq.ExecStatus.COPY_BOTH, started.error_message
    try:
        yield client
    finally:
        client.finish()  # The server waits for it when it shuts down.


def confirm(client, database, *, replayed):
    """Confirm that everything so far was received and stored, and perhaps replayed."""
    [(position,)] = database.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
    positions = (position, position, position if replayed else 0, 0)
    client.put_copy_data(b"r" + b"".join(number.to_bytes(8) for number in positions) + b"\0")
    client.flush()


@pytest.fixture
def slot(own_server):
    database = of(own_server(wal_level="logical"))
    database.execute("CREATE PUBLICATION none")
    database.execute("SELECT pg_create_logical_replication_slot('etl', 'pgoutput')")
    return database


FEW_MEGABYTES = "CREATE TABLE t AS SELECT generate_series(1, 100000) AS n"
DROP = "SELECT pg_drop_replication_slot('etl');"
CONFIRM = (
    "Read the client's log: it must confirm what it no longer needs. Long transactions, including those of a standby, delay this:"
    f" end them (`manage.py dbhealth transactions`). If the slot is not needed, stop the client, then {DROP}"
)


def test_what_a_slot_keeps_for_a_client_that_confirms_nothing_is_found(slot):
    with consumer(slot):
        slot.execute(FEW_MEGABYTES)
        wait_until(slot, "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        small = replication(slot)
        figure, [finding] = replication(slot, most=1_000_000)
    wait_until(slot, "SELECT 1 FROM pg_replication_slots WHERE NOT active")
    [unread] = replication(slot, most=1_000_000)[1]

    assert small == (figure, [])
    assert figure == "streaming, lag not known: it has confirmed no position"
    assert (*finding[:3], finding[4]) == ("warning", "replication.slot", "etl", CONFIRM)
    keeps = r"the server keeps \d\.\d MB of WAL for it \(limit 976\.6 kB\), which fills the disk\."
    assert re.fullmatch(rf"A client reads from the slot, but {keeps}", finding[3])
    assert (*unread[:3], unread[4]) == ("error", "replication.slot", "etl", f"Start its replica again, or {DROP}")
    assert re.fullmatch(rf"No client reads from the slot, and {keeps}", unread[3])


def test_the_dead_rows_that_a_slot_keeps_for_a_connected_client_are_found(slot):
    with consumer(slot):
        slot.execute("CREATE TABLE t (); CREATE TABLE u ()")
        [finding] = replication(slot, oldest=0)[1]

    assert (*finding[:3], finding[4]) == ("warning", "replication.slot", "etl", CONFIRM)
    assert re.fullmatch(
        r"A client reads from the slot, but VACUUM keeps the rows of the system catalogues that died in the last \d+ transactions? for it \(limit 0\), in every database\.",
        finding[3],
    )


@pytest.mark.parametrize("replayed", [True, False])
def test_a_client_that_confirms_is_behind_by_what_it_has_not_confirmed(slot, replayed):
    with consumer(slot) as client:
        confirm(client, slot, replayed=replayed)
        wait_until(slot, "SELECT 1 FROM pg_stat_replication WHERE flush_lsn IS NOT NULL")
        slot.execute(FEW_MEGABYTES)
        wait_until(slot, "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")
        late, [finding] = replication(slot, most=1_000_000)
        confirm(client, slot, replayed=replayed)
        wait_until(slot, "SELECT 1 FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_lsn()")
        current = replication(slot, most=1_000_000)[0]

    assert re.fullmatch(r"streaming, \d\.\d MB behind", late)
    assert finding[:3] == ("warning", "replication.lag", "etl")
    assert re.match(r"Replica etl is \d\.\d MB", finding[3])
    assert current == "streaming, 0 B behind"
