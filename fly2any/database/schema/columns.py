"""Compares columns with the contract; each function answers one question."""

from __future__ import annotations

import re
from dataclasses import replace

from django.utils.text import get_text_list

from ..findings import Finding, Severity
from ..sql import quote
from . import cures
from .comparing import MAY_BE_ANOTHERS, Comparing, folded
from .contract import MAY_BE_NULL
from .objects import Check, Column, ForeignKey, Index, Key, where
from .type_changes import compares_as_text, lost_by_type_change

# What a row gets from another default in place of CURRENT_TIMESTAMP, with the same effect on all queries.
MOMENTS = {
    "statement_timestamp()": "the time of the statement, not of the beginning of its transaction",
    "clock_timestamp()": "the time when it is written, not of the beginning of its transaction",
    **{f"CURRENT_TIMESTAMP({digits})": f"a time with {digits} digits after the second" for digits in (3, 4, 5, 6)},
    "('now'::text)::timestamp with time zone": "the same time",
    **{
        f"('now'::text)::timestamp({digits}) with time zone": f"a time with {digits} digits after the second"
        for digits in (3, 4, 5, 6)
    },
}
# Times are written in milliseconds, so that Prisma finds rows by them.
PRECISE = {(f"timestamp({digits}) with time zone", "timestamp with time zone") for digits in (3, 4, 5, 6)}
SAME = {("character varying", "text"), *PRECISE}
WIDER = {"smallint": ("integer", "bigint"), "integer": ("bigint",)}
VARCHAR = re.compile(r"character varying\((\d+)\)")
CAST = re.compile(r"\(?'?(-?\d+)'?\)?::(integer|bigint)")  # As PostgreSQL prints a number in a wider column.
# A column such as users.isActive: accounts that were deactivated could sign in again.
GRANTS = "every row gets true, including those that had false: find the old values in a backup first"
BOUNDED = re.compile(r"\(\d{1,3}\)")  # A short text fits into a row.


def compare_columns(to: Comparing) -> None:
    _missing(to)
    live = {(column.table, column.name): column for column in to.actual.columns}
    for column in to.expected.columns:
        if (other := live.get((column.table, column.name))) is None:
            continue
        if (column.table, MAY_BE_NULL.get((column.table, column.name))) in live:
            _omitted_by_site(to, column, other)
            other = replace(other, nullable=column.nullable, validated=column.validated)
        if other.plain and not BOUNDED.search(other.type):
            _plain(to, column)
        if other != column:
            to.bad.add(column)
            _state(to, column, other)


def _plain(to: Comparing, column: Column) -> None:
    message = f"{_name_of(column)} has STORAGE PLAIN: a write of more than about 8,000 bytes fails."
    to.add("column.storage", column, message, f"{_alter(column)} SET STORAGE EXTENDED;", Severity.WARNING)


def _missing(to: Comparing) -> None:
    live = {(column.table, column.name): column for column in to.actual.columns}
    ours = {(column.table, column.name) for column in to.expected.columns}
    expected = {table.name for table in to.expected.tables}
    tables = {table.name: table for table in to.actual.tables if table.name in expected}
    missing = [c for c in to.expected.columns if (c.table, c.name) not in live and c.table in tables]
    others = [other for place, other in live.items() if place not in ours and other.table in tables]
    named = {
        column: [one for one in others if (one.table, folded(one.name)) == (column.table, folded(column.name))]
        for column in missing
    }
    taken = {same[0] for same in named.values() if len(same) == 1}
    for column in missing:
        to.bad.add(column)
        by_name = named[column]
        twins = [other for other in missing if len(named[other]) != 1 and replace(other, name=column.name) == column]
        same = [other for other in others if other not in taken and replace(other, name=column.name) == column]
        if len(by_name) == 1:
            _renamed(to, column, by_name[0])
        # A dropped column leaves a gap in attnum; then our column was dropped, and its twin belongs to another program.
        elif len(twins) == len(same) == 1 and not tables[column.table].dropped_columns:
            _renamed(to, column, same[0])
        else:
            _added(to, column, sorted({other.name for other in (*by_name, *same)}))


