"""Settings of the tests: a temporary server, or the one in TEST_POSTGRES_URL.

POSTGRES_URL is ignored, and `.env` is not read: the tests create roles and replace a database there.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

MEMORY, MARK, ENOUGH = Path("/dev/shm"), "fly2any-tests", 6 * 2**30  # The name of a file in each run's folder; bytes.


def keep(folder):
    """Lock a folder as that of a run until this process ends; BlockingIOError while a run has it."""
    fcntl.flock(os.open(folder / MARK, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers():
    """Remove the folders of killed runs, because nothing else frees their memory."""
    for mark in MEMORY.glob(f"t-*/{MARK}"):
        with contextlib.suppress(OSError):  # It belongs to an active run or another user.
            if time.time() - mark.stat().st_mtime > 60:  # Not one that is just being created.
                keep(mark.parent)
                shutil.rmtree(mark.parent)


if "TMPDIR" not in os.environ and MEMORY.is_mount() and os.access(MEMORY, os.W_OK):
    # A memory file system, if large enough, holds everything that a run writes: hundreds of copied databases.
    remove_leftovers()
    if shutil.disk_usage(MEMORY).free > ENOUGH:
        tempfile.tempdir = tempfile.mkdtemp(prefix="t-", dir=MEMORY)  # Short, because sockets are in it.
        os.environ["TMPDIR"] = tempfile.tempdir
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.tempdir)
        os.chmod(tempfile.tempdir, 0o711)
        (Path(tempfile.tempdir) / MARK).touch()
        keep(Path(tempfile.tempdir))
        atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

if os.environ.get("CITUS_URL"):  # For tests/citus; the settings would take it for the database's URL.
    os.environ["CITUS"] = os.environ["CITUS_URL"].partition("://")[2]
if "FLY2ANY_TEST_SERVER" not in os.environ:  # Workers of pytest-xdist inherit both, and so the server.
    os.environ |= {"POSTGRES_URL": os.environ.pop("TEST_POSTGRES_URL", ""), "DATABASE_URL": "", "FLY2ANY_TEST_SERVER": ""}
    if not os.environ["POSTGRES_URL"]:
        # Registered before fly2any.postgres.embedded is imported, and so run after that has waited for the server's end.
        os.environ["FLY2ANY_TEST_SERVER"] = tempfile.mkdtemp(prefix="fly2any-test-")
        atexit.register(shutil.rmtree, os.environ["FLY2ANY_TEST_SERVER"], ignore_errors=True)
of_others = [name for name, value in os.environ.items() if "postgres" in value.partition("://")[0].lower() and "://" in value]
for name in ("POSTGRES_URL_NON_POOLING", "DIRECT_URL", "POSTGRES_REPLICA_URL", *of_others):
    if name not in ("POSTGRES_URL", "DATABASE_URL"):
        os.environ[name] = ""  # No test reads a database other than its own.
os.environ["ENV_FILE"] = ""
os.environ["SECRET_KEY"] = "only for tests"  # Also for the commands that tests start.
os.environ.setdefault("LOCK_TIMEOUT", "400")  # The default is for the tests that are about it, which set "".
os.environ.setdefault("ALLOWED_HOSTS", "testserver,localhost,127.0.0.1")

if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
    # Not in the common folder of this user's runs, which each new run closes to the servers' user.
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(prefix="t-")
    os.chmod(os.environ["PYTEST_DEBUG_TEMPROOT"], 0o711)
    atexit.register(shutil.rmtree, os.environ["PYTEST_DEBUG_TEMPROOT"], ignore_errors=True)

from fly2any.settings import *
from fly2any.settings import BACKUPS, DEVELOPMENT, embedded_database

DEBUG = False
SECURE_SSL_REDIRECT = False
BACKUPS = {**BACKUPS, "location": "", "expected": False}
WHITENOISE_AUTOREFRESH = True  # Each client would list all files first.
SECOND_FACTOR = False  # Except where it is tested.
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "sessionid", "csrftoken"  # Production's names are for HTTPS alone.

if DEVELOPMENT:
    home = Path(os.environ["FLY2ANY_TEST_SERVER"]).resolve()
    home.chmod(0o711)  # For root, the server runs as another user, who needs access.
    # Autovacuum deadlocks with a test that runs GRANT on all tables before ALTER TABLE: both wait for a row of pg_class.
    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    DATABASES = {"default": embedded_database(home, **quick, autovacuum_naptime="1d")}
    DATABASES["default"]["TEST"] = {"NAME": "test_fly2any"}
