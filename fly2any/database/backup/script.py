"""The statements of a script of pg_restore, in which roles choose names, comments, values and the bodies of functions."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A name, qualified or not. Possessive: names of many quotation marks are read in one way only.
NAME = r'(?:"(?:[^"]|"")++"|[\w.])++'
# The parts of a script: quoted text, which may contain anything, and the ends of statements.
PARTS = re.compile(
    r"""(?P<text>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|[^;'"$eE]+|[$eE])|(?P<end>;)""",
    re.DOTALL,
)
# Comments, and psql's commands.
ASIDE = re.compile(r"\s*(?:--|\\)[^\n]*")


def statements_of(script: str) -> Iterator[str]:
    """Yield the statements. What a role chose may look like statements, also on lines of its own."""
    statement, place = "", 0
    while place < len(script):
        if not statement and (aside := ASIDE.match(script, place)):
            place = aside.end()
            continue
        part = PARTS.match(script, place)
        if part is None:  # A quotation without an end: nothing after it can be relied on.
            return
        place = part.end()
        if part["end"]:
            yield statement.strip()
            statement = ""
        else:
            statement = (statement + part["text"]).lstrip()


def plain(identifier: str) -> str:
    """Return the name that an identifier of a script stands for."""
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier
