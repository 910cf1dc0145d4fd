"""Findings about unmanaged tables whose foreign keys prevent the deletion or a change of our rows, or could."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..findings import Finding, Severity
from ..sql import quote
from .expressions import CONSTANT
from .expressions_on_server import Live
from .objects import Catalog, Table
from .unmanaged_findings import AGREE

READ = "Read its definition with \\d+ in `manage.py dbshell`."


def of_references(expected: Catalog, actual: Catalog, live: Live | None) -> Iterator[Finding]:
    """Yield the findings about the foreign keys of unmanaged tables that a DELETE from a table of ours reaches by cascades.

    What is behind a cascade concerns every table of ours that reaches it: it is reported once.
    """
    ours = {one.name for one in expected.tables}  # Foreign keys of our own tables are compared with the contract.
    there = {one.name for one in actual.tables}
    readable = {one.name for one in actual.tables if one.trusted and one.readable}
    managed = {(one.table, one.name) for one in expected.columns}
    found: dict[tuple[str, ...], Finding | None] = {}

    def is_reported(table: Table, place: str, target: str) -> bool:
        bare, kept = place.strip('"'), target.strip('"')
        renamed = "." not in place and bare not in there
        return not (bare in ours or renamed or (kept != table.name and kept in ours))

    def objects(table: Table, target: str, columns: str) -> str:
        """Return the rows, or with `columns` the columns, whose deletion or change a key follows or prevents; "" if we change none."""
        changed = [f"{table.name}.{one}" for one in columns.split(", ") if (table.name, one) in managed]
        if not columns:
            return _rows(table, target)
        return ", ".join(changed)

    for table in (one for one in actual.tables if one.name in ours):
        for place, name, definition, target, required, owner in table.kept_by:
            if is_reported(table, place, target):
                found[place, name] = _keeps(table, place, name, definition, target, required, owner)
        for place, name, definition, target, columns, owner in table.fixed_by:
            kept = objects(table, target, columns)
            if kept and is_reported(table, place, target):
                why = "" if columns else f": the deletions change the columns of {target} that it refers to"
                message = f"Foreign key {name} of {place} is unmanaged, and prevents {_event(kept, columns)}{why}."
                cure = _asked(owner, _again(place, name, definition))
                found[place, name, columns] = Finding(
                    Severity.WARNING, "foreign_key.restricts", _where(place, name), message, cure
                )
        for met in table.met:
            place, name, target, kind, what, *_, columns = met
            kept = objects(table, target, columns)
            if kept and is_reported(table, place, target):
                found[place, name, kind, what, columns] = _meets(_Met(*met, kept), live, readable)
    yield from filter(None, found.values())


def _keeps(table: Table, place: str, name: str, definition: str, target: str, required: str, owner: str) -> Finding:
    alter = f"ALTER TABLE {place}"
    if required:
        why = f": it would set NULL in {required}, which may not be NULL"
        cure = AGREE + " ".join(f"{alter} ALTER COLUMN {quote(one)} DROP NOT NULL;" for one in required.split(", "))
    else:
        why, cure = "", _asked(owner, _again(place, name, definition))
    message = f"Foreign key {name} of {place} is unmanaged, and prevents {_event(_rows(table, target))}{why}."
    return Finding(Severity.WARNING, "foreign_key.restricts", _where(place, name), message, cure)


def _asked(owner: str, cure: str) -> str:
    """Return a cure that reads or rewrites a table of `owner`, "" for a role whose code may run as the one that follows it.

    SET ROLE would not do: the code could reset it.
    """
    return (
        f"Ask its owner to connect as {owner} and run this, because it runs that role's code: {cure}"
        if owner
        else f"{AGREE}{cure}"
    )


def _again(place: str, name: str, definition: str) -> str:
    """Return the statement that lets a foreign key follow deletions and changes of the rows that it refers to."""
    kept = definition
    for event in ("UPDATE", "DELETE"):
        kept = re.sub(rf" ON {event} (RESTRICT|NO ACTION)", "", kept)
        if f" ON {event} " not in kept:
            kept = re.sub(r"^(FOREIGN KEY \(.*?\) REFERENCES .*?\(.*?\))", rf"\1 ON {event} CASCADE", kept)
    return f"ALTER TABLE {place} DROP CONSTRAINT {quote(name)}, ADD CONSTRAINT {quote(name)} {kept};"


@dataclass(frozen=True, slots=True)
class _Met:
    """An element of Table.met, and the rows or columns whose deletion or change it may prevent, such as users.email."""

    place: str
    name: str
    target: str
    kind: str
    what: str
    own: str
    column: str
    owner: str
    columns: str
    kept: str

    @property
    def event(self) -> str:
        if self.columns:
            return f"{self.kept} {'are' if ',' in self.kept else 'is'} changed"
        return f"{self.kept}{',' if ',' in self.kept else ''} are deleted"

    def warning(self, why: str, cure: str) -> Finding:
        return self._finding(Severity.WARNING, f"prevents {_event(self.kept, self.columns)}: {why}.", cure)

    def note(self, does: str) -> Finding:
        return self._finding(Severity.NOTE, f"{does}.", READ)

    def _finding(self, severity: Severity, does: str, cure: str) -> Finding:
        message = f"Foreign key {self.name} of {self.place} is unmanaged, and {does}"
        return Finding(severity, "foreign_key.restricts", _where(self.place, self.name), message, cure)


def _meets(met: _Met, live: Live | None, readable: set[str]) -> Finding | None:
    """Return the finding about what the rows that a foreign key refers from meet when it deletes or changes them."""
    if met.kind == "trigger":
        message = f"Trigger {met.what} of {met.place} runs through foreign key {met.name} when {met.event}, and was not tried; it may prevent that."
        return Finding(Severity.NOTE, "trigger.extra", _where(met.place, met.what), message, READ)
    if met.kind == "check":
        return _of_check(met)
    if met.kind == "default":
        return _of_default(met, live, readable)
    return _of_obstacle(met) or _of_condition(met)


def _of_check(met: _Met) -> Finding:
    check, _, condition = met.what.partition(" CHECK ")
    if met.own == "n" and re.fullmatch(r'\(+("[^"]+"|\w+) IS NOT NULL\)+( NOT VALID)?', condition):
        cure = f"{AGREE}ALTER TABLE {met.place} DROP CONSTRAINT {quote(check)};"
        return met.warning(f"it would set NULL, which the table's check {check} refuses", cure)
    does = f"changes rows of {met.place}" if met.own == "c" else "sets NULL"
    return met.note(f"{does} when {met.event}; the table's check {check} may refuse that: {condition}")


def _of_default(met: _Met, live: Live | None, readable: set[str]) -> Finding | None:
    """Return the finding about a default that is set instead, None if the referenced table has a row for it.

    Only `readable` tables are queried: planning a query of another runs its owner's code.
    """
    if met.what.startswith("NULL::"):
        return None
    target = met.target.strip('"')
    known = met.column and CONSTANT.fullmatch(met.what) and target in readable
    there = live.has_row(target, {met.column: met.what}) if live is not None and known else None
    if there:
        return None
    if there is False:
        cure = f"{AGREE}ALTER TABLE {met.place} ALTER COLUMN {quote(met.own)} DROP DEFAULT;"
        return met.warning(f"it would set the default {met.what}, for which {met.target} has no row", cure)
    return met.note(f"sets the default {met.what} when {met.event}, which fails if {met.target} has no row for it")


def _of_obstacle(met: _Met) -> Finding | None:
    """Return the finding about what always prevents it."""
    place, name, what, own, alter = met.place, met.name, met.what, met.own, f"ALTER TABLE {met.place}"
    reasons = {
        "publication": (f"{place} is published ({what}) without a replica identity", f"{alter} REPLICA IDENTITY FULL;"),
        "owner": (f"{own}, the owner of {place}, lacks {what}", f"GRANT {what} TO {quote(own)};"),
        "rule": (f"the rule {what} of {place} runs instead", f"DROP RULE {quote(what)} ON {place};"),
        "domain": (f"it would set NULL in {own}, whose type is NOT NULL", f"{alter} ALTER COLUMN {quote(own)} TYPE {what};"),
        "full": (
            "it is MATCH FULL, and would set NULL in some of its columns only",
            f"{alter} DROP CONSTRAINT {quote(name)}, ADD CONSTRAINT {quote(name)} {what};",
        ),
    }
    if met.kind not in reasons or (met.kind == "domain" and met.column):
        return None
    why, cure = reasons[met.kind]
    return met.warning(why, _asked(met.owner if met.kind in ("domain", "full") else "", cure))


def _of_condition(met: _Met) -> Finding:
    """Return the finding about what prevents it for some rows."""
    why = {
        "unique": f"the unique index or exclusion constraint {met.what} may refuse that",
        "domain": f"the type of {met.own} may refuse that: {met.column}",
        "generated": f"{met.own}, generated and NOT NULL, refuses that where it is NULL: {met.what}",
    }[met.kind]
    return met.note(f"sets NULL when {met.event}; {why}")


def _rows(table: Table, target: str) -> str:
    if target.strip('"') == table.name:
        return f"the rows of {table.name} that it refers to"
    return f"the rows of {target} that it refers to, to which deletions from {table.name} cascade"


def _event(kept: str, columns: str = "") -> str:
    """Return the change of some columns, or the deletion of some rows."""
    return f"{'a change' if columns else 'the deletion'} of {kept}"


def _where(place: str, name: str) -> str:
    return f"{place.strip(chr(34))}.{name}"