def _renamed(to: Comparing, column: Column, other: Column) -> None:
    has = "its definition" if replace(other, name=column.name) == column else "its name except for case and underscores"
    to.add(
        "column.renamed",
        column,
        f"Column {column.name} of {column.table} is missing, and {other.name} has {has}:"
        " it was probably renamed; check its values before you rename it back.",
        f"ALTER TABLE {quote(column.table)} RENAME COLUMN {quote(other.name)} TO {quote(column.name)};",
        loses=MAY_BE_ANOTHERS,
    )
    to.actual = to.actual.renamed_column(column.table, other.name, column.name)


def _added(to: Comparing, column: Column, candidates: list[str]) -> None:
    """Report a missing column, whose values one of the `candidates` may hold: then it is not added empty beside them."""
    title = f"Column {column.name} of {column.table} is missing"
    names = get_text_list(candidates, "or")
    message = f"{title}, and its values with it: restore them from a backup, or add it empty."
    if candidates:
        message = (
            f"{title}, unless {names} is the same column, renamed: check the values, then rename that column back;"
            " otherwise restore the values from a backup, or add the column empty."
        )
    reasons = [GRANTS] if (column.type, column.default) == ("boolean", "true") else []
    reasons += [f"{names} may be the same column, renamed"] if candidates else []
    to.add("column.missing", column, message, cures.add_column(column), loses="; ".join(reasons))


def _omitted_by_site(to: Comparing, column: Column, live: Column) -> None:
    if not live.nullable:
        leaves_out = f"the site's inserts with {MAY_BE_NULL[column.table, column.name]} may leave it out, and then fail"
        to.add(
            "column.different",
            column,
            f"Column {column.name} of {column.table} may not be NULL; {leaves_out}.",
            f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)} DROP NOT NULL;",
            Severity.NOTE,
        )


def _state(to: Comparing, column: Column, live: Column) -> None:
    """Compare the properties of `live` one by one, each as the cure for the previous one leaves it."""
    for question in (_generated, _type, _identity, _required, _default):
        live = question(to, column, live)


def _type(to: Comparing, column: Column, live: Column) -> Column:
    if (live.type, live.collation) == (column.type, column.collation):
        return live
    if live.collation == column.collation and _is_wider(live.type, column.type):
        message = (
            f"{_name_of(column)} is {live.type}, not {column.type}; each value that fits into {column.type} works the same."
        )
        larger = "longer" if VARCHAR.fullmatch(column.type) else "larger"
        cure = f"Keep it: to make it {column.type} again, PostgreSQL would rewrite the table, and fail if a value is {larger}."
        to.findings.append(Finding(Severity.NOTE, "column.different", where(column), message, cure))
        plain = CAST.fullmatch(live.default or "")
        return replace(live, default=plain[1]) if plain else live
    same = (live.type, column.type) in SAME and live.collation == column.collation
    what = f"{_name_of(column)} is {_typed(live)}, not {_typed(column)}"
    alike = "each time in milliseconds works the same" if (live.type, column.type) in PRECISE else "it works the same"
    message, severity = (f"{what}; {alike}.", Severity.NOTE) if same else (f"{what}.", Severity.ERROR)
    joined, fks, strange = ([live], [], []) if compares_as_text(column, live) else _joined(to, live)
    if where(live) != where(joined[0]):  # The cure of the first column changes all.
        joined, fks, strange = [live], [], []
    blockers = {f"constraint {fk.name} on table {fk.table}" for fk in strange}
    changes, following, theirs, again = [], [], [], []
    ours = {where(one): one for one in to.expected.columns}
    for found in joined:
        wanted = ours.get(where(found)) or replace(found, type=column.type, collation=column.collation)
        computed = [one for one in to.actual.columns if one.table == found.table and cures.mentions(one.generated, found)]
        change, then = cures.retype(wanted, found, computed, to.actual)
        changes += change
        following += then
        blockers |= {blocker for one in (found, *computed) for blocker in one.used_by} | _unreadable(to, found, wanted)
        for key in _including(to, found):
            blockers |= {*key.used_by}
            fks += [fk for fk in to.referring(key) if fk not in fks]
        theirs += [where(found)] if where(found) not in ours else []
        again += [where(one) for one in computed if where(one) not in ours]
    cure = cures.after(sorted(blockers), "\n".join([cures.without(fks, changes), *following]))
    lost = lost_by_type_change(column, live) or cures.blocked(sorted(blockers)) or _local_times(to, column, live)
    if theirs and not lost:
        lost = f"it changes the type of {', '.join(theirs)} too: ask the owner first"
    elif again and not lost:
        lost = f"it creates {', '.join(again)} again, without the privileges, comments and statistics: ask the owner first"
    to.add("column.different", column, message, cure, severity, loses=lost)
    set_anew = live.default is not None and column.default is not None and not same
    return replace(live, default=column.default if set_anew else live.default)


