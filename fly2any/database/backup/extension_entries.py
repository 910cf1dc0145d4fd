"""The entries of a dump that extensions have: what a restore leaves out with an extension, and what may belong to it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence

from ..errors import Refusal
from ..terminal_text import one_line
from ..units import few, plural
from .manifest import ROWS, Manifest
from .toc_entries import MINOR, NOTHING, SHOWN, Entry, LeftOut, as_listed, name_as_listed, without_owner

EXTENSION = "EXTENSION - "
# The rows of a table, and the value of a sequence.
DATA = {"TABLE DATA ": ROWS, "SEQUENCE SET ": "value of "}
PRIVILEGES = ("ACL ", "SECURITY LABEL ")
# Privileges on objects that every database has.
BUILT_IN = (
    "ACL pg_catalog ", "ACL information_schema ", "ACL - SCHEMA public ", "ACL - SCHEMA pg_catalog ", "ACL - SCHEMA information_schema ",
    "ACL - LANGUAGE ",
)  # fmt: skip


def data_of_extensions(entries: Sequence[Entry], owners: Collection[str]) -> dict[int, str]:
    """Return the entries with data of tables and sequences of extensions, by number, as "rows of cron.job".

    An extension's table has no entry in the dump, although the one with its rows depends on it.
    """
    return {one.number: _describe(one, owners) for one in _of_members(entries) if one.text.startswith(tuple(DATA))}


def unknown_extension(manifest: Manifest, name: str) -> Refusal:
    return Refusal(f"{manifest.name} does not have the extension {name}: omit --without-extension {shlex.quote(name)}.")


def find_extensions(entries: Sequence[Entry], manifest: Manifest, names: Sequence[str], without: LeftOut) -> LeftOut:
    """Return the extensions `names` with their comments, the data of their tables, and default privileges in their schemas.

    Raises Refusal if an object that is not in `without` depends on one of them.
    """
    if not names:
        return NOTHING
    texts = [as_listed(EXTENSION + name) for name in names]
    listed = {one.number: as_listed(one.text).rstrip() for one in entries}
    if unknown := [name for name, text in zip(names, texts, strict=True) if text not in listed.values()]:
        raise unknown_extension(manifest, unknown[0])
    chosen = {number for number, text in listed.items() if text in texts}
    omitted = set(chosen)
    while more := {one.number for one in entries if one.number not in omitted and omitted.intersection(one.needs)}:
        omitted |= more
    depending = [
        without_owner(one.text, manifest.owners)
        for one in entries
        if one.number in omitted - chosen and one.number not in without.entries and not MINOR.match(one.text)
    ]
    if depending:
        raise Refusal(
            f"{', '.join(names)} cannot be left out, because other objects in the backup need it:"
            f" {one_line(few(depending, SHOWN))}."
        )
    named = {one.number: without_owner(one.text, manifest.owners) for one in entries if one.number in omitted}
    for one in _of_members(entries):
        if (name := _registered(one, manifest)) and manifest.registered[name].extension in names:
            content = manifest.tables.get(name)
            rows = f" ({plural(content.rows, 'row')})" if content else ""
            named[one.number] = f"{_describe(one, manifest.owners)}{rows}"
    return LeftOut(named, frozenset(name for name, one in manifest.registered.items() if one.extension in names))


def uncertain(entries: Sequence[Entry], manifest: Manifest) -> list[Entry]:
    """Return the entries of objects of extensions of which the backup does not say which extension.

    These are privileges and, in manifests until 2026-11, the data of tables and sequences.
    """
    return [
        one
        for one in _of_members(entries)
        if (one.text.startswith(PRIVILEGES) and not one.text.startswith(BUILT_IN))
        or (one.text.startswith(tuple(DATA)) and not _registered(one, manifest))
    ]


def _of_members(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the entries that depend on an object without one: such as a member of an extension."""
    numbers = {one.number for one in entries}
    return (one for one in entries if one.needs and numbers.isdisjoint(one.needs))


def _registered(entry: Entry, manifest: Manifest) -> str | None:
    """Return the name in the manifest of the extension's table or sequence whose data an entry holds."""
    text = as_listed(entry.text)
    return next(
        (name for name in manifest.registered if text.startswith(tuple(f"{kind}{name_as_listed(name)} " for kind in DATA))),
        None,
    )


def _describe(entry: Entry, owners: Collection[str]) -> str:
    kind = next(kind for kind in DATA if entry.text.startswith(kind))
    return DATA[kind] + without_owner(entry.text, owners).removeprefix(kind).replace(" ", ".", 1)
