"""The findings about indexes and sequences: no false alarm, and none missing."""

import contextlib
import os
import re
import signal
import time
from collections import namedtuple
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.errors import UniqueViolation

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.sessions import _end
from fly2any.database.health.topics import TOPICS
from fly2any.database.migration.activity import ROLLBACK_PREPARED
from tests.conftest import django
from tests.database.test_dbhealth import found, of
from tests.servers import open_transaction, wait_until

pytestmark = pytest.mark.usefixtures("server")


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("narrow", "wide", "redundant"),
    [
        ("(a)", "(a, b)", ["narrow"]),
        ("(a)", "(a) INCLUDE (b)", ["narrow"]),
        ("(a) INCLUDE (b)", "(a, b)", ["narrow"]),
        ("(a) INCLUDE (b)", "(a, c)", []),
        ("(a) INCLUDE (b)", "(a) INCLUDE (c)", []),
        ("(a) INCLUDE (b)", "(a) INCLUDE (b, c)", ["narrow"]),
        ("(a text_pattern_ops)", "(a, b)", []),
        ("(a text_pattern_ops)", "(a text_pattern_ops, b)", ["narrow"]),
        ('(a COLLATE "C")', '(a COLLATE "POSIX", b)', []),
        ("(a)", "(a, b) WHERE b IS NOT NULL", []),
        ("(a, b) WHERE b IS NOT NULL", "(a)", []),
        ("(a) WHERE b IS NOT NULL", "(a, b) WHERE b IS NOT NULL", ["narrow"]),
        ("(a) WHERE b IS NOT NULL", "(a, b) WHERE b IS NULL", []),
        ("(lower(a))", "(lower(a), b)", ["narrow"]),
        ("(lower(a))", "(upper(a), b)", []),
    ],
)
def test_an_index_is_redundant_only_if_another_serves_all_its_queries(database, narrow, wide, redundant):
    database.execute("CREATE TABLE t (a text, b text, c text)")
    database.execute(f"CREATE INDEX narrow ON t {narrow}; CREATE INDEX wide ON t {wide}")

    assert found(database, "indexes") == [("indexes.redundant", f"t.{name}") for name in redundant]


def test_copies_of_a_unique_key_of_the_contract_are_redundant_and_their_cures_work(migrated):
    """As Sequelize's `sync({alter: true})` makes them at each start."""
    version = migrated.execute("SHOW server_version_num")[0][0]
    migrated.execute(f"""
        ALTER TABLE users ADD CONSTRAINT users_email_key1 UNIQUE (email), ADD CONSTRAINT users_email_key2 UNIQUE (email);
        ALTER TABLE users ADD CONSTRAINT users_id_key UNIQUE (id), ADD CONSTRAINT other UNIQUE (email, id);
        CREATE UNIQUE INDEX a1 ON accounts (provider, "providerAccountId");
        CREATE UNIQUE INDEX a2 ON accounts ("providerAccountId", provider);
        CREATE UNIQUE INDEX part ON users (email) WHERE phone IS NOT NULL;
        CREATE UNIQUE INDEX pattern ON users (email text_pattern_ops);
        {"CREATE UNIQUE INDEX nulls ON users (email) NULLS NOT DISTINCT;" if version >= "150000" else ""}
        ALTER TABLE users REPLICA IDENTITY USING INDEX users_email_key2;
        ALTER TABLE users DROP CONSTRAINT users_email_key, ADD CONSTRAINT users_email_key3 UNIQUE (email);
    """)
    # The foreign key uses users_email_key1, the first key that it can use.
    migrated.execute(
        "CREATE TABLE theirs (a text REFERENCES users (email)); ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE (email)"
    )

    with django(migrated) as connection:
        connection.ensure_connection()
        findings = [one for one in TOPICS["indexes"](Reader(connection, "public")) if isinstance(one, Finding)]
    assert [(one.code, one.where, one.cure) for one in findings] == [
        ("indexes.redundant", "accounts.a1", 'DROP INDEX CONCURRENTLY "a1";'),
        ("indexes.redundant", "users.users_email_key3", 'ALTER TABLE "users" DROP CONSTRAINT "users_email_key3";'),
        ("indexes.redundant", "users.users_id_key", 'ALTER TABLE "users" DROP CONSTRAINT "users_id_key";'),
    ]
    for finding in findings:
        migrated.execute(finding.cure)
    assert found(migrated, "indexes") == []


