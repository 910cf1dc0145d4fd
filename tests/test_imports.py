"""Imports go down only: engagement, ai_consultant → travel → accounts → fly2any.postgres."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LAYERS = {  # What each room may import, besides itself.
    "fly2any.postgres": set(),
    "fly2any.administration": {"fly2any.postgres", "fly2any.database"},
    "fly2any.database": {"fly2any.postgres"},
    "accounts": {"fly2any.postgres", "fly2any.administration"},
    "travel": {"fly2any.postgres", "fly2any.administration", "accounts"},
    "engagement": {"fly2any.postgres", "fly2any.administration", "accounts", "travel"},
    "ai_consultant": {"fly2any.postgres", "fly2any.administration", "accounts", "travel"},
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
def test_a_room_imports_only_what_is_below_it(room):
    files = [path for path in (PROJECT / room.replace(".", "/")).rglob("*.py") if "migrations" not in path.parts]
    assert files

    upwards = {
        (str(path.relative_to(PROJECT)), module)
        for path in files
        for module in imported(path)
        if room_of(module) not in (None, room, *LAYERS[room])
    }

    assert upwards == set()
