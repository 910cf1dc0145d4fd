"""What other sessions lock and drop while pg_dump reads the definitions, in which it has no lock timeout of its own."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from fly2any.database import verification
from fly2any.database.backup.dump_blockers import WAITING_SQL
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal, explain, sqlstate
from fly2any.database.migration.retry import try_again
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.taken import RecordedProgress
from tests.servers import open_transaction, wait_until

pytestmark = pytest.mark.usefixtures("server")

# How to create and drop an object whose definition pg_dump reads without locking it first.
VIEW = ("CREATE VIEW m.o AS SELECT 1 AS a; CREATE VIEW m.over AS SELECT a FROM m.o", "DROP VIEW m.over, m.o")
SEQUENCE = ("CREATE SEQUENCE m.o", "DROP SEQUENCE m.o")
FUNCTION = ("CREATE FUNCTION m.o(a int) RETURNS int LANGUAGE sql RETURN 1", "DROP FUNCTION m.o")
# pg_dump holds locks on all tables.
NO_DUMP = (
    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pg_dump' AND datname = current_database() HAVING count(*) = 0"
)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("fly2any.database.backup.take.LOCK_WAIT", 4000)


@pytest.mark.parametrize(("create", "lock"), [
    pytest.param(VIEW[0], "LOCK TABLE m.o IN ACCESS EXCLUSIVE MODE", marks=pytest.mark.slow),
    (SEQUENCE[0], "ALTER SEQUENCE m.o RENAME TO other"),
], ids=["view", "sequence"])  # fmt: skip
@pytest.mark.usefixtures("impatient")
def test_a_lock_on_a_definition_ends_a_backup_and_its_holder_is_named(migrated, place, create, lock):
    migrated.execute(f"CREATE SCHEMA m; {create}")
    recorded, begun = RecordedProgress(), time.monotonic()
    with open_transaction(migrated, lock) as holder, django(migrated) as connection:
        pid = holder.info.backend_pid
        with pytest.raises(Exception, match="pg_dump") as raised:
            take(connection, store_at(place), recorded)
        wait_until(migrated, NO_DUMP, seconds=5)

    assert time.monotonic() - begun < 30
    [sentence] = recorded.sentences
    assert sentence.startswith(f"Waiting for a lock on m.o, held by pid {pid} (the site, role ")
    assert sentence.endswith(f"; to end it: SELECT pg_terminate_backend({pid});")
    assert sqlstate(raised.value) == "55P03"
    assert explain(raised.value).startswith("Another transaction holds a lock (pg_dump did not get its lock on m.o): ")
    assert list(Path(place).iterdir()) == []


@pytest.mark.slow
def test_a_backup_continues_when_the_lock_on_a_definition_is_released(migrated, place):
    migrated.execute("CREATE SCHEMA m; CREATE SEQUENCE m.o")
    with open_transaction(migrated, "ALTER SEQUENCE m.o RENAME TO other") as holder, django(migrated) as connection:
        release = threading.Timer(1.5, holder.commit)
        release.start()
        manifest = take(connection, store_at(place), Progress())
        release.join()

    assert manifest.tables


def dropping(monkeypatch, database, create, drop, attempts):
    """Let another session drop an object after the snapshot and before pg_dump reads it, at each of `attempts`; return the attempts."""
    seen = []

    def verify(connection):
        report = verification.verify(connection)
        seen.append(1)
        if len(seen) <= attempts:
            database.execute(drop)
        return report

    def again(error, pause):
        if len(seen) < attempts:
            database.execute(create)

    monkeypatch.setattr("fly2any.database.backup.take.verify", verify)
    monkeypatch.setattr(
        "fly2any.database.backup.take.try_again", lambda action, **options: try_again(action, **{**options, "again": again})
    )
    return seen


@pytest.mark.parametrize(("create", "drop"), [
    pytest.param(*VIEW, marks=pytest.mark.slow),
    pytest.param(*SEQUENCE, marks=pytest.mark.slow),
    FUNCTION,
], ids=["view", "sequence", "function"])  # fmt: skip
def test_a_new_snapshot_is_taken_when_an_object_was_dropped_since_the_last(migrated, place, monkeypatch, create, drop):
    migrated.execute(f"CREATE SCHEMA m; {create}")
    seen = dropping(monkeypatch, migrated, create, drop, attempts=1)
    with django(migrated) as connection:
        manifest = take(connection, store_at(place), Progress())

    assert (len(seen), manifest.state) == (2, "unverified")


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_backup_says_that_objects_are_dropped_at_each_attempt(migrated, place, monkeypatch):
    migrated.execute(f"CREATE SCHEMA m; {VIEW[0]}")
    seen = dropping(monkeypatch, migrated, *VIEW, attempts=99)
    with django(migrated) as connection, pytest.raises(Refusal) as refused:
        take(connection, store_at(place), Progress())

    assert len(seen) > 1
    assert str(refused.value) == (
        "Other sessions drop or rename objects while pg_dump reads the definitions (m.o of postgres, m.over of postgres), at each attempt, so no"
        " backup was taken: run the command when they have ended, or keep the role from it (ALTER ROLE … NOLOGIN, and end its sessions)."
    )
    assert list(Path(place).iterdir()) == []


def suppressed(client, statement):
    with suppress(psycopg.Error):  # It is cancelled.
        client.execute(statement)


def test_another_pg_dump_of_the_role_is_not_the_one_of_the_backup(migrated):
    own, ours, another = (migrated.connect(application_name=name) for name in ("fly2any", "pg_dump", "pg_dump"))
    with own, ours, another, open_transaction(migrated, "LOCK TABLE users"):
        waiting = threading.Thread(target=suppressed, args=[another, "SELECT FROM users"], daemon=True)
        waiting.start()
        wait_until(
            migrated, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [another.info.backend_pid]
        )
        found = migrated.execute(WAITING_SQL, [own.info.backend_pid])
        another.cancel_safe()
        waiting.join()

    assert found == []
