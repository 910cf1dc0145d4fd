"""Lists are read from a real standby, or from the primary, with a note, if the standby lags or is gone."""

import json
import socket

import pytest
from django.db.migrations.executor import MigrationExecutor

from tests.conftest import django, manage
from tests.database.test_dbhealth import of
from tests.servers import wait_until

PREPARE = """
from accounts.models import User
User.objects.create(id="ana", email="ana@staff.example", is_staff=True, is_superuser=True)
"""
# Signs in, and says of each page from where it was read, whether the row is on it, and what is noted.
VISIT = """
import json, re, sys, time
from django.test import Client
from accounts.models import User
from fly2any.administration import replica
limit = 8
client = Client(HTTP_HOST="localhost")
client.force_login(User.objects.get(id="ana"))
for step in json.loads(%r):
    if step == "save":
        answer = client.post("/admin/accounts/user/ana/change/", {"email": "ana@staff.example", "name": "Ana", "is_active": "on", "is_staff": "on", "is_superuser": "on", "_save": "1", "preferences-TOTAL_FORMS": "0", "preferences-INITIAL_FORMS": "0"}, secure=True)
        print(json.dumps([step, answer.status_code]))
        continue
    if step == "erase":
        answer = client.post("/admin/accounts/user/late/overview/erase/", {"email": "late@example.com"}, secure=True)
        print(json.dumps([step, answer.status_code]))
        continue
    if step == "slow":  # Each row takes longer than a statement may.
        from fly2any.administration import deadlines, options
        deadlines.STATEMENT, usual = 50, options.ModelAdmin.get_queryset
        options.ModelAdmin.get_queryset = lambda self, request: usual(self, request).extra(where=["pg_sleep(0.2) IS NOT NULL"])
        answer = client.get("/admin/accounts/user/", secure=True)
        print(json.dumps([answer.wsgi_request.source.alias, answer.status_code]))
        continue
    if step == "quick":
        limit = 1.5
        continue
    if step == "pretend":
        replica.source_of = lambda request: replica.Source("replica")
        continue
    begun = time.monotonic()
    answer = client.get(step, secure=True)
    text = answer.content.decode()
    note = re.search(r'<li class="info">([^<]*(?:replica|standby|REPLICA)[^<]*)</li>', text)
    print(json.dumps([answer.wsgi_request.source.alias, "late@example.com" in text, note and note[1], time.monotonic() - begun < limit]))
"""
LIST, OVERVIEW, FORM, FIRST = (
    "/admin/accounts/user/", "/admin/accounts/user/ana/overview/", "/admin/accounts/user/ana/change/", "/admin/",
)  # fmt: skip


@pytest.fixture
def pair(own_server, tmp_path_factory):
    """A primary with one of the staff, and its standby."""
    primary = own_server(migrated=True)
    result = manage("shell", "-v0", "-c", PREPARE, url=primary.url())
    assert result.returncode == 0, result.stderr
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    try:
        primary.execute("UPDATE users SET name = 'Ana' WHERE id = 'ana'")
        wait_until(of(standby), "SELECT 1 FROM users WHERE name = 'Ana'")
        yield primary, standby
    finally:
        standby.remove()


