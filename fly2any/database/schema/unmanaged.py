"""Unmanaged objects on our tables that make our writes fail, or could. Other unmanaged objects are not findings.

Our INSERT leaves out unmanaged columns, so their defaults or NULL are stored; our UPDATE does not write them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace

from django.utils.text import get_text_list

from ..findings import Finding, Severity
from ..sql import quote
from . import cures
from .expressions import CONSTANT, assigned, changes, is_literal
from .expressions_on_server import Live
from .objects import Catalog, Column, ForeignKey, Index, Key, Object, Table, where
from .partitions import Partitions
from .unmanaged_findings import AGREE, TRY, obstacle
from .unmanaged_references import of_references


def harmful(expected: Catalog, unmanaged: Catalog, actual: Catalog, live: Live | None = None) -> Iterator[Finding]:
    """Yield a finding for each unmanaged object on a table of ours that refuses or may change rows that the contract allows.

    Without `live` nothing can be proved: every object that uses a column of ours is a finding.
    """
    yield from _Obstacles(expected, unmanaged, actual, live).findings()


# Errors of these codes say that every INSERT, or the second one, fails.
OF_INSERTS = ("column.extra", "unique.extra", "check.extra", "foreign_key.extra")


class _Obstacles(Partitions):
    def findings(self) -> Iterator[Finding]:
        ours = {column.table for column in self.expected.columns}
        for table in self.actual.tables:
            if table.name in ours:
                yield from self.of_table(table)
                yield from self.of_partitions(table)
        yield from of_references(self.expected, self.actual, self.live)
        of_ours = self.unmanaged.where(lambda thing: thing.table in ours)
        for column in of_ours.columns:
            yield from self.unless_filled(column, (column.name,), self.of_column(column))
        refused: set[str] = set()
        uniques: list[Key | Index] = [*of_ours.keys, *(index for index in of_ours.indexes if index.unique)]
        for unique in uniques:
            refusing = [*self.unless_filled(unique, unique.columns, self.of_unique(unique))]
            yield from refusing
            if isinstance(unique, Key) and not refusing:
                yield from self.of_length(unique)
            refused.update(where(unique) for _ in refusing)
        for index in of_ours.indexes:
            found = [*self.of_index(index)]
            only_notes = all(one.severity is Severity.NOTE for one in found)
            longer = [*self.of_length(index)] if only_notes and where(index) not in refused else []
            yield from longer or found
        for check in of_ours.checks:
            found = [*self.unless_filled(check, check.columns, self.of_check(check))]
            yield from found
            if not found and set(check.columns) - self.managed(check.table).keys():
                yield from self.of_existing_rows(check, "constraint", check.name)
        for fk in of_ours.foreign_keys:
            yield from self.unless_filled(fk, fk.columns, self.of_foreign_key(fk))

    def unless_filled(self, thing: Object, names: Iterable[str], found: Iterable[Finding]) -> Iterator[Finding]:
        """Yield findings about what our INSERT stores in the columns `names`: an error is a note if a trigger may set one of them.

        The default of a column is computed, and its domain checked, before the triggers run.
        """
        filling = {column: name for table in self.actual.tables if table.name == thing.table for name, column in table.filling}
        filled = [name for name in names if name in filling and name not in self.managed(thing.table)]
        by_trigger = filled and not (
            isinstance(thing, Column) and (thing.nullable or thing.filled is not None or thing.generated)
        )
        for one in found:
            if one.severity is Severity.ERROR and by_trigger:
                unless = f"unless the trigger {filling[filled[0]]} sets {filled[0]}; it was not tried."
                one = replace(one, severity=Severity.NOTE, message=f"{one.message.removesuffix('.')}, {unless}", cure=TRY)
            yield one

    def of_table(self, table: Table) -> Iterator[Finding]:
        yield from of_functions(table)
        if table.unidentified:
            message = f"Table {table.name} is published ({', '.join(table.unidentified)}) without a replica identity, so every UPDATE and DELETE fails."
            cure = f"ALTER TABLE {quote(table.name)} REPLICA IDENTITY DEFAULT;"
            yield Finding(Severity.ERROR, "table.unidentified", table.name, message, cure, is_sql=True)
        if table.unpublished:
            message = f"Table {table.name} is published ({', '.join(table.unpublished)}) without a generated column of its replica identity, so every UPDATE and DELETE fails."
            cure = f"ALTER TABLE {quote(table.name)} REPLICA IDENTITY DEFAULT;"
            yield Finding(Severity.ERROR, "table.unidentified", table.name, message, cure, is_sql=True)
        if table.children:
            inherits, its = ("inherits", "its") if len(table.children) == 1 else ("inherit", "their")
            message = f"{', '.join(table.children)} {inherits} from {table.name}: queries on {table.name} return {its} rows, and UPDATE and DELETE change them, but no key of {table.name} applies to them."
            cure = "\n".join(cures.no_inherit(child, quote(table.name)) for child in table.children)
            yield Finding(Severity.WARNING, "table.inherited", table.name, message, f"{AGREE}{cure}")
        for name in table.narrowed:
            message = f"Publication {name} leaves out columns of {table.name} that identify its rows, or filters its rows by other columns, so every UPDATE or DELETE fails."
            alter = f"ALTER PUBLICATION {quote(name)}"
            cure = cures.at_once(f"{alter} DROP TABLE {quote(table.name)};", f"{alter} ADD TABLE {quote(table.name)};")
            yield Finding(Severity.ERROR, "table.unidentified", table.name, message, f"{AGREE}{cure}")
        for name, command, how in table.rules:
            if how == "INSTEAD":
                fails = f"runs in place of every {command}: ours does not reach the table, and fails if it has RETURNING and the rule has none"
            elif how == "INSTEAD WHERE":
                fails = f"runs in place of some {command}s, so every {command} … RETURNING fails"
            elif command != "DELETE":
                off = ", although it is disabled" if how == "OFF" else ""
                fails = f"makes every INSERT … ON CONFLICT fail{off}: PostgreSQL accepts none for a table with a rule on INSERT or UPDATE"
            else:
                yield self.untried_code(table, f"Rule {name}", name)
                continue
            cure = f"DROP RULE {quote(name)} ON {quote(table.name)};"
            yield Finding(
                Severity.ERROR, "rule.extra", f"{table.name}.{name}", f"Rule {name} of {table.name} {fails}.", f"{AGREE}{cure}"
            )
        for name, writes, column in table.lacking:
            message = f"Trigger {name} of {table.name} uses {column}, a column that {table.name} does not have, so every {writes} fails."
            cure = f"{AGREE}DROP TRIGGER {quote(name)} ON {quote(table.name)};"
            yield Finding(Severity.ERROR, "trigger.extra", f"{table.name}.{name}", message, cure)
        failing = {name for name, _, _ in table.lacking}
        for name in table.triggers:
            if name not in failing:
                yield self.untried_code(table, f"Trigger {name}", name)

    def untried_code(self, table: Table, title: str, name: str) -> Finding:
        message = f"{title} of {table.name} is unmanaged and was not tried; it may change or reject our writes."
        if name in table.notifying:
            message = f"{message.removesuffix('.')}: NOTIFY, by which it sends rows, refuses 8,000 bytes or more, as in rows with long texts."
        return Finding(Severity.NOTE, "trigger.extra", f"{table.name}.{name}", message, TRY)

    def of_column(self, column: Column) -> Iterator[Finding]:
        alter = f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)}"
        title = f"Column {column.name} of {column.table} is unmanaged"
        domain = column.domain
        if not column.can_be_left_out:
            if domain and domain.required and column.nullable:
                yield obstacle("column.extra", column, f"{title}, and its type {column.type} is NOT NULL without a default, so every INSERT fails.",
                               f"{alter} TYPE {domain.type};", Severity.ERROR)  # fmt: skip
                return
            message = f"{title}, NOT NULL and without a default, so every INSERT fails."
            yield obstacle("column.extra", column, message, f"{alter} DROP NOT NULL;", Severity.ERROR)
            return
        if not column.nullable:
            yield from self.of_existing_rows(column, "NOT NULL of column", column.name)
        if column.generated is not None:
            yield from self.of_generated(column)
            return
        if column.filled is not None and column.identity is None and (found := self.of_default(column, title, alter)):
            yield found
            return
        for condition in domain.conditions if domain else ():
            refuses = self.refuses_stored(column, (condition or "").removeprefix("CHECK "))
            if refuses:
                message = f"{title}, and its type {column.type} refuses {column.filled or 'NULL'}, which every INSERT stores."
                yield obstacle(
                    "column.extra", column, message, f"{alter} TYPE {domain.type if domain else ''};", Severity.ERROR
                )
                return
            if refuses is None:
                message = f"{title}, and its type {column.type} has conditions that were not tried."
                yield Finding(Severity.NOTE, "column.extra", where(column), message, TRY)

    def of_default(self, column: Column, title: str, alter: str) -> Finding | None:
        default, type_ = column.filled or "NULL", column.domain.type if column.domain else column.type
        if is_literal(default, type_):
            return None
        trial, now = self.trial_of_default(column), " in this session" if changes(default) else ""
        if trial.raised:
            message = f"{title}, and its default {default} raises an error{now}, so every INSERT fails."
            drop = "DROP DEFAULT" if column.default is not None else "SET DEFAULT NULL"  # Otherwise it is the domain's.
            return obstacle(
                "column.extra", column, message, f"{alter} {drop};{self.no_longer_required(column)}", Severity.ERROR
            )
        required = not column.nullable or (column.domain is not None and column.domain.required)
        if trial.refused and required:
            cure = f"{alter} DROP NOT NULL;" if not column.nullable else f"{alter} TYPE {type_};"
            if now:
                message = f"{title}, NOT NULL, and its default {default} is NULL{now}, so an INSERT fails where it is NULL."
                return obstacle("column.extra", column, message, cure)
            message = f"{title}, NOT NULL, and its default is NULL, so every INSERT fails."
            return obstacle("column.extra", column, message, cure, Severity.ERROR)
        if trial.known:
            return None
        risk = f"an INSERT fails where its default {default} {'is NULL or ' if required else ''}raises an error"
        return self.untried("column.extra", column, title, trial, risk)

    def no_longer_required(self, column: Column) -> str:
        return (
            "" if column.nullable else f"\nALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)} DROP NOT NULL;"
        )

    def of_generated(self, column: Column) -> Iterator[Finding]:
        title = f"Generated column {column.name} of {column.table} is unmanaged"
        drop = f"ALTER TABLE {quote(column.table)} DROP COLUMN {quote(column.name)};"
        expression = column.generated or ""
        used = [c.name for c in self.actual.columns if c.table == column.table and cures.mentions(expression, c)]
        domain = column.domain
        stored = assigned(expression, domain.type if domain else column.type)
        trial = self.trial(column, f"{stored} IS NULL", used)
        may_be_null = (not column.nullable or (domain is not None and domain.required)) and not self.never(
            column, f"({expression}) IS NULL", self.rows(column.table, used, inserted=False)
        )
        if trial.raised and column.virtual and column.nullable:
            message = f"{title}, and its expression {expression} raises an error, such as where {trial.raised}: reading it fails, writes do not."
            yield obstacle("column.extra", column, message, drop, Severity.NOTE)
        elif trial.raised:
            computes = not self.trial(column, f"({expression}) IS NULL", used).raised
            named = f", stored as {column.type}," if computes else ""
            yield self.raising("column.extra", column, f"{title}, and its expression {expression}{named}", trial, drop)
        elif may_be_null and (trial.refused or not trial.known):
            such_as = f", such as {trial.refused}" if trial.refused else ""
            yield obstacle("column.extra", column, f"{title} and NOT NULL, and {expression} may be NULL where the contract allows it{such_as}.",
                           f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)} DROP NOT NULL;")  # fmt: skip
        elif may_be_null or not (
            (column.virtual and column.nullable)
            or (column.own and self.never_raises(column.table, expression) and self.fits(column))
        ):
            yield self.may_raise("column.extra", column, title, trial, expression, nulls=may_be_null)

    def twin(self, fk: ForeignKey) -> ForeignKey | None:
        """Return a foreign key of ours that checks the same rows."""
        own = ("name", "deferrable", "deferred", "valid", "on_delete", "on_update")
        found = (one for one in self.expected.foreign_keys if one.table == fk.table and one.columns == fk.columns)
        return next((one for one in found if replace(fk, **{name: getattr(one, name) for name in own}) == one), None)

    def preempted(self, fk: ForeignKey, ours: ForeignKey) -> str:
        """Return the action of `fk` that preempts a different action of `ours`, "" if there is none.

        The triggers of both run in the order of their names. Once ours has deleted or changed the referencing rows, the other
        finds none; once ours has rejected the statement, the other does not run.
        """
        live = next((one for one in self.actual.foreign_keys if (one.table, one.name) == (ours.table, ours.name)), ours)
        known = len(fk.fires) == len(live.fires) == 2
        refusing = {"NO ACTION", "RESTRICT"}
        for place, ((event, theirs), (_, action)) in enumerate(zip(fk.actions(), ours.actions(), strict=True)):
            if theirs == action or {theirs, action} <= refusing or (theirs == "NO ACTION" and fk.deferred):
                continue
            waits = action == "NO ACTION" and ours.deferred  # until the end of the transaction
            if waits or not known or fk.fires[place] < live.fires[place]:
                return f"ON {event} {theirs} acts before the {action} of {ours.name}"
        return ""

    def of_foreign_key(self, fk: ForeignKey) -> Iterator[Finding]:
        unmanaged = [name for name in fk.columns if name not in self.managed(fk.table)]
        title = f"Foreign key {fk.name} of {fk.table} is unmanaged"
        if not fk.enforced:
            return
        if ours := self.twin(fk):
            if preempted := self.preempted(fk, ours):
                yield obstacle("foreign_key.extra", fk, f"{title}, and its {preempted}.", cures.drop(fk))
            return
        if not unmanaged:
            yield obstacle(
                "foreign_key.extra", fk, f"{title}, and refuses or deletes rows that the contract allows.", cures.drop(fk)
            )
            return
        nulls = [name for name in unmanaged if self.is_null(fk.table, name)]
        if nulls and (not fk.full or len(nulls) == len(fk.columns)):
            return
        if nulls:
            yield obstacle(
                "foreign_key.extra",
                fk,
                f"{title} and MATCH FULL, so every INSERT fails: it stores NULL in {', '.join(nulls)}.",
                cures.drop(fk),
                Severity.ERROR,
            )
            return
        if any(self.read_by(column) & self.managed(fk.table).keys() for column in self.computed(fk.table, unmanaged)):
            yield obstacle("foreign_key.extra", fk, f"{title}, and refuses rows that the contract allows.", cures.drop(fk))
            return
        fills = {
            target: column.filled or ""
            for name, target in zip(fk.columns, fk.target_columns, strict=True)
            if (column := self.stored(fk.table, name))
        }
        trusted = any(table.name == fk.target and table.trusted and table.readable for table in self.actual.tables)
        known = trusted and len(fills) == len(fk.columns) and all(CONSTANT.fullmatch(value) for value in fills.values())
        there = self.live.has_row(fk.target, fills) if self.live is not None and known else None
        if there is False:
            message = f"{title}, and {fk.target} has no row for {', '.join(fills.values())}, which every INSERT stores."
            yield obstacle("foreign_key.extra", fk, message, cures.drop(fk), Severity.ERROR)
        elif there is None:
            yield Finding(
                Severity.NOTE, "foreign_key.extra", where(fk), f"{title}, and was not tried with what our INSERT stores.", TRY
            )


def of_functions(table: Table) -> Iterator[Finding]:
    """Yield a finding for each function that writes of this role may not execute, or that fails with an empty search path."""
    for function in dict.fromkeys(function for _, function, _, _ in table.called):
        rows = [row for row in table.called if row[1] == function]
        denied = [(caller, role) for caller, _, role, _ in rows if role]
        searching = [(caller, name) for caller, _, _, name in rows if name]
        if denied and table.insertable:
            callers = get_text_list([caller for caller, _ in denied], "and")
            yield Finding(
                Severity.ERROR, "table.function", table.name,
                f"This role may INSERT into {table.name}, but may not execute {function}, which {callers} {'calls' if len(denied) == 1 else 'call'}: such a write fails.",
                f"As its owner: GRANT EXECUTE ON FUNCTION {function} TO {denied[0][1]};",
            )  # fmt: skip
        if searching:
            callers = get_text_list([caller for caller, _ in searching], "and")
            yield Finding(
                Severity.NOTE, "table.function", table.name,
                f"{function}, which {callers} of {table.name} {'calls' if len(searching) == 1 else 'call'}, finds {searching[0][1]} by the search path. A restore and autovacuum, from"
                " PostgreSQL 17 on also ANALYZE and REINDEX, run it with an empty one, and fail.",
                f"Name the schema in it, or as its owner: ALTER FUNCTION {function} SET search_path FROM CURRENT;",
            )  # fmt: skip


def tried(finding: Finding, passed: Container[str], failed: str, refused_by: Container[str]) -> Finding:
    """Return `finding` as it reads after a write check, which tried the objects on the tables `passed` and on the table `failed`."""
    table, _, name = finding.where.partition(".")
    if finding.severity is Severity.ERROR and finding.code in OF_INSERTS and table in passed:
        refuted = f"{finding.message.removesuffix('.')}; but the write check inserted rows, so a trigger may set other values."
        return replace(
            finding, severity=Severity.NOTE, message=refuted, cure="See what it does with \\d+ in `manage.py dbshell`."
        )
    if finding.cure != TRY or (table not in passed and table != failed):
        return finding
    if table in passed:
        how = "refused nothing in the write check"
    elif name in refused_by:
        how = "refused a row in the write check"
    else:
        how = "was tried in the write check, which failed at this table"
    cure = "See what it does with \\d+ in `manage.py dbshell`: real rows hold other values."
    if table == failed:
        cure = "See what it does with \\d+ in `manage.py dbshell`, and ask its owner to correct or drop it."
    return replace(finding, message=re.sub(r"\b(was|were) not tried\b", how, finding.message), cure=cure)
