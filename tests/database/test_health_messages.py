"""What findings of `dbhealth` and `dbstatus --security` say: whole sentences, for a known session and for one of which little is known."""

import dataclasses
import re
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta

import psycopg
import pytest

from fly2any.database.health.examine import Reader
from fly2any.database.health.queries import HIDDEN, _demanding
from fly2any.database.health.security import passwords
from fly2any.database.migration.activity import Activity
from tests.conftest import django
from tests.database.test_dbhealth import NOW, of, waiting
from tests.database.test_health_privileges import asked
from tests.database.test_security import HASH
from tests.servers import open_transaction, wait_until

pytestmark = pytest.mark.usefixtures("server")


def test_a_blocked_session_and_its_blocker_are_named_with_their_queries(database):
    lock = "SELECT pg_advisory_lock(7)"
    with open_transaction(database, lock) as holder, waiting(database, lock):
        _, [finding] = asked(database, "locks", longest=NOW)
        pid = holder.info.backend_pid

    assert re.fullmatch(
        rf"The query “SELECT pg_advisory_lock\(7\)” of session \d+ has waited \d+ ms \(limit 0 ms\) for session {pid}"
        r" \(the site, postgres, idle in transaction: “SELECT pg_advisory_lock\(7\)”\)\.",
        finding.message,
    )


def test_workers_that_wait_to_become_the_leader_are_a_note(database):
    lock = "SELECT pg_advisory_lock(7)"
    with closing(database.connect(application_name="leader")) as leader:
        leader.execute(lock)
        with waiting(database, lock):
            _, [finding] = asked(database, "locks", longest=NOW)
            leader.execute("BEGIN")
            _, [in_transaction] = asked(database, "locks", longest=NOW)
            leader.execute("COMMIT")
        leader.execute("SELECT pg_advisory_lock(72707369)")
        with waiting(database, "SELECT pg_advisory_lock(72707369)"):
            _, [of_migrations] = asked(database, "locks", longest=NOW)
        pid = leader.info.backend_pid

    end = f"manage.py dbhealth locks --terminate {pid} --yes"
    assert [(str(one.severity), one.cure) for one in (finding, in_transaction, of_migrations)] == [
        ("note", f"If they are not meant to wait, as workers are for a leader: {end}"),
        ("error", end),
        ("error", end),
    ]
    assert finding.message.endswith("”): an advisory lock blocks only programs that ask for it.")


