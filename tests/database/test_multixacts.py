"""The members of multixacts: the transactions that share locks of rows, whose numbers can run out before transaction IDs do."""

import shutil
from contextlib import ExitStack
from dataclasses import replace

import psycopg
import pytest

from fly2any.database.health.wraparound import MOST_MEMBERS
from tests.database.test_dbhealth import found, of
from tests.database.test_health_privileges import asked
from tests.servers import open_transaction

pytestmark = pytest.mark.usefixtures("server")

LABEL = "members of multixacts"
LOCK = "SELECT FROM parents FOR KEY SHARE"
SEGMENT = 52_352
LAST = MOST_MEMBERS - SEGMENT - 48  # The number after which 48 are left.


def use_up(server):
    """Leave 48 numbers, and the files that the server would then have."""
    server.stop()
    with open(server.home / "log", "a") as log:
        assert server.server.run(log, "pg_resetwal", "-D", str(server.home / "data"), "-O", str(LAST)).wait() == 0
    folder = server.home / "data" / "pg_multixact" / "members"
    owner = folder.stat()
    for number in range(LAST // SEGMENT + 1):
        (folder / f"{number:04X}").touch()
    current = folder / f"{LAST // SEGMENT:04X}"
    current.write_bytes(bytes(32 * 8192))
    for path in folder.iterdir():
        shutil.chown(path, owner.st_uid, owner.st_gid)
    server.start()


def lock_until_it_fails(server, most=20):
    """Share the lock of a row among ever more transactions, and return the error."""
    with ExitStack() as clients:
        for _ in range(most):
            try:
                clients.enter_context(open_transaction(of(server), LOCK))
            except psycopg.Error as error:
                return str(error)
    return ""


@pytest.mark.slow
def test_numbers_of_members_that_run_out_are_found_until_rows_are_frozen(own_server):
    server = own_server(max_prepared_transactions="1")
    server.execute("CREATE TABLE parents (id int); INSERT INTO parents VALUES (1)")
    server.execute(f"BEGIN; {LOCK}; PREPARE TRANSACTION 'forgotten'")  # The server keeps its multixact.
    with open_transaction(of(server), LOCK):
        assert found(of(server), "wraparound") == []
    server.execute("CREATE TABLE last (id int); INSERT INTO last VALUES (1)")  # The jump damages the last multixact.
    other = LOCK.replace("parents", "last")
    with open_transaction(of(server), other), open_transaction(of(server), other):
        pass
    server.execute("DROP TABLE last")
    use_up(server)

    error = lock_until_it_fails(server)
    _, [finding] = asked(of(server), "wraparound")
    server.execute("ROLLBACK PREPARED 'forgotten'")
    server.execute("UPDATE pg_database SET datallowconn = true", database="postgres")
    for (name,) in server.execute("SELECT datname FROM pg_database"):
        server.execute("VACUUM (FREEZE)", database=name)

    assert error.startswith('multixact "members" limit exceeded')
    assert (str(finding.severity), finding.code, finding.where, finding.message, finding.is_sql) == (
        *("error", "wraparound.near", LABEL),
        "Members of multixacts use 100.0% of their numbers (limit 50.0%). At 100%, a statement fails if it locks a row that another transaction"
        " has locked, such as an INSERT that refers to it.",
        False,
    )
    assert finding.cure.startswith(
        "In fly2any, run VACUUM (FREEZE) on the oldest tables (`SELECT oid::regclass, mxid_age(relminmxid)"
    )
    assert (found(of(server), "wraparound"), lock_until_it_fails(server)) == ([], "")


def test_the_members_of_multixacts_are_counted_by_their_files(own_server):
    figures, findings = asked(of(own_server()), "wraparound")

    assert (figures[LABEL], findings) == (("~52,352 of 4,294,967,296", SEGMENT), [])


def test_a_role_that_may_not_list_files_gets_the_other_figures(database):
    with database.role() as url:
        role = url.partition("//")[2].partition("@")[0]
        figures, findings = asked(replace(database, user=role), "wraparound")

    assert [*figures] == ["age of transaction IDs", "age of multixact IDs", LABEL]
    assert (figures[LABEL], findings) == (("not visible to this role, which may not execute pg_ls_dir", None), [])
