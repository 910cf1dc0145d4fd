"""What the process that commands are forked from has imported: Django, set up as for a server of one's own."""

import gc
import os
import sys
from importlib import import_module
from pathlib import Path

import django
from django.core.management import get_commands, load_command_class
from django.db.migrations.loader import MigrationLoader

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
for name in [name for name in os.environ if name.startswith(("POSTGRES_", "DATABASE_", "DIRECT_", "DJANGO_"))]:
    del os.environ[name]
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "fly2any.settings",
    "POSTGRES_URL": "postgresql://nobody@/nothing?host=/nowhere",
    "SECRET_KEY": "only for tests",
    "ALLOWED_HOSTS": "localhost",
}
django.setup()
for name, app in get_commands().items():
    if app == "fly2any.database" or name in ("makemigrations", "check", "showmigrations"):
        load_command_class(app, name)
import_module("fly2any.urls")
import_module("tests.cheap_hashes").use()
MigrationLoader(None)  # Imports all migrations.
import_module("fly2any.database.schema.contract").load()
gc.collect()
gc.freeze()  # So that garbage collection in a fork does not copy shared pages.
