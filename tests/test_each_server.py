"""The versions of PostgreSQL that no other test covers: a migration, a backup and a restore on each, and dbupgrade.

Those that this machine has are tested; `python -m lanes.servers` fetches them.
"""

import dataclasses
import fcntl
import shutil
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection, connections

from fly2any.database.backup import tools
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.postgres import embedded
from fly2any.postgres.supervisor import Server, version_of
from fly2any.postgres.url import embedded_database
from lanes.packages import POSTGRESQL
from lanes.servers import Older, is_here, programs
from tests.conftest import django, manage
from tests.database.taken import rows
from tests.servers import SUPERUSER, Database, OwnServer

pytestmark = pytest.mark.slow
HERE = [major for major in POSTGRESQL if is_here(major)]


class OfVersion(OwnServer):
    """A server of a version, with demo data of five people."""

    def __init__(self, home, major):
        self.major = major
        super().__init__(home, {})
        self.start().create_database()
        for command in ("migrate", "dbseed --production --users 5 --seed 1 --until 2026-05-01"):
            result = manage(*command.split(), url=self.url())
            assert result.returncode == 0, result.stderr

    def make(self, settings):
        return (Older if self.major < 17 else Server)(self.home, settings, folder=programs(self.major))

    def database(self, name="fly2any"):
        return Database(str(self.home / "data"), str(self.port), SUPERUSER, "", name)


@pytest.fixture(autouse=True)
def _unblocked(django_db_blocker):
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="module")
def old(request, tmp_path_factory):
    server = OfVersion(tmp_path_factory.mktemp("server"), request.param)
    yield server
    server.remove()


@pytest.fixture
def newest_tools(monkeypatch):
    """Only the embedded server's tools, which are newer than these servers."""
    monkeypatch.setattr(tools, "package_folders", list)
    monkeypatch.setattr("os.get_exec_path", lambda *_: [])


@pytest.mark.parametrize("old", HERE, indirect=True)
def test_the_embedded_servers_tools_back_up_and_restore_an_older_server(old, tmp_path, newest_tools):
    origin = old.database()
    with django(origin) as reached:
        store = store_at(str(tmp_path / "backups"))
        manifest = check(reached, store, take(reached, store, Progress()), Progress())
        restore_into(reached, "restored", store, manifest, Progress())

    assert (manifest.server.partition(".")[0], manifest.tool.partition(".")[0]) == (str(old.major), "18")
    assert (manifest.state, manifest.verdict.reason) == ("good", "")
    held = rows(origin)
    assert sum(map(len, held.values())) > 200
    assert rows(old.database("restored")) == held
    old.execute("DROP DATABASE restored")


# Code that fails where its rows are restored.
PICKY = """
    CREATE FUNCTION picky(int) RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN
        IF current_setting('server_version_num')::int >= 180000 THEN RAISE 'not here'; END IF; RETURN true; END $f$;
    CREATE TABLE picked (id int CHECK (picky(id))); INSERT INTO picked VALUES (1)
"""


# Over rows that a policy hides from the owner of the views.
VIEWS = """
    CREATE TABLE rows_of AS SELECT * FROM (VALUES (1), (2)) AS v (a); GRANT SELECT ON rows_of TO site;
    CREATE MATERIALIZED VIEW seen AS SELECT a FROM rows_of; CREATE MATERIALIZED VIEW again AS SELECT a FROM seen;
    ALTER MATERIALIZED VIEW seen OWNER TO site; ALTER MATERIALIZED VIEW again OWNER TO site;
    ALTER TABLE rows_of ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON rows_of USING (a > 1)
"""


@pytest.fixture
def upgrade(tmp_path, old):
    """A function that runs dbupgrade on the data directory of `old`, as of an embedded server; `home` is its folder."""
    old.stop()
    connections.databases["old"] = {**connection.settings_dict, **embedded_database(old.home, fsync="off")}

    def run(**options):
        out = StringIO()
        call_command("dbupgrade", database="old", programs=programs(old.major), stdout=out, stderr=StringIO(), **options)
        return out.getvalue()

    yield run
    connections["old"].close()
    del connections["old"], connections.databases["old"]
    embedded.release(old.home)


def entries(home):
    return sorted(path.name for path in home.iterdir() if not path.name.endswith((".lock", "log")))


