"""A running backup is no alarm, and no printed cure ends it."""

from contextlib import contextmanager
from datetime import timedelta

import pytest

from fly2any.database.backup import tools
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.health.examine import Reader
from fly2any.database.health.horizon import describe, end, read_holder
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.test_dbhealth import NOW, waiting
from tests.database.test_health_privileges import asked

pytestmark = pytest.mark.usefixtures("server")


@contextmanager
def dumping(database, application="pg_dump"):
    """The idle transaction of the first session of `pg_dump --jobs`, which has read the table t."""
    with database.connect(application_name=application) as client:
        client.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t")
        yield client.info.backend_pid


@pytest.fixture
def table(database):
    database.execute("CREATE TABLE t (a int); CREATE INDEX i ON t (a)")
    return database


@pytest.mark.parametrize(("application", "cure"), [
    ("pg_dump", "Wait until the backup ends."),
    ("the site", "Wait, or: manage.py dbhealth locks --terminate {holder} --yes"),
])  # fmt: skip
def test_a_concurrent_build_that_waits_for_a_transaction_is_a_note(table, application, cure):
    with dumping(table, application) as holder, waiting(table, "REINDEX INDEX CONCURRENTLY i"):
        [found] = asked(table, "locks", longest=NOW)[1]

    assert (str(found.severity), found.code, found.where) == ("note", "locks.blocked", f"session {holder}")
    assert found.message.endswith(
        "SELECT FROM t”): this statement waits for older transactions, and blocks no reads or writes."
    )
    assert found.cure == cure.format(holder=holder)


def test_a_session_that_waits_for_a_lock_of_a_backup_is_ended_in_its_place(table):
    with dumping(table), waiting(table, "ALTER TABLE t ADD b int") as waiter:
        [found] = asked(table, "locks", longest=NOW)[1]

    assert (str(found.severity), found.code) == ("error", "locks.blocked")
    assert found.cure == (
        f"Wait until the backup ends. If others wait for session {waiter}, end that: manage.py dbhealth locks --terminate {waiter} --yes"
    )


def test_the_transaction_of_a_backup_is_an_alarm_only_after_a_day(table):
    with dumping(table) as pid:
        idle = asked(table, "transactions", idle=NOW)[1]
        [long] = asked(table, "transactions", idle=NOW, longest=NOW)[1]
        [stuck] = asked(table, "transactions", longest=NOW, longest_backup=timedelta())[1]
        with django(table) as connection:
            connection.ensure_connection()
            holder = read_holder(Reader(connection, "public"))

    assert idle == []
    assert [(str(one.severity), one.code, one.cure) for one in (long, stuck)] == [
        ("note", "transactions.long", "Wait until the backup ends: until then, VACUUM cannot remove rows that died after the transaction began."),
        ("warning", "transactions.long", f"manage.py dbhealth transactions --terminate {pid} --yes"),
    ]  # fmt: skip
    assert (describe(holder), end(holder)) == (f"session {pid}, a backup", "Wait until the backup ends.")


def test_a_session_with_a_backups_name_and_a_stronger_lock_is_none(table):
    with dumping(table) as pid, table.connect(application_name="pg_dump") as client:
        client.execute("BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE")
        forged = client.info.backend_pid
        found = asked(table, "transactions", idle=NOW)[1]
        with waiting(table, "CREATE INDEX ON t (a)"):
            [blocked] = asked(table, "locks", longest=NOW)[1]

    assert [(one.code, one.where) for one in found] == [("transactions.idle", f"session {forged}")]
    assert (blocked.where, blocked.cure) == (f"session {forged}", f"manage.py dbhealth locks --terminate {forged} --yes")
    assert pid != forged


def test_dbbackup_is_in_no_transaction_while_it_waits_for_pg_dump(migrated, place, monkeypatch):
    states = []
    finish = tools.Running.finish

    def watched(dump):
        states.extend(
            migrated.execute(
                "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'fly2any' AND pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
            )
        )
        finish(dump)

    monkeypatch.setattr(tools.Running, "finish", watched)
    with django(migrated) as connection:
        take(connection, store_at(place), Progress())

    assert states == [("idle",)]