def test_of_two_identical_indexes_the_contracts_is_kept(migrated):
    definition = 'ON price_alerts ("lastChecked") WHERE active AND NOT triggered'
    migrated.execute(f'CREATE INDEX a_twin ON notifications ("userId", "createdAt" DESC); CREATE INDEX a_part {definition}')

    assert found(migrated, "indexes") == [
        ("indexes.redundant", "notifications.a_twin"),
        ("indexes.redundant", "price_alerts.a_part"),
    ]


@pytest.mark.slow
def test_a_slot_that_lost_its_wal_is_reported_to_keep_none(own_server):
    server = own_server(max_slot_wal_keep_size="16MB", max_wal_size="1GB", min_wal_size="32MB")
    server.execute("SELECT pg_create_physical_replication_slot('lost', true)")
    for _ in range(4):
        server.execute("CREATE TABLE t (); DROP TABLE t")
        server.execute("SELECT pg_switch_wal()")

    found = []
    for statement in ("SELECT 1", "CHECKPOINT"):
        server.execute(statement)
        with django(of(server)) as connection:
            found += [one for one in TOPICS["replication"](Reader(connection, "public")) if isinstance(one, Finding)]

    assert [(str(one.severity), one.code, one.where, one.message) for one in found] == [
        ("warning", "replication.slot", "lost", "The reader of slot lost is further behind than max_slot_wal_keep_size: the next checkpoint removes WAL that it still needs, and no client reads from the slot."),
        ("error", "replication.slot", "lost", "The server has removed WAL that the reader of the slot still needs, so no reader can resume from the slot, and the slot keeps no WAL."),
    ]  # fmt: skip


def test_a_server_process_that_holds_a_lock_is_not_to_be_terminated():
    row = namedtuple("Row", "by is_process role gid pid application maintains backs_up of_transaction is_direct")

    holders = ((7, False, "site", None), (7, True, "cron", None), (7, True, "", None), (0, False, "", None))
    assert [_end([row(*holder, 8, "", False, False, False, True)], False) for holder in holders] == [
        "manage.py dbhealth locks --terminate 7 --yes",
        "Wait until it is done: it is a process of the role cron, such as a worker of pg_cron or a copy to a subscriber. To end it, as that role:"
        " SELECT pg_terminate_backend(7); If others wait for session 8, end that: manage.py dbhealth locks --terminate 8 --yes",
        "Wait until it is done: it is a server process, such as a vacuum that prevents wraparound."
        " If others wait for session 8, end that: manage.py dbhealth locks --terminate 8 --yes",
        ROLLBACK_PREPARED,
    ]


@pytest.mark.parametrize(
    ("index", "serves"),
    [
        ("(one, two)", True),
        ("(two, one)", True),
        ("(one, two) WHERE one IS NOT NULL", True),
        ("(one, two, n) WHERE two IS NOT NULL", True),
        ("(one) INCLUDE (two)", False),
        ("(one, two) WHERE n IS NOT NULL", False),
        ("(one, two) WHERE n > 1", False),
        ("USING brin (one, two)", False),
    ],
)
def test_a_foreign_key_is_served_by_the_indexes_that_its_checks_can_use(database, index, serves):
    database.execute("CREATE TABLE parent (one int, two int, PRIMARY KEY (one, two))")
    database.execute("CREATE TABLE t (one int, two int, n int, CONSTRAINT k FOREIGN KEY (one, two) REFERENCES parent)")
    database.execute(f"INSERT INTO t SELECT NULL, 1, i FROM generate_series(1, 100) AS i; CREATE INDEX ON t {index}; ANALYZE t")

    assert found(database, "indexes", many=10) == ([] if serves else [("indexes.missing", "t.k")])


def test_an_index_that_alone_serves_a_foreign_key_is_never_unused(migrated):
    """Deleting people is rare, so no query may have used it for weeks."""
    migrated.execute("CREATE TABLE theirs (id int, whose text REFERENCES users, seat text REFERENCES users)")
    migrated.execute(
        "INSERT INTO users (id, email, \"updatedAt\") SELECT i, i || '@x', now() FROM generate_series(1, 11000) AS i"
    )
    migrated.execute("INSERT INTO theirs SELECT i, i, i FROM generate_series(1, 11000) AS i")
    migrated.execute("CREATE INDEX by_whose ON theirs (whose, id); CREATE INDEX by_id ON theirs (id, whose)")
    migrated.execute(
        "CREATE UNIQUE INDEX one ON theirs (seat); CREATE INDEX by_seat ON theirs (seat, id); ANALYZE theirs, users"
    )

    unused = [place for code, place in found(migrated, "indexes", young=timedelta()) if code == "indexes.unused"]

    assert unused == ["theirs.by_id", "theirs.by_seat"]