@pytest.mark.parametrize("old", [major for major in HERE if major == 17], indirect=True)
def test_a_data_directory_is_upgraded_by_one_command_and_kept(old, upgrade):
    home = old.home
    old.start()
    old.execute("CREATE ROLE site LOGIN")
    old.execute("CREATE DATABASE notes OWNER site")
    old.execute(PICKY, database="notes")
    old.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    held = rows(old.database())
    old.stop()

    with (
        embedded.lock(home / "clients.lock", fcntl.LOCK_SH),
        pytest.raises(
            Refusal,
            match=rf"^The server in {home} is in use: stop its clients, such as runserver, and run the command again\.$",
        ),
    ):
        upgrade()
    with pytest.raises(
        Refusal, match=r"^The database closed takes no connections, so it cannot be copied, and nothing was replaced: "
    ):
        upgrade()
    old.start()
    old.execute("DROP DATABASE closed")
    old.stop()
    with pytest.raises(
        Refusal,
        match=r"^psql exited with 3: the function public\.picky\(integer\) raised an error\. Nothing was replaced\. Start the old server ",
    ):
        upgrade()
    assert ((home / "data" / "PG_VERSION").read_text(), entries(home)) == ("17\n", ["data", "upgrade"])

    old.start()
    old.execute("DROP TABLE picked; CREATE TABLE kept AS SELECT 7 AS n", database="notes")
    old.execute("ALTER TABLE kept OWNER TO site", database="notes")
    old.execute(VIEWS, database="notes")
    old.stop()
    with pytest.raises(
        Refusal, match=r"^Code of site in the database notes would run as the superuser .*, add --trust site\.$"
    ):
        upgrade()
    said = upgrade(trust=["site"]).splitlines()

    tables = len(held) + 2
    number = sum(map(len, held.values())) + 3
    assert said == [
        f"Upgraded  from PostgreSQL {version_of(programs(17))} to {version_of(embedded.bin_folder())}",
        f"Compared  4 databases, {tables} tables, {number:,} rows: all are the same.",
        f"Kept      {home / 'data-17'}. Delete it when `manage.py dbstatus` reports no findings.",
    ]
    assert upgrade() == "The data directory already has the installed major version of PostgreSQL; nothing was changed.\n"
    assert ((home / "data-17" / "PG_VERSION").read_text(), entries(home)) == ("17\n", ["data", "data-17"])
    with connections["old"].cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        assert cursor.fetchone() == (18,)
    new = dataclasses.replace(old.database(), port="5432")
    assert rows(new) == held
    notes = dataclasses.replace(new, name="notes")
    assert rows(notes) == {"kept": [("(7)",)], "rows_of": [("(1)",), ("(2)",)]}
    assert notes.execute("SELECT * FROM seen, again") == [(2, 2)]  # As its owner sees the rows.
    assert new.execute("SELECT rolname FROM pg_roles JOIN pg_database ON pg_roles.oid = datdba WHERE datname = 'notes'") == [
        ("site",)
    ]
    status = manage("dbstatus", "--release", url=new.url)
    assert (status.returncode, status.stderr) == (0, "")


@pytest.mark.parametrize("old", [major for major in (15,) if is_here(major)], indirect=True)
def test_a_read_only_database_with_an_internal_option_of_its_release_is_upgraded(old, upgrade):
    """PostgreSQL 15.20 writes pg_attver, which only its own pg_dumpall leaves out. Its tablespace is used again after a failure."""
    disk = old.home.parent / f"{old.home.name}-disk"
    disk.mkdir()
    shutil.chown(disk, (old.home / "data").owner())
    old.start()
    old.execute(f"CREATE TABLESPACE disk LOCATION '{disk}'")
    old.execute(PICKY)
    old.execute("CREATE TABLE far TABLESPACE disk AS SELECT 7 AS n")
    old.stop()
    with pytest.raises(Refusal, match=r"^psql exited with 3: the function public\.picky\(integer\) raised an error\. "):
        upgrade()
    assert [path.name.partition("_2")[0] for path in disk.iterdir()] == ["PG_15"]
    old.start()
    old.execute("DROP TABLE picked")
    old.execute("CREATE TABLE odd (line text); INSERT INTO odd VALUES ('ALTER TABLE ONLY x ALTER COLUMN y SET (pg_attver=2);')")
    held = rows(old.database())
    old.execute("ALTER DATABASE fly2any SET default_transaction_read_only TO on")
    old.stop()

    assert upgrade().startswith(
        f"Upgraded  from PostgreSQL {version_of(programs(15))} to {version_of(embedded.bin_folder())}\n"
    )
    with connections["old"].cursor():  # Starts the server.
        assert rows(dataclasses.replace(old.database(), port="5432")) == held
