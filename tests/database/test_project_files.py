"""Work on the project's own files, in a copy: squashing migrations, changing the schema, deploying."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import PROJECT
from tests.database.sites import catalog

APPS = ("accounts", "travel", "engagement", "ai_consultant", "administration")
PARTS = ("manage.py", "Makefile", "requirements.txt", "fly2any", "accounts", "travel", "engagement", "ai_consultant")


@pytest.fixture
def copy(tmp_path_factory, database):
    """A copy of the project, and a function that runs its commands on an empty database."""
    tmp_path = tmp_path_factory.mktemp("copy")
    for name in PARTS:
        (shutil.copytree if (PROJECT / name).is_dir() else shutil.copy)(PROJECT / name, tmp_path / name)
    given = {"POSTGRES_URL": database.url, "SECRET_KEY": "only for tests", "ALLOWED_HOSTS": "localhost"}

    def run(*words):
        environment = {**os.environ, **given, "DJANGO_SETTINGS_MODULE": "fly2any.settings"}
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    run.folder = tmp_path
    return run


def blocks(page, language):
    """The code of a page, each block without the indentation that its list gives it."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", (PROJECT / "docs" / "how-to" / page).read_text(), re.M | re.S)
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


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


@pytest.mark.slow
def test_the_steps_of_changing_the_schema_leave_nothing_for_makemigrations(copy, database):
    field, index, migration = blocks("change-the-schema.md", "python")
    models = copy.folder / "travel" / "models.py"
    source = models.read_text().replace("    name = models.TextField()\n", f"    name = models.TextField()\n    {field}", 1)
    models.write_text(source)
    made = copy("makemigrations", "travel", "--name", "share_code")
    indented = "".join(f"            {line}\n" for line in f"{index.rstrip()},".splitlines())
    models.write_text(source.replace("        indexes = [\n", f"        indexes = [\n{indented}", 1))
    (copy.folder / "travel" / "migrations" / "0007_share_code_index.py").write_text(migration)

    checked, migrated = copy("makemigrations", "--check"), copy("migrate", "-v0")

    assert (made.returncode, "travel/migrations/0006_share_code.py" in made.stdout) == (0, True)
    assert (checked.returncode, checked.stdout, checked.stderr[-600:]) == (0, "No changes detected\n", "")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert database.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = '\"saved_searches_shareCode_idx\"'::regclass"
    ) == [(True,)]


@pytest.mark.slow
def test_a_later_deploy_creates_an_environment_beside_the_running_one(copy):
    """Without the packages themselves, and with a systemctl that says which environment it was called in."""
    programs = copy.folder / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text('#!/bin/sh\necho "$@" in $(readlink .venv) >>systemctl.log\n')
    (programs / "systemctl").chmod(0o755)
    _, first, _, later = blocks("deploy.md", "sh")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "MAKEFLAGS": "INSTALL=true"}

    def run(commands):
        subprocess.run(["sh", "-ec", commands], cwd=copy.folder, env=environment, check=True, capture_output=True)

    run(first)
    before = {path: path.stat().st_mtime_ns for path in (copy.folder / ".venv-1").rglob("*")}
    run(later)

    new = (copy.folder / ".venv").readlink().name
    assert (new != ".venv-1", (copy.folder / new / "bin" / "python").exists()) == (True, True)
    assert {path: path.stat().st_mtime_ns for path in (copy.folder / ".venv-1").rglob("*")} == before
    assert (copy.folder / "systemctl.log").read_text() == f"start fly2any-release in {new}\nrestart fly2any in {new}\n"
