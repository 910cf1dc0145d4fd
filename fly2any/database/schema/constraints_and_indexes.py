"""Compares constraints and indexes with the contract: by name first, then by definition."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from ..findings import Finding, Severity
from ..sql import quote
from ..units import plural
from . import cures
from .comparing import Comparing, asked_first, contrasted, title
from .objects import PARTITIONED, Catalog, Check, ForeignKey, Index, Key, Object, Table, of_incomplete, of_invalid, where
from .unmanaged_keys import Keys

OPPOSITE = {"DESC NULLS LAST": "NULLS FIRST", "NULLS FIRST": "DESC NULLS LAST", "DESC": "", "": "DESC"}


def compare_named(to: Comparing) -> None:
    """Compare keys, checks, indexes and foreign keys."""

    def key_cure(key: Key, live: Key | None) -> str:
        return cures.repair_key(key, live, to.referring(live) if live else ())

    keys = [_within_partitions(to, key) for key in to.expected.keys]
    _compare(to, keys, to.actual.keys, _key_difference, key_cure)
    _compare(to, to.expected.checks, to.actual.checks, _check_difference, cures.repair_check)
    _compare(to, to.expected.indexes, to.actual.indexes, _index_difference, cures.repair_index)
    _compare(to, to.expected.foreign_keys, to.actual.foreign_keys, _foreign_key_difference, cures.repair_foreign_key)


def _within_partitions(to: Comparing, key: Key) -> Key:
    """Return the key as a partitioned table can have it, with the partition key's columns, and report that it is weaker."""
    parted = next((table.partition_key for table in to.actual.tables if table.name == key.table), ())
    missing = tuple(name for name in parted if name not in key.columns)
    if not missing:
        return key
    to.bad.add(key)
    wider = replace(key, columns=(*key.columns, *missing))
    live = next((one for one in to.actual.keys if (one.table, one.name) == (key.table, key.name)), None)
    if live and {*live.columns} == {*wider.columns}:
        wider = replace(wider, columns=live.columns)
        message = (
            f"{title(key)} is {_body(wider)}, not {_body(key)}, because a key of a partitioned table must contain the partition key:"
            f" several rows can have the same {', '.join(key.columns)}."
        )
        cure = "Check that each program that writes to the table generates distinct values, or go back to a table without partitions."
        to.findings.append(Finding(Severity.WARNING, f"{_kind(key)}.weaker", where(key), message, cure))
    return wider


def _compare(
    to: Comparing,
    expected: Iterable[Any],
    actual: Iterable[Any],
    difference: Callable[[Any, Any], tuple[str, str]],
    cure: Callable[[Any, Any], str],
) -> None:
    live = {(thing.table, thing.name): thing for thing in actual}
    ours = {(thing.table, thing.name) for thing in expected}
    for thing in expected:
        kind, what = _kind(thing), title(thing)
        other = live.get((thing.table, thing.name))
        if other == thing:
            continue
        to.bad.add(thing)
        if other is not None:
            _report(to, thing, other, difference, cure)
        elif twin := _twin(to, thing, [o for key, o in live.items() if key not in ours]):
            to.claimed.add(twin)
            message = f"{what} exists under the name {twin.name}."
            asked = _asked_first(to, thing)
            aside = _renamed_aside(to, thing, live)
            to.actual = to.actual.with_instead(twin, replace(twin, name=thing.name))
            to.freed.add(twin.name)
            to.add(f"{kind}.renamed", thing, message, aside + cures.rename(twin, thing.name), Severity.WARNING, loses=asked)
        elif isinstance(thing, Key) and (index := _index_for(to, thing)):
            to.claimed.add(index)
            asked = "" if _taken_by(to, thing) == index else _asked_first(to, thing)
            before, instead, then = _free_name(to, thing, besides=index)
            use = before + cures.use_index(thing, index, instead) + then
            # A unique index refuses the same rows and serves ON CONFLICT; a table without a primary key has no replica identity.
            severity = Severity.ERROR if thing.primary else Severity.WARNING
            message = f"{what} is a unique index ({index.name}), not a constraint."
            to.add(f"{kind}.different", thing, message, use, severity, loses=asked)
        else:
            message = f"{what} is missing{_name_taken(to, thing)}."
            new, asked = _identifying(to, thing, _taken_by(to, thing)), _asked_first(to, thing)
            before, instead, then = _free_name(to, new)
            statements = cures.add(new, instead) if instead else cure(new, None)
            to.add(f"{kind}.missing", thing, message, before + statements + then, loses=asked)


def _identifying(to: Comparing, thing: Any, other: Any) -> Any:
    """Return `thing`, which takes the place of `other`, as what identifies rows in logical replication if `other` does."""
    required = _required(to, thing.table)
    fit = isinstance(thing, Key) or (isinstance(thing, Index) and thing.unique and thing.predicate is None)
    same_table = getattr(other, "table", None) == thing.table
    if fit and same_table and getattr(other, "identifies", False) and required.issuperset(thing.columns):
        return replace(thing, identifies=True)
    return thing


