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
