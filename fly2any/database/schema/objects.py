"""The objects of the catalogue, as plain values that need no database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..sql import literal, quote
from ..unprintable_definitions import Unprintable

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
PARTITIONED = "partitioned table"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, at any level, of a partitioned table."""

    name: str  # qualified, if it is in another schema, and quoted
    table: str | None  # its bare name, None if it is in another schema
    leaf: bool  # it has rows, not partitions
    logged: bool
    bound: str  # the condition that its place puts on its rows, "" for none
    own: bool  # this condition calls nothing but PostgreSQL's own functions
    triggers: tuple[str, ...]  # those that the table above does not have


@dataclass(frozen=True, slots=True)
class Table:
    """A relation that rows can be written to."""

    table: str
    kind: str = "table"  # table, partitioned table, view, materialized view, foreign table
    logged: bool = True
    row_security: str | None = None  # active: policies apply to this role; bypassed: only to other roles
    # Not compared: the commands for which policies do not admit every row to this role, dropped columns, and the triggers and rules of any role, except those that run only in replication.
    restricted: tuple[str, ...] = field(default=(), compare=False)
    # Other roles that sign in, and the commands that they hold although no policy admits them.
    rejected: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    dropped_columns: int = field(default=0, compare=False)
    triggers: tuple[str, ...] = field(default=(), compare=False)
    # Those of them that set a column which the table does not have: name, writes, column.
    lacking: tuple[tuple[str, str, str], ...] = field(default=(), compare=False)
    # Those of them that set a column before an INSERT stores it: name, column.
    filling: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    notifying: tuple[str, ...] = field(default=(), compare=False)  # Those of them that send whole rows by NOTIFY.
    rules: tuple[tuple[str, str, str], ...] = field(
        default=(), compare=False
    )  # name, command, and ALSO, INSTEAD, INSTEAD WHERE or OFF
    owner: str = field(default="", compare=False)
    trusted: bool = field(default=True, compare=False)  # reading it runs no code of other roles
    held: tuple[str, ...] = field(default=PRIVILEGES, compare=False)  # privileges of this role
    held_by_column: tuple[str, ...] = field(
        default=(), compare=False
    )  # others, on each column by its own grants; a reader's SELECT on any
    owned: bool = field(default=True, compare=False)  # by this role, or one that it is a member of
    insertable: bool = field(default=True, compare=False)  # by this role, at least in a column
    partition_key: tuple[str, ...] = field(default=(), compare=False)  # its columns, of a partitioned table
    partitions: tuple[Partition, ...] = field(default=(), compare=False)  # of a table of ours
    detaching: tuple[str, ...] = field(default=(), compare=False)  # partitions whose DETACH … CONCURRENTLY has not finished
    partition_of: str | None = field(default=None, compare=False)  # a partitioned table
    bound: str | None = field(default=None, compare=False)  # the condition that this places on its rows
    unidentified: tuple[str, ...] = field(
        default=(), compare=False
    )  # publications that need a replica identity, which the table lacks
    unpublished: tuple[str, ...] = field(default=(), compare=False)  # publications without a generated column of the identity
    narrowed: tuple[str, ...] = field(default=(), compare=False)  # publications that omit identity columns
    # Foreign keys that prevent deletions: table, name, definition, referenced table, NOT NULL columns that ON DELETE would set to NULL, and an untrusted owner.
    kept_by: tuple[tuple[str, str, str, str, str, str], ...] = field(default=(), compare=False)
    # What rows meet that foreign keys to this table delete or change: table, name, referenced table, kind, name or definition, own and
    # referenced column, an untrusted owner, and the columns of this table with which they change, "" for a deletion.
    met: tuple[tuple[str, str, str, str, str, str, str, str, str], ...] = field(default=(), compare=False)
    # Foreign keys that prevent changes of other columns than the primary key, or a deletion that would change what they refer to ("" for
    # the columns): table, name, definition, referenced table, columns, untrusted owner.
    fixed_by: tuple[tuple[str, str, str, str, str, str], ...] = field(default=(), compare=False)
    owner_lacks: tuple[str, ...] = field(
        default=(), compare=False
    )  # what to grant its owner, as which foreign keys are checked
    # Functions that writes call and this role may not execute, or that find others by the search path: caller, signature, role, and that name.
    called: tuple[tuple[str, str, str, str], ...] = field(default=(), compare=False)
    children: tuple[str, ...] = field(default=(), compare=False)  # tables that inherit from it, qualified and quoted
    parents: tuple[str, ...] = field(default=(), compare=False)  # tables from which it inherits, but is no partition of

    @property
    def name(self) -> str:
        return self.table

    @property
    def readable(self) -> bool:
        """Return whether this role may read every column."""
        return "SELECT" in self.held