def _required(to: Comparing, table: str) -> set[str]:
    """Return the columns that are NOT NULL."""
    return {column.name for column in to.expected.columns if column.table == table and not column.nullable}


def _twin(to: Comparing, thing: Any, others: Iterable[Any]) -> Any:
    """Return the object that differs from `thing` only by its name."""
    return next((other for other in others if other not in to.claimed and replace(other, name=thing.name) == thing), None)


def _index_for(to: Comparing, key: Key) -> Index | None:
    """Return the unique index from which ADD CONSTRAINT … USING INDEX can create the constraint; never for a partitioned table."""
    if any(table.name == key.table and table.kind == PARTITIONED for table in to.actual.tables):
        return None
    return next(
        (
            index
            for index in to.actual.indexes
            if index.table == key.table
            and index.columns == key.columns
            and (index.unique, index.valid, index.ready, index.predicate, index.method) == (True, True, True, None, "btree")
            and not any(index.options)
            and (index.include, index.nulls_distinct) == (key.include, key.nulls_distinct)
        ),
        None,
    )


def _taken_by(to: Comparing, thing: Object) -> Any:
    """Return the object that has the name of `thing`: indexes and tables share a namespace, and so do the constraints of a table."""
    constraints: tuple[Any, ...] = (*to.actual.keys, *to.actual.checks, *to.actual.foreign_keys)
    near = next((other for other in constraints if (other.table, other.name) == (thing.table, thing.name)), None)
    if near is not None or isinstance(thing, Check | ForeignKey):
        return near
    relations: tuple[Any, ...] = (*to.actual.indexes, *to.actual.keys, *to.actual.tables)
    return next((other for other in relations if other.name == thing.name), None)


def _holder(to: Comparing, thing: Object) -> tuple[str, str] | None:
    """Return the kind and the name of what has the name of an index but is not an object of the catalogue, such as a sequence."""
    asked = to.live is not None and isinstance(thing, Index | Key) and thing.name not in to.freed
    found = to.live.holders([thing.name]) if to.live and asked else []
    return found[0] if found else None


def _asked_first(to: Comparing, thing: Object) -> str:
    """Return why a script does not free the name of a missing object, "" if it does."""
    other = _taken_by(to, thing)
    if isinstance(other, Table):
        return asked_first(other.kind, other.name)
    holder = None if other else _holder(to, thing)
    return asked_first(*holder) if holder else ""


def _name_taken(to: Comparing, thing: Object) -> str:
    if other := _taken_by(to, thing):
        what = title(other)
        return f", and {what[0].lower()}{what[1:]} has its name"
    holder = _holder(to, thing)
    return f", and {holder[0].lower()} {holder[1]} has its name" if holder else ""


def _free_name(to: Comparing, thing: Object, besides: Object | None = None) -> tuple[str, cures.Constraint | None, str]:
    """Return how a missing object gets its name, as `cures.free_name` does."""
    other = _taken_by(to, thing)
    if other is None:
        holder = _holder(to, thing)
        return (cures.set_aside(*holder) + "\n" if holder else "", None, "")
    if other == besides:
        return "", None, ""
    to.claimed.add(other)
    return cures.free_name(other, thing)


def _renamed_aside(to: Comparing, thing: Object, live: dict[tuple[str, str], Any]) -> str:
    """Return the statement that renames what has the name of `thing`, which may be another object of ours; it is then compared by that name."""
    other = _taken_by(to, thing)
    if other is None or isinstance(other, Table):
        return _free_name(to, thing)[0]
    new = replace(other, name=cures.old_name(other.name))
    to.actual = to.actual.with_instead(other, new)
    to.freed.add(other.name)
    if live.pop((other.table, other.name), None) is not None:
        live[new.table, new.name] = new
    return cures.rename(other, new.name) + "\n"


def _kind(thing: Object) -> str:
    if isinstance(thing, Key):
        return "primary_key" if thing.primary else "unique"
    return {Check: "check", Index: "index", ForeignKey: "foreign_key"}[type(thing)]


def _changed(expected: Any, live: Any) -> list[str]:
    return [f.name for f in fields(expected) if f.compare and getattr(expected, f.name) != getattr(live, f.name)]


def _report(
    to: Comparing, thing: Any, live: Any, difference: Callable[[Any, Any], tuple[str, str]], cure: Callable[[Any, Any], str]
) -> None:
    """Report how `live`, which has the name of `thing`, differs from it."""
    kind, what = _kind(thing), title(thing)
    if isinstance(live, Index) and live.building:
        message = f"{what} is being built: no query uses it yet."
        to.findings.append(Finding(Severity.NOTE, "index.weaker", where(thing), message, "Wait until it is built."))
    elif _is_incomplete(to, thing, live):
        why, how = of_incomplete(live.name)
        harm = ", so duplicates can be stored" if isinstance(thing, Key) else ""
        to.findings.append(Finding(Severity.ERROR, f"{kind}.weaker", where(thing), f"{what} {why}{harm}.", how))
    else:
        verdict, how = difference(thing, live)
        more, severity = _effect(to, thing, live)
        blocked = cures.blocked(live.used_by, "key") if isinstance(live, Key) and _changed(thing, live) != ["valid"] else ""
        statements = cure(_identifying(to, thing, live), live)
        to.add(f"{kind}.{verdict}", thing, f"{what} {how}{more}.", statements, severity, loses=blocked)


