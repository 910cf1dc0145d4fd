"""A number and its noun agree in what is printed and shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("fly2any", "accounts", "travel", "engagement", "ai_consultant")
NOUN = re.compile(r" ((?!of|as|is|was|has)[a-z]+ ){0,2}?(?!is |as |was |has |its |this )[a-z]+[^s]s\b")


def is_number(value: ast.FormattedValue) -> bool:
    """Return whether a part of an f-string is the number of something: a length, or formatted with commas."""
    spec = ast.unparse(value.format_spec) if value.format_spec else ""
    what = ast.unparse(value.value)
    return not what.isupper() and (what.startswith("len(") or bool(re.search(r"\d*,d?'$", spec)))


def test_a_number_is_printed_with_its_noun_by_plural():
    found = []
    for package in PACKAGES:
        paths = (path for path in (PROJECT / package).rglob("*.py") if "postgres" not in path.parts)  # It cannot import plural.
        for path in paths:
            for text in ast.walk(ast.parse(path.read_text())):
                if isinstance(text, ast.JoinedStr):
                    for part, after in zip(text.values, text.values[1:], strict=False):
                        number = isinstance(part, ast.FormattedValue) and isinstance(after, ast.Constant) and is_number(part)
                        if number and (match := NOUN.match(str(after.value))):
                            found.append(f"{path.relative_to(PROJECT)}:{text.lineno}:{match[0]}")

    assert found == []
