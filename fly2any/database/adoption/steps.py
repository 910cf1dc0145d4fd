"""The steps of an adoption, in order: their statements, the locks they take, and for how long; assessment.py decides which are due.

No step rewrites a table: `is_convertible` (convertible.py) decides which columns may change their type. Only `add_column` writes rows,
in batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..schema import Catalog, Check, Column, Key
from ..schema.contract import MAY_BE_NULL
from ..sql import fetch_all, quote
from ..units import plural
from .convertible import ADDED, NOT_NULL, added_columns, index_for, index_of, is_convertible, is_ours

REBUILT_PER_SECOND = 25 * 2**20  # Bytes of index, on a small machine; benchmarks/adoption.py measures it.
BATCH = 5_000  # Rows filled per transaction.

# The indexes over each column, including those of constraints; `trouble` says why rebuilding one for another type may fail.
INDEXED_SQL = """
    SELECT c.relname AS "table", a.attname AS "column", x.relname AS index, pg_catalog.pg_relation_size(x.oid) AS bytes,
           CASE WHEN NOT a.attnum = ANY (i.indkey::int2[]) THEN 'uses the column in an expression or a condition'
                WHEN i.indisunique AND NOT i.indisvalid THEN 'is unique and invalid, because its build failed'
                WHEN EXISTS (SELECT FROM unnest(i.indkey::int2[], i.indclass::oid[]) AS k (attnum, class)
                             JOIN pg_catalog.pg_opclass AS o ON o.oid = k.class WHERE k.attnum = a.attnum AND NOT o.opcdefault)
                THEN 'has an operator class other than the default of the type' ELSE '' END AS trouble
    FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s)
      AND (a.attnum = ANY (i.indkey::int2[])
           OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = x.oid
                        AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum))
    ORDER BY c.relname COLLATE "C", x.relname COLLATE "C", a.attname COLLATE "C"
"""

WITHOUT_STATISTICS_SQL = """
    SELECT c.relname, a.attname
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.atttypid = 'timestamptz'::regtype AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
    WHERE n.nspname = %(schema)s AND c.relname = ANY (%(tables)s) AND c.reltuples > 0 AND s.attname IS NULL
"""

# From the weakest to the strongest, and the statements that each blocks.
LOCKS = ("", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE")
BLOCKED = {
    "": "nothing waits",
    "ROW EXCLUSIVE": "only writes to the same rows wait",
    "SHARE UPDATE EXCLUSIVE": "reads and writes do not wait",
    "SHARE": "writes wait",
    "SHARE ROW EXCLUSIVE": "writes wait",
    "ACCESS EXCLUSIVE": "reads and writes wait",
}


@dataclass(frozen=True, slots=True)
class Indexed:
    table: str
    column: str
    index: str
    bytes: int
    trouble: str


@dataclass(frozen=True, slots=True)
class Step:
    """Transactions, each of some statements; a concurrent build runs outside of one.

    Sizes are in bytes; `seconds` estimates how long the lock is held after it was granted.
    """

    table: str
    what: str
    transactions: tuple[tuple[str, ...], ...]
    index_bytes: int = 0  # rebuilt while the lock is held
    repeated: str = ""  # while this query returns true
    fills: str = ""  # the column that it updates
    undo: str = ""  # run if a row violates the new constraint
    may_fail: bool = False  # because of that row; the column then stays unchanged

    @property
    def statements(self) -> tuple[str, ...]:
        return tuple(statement for transaction in self.transactions for statement in transaction)

    @property
    def lock(self) -> str:
        """Return the strongest lock that it takes on an existing table, "" for none."""
        return max(map(lock_of, self.statements), key=LOCKS.index, default="")

    @property
    def retypes(self) -> bool:
        """Return whether it changes the type of a column, which invalidates the cached plans of other clients."""
        return any(statement.startswith("ALTER TABLE ") and " TYPE " in statement for statement in self.statements)

    @property
    def seconds(self) -> float:
        return self.index_bytes / REBUILT_PER_SECOND


def lock_of(statement: str) -> str:
    """Return the lock that `statement` takes on existing tables, as PostgreSQL's manual names it."""
    words = " ".join(statement.split()).removeprefix("SET CONSTRAINTS ALL IMMEDIATE; ")
    if words.startswith("ALTER TABLE"):
        if " VALIDATE CONSTRAINT " in words:
            return "SHARE UPDATE EXCLUSIVE"
        adds_key = re.search(r"ADD CONSTRAINT \S+ FOREIGN KEY", words) and " DROP " not in words
        return "SHARE ROW EXCLUSIVE" if adds_key else "ACCESS EXCLUSIVE"
    if re.match(r"(CREATE (UNIQUE )?INDEX|REINDEX INDEX|DROP INDEX) CONCURRENTLY|ALTER INDEX|ANALYZE", words):
        return "SHARE UPDATE EXCLUSIVE"
    if re.match("CREATE (UNIQUE )?INDEX", words):
        return "SHARE"
    if re.match("UPDATE|INSERT|DELETE", words):
        return "ROW EXCLUSIVE"
    return "" if re.match("CREATE (EXTENSION|TABLE)|COMMENT|SELECT|SET|BEGIN|COMMIT", words) else "ACCESS EXCLUSIVE"


