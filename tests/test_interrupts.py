"""manage.py interrupted by Ctrl-C, `kill` or a lost terminal."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.conftest import NO_SERVER, PROJECT, manage

# Python runs this file at its start. An extension module in Rust runs code of its own while it is imported ("<string>"), and turns an
# interrupt there into a traceback.
INTERRUPTED_IMPORT = """
import os, signal, sys

def interrupt(frame, event, argument):
    if frame.f_code.co_filename == "<string>":
        sys.settrace(None)
        os.kill(os.getpid(), signal.{})

class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "pyrage.pyrage":
            sys.settrace(interrupt)

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_a_module_is_imported_ends_the_command_quietly(tmp_path, sent):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_IMPORT.format(sent.name))

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Also where the tests run under nohup.
    try:
        result = manage("dbbackup", url=NO_SERVER, PYTHONPATH=str(tmp_path))
    finally:
        signal.signal(signal.SIGHUP, before)

    assert (result.returncode, result.stdout, result.stderr) == (128 + sent, "", "")


def test_an_error_that_only_a_lost_terminal_could_show_ends_the_command_as_its_loss_does():
    terminal, theirs = pty.openpty()  # Not the terminal of the session: no SIGHUP is sent.
    os.close(terminal)

    result = subprocess.run(
        [sys.executable, "manage.py", "dbbackup"], cwd=PROJECT, env={"POSTGRES_URL": NO_SERVER, "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)

    assert result.returncode == 128 + signal.SIGHUP
