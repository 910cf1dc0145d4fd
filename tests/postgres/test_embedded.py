"""The embedded server as commands use it: from separate processes, in a separate folder."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from fly2any.postgres import embedded
from fly2any.settings import embedded_database
from tests.servers import processes

PROJECT = Path(__file__).resolve().parents[2]

# Holds the server and runs a statement; `then` goes on afterwards.
CLIENT = """
import os, sys, time
from pathlib import Path
import psycopg
from fly2any.postgres import embedded
from fly2any.settings import embedded_database
home = Path(sys.argv[1])
embedded.hold(home, {"fsync": "off"}, "fly2any")
with psycopg.connect(host=str(embedded.socket_folder(home)), user="postgres", dbname="fly2any", autocommit=True) as connection:
    print(connection.execute(sys.argv[2]).fetchone()[0], flush=True)
    exec(sys.argv[3])
"""


def client(home, statement="SELECT 1", then="", **options):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLIENT, str(home), statement, then],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ask(home, statement="SELECT 1", then=""):
    process = client(home, statement, then)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def home(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o711)
    tmp_path.chmod(0o711)
    yield tmp_path
    assert gone(tmp_path)


def gone(home, seconds=15):
    """Return whether nothing runs for the server in `home`, within some seconds."""
    deadline = time.monotonic() + seconds
    while processes(str(home)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not processes(str(home))


@pytest.mark.slow
def test_a_server_starts_and_stops_with_its_command(home):
    assert ask(home, "SELECT current_setting('server_version_num')::int / 10000") == "18"

    assert processes(str(home / "data")) == []
    assert ask(home, "SELECT current_setting('shared_preload_libraries')") == "pg_stat_statements"
    assert ask(home, "SELECT extname FROM pg_extension WHERE extname = 'pg_stat_statements'") == "pg_stat_statements"
    assert ask(home, "SELECT current_setting('TimeZone')") == "UTC"


@pytest.mark.slow
def test_the_server_listens_only_on_its_own_socket(home):
    assert ask(home, "SELECT current_setting('listen_addresses')") == ""

    assert (home / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_rows_outlive_the_server(home):
    ask(
        home,
        "SELECT 1",
        "connection.execute('CREATE TABLE kept AS SELECT 7 AS n')",
    )

    assert ask(home, "SELECT n FROM kept") == "7"
    (home / "data").rename(home / "data.upgraded")  # As left by an upgrade that was killed between its two renames.
    assert ask(home, "SELECT n FROM kept") == "7"
    assert not (home / "data.upgraded").exists()


@pytest.mark.slow
def test_many_commands_at_once_share_one_server(home):
    everyone = [client(home, "SELECT pg_postmaster_start_time()", "time.sleep(1)") for _ in range(6)]

    answers = {process.communicate(timeout=60)[0].strip() for process in everyone}

    assert [process.returncode for process in everyone] == [0] * 6
    assert len(answers) == 1


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_no_server_behind(home):
    process = client(home, then="time.sleep(60)")
    assert process.stdout.readline() == "1\n"

    process.kill()
    process.communicate()

    assert gone(home)
    assert ask(home) == "1"


@pytest.mark.slow
def test_the_server_stays_while_another_command_needs_it(home):
    killed, other = (
        client(home, then="time.sleep(60)"),
        client(home, then="time.sleep(2); print(connection.execute('SELECT 2').fetchone()[0])"),
    )
    assert killed.stdout.readline() == other.stdout.readline() == "1\n"

    killed.kill()
    killed.communicate()

    assert other.communicate(timeout=60)[0] == "2\n"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["supervisor", "server"])
def test_a_killed_server_is_restarted_for_the_next_command(home, victim):
    ask(home, then="connection.execute('CREATE TABLE kept AS SELECT 7 AS n')")
    process = client(home, then="time.sleep(3)")
    assert process.stdout.readline() == "1\n"

    if victim == "server":
        os.kill(embedded.pid(home), signal.SIGKILL)
    else:
        os.kill(
            int(next(line for line in processes("fly2any.postgres.supervisor") if str(home) in line).split()[0]), signal.SIGKILL
        )

    assert ask(home, "SELECT n FROM kept") == "7"
    process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("stale", ["the test's own process id", "nobody's process id", "rubbish"])
def test_a_stale_pid_file_is_ignored(home, stale):
    ask(home)
    number = {"the test's own process id": str(os.getpid()), "nobody's process id": "4194303", "rubbish": "x"}[stale]
    (home / "data" / "postmaster.pid").write_text(f"{number}\n{home / 'data'}\n1\n5432\n{home / 'data'}\n\n\nready\n")

    assert ask(home) == "1"


@pytest.mark.slow
def test_a_killed_creation_is_restarted(home):
    (home / "data.unfinished").mkdir()
    (home / "data.unfinished" / "PG_VERSION").write_text("18\n")

    assert ask(home) == "1"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["long" * 30, "a,b", 'a "quoted" é $HOME name'])
def test_an_unusual_path_works(home, name):
    odd = home / name
    odd.mkdir(mode=0o711)

    assert ask(odd) == "1"
    assert not embedded.socket_folder(odd).exists() or embedded.socket_folder(odd) == odd / "data"


@pytest.mark.parametrize("name", ["long" * 20, "a,b"])
def test_a_tmpdir_whose_path_no_socket_can_have_is_not_used_for_one(monkeypatch, tmp_path, name):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))

    folder = embedded.socket_folder(tmp_path / name / "home")

    assert (folder.parent, folder.name.startswith(f"fly2any-{os.getuid()}-")) == (Path("/tmp"), True)


@pytest.mark.slow
def test_a_symbolic_link_works(home):
    real = home / "real"
    real.mkdir(mode=0o711)
    (home / "link").symlink_to(real)
    link = embedded_database(home / "link")["EMBEDDED"]["HOME"]

    process = client(link, then="time.sleep(1)")
    assert process.stdout.readline() == "1\n"
    assert ask(link) == "1"
    assert process.communicate(timeout=60)[0] == ""


@pytest.mark.slow
def test_a_command_killed_while_it_creates_the_server_leaves_no_partial_one(home):
    for delay in (0.2, 0.7, 1.2):
        folder = home / str(delay)
        folder.mkdir(mode=0o711)
        first = client(folder)
        time.sleep(delay)
        first.kill()
        first.communicate()

        assert ask(folder, "SELECT current_database()") == "fly2any"


def test_the_server_ends_with_its_supervisor(home):
    process = client(home, then="time.sleep(60)")
    assert process.stdout.readline() == "1\n"
    supervisor = int(next(line for line in processes("fly2any.postgres.supervisor") if str(home) in line).split()[0])

    process.kill()
    os.kill(supervisor, signal.SIGKILL)
    process.communicate()

    assert gone(home)


def test_a_folder_that_is_a_file_is_reported_in_one_sentence(home):
    (home / "file").write_text("")

    err = client(home / "file" / "below").communicate(timeout=60)[1]

    assert "The embedded PostgreSQL cannot use" in err.splitlines()[-1]


@pytest.mark.slow
def test_data_of_another_version_is_refused_with_its_cure(home):
    ask(home)
    version = home / "data" / "PG_VERSION"
    version.write_text("17\n")

    process = client(home)
    err = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert f"{home / 'data'} was created by PostgreSQL 17, but 18." in err
    assert "run `manage.py dbupgrade` (docs/how-to/upgrade.md), or delete" in err


@pytest.mark.slow
def test_the_data_folder_may_be_a_link(home):
    ask(home)
    (home / "data").rename(home / "elsewhere")
    (home / "data").symlink_to(home / "elsewhere")
    lock_file = home / "data" / "postmaster.pid"

    seen = ask(home, then=f"time.sleep(1); print(open({str(lock_file)!r}).readline())")

    assert len(seen.split()) == 2  # The running server keeps the file that prevents a second one.
    assert "still in use" not in (home / "log").read_text()


@pytest.mark.slow
def test_a_link_to_a_missing_data_folder_is_refused_with_its_cure(home):
    (home / "data").symlink_to(home / "unmounted")

    err = client(home).communicate(timeout=60)[1]

    assert f"is a symbolic link to {home / 'unmounted'}, which does not exist: mount its disk, or delete the link" in err


@pytest.mark.slow
def test_a_server_that_cannot_start_names_its_log(home):
    ask(home)
    (home / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    (home / "log").chmod(0o644)  # As it was until 2026-11.

    process = client(home)
    err = process.communicate(timeout=90)[1]

    assert process.returncode == 1
    assert f"The embedded PostgreSQL did not start: see {home / 'log'}" in err
    assert 'unrecognized configuration parameter "no_such_setting"' in (home / "log").read_text()
    assert stat.S_IMODE((home / "log").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run the server as another user")
def test_root_opens_no_folder_and_the_server_is_not_root(home):
    closed = home / "closed"
    inside = closed / "project"
    inside.mkdir(parents=True)
    closed.chmod(0o700)
    before = {folder: folder.stat().st_mode for folder in (closed, *closed.parents)}

    process = client(inside, then="time.sleep(2)")
    assert process.stdout.readline() == "1\n"
    server = psutil.Process(embedded.pid(inside))

    assert set(server.uids()) == {65534}
    assert {folder: folder.stat().st_mode for folder in (closed, *closed.parents)} == before
    process.communicate(timeout=60)