def visit(primary, replica, *steps, **environment):
    result = manage(
        "shell",
        "-v0",
        "-c",
        VISIT % json.dumps(steps),
        url=primary.url(),
        SECOND_FACTOR="false",
        POSTGRES_REPLICA_URL=replica,
        **environment,
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def add_late(primary, standby):
    """Pause the standby, and add a row that it lacks."""
    of(standby).execute("SELECT pg_wal_replay_pause()")
    wait_until(of(standby), "SELECT 1 WHERE pg_get_wal_replay_pause_state() = 'paused'")
    primary.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('late', 'late@example.com', now())")


@pytest.mark.slow
def test_lists_are_read_from_the_replica_and_forms_are_not(pair):
    primary, standby = pair
    add_late(primary, standby)

    seen = visit(primary, standby.url(), LIST, OVERVIEW, FORM, FIRST, REPLICA_MAX_LAG="3600")

    assert seen == [
        ["replica", False, None, True],
        ["replica", False, None, True],
        ["default", False, None, True],
        ["default", False, None, True],
    ]


@pytest.mark.slow
def test_a_lagging_replica_is_reported_and_the_primary_read(pair):
    primary, standby = pair
    add_late(primary, standby)

    [[alias, late, note, _]] = visit(primary, standby.url(), LIST, REPLICA_MAX_LAG="0")

    assert (alias, late) == ("default", True)
    assert note.startswith("The replica is ")
    assert note.endswith(" behind: this page is read from the primary.")


@pytest.mark.slow
def test_users_see_what_they_saved(pair):
    primary, standby = pair
    add_late(primary, standby)

    seen = visit(primary, standby.url(), LIST, "save", LIST, REPLICA_MAX_LAG="3600")

    assert seen == [["replica", False, None, True], ["save", 302], ["default", True, None, True]]


@pytest.mark.slow
def test_an_erased_person_is_on_no_page_of_the_administrator_who_erased_them(pair):
    primary, standby = pair
    primary.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('late', 'late@example.com', now())")
    wait_until(of(standby), "SELECT 1 FROM users WHERE id = 'late'")
    of(standby).execute("SELECT pg_wal_replay_pause()")

    seen = visit(primary, standby.url(), LIST, "erase", LIST, REPLICA_MAX_LAG="3600")

    assert seen == [["replica", True, None, True], ["erase", 302], ["default", False, None, True]]


@pytest.mark.slow
def test_an_up_to_date_replica_is_read_even_after_a_long_idle_time(pair):
    primary, standby = pair
    primary.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('late', 'late@example.com', now())")
    wait_until(of(standby), "SELECT 1 FROM users WHERE id = 'late'")
    primary.execute("SELECT pg_sleep(2.5)")

    seen = visit(primary, standby.url(), LIST, REPLICA_MAX_LAG="1")

    assert seen == [["replica", True, None, True]]


@pytest.mark.slow
def test_the_primarys_own_tables_and_slow_lists_keep_their_deadline(pair):
    primary, standby = pair

    seen = visit(primary, standby.url(), "/admin/administration/access/", "slow")

    assert seen[0] == ["default", False, None, True]
    assert seen[1] == ["replica", 503]


@pytest.mark.slow
def test_a_row_that_the_replica_does_not_have_yet_is_shown_from_the_primary(pair):
    primary, standby = pair
    add_late(primary, standby)

    seen = visit(primary, standby.url(), "/admin/accounts/user/late/overview/", REPLICA_MAX_LAG="3600")

    assert seen == [["default", True, None, True]]


@pytest.mark.slow
def test_a_standby_of_another_database_is_not_read(pair):
    primary, standby = pair
    primary.execute("CREATE DATABASE staging TEMPLATE template0", database="postgres")
    wait_until(of(standby), "SELECT 1 FROM pg_database WHERE datname = 'staging'")

    seen = visit(primary, standby.url(database="staging"), LIST)

    assert seen == [
        ["default", False, "POSTGRES_REPLICA_URL points to another database: this page is read from the primary.", True]
    ]


@pytest.mark.slow
def test_a_replica_on_the_timeline_of_a_former_primary_is_not_read(pair, tmp_path_factory):
    older, left = pair
    promoted = older.standby(tmp_path_factory.mktemp("promoted"))
    try:
        of(promoted).execute("ALTER SYSTEM SET primary_conninfo = ''")
        of(promoted).execute("SELECT pg_reload_conf()")
        wait_until(of(promoted), "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")
        older.execute(
            """INSERT INTO users (id, email, bio, "updatedAt")
               SELECT n, CASE n WHEN 1 THEN 'late@example.com' ELSE n || '@example.com' END, repeat('x', 900), now() FROM generate_series(1, 3000) AS n"""
        )
        wait_until(of(left), "SELECT 1 FROM users WHERE id = '3000'")
        older.stop()
        of(promoted).execute("SELECT pg_promote()")

        assert visit(promoted, left.url(), LIST) == [
            [
                "default",
                False,
                "The replica is ahead of the primary, so it follows another server: this page is read from the primary.",
                True,
            ]
        ]
    finally:
        promoted.remove()


@pytest.mark.slow
def test_a_silent_replica_is_waited_for_once(pair):
    primary, _ = pair
    with socket.socket() as silent:  # It accepts connections and never responds.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/fly2any"
        result = manage(
            "shell", "-v0", "-c", VISIT % json.dumps([LIST, "quick", LIST]), url=primary.url(), SECOND_FACTOR="false", POSTGRES_REPLICA_URL=url
        )  # fmt: skip

    note = "The replica does not answer: this page is read from the primary."
    assert [json.loads(line) for line in result.stdout.splitlines()] == [["default", False, note, True]] * 2
    assert "the replica is not read for 30 s: The server at 127.0.0.1, port" in result.stderr


@pytest.mark.slow
def test_a_missing_replica_is_reported_and_not_waited_for(pair):
    primary, standby = pair
    standby.stop()

    seen = visit(primary, standby.url(), LIST, LIST)

    note = "The replica does not answer: this page is read from the primary."
    assert seen == [["default", False, note, True]] * 2


@pytest.mark.slow
def test_a_replica_that_fails_during_a_page_is_not_read_again(pair):
    primary, standby = pair
    standby.stop()

    seen = visit(primary, standby.url(), "pretend", LIST)

    assert seen == [["default", False, "The replica does not answer: this page is read from the primary.", True]]


@pytest.mark.slow
def test_a_url_of_the_primary_is_not_a_replica(pair):
    primary, _ = pair

    seen = visit(primary, primary.url(), LIST)

    assert seen == [
        ["default", False, "POSTGRES_REPLICA_URL does not point to a standby: this page is read from the primary.", True]
    ]


@pytest.mark.slow
def test_reports_on_the_replica_name_its_variable_in_errors(pair):
    primary, standby = pair

    status = manage("dbstatus", "--database", "replica", url=primary.url(), POSTGRES_REPLICA_URL=standby.url())
    health = manage("dbhealth", "replication", "--database", "replica", url=primary.url(), POSTGRES_REPLICA_URL=standby.url())
    migrate = manage("migrate", "--database", "replica", url=primary.url(), POSTGRES_REPLICA_URL=standby.url())
    standby.stop()
    gone = manage("dbstatus", "--database", "replica", url=primary.url(), POSTGRES_REPLICA_URL=standby.url())

    assert (status.returncode, ", a standby, at 127.0.0.1" in status.stdout) == (0, True), status.stdout
    assert (health.returncode, "this standby" in health.stdout) == (0, True)
    assert (migrate.returncode, migrate.stderr) == (
        2, "The replica gets its schema from its primary: run the command without --database replica.\n",
    )  # fmt: skip
    assert (gone.returncode, gone.stderr) == (
        2, f"Nothing listens at 127.0.0.1, port {standby.port}: start the server, or correct the host and port in POSTGRES_REPLICA_URL.\n",
    )  # fmt: skip


@pytest.mark.slow
def test_writes_under_another_alias_go_to_its_database(database):
    with django(database) as connection:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())

    assert database.execute("SELECT count(*) > 50 FROM auth_group_permissions") == [(True,)]
