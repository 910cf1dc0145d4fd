"""Behind a transaction pooler, settings of a command or a page must not reach the server connection's next client."""

import json
import shutil
from contextlib import closing, contextmanager

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, transaction
from psycopg import sql

from accounts.models import Session
from fly2any.administration.export import rows_as_csv
from tests.conftest import manage, start_server
from tests.database.driven import COMMANDS, TOKEN, drive, lines
from tests.servers import PgBouncer

pytestmark = pytest.mark.skipif(not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), reason="pgbouncer is not installed")

# Commands that need a session, and say so.
REFUSED = """
    migrate
    migrate travel zero
    dbadopt
    dbadopt --yes
    dbbackup
    dbbackup --verify
    dbrestore latest --yes
    dbmaintain weekly
    dbreset --yes --without-backup
    dbshell
"""

# The state that the next client of the server connection would see, checked after each command and page.
WATCH = """
import psycopg

STATE = '''
    SELECT pg_backend_pid(),
           ARRAY(SELECT name || ' = ' || setting FROM pg_settings
                 WHERE name <> 'application_name' AND name NOT LIKE 'pg_trgm.%' ORDER BY 1),
           ARRAY(SELECT objid::text FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
           ARRAY(SELECT name FROM pg_prepared_statements) || ARRAY(SELECT name FROM pg_cursors WHERE is_holdable)
               || ARRAY(SELECT pg_listening_channels()),
           ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r')
               || ARRAY(SELECT proname::text FROM pg_proc WHERE pronamespace = pg_my_temp_schema())
'''

def state():
    with psycopg.connect(os.environ["POSTGRES_URL"].partition("?")[0], autocommit=True, prepare_threshold=None) as client:
        process, options, *rest = client.execute(STATE).fetchone()
    return [process, *options, *(f"{kind}: {value}" for kind, value in zip(("lock", "prepared", "temporary"), rest) if value)]

leaks, before = {}, state()

def look(what):
    global before
    after = state()
    if after != before:
        leaks[what] = sorted(map(str, set(after).symmetric_difference(before)))
    before = after
"""


@pytest.fixture(scope="module")
def backups(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "backups"


@pytest.fixture(scope="module")
def server(tmp_path_factory, backups):
    """A server with demo data, whose time zone and dates are not those that Django works with."""
    home = tmp_path_factory.mktemp("server")
    server = start_server(home, migrated=True, timezone="America/New_York", datestyle="German, DMY", lc_messages="C")
    try:
        assert manage("dbseed", "--production", "--users", "20", url=server.url()).returncode == 0
        assert manage("dbbackup", "--verify", url=server.url(), BACKUP_LOCATION=str(backups)).returncode == 0
        server.execute("""UPDATE users SET "isStaff" = true, "isSuperuser" = true WHERE id = (SELECT min(id) FROM users)""")
        yield server
    finally:
        server.remove()


@pytest.fixture
def pooler(server, tmp_path):
    """A function that puts PgBouncer with one server connection in front of the server."""
    poolers = []

    def start(mode="transaction", **options):
        poolers.append(PgBouncer(tmp_path, server.port, mode, size=1, **options))
        return poolers[-1]

    yield start
    for one in poolers:
        one.remove()


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["?pgbouncer=true", ""])
def test_no_command_and_no_page_leaves_anything_in_the_servers_session(pooler, backups, tmp_path, parameters):
    ran = manage("shell", "-v0", "-c", WATCH + drive(COMMANDS + REFUSED) + "print(json.dumps(leaks))", url=pooler().url(parameters),
                 timeout=600, METRICS_TOKEN=TOKEN, BACKUP_LOCATION=str(backups), ARCHIVE_LOCATION=str(tmp_path / "archive"))  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    results, leaks = map(json.loads, ran.stdout.splitlines()[-2:])
    assert leaks == {}
    assert {what: result for what, result in results.items() if what.startswith("/") and result != 200} == {}
    assert {line: results[line] for line in lines(COMMANDS) if results[line] not in (0, 4)} == {}
    through = "POSTGRES_URL goes through PgBouncer's" if parameters else "POSTGRES_URL goes through a"
    refused = {line: results[line] for line in map(str.strip, REFUSED.strip().splitlines())}
    assert {
        what: result for what, result in refused.items() if not str(result).startswith(f"{through} transaction pooler: ")
    } == {}