def test_an_index_in_use_is_not_redundant_because_of_an_unused_one(database):
    """Otherwise a DBA who runs both cures has no index left for its queries."""
    database.execute("CREATE TABLE t AS SELECT i AS a, i AS b, i AS c FROM generate_series(1, 5000) AS i; ANALYZE t")
    database.execute("CREATE INDEX a_2 ON t (a); CREATE INDEX b ON t (b)")
    with closing(database.connect()) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SELECT FROM t WHERE a = 1")
        connection.execute("SELECT FROM t WHERE b = 1")
    wait_until(database, "SELECT 1 FROM pg_stat_user_indexes HAVING sum(idx_scan) = 2")
    database.execute(
        "CREATE INDEX a_1 ON t (a); CREATE INDEX b_c ON t (b, c); CREATE INDEX c ON t (c); CREATE INDEX c_a ON t (c, a)"
    )

    unused = [("indexes.unused", f"t.{name}") for name in ("a_1", "b_c", "c", "c_a")]
    assert found(database, "indexes", young=timedelta()) == unused
    redundant = [("indexes.redundant", f"t.{name}") for name in ("a_2", "b", "c")]
    assert found(database, "indexes") == redundant


def test_an_index_that_is_being_built_is_not_invalid(database):
    database.execute("CREATE TABLE t (a int)")
    with open_transaction(database, "INSERT INTO t VALUES (1)") as writer, closing(database.connect()) as builder:
        builder.pgconn.send_query(b"CREATE INDEX CONCURRENTLY built ON t (a)")
        wait_until(database, "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('built') AND NOT indisvalid")
        building = found(database, "indexes")
        with django(database) as connection:
            figures = [(one.label, one.text) for one in TOPICS["indexes"](Reader(connection, "public"))]
        writer.rollback()
        wait_until(database, "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('built') AND indisvalid")

    assert building == []
    assert ("being built", "t.built") in figures
    assert found(database, "indexes") == []


@pytest.mark.parametrize(
    ("made", "filled", "near"),
    [
        ("CREATE SEQUENCE s; CREATE TABLE t (a int DEFAULT nextval('s'))", 2_000_000_000, ["s"]),
        ("CREATE SEQUENCE s; CREATE TABLE t (a bigint DEFAULT nextval('s'))", 2_000_000_000, []),
        ("CREATE TABLE t (a smallint); CREATE SEQUENCE s OWNED BY t.a", 30_000, ["s"]),
        ("CREATE SEQUENCE s AS int INCREMENT -1", -2_000_000_000, ["s"]),
        ("CREATE SEQUENCE s AS int INCREMENT -1", -1_000, []),
        ("CREATE SEQUENCE s INCREMENT -1; CREATE TABLE t (a smallint DEFAULT nextval('s'))", -30_000, ["s"]),
        ("CREATE SEQUENCE s INCREMENT -1 MINVALUE 1 MAXVALUE 1000", 10, ["s"]),
        ("CREATE SEQUENCE s INCREMENT -1 MINVALUE 1 MAXVALUE 1000", 990, []),
        ("CREATE SEQUENCE s AS int CYCLE", 2_000_000_000, []),
    ],
)
def test_a_sequence_is_judged_by_the_type_of_its_column_and_its_direction(database, made, filled, near):
    database.execute(f"{made}; SELECT setval('s', {filled})")

    assert found(database, "sequences") == [("sequences.near_end", name) for name in near]


