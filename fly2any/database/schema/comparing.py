"""The state of a comparison of a catalogue with the contract, and its findings; tables.py, columns.py and constraints_and_indexes.py decide what
counts as a finding."""

from __future__ import annotations

from itertools import takewhile

from ..findings import Finding, Severity
from .expressions_on_server import Live
from .objects import PARTITIONED, Catalog, Check, Column, ForeignKey, Index, Key, Object, Table, where

TITLES = {Check: "Check", ForeignKey: "Foreign key", Index: "Index", Column: "Column"}

# Why a script renames no column back: it may be another program's, of the same type. A gap in attnum would show that ours was
# dropped, but a restore closes the gaps.
MAY_BE_ANOTHERS = "it may belong to another program; check its values first"


def asked_first(kind: str, name: str) -> str:
    """Return why a script does not rename what has a name of ours; "" for an index, which no program calls by its name."""
    return (
        "" if kind == "INDEX" else f"it renames the {kind.lower()} {name}, which another program may use: ask its owner first"
    )


def folded(name: str) -> str:
    """Return a name as it compares with that of a tool that writes names in lower case or in snake_case."""
    return name.replace("_", "").lower()


class Comparing:
    """Renamed objects get their names back in `actual`, so that dependent objects are not reported too."""

    def __init__(self, expected: Catalog, actual: Catalog, pending: Catalog, live: Live | None):
        self.live = live
        self.expected = expected
        self.pending = pending
        self.actual = actual
        self.findings: list[Finding] = []
        self.bad: set[Object] = set()  # Objects of the contract that are missing or different.
        self.replaced: set[str] = set()  # Names of missing tables whose cure is not run unread.
        self.freed: set[str] = set()  # Names that no object has any more after the cures of what is compared before.
        self.claimed: set[Object] = set()  # Objects of the live catalogue that are ours, perhaps under another name.

    def add(
        self, code: str, thing: Object, message: str, cure: str, severity: Severity = Severity.ERROR, *, loses: str = ""
    ) -> None:
        self.findings.append(Finding(severity, code, where(thing), message, cure, is_sql=True, loses=loses))

    def referring(self, key: Key) -> list[ForeignKey]:
        """Return the foreign keys that refer to a key, other than those of other roles' tables, which are in its `used_by`."""
        strangers = self.strangers()
        same = (fk for fk in self.actual.foreign_keys if fk.target == key.table and fk.target_columns == key.columns)
        return [fk for fk in same if fk.table not in strangers]

    def strangers(self) -> dict[str, str]:
        """Return the tables of roles that are not trusted, and these: a statement that reads or rewrites one may run its owner's code."""
        return {one.name: one.owner for one in self.actual.tables if one.kind in ("table", PARTITIONED) and not one.trusted}


def title(thing: Object) -> str:
    if isinstance(thing, Table):
        return f"{thing.kind.capitalize()} {thing.name}"
    if isinstance(thing, Check) and not thing.expression.startswith("CHECK "):
        return f"Exclusion constraint {thing.name} of {thing.table}"
    kind = ("Primary key" if thing.primary else "Unique constraint") if isinstance(thing, Key) else TITLES[type(thing)]
    return f"{kind} {thing.name} of {thing.table}"


def contrasted(found: str, wanted: str) -> tuple[str, str]:
    """Return two definitions as a message names them: long ones only from where they begin to differ."""
    texts = [" ".join(text.split()) for text in (found, wanted)]
    if max(map(len, texts)) <= 240:
        return texts[0], texts[1]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    begin = max(len([*same]) - 30, 0)
    parts = [f"{'…' if begin else ''}{text[begin : begin + 90]}{'…' if len(text) > begin + 90 else ''}" for text in texts]
    return parts[0], parts[1]