@pytest.fixture
def other(server):
    """A database with our tables in the schema app, and none in public."""
    server.execute("CREATE DATABASE other", database="postgres")
    server.execute("CREATE SCHEMA app", database="other")
    assert manage("migrate", url=server.url(database="other", parameters="?schema=app")).returncode == 0
    yield server
    server.execute("DROP DATABASE other WITH (FORCE)", database="postgres")


TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
IGNORED = (
    "POSTGRES_URL asks for the schema app, but its pooler drops the setting: connections are in"
    ' the schema public; run ALTER ROLE "postgres" IN DATABASE "other" SET search_path TO "app"; and let the pooler reconnect'
    " (RECONNECT in PgBouncer's console), or set the variable to the database's direct URL.\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["?schema=app&pgbouncer=true", "?schema=app", "?options=-c%20search_path%3Dapp"])
def test_no_command_works_in_a_schema_other_than_the_requested_one(other, pooler, parameters):
    url = pooler().url(parameters, database="other")

    refused = manage("dbstatus", url=url)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", IGNORED)
    assert manage("migrate", url=url).returncode == 2
    assert other.execute(TABLES, database="other") == [(0,)]


@pytest.mark.slow
def test_the_roles_search_path_can_provide_the_requested_schema(other, pooler):
    other.execute('ALTER ROLE "postgres" IN DATABASE "other" SET search_path TO "app"', database="other")
    url = pooler().url("?schema=app&pgbouncer=true", database="other")

    status = json.loads(manage("dbstatus", "--format", "json", url=url).stdout)

    assert (status["server"]["schema"], status["server"]["creates_in"]) == ("app", "app")
    assert manage("dbseed", "--production", "--users", "3", url=url).returncode == 0
    assert other.execute("SELECT count(*) FROM app.users", database="other") == [(3,)]


def test_a_pooler_that_refuses_options_works_if_the_schema_is_already_set(server, pooler):
    one = pooler(ignored="extra_float_digits")

    refused = manage("dbstatus", url=one.url("?schema=public"))
    assert refused.returncode == 2
    assert refused.stderr == (
        f"A connection pooler at 127.0.0.1, port {one.port} rejects the parameter options= (or schema=) of POSTGRES_URL:"
        " add pgbouncer=true (schema= is then only verified), and remove every other setting from options=.\n"
    )
    status = json.loads(manage("dbstatus", "--format", "json", url=one.url("?pgbouncer=true&schema=public")).stdout)
    assert status["server"]["schema"] == "public"


@pytest.mark.slow
def test_a_page_through_a_pooler_that_ignores_the_schema_is_refused(other, pooler):
    script = "from django.test import Client; answer = Client().get('/health/ready'); print(answer.status_code, answer.content.decode())"

    asked = manage("shell", "-v0", "-c", script, url=pooler().url("?schema=app", database="other"))

    assert asked.stdout == '503 {"status": "failing", "database": "failing", "migrations": "unknown"}\n'
    assert "asks for the schema app" in asked.stderr


@contextmanager
def in_the_schema_app(pooler, mark):
    """A connection to the schema app through `pooler`, which its URL names where `mark` is set."""
    options = {**connection.settings_dict["OPTIONS"], "options": "-c search_path=app"}
    connections.databases["pooled"] = {
        **connection.settings_dict, "NAME": "fly2any", "HOST": "127.0.0.1", "PORT": str(pooler.port), "USER": "postgres",
        "OPTIONS": options, "POOLER": mark, "POOL": None, "DIRECT": None,
    }  # fmt: skip
    try:
        yield connections["pooled"]
        connections["pooled"].close()
    finally:
        del connections["pooled"], connections.databases["pooled"]


@pytest.mark.slow
def test_a_session_pooler_without_a_second_connection_is_refused_in_time(server, tmp_path):
    one = PgBouncer(tmp_path, server.port, "session", size=1)
    try:
        refused = manage("migrate", url=one.url(), timeout=60)
    finally:
        one.remove()

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("POSTGRES_URL goes through a pooler that gave no second connection within 5 s (")


@pytest.fixture
def with_app(own_server):
    """A server with a table in the schema app, which its role works in, and one of that name in public."""
    server = own_server()
    server.execute("CREATE TABLE things (word text); CREATE SCHEMA app; CREATE TABLE app.things (word text)")
    server.execute("ALTER ROLE postgres IN DATABASE fly2any SET search_path TO app")
    return server


def test_each_transaction_works_in_the_requested_schema(with_app, tmp_path, django_db_setup, django_db_blocker):
    """Whatever the server connection it gets was left with: here by another client of the same pooler."""
    one = PgBouncer(tmp_path, with_app.port, "transaction", size=1)
    try:
        with django_db_blocker.unblock(), in_the_schema_app(one, "PgBouncer") as pooled:
            pooled.ensure_connection()
            with psycopg.connect(one.url(), autocommit=True) as client:
                client.execute("SET search_path TO public")
            with pooled.cursor() as cursor:
                cursor.execute("CREATE DATABASE beside TEMPLATE template0")
                cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier("beside")))
                cursor.execute("INSERT INTO things VALUES ('alone')")
                cursor.executemany("INSERT INTO things VALUES (%s)", [["many"]])
                with transaction.atomic(using="pooled"):
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    cursor.execute("INSERT INTO things VALUES ('together')")
                with pytest.raises(DatabaseError):
                    cursor.execute("INSERT INTO nothing VALUES (1)")
                cursor.execute("SELECT word FROM things")
                words = cursor.fetchall()
    finally:
        one.remove()

    assert words == with_app.execute("SELECT word FROM app.things") == [("alone",), ("many",), ("together",)]
    assert with_app.execute("SELECT count(*) FROM public.things") == [(0,)]


