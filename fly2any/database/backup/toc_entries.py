"""The entries of a dump's table of contents, and which of them a restore leaves out with the objects of other roles."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import Refusal
from ..schema.untrusted_code import our_tables
from ..terminal_text import one_line
from ..units import few
from .manifest import Manifest, home_of
from .row_hashes import Content

ENTRY = re.compile(r"(\d+); \d+ \d+ (.*)")
# A schema, or the privileges on one.
OF_SCHEMA = re.compile(r"(SCHEMA -|ACL - SCHEMA) ")
# Schemas that the dump creates, and the privileges on the one that a new database has.
IN_TEMPLATE = ("SCHEMA - ", "ACL - SCHEMA public ")
WITH_ROWS = re.compile(r"TABLE( DATA)? ")
# Before version 17, pg_dump puts the data of all large objects into one entry; they have no code.
LARGE_OBJECT = "BLOB - "
# The rows of materialized views are computed again, as their owners: unlike rows of tables, they can be later.
VIEW_DATA = "MATERIALIZED VIEW DATA "
MINOR = re.compile(r"(TABLE DATA|ACL|COMMENT|SEQUENCE SET|DEFAULT ACL) ")
# Default privileges, which only the role that will create the objects, its members and superusers may set.
DEFAULT_PRIVILEGES = re.compile(
    r"DEFAULT ACL .* DEFAULT PRIVILEGES FOR (?:TABLES|SEQUENCES|FUNCTIONS|TYPES|SCHEMAS|LARGE OBJECTS) (.+)"
)
TABLE = re.compile(r'"((?:[^"]|"")*)"\."((?:[^"]|"")*)"')
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its number, its text as `pg_restore --list` prints it, `TABLE public users owner`, and those it depends on."""

    number: int
    text: str
    needs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The objects that a restore leaves out: entries with their owners, by number, and tables by their names in the manifest."""

    entries: dict[int, str]
    tables: frozenset[str]

    def rest(self, tables: dict[str, Content]) -> dict[str, Content]:
        """Return the tables that are restored."""
        return {name: content for name, content in tables.items() if name not in self.tables}

    def __or__(self, other: LeftOut) -> LeftOut:
        return LeftOut(self.entries | other.entries, self.tables | other.tables)

    def __str__(self) -> str:
        named = [text for text in self.entries.values() if not MINOR.match(text)] or list(self.entries.values())
        return few(named, SHOWN)


NOTHING = LeftOut({}, frozenset())


def entries_in(listed: str) -> Iterator[Entry]:
    """Yield the entries that `pg_restore --list --verbose` prints."""
    entry = None
    for line in listed.split("\n"):  # Not splitlines(), which also splits at characters that a name may contain.
        if match := ENTRY.match(line):
            if entry:
                yield entry
            entry = Entry(int(match[1]), match[2])
        elif entry and line.startswith(";\tdepends on:"):
            entry = replace(entry, needs=tuple(map(int, line.partition(":")[2].split())))
    if entry:
        yield entry


def without_owner(entry: str, owners: Iterable[str]) -> str:
    """Return an entry as pg_restore prints it, "TABLE users my role", without its owner, which may be one of `owners`."""
    entry = "".join(letter if letter.isprintable() else "?" for letter in entry)
    ends = [f" {owner}" for owner in ("(no owner)", *sorted(owners, key=len, reverse=True)) if entry.endswith(f" {owner}")]
    return entry.removesuffix(ends[0]) if ends else entry.rpartition(" ")[0]


def view_of(entry: Entry, owners: Collection[str]) -> str:
    """Return the name of the materialized view whose rows an entry holds."""
    return without_owner(entry.text, owners).removeprefix(VIEW_DATA).replace(" ", ".", 1)


def describe_empty(view: str, reason: str) -> str:
    """Return a sentence about a materialized view that was not refreshed."""
    return (
        f"The materialized view {one_line(view)} is empty, because it could not be refreshed ({reason}): as its owner, run REFRESH"
        " MATERIALIZED VIEW."
    )


def find_left_out(entries: Sequence[Entry], manifest: Manifest, roles: Collection[str]) -> LeftOut:
    """Return the objects that belong to `roles`, and those that depend on them, as the dump records it.

    Raises Refusal if that is a table of ours or of another role: its rows are never left out.
    """
    if not roles:
        return NOTHING
    omitted = {one.number for one in entries if _belongs(one, roles, manifest.owners)}
    while more := {one.number for one in entries if one.number not in omitted and omitted.intersection(one.needs)}:
        omitted |= more
    ours = {f"{as_listed(home_of(manifest) or '')} {table}" for table in our_tables()}
    owners = [as_listed(owner) for owner in manifest.owners]
    texts = {one.number: without_owner(as_listed(one.text), owners) for one in entries if one.number in omitted}
    for one in entries:
        if one.number in omitted and (with_rows := WITH_ROWS.match(one.text)):
            name = texts[one.number].removeprefix(with_rows[0])
            if name in ours or not _belongs(one, roles, manifest.owners):
                raise Refusal(
                    f"Table {name.replace(' ', '.', 1)} cannot be left out with the objects of {', '.join(roles)}: it is a table of"
                    " Fly2Any, or of another role. Restore the backup with --trust instead."
                )
    tables = frozenset(name for name in manifest.tables if f"TABLE DATA {name_as_listed(name)}" in texts.values())
    return LeftOut(texts, tables)


def default_privileges(entries: Sequence[Entry], roles: Collection[str]) -> dict[int, str]:
    """Return the entries of default privileges, by number, with the role of `roles` whose objects they are for."""
    plain = {as_listed(role): role for role in roles}
    found = ((one.number, DEFAULT_PRIVILEGES.fullmatch(as_listed(one.text))) for one in entries)
    return {number: plain[match[1]] for number, match in found if match and match[1] in plain}


def _belongs(entry: Entry, roles: Collection[str], owners: Iterable[str]) -> bool:
    """Return whether the entry belongs to one of `roles`; raise Refusal if names of `owners` make that uncertain."""
    if entry.text.startswith(LARGE_OBJECT):
        return False
    matching = {owner for owner in owners if as_listed(entry.text).endswith(f" {as_listed(owner)}")}
    if matching - set(roles) and matching & set(roles):
        raise Refusal(
            f"Objects of {' and of '.join(sorted(matching))} cannot be distinguished, because one name ends with the other:"
            " restore the backup with --trust instead."
        )
    return bool(matching) and not matching - set(roles)


def as_listed(text: str) -> str:
    """Return `text` with "?" for each character that a listing may print differently, because of its encoding or as a line break."""
    return re.sub(r"[^ -~]+", "?", re.sub(r"[\r\n]", " ", text))


def name_as_listed(name: str) -> str:
    """Return the name of a table in a manifest, "schema"."name", as a listing has it: schema name."""
    match = TABLE.fullmatch(name)
    return as_listed(" ".join(part.replace('""', '"') for part in match.groups())) if match else ""


def of_schemas(entries: Sequence[Entry]) -> set[int]:
    """Return the numbers of the schemas and of the privileges on them, without those on a schema of an extension, which creates it."""
    numbers = {one.number for one in entries}
    return {
        one.number
        for one in entries
        if OF_SCHEMA.match(one.text) and (one.text.startswith(IN_TEMPLATE) or not numbers.isdisjoint(one.needs))
    }


def in_order(entries: Sequence[Entry], first: Collection[int], work: Path) -> Iterator[tuple[bool, Path]]:
    """Yield lists of the entries for pg_restore, as files in `work`: `first` the schemas and their privileges, then the rest.

    Each comes with whether it is the first. pg_restore grants privileges last, but a role that is to own a table must be allowed to create in its schema.
    """
    for name, is_first in (("schemas", True), ("rest", False)):
        yield is_first, listed([one.number for one in entries if (one.number in first) is is_first], work / name)


def listed(numbers: Iterable[int], path: Path) -> Path:
    """Write a list of entries for pg_restore to the file at `path`, and return it."""
    path.write_text("".join(f"{number};\n" for number in numbers), encoding="utf-8")
    return path