BIGINT = "Change its column to bigint in a migration, and the sequence with it (ALTER SEQUENCE … AS bigint)."


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("made", "last", "cure"),
    [
        ("CREATE SEQUENCE s MAXVALUE 1000", 900, "NO MAXVALUE"),
        ("CREATE SEQUENCE s INCREMENT -1 MINVALUE -1000", -900, "NO MINVALUE"),
        ("CREATE SEQUENCE s AS int", 2_000_000_000, "AS bigint NO MAXVALUE"),
        ("CREATE SEQUENCE s AS int INCREMENT -1", -2_000_000_000, "AS bigint NO MINVALUE"),
        ("CREATE SEQUENCE s MAXVALUE 1000; CREATE TABLE t (a int DEFAULT nextval('s'))", 900, "NO MAXVALUE"),
        ("CREATE SEQUENCE s AS smallint MAXVALUE 31000; CREATE TABLE t (a int DEFAULT nextval('s'))", 30_000, "AS integer NO MAXVALUE"),
        ("CREATE TABLE t (a int GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME s MAXVALUE 1000))", 900, "NO MAXVALUE"),
        ("CREATE TABLE t (a bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME s)); ALTER SEQUENCE s AS int", 2_000_000_000, "AS bigint NO MAXVALUE"),
        ("CREATE SEQUENCE s CYCLE; CREATE TABLE t (a smallint DEFAULT nextval('s'))", 30_000, "MAXVALUE 32767"),
        ("CREATE SEQUENCE s INCREMENT -1 CYCLE; CREATE TABLE t (a smallint DEFAULT nextval('s'))", -30_000, "MINVALUE -32768"),
        ("CREATE TABLE t (a serial); ALTER SEQUENCE t_a_seq RENAME TO s", 2_000_000_000, BIGINT),
        ("CREATE SEQUENCE s MAXVALUE 2000000000; CREATE TABLE t (a int DEFAULT nextval('s'))", 1_900_000_000, BIGINT),
        ("CREATE SEQUENCE s", 9_000_000_000_000_000_000, "No integer type is larger than bigint: reset it with setval if smaller values are unused."),
    ],
)  # fmt: skip
def test_the_cure_of_a_sequence_near_its_end_ends_the_finding(database, made, last, cure):
    database.execute(f"{made}; SELECT setval('s', {last})")

    with django(database) as connection:
        [finding] = [one for one in TOPICS["sequences"](Reader(connection, "public")) if isinstance(one, Finding)]

    is_sql = not cure.endswith(".")
    assert (finding.cure, finding.is_sql) == (f'ALTER SEQUENCE "s" {cure};' if is_sql else cure, is_sql)
    if is_sql:
        database.execute(finding.cure)
        assert found(database, "sequences") == []


@pytest.mark.parametrize("increment", [1, -1])
def test_a_sequence_that_begins_again_within_the_type_of_its_column_is_not_reported(database, increment):
    database.execute(
        f"CREATE SEQUENCE s AS smallint INCREMENT {increment} CYCLE; CREATE TABLE t (a smallint DEFAULT nextval('s')); SELECT setval('s', {increment} * 32767)"
    )

    assert found(database, "sequences") == []


def test_a_sequence_that_returned_no_value_yet_is_judged_by_its_first_one(database):
    database.execute(
        "CREATE SEQUENCE far AS int; CREATE SEQUENCE fresh AS int START 5; SELECT setval('far', 2000000000, false)"
    )

    assert found(database, "sequences") == [("sequences.near_end", "far")]


def test_an_archive_command_that_fails_is_found_until_it_succeeds(own_server):
    server = own_server(archive_mode="on")
    server.execute("ALTER SYSTEM SET archive_command = 'false'")
    server.execute("SELECT pg_reload_conf()")
    server.execute("CREATE TABLE t (); SELECT pg_switch_wal()")
    failed = "SELECT 1 FROM pg_stat_archiver WHERE last_failed_time > COALESCE(last_archived_time, '-infinity')"
    wait_until(of(server), failed)

    with django(of(server)) as connection:
        [finding] = [one for one in TOPICS["replication"](Reader(connection, "public")) if isinstance(one, Finding)]
    assert (finding.code, finding.where) == ("replication.archive", "archive_command")
    assert re.fullmatch(
        r"Archiving failed .+ ago for [0-9A-F]{24}, \d+ times? in total, and nothing has been archived since: the server keeps WAL until its disk is"
        r" full, and no WAL can be recovered from the archive\.",
        finding.message,
    )

    server.execute("ALTER SYSTEM SET archive_command = 'true'")
    server.execute("SELECT pg_reload_conf()")
    wait_until(of(server), "SELECT 1 WHERE current_setting('archive_command') = 'true'")
    server.execute("CREATE TABLE u (); SELECT pg_switch_wal()")  # This wakes the archiver, which tries again once a minute.
    wait_until(of(server), "SELECT 1 FROM pg_stat_archiver WHERE last_archived_time > last_failed_time")
    assert found(of(server), "replication") == []


