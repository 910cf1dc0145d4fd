"""Queries without quoted values, long numbers and comments, which may be personal data, for messages, findings and logs.

`errors.without_password` removes passwords from a text, and fly2any/postgres/error_text.py values of rows from an error.
"""

from __future__ import annotations

import re

# Literals and comments, also those that are cut off.
QUOTED = re.compile(
    r"(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|$)|'(?:[^']|'')*(?:'|$)|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|$)|--[^\n]*|/\*.*$|\"[^\"]*(?:\"|$)",
    re.S,
)

NUMBER = re.compile(r"(?<![\w$])\d{4,}(?:\.\d+)?")  # It may be a telephone number.


def without_literals(query: str) -> str:
    """Return the beginning of a query, in one line, without what may be personal data: quoted values, comments, and numbers of four
    or more digits. Quoted identifiers stay.
    """
    query = " ".join(QUOTED.sub(_shown, query).split())
    query = NUMBER.sub("…", query)
    return query if len(query) <= 100 else f"{query[:99]}…"


def _shown(match: re.Match[str]) -> str:
    # Comments can be nested, so the text is cut at the first.
    return {'"': match[0], "-": " ", "/": " "}.get(match[0][0], "'…'")
