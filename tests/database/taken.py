"""Backups as tests take them, and the rows to compare."""

import dataclasses
import hashlib
import json
import os

from fly2any.database.backup.manifest import PURPOSE, Manifest, Verdict, as_json
from fly2any.database.backup.signing import signature
from fly2any.database.progress import Progress
from tests.conftest import manage

X = hashlib.sha256(b"x").hexdigest()
KEY = "only for tests"  # The SECRET_KEY of commands in tests.


class RecordedProgress(Progress):
    """Keeps the reported sentences."""

    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


def run(database, *arguments, place, **environment):
    return manage(*arguments, url=database.url, BACKUP_LOCATION=place, **environment)


def described(origin, taken, *, state="good", **facts):
    """The manifest of a backup of `origin`, taken at that time, that holds nothing."""
    name = f"{origin.database}-{taken:%Y%m%dT%H%M%S.%fZ}"
    verdict = None if state == "unverified" else Verdict(taken, "18.6", "" if state == "good" else "cut short")
    manifest = Manifest(
        name, f"{name}.dump", taken, origin.database, "18.6", "18.6", "c", 1, X, "", (), (), (), (), {}, verdict,
        origin.cluster, oid=origin.oid, place=origin.place,
    )  # fmt: skip
    return dataclasses.replace(manifest, **facts)


def keep(place, *manifests):
    """Configure the folder `place` for backups, as a command would."""
    place.mkdir(exist_ok=True)
    for manifest in manifests:
        (place / manifest.file).write_text("x")
        (place / f"{manifest.name}.json").write_text(as_json(manifest))


def the_one(place):
    [path] = [path for path in sorted(os.listdir(place)) if path.endswith(".json")]
    return path.removesuffix(".json")


def change(place, /, *, signed=True, **facts):
    """Change the manifest of the one backup, and sign it as a command would, or leave it unsigned."""
    path = f"{place}/{the_one(place)}.json"
    with open(path) as file:
        data = json.load(file)
    changed = {key: value for key, value in (data | facts).items() if key != "signature"}
    if signed:
        changed["signature"] = signature(changed, purpose=PURPOSE, key=KEY)
    with open(path, "w") as file:
        json.dump(changed, file)
    return data


def rows(database):
    """Every row of every table of ours, as text."""
    tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return {name: sorted(database.execute(f'SELECT t::text FROM "{name}" AS t')) for (name,) in tables}


def databases(database):
    """The databases of this test: others run beside it."""
    return {name for (name,) in database.execute("SELECT datname FROM pg_database") if name.startswith(database.name)}
