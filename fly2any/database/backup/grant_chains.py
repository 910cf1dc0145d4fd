"""Privileges that a role granted to others, having received them WITH GRANT OPTION: pg_restore restores these only as a superuser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from django.db import transaction

from ..errors import Refusal
from ..sql import execute
from . import tools
from .owners import memberships, unavailable
from .script import NAME, plain, statements_of
from .toc_entries import Entry, listed

OF_PRIVILEGES = re.compile(r"ACL ")
GRANTED_BY = re.compile(rf"SET SESSION AUTHORIZATION ({NAME})")


@dataclass(frozen=True, slots=True)
class Chain:
    """An entry of a dump with such privileges: its number, the roles that granted them, and its statements."""

    number: int
    grantors: frozenset[str]
    script: str


def find_chains(program: Path, dump: FileIO, entries: Sequence[Entry], work: Path) -> list[Chain]:
    """Return the entries with such privileges in the dump, read with the pg_restore at `program`."""
    found = [one for one in entries if OF_PRIVILEGES.match(one.text)]
    if not any(map(GRANTED_BY.fullmatch, statements_of(_script(program, dump, found, work)))):
        return []
    return [chain for one in found if (chain := _chain(one, _script(program, dump, [one], work))).grantors]


def require_grantors(connection, chains: Iterable[Chain]) -> None:
    """Raise Refusal if the role of `connection` may not act as the roles that granted privileges."""
    grantors = sorted({name for chain in chains for name in chain.grantors})
    if names := unavailable(connection, grantors):
        grants = memberships(connection, names)
        cure = f", or run {' '.join(grants)}" if len(grants) == len(names) else "."  # Not in a superuser.
        raise Refusal(
            f"Privileges in the backup were granted by {', '.join(names)}, which this role may not act as: connect as a superuser{cure}"
        )


def grant(connection, chains: Iterable[Chain]) -> None:
    """Grant the privileges as the roles that granted them."""
    for chain in chains:
        with transaction.atomic(using=connection.alias):
            execute(connection, chain.script)


def _script(program: Path, dump: FileIO, entries: Iterable[Entry], work: Path) -> str:
    """Return the statements of some entries."""
    contents = listed([one.number for one in entries], work / "privileges")
    return tools.read(program, dump, f"--use-list={contents}", "--file=-") or ""


def _chain(entry: Entry, script: str) -> Chain:
    grantors, statements = set(), []
    for statement in statements_of(script):
        if granted_by := GRANTED_BY.fullmatch(statement):
            grantors.add(plain(granted_by[1]))
            statements.append(f"SET ROLE {granted_by[1]}")
        elif statement == "RESET SESSION AUTHORIZATION":
            statements.append("RESET ROLE")
        elif statement.startswith(("GRANT ", "REVOKE ")):
            statements.append(statement)
    return Chain(entry.number, frozenset(grantors), ";\n".join(statements))