def test_a_statement_that_keeps_an_advisory_lock_is_an_error(database):
    def work():
        with suppress(psycopg.errors.AdminShutdown):
            holder.execute("SELECT pg_advisory_xact_lock(7), pg_sleep(60)")

    with database.connect() as holder, ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        wait_until(database, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        with waiting(database, "SELECT pg_advisory_lock(7)"):
            _, [finding] = asked(database, "locks", longest=NOW)
        database.execute("SELECT pg_terminate_backend(%s)", [holder.info.backend_pid])

    assert (str(finding.severity), finding.code) == ("error", "locks.blocked")


def test_a_query_of_several_roles_is_one_and_the_beginning_of_a_long_text_is_read(own_server):
    server = own_server(shared_preload_libraries="pg_stat_statements")
    server.execute("CREATE EXTENSION pg_stat_statements; CREATE TABLE users (id int); CREATE ROLE site SUPERUSER")
    numbers = ", ".join("1" * 5 for _ in range(5000))
    with of(server).connect() as client:
        client.execute("SELECT pg_stat_statements_reset()")
        for role in ("postgres", "site"):
            client.execute(f"SET ROLE {role}")
            client.execute("SELECT count(*) FROM users")
        client.execute("RESET ROLE")
        client.execute(
            f"SELECT id FROM users WHERE id IN ({numbers}) AND id = ANY (VALUES {numbers.replace('11111', '(id + 1)')})"
        )

    figures, found = asked(of(server), "queries", slow=0, calls=2)

    [long] = [text for label, (text, _) in figures.items() if label.startswith("SELECT id")]
    assert figures["SELECT count(*) FROM users"][0].startswith("2 calls, ")
    [slow] = [one for one in found if "count(*)" in one.message]
    assert slow.code == "queries.slow"
    assert ("not planned, because its text is too long" in long) or of(server).execute("SHOW server_version_num") < [
        ("160000",)
    ]
    of(server).execute(slow.cure.partition("until: ")[2])
    assert "SELECT count(*) FROM users" not in asked(of(server), "queries")[0]


def test_a_session_without_an_application_name_has_no_empty_part(database):
    with database.connect(application_name="") as holder:
        holder.execute("BEGIN; SELECT 1")
        _, [finding] = asked(database, "transactions", idle=NOW)

    assert re.fullmatch(
        r"The transaction of session \d+ has been idle for \d+ ms \(limit 0 ms\): postgres: “BEGIN; SELECT 1”\.",
        finding.message,
    )


def test_a_server_process_is_named_without_a_role():
    worker = Activity(7, "", None, "active", timedelta(seconds=5), "autovacuum: VACUUM public.users")

    assert str(worker) == "pid 7 (no application name, active for 5 s: autovacuum: VACUUM public.users)"


def test_a_role_with_a_line_break_in_its_name_forges_no_line():
    worker = Activity(7, "", "x\nOK: all fine", "active", timedelta(seconds=5), "SELECT\n1")

    assert "\n" not in str(worker)
    assert "role x\\u000aOK: all fine" in str(worker)


def test_changes_since_analyse_are_counted_as_changes_and_not_as_rows(database):
    database.execute("CREATE TABLE busy (id int) WITH (autovacuum_enabled = off)")
    database.execute("INSERT INTO busy SELECT generate_series(1, 60000)")
    database.execute("ANALYZE busy")
    for _ in range(2):
        database.execute("UPDATE busy SET id = id")
    assert wait_until(database, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_mod_since_analyze = 120000")

    [message] = [one.message for one in asked(database, "tables")[1] if one.code == "tables.not_analysed"]

    assert re.fullmatch(
        r"Table busy has [\d,]+ rows \(limit 50,000\), and 120,000 inserts, updates and deletes have been counted since it was analysed"
        r" on \d{4}-\d\d-\d\d, so query plans rely on outdated statistics\.",
        message,
    )


def test_statistics_that_survived_a_reset_of_the_counts_are_not_missing(database):
    """A crash and a failover reset the counts too."""
    database.execute("CREATE TABLE busy (id int) WITH (autovacuum_enabled = off)")
    database.execute("INSERT INTO busy SELECT generate_series(1, 60000)")
    counted = "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_live_tup = 60000"
    assert wait_until(database, counted)
    database.execute("ANALYZE busy")
    database.execute("SELECT pg_stat_reset()")

    def messages(reader):
        return [one.message for one in asked(reader, "tables")[1] if one.code == "tables.not_analysed"]

    database.execute("VACUUM busy")
    assert wait_until(database, counted)
    assert messages(database) == []
    database.execute("UPDATE busy SET id = id")
    assert wait_until(database, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'busy' AND n_mod_since_analyze = 60000")
    assert messages(database) == [
        "Table busy has 60,000 rows (limit 50,000), and 60,000 inserts, updates and deletes have been counted, but no ANALYZE, so query plans"
        " rely on outdated statistics."
    ]
    database.execute("DELETE FROM pg_statistic WHERE starelid = 'busy'::regclass")
    database.execute("SELECT pg_stat_reset()")
    database.execute("VACUUM busy")
    assert wait_until(database, counted)
    assert [" and has never been analysed," in one for one in messages(database)] == [True]
    with database.role():  # It does not see which statistics exist.
        assert messages(dataclasses.replace(database, user=f"{database.name}_role")) == []


def test_only_statements_that_an_index_can_help_are_slow_queries():
    texts = {
        "SELECT 1": True, "  ((SELECT 1) UNION SELECT 2)": True, "/* app:\nsite */ -- a\n UPDATE t SET a = 1": True, "WITH a AS (SELECT 1) TABLE a": True,
        "PREPARE p AS SELECT 1": True, HIDDEN: True, "": True,
        "CALL run()": False, "DO 'BEGIN END'": False, "REFRESH MATERIALIZED VIEW m": False, "-- SELECT\nCALL run()": False, "TRUNCATE t": False, "/**/" * 99 + "CALL run()": False,
    }  # fmt: skip
    row = namedtuple("Row", "id query calls mean total")
    for calls in (20, 1):  # Slow, or a third of all time.
        rows = [row(text, text, calls, 20, 400) for text in texts]
        found = [one.where for one in _demanding(rows, lambda _: "", 1000, slow=0.5, calls=20, most=0.3, busy=600)]
        assert found == [f"query {text}" for text, is_tunable in texts.items() if is_tunable]


def test_unsafe_settings_are_reported_with_what_they_can_do(own_server):
    server = own_server(autovacuum="off", track_counts="off", fsync="off", full_page_writes="off")

    assert [one.message for one in asked(of(server), "settings")[1]] == [
        "autovacuum is off and must be on: autovacuum runs only to prevent wraparound, so dead rows accumulate.",
        "track_counts is off and must be on: without these counts, autovacuum runs only to prevent wraparound.",
        "fsync is off and must be on: a power cut can destroy the database.",
        "full_page_writes is off and must be on: a power cut can damage pages.",
    ]


def test_the_cure_of_a_cheap_hash_names_the_rounds_of_a_new_one(migrated):
    password = HASH.replace("$12$", "$09$")
    migrated.execute("INSERT INTO users (id, email, password, \"updatedAt\") VALUES ('u', 'u@b.c', %s, now())", [password])

    with django(migrated) as connection:
        connection.ensure_connection()
        [cure] = [
            one.cure for one in passwords(Reader(connection, "public")) if getattr(one, "code", "") == "security.password_cost"
        ]

    assert cure == "A changed password is hashed with 2^12 rounds: ask people with many privileges to change theirs."


def test_staff_who_did_not_sign_in_are_counted(migrated):
    migrated.execute(
        'INSERT INTO users (id, email, password, "isStaff", "updatedAt", "createdAt")'
        " SELECT id, id || '@b.c', %s, true, now(), now() - interval '100 days' FROM unnest(ARRAY['u', 'v']) AS id",
        [HASH],
    )

    with django(migrated) as connection:
        connection.ensure_connection()
        answers = list(passwords(Reader(connection, "public")))

    [figure] = [one.text for one in answers if getattr(one, "label", "") == "staff with a password"]
    [finding] = [one.message for one in answers if getattr(one, "code", "") == "security.idle_staff"]
    assert figure.startswith("2 (2 not signed in for 90 days); ")
    assert finding == "2 members of staff have not signed in for 90 days."


def test_a_sequence_near_its_end_says_when_inserts_fail(database):
    database.execute("CREATE SEQUENCE theirs AS int; SELECT setval('theirs', 2000000000)")

    _, [finding] = asked(database, "sequences")

    assert finding.message == (
        "Sequence theirs is at 2,000,000,000 of 2,147,483,647, 93.1% (limit 75.0%): after the last value, every insert fails."
    )


@pytest.mark.parametrize("reset", ["", "SELECT pg_stat_reset()"])
def test_the_age_of_statistics_is_a_minimum_unless_their_reset_is_known(database, reset):
    if reset:
        database.execute(reset)

    figures, _ = asked(database, "indexes")

    known = figures["scans counted since"][0].endswith("(last reset of the statistics)")
    assert known or not reset
    at_least = "" if known else "at least "
    assert re.fullmatch(
        rf"not enough data: statistics are {at_least}\d+ \w+ old, and 14 days are needed", figures["unused indexes"][0]
    )