def test_pages_with_a_wrong_checksum_are_found(own_server):
    server = own_server()
    server.execute("CREATE TABLE t AS SELECT 1 AS id; CHECKPOINT")
    [(name,)] = server.execute("SELECT pg_relation_filepath('t')")
    assert found(of(server), "tables") == []
    server.stop()
    with open(server.home / "data" / name, "r+b") as file:
        file.seek(100)
        file.write(b"damaged")
    server.start()
    with pytest.raises(psycopg.errors.DataCorrupted):
        server.execute("SELECT * FROM t")

    wait_until(of(server), "SELECT 1 FROM pg_stat_database WHERE checksum_failures > 0")
    with django(of(server)) as connection:
        [finding] = [one for one in TOPICS["tables"](Reader(connection, "public")) if isinstance(one, Finding)]
    assert (finding.code, finding.where) == ("tables.damaged", "fly2any")
    assert finding.message.startswith("1 checksum failure, the last at ")
    server.execute("SELECT pg_stat_reset()")  # As the cure says.
    assert finding.cure.endswith(
        "Then SELECT pg_stat_reset() in that database ends this finding; it also resets the database's other counters."
    )
    assert found(of(server), "tables") == []


def invalid_indexes(database):
    with django(database) as connection:
        return [one for one in TOPICS["indexes"](Reader(connection, "public")) if isinstance(one, Finding)]


def test_the_index_of_a_failed_build_and_the_copy_that_an_interrupted_reindex_left_are_to_be_dropped(migrated):
    migrated.execute("CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1), (1)")
    for statement in ("CREATE UNIQUE INDEX CONCURRENTLY same ON theirs (id)", "REINDEX INDEX CONCURRENTLY same"):
        with migrated.connect() as client, pytest.raises(UniqueViolation):
            client.execute(statement)

    invalid = invalid_indexes(migrated)

    assert [(one.where, one.cure) for one in invalid] == [
        ("theirs.same", 'DROP INDEX CONCURRENTLY "same";'),
        ("theirs.same_ccnew", 'DROP INDEX CONCURRENTLY "same_ccnew";'),
    ]
    for one in invalid:
        migrated.execute(one.cure)
    assert invalid_indexes(migrated) == []


def test_an_invalid_index_that_is_ours_or_not_unique_is_to_be_rebuilt(migrated):
    migrated.execute("CREATE INDEX plain ON notifications (title); CREATE UNIQUE INDEX single ON notifications (title)")
    migrated.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text IN ('plain', 'single', 'users_email_key')"
    )

    updated = "Index {} is invalid: no query uses it, but every write updates it"
    assert [(one.where, one.message, one.cure) for one in invalid_indexes(migrated)] == [
        ("notifications.plain", f"{updated.format('plain')}.", 'REINDEX INDEX CONCURRENTLY "plain";'),
        (
            "notifications.single",
            f"{updated.format('single')}, and it rejects duplicates.",
            'DROP INDEX CONCURRENTLY "single";',
        ),
        (
            "users.users_email_key",
            f"{updated.format('users_email_key')}, and it rejects duplicates.",
            'REINDEX INDEX CONCURRENTLY "users_email_key";',
        ),
    ]


def test_an_index_of_values_in_the_toast_table_is_not_bloated(migrated):
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@x.de', now())")
    token = "(SELECT string_agg(encode(sha512((100 * i + j)::text::bytea), 'base64'), '') FROM generate_series(1, 25) AS j)"
    migrated.execute(
        f'INSERT INTO sessions (id, "sessionToken", "userId", expires) SELECT i, {token}, \'u\', now() FROM generate_series(1, 3000) AS i'
    )
    migrated.execute('REINDEX INDEX "sessions_sessionToken_key"; ANALYZE sessions')
    assert migrated.execute("SELECT pg_relation_size('\"sessions_sessionToken_key\"') > 10000000") == [(True,)]

    assert found(migrated, "indexes") == []


@pytest.mark.slow
def test_scans_are_counted_from_a_crash_on_which_discards_all_statistics(own_server):
    """The server stays up, so its start says nothing about them."""
    server = own_server(restart_after_crash="on")
    database = of(server)
    time.sleep(2)
    with closing(database.connect()) as killed, closing(database.connect()) as other:
        crashed = datetime.now(UTC)
        os.kill(killed.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT pg_sleep(60)")  # The server ends every session.
    started = None
    while started is None and datetime.now(UTC) - crashed < timedelta(minutes=1):
        with contextlib.suppress(psycopg.OperationalError):  # It recovers.
            [(started, now)] = database.execute("SELECT pg_postmaster_start_time(), now()")

    with django(database) as connection:
        connection.ensure_connection()
        figures = {one.label: one for one in TOPICS["indexes"](Reader(connection, "public")) if isinstance(one, Figure)}

    since = figures["scans counted since"]
    assert started < crashed < since.value <= now
    assert since.text == f"{since.value:%Y-%m-%d %H:%M} UTC (last reset of the statistics)"
