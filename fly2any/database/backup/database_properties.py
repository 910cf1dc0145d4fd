"""Privileges and settings of the database itself: a dump has them, and pg_restore restores them only with the database.

toc_entries.py decides what else is left out.
"""

from __future__ import annotations

import re
from io import FileIO
from pathlib import Path

from . import tools
from .script import NAME, statements_of
from .toc_entries import entries_in, listed

OF_DATABASE = re.compile(r"(DATABASE PROPERTIES - |ACL - DATABASE )")
PRIVILEGES = re.compile(rf"(?:GRANT|REVOKE)(?:[ ,]+{NAME})+")
LIMIT = re.compile(rf"ALTER DATABASE {NAME} CONNECTION LIMIT = \d+")
# Without its value, which may be a secret.
SETTING = re.compile(rf"(ALTER (?:DATABASE {NAME}|ROLE {NAME} IN DATABASE {NAME}) SET {NAME} TO) .+", re.DOTALL)


def unrestored(program: Path, dump: FileIO, work: Path) -> list[str]:
    """Return the statements that give a database the privileges and settings of the dump's, read with the pg_restore at `program`."""
    privileges: list[str] = []
    settings: list[str] = []
    for entry in entries_in(tools.read(program, dump, "--create", "--list") or ""):
        if found := OF_DATABASE.match(entry.text):
            contents = listed([entry.number], work / "properties")
            script = tools.read(program, dump, "--create", f"--use-list={contents}", "--file=-") or ""
            for statement in statements_of(script):
                if found[0].startswith("ACL"):
                    privileges += [f"{statement};"] if PRIVILEGES.fullmatch(statement) else []
                elif LIMIT.fullmatch(statement):
                    settings.append(f"{statement};")
                elif setting := SETTING.fullmatch(statement):
                    settings.append(f"{setting[1]} …;")
    return [*privileges, *settings]
