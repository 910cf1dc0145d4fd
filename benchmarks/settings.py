"""Settings of the benchmarks: a server of their own in `.benchmarks`, kept, whatever URL is set; a temporary one for `--quick`.

Only `distributed` uses another one: the database of CITUS_URL.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ["POSTGRES_URL"], os.environ["DATABASE_URL"] = os.environ.pop("CITUS_URL", ""), ""
os.environ["POSTGRES_URL_NON_POOLING"] = os.environ["DIRECT_URL"] = ""
os.environ.setdefault("SECRET_KEY", "only for benchmarks")
os.environ.setdefault("ALLOWED_HOSTS", "localhost")

if os.environ.get("BENCHMARKS_QUICK") and "BENCHMARKS_HOME" not in os.environ:
    # Registered before the embedded server's own end, and so run after it.
    os.environ["BENCHMARKS_HOME"] = tempfile.mkdtemp(prefix="fly2any-bench-")
    atexit.register(shutil.rmtree, os.environ["BENCHMARKS_HOME"], ignore_errors=True)
    Path(os.environ["BENCHMARKS_HOME"]).chmod(0o711)  # For root, the server runs as another user, who needs access.

from fly2any.settings import *
from fly2any.settings import BASE_DIR, DATABASES, embedded_database

DEBUG = False
SECOND_FACTOR = False

if os.environ["POSTGRES_URL"]:
    DATABASES["default"]["POOL"] = None
else:
    HOME = Path(os.environ.get("BENCHMARKS_HOME", BASE_DIR / ".benchmarks"))
    DATABASES = {"default": embedded_database(HOME, max_wal_size="4GB", shared_buffers="512MB")}
    DATABASES["default"]["POOL"] = {"min_size": 0, "max_size": 10, "timeout": 10}  # As in production, for `load`.
