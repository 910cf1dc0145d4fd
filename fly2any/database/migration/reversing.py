"""Reversals: finds what a migration drops inside its transaction, before it is committed; `losses` has the consent.

Tables and columns are compared by their numbers in the catalogue, so neither names nor the kind of operation matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import Error, transaction

from ..errors import Refusal, sqlstate
from ..sql import RECORD, quote
from ..trusted_roles import TRUSTED_SQL
from .losses import MOST_COUNTED, Consent, Loss

T = TypeVar("T")

# Counts of deleted and changed rows may include earlier transactions: only differences between them mean something.
TABLES_SQL = """
    SELECT c.oid, n.nspname, c.relname, n.nspname = current_schema(), c.relfilenode,
           pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid), pg_catalog.pg_stat_get_xact_tuples_updated(c.oid)
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    ORDER BY c.oid
"""
COLUMNS_SQL = """
    SELECT a.attrelid, a.attnum, a.attname
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attrelid, a.attnum
"""
# Without what other sessions drop meanwhile, because this session has not locked it.
LOCKED_SQL = """
    SELECT l.relation FROM pg_catalog.pg_locks AS l
    WHERE l.pid = pg_catalog.pg_backend_pid() AND l.mode = 'AccessExclusiveLock' AND l.granted AND l.relation IS NOT NULL
    ORDER BY l.relation
"""
# Reading another role's table would run the functions that its indexes call.
COUNTABLE_SQL = f"""
    SELECT n.nspname, c.relname,
           {TRUSTED_SQL} AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'DELETE')
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = %s::pg_catalog.oid
"""
XACT_SQL = "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text, pg_catalog.current_setting('track_counts')"
UNCOUNTED = "hides the rows that it deletes or changes, because track_counts is off (turn it on)"
SETTING_SQL = "SELECT pg_catalog.current_setting(%s)"
SET_SQL = "SELECT pg_catalog.set_config(%s, %s, true)"
# Rows that a policy hides are an error; the site waits while rows are counted.
COUNTING = {"row_security": "off", "statement_timeout": "2s"}
TOO_LONG = "57014"

LITERALS = re.compile(r"""[eE]'(?:[^'\\]|\\.)*'|'[^']*'|"[^"]*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/""", re.S)
CONTROLS = re.compile(
    r"(?:^|;)\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:\w+\s+)?TO\b))\b", re.I
)
SAVEPOINT = re.compile(r"\s*(?:SAVEPOINT|RELEASE|ROLLBACK\s+(?:\w+\s+)?TO)\b[^;]*;?\s*", re.I)
OUTSIDE = ("25001", "2D000")  # Cannot run inside a transaction block; a procedure ends its transaction.


@dataclass(frozen=True, slots=True)
class Dropped:
    """A table that is dropped, or rewritten or emptied, or a column that is dropped; `number` is 0 for a whole table."""

    oid: int
    number: int
    doing: str
    table: str
    column: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The tables and columns at a moment of a transaction."""

    xact: str
    tables: dict[int, tuple[str, int, int, int]]  # its name, its file, and the rows deleted and changed
    columns: dict[tuple[int, int], str]

    def taken(self, after: State, locked: set[int]) -> Iterator[Dropped]:
        """Yield what exists in this state but not in `after`, of the tables in `locked`."""
        for oid, (name, file, _, _) in self.tables.items():
            if oid in locked and oid not in after.tables:
                yield Dropped(oid, 0, "would drop", name)
            elif oid in locked and after.tables[oid][1] != file:
                yield Dropped(oid, 0, "would rewrite or empty", name)
        for (oid, number), column in self.columns.items():
            if oid in locked and oid in self.tables and oid in after.tables and (oid, number) not in after.columns:
                yield Dropped(oid, number, "would drop", self.tables[oid][0], column)

    def written(self, after: State) -> Iterator[Loss]:
        """Yield the rows of tables that stay which were deleted or changed between this state and `after`."""
        for oid in self.tables.keys() & after.tables.keys():
            name, _, *before = self.tables[oid]
            for doing, earlier, later in zip(("would delete", "would change"), before, after.tables[oid][2:], strict=True):
                if later > earlier and name != RECORD:
                    yield Loss(name, rows=later - earlier, doing=f"{doing} rows of")


class UncountedError(Exception):
    """A run dropped something that was not counted before; its transaction is rolled back."""

    def __init__(self, taken: frozenset[Dropped], written: list[Loss]):
        self.taken, self.written = taken, written


class LossError(Exception):
    """A run would lose rows without consent; its transaction is rolled back."""

    def __init__(self, lost: list[Loss]):
        self.lost = lost


