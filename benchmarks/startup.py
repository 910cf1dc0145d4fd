"""processor time of commands against a bare Django project with the same packages"""

import os
import subprocess
import sys
from functools import partial

from django.conf import settings
from django.db import connection

from benchmarks import bare
from benchmarks.measure import child_seconds, rounds, show, sized
from fly2any.database.scratch import scratch_database

ROUNDS = sized(9, 1)
OURS = ("fly2any", "accounts", "travel", "engagement", "ai_consultant")
AIM = "≤ 1.3"
# Name → our command and the bare project's.
COMMANDS = {
    "no command: `--version`": (["--version"], ["--version"]),
    "`migrate` with nothing to do": (["migrate", "-v0"], ["migrate", "-v0"]),
    "`dbstatus` (bare: `showmigrations`)": (["dbstatus"], ["showmigrations"]),
    "`migrate` of an empty database (bare: fewer tables)": (["migrate", "-v0"], ["migrate", "-v0"]),
}
EMPTY = "`migrate` of an empty database (bare: fewer tables)"


def run():
    packages = {app for app in settings.INSTALLED_APPS if not app.startswith(OURS)} | {"django.contrib.admin"}
    assert packages == set(bare.INSTALLED_APPS), "benchmarks/bare.py has other packages than settings.py."
    connection.ensure_connection()
    with scratch_database(connection) as ours, scratch_database(connection) as theirs:
        for module, scratch in (("fly2any.settings", ours), ("benchmarks.bare", theirs)):
            command(module, ["migrate", "-v0"], scratch)
        for what, (words, others) in COMMANDS.items():
            sides = {"ours": ("fly2any.settings", words, ours), "bare": ("benchmarks.bare", others, theirs)}
            taken = rounds(ROUNDS, **{name: partial(measured, *side, fresh=what == EMPTY) for name, side in sides.items()})
            show(what, taken["ours"], taken["bare"], "bare Django", AIM if what != EMPTY else "")


def measured(module, words, scratch, *, fresh):
    """Return the processor seconds of a command on `scratch`, or, `fresh`, on an empty database."""
    if not fresh:
        return child_seconds(lambda: command(module, words, scratch))[1]
    with scratch_database(connection) as empty:
        return child_seconds(lambda: command(module, words, empty))[1]


def command(module, words, scratch):
    place = scratch.settings_dict
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": module,
        "POSTGRES_URL": f"postgresql://{place['USER']}@/{place['NAME']}?host={place['HOST']}",
        "PGHOST": place["HOST"],
        "PGUSER": place["USER"],
        "PGDATABASE": place["NAME"],
    }
    program = ["manage.py"] if module == "fly2any.settings" else ["-m", "django"]
    subprocess.run([sys.executable, *program, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
