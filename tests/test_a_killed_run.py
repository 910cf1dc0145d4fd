"""A killed test run leaves no server, pooler or command behind."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests import settings
from tests.conftest import PROJECT

WAITS = """
import time
from pathlib import Path
from tests.conftest import start_manage
from tests.servers import PgBouncer

def test_waits(url, own_server, tmp_path):
    server = own_server()
    pooler = PgBouncer(tmp_path, server.port, "transaction")
    waiting = start_manage("dbstatus", "--wait", "600", url="postgresql://u@127.0.0.1:1/d")
    Path({begun!r}).touch()
    time.sleep(600)
"""


def belonging(run, folder):
    """The command lines of the processes that came of a run: of its session, or at work in its temporary folder."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (os.getsid(process.pid) == run.pid or folder in line):
                found.append(line)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/usr/sbin/pgbouncer"), reason="pgbouncer is not installed")
def test_a_run_that_is_killed_leaves_no_process():
    folder = Path(tempfile.mkdtemp(prefix="k-", dir=os.environ["PYTEST_DEBUG_TEMPROOT"]))  # Short, because sockets are in it.
    folder.chmod(0o711)
    begun, test = folder / "begun", folder / "test_waits.py"
    test.write_text(WAITS.format(begun=str(begun)))
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLY2ANY_", "PYTEST_"))}
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "-p", "no:cacheprovider", str(test)],
        cwd=PROJECT, env=environment | {"TMPDIR": str(folder)}, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not begun.exists():
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    there = belonging(run, str(folder))

    run.send_signal(signal.SIGKILL)
    run.wait()

    for word in ("supervisor", "pgbouncer", "forkserver", "postgres -D"):
        assert any(word in line for line in there), (word, there)
    while left := belonging(run, str(folder)):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_the_next_run_removes_what_a_killed_one_left_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "MEMORY", tmp_path)
    old, running, fresh, of_others = (tmp_path / f"t-{name}" for name in ("old", "running", "fresh", "of_others"))
    for folder in (old, running, fresh, of_others):
        folder.mkdir()
        if folder is not of_others:
            (folder / settings.MARK).touch()
        if folder is not fresh:
            for path in (folder, *folder.iterdir()):
                os.utime(path, (0, 0))
    with (running / settings.MARK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings.remove_leftovers()

    assert sorted(tmp_path.iterdir()) == sorted([running, fresh, of_others])