class Reversal:
    """The reversal of one migration; `watched` is the context for a statement that may wait for a lock."""

    def __init__(self, connection, migration: str, consent: Consent, watched: Callable[[], AbstractContextManager]):
        self.connection, self.migration, self.consent, self.watched = connection, migration, consent, watched
        self.compared = False  # Whether a transaction is open whose states are compared.

    def transaction(self, action: Callable[[], T]) -> T:
        """Return what `action` returns, run in a transaction. Raises Refusal if rows would be lost without consent.

        A first run determines the losses and is rolled back; the next one first locks those tables and counts their rows.
        """
        expected, written = frozenset[Dropped](), list[Loss]()
        while self.consent.is_reset or not self.consent.given:
            try:
                return self._once(action, expected, written)
            except UncountedError as error:
                expected, written = expected | error.taken, error.written
            except LossError as error:
                if self.consent.given:  # Rows that cannot be counted are lost too.
                    break
                self._ask(error.lost)
        return action()

    def statement(self, text: str, action: Callable[[], T]) -> T:
        """Return what `action` returns, which runs the statement `text`."""
        if self.consent.given or (self.connection.in_atomic_block and SAVEPOINT.fullmatch(text)):
            return action()
        if CONTROLS.search(LITERALS.sub("", text)):
            self._ask([Loss("", doing="begins or ends a transaction itself, which hides what it drops")])
            return action()
        if self.compared:
            return action()
        try:
            return self.transaction(action)
        except Error as error:
            if self.connection.in_atomic_block or sqlstate(error) not in OUTSIDE:
                raise
        self._ask([Loss("", doing="runs SQL outside a transaction, which hides what it drops")])
        return action()

    def _ask(self, lost: list[Loss]) -> None:
        self.consent.ask(f"Reversing {self.migration}", lost, "it was not reversed")

    def _once(self, action: Callable[[], T], expected: frozenset[Dropped], written: list[Loss]) -> T:
        outer, self.compared = self.compared, True
        try:
            with transaction.atomic(using=self.connection.alias):
                lost = [*self._counted(expected), *written]
                if lost and not self.consent.given:
                    raise LossError(lost)
                before = self._read()
                result = action()
                after = self._read()
                if after.xact != before.xact:
                    raise Refusal(
                        f"{self.migration} ended its own transaction, so its losses could not be determined in time: compare the tables"
                        " with a backup."
                    )
                taken = frozenset(before.taken(after, {oid for (oid,) in self._rows(LOCKED_SQL)}))
                written = [] if self.consent.is_reset else sorted(before.written(after), key=str)
                if written or not taken <= expected:
                    raise UncountedError(taken, written)
            self.consent.lost += lost
            return result
        finally:
            self.compared = outer

    def _read(self) -> State:
        xact, counting = self._rows(XACT_SQL)[0]
        if counting != "on" and not self.consent.is_reset:
            raise LossError([Loss("", doing=UNCOUNTED)])
        return State(
            xact,
            {
                oid: (table if ours else f"{schema}.{table}", file, deleted or 0, changed or 0)
                for oid, schema, table, ours, file, deleted, changed in self._rows(TABLES_SQL)
            },
            {(oid, number): name for oid, number, name in self._rows(COLUMNS_SQL)},
        )

    def _counted(self, expected: Iterable[Dropped]) -> Iterator[Loss]:
        """Lock the objects expected to be dropped, and yield the losses among them that have, or may have, rows."""
        if not expected:
            return
        with self._settings(COUNTING):
            for one in sorted(expected, key=lambda one: (one.oid, one.number)):
                rows = self._count(one)
                if rows != 0:
                    yield Loss(one.table, one.column, rows, one.doing)

    def _count(self, one: Dropped) -> int | None:
        found = self._rows(COUNTABLE_SQL, one.oid)
        if not found:
            return 0
        schema, table, countable = found[0]
        if not countable:
            return None
        place = f"ONLY {quote(schema)}.{quote(table)}"
        having = f" WHERE {quote(one.column)} IS NOT NULL" if one.column else ""
        with self.watched():
            self._run(f"LOCK TABLE {place} IN ACCESS EXCLUSIVE MODE")
        try:
            return self._rows(f"SELECT pg_catalog.count(*) FROM (SELECT 1 FROM {place}{having} LIMIT {MOST_COUNTED}) AS rows")[
                0
            ][0]
        except Error as error:
            if sqlstate(error) != TOO_LONG:
                raise
        raise LossError([Loss(one.table, one.column, None, one.doing)])  # The transaction has failed: no more can be counted.

    @contextmanager
    def _settings(self, settings: dict[str, str]) -> Iterator[None]:
        before = {name: self._rows(SETTING_SQL, name)[0][0] for name in settings}
        for name, value in settings.items():
            self._run(SET_SQL, name, value)
        yield
        for name, value in before.items():
            self._run(SET_SQL, name, value)

    def _rows(self, question: str, *parameters: Any) -> list[tuple]:
        return self._run(question, *parameters).fetchall()

    def _run(self, statement: str, *parameters: Any) -> Any:
        with self.connection.wrap_database_errors:
            return self.connection.connection.execute(statement, parameters or None)
