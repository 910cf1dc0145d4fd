"""What dbhealth says of a subscription of the database: disabled, failing, or unable to copy a table."""

import time
from dataclasses import replace

import pytest

from tests.database.test_dbhealth import of
from tests.database.test_health_privileges import asked
from tests.servers import wait_until

pytestmark = pytest.mark.usefixtures("server")

FIGURE = "subscription sub"
PEOPLE = "CREATE TABLE people (id text PRIMARY KEY, email text UNIQUE)"


@pytest.fixture
def pair(own_server):
    """A database that publishes its table, and one that subscribes to it."""
    server = own_server(wal_level="logical", wal_retrieve_retry_interval="1s")
    server.execute("CREATE DATABASE pub", database="postgres")
    publisher, subscriber = replace(of(server), name="pub"), of(server)
    publisher.execute(f"{PEOPLE}; CREATE PUBLICATION pub FOR TABLE people")
    publisher.execute("SELECT pg_create_logical_replication_slot('sub', 'pgoutput')")
    subscriber.execute(PEOPLE)
    yield publisher, subscriber
    subscriber.execute("DROP SUBSCRIPTION IF EXISTS sub")


def subscribe(publisher, subscriber, options=""):
    place = f"host={publisher.host} port={publisher.port} user={publisher.user} dbname=pub"
    subscriber.execute(
        f"CREATE SUBSCRIPTION sub CONNECTION '{place}' PUBLICATION pub WITH (create_slot = false, slot_name = sub{options})"
    )


def arrives(subscriber, identity):
    wait_until(subscriber, "SELECT 1 FROM people WHERE id = %s", [identity])


def health(subscriber):
    figures, findings = asked(subscriber, "replication")
    return figures.get(FIGURE, (None,))[0], [
        (str(one.severity), one.code, one.where, one.message, one.cure)
        for one in findings
        if one.code == "replication.subscription"
    ]


def failing(subscriber, count):
    """Wait until a worker has failed, and none runs that tries again."""
    wait_until(subscriber, f"SELECT 1 FROM pg_stat_subscription_stats WHERE {count} > 0")
    deadline = time.monotonic() + 60
    while not (result := health(subscriber))[1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return result


def finding(message, cure):
    return ("warning", "replication.subscription", "sub", message, cure)


def conflict(publisher, subscriber):
    """Let the publisher send a row that the subscriber refuses."""
    arrives(subscriber, "p0")
    subscriber.execute("INSERT INTO people VALUES ('s1', 'a@b.c')")
    publisher.execute("INSERT INTO people VALUES ('p1', 'a@b.c')")


def test_a_subscription_that_fails_is_found_until_the_conflict_is_resolved(pair):
    publisher, subscriber = pair
    publisher.execute("INSERT INTO people VALUES ('p0')")
    subscribe(*pair)
    arrives(subscriber, "p0")
    before = health(subscriber)
    conflict(*pair)
    figure, [(*found, message, cure)] = failing(subscriber, "apply_error_count")
    subscriber.execute("DELETE FROM people WHERE id = 's1'")
    arrives(subscriber, "p1")

    assert before == ("applies changes", [])
    assert (figure, found) == ("applies nothing", ["warning", "replication.subscription", "sub"])
    assert message.startswith("No worker applies the changes of subscription sub, and it has failed ")
    assert message.endswith(": no changes arrive, and its publisher keeps WAL for it.")
    assert cure == (
        "Fix what the server's log reports. For a conflict, change the row here, or skip the transaction whose LSN the log names:"
        ' ALTER SUBSCRIPTION "sub" SKIP (lsn = …); (PostgreSQL 15 or later).'
    )
    assert health(subscriber) == ("applies changes", [])


def test_a_subscription_that_disabled_itself_is_found_until_it_is_enabled(pair):
    publisher, subscriber = pair
    publisher.execute("INSERT INTO people VALUES ('p0')")
    subscribe(*pair, ", disable_on_error = true")
    conflict(*pair)
    wait_until(subscriber, "SELECT 1 FROM pg_subscription WHERE NOT subenabled")
    figure, findings = health(subscriber)
    subscriber.execute("DELETE FROM people WHERE id = 's1'")
    subscriber.execute('ALTER SUBSCRIPTION "sub" ENABLE')
    arrives(subscriber, "p1")

    assert (figure, findings) == (
        "disabled",
        [
            finding(
                "Subscription sub is disabled (disable_on_error does that after an error), so no changes arrive.",
                'Fix the cause that the server\'s log reports, then ALTER SUBSCRIPTION "sub" ENABLE; if it is not needed:'
                ' DROP SUBSCRIPTION "sub";',
            )
        ],
    )
    assert health(subscriber) == ("applies changes", [])


def test_a_table_that_cannot_be_copied_is_found_until_it_is(pair):
    publisher, subscriber = pair
    subscriber.execute("INSERT INTO people VALUES ('s1', 'a@b.c')")
    publisher.execute("INSERT INTO people VALUES ('p1', 'a@b.c')")
    subscribe(*pair)
    figure, [(*found, message, cure)] = failing(subscriber, "sync_error_count")
    subscriber.execute("DELETE FROM people")
    arrives(subscriber, "p1")
    wait_until(subscriber, "SELECT 1 FROM pg_subscription_rel WHERE srsubstate = 'r'")

    assert (figure, found) == ("applies changes", ["warning", "replication.subscription", "sub"])
    assert message.startswith(
        "Subscription sub has not copied the rows of 1 table, for example public.people, and copying has failed "
    )
    assert cure == "Fix what the server's log reports; the server then tries again by itself."
    assert health(subscriber) == ("applies changes", [])


def test_every_role_sees_a_subscription_and_no_other_database_has_it(pair):
    publisher, subscriber = pair
    subscribe(*pair, ", enabled = false")
    subscriber.execute("CREATE ROLE plain LOGIN")

    assert [one[1] for one in health(replace(subscriber, user="plain"))[1]] == ["replication.subscription"]
    assert health(publisher) == (None, [])
