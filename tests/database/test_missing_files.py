"""A server without the files of an extension that the database has, as after a move to an image without contrib."""

import json
import shutil

import pytest

from fly2any.postgres.embedded import bin_folder
from fly2any.postgres.supervisor import Server
from tests import prisma
from tests.conftest import made_once, make_migrated, manage
from tests.servers import OwnServer

pytestmark = [pytest.mark.usefixtures("server"), pytest.mark.slow]

CONTRIB = (
    "Install PostgreSQL's contrib package on the server (Debian: postgresql-NN; Red Hat and Alpine: postgresqlNN-contrib), or run an image"
    " that includes it."
)


class Stripped(OwnServer):
    """A server whose programs are in its own folder, so that a test can remove files of extensions."""

    def make(self, settings):
        shutil.copytree(bin_folder().parent, self.home / "programs")
        return Server(self.home, settings, folder=self.home / "programs" / "bin")

    def without(self, extension):
        for file in (self.home / "programs").rglob(f"{extension}*"):
            file.unlink()


@pytest.fixture
def stripped(tmp_path_factory):
    server = Stripped(tmp_path_factory.mktemp("server"), {}, template=made_once("migrated-server", make_migrated)).start()
    server.execute("CREATE EXTENSION citext")
    yield server
    server.remove()


def test_an_extension_whose_files_are_missing_is_found(stripped):
    whole = manage("dbstatus", "--format", "json", url=stripped.url())
    stripped.without("pg_trgm")
    stripped.without("citext")

    status = manage("dbstatus", "--format", "json", url=stripped.url())
    health = manage("dbhealth", "extensions", "--format", "json", url=stripped.url())
    release = manage("dbstatus", "--release", url=stripped.url())

    trigrams = {
        "severity": "error",
        "code": "extensions.unavailable",
        "where": "pg_trgm",
        "message": "The extension pg_trgm is installed in this database, but the server lacks its files: every INSERT and UPDATE of users fails, and so does the admin's search.",
        "cure": CONTRIB,
    }
    other = {
        "severity": "warning",
        "code": "extensions.unavailable",
        "where": "citext",
        "message": "The extension citext is installed in this database, but the server lacks its files: what uses it fails.",
        "cure": 'Install the package that has it on the server; if nothing uses it: DROP EXTENSION "citext";',
    }

    def found(result):
        return [
            {name: one[name] for name in trigrams} for one in json.loads(result.stdout)["findings"] if one["severity"] != "note"
        ]

    assert (whole.returncode, found(whole)) == (0, [])
    assert (status.returncode, found(status)) == (4, [other, trigrams])
    assert (health.returncode, found(health)) == (4, [other, trigrams])
    [topic] = json.loads(health.stdout)["topics"]
    assert [one["text"] for one in topic["figures"]] == ["citext 1.8, pg_trgm 1.6, plpgsql 1.0"]
    assert release.returncode == 4


def test_a_library_that_is_missing_alone_is_found(stripped):
    (library,) = (stripped.home / "programs").rglob("pg_trgm.so")
    library.unlink()

    for command in (("dbstatus",), ("dbhealth",), ("dbhealth", "extensions")):
        result = manage(*command, "--format", "json", url=stripped.url())
        found = [(one["code"], one["where"]) for one in json.loads(result.stdout)["findings"]]
        found = [one for one in found if one[0].startswith("extensions.")]
        assert (command, found) == (command, [("extensions.unavailable", "pg_trgm")])


def test_a_role_that_may_not_call_the_library_is_not_told_that_it_is_missing(migrated):
    migrated.execute("REVOKE EXECUTE ON FUNCTION show_limit() FROM PUBLIC")
    with migrated.role() as url:
        result = manage("dbhealth", "extensions", "--format", "json", url=url)

    assert (result.returncode, json.loads(result.stdout)["findings"]) == (0, [])


@pytest.mark.parametrize(("owner", "codes"), [("postgres", ["extensions.unavailable"]), ("another", [])])
def test_the_library_is_only_called_in_the_schema_of_a_trusted_role(stripped, owner, codes):
    stripped.execute(
        f"CREATE ROLE another; CREATE SCHEMA place AUTHORIZATION {owner}; ALTER EXTENSION pg_trgm SET SCHEMA place"
    )
    (library,) = (stripped.home / "programs").rglob("pg_trgm.so")
    library.unlink()

    result = manage("dbhealth", "extensions", "--format", "json", url=stripped.url())

    assert [one["code"] for one in json.loads(result.stdout)["findings"] if one["where"] == "pg_trgm"] == codes


def test_a_write_that_fails_because_of_a_missing_library_says_so(stripped):
    stripped.without("pg_trgm")

    result = manage("dbstatus", "--write-check", url=stripped.url())

    assert result.returncode == 2
    assert result.stderr == (
        'The server lacks a file (The write check failed at the table users: could not access file "pg_trgm": No such file or'
        " directory): if it is the library of an extension, install the package that contains it on the server (for pg_trgm, PostgreSQL's"
        " contrib package); if it is a file of the database, restore a backup.\n"
    )


def test_a_database_with_an_extension_whose_files_are_missing_is_not_adopted(stripped):
    stripped.execute("CREATE DATABASE site", database="postgres")
    stripped.execute(prisma.exact(), database="site")
    stripped.execute("CREATE EXTENSION pg_trgm", database="site")
    stripped.without("pg_trgm")

    result = manage("dbadopt", "--format", "json", url=stripped.url(database="site"))

    [blocker] = json.loads(result.stdout)["blockers"]
    assert result.returncode == 4
    assert (blocker["code"], blocker["where"]) == ("adopt.extension", "pg_trgm")
    assert blocker["message"] == "A later migration needs the extension pg_trgm, and the server does not have it."
    assert blocker["cure"] == "Install PostgreSQL's contrib package on the server."
