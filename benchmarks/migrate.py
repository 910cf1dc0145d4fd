"""a fresh `manage.py migrate` against psql running the same DDL"""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from django.core.management import call_command
from django.db import connection

from benchmarks.measure import child_seconds, show, sized
from fly2any.database.migration.ledger import known_migrations
from fly2any.database.scratch import scratch_database
from fly2any.postgres import embedded

ROUNDS = sized(5, 1)


def run():
    connection.ensure_connection()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "ddl.sql"
        script.write_text("".join(ddl(name) for name in known_migrations()))
        taken = {"ours": [], "psql": []}
        for _ in range(ROUNDS):
            for name, words in (("ours", [sys.executable, "manage.py", "migrate", "-v0"]), ("psql", psql_words(script))):
                with scratch_database(connection) as scratch:
                    taken[name].append(child_seconds(lambda words=words, scratch=scratch: command(words, scratch)))
    for place, what in enumerate(("wall time", "processor time of the client")):
        ours, peer = (sorted(times[place] for times in taken[name])[ROUNDS // 2] for name in ("ours", "psql"))
        show(what, ours, peer, "psql")


def ddl(name):
    out = io.StringIO()
    try:
        call_command("sqlmigrate", *name.split("."), stdout=out, stderr=io.StringIO())
    except Exception as error:
        raise RuntimeError(f"sqlmigrate {name}") from error
    return out.getvalue() + "\n"


def psql_words(script):
    return [str(embedded.bin_folder() / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(script)]


def command(words, scratch):
    settings = scratch.settings_dict
    url = f"postgresql://{settings['USER']}@/{settings['NAME']}?host={settings['HOST']}"
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "fly2any.settings",
        "POSTGRES_URL": url,
        "PGHOST": settings["HOST"],
        "PGUSER": settings["USER"],
        "PGDATABASE": settings["NAME"],
    }
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
