"""Behind a transaction pooler: what a command or a page sets must not reach the next client of the server connection."""

import json
import shutil

import pytest

from tests.conftest import manage
from tests.servers import OwnServer, PgBouncer

pytestmark = pytest.mark.skipif(not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), reason="pgbouncer is not installed")

# What runs through a pooler, and what needs a session and says so.
COMMANDS = """
    dbstatus
    dbstatus --write-check --security --indexes
    dbhealth
    dbmaintain weekly --dry-run
    dbperson export {email}
    dbperson erase {email}
    dbperson erase {email} --yes
    dbroles
    dbseed --users 5 --yes
    dbreset
    dbbackup --list
    migrate --plan
    migrate --check
    showmigrations
    check --database default
    clearsessions
    sqlflush
    inspectdb
"""
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
"""

# Runs each command and each page in one process, and looks at the server connection, by another client, after each.
SCRIPT = """
import contextlib, io, json, os, sys
import psycopg
from django.conf import settings
from django.contrib import admin
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from accounts.models import User
from fly2any.database.diagnosis import explain

STATE = '''
    SELECT pg_backend_pid(),
           ARRAY(SELECT name || ' = ' || setting FROM pg_settings WHERE name <> 'application_name' AND name NOT LIKE 'pg_trgm.%' ORDER BY 1),
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

results, leaks, before = {}, {}, state()

def look(what, result):
    global before
    results[what] = result
    after = state()
    if after != before:
        leaks[what] = sorted(map(str, set(after).symmetric_difference(before)))
    before = after

def run(line):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            call_command(*line.split(), stdout=out, stderr=out)
        return 0
    except SystemExit as end:
        return end.code or 0
    except Exception as error:
        return explain(error) or f"{type(error).__name__}: {error}"
    finally:
        connection.close()

client = Client(HTTP_HOST="localhost", raise_request_exception=False, headers={"Authorization": f"Bearer {settings.METRICS_TOKEN}"})
settings.SECURE_SSL_REDIRECT = settings.SECOND_FACTOR = False

def get(path):
    answer = client.get(path, secure=True)
    if path == "/metrics":
        assert b"fly2any_up 1.0" in answer.content
    connection.close()
    look(path, answer.status_code)

for path in ("/health/live", "/health/ready", "/metrics"):
    get(path)
client.force_login(User.objects.filter(is_superuser=True).get(), backend="django.contrib.auth.backends.ModelBackend")
get(reverse("admin:index"))
get(reverse("admin:database"))
for model in admin.site._registry:
    place = (model._meta.app_label, model._meta.model_name)
    get(reverse("admin:%s_%s_changelist" % place))
    if row := model._base_manager.first():
        get(reverse("admin:%s_%s_change" % place, args=[row.pk]))
email = User.objects.filter(is_superuser=False, email__isnull=False).first().email
for line in COMMANDS.format(email=email).strip().splitlines():
    look(line.strip().replace(email, "EMAIL"), run(line))
for line in REFUSED.strip().splitlines():
    look(line.strip(), run(line))
print(json.dumps([results, leaks]), file=sys.__stdout__)
"""


@pytest.fixture(scope="module")
def backups(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "backups"


@pytest.fixture(scope="module")
def server(tmp_path_factory, backups):
    """A server with demo data, whose time zone and dates are not those that Django works with."""
    server = OwnServer(
        tmp_path_factory.mktemp("server"), {"timezone": "America/New_York", "datestyle": "German, DMY", "lc_messages": "C"}
    )
    try:
        server.start().create_database()
        assert manage("migrate", url=server.url()).returncode == 0
        assert manage("dbseed", "--users", "20", url=server.url()).returncode == 0
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


@pytest.mark.parametrize("parameters", ["?pgbouncer=true", ""])
def test_no_command_and_no_page_leaves_anything_in_the_servers_session(pooler, backups, tmp_path, parameters):
    script = f"COMMANDS = '''{COMMANDS}'''\nREFUSED = '''{REFUSED}'''\n{SCRIPT}"

    ran = manage("shell", "-v0", "-c", script, url=pooler().url(parameters), timeout=600, METRICS_TOKEN="0123456789abcdef0123456789abcdef",
                 BACKUP_LOCATION=str(backups), ARCHIVE_LOCATION=str(tmp_path / "archive"))  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    results, leaks = json.loads(ran.stdout.splitlines()[-1])
    assert leaks == {}
    assert {what: result for what, result in results.items() if what.startswith("/") and result != 200} == {}
    ended = {line: results[line.format(email="EMAIL")] for line in map(str.strip, COMMANDS.strip().splitlines())}
    assert {what: result for what, result in ended.items() if result not in (0, 4)} == {}
    through = "POSTGRES_URL leads through PgBouncer's" if parameters else "POSTGRES_URL leads through a"
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
    "POSTGRES_URL asks for the schema app, and the pooler that it leads through does not pass that on: connections are in"
    ' the schema public; run ALTER ROLE "postgres" IN DATABASE "other" SET search_path TO "app"; and let the pooler reconnect,'
    " or set the variable to the database's direct URL.\n"
)


@pytest.mark.parametrize("parameters", ["?schema=app&pgbouncer=true", "?schema=app", "?options=-c%20search_path%3Dapp"])
def test_no_command_works_in_another_schema_than_was_asked_for(other, pooler, parameters):
    url = pooler().url(parameters, database="other")

    refused = manage("dbstatus", url=url)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", IGNORED)
    assert manage("migrate", url=url).returncode == 2
    assert other.execute(TABLES, database="other") == [(0,)]


def test_what_the_role_sets_serves_the_schema_that_is_asked_for(other, pooler):
    other.execute('ALTER ROLE "postgres" IN DATABASE "other" SET search_path TO "app"', database="other")
    url = pooler().url("?schema=app&pgbouncer=true", database="other")

    status = json.loads(manage("dbstatus", "--format", "json", url=url).stdout)

    assert (status["server"]["schema"], status["server"]["creates_in"]) == ("app", "app")
    assert manage("dbseed", "--users", "3", url=url).returncode == 0
    assert other.execute("SELECT count(*) FROM app.users", database="other") == [(3,)]


def test_a_pooler_that_refuses_options_serves_a_schema_that_is_there_anyway(server, pooler):
    one = pooler(ignored="extra_float_digits")

    refused = manage("dbstatus", url=one.url("?schema=public"))
    assert refused.returncode == 2
    assert refused.stderr == (
        f"A connection pooler at 127.0.0.1, port {one.port} refuses the parameter options (or schema) of POSTGRES_URL:"
        " add pgbouncer=true, and what schema= asks for is verified instead;"
        " leave other options out.\n"
    )
    status = json.loads(manage("dbstatus", "--format", "json", url=one.url("?pgbouncer=true&schema=public")).stdout)
    assert status["server"]["schema"] == "public"


def test_a_page_through_a_pooler_that_ignores_the_schema_is_refused(other, pooler):
    script = "from django.test import Client; answer = Client().get('/health/ready'); print(answer.status_code, answer.content.decode())"

    asked = manage("shell", "-v0", "-c", script, url=pooler().url("?schema=app", database="other"))

    assert asked.stdout == '503 {"status": "failing", "database": "failing", "migrations": "unknown"}\n'
    assert "asks for the schema app" in asked.stderr
