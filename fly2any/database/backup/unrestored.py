"""Privileges and settings of the database itself: a dump has them, and pg_restore restores them only with the database."""

from __future__ import annotations

import re
from pathlib import Path

from . import tools
from .entries import entries_in, listed

OF_DATABASE = re.compile(r"(DATABASE PROPERTIES - |ACL - DATABASE )")
PRIVILEGES = re.compile(r"^(?:GRANT|REVOKE) .+;$", re.MULTILINE)
LIMIT = re.compile(r"^ALTER DATABASE .+ CONNECTION LIMIT = \d+;$", re.MULTILINE)
# Without its value, which may be a secret.
SETTING = re.compile(r'^(ALTER (?:DATABASE|ROLE) .+? SET (?:"(?:[^"]|"")+"|[\w.]+) TO) ', re.MULTILINE)


def unrestored(program: Path, path: Path, work: Path) -> list[str]:
    """Return the statements that give a database the privileges and settings of the dump's, read with the pg_restore at `program`."""
    privileges: list[str] = []
    settings: list[str] = []
    for entry in entries_in(tools.read(program, path, "--create", "--list") or ""):
        if found := OF_DATABASE.match(entry.text):
            contents = listed([entry.number], work / "properties")
            script = tools.read(program, path, "--create", f"--use-list={contents}", "--file=-") or ""
            if found[0].startswith("ACL"):
                privileges += PRIVILEGES.findall(script)
            else:
                settings += [*LIMIT.findall(script), *(f"{setting} …;" for setting in SETTING.findall(script))]
    return [*privileges, *settings]