def read_without_statistics(connection, *, schema: str, tables: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return the time columns of non-empty `tables` that have no planner statistics, as (table, column)."""
    return frozenset(fetch_all(connection, WITHOUT_STATISTICS_SQL, {"schema": schema, "tables": list(tables)}))


def read_indexed(connection, *, schema: str, tables: Iterable[str]) -> tuple[Indexed, ...]:
    """Return the indexes of `tables`, one entry for each indexed column."""
    return tuple(Indexed(*row) for row in fetch_all(connection, INDEXED_SQL, {"schema": schema, "tables": list(tables)}))


def conversion(
    expected: Catalog, live: Catalog, indexed: Iterable[Indexed], *, nulls: frozenset, without_statistics: frozenset
) -> Iterator[Step]:
    """Yield the steps that convert `live`, which has no drift, to `expected`, table by table.

    `nulls` are the (table, column) pairs of MAY_BE_NULL that stay nullable; `without_statistics` those that still lack statistics after an
    interrupted run.
    """
    existing = {(column.table, column.name): column for column in live.columns}
    added = added_columns(expected)
    for table in expected.tables:
        columns = [column for column in expected.columns if column.table == table.name]
        retyped = [c for c in columns if (c.table, c.name) in existing and is_convertible(c, existing[c.table, c.name])]
        keys = [key for key in expected.keys if key.table == table.name and not key.primary and index_of(key, live)]
        if retyped or keys:
            names = {column.name for column in retyped}
            sizes = {entry.index: entry.bytes for entry in indexed if entry.table == table.name and entry.column in names}
            yield Step(
                table.name,
                _description(retyped, keys, sizes),
                (tuple(_convert(table.name, retyped, keys)),),
                sum(sizes.values()),
            )
        if to_analyze := [c for c in columns if c in retyped or (c.table, c.name) in without_statistics]:
            listed = ", ".join(quote(column.name) for column in to_analyze)
            # A change of type discards them, and autovacuum is not triggered by it.
            yield Step(table.name, "planner statistics of the time columns", ((f"ANALYZE {quote(table.name)} ({listed})",),))
        required = {column.name for column in columns if _is_to_be_required(column, existing, nulls)}
        for check in live.checks:
            if check.table == table.name and is_ours(check) and not required.intersection(check.columns):
                yield Step(table.name, "drop the check left by an interrupted run", ((_drop(check),),))
        for column in columns:
            live_column = existing.get((column.table, column.name))
            if column in added:
                yield from add_column(column, live_column, live)
            elif column.name in required:
                yield require(column, may_fail=True)


def _is_to_be_required(column: Column, existing: dict[tuple[str, str], Column], nulls: frozenset) -> bool:
    place = (column.table, column.name)
    live_column = existing.get(place)
    if place in MAY_BE_NULL:
        return live_column is not None and live_column.may_hold_null and not column.nullable and place not in nulls
    return place in ADDED and (live_column is None or live_column.may_hold_null)


def _drop(check: Check) -> str:
    return f"ALTER TABLE {quote(check.table)} DROP CONSTRAINT {quote(check.name)}"


def _description(retyped: list[Column], keys: list[Key], sizes: dict[str, int]) -> str:
    parts = []
    if retyped:
        rebuilt = f", {plural(len(sizes), 'index', 'indexes')} rebuilt" if sizes else ""
        parts.append(f"{plural(len(retyped), 'time column')} to {retyped[0].type}{rebuilt}")
    if keys:
        parts.append(
            plural(
                len(keys),
                "unique index becomes a constraint of the same name",
                "unique indexes become constraints of the same names",
            )
        )
    return "; ".join(parts)


def _convert(table: str, retyped: list[Column], keys: list[Key]) -> Iterator[str]:
    if retyped:
        # One statement, so that an index over two of the columns is built once. Without USING and with the time zone UTC no row is
        # rewritten.
        types = ", ".join(f"ALTER COLUMN {quote(column.name)} TYPE {column.type}" for column in retyped)
        yield f"ALTER TABLE {quote(table)} {types}"
    for key in keys:
        yield f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(key.name)} UNIQUE USING INDEX {quote(key.name)}"


def add_column(column: Column, live_column: Column | None, live: Catalog) -> Iterator[Step]:
    """Yield the steps that add a column whose default differs in each row, without a table rewrite, and its primary key."""
    table, name = column.table, column.name
    alter = f"ALTER TABLE {quote(table)}"
    if live_column is None or live_column.default is None:
        adds = [f"{alter} ADD COLUMN {quote(name)} {column.type}"] if live_column is None else []
        default = f"{alter} ALTER COLUMN {quote(name)} SET DEFAULT {column.default}"
        yield Step(table, f"the column {name}, with its default for new rows", ((*adds, default),))
    if live_column is None or live_column.may_hold_null:
        batch = f"SELECT ctid FROM {quote(table)} WHERE {quote(name)} IS NULL LIMIT {BATCH}"
        update = f"UPDATE {quote(table)} SET {quote(name)} = DEFAULT WHERE ctid = ANY (ARRAY({batch}))"
        yield Step(
            table, f"{name} of the existing rows, {BATCH:,} at a time", ((update,),), repeated=is_null(column), fills=name
        )
        yield require(column)
    if not any(key.table == table and key.primary for key in live.keys):
        key = f"{table}_pkey"
        if Key(table, key, (name,)) in live.keys:
            yield Step(
                table,
                f"drop the unique constraint {key} left by an interrupted run",
                ((f"{alter} DROP CONSTRAINT {quote(key)}",),),
            )
        if index_for(Key(table, key, (name,), primary=True)) not in live.indexes:
            build = f"CREATE UNIQUE INDEX CONCURRENTLY {quote(key)} ON {quote(table)} ({quote(name)})"
            yield Step(table, f"the index of the primary key {key}", ((build,),))
        use = f"{alter} ADD CONSTRAINT {quote(key)} PRIMARY KEY USING INDEX {quote(key)}"
        yield Step(table, f"the primary key {key}", ((use,),))


def is_null(column: Column) -> str:
    """Return the query whether a column is NULL in any row."""
    return f"SELECT EXISTS (SELECT FROM {quote(column.table)} WHERE {quote(column.name)} IS NULL)"


def require(column: Column, *, may_fail: bool = False) -> Step:
    """Return the step that makes a column NOT NULL, checking the rows without blocking other sessions."""
    alter, name = f"ALTER TABLE {quote(column.table)}", quote(f"{NOT_NULL}_{column.name}")
    drop = f"{alter} DROP CONSTRAINT IF EXISTS {name}"
    transactions = (
        (drop, f"{alter} ADD CONSTRAINT {name} CHECK ({quote(column.name)} IS NOT NULL) NOT VALID"),
        (f"{alter} VALIDATE CONSTRAINT {name}",),
        # With a valid check PostgreSQL does not scan the rows again.
        (f"{alter} ALTER COLUMN {quote(column.name)} SET NOT NULL", drop),
    )
    return Step(column.table, f"{column.name} NOT NULL", transactions, undo=drop, may_fail=may_fail)


def repair(code: str, thing, cure: str) -> tuple[Step, ...]:
    """Return the steps that repair a finding without losing data, () if the cure could lose some."""
    kind, _, verdict = code.partition(".")
    if code == "column.weaker":
        return (require(thing),)
    if verdict == "missing" and re.search(
        r"^(DROP|ALTER \w+ \S+ (RENAME|DROP CONSTRAINT|REPLICA IDENTITY DEFAULT))", cure, re.M
    ):
        return ()  # An unmanaged object has this name.
    if isinstance(thing, Key) and verdict == "missing":
        word = "PRIMARY KEY" if thing.primary else "UNIQUE"
        build = index_for(thing).sql()
        use = f"ALTER TABLE {quote(thing.table)} ADD CONSTRAINT {quote(thing.name)} {word} USING INDEX {quote(thing.name)}"
        return (Step(thing.table, f"the key {thing.name}", ((build,), (use,))),)
    safe = (
        code == "default.missing"
        or (code == "unique.different" and re.fullmatch(r"ALTER TABLE .* USING INDEX \S+", cure) is not None)
        or (verdict == "renamed" and kind in ("unique", "primary_key", "index", "foreign_key"))
        or code in ("index.missing", "foreign_key.missing", "foreign_key.weaker")
        or (code in ("index.weaker", "unique.weaker", "primary_key.weaker") and cure.startswith("REINDEX "))
    )
    if not safe:
        return ()
    statements = [line.rstrip(";") for line in cure.splitlines() if not line.startswith("--")]
    if code != "foreign_key.weaker" and any(re.search(r"\bDROP (INDEX|CONSTRAINT)\b", statement) for statement in statements):
        return ()  # An unmanaged object has this name.
    # A foreign key is dropped and recreated in one transaction, and validated in another.
    transactions = (tuple(statements[:-1]), tuple(statements[-1:])) if len(statements) > 1 else (tuple(statements),)
    return (Step(thing.table, f"{kind.replace('_', ' ')} {thing.name}", transactions),)
