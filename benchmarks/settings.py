"""Settings of the benchmarks: a server of their own in `.benchmarks`, kept, or the one of POSTGRES_URL in the environment."""

import os

os.environ.setdefault("POSTGRES_URL", os.environ.setdefault("DATABASE_URL", ""))
os.environ.setdefault("SECRET_KEY", "only for benchmarks")
os.environ.setdefault("ALLOWED_HOSTS", "localhost")

from fly2any.settings import *
from fly2any.settings import BASE_DIR, DEVELOPMENT, embedded_database

DEBUG = False

if DEVELOPMENT:
    DATABASES = {"default": embedded_database(BASE_DIR / ".benchmarks", max_wal_size="4GB", shared_buffers="512MB")}
