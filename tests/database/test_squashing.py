"""Squashing the migrations of our apps, as Django's command does it, and migrating from what it wrote."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import PROJECT
from tests.database.sites import catalog

APPS = ("accounts", "travel", "engagement", "ai_consultant", "administration")
PARTS = ("manage.py", "fly2any", "accounts", "travel", "engagement", "ai_consultant")


@pytest.fixture
def copy(tmp_path, database):
    """A copy of the project, and a function that runs its commands on an empty database."""
    for name in PARTS:
        (shutil.copytree if (PROJECT / name).is_dir() else shutil.copy)(PROJECT / name, tmp_path / name)
    given = {"POSTGRES_URL": database.url, "SECRET_KEY": "only for tests", "ALLOWED_HOSTS": "localhost"}

    def run(*words):
        environment = {**os.environ, **given, "DJANGO_SETTINGS_MODULE": "fly2any.settings"}
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_every_app_can_be_squashed_and_migrated_from_that(copy, database, migrated):
    for app in APPS:
        last = sorted(path.stem for path in next(PROJECT.rglob(f"{app}/migrations")).glob("0*.py"))[-1]
        squashed = copy("squashmigrations", app, last, "--noinput")
        assert (squashed.returncode, squashed.stderr) == (0, ""), squashed.stderr
        assert "Manual porting required" not in squashed.stdout, squashed.stdout
    result = copy("migrate", "-v1")

    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert catalog(database) == catalog(migrated)
