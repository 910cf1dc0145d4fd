"""A session that blocks others is one finding, however many wait for it, and those that wait are none."""

from contextlib import ExitStack

import pytest

from tests.database.test_dbhealth import NOW, waiting
from tests.database.test_health_privileges import asked
from tests.servers import open_transaction

pytestmark = pytest.mark.usefixtures("server")

ALTER, READ = "ALTER TABLE t ADD b int", "SELECT FROM t"
UPDATE, LOCK = "UPDATE t SET a = 2", "SELECT pg_advisory_lock(8)"


@pytest.mark.parametrize(("holds", "wait"), [
    (UPDATE, [UPDATE, UPDATE, UPDATE]),
    (READ, [ALTER, READ, READ]),
    (LOCK, [LOCK, LOCK]),
])  # fmt: skip
def test_only_the_session_that_waits_for_none_is_ended(database, holds, wait):
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    with open_transaction(database, holds) as holder, ExitStack() as waiters:
        pid = holder.info.backend_pid
        first, *_ = [waiters.enter_context(waiting(database, statement)) for statement in wait]
        figures, [found] = asked(database, "locks", longest=NOW)

    assert figures["sessions waiting for a lock"] == (str(len(wait)), len(wait))
    assert (str(found.severity), found.where, found.cure) == (
        *("error", f"session {pid}"),
        f"manage.py dbhealth locks --terminate {pid} --yes",
    )
    assert f"of session {first} has waited " in found.message
    assert found.message.endswith(f"), which blocks {len(wait)} sessions.")


def test_each_of_two_holders_is_a_finding(database):
    with (
        open_transaction(database, "SELECT pg_advisory_lock(8)") as one,
        open_transaction(database, "SELECT pg_advisory_lock(9)") as other,
        waiting(database, "SELECT pg_advisory_lock(8)"),
        waiting(database, "SELECT pg_advisory_lock(9)"),
    ):
        holders = {f"session {client.info.backend_pid}" for client in (one, other)}
        found = asked(database, "locks", longest=NOW)[1]

    assert {finding.where for finding in found} == holders
    assert not any("which blocks" in finding.message for finding in found)


def test_the_session_that_waits_for_a_backup_is_ended_and_not_those_behind_it(database):
    database.execute("CREATE TABLE t (a int)")
    with database.connect(application_name="pg_dump") as client:
        client.execute("BEGIN; SELECT FROM t")
        with waiting(database, ALTER) as first, waiting(database, READ):
            [found] = asked(database, "locks", longest=NOW)[1]

    assert found.cure == (
        "Wait until the backup ends."
        f" If others wait for session {first}, end that: manage.py dbhealth locks --terminate {first} --yes"
    )
