"""dbstatus on special servers: other roles, schemas and encodings, a standby, a server that is not running yet."""

import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from fly2any.database.clock import Clock
from fly2any.database.server import Server
from fly2any.database.verification import verify
from tests import prisma
from tests.conftest import django, fresh, manage, start_server


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A server with a migrated database, and a role that may read the catalogue and nothing else."""
    server = start_server(tmp_path_factory.mktemp("server"), migrated=True, wal_level="replica", max_wal_senders="4")
    server.execute("CREATE ROLE watcher LOGIN")
    yield server
    server.remove()


@pytest.fixture
def migrated_here(migrated_template):
    """A migrated database on the tests' server; `migrated` is a server of its own here."""
    yield from fresh(migrated_template)


@pytest.mark.slow
def test_a_role_that_may_only_read_the_catalogue_gets_the_whole_report(migrated):
    result = manage("dbstatus", "--format", "json", url=migrated.url("watcher"))

    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["groups"][5]["columns"] == {"found": 188, "expected": 188}
    assert [(f["severity"], f["code"]) for f in report["findings"]] == [
        ("note", "server.privileges"),
        ("note", "migrations.unreadable"),
        ("note", "column.sequence"),
    ]


@pytest.mark.slow
def test_it_reads_the_contract_as_utf_8_in_a_locale_of_another_encoding(migrated):
    result = manage("dbstatus", "--release", url=migrated.url(), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("OK: ")


@pytest.mark.slow
def test_it_runs_on_a_hot_standby(migrated, tmp_path_factory):
    standby = migrated.standby(tmp_path_factory.mktemp("standby"))
    try:
        result = manage("dbstatus", "--indexes", url=standby.url())
        replica = manage("dbstatus", "--database", "replica", url=migrated.url(), POSTGRES_REPLICA_URL=standby.url())
        release = manage("dbstatus", "--release", url=standby.url())
        refused = manage("dbstatus", "--write-check", url=standby.url())
    finally:
        standby.remove()

    assert (result.returncode, result.stderr, replica.returncode, release.returncode) == (4, "", 0, 0)
    assert [line for line in result.stdout.splitlines() if "WARNING" in line] == ["  WARNING server.standby at fly2any"]
    assert "server.standby" not in replica.stdout
    assert ", a standby, at 127.0.0.1" in result.stdout
    assert (refused.returncode, refused.stdout.splitlines()[0][:16]) == (2, "FAILED: 18/18 ta")
    assert (
        refused.stderr
        == "The database is read-only (a standby, or default_transaction_read_only is on): set POSTGRES_URL to the primary, or turn the setting off.\n"
    )


@pytest.mark.slow
def test_another_schema_is_verified_there(own_server):
    server = own_server()
    server.execute("CREATE SCHEMA other")
    url = server.url(parameters="?schema=other")

    assert manage("migrate", url=url).returncode == 0
    result = manage("dbstatus", "--write-check", url=url)

    assert (result.returncode, result.stderr) == (0, "")
    assert "schema other" in result.stdout

    server.execute('DROP INDEX other."price_alerts_active_idx"')
    (finding,) = json.loads(manage("dbstatus", "--format", "json", url=url).stdout)["findings"]
    for statement in finding["cure"].split("\n"):
        assert statement.startswith(('SET search_path TO "other";', "CREATE INDEX CONCURRENTLY"))
    server.execute(finding["cure"].replace(" CONCURRENTLY", ""))
    assert manage("dbstatus", url=url).returncode == 0


@pytest.mark.slow
def test_unmet_server_requirements_of_the_guide_are_found(own_server):
    server = own_server(migrated=True, max_connections="30")
    server.execute("ALTER DATABASE fly2any SET timezone TO 'America/Sao_Paulo'")

    result = manage("dbstatus", "--format", "json", url=server.url())

    report = json.loads(result.stdout)
    assert result.returncode == 4
    assert [(f["code"], f["where"]) for f in report["findings"]] == [
        ("server.time_zone", "fly2any"),
        ("server.connections", "fly2any"),
    ]
    server.execute(report["findings"][0]["cure"])
    report = json.loads(manage("dbstatus", "--format", "json", url=server.url()).stdout)
    assert [f["code"] for f in report["findings"]] == ["server.connections"]


@pytest.mark.slow
def test_wait_waits_for_a_server_to_come_up(own_server):
    server = own_server(migrated=True)
    server.stop()
    done = threading.Event()

    def start_later():
        time.sleep(3)
        server.start()
        done.wait()  # The server ends with the thread that started it.

    later = threading.Thread(target=start_later)
    later.start()
    result = manage("dbstatus", "--wait", "40", url=server.url())
    done.set()
    later.join()

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_wait_gives_up_eventually(own_server):
    server = own_server()
    begun = time.monotonic()

    result = manage("dbstatus", "--wait", "2", url=server.url())

    assert result.returncode == 1
    assert time.monotonic() - begun >= 2


@pytest.mark.slow
def test_a_role_without_any_right_on_the_schema_gets_the_whole_report(own_server):
    server = own_server(migrated=True)
    server.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    server.execute("CREATE ROLE watcher LOGIN")

    result = manage("dbstatus", url=server.url("watcher"))

    assert (result.returncode, result.stderr) == (0, "")
    assert "  Phase 7, total          18/18     188/188     33/33          13/13\n" in result.stdout
    assert (
        "The role watcher does not hold SELECT, INSERT, UPDATE, DELETE, ALTER, USAGE in the schema, CREATE in the schema"
        in result.stdout
    )


@pytest.mark.slow
def test_a_schema_that_does_not_exist_is_reported(own_server):
    server = own_server()

    result = manage("dbstatus", url=server.url(parameters="?schema=Typo"))

    assert result.returncode == 5
    assert (
        "ERROR   server.schema at fly2any\n          No schema in the search path exists, so no table can be found.\n"
        in result.stdout
    )


@pytest.mark.slow
def test_a_search_path_in_quotes_is_one_schema_as_for_postgresql(own_server):
    """SET search_path = 'app, public' names one schema, in which no session finds a table."""
    server = own_server(migrated=True)
    server.execute("ALTER DATABASE fly2any SET search_path = 'app, public'")

    result = manage("dbstatus", url=server.url())

    assert result.returncode == 5
    assert (
        'No schema in the search path ("app, public", as ALTER DATABASE fly2any sets it) exists, so no table can be found.'
        in result.stdout
    )


@pytest.mark.slow
def test_a_schema_with_a_comma_in_its_name_is_found(database):
    database.execute('CREATE SCHEMA "A, b"')
    url = f"{database.url}{'&' if '?' in database.url else '?'}schema=A%2C%20b"

    migrated, result = manage("migrate", "-v0", url=url), manage("dbstatus", url=url)

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert "  Phase 7, total          18/18     188/188     33/33          13/13\n" in result.stdout


@pytest.mark.slow
def test_another_encoding_is_an_error(own_server):
    server = own_server()
    server.execute("DROP DATABASE fly2any", database="postgres")
    server.execute(
        "CREATE DATABASE fly2any ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0", database="postgres"
    )

    report = json.loads(manage("dbstatus", "--format", "json", url=server.url()).stdout)

    assert [(f["code"], f["where"]) for f in report["findings"]] == [("server.encoding", "fly2any")]


@pytest.mark.slow
def test_a_database_of_another_encoding_is_neither_adopted_nor_partly_migrated(own_server):
    server = own_server()
    server.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0", database="postgres"
    )
    url = server.url(database="latin")

    migrated = manage("migrate", url=url)
    with psycopg.connect(url, autocommit=True) as site:
        made = site.execute("SELECT count(*) FROM pg_tables WHERE tablename = 'users'").fetchall()
        site.execute(prisma.superset())
    planned = manage("dbadopt", "--format", "json", url=url)

    assert (migrated.returncode, made) == (2, [(0,)])
    assert migrated.stderr == (
        "The database's encoding is LATIN1, in which the migrations cannot run: dump it, create a new database with"
        " ENCODING 'UTF8' TEMPLATE template0, restore the dump there, and run the command again.\n"
    )
    assert planned.returncode == 4
    assert "server.encoding" in [one["code"] for one in json.loads(planned.stdout)["blockers"]]


