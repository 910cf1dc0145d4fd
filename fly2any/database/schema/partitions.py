"""The partitions of a table of ours: whether they take the rows that are inserted now, and what only one of them has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..findings import Finding, Severity
from ..sql import quote
from ..unprintable_definitions import PRINTABLE_SQL, printed
from .called_functions import OWN_SQL
from .cures import mentions
from .expressions import with_column_replaced
from .objects import PARTITIONED, Check, Column, Index, Key, Partition, Table
from .samples import Trial, kind
from .unmanaged_checks import Checks
from .unmanaged_findings import AGREE, TRY

# The partitions of the table `c`, at any level. An operator class of another role would run its code.
PARTITIONS_SQL = f"""
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', r.oid::regclass::text, 'table', CASE WHEN r.relnamespace = c.relnamespace THEN r.relname END,
        'leaf', p.isleaf, 'logged', r.relpersistence = 'p',
        'bound', {printed("r.oid", "COALESCE(pg_catalog.pg_get_partition_constraintdef(r.oid), '')")},
        'own', {PRINTABLE_SQL.format("r.oid")} AND {OWN_SQL.format(kind="pg_class", oid="p.parentrelid AND own.objsubid = 0", besides="0")}
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table AS k JOIN pg_catalog.pg_opclass AS o ON o.oid = ANY (k.partclass::oid[])
                               WHERE k.partrelid = p.parentrelid AND o.opcnamespace <> 'pg_catalog'::regnamespace),
        'triggers', ARRAY(SELECT t.tgname::text FROM pg_catalog.pg_trigger AS t
                          WHERE t.tgrelid = r.oid AND NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled NOT IN ('D', 'R') ORDER BY 1)
     ) ORDER BY r.oid::regclass::text)
     FROM pg_catalog.pg_partition_tree(c.oid) AS p JOIN pg_catalog.pg_class AS r ON r.oid = p.relid WHERE p.level > 0)
