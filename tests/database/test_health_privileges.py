"""Reports for a role without pg_monitor, the states of pg_stat_statements, and the holder of the migration lock."""

import dataclasses
import re

import pytest

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.sessions import end
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import NOW, of, waiting
from tests.servers import open_transaction

pytestmark = pytest.mark.usefixtures("server")


def asked(database, topic, **limits):
    """The figures of a topic, by label, and its findings."""
    with django(database) as connection:
        connection.ensure_connection()
        answers = list(TOPICS[topic](Reader(connection, "public"), **limits))
    figures = {one.label: (one.text, one.value) for one in answers if isinstance(one, Figure)}
    return figures, [one for one in answers if isinstance(one, Finding)]


@pytest.fixture
def reader(database):
    with database.role("GRANT CONNECT ON DATABASE " + database.name + " TO {role}") as url:
        yield dataclasses.replace(database, user=url.partition("//")[2].partition("@")[0])


def test_invisible_figures_are_reported_and_not_counted_as_none(database, reader):
    unseen = "this role cannot see (GRANT pg_monitor)"
    with open_transaction(database, "SELECT pg_advisory_lock(7)") as holder:
        idle, _ = asked(reader, "connections")
        oldest, _ = asked(reader, "transactions")
        with waiting(database, "SELECT pg_advisory_lock(7)"):
            _, [blocked] = asked(reader, "locks", longest=NOW)
        with django(reader) as connection:
            pid = holder.info.backend_pid
            message = end(connection, pid, really=False)

    assert re.fullmatch(r"0; this role cannot see the state of [1-9]\d* \(GRANT pg_monitor\)", idle["idle in a transaction"][0])
    assert idle["idle in a transaction"][1] is None
    assert oldest["oldest transaction"][0].endswith(f" of those seen; 1 session {unseen}")
    assert (blocked.code, blocked.where) == ("locks.blocked", f"session {pid}")
    assert re.fullmatch(
        rf"The query of session \d+, which {re.escape(unseen)}, has waited \d+ ms \(limit 0 ms\) for session {pid} \(the site, \w+\)\.",
        blocked.message,
    )
    assert message.startswith(f"Nothing was changed. --yes terminates pid {pid} (the site, role ")


def test_the_migration_lock_holder_and_those_who_wait_are_shown(database):
    assert "the migration lock" not in asked(database, "locks")[0]
    lock = "SELECT pg_advisory_lock(72707369)"
    with open_transaction(database, lock) as holder, waiting(database, lock) as waiter:
        pid = holder.info.backend_pid
        figures, _ = asked(database, "locks")

    assert figures["the migration lock"][0].startswith(f"held by pid {pid} (the site, role ")
    assert figures["waiting for the migration lock"][0].startswith(f"pid {waiter} (the waiter, role ")


def test_each_state_of_pg_stat_statements_has_its_own_message(own_server):
    server = own_server(shared_preload_libraries="pg_stat_statements")
    server.execute("CREATE EXTENSION pg_stat_statements; CREATE ROLE reader LOGIN; CREATE TABLE t (a int)")
    server.execute(
        "SELECT a FROM t; SELECT count(*) FROM t; SELECT count(*) FROM t; ANALYZE t; SELECT 1 FROM pg_catalog.pg_class"
    )
    mine, reader = of(server), dataclasses.replace(of(server), user="reader")

    seen, _ = asked(mine, "queries", shown=50)
    hidden, [slow, *_] = asked(reader, "queries", slow=0, calls=1)
    server.execute("REVOKE SELECT ON pg_stat_statements FROM PUBLIC")
    _, [revoked] = asked(reader, "queries")
    server.execute("DROP EXTENSION pg_stat_statements; CREATE EXTENSION pg_stat_statements VERSION '1.8'")
    _, [old] = asked(mine, "queries")

    ranks = r", no\. \d+ by mean, no\. \d+ by total with [\d.]+% of the time"
    assert re.match(rf"1 call, [\d.]+ \w+{ranks}", seen["SELECT a FROM t"][0])
    assert re.match(rf"2 calls, [\d.]+ \w+ each{ranks}", seen["SELECT count(*) FROM t"][0])
    assert [label for label in seen if "pg_catalog" in label or label.startswith("ANALYZE")] == []
    assert hidden["queries of other roles"][1] > 0
    assert slow.message.startswith("A query whose text this role cannot see takes ")
    assert revoked.message == "This role may not read pg_stat_statements."
    assert old.cure == "ALTER EXTENSION pg_stat_statements UPDATE;"
    assert [one.code for one in (revoked, old)] == ["queries.not_counted"] * 2


def test_settings_by_which_no_query_is_counted_are_reported_with_the_cure(own_server):
    server = own_server(shared_preload_libraries="pg_stat_statements", **{"pg_stat_statements.track": "none"})
    server.execute(
        "CREATE EXTENSION pg_stat_statements; CREATE TABLE price_alerts (); CREATE ROLE site LOGIN; CREATE ROLE monitor LOGIN"
    )
    server.execute("GRANT INSERT ON price_alerts TO site; GRANT SELECT ON price_alerts TO monitor")
    server.execute("; ".join(f"ALTER ROLE {role} SET pg_stat_statements.track TO none" for role in ("site", "monitor")))

    _, found = asked(of(server), "queries")
    for finding in found:
        server.execute(finding.cure.removeprefix("As a superuser: "))
    _, after = asked(of(server), "queries")

    assert ([(one.code, one.where) for one in found], after) == (
        [("queries.not_counted", "ROLE site"), ("queries.not_counted", "SYSTEM")],
        [],
    )
    assert [one.message.partition(" begin")[0] for one in found] == ["Sessions of ROLE site", "The server's sessions"]


def test_an_extension_that_is_not_loaded_is_reported(own_server):
    server = own_server(shared_preload_libraries="")
    server.execute("CREATE EXTENSION pg_stat_statements")

    _, [finding] = asked(of(server), "queries")

    assert (
        finding.message
        == "The extension pg_stat_statements is installed, but the server did not load it, so nothing is counted."
    )
    statement = "ALTER SYSTEM SET shared_preload_libraries TO 'auto_explain', 'pg_stat_statements';"
    assert statement.removeprefix("ALTER SYSTEM ") in finding.cure
    server.execute(statement)
    stored = server.execute("SELECT setting FROM pg_file_settings WHERE name = 'shared_preload_libraries'")
    assert stored[-1] == ("auto_explain, pg_stat_statements",)