def _unreadable(to: Comparing, live: Column, wanted: Column) -> set[str]:
    """Return the checks and indexes whose text PostgreSQL would reject for the new type, because they compare the column with values of its present one."""
    if (server := to.live) is None:
        return set()
    columns = tuple(one for one in to.actual.columns if one.table == live.table)
    plain = {one.name for one in columns}
    retyped = tuple(replace(wanted, name=live.name, domain=None) if one.name == live.name else one for one in columns)
    texts: list[tuple[Check | Index, str, list[str]]]
    texts = [
        (check, f"constraint {check.name} on table {check.table}", [check.expression])
        for check in to.actual.checks
        if check.table == live.table
    ]
    for index in (one for one in to.actual.indexes if one.table == live.table):
        computed = [*(part for part in index.columns if part not in plain), *filter(None, [index.predicate])]
        texts.append((index, f"index {index.name}", computed))

    def is_unreadable(thing: Check | Index, part: str) -> bool:  # Code of other roles is not sent to the server.
        return not (server.can_read(part, retyped) if thing.own else compares_as_text(wanted, live))

    return {
        title for thing, title, parts in texts for part in parts if cures.mentions(part, live) and is_unreadable(thing, part)
    }


def _local_times(to: Comparing, column: Column, live: Column) -> str:
    """Return the warning that the cure reads local times as UTC, "" if the database writes only UTC."""
    without_zone = live.type.startswith("timestamp") and live.type.endswith("without time zone")
    if to.live is None or not without_zone or column.type != "timestamp with time zone":
        return ""
    if (found := to.live.other_zones(live.table)) is None:
        return "it reads the times as UTC, and whether the database wrote them in another zone could not be checked"
    zones = get_text_list(found, "or")
    return zones and (
        f"it reads the times as UTC, but those that the database wrote (by a default or a trigger) may be in {zones}:"
        " if they are, name that zone in the statement"
    )


def _is_wider(type_: str, than: str) -> bool:
    """Return whether a type has every value of a narrower integer or varchar, and values that are larger or longer."""
    if (limit := VARCHAR.fullmatch(than)) is None:
        return type_ in WIDER.get(than, ())
    longer = VARCHAR.fullmatch(type_)
    return type_ in ("text", "character varying") or (longer is not None and int(longer[1]) > int(limit[1]))


def _including(to: Comparing, column: Column) -> list[Key]:
    """Return the keys that include a column: a change of its type recreates them, which PostgreSQL refuses if foreign keys refer to them."""
    return [key for key in to.actual.keys if key.table == column.table and column.name in key.include]


def _joined(to: Comparing, live: Column) -> tuple[list[Column], list[ForeignKey], list[ForeignKey]]:
    """Return the columns that foreign keys join with `live`, itself included, and these foreign keys: their types change together.

    Those of another role's tables come last: to create one again would run that role's code.
    """
    strangers = to.strangers().keys() - {live.table}
    known = {(column.table, column.name): column for column in to.actual.columns}
    found: dict[tuple[str, str], Column] = {}
    fks: dict[ForeignKey, None] = {}
    strange: dict[ForeignKey, None] = {}
    todo = [(live.table, live.name)]
    while todo:
        place = todo.pop()
        if place in found or place not in known:
            continue
        found[place] = known[place]
        for fk in to.actual.foreign_keys:
            for own, target in zip(fk.columns, fk.target_columns, strict=True):
                if fk.elsewhere or place not in (ends := [(fk.table, own), (fk.target, target)]):
                    continue
                if strangers.isdisjoint((fk.table, fk.target)):
                    fks[fk] = None
                    todo += ends
                else:
                    strange[fk] = None
    ours = {where(one) for one in to.expected.columns}  # The cure is that of the first, so a column of ours.
    return sorted(found.values(), key=lambda one: (where(one) not in ours, where(one))), [*fks], [*strange]


