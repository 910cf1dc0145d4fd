"""Data directories that `dbupgrade` refuses or leaves alone, each with its cure."""

import shutil
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection, connections

from fly2any.database.errors import Refusal
from fly2any.postgres import embedded
from fly2any.postgres.embedded import EmbeddedServerError
from fly2any.postgres.supervisor import Server
from fly2any.postgres.url import embedded_database
from tests.servers import let_through

pytestmark = pytest.mark.slow
NOTHING_TO_DO = "The data directory already has the installed major version of PostgreSQL; nothing was changed.\n"


@pytest.fixture
def home(tmp_path):
    """The folder of an embedded server that does not run."""
    home = tmp_path / "server"
    home.mkdir()
    let_through(home)
    Server(home.resolve(), {}).create()
    return home.resolve()


@pytest.fixture
def upgrade(home):
    """A function that runs dbupgrade on `home`, and returns what it prints."""
    connections.databases["old"] = {**connection.settings_dict, **embedded_database(home)}

    def run(**options):
        out = StringIO()
        call_command("dbupgrade", database="old", stdout=out, stderr=StringIO(), **options)
        return out.getvalue()

    yield run
    connections["old"].close()
    del connections["old"], connections.databases["old"]
    embedded.release(home)


@pytest.mark.parametrize(
    ("version", "error", "words"),
    [
        ("19\n", Refusal, "which is newer than the installed 18: run `pip install -r requirements.txt` of the code that"),
        ("15.20\n", Refusal, "no server programs of PostgreSQL 15, which read its data directory: run `apt-get install"),
        ("9.6\n", Refusal, "no server programs of PostgreSQL 9, which read its data directory: run `apt-get install"),
        ("", EmbeddedServerError, "PG_VERSION is missing or damaged. Move it away and put an intact copy there, or restore"),
        (
            "eighteen",
            EmbeddedServerError,
            "PG_VERSION is missing or damaged. Move it away and put an intact copy there, or restore",
        ),
    ],
)
def test_a_data_directory_of_no_installed_version_is_refused_with_its_cure(home, upgrade, tmp_path, version, error, words):
    (home / "data" / "PG_VERSION").write_text(version)

    with pytest.raises(error, match=words):
        upgrade(programs=tmp_path)

    assert (home / "data" / "PG_VERSION").read_text() == version


def test_a_data_directory_of_another_build_is_not_called_installed(home, upgrade):
    assert upgrade() == NOTHING_TO_DO
    control = home / "data" / "global" / "pg_control"
    with control.open("r+b") as file:
        file.seek(8)
        file.write((1799).to_bytes(4, "little"))  # PG_CONTROL_VERSION, as a beta version has another.

    with pytest.raises(
        Refusal,
        match=r"was created by another build of PostgreSQL 18, for example a beta version \(The database cluster was initialized with"
        r" PG_CONTROL_VERSION 1799, .*\): give the folder of its server programs as --programs\.$",
    ):
        upgrade()


def test_a_linked_data_directory_is_refused_and_stays(home, upgrade, tmp_path):
    target = tmp_path / "disk"
    shutil.move(home / "data", target)
    (home / "data").symlink_to(target)
    (target / "PG_VERSION").write_text("17\n")

    with pytest.raises(Refusal, match=rf"`rm {home}/data && mv {target.resolve()} {home}/data`\), or move all of {home} to"):
        upgrade()

    assert ((home / "data").readlink(), (target / "PG_VERSION").read_text()) == (target, "17\n")
    assert sorted(path.name for path in home.iterdir()) == ["data", "log"]
