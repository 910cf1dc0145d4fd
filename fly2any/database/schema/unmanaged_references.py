"""Findings about unmanaged tables whose foreign keys keep our rows from being deleted or changed, or could."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..findings import Finding, Severity
from ..sql import quote
from .expressions import CONSTANT
from .live import Live
from .objects import Catalog, Table
from .obstacles import AGREE

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

    def when(table: Table, target: str, columns: str) -> str:
        """Return what a foreign key follows or prevents, "" if we never do that: `columns` are "" for a deletion."""
        changed = [one for one in columns.split(", ") if (table.name, one) in managed]
        if not columns:
            return f"{_rows(table, target)} from being deleted"
        return f"{', '.join(changed)} of {table.name} from being changed" if changed else ""

    for table in (one for one in actual.tables if one.name in ours):
        for place, name, definition, target, required, owner in table.kept_by:
            if is_reported(table, place, target):
                found[place, name] = _keeps(table, place, name, definition, target, required, owner)
        for place, name, definition, target, columns, owner in table.fixed_by:
            kept = when(table, target, columns)
            if kept and is_reported(table, place, target):
                why = "" if columns else f": they change the columns of {target} that it refers to"
                message = f"Foreign key {name} of {place} is unmanaged, and keeps {kept}{why}."
                cure = _asked(owner, _again(place, name, definition))
                found[place, name, columns] = Finding(
                    Severity.WARNING, "foreign_key.restricts", _where(place, name), message, cure
                )
        for met in table.met:
            place, name, target, kind, what, *_, columns = met
            kept = when(table, target, columns)
            if kept and is_reported(table, place, target):
                found[place, name, kind, what, columns] = _meets(met, kept, live, readable)
    yield from filter(None, found.values())


def _keeps(table: Table, place: str, name: str, definition: str, target: str, required: str, owner: str) -> Finding:
    alter = f"ALTER TABLE {place}"
    if required:
        why = f": it would set NULL in {required}, which may not be NULL"
        cure = AGREE + " ".join(f"{alter} ALTER COLUMN {quote(one)} DROP NOT NULL;" for one in required.split(", "))
    else:
        why, cure = "", _asked(owner, _again(place, name, definition))
    message = f"Foreign key {name} of {place} is unmanaged, and keeps {_rows(table, target)} from being deleted{why}."
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


def _meets(met: tuple[str, ...], kept: str, live: Live | None, readable: set[str]) -> Finding | None:
    """Return the finding about what the rows that a foreign key refers from meet when it deletes or changes them.

    `kept` is what this may prevent, such as "email of users from being changed". Only `readable` tables are queried:
    planning a query of another runs its owner's code.
    """
    place, name, target, kind, what, own, column, owner, columns = met
    alter, event = f"ALTER TABLE {place}", kept.replace(" from being ", " are " if "," in columns or not columns else " is ")
    title = f"Foreign key {name} of {place} is unmanaged, and"

    def restricts(severity: Severity, message: str, cure: str) -> Finding:
        return Finding(severity, "foreign_key.restricts", _where(place, name), f"{title} {message}", cure)

    if kind == "trigger":
        message = f"Trigger {what} of {place} runs when {event}, by {name}, and was not tried; it may prevent that."
        return Finding(Severity.NOTE, "trigger.extra", _where(place, what), message, READ)
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
    if kind == "domain" and column:
        kind = "condition"
    if kind in reasons:
        why, cure = reasons[kind]
        asked = _asked(owner if kind in ("domain", "full") else "", cure)
        return restricts(Severity.WARNING, f"keeps {kept}: {why}.", asked)
    notes = {
        "unique": f"the unique index or exclusion constraint {what} may refuse that",
        "condition": f"the type of {own} may refuse that: {column}",
        "generated": f"{own}, generated and NOT NULL, refuses that where it is NULL: {what}",
    }
    if kind in notes:
        return restricts(Severity.NOTE, f"sets NULL when {event}; {notes[kind]}.", READ)
    if kind == "check":
        check, _, condition = what.partition(" CHECK ")
        if own == "n" and re.fullmatch(r'\(+("[^"]+"|\w+) IS NOT NULL\)+( NOT VALID)?', condition):
            message = f"keeps {kept}: it would set NULL, which its check {check} refuses."
            return restricts(Severity.WARNING, message, f"{AGREE}{alter} DROP CONSTRAINT {quote(check)};")
        does = "changes its rows" if own == "c" else "sets NULL"
        return restricts(Severity.NOTE, f"{does} when {event}; its check {check} may refuse that: {condition}.", READ)
    if what.startswith("NULL::"):
        return None
    known = column and CONSTANT.fullmatch(what) and target.strip('"') in readable
    there = live.has_row(target.strip('"'), {column: what}) if live is not None and known else None
    if there:
        return None
    if there is False:
        message = f"keeps {kept}: it would set the default {what}, for which {target} has no row."
        return restricts(Severity.WARNING, message, f"{AGREE}{alter} ALTER COLUMN {quote(own)} DROP DEFAULT;")
    message = f"sets the default {what} when {event}, which fails if {target} has no row for it."
    return restricts(Severity.NOTE, message, READ)


def _rows(table: Table, target: str) -> str:
    if target.strip('"') == table.name:
        return f"the rows of {table.name} that it refers to"
    return f"the rows of {target} that it refers to, which go with those of {table.name},"


def _where(place: str, name: str) -> str:
    return f"{place.strip(chr(34))}.{name}"