def _generated(to: Comparing, column: Column, live: Column) -> Column:
    if (live.generated, live.virtual) == (column.generated, column.virtual):
        return live
    message = f"{_name_of(column)} is {_computed(live)}, not {_computed(column)}."
    if column.generated is not None:
        lost = "" if live.generated is not None else "its values are recomputed"
        cure = cures.after(live.used_by, cures.generate(column, live, to.actual))
        to.add("column.different", column, message, cure, loses=lost or cures.blocked(live.used_by))
        return column
    if live.virtual:
        cure = cures.after(live.used_by, cures.store(column))
        to.add("column.different", column, message, cure, loses=cures.blocked(live.used_by))
        return replace(column, nullable=True, default=None)
    to.add("column.different", column, message, f"{_alter(column)} DROP EXPRESSION;")
    return replace(live, generated=None)


def _identity(to: Comparing, column: Column, live: Column) -> Column:
    if live.identity == column.identity:
        return live
    if not live.identity and live.numbers_as(column):
        message = f"{_name_of(column)} is a serial, not an identity column; writes work the same."
        to.add("column.different", column, message, cures.repair_identity(column, live), Severity.NOTE)
        return replace(live, default=column.default)
    should = f"be GENERATED {column.identity.upper()}" if column.identity else "not be one"
    found = f"is an identity column GENERATED {live.identity.upper()}" if live.identity else "is not an identity column"
    message = f"{_name_of(column)} {found}; it should {should}."
    to.add("column.different", column, message, cures.repair_identity(column, live))
    return replace(live, default=column.default)  # The cure drops it.


def _required(to: Comparing, column: Column, live: Column) -> Column:
    what = _name_of(column)
    if live.nullable and not column.nullable:
        if (column.table, column.name) in MAY_BE_NULL:
            message, severity = f"{what} may be NULL, as in the site's later schema.", Severity.NOTE
        else:
            message, severity = f"{what} may be NULL.", Severity.ERROR
        to.add("column.weaker", column, message, cures.require(column), severity)
    elif not live.validated and not column.nullable:
        message = f"{what} is NOT NULL NOT VALID: existing values may be NULL."
        to.add("column.weaker", column, message, cures.require(column))
    elif column.nullable and not live.nullable:
        message = f"{what} may not be NULL, so writes without it fail."
        to.add("column.different", column, message, f"{_alter(column)} DROP NOT NULL;")
    return live


def _default(to: Comparing, column: Column, live: Column) -> Column:
    what, wanted, found = _name_of(column), column.default, live.default
    if found == wanted:
        return live
    if wanted is None:
        # Our INSERTs send every column; without the default, one that leaves out a NOT NULL column fails.
        harmless = not column.nullable
        why = (
            "; it is harmless: only an insert without a value uses it."
            if harmless
            else "; an insert without a value stores it, not NULL."
        )
        to.add(
            "default.extra",
            column,
            f"{what} has the default {found}, and should have none{why}",
            f"{_alter(column)} DROP DEFAULT;",
            Severity.NOTE if harmless else Severity.WARNING,
            loses="" if harmless else "the site's inserts may rely on it",
        )
    elif found is None:
        message = f"{what} has no default: the site's inserts, which leave it to the database, fail or write NULL."
        to.add("default.missing", column, message, f"{_alter(column)} SET DEFAULT {wanted};")
    else:
        same = MOMENTS.get(found, "") if wanted == "CURRENT_TIMESTAMP" else ""
        message = f"{what} has the default {found}, not {wanted}{f'; it is harmless: a row gets {same}' if same else ''}."
        severity = Severity.NOTE if same else Severity.ERROR
        to.add("default.different", column, message, f"{_alter(column)} SET DEFAULT {wanted};", severity)
    return live


def _name_of(column: Column) -> str:
    return f"Column {column.name} of {column.table}"


def _alter(column: Column) -> str:
    return f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)}"


def _computed(column: Column) -> str:
    if column.generated is None:
        return "an ordinary column"
    return f"generated as ({column.generated}){' and not stored' if column.virtual else ''}"


def _typed(column: Column) -> str:
    return f"{column.type} with the collation {column.collation}" if column.collation else column.type
