"""Commands in processes of their own, forked from one in which Django is set up already: most of a command's time is its imports.

What a fork cannot show as a fresh interpreter would (another PYTHONPATH, another settings module, no URL) starts one.
"""

import atexit
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
PROJECT = Path(__file__).resolve().parent.parent
# Variables that the interpreter or an import reads once, before a fork could change them.
READ_AT_START = ("PYTHON", "DJANGO_SETTINGS_MODULE", "LC_", "LANG", "PATH", "HOME", "DEBUG")


def start(arguments, environment, *, fresh, stderr=subprocess.PIPE):
    """Start `manage.py` with `arguments` in `environment`: in a `fresh` interpreter, or forked."""
    if fresh:
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=as_ours,
        )
    return Forked(arguments, environment, stderr)


def as_ours():
    """Handle SIGINT, which a background shell makes processes ignore, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@cache
def _forks():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


class Forked:
    """A forked command, with the part of subprocess.Popen that the tests use."""

    def __init__(self, arguments, environment, stderr):
        self.args = [sys.executable, "manage.py", *arguments]
        out, for_out = _pipe()
        err, for_err = _pipe() if stderr == subprocess.PIPE else (None, Connection(os.dup(stderr), readable=False))
        self.stdout, self.stderr = out, err
        self._process = _forks().Process(target=_run, args=(list(arguments), environment, for_out, for_err))
        self._process.start()
        for_out.close()
        for_err.close()
        self.pid = self._process.pid

    def __del__(self):
        for file in self._files().values():  # A test may not read the output.
            file.close()

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for its end, and return (stdout, stderr)."""
        texts = {}
        readers = [Thread(target=lambda n=n, f=f: texts.update({n: f.read()}), daemon=True) for n, f in self._files().items()]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        for file in self._files().values():
            file.close()
        return texts.get("stdout"), texts.get("stderr")

    def _files(self):
        return {name: file for name, file in (("stdout", self.stdout), ("stderr", self.stderr)) if file is not None}

    def send_signal(self, number):
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _pipe():
    """Return the end to read, a text file, and the one that is given to the fork."""
    ours, theirs = os.pipe()
    return os.fdopen(ours, encoding="utf-8"), Connection(theirs, readable=False)


def _run(arguments, environment, out, err):
    """Run the command in the fork."""
    for number, end in ((1, out), (2, err)):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace")
    Thread(target=_end_with_the_tests, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(PROJECT)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    _forget_settings()
    sys.argv = ["manage.py", *arguments]
    try:
        runpy.run_path("manage.py", run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()


def _end_with_the_tests():
    multiprocessing.parent_process().join()
    os._exit(1)


def _forget_settings():
    """Reload the settings from this process's environment."""
    from django.conf import settings
    from django.db import connections
    from django.utils.functional import empty

    for alias in connections:
        if hasattr(connections._connections, alias):
            del connections[alias]
    sys.modules.pop("fly2any.settings")
    settings._wrapped = empty
    connections._settings = None
    connections.__dict__.pop("settings", None)