@pytest.mark.slow
def test_an_inconsistent_history_is_reported_in_one_sentence(own_server):
    server = own_server(migrated=True)
    server.execute("DELETE FROM django_migrations WHERE app = 'accounts'")

    result = manage("migrate", url=server.url())

    assert result.returncode == 2
    assert result.stderr.startswith(
        "Migration admin.0001_initial is applied before its dependency accounts.0001_initial on database 'default': make the rows of django_migrations match"
    )
    assert len(result.stderr.splitlines()) == 1


def test_a_remote_server_without_tls_is_a_finding():
    now = datetime.now(UTC)
    near = Server(
        clock=Clock(now, now), version="18.6", host="", database="d", role="r", schema="public", creates_in="public", hiding=[], elsewhere=[], encoding="UTF8", lower_i="i", tls="", pooled=False, encrypted=False, collation_of="", collation_now="", collations=[], exclusions=[], time_zone="UTC", sets_zone="", sets_path=[], schema_owner=None, owner_to_set=None,
        max_connections=100, connections=1, standby=False, read_only=[], replication_roles=[], other_writers=[], granted=[], served=[], event_triggers=[], login_triggers=[], unavailable=[], settings=[], may_use=True, may_create=True, owns_database=True, may_read_migrations=True, may_read_journal=True,
    )  # fmt: skip

    assert list(near.findings()) == []
    assert list(replace(near, host="127.0.0.1").findings()) == []
    assert list(replace(near, host="db.example.com", tls="TLSv1.3 X", encrypted=True).findings()) == []
    assert [(f.code, f.where) for f in replace(near, host="db.example.com").findings()] == [("server.tls", "db.example.com")]