"""
TIMES = ("timestamp with time zone", "timestamp without time zone", "date")
AHEAD = 7  # The days for which there must be a partition.


class Partitions(Checks):
    def of_partitions(self, table: Table) -> Iterator[Finding]:
        if table.kind == PARTITIONED:
            yield from self.of_gaps(table)
        for name in table.detaching:
            message = f"Partition {name} of {table.name} is detached only in part (DETACH … CONCURRENTLY was interrupted, or runs): queries do not see its rows."
            cure = f"ALTER TABLE {quote(table.name)} DETACH PARTITION {name} FINALIZE; if it is to stay, attach it again."
            yield Finding(Severity.WARNING, "table.partition", name, message, cure)
        for part in table.partitions:
            if not part.logged and part.leaf:
                message = f"Partition {part.name} of {table.name} is UNLOGGED: a crash empties it."
                cure = f"ALTER TABLE {part.name} SET LOGGED;"
                yield Finding(Severity.ERROR, "table.weaker", part.name, message, cure, is_sql=True)
            for name in part.triggers:
                message = f"Trigger {name} of {part.name}, a partition of {table.name}, is unmanaged and was not tried; it may change or reject our writes."
                yield Finding(Severity.NOTE, "trigger.extra", f"{part.name}.{name}", message, _read(part))
            yield from self.of_conditions(table, part)
            yield from self.of_uniques(table, part)

    def of_gaps(self, table: Table) -> Iterator[Finding]:
        """Yield the finding about rows that no partition takes: those inserted now, within a week, or only some of them."""
        leaves = [part for part in table.partitions if part.leaf]
        bounds = [f"({part.bound})" for part in leaves if part.bound]
        if len(bounds) < len(leaves):
            return
        taken = " OR ".join(bounds) or "false"
        managed = self.managed(table.name)
        used = [one for one in self.actual.columns if one.table == table.name and mentions(taken, one)]
        times = [column for column in used if kind(column) in TIMES and column.name in managed]
        names = [column.name for column in used if column not in times]
        own = all(part.own for part in table.partitions)
        row = Check(table.name, "", (), "", own=own)

        def trial(moment: str, taken_or_not: str) -> Trial:
            return self.trial(row, f"({_at(taken, times, moment)}) IS {taken_or_not}", names)

        found = trial("now()", "NOT TRUE") if leaves else Trial()
        refused = found.refused
        if not leaves or refused:
            takes_some = bool(leaves) and trial("now()", "TRUE").refused
            what = (
                f"some rows that the contract allows, such as {refused}"
                if takes_some
                else "the rows that are inserted now, so every INSERT fails"
            )
            sure = not takes_some and all(managed[column.name].default == "CURRENT_TIMESTAMP" for column in times)
            severity = Severity.ERROR if sure else Severity.WARNING
        elif not found.known:
            risk = "an INSERT fails where no partition accepts its row"
            yield self.untried("table.partition", table, f"Table {table.name} is partitioned", found, risk)
            return
        elif times and trial(f"(now() + '{AHEAD} days'::interval)", "NOT TRUE").refused:
            what, severity = f"the rows of {AHEAD} days from now: INSERTs will fail", Severity.WARNING
        else:
            return
        cure = (
            f"Create the partition: \\d+ {quote(table.name)} in `manage.py dbshell` prints the bounds of the others."
            " If a program such as pg_partman creates them, find out why it does not run."
        )
        yield Finding(severity, "table.partition", table.name, f"No partition of {table.name} takes {what}.", cure)

    def of_conditions(self, table: Table, part: Partition) -> Iterator[Finding]:
        """Yield the findings about the checks and the NOT NULL constraints that only a partition has."""
        alter = f"ALTER TABLE {part.name}"
        for check in self.actual.checks:
            if check.table == part.table and not check.inherited and check.enforced and check.expression.startswith("CHECK "):
                title = f"Constraint {check.name} of {part.name}, a partition of {table.name}, {' '.join(check.expression.split())}, is unmanaged"
                within = self.within(table, part, check.expression.removeprefix("CHECK "), check)
                for found in self.of_condition(within, title):
                    yield _placed(found, part, check.name, f"{alter} DROP CONSTRAINT {quote(check.name)};")
        free = {column.name for column in self.actual.columns if column.table == table.name and column.nullable}
        for column in self.actual.columns:
            if column.table == part.table and not column.nullable and column.name in free & self.managed(table.name).keys():
                title = f"NOT NULL of column {column.name} of {part.name}, a partition of {table.name}, is unmanaged"
                check = Check(table.name, column.name, (column.name,), "")
                for found in self.of_condition(self.within(table, part, f"({quote(column.name)} IS NOT NULL)", check), title):
                    yield _placed(found, part, column.name, f"{alter} ALTER COLUMN {quote(column.name)} DROP NOT NULL;")

    def of_uniques(self, table: Table, part: Partition) -> Iterator[Finding]:
        things: list[Key | Index] = [*self.actual.keys, *(one for one in self.actual.indexes if one.unique)]
        for thing in things:
            if thing.table != part.table:
                continue
            index = thing if isinstance(thing, Index) else self.expanded_index(thing)
            asked = (
                f"({index.predicate}) AND ({part.bound})" if index.predicate and part.bound else index.predicate or part.bound
            )
            uses = {*index.uses, *(column.name for column in self.used(table, part.bound))}
            index = replace(
                index, table=table.name, predicate=asked or None, uses=tuple(sorted(uses)), own=index.own and part.own
            )
            drop = f"DROP INDEX CONCURRENTLY {quote(thing.name)};"
            if isinstance(thing, Key):
                drop = f"ALTER TABLE {part.name} DROP CONSTRAINT {quote(thing.name)};"
            for found in self.of_unique(index):
                message = found.message.replace(f" of {table.name} ", f" of {part.name}, a partition of {table.name}, ", 1)
                yield _placed(replace(found, message=message), part, thing.name, drop)

    def within(self, table: Table, part: Partition, condition: str, check: Check) -> Check:
        """Return a check of `table` that refuses what `check` refuses of the rows of a partition."""
        expression = f"CHECK ((NOT ({part.bound})) OR {condition})" if part.bound else f"CHECK {condition}"
        columns = {*check.columns, *(column.name for column in self.used(table, part.bound))}
        return replace(
            check, table=table.name, columns=tuple(sorted(columns)), expression=expression, own=check.own and part.own
        )

    def used(self, table: Table, bound: str) -> list[Column]:
        return [column for column in self.actual.columns if column.table == table.name and mentions(bound, column)]


def _at(taken: str, times: list[Column], moment: str) -> str:
    for column in times:
        taken = with_column_replaced(taken, column.name, f"({moment})::{column.type}")
    return taken


def _read(part: Partition) -> str:
    return f"Read its definition with \\d+ {part.name} in `manage.py dbshell`."


def _placed(found: Finding, part: Partition, name: str, drop: str) -> Finding:
    """Return a finding about an object of a partition, with its own place and cure."""
    return replace(found, where=f"{part.name}.{name}", cure=_read(part) if found.cure == TRY else f"{AGREE}{drop}")
