"""Commands whose terminal is lost, as when an SSH session ends."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import PROJECT, start_manage
from tests.database.taken import KEY
from tests.servers import open_transaction

# Runs manage.py in a session of its own, whose terminal is its input.
IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "manage.py", *sys.argv[1:]])
"""


def wait_for_work(process, place):
    """Wait until a backup works in `place`."""
    while not (os.path.isdir(place) and os.listdir(place)):
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_a_backup_whose_terminal_is_lost_leaves_nothing(filled, place, tmp_path):
    terminal, theirs = pty.openpty()
    environment = {
        "POSTGRES_URL": filled.url, "SECRET_KEY": KEY, "ALLOWED_HOSTS": "localhost", "BACKUP_LOCATION": place,
        "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "work"), "TERM": "xterm",
    }  # fmt: skip
    (tmp_path / "work").mkdir()
    with open_transaction(filled, "LOCK TABLE users"):
        process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, "dbbackup", "--verify"],
            cwd=PROJECT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        wait_for_work(process, place)
        os.close(terminal)
        try:
            process.wait(timeout=180)
        finally:
            process.kill()
            process.wait()

    assert process.returncode == 128 + signal.SIGHUP
    assert (os.listdir(place), os.listdir(tmp_path / "work")) == ([], [])


@pytest.mark.slow
def test_a_command_under_nohup_continues_without_its_terminal(filled, place):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup starts it: also ignored in a fresh interpreter.
    try:
        with open_transaction(filled, "LOCK TABLE users"):
            process = start_manage("dbbackup", url=filled.url, BACKUP_LOCATION=place, PYTHONUNBUFFERED="1")
            wait_for_work(process, place)
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGHUP, before)
    process.communicate(timeout=60)

    assert process.returncode == 0
