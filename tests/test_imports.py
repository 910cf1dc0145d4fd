"""Imports go down only: engagement, ai_consultant → travel → accounts → fly2any.administration → fly2any.database → fly2any.postgres."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
BELOW_THE_APPS = {"fly2any.postgres", "fly2any.database", "fly2any.administration"}
LAYERS = {  # What each package may import, besides itself.
    "fly2any.postgres": set(),
    "fly2any.administration": {"fly2any.postgres", "fly2any.database"},
    "fly2any.database": {"fly2any.postgres"},
    "accounts": BELOW_THE_APPS,
    "travel": {*BELOW_THE_APPS, "accounts"},
    "engagement": {*BELOW_THE_APPS, "accounts", "travel"},
    "ai_consultant": {*BELOW_THE_APPS, "accounts", "travel"},
}


def room_of(module):
    return next((room for room in LAYERS if module == room or module.startswith(f"{room}.")), None)


def imported(path):
    package = list(path.relative_to(PROJECT).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", LAYERS)
def test_a_package_imports_only_lower_ones(room):
    files = [path for path in (PROJECT / room.replace(".", "/")).rglob("*.py") if "migrations" not in path.parts]
    assert files

    upwards = {
        (str(path.relative_to(PROJECT)), module)
        for path in files
        for module in imported(path)
        if room_of(module) not in (None, room, *LAYERS[room])
    }

    assert upwards == set()


def modules_of_the_database():
    """What each module of fly2any.database imports of the others when it is imported."""
    folder = PROJECT / "fly2any" / "database"
    names = {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    return {
        name: {module for module in imported(path) if module in names and not f"{name}.".startswith(f"{module}.")}
        for name, path in names.items()
    }


def part_of(module):
    """The package, or the module, of fly2any.database that `module` is in."""
    return module.split(".")[2] if module.count(".") > 1 else ""


def test_each_package_of_the_database_is_entered_from_above_only():
    parts = {}
    for name, needs in modules_of_the_database().items():
        parts.setdefault(part_of(name), set()).update({part_of(one) for one in needs} - {part_of(name), ""})

    order = [*TopologicalSorter(parts).static_order()]  # Raises CycleError.

    assert order.index("schema") < order.index("migration") < order.index("verification") < order.index("report")


def test_no_module_of_the_database_is_imported_by_what_it_imports():
    order = [*TopologicalSorter(modules_of_the_database()).static_order()]  # Raises CycleError.

    assert "fly2any.database.verification" in order


@pytest.mark.slow
def test_the_tests_need_nothing_but_requirements_txt():
    """`make test` installs no more; what else a test needs it asks for itself, and skips without."""
    pinned = {
        re.split(r"[=\\[]", line)[0].lower().replace("_", "-")
        for line in (PROJECT / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    given, needed = importlib.metadata.packages_distributions(), set()
    for path in (PROJECT / "tests").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            needed |= {name.partition(".")[0] for name in names}
    others = {name for name in needed - sys.stdlib_module_names if not (PROJECT / name).exists()}

    assert "django" in others
    assert {name for name in others if pinned.isdisjoint(one.lower().replace("_", "-") for one in given[name])} == set()


ONLY_WHERE_NEEDED = {
    "boto3", "cryptography", "fly2any.administration.site", "fly2any.database.backup.restore", "fly2any.database.health.security", "gunicorn", "OpenSSL",
    "prometheus_client", "rich", "segno", "webauthn.registration", "whitenoise",
}  # fmt: skip


@pytest.mark.parametrize("words", [["dbstatus"], ["migrate"]])
def test_a_command_imports_nothing_that_only_pages_or_other_commands_need(url, words):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "manage.py", *words],
        cwd=PROJECT, env={**os.environ, "POSTGRES_URL": url, "DJANGO_SETTINGS_MODULE": "fly2any.settings"}, capture_output=True, text=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}

    assert done.returncode == 0, done.stdout
    assert {"django.db", "fly2any.database.errors"} <= imported
    assert imported & ONLY_WHERE_NEEDED == set()


def test_imported_objects_are_excluded_from_garbage_collection(url):
    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v0", "-c", "import gc; print(gc.isenabled(), gc.get_freeze_count() > 50_000)"],
        cwd=PROJECT, env={**os.environ, "POSTGRES_URL": url, "DJANGO_SETTINGS_MODULE": "fly2any.settings"}, capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout == "True True\n", done.stderr