@dataclass(frozen=True, slots=True)
class Domain:
    """The constraints of a column's domain, including those of the domains it is based on."""

    type: str  # the base type
    default: str | None = None
    required: bool = False  # NOT NULL
    own: bool = True  # the defaults call nothing but PostgreSQL's own functions
    conditions: tuple[str | None, ...] = ()  # CHECK (… VALUE …); None where it calls functions that are not PostgreSQL's own


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence that belongs to a column, or that its default takes values from; not that of an identity column."""

    name: str  # qualified, if it is in another schema, and quoted
    largest: int
    owned: bool  # by the column
    shared: bool  # something else uses it
    of_table_owner: bool = True  # as its schema is, so no other role can give its name to another relation


@dataclass(frozen=True, slots=True)
class Column:
    table: str
    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    identity: str | None = None  # always, by default
    generated: str | None = None  # the expression
    collation: str | None = None  # where it is not the type's own
    virtual: bool = False  # generated when it is read, and not stored
    validated: bool = True  # False: its NOT NULL is NOT VALID, so existing rows were never checked
    # Not compared.
    own: bool = field(default=True, compare=False)  # its default or expression calls nothing but PostgreSQL's own functions
    domain: Domain | None = field(default=None, compare=False)
    readable: bool = field(default=True, compare=False)  # by this role
    plain: bool = field(default=False, compare=False)  # a long value is neither compressed nor moved out of its row
    used_by: tuple[str, ...] = field(default=(), compare=False)  # objects that prevent a change of its type
    casts: bool = field(
        default=False, compare=False
    )  # a cast of its type, or of one below it, calls a function of the type's owner
    sequences: tuple[Sequence, ...] = field(default=(), compare=False)
    inherited: bool = field(default=False, compare=False)  # from a table that has it too: its type cannot be changed

    @property
    def filled(self) -> str | None:
        """Return the expression that an INSERT without the column stores; None for NULL."""
        return self.default if self.default is not None or self.domain is None else self.domain.default

    @property
    def may_hold_null(self) -> bool:
        return self.nullable or not self.validated

    def numbers_as(self, other: Column) -> bool:
        """Return whether the column is an identity column, as `other` is, or a serial, whose rows get the same values."""
        if self.identity:
            return other.identity is not None
        own = [f"nextval({literal(one.name)}::regclass)" for one in self.sequences if one.owned]
        return other.identity == "by default" and self.type == other.type and self.default in own

    @property
    def can_be_left_out(self) -> bool:
        """Return whether an INSERT that does not name the column succeeds."""
        required = not self.nullable or (self.domain is not None and self.domain.required)
        return not required or self.filled is not None or self.identity is not None or self.generated is not None

    def sql(self) -> str:
        words = [quote(self.name), self.type]
        if self.collation:
            words.append(f"COLLATE {quote(self.collation)}")
        if self.generated:
            words.append(f"GENERATED ALWAYS AS ({self.generated}) {'VIRTUAL' if self.virtual else 'STORED'}")
        if self.identity:
            words.append(f"GENERATED {self.identity.upper()} AS IDENTITY")
        if self.default is not None:
            words.append(f"DEFAULT {self.default}")
        if not self.nullable:
            words.append("NOT NULL")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Key:
    """A primary key or a unique constraint, with the state of the index below it."""

    table: str
    name: str
    columns: tuple[str, ...]
    primary: bool = False
    deferrable: bool = False
    deferred: bool = False
    nulls_distinct: bool = True
    include: tuple[str, ...] = ()
    valid: bool = True
    used_by: tuple[str, ...] = field(
        default=(), compare=False
    )  # objects that prevent dropping it, besides foreign keys of this schema
    identifies: bool = field(default=False, compare=False)  # rows in logical replication: REPLICA IDENTITY USING INDEX

    def sql(self) -> str:
        kind = "PRIMARY KEY" if self.primary else "UNIQUE" if self.nulls_distinct else "UNIQUE NULLS NOT DISTINCT"
        include = f" INCLUDE ({_list(self.include)})" if self.include else ""
        deferrable = _deferral(self) if self.deferrable else ""
        return f"CONSTRAINT {quote(self.name)} {kind} ({_list(self.columns)}){include}{deferrable}"


@dataclass(frozen=True, slots=True)
class Check:
    table: str
    name: str
    columns: tuple[str, ...]
    expression: str  # CHECK (…), or EXCLUDE … or UNIQUE (…, … WITHOUT OVERLAPS), neither in the contract
    valid: bool = True
    enforced: bool = True
    own: bool = field(default=True, compare=False)  # it calls nothing but PostgreSQL's own functions
    inherited: bool = field(default=False, compare=False)  # from a table that has it too: it cannot be dropped

    def sql(self) -> str:
        return f"CONSTRAINT {quote(self.name)} {self.expression}{'' if self.enforced else ' NOT ENFORCED'}"


@dataclass(frozen=True, slots=True)
class ForeignKey:
    table: str
    name: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferrable: bool = False
    deferred: bool = False
    valid: bool = True  # False: NOT VALID, so existing rows were never checked
    enforced: bool = True  # False: NOT ENFORCED, or its triggers are disabled
    declared: bool = field(default=True, compare=False)  # False: NOT ENFORCED
    elsewhere: bool = False  # The target is in another schema, and its name qualified and quoted.
    full: bool = field(default=False, compare=False)  # MATCH FULL: all columns are NULL, or none
    # The triggers that act on a DELETE and an UPDATE of the target, which run in the order of their names.
    fires: tuple[str, ...] = field(default=(), compare=False)

    def actions(self) -> tuple[tuple[str, str], ...]:
        return ("DELETE", self.on_delete), ("UPDATE", self.on_update)

    def sql(self) -> str:
        words = [f"CONSTRAINT {quote(self.name)} FOREIGN KEY ({_list(self.columns)})"]
        target = self.target if self.elsewhere else quote(self.target)
        words.append(f"REFERENCES {target} ({_list(self.target_columns)})")
        words += [f"ON {event} {action}" for event, action in self.actions() if action != "NO ACTION"]
        return " ".join(words) + (_deferral(self) if self.deferrable else "")


# The copy that an interrupted REINDEX CONCURRENTLY leaves beside the index.
OF_REINDEX = re.compile(r"_cc(?:new|old)\d*$")


def of_invalid(index: Any) -> str:
    """Return what an invalid index still does, which depends on its `ready`."""
    if index.ready:
        return "no query uses it, but every write updates it"
    return "queries and writes ignore it, because its build or its removal was interrupted"


def of_incomplete(name: str) -> tuple[str, str]:
    """Return why the index of a partitioned table is invalid, and the cure: REINDEX rebuilds those of its partitions, and leaves it invalid."""
    cure = (
        "Give each partition such an index (REINDEX INDEX CONCURRENTLY repairs an invalid one), then for each:"
        f" ALTER INDEX {quote(name)} ATTACH PARTITION …;"
    )
    return "is invalid: at least one partition has no valid index that is attached to it", cure


@dataclass(frozen=True, slots=True)
class Index:
    """An index that no constraint owns."""

    table: str
    name: str
    columns: tuple[str, ...]  # names or expressions
    options: tuple[str, ...]  # for each column its collation, operator class and order, where they are not the default
    method: str = "btree"
    include: tuple[str, ...] = ()
    predicate: str | None = None
    unique: bool = False
    nulls_distinct: bool = True
    valid: bool = True
    ready: bool = True
    building: bool = field(default=False, compare=False)  # a session is building it, so it is not valid yet
    uses: tuple[str, ...] = field(default=(), compare=False)  # columns, those in expressions and the predicate included
    own: bool = field(default=True, compare=False)  # its expressions call nothing but PostgreSQL's own functions
    exact: bool = field(
        default=True, compare=False
    )  # no two different values are equal, unlike in citext or a case-insensitive collation
    identifies: bool = field(default=False, compare=False)  # as for a key
    parts: tuple[bool, ...] = field(default=(), compare=False)  # for each column, whether entries hold only parts of a value

    def sql(self) -> str:
        columns = ", ".join(
            f"{quote(column) if column.isidentifier() else column} {option}".strip()
            for column, option in zip(self.columns, self.options, strict=True)
        )
        words = [
            "CREATE",
            "UNIQUE INDEX" if self.unique else "INDEX",
            "CONCURRENTLY",
            quote(self.name),
            "ON",
            quote(self.table),
        ]
        words += ["USING", self.method, f"({columns})"]
        if self.include:
            words.append(f"INCLUDE ({_list(self.include)})")
        if not self.nulls_distinct:
            words.append("NULLS NOT DISTINCT")
        if self.predicate:
            words.append(f"WHERE {self.predicate}")
        return " ".join(words)


Object = Table | Column | Key | Check | ForeignKey | Index


def where(thing: Object) -> str:
    """Return the place of an object, as reports name it: `table`, or `table.name`."""
    return thing.table if isinstance(thing, Table) else f"{thing.table}.{thing.name}"


def key_of(thing: Object) -> tuple[type, str, str]:
    """Return the identity of an object, whatever its definition."""
    return type(thing), thing.table, thing.name


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything in a schema that the contract covers, each list ordered by table and name."""

    tables: tuple[Table, ...] = ()
    columns: tuple[Column, ...] = ()
    keys: tuple[Key, ...] = ()
    checks: tuple[Check, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    indexes: tuple[Index, ...] = ()
    unprintable: tuple[Unprintable, ...] = field(default=(), compare=False)  # What the server could not print, in any schema.

    def __iter__(self) -> Iterator[Any]:
        for kind in KINDS:
            yield from getattr(self, kind.name)

    def hides_rows(self, table: str) -> bool:
        """Return whether row-level security may hide rows of a table from this role."""
        return any("SELECT" in one.restricted for one in self.tables if one.name == table)

    def where(self, keep: Callable[[Any], bool]) -> Catalog:
        """Return the catalogue of the objects for which `keep` is true."""
        return self._each(lambda things: filter(keep, things))

    def with_instead(self, old: Object, new: Object) -> Catalog:
        return self._each(lambda things: (new if thing is old else thing for thing in things))

    def renamed_table(self, old: str, new: str) -> Catalog:
        """Return the catalogue as it would be with the table `old` under the name `new`."""

        def rename(thing):
            changes = {"table": new} if thing.table == old else {}
            if isinstance(thing, ForeignKey) and thing.target == old:
                changes["target"] = new
            return replace(thing, **changes)

        return self._each(lambda things: map(rename, things))

    def renamed_column(self, table: str, old: str, new: str) -> Catalog:
        """Return the catalogue as it would be with the column `old` of `table` under the name `new`.

        Expressions (checks, predicates) keep the name they were read with.
        """

        def rename(thing):
            changes: dict[str, Any] = {}
            if thing.table == table:
                if isinstance(thing, Column) and thing.name == old:
                    changes["name"] = new
                for attribute in ("columns", "include"):
                    if hasattr(thing, attribute):
                        changes[attribute] = tuple(new if column == old else column for column in getattr(thing, attribute))
            if isinstance(thing, ForeignKey) and thing.target == table:
                changes["target_columns"] = tuple(new if column == old else column for column in thing.target_columns)
            return replace(thing, **changes)

        return self._each(lambda things: map(rename, things))

    def _each(self, change: Callable[[Iterable[Any]], Iterable[Any]]) -> Catalog:
        kinds: dict[str, Any] = {kind.name: tuple(change(getattr(self, kind.name))) for kind in KINDS}
        return replace(self, **kinds)


KINDS = tuple(kind for kind in fields(Catalog) if kind.compare)


def _deferral(thing: Key | ForeignKey) -> str:
    return f" DEFERRABLE INITIALLY {'DEFERRED' if thing.deferred else 'IMMEDIATE'}"


def _list(columns: Iterable[str]) -> str:
    return ", ".join(map(quote, columns))