SESSIONS = """CREATE TABLE {0}.sessions (id text, "sessionToken" text, "userId" text, expires timestamptz);
              INSERT INTO {0}.sessions (id) VALUES ('of {0}')"""


def test_an_export_reads_the_requested_schema(with_app, tmp_path, django_db_setup, django_db_blocker):
    for schema in ("app", "public"):
        with_app.execute(SESSIONS.format(schema))
    one = PgBouncer(tmp_path, with_app.port, "transaction", size=1)
    try:
        with django_db_blocker.unblock(), in_the_schema_app(one, "PgBouncer") as pooled:
            pooled.ensure_connection()
            with psycopg.connect(one.url(), autocommit=True) as client:
                client.execute("SET search_path TO public")
            exported = b"".join(rows_as_csv(Session.objects.using("pooled").all(), without=("session_token",)))
            with psycopg.connect(one.url(), autocommit=True) as client:
                left = client.execute("SELECT current_setting('statement_timeout')").fetchone()
    finally:
        one.remove()

    assert (exported, left) == (b"id,user_id,expires\r\nof app,,\n", ("0",))


def test_a_session_pooler_accepts_statements_that_cannot_run_in_a_transaction(
    with_app, tmp_path, django_db_setup, django_db_blocker
):
    one = PgBouncer(tmp_path, with_app.port, "session")
    try:
        with django_db_blocker.unblock(), in_the_schema_app(one, "") as pooled, pooled.direct(), pooled.cursor() as cursor:
            cursor.execute("CREATE INDEX CONCURRENTLY words ON things (word)")
            with closing(pooled.copy()) as other, other.cursor() as beside:
                beside.execute("VACUUM things")
    finally:
        one.remove()

    assert with_app.execute("SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = 'app.words'::regclass") == [
        ("things",)
    ]