def _is_incomplete(to: Comparing, thing: Any, live: Any) -> bool:
    """Return whether the index of a partitioned table is invalid, and otherwise as it should be."""
    parted = {table.name for table in to.actual.tables if table.kind == PARTITIONED}
    return isinstance(thing, (Index, Key)) and thing.table in parted and {*_changed(thing, live)} <= {"valid", "ready"}


def _key_difference(key: Key, live: Key) -> tuple[str, str]:
    if _changed(key, live) == ["valid"]:
        return "weaker", "has an invalid index, so duplicates can be stored"
    wider = set(key.columns) < set(live.columns)
    return "weaker" if wider else "different", f"is {_body(live)}, not {_body(key)}"


def _check_difference(check: Check, live: Check) -> tuple[str, str]:
    if _changed(check, live) == ["enforced"]:
        return "weaker", "is NOT ENFORCED: rows may violate it"
    if _changed(check, live) == ["valid"]:
        return "weaker", "is not validated: existing rows may violate it"
    return "different", "is {}, not {}".format(*contrasted(live.expression, check.expression))


def _foreign_key_difference(fk: ForeignKey, live: ForeignKey) -> tuple[str, str]:
    changed = _changed(fk, live)
    if "enforced" in changed:
        return "weaker", f"{'has disabled triggers' if live.declared else 'is NOT ENFORCED'}: orphans can be stored"
    if changed == ["valid"]:
        return "weaker", "is not validated: existing rows may be orphans"
    return "different", f"is {_body(live)}, not {_body(fk)}"


def _index_difference(index: Index, live: Index) -> tuple[str, str]:
    changed = _changed(index, live)
    if set(changed) <= {"valid", "ready"}:
        return "weaker", f"is invalid: {of_invalid(live)}"
    if changed == ["predicate"] and index.predicate is None:
        return "weaker", f"covers only the rows WHERE {live.predicate}"
    if changed == ["unique"] and index.unique:
        return "weaker", "is not unique"
    return "different", "is {}, not {}".format(*contrasted(_definition(live), _definition(index)))


def _effect(to: Comparing, thing: Any, live: Any) -> tuple[str, Severity]:
    """Return the effect of a difference that may be harmless, such as more columns at its end or the reverse order, and its severity."""
    if _changed(thing, live) == ["options"] and _is_reversed(thing, live):
        return "; it is read backwards and serves the same queries", Severity.NOTE
    if (
        isinstance(thing, ForeignKey)
        and not thing.deferred
        and {*_changed(thing, live)} <= {"on_update", "deferrable", "deferred"}
    ):
        return "; the same rows are accepted and deleted", Severity.WARNING
    included = _changed(thing, live) == ["include"] and {*thing.include} <= {*live.include}
    without_nulls = _changed(thing, live) == ["nulls_distinct"] and _required(to, thing.table).issuperset(thing.columns)
    keys = Keys(to.expected, Catalog(), to.actual, to.live)
    if not (included or without_nulls) and not (isinstance(thing, Index) and _is_prefix(keys, thing, live)):
        return "", Severity.ERROR
    long = keys.too_long(live)
    does = [f"; a write fails where {one} exceeds {plural(limit, 'byte')} after compression" for one, limit in long[:1]]
    is_long = any(keys.is_long(live.table, one) for one, _ in long)
    return "".join(does) or "; it works the same", Severity.ERROR if is_long else Severity.NOTE


def _is_prefix(keys: Keys, index: Index, live: Index) -> bool:
    """Return whether `live` has only more columns, not expressions, after all those of the B-tree `index`, which is not unique."""
    number = len(index.columns)
    first = replace(live, columns=live.columns[:number], options=live.options[:number])
    added = all(keys.is_column(live.table, one) for one in live.columns[number:])
    return index.method == "btree" and not index.unique and first == index and added


def _is_reversed(index: Index, live: Index) -> bool:
    """Return whether a B-tree index has each column in the opposite order."""
    return index.method == "btree" and [*map(_reversed, index.options)] == [*live.options]


def _reversed(option: str) -> str:
    """Return the option of a column of an index in the opposite order."""
    others, order = re.fullmatch(f"(.*?) ?({'|'.join(OPPOSITE)})", option).groups()  # type: ignore[union-attr]
    return f"{others} {OPPOSITE[order]}".strip()


def _body(thing: Key | ForeignKey) -> str:
    return thing.sql().partition(f"CONSTRAINT {quote(thing.name)} ")[2] + ("" if thing.valid else " NOT VALID")


def _definition(index: Index) -> str:
    return index.sql().replace(" CONCURRENTLY", "").removeprefix("CREATE ")
