"""The length of functions."""

import ast

from tests.conftest import PROJECT

MOST = 50  # Lines, with the docstring.


def test_no_function_is_longer_than_50_lines():
    long = {
        f"{path.relative_to(PROJECT)}: {node.name}": lines
        for package in ("fly2any", "accounts", "travel", "engagement", "ai_consultant")
        for path in (PROJECT / package).rglob("*.py")
        if "migrations" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := node.end_lineno - node.lineno + 1) > MOST
    }

    assert long == {}