@pytest.mark.slow
def test_names_in_the_encoding_of_another_database_stop_nothing(own_server, tmp_path):
    server = own_server(migrated=True)
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", database="postgres")
    latin = server.url(database="latin")
    with psycopg.connect(latin, autocommit=True) as legacy:
        legacy.execute("CREATE ROLE \"Übel\" LOGIN SUPERUSER; COMMENT ON DATABASE latin IS 'Übel'")
        legacy.execute('CREATE DATABASE "Übel"')
        legacy.execute('CREATE ROLE "rÜ"')
        server.execute(
            "DO $$ BEGIN EXECUTE (SELECT format('GRANT CREATE ON SCHEMA public TO %I; SET ROLE %1$I; CREATE TABLE odd_t (); RESET ROLE', rolname) FROM pg_roles WHERE rolname LIKE 'r_' OR length(rolname) = 2); END $$"
        )
        legacy.execute("""ALTER ROLE "Übel" SET application_name TO 'Übel'""")
        results = {
            words: manage(*words.split(), url=server.url(), BACKUP_LOCATION=str(tmp_path / "backups"))
            for words in (
                "migrate -v0", "dbstatus", "dbstatus --security", "dbhealth", "dbmaintain weekly", "dbbackup --verify", "dbroles",
                "dbseed --production --users 5", "dbstaff a@example.com --role support", "dbrestore latest --yes", "dbadopt",
                "dbperson export a@example.com",
            )
        }  # fmt: skip

    ended = {words: (result.returncode, result.stderr) for words, result in results.items() if "Traceback" in result.stderr}
    assert ended == {}
    assert {words: result.returncode for words, result in results.items() if result.returncode not in (0, 4)} == {
        "dbbackup --verify": 2,  # No server could restore objects of a role whose name is not valid there.
        "dbrestore latest --yes": 2,  # There is no backup.
        "dbperson export a@example.com": 2,  # Staff.
    }


def test_event_triggers_that_run_with_migrations_are_named_in_a_note(database):
    database.execute(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL'; END $$;"
        "CREATE EVENT TRIGGER off ON ddl_command_end EXECUTE FUNCTION refuse(); ALTER EVENT TRIGGER off DISABLE;"
        'CREATE EVENT TRIGGER "Frozen" ON ddl_command_start EXECUTE FUNCTION refuse();'
        'ALTER EVENT TRIGGER "Frozen" ENABLE ALWAYS'
    )

    with django(database) as connection:
        [finding] = [one for one in verify(connection).findings if one.code == "server.event_trigger"]

    assert (finding.severity, finding.message) == (
        "note",
        "Event triggers run whenever the schema changes: Frozen. If one raises an error, migrations fail.",
    )
    database.execute(finding.cure.splitlines()[-1])
    database.execute("CREATE TABLE other ()")


@pytest.mark.slow
def test_migrate_names_event_triggers_before_it_changes_the_schema(migrated_here, probe):
    migrated_here.execute(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL'; END $$;"
        'CREATE EVENT TRIGGER "Frozen" ON ddl_command_start EXECUTE FUNCTION refuse()'
    )
    said = "The event trigger Frozen runs with each migration: if one raises an error, the migration fails, and"

    idle = manage("migrate", url=migrated_here.url)
    refused = manage("migrate", url=migrated_here.url, **probe("RunSQL('CREATE TABLE probe ()')"))

    assert (idle.returncode, said in idle.stderr) == (0, False)
    assert (refused.returncode, refused.stderr.startswith(said)) == (2, True), refused.stderr
