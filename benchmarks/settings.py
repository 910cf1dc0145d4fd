"""Settings of the benchmarks: a server of their own in `.benchmarks`, kept, whatever URL is set."""

import os

os.environ["POSTGRES_URL"] = os.environ["DATABASE_URL"] = ""
os.environ["POSTGRES_URL_NON_POOLING"] = os.environ["DIRECT_URL"] = ""
os.environ.setdefault("SECRET_KEY", "only for benchmarks")
os.environ.setdefault("ALLOWED_HOSTS", "localhost")

from fly2any.settings import *
from fly2any.settings import BASE_DIR, embedded_database

DEBUG = False
SECOND_FACTOR = False

DATABASES = {"default": embedded_database(BASE_DIR / ".benchmarks", max_wal_size="4GB", shared_buffers="512MB")}
DATABASES["default"]["POOL"] = {"min_size": 0, "max_size": 10, "timeout": 10}  # As in production, for `load`.
