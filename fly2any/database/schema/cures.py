"""SQL that cures a difference: statements, one per line, each ending in ";", and the queries and comments that belong to them.

Indexes are built CONCURRENTLY, and foreign keys and checks are first NOT VALID, so that writes continue. Other cures hold a lock
until they are done: `add` builds the index of a key, `require` scans the table, and `store` and `retype` may rewrite it.
A cure that drops something and creates it again does both in one statement, or the new one first: if it is interrupted, the old
one remains.
report/script.py prints the cures as a script (`dbstatus --sql`), and report/text.py each beside its finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..sql import literal, quote
from .objects import Catalog, Check, Column, ForeignKey, Index, Key, Object, Table
from .type_changes import LARGEST, MODIFIER, TIMES, converted, is_text

Constraint = Key | Check | ForeignKey
OF_OWNER = re.compile(r"^(?:ALTER (?:TABLE|INDEX)|CREATE (?:UNIQUE )?INDEX|DROP INDEX|REINDEX|DO)\b", re.MULTILINE)
TRIGRAMS = re.compile(r"\bgin_trgm_ops\b")
ALTER_WORDS = {"view": "VIEW", "materialized view": "MATERIALIZED VIEW", "foreign table": "FOREIGN TABLE"}


def create_table(table: Table, expected: Catalog, before: Iterable[str] = ()) -> str:
    """Return the statements that create `table` without its foreign keys, at once with those `before`."""
    parts = [column.sql() for column in expected.columns if column.table == table.name]
    parts += [key.sql() for key in expected.keys if key.table == table.name]
    parts += [check.sql() for check in expected.checks if check.table == table.name]
    indexes = [f"{index.sql()};" for index in expected.indexes if index.table == table.name]
    return "\n".join([together([*before, f"CREATE TABLE {quote(table.name)} ({', '.join(parts)});"]), *indexes])


def rename_to_old(table: Table) -> str:
    word = ALTER_WORDS.get(table.kind, "TABLE")
    return set_aside(word, table.name)


def set_aside(word: str, name: str) -> str:
    """Return the statement that frees the name of an object of the kind `word`."""
    return f"ALTER {word} {quote(name)} RENAME TO {quote(old_name(name))};"


def old_name(name: str) -> str:
    """Return the name of an object that is set aside."""
    return f"{name.encode()[:59].decode(errors='ignore')}_old"  # PostgreSQL would cut a longer name to the same one.


def add_column(column: Column) -> str:
    alter = f"ALTER TABLE {quote(column.table)}"
    if (
        column.default == "CURRENT_TIMESTAMP"
    ):  # Existing rows get milliseconds, because Prisma would not find them by a more precise time.
        filled = replace(column, default="pg_catalog.date_trunc('milliseconds', CURRENT_TIMESTAMP)")
        return f"{alter} ADD COLUMN {filled.sql()};\n{alter} ALTER COLUMN {quote(column.name)} SET DEFAULT {column.default};"
    if column.can_be_left_out:
        return f"{alter} ADD COLUMN {column.sql()};"
    return f"{alter} ADD COLUMN {replace(column, nullable=True).sql()};\n{require(column)}"


def require(column: Column) -> str:
    """Return the cure that makes a column NOT NULL, with the query for the rows that block it."""
    table, name = quote(column.table), quote(column.name)
    return f"{comment(f'Fill first: SELECT * FROM {table} WHERE {name} IS NULL')}\nALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL;"


def repair_identity(column: Column, live: Column) -> str:
    alter = f"ALTER TABLE {quote(column.table)} ALTER COLUMN {quote(column.name)}"
    if column.identity is None:
        return f"{alter} DROP IDENTITY;"
    if live.identity is not None:
        return f"{alter} SET GENERATED {column.identity.upper()};"
    statements = [require(column)] if live.may_hold_null else []
    owned = [one for one in live.sequences if one.owned]
    # As long as it belongs to the column, pg_get_serial_sequence may return it.
    statements += [f"ALTER SEQUENCE {one.name} OWNED BY NONE;" for one in owned]
    dropped = f" DROP DEFAULT, ALTER COLUMN {quote(column.name)}" if live.default is not None else ""
    made = f"{alter}{dropped} ADD GENERATED {column.identity.upper()} AS IDENTITY;"
    sequence = f"pg_catalog.pg_get_serial_sequence({literal(quote(column.table))}, {literal(column.name)})"
    limit = LARGEST.get(column.type)
    last = [f"SELECT max({quote(column.name)}) FROM {quote(column.table)}"]
    for one in filter(lambda sequence: sequence.of_table_owner, live.sequences):  # A view of another role would run its code.
        fits = f" WHERE last_value <= {limit}" if limit and one.largest > limit else ""
        last.append(f"SELECT last_value - (NOT is_called)::int FROM {one.name}{fits}")
    used = f"SELECT GREATEST({', '.join(f'({one})' for one in last)}, 0) AS last"
    # In one transaction, because an INSERT in between would take a number that is in use, or will be.
    statements.append(
        at_once(made, f"PERFORM pg_catalog.setval({sequence}::regclass, GREATEST(last, 1), last > 0) FROM ({used}) AS used;")
    )
    return "\n".join([*statements, *(f"DROP SEQUENCE {one.name};" for one in owned if not one.shared)])


def at_once(*statements: str) -> str:
    """Return one statement of PL/pgSQL that runs `statements`."""
    body, tag = "\n".join(statements), "$$"
    while tag in body:  # As the name of another role's sequence may be chosen.
        tag = f"$a{tag[1:]}"
    return f"DO {tag} BEGIN\n{body}\nEND {tag};"


def together(statements: Sequence[str]) -> str:
    """Return one statement that runs `statements`."""
    return at_once(*statements) if len(statements) > 1 else statements[0]


def mentions(expression: str | None, column: Column) -> bool:
    """Return whether an expression may use a column, because it contains its name."""
    return expression is not None and re.search(rf"(?<![\w$]){re.escape(column.name)}(?![\w$])", expression) is not None


def blocked(blockers: Iterable[str], what: str = "column") -> str:
    """Return why a column or key cannot be changed as long as other objects use it, "" if none does."""
    names = ", ".join(blockers)
    return names and f"first save the definition of what uses the {what} and drop it; create it again afterwards: {names}"


def after(blockers: Iterable[str], cure: str, what: str = "column") -> str:
    return preceded(blocked(blockers, what), cure)


def preceded(why: str, cure: str) -> str:
    """Return a cure after a comment that says why, or by whom, it is run; only the cure if that is ""."""
    return f"{comment(why[0].upper() + why[1:])}\n{cure}" if why else cure


def generate(column: Column, live: Column, actual: Catalog) -> str:
    """Return the statements that recreate `column` as generated: no version of PostgreSQL can convert an existing column."""
    actions = [f"DROP COLUMN {quote(column.name)}", *_again(column, live, actual)]
    return together([f"ALTER TABLE {quote(column.table)} {', '.join(actions)};", *_indexes_again(live, actual)])


def _again(column: Column, live: Column, actual: Catalog) -> Iterable[str]:
    """Yield the actions of ALTER TABLE that recreate a column and the constraints that PostgreSQL drops with it."""
    yield f"ADD COLUMN {column.sql()}"
    constraints: tuple[Any, ...] = (*actual.keys, *actual.checks, *actual.foreign_keys)
    for thing in constraints:
        if thing.table == live.table and live.name in (*thing.columns, *getattr(thing, "include", ())):
            yield f"ADD {thing.sql()}"
            if getattr(thing, "identifies", False):
                yield f"REPLICA IDENTITY USING INDEX {quote(thing.name)}"


def _indexes_again(live: Column, actual: Catalog) -> Iterable[str]:
    """Yield the statements that create the dropped indexes again, under the lock of the rewrite, which builds the other indexes too."""
    for index in actual.indexes:
        if index.table == live.table and live.name in (*index.uses, *index.columns, *index.include):
            yield f"{index.sql()};".replace(" CONCURRENTLY", "", 1)
            if index.identifies:
                yield f"ALTER TABLE {quote(index.table)} REPLICA IDENTITY USING INDEX {quote(index.name)};"


def store(column: Column) -> str:
    """Return the statements that turn a virtual generated column into an ordinary one with its current values."""
    table, name, new = quote(column.table), quote(column.name), quote(f"{column.name}_new")
    made = replace(column, name=f"{column.name}_new", nullable=True, default=None)
    return at_once(
        f"ALTER TABLE {table} ADD COLUMN {made.sql()};",
        f"UPDATE {table} SET {new} = {name};",
        f"ALTER TABLE {table} DROP COLUMN {name};",
        f"ALTER TABLE {table} RENAME COLUMN {new} TO {name};",
    )


def comment(text: str) -> str:
    """Return `text` as a comment of one line: a name with a line break in it would end it."""
    return "-- " + re.sub(r"[\r\n]+", " ", text)


def repair_key(key: Key, live: Key | None, referring: Iterable[ForeignKey]) -> str:
    """Return the statements that create `key`; `referring` are the foreign keys that reference `live`, recreated with it."""
    if live is None:
        return add(key)
    if replace(live, valid=True) == key:
        return f"REINDEX INDEX CONCURRENTLY {quote(key.name)};"
    return after(live.used_by, without(referring, [add(key, live)]), "key")


def without(foreign_keys: Iterable[ForeignKey], changes: Iterable[str]) -> str:
    """Return the statement that drops foreign keys, makes changes that they block and creates them again, and those that validate them."""
    fks, changes = [*foreign_keys], [*changes]
    if not fks:
        return together(changes)
    return "\n".join([at_once(*map(drop, fks), *changes, *map(_add_not_valid, fks)), *map(validate, fks)])


def use_index(key: Key, index: Index, live: Constraint | None) -> str:
    kind = "PRIMARY KEY" if key.primary else "UNIQUE"
    return f"{_alter(key, live)} ADD CONSTRAINT {quote(key.name)} {kind} USING INDEX {quote(index.name)};"


def _alter(thing: Constraint, live: Constraint | None) -> str:
    """Return the beginning of the statement that adds `thing` in the place of `live`."""
    if live is None:
        return f"ALTER TABLE {quote(thing.table)}"
    kept = replace(live, identifies=False) if isinstance(live, Key) and getattr(thing, "identifies", False) else live
    return f"{drop(kept).removesuffix(';')},"


def free_name(other: Object, thing: Object) -> tuple[str, Constraint | None, str]:
    """Return how `thing` gets the name of `other`: statements before, the constraint whose place it takes, and statements after."""
    if isinstance(other, Table) or other.table != thing.table:
        return rename(other, old_name(other.name)) + "\n", None, ""
    if isinstance(other, Key | Check | ForeignKey) and isinstance(thing, Key | Check | ForeignKey):
        return "", other, ""
    before, after = _aside(other, thing)
    return f"{before}\n", None, f"\n{after}"


def _aside(live: Any, thing: Any) -> tuple[str, str]:
    """Return the statements that rename `live`, and those that drop it once `thing` exists."""
    old = replace(live, name=old_name(live.name))
    if getattr(thing, "identifies", False):
        old = replace(old, identifies=False)
    return rename(live, old.name), drop(old)


def retype(column: Column, live: Column, computed: Iterable[Column], actual: Catalog) -> tuple[list[str], list[str]]:
    """Return the statements that change the type of `live`, and those that follow; `computed` are the generated columns that use it."""
    alter = f"ALTER COLUMN {quote(live.name)}"
    words = [f"{alter} TYPE {column.type}"]
    if live.collation != column.collation:
        words.append(f"COLLATE {quote(column.collation)}" if column.collation else 'COLLATE pg_catalog."default"')
    zoned = live.type.startswith("timestamp") and live.type.endswith("with time zone")
    to_zone = column.type == "timestamp with time zone" and not zoned
    without_zone = live.type.startswith("timestamp") and live.type.endswith("without time zone")
    # With the session in UTC and no USING, PostgreSQL keeps the table as it is and reads its values as UTC.
    kept = to_zone and without_zone and column.collation == live.collation
    expression = converted(column, live)[0]
    # With a cast in USING, values that are too long would be truncated.
    needed = live.casts or not is_text(column.type) or expression != f"{quote(live.name)}::{column.type}"
    if live.type != column.type and not kept and needed and not column.generated:
        words.append(f"USING {expression}")
    actions = [" ".join(words)]
    if live.default is not None and live.generated is None:
        # USING does not convert a default: it is dropped before and set again afterwards.
        actions.insert(0, f"{alter} DROP DEFAULT")
        if column.default is not None:
            actions.append(f"{alter} SET DEFAULT {column.default}")
    computed = [*computed]
    actions = [*(f"DROP COLUMN {quote(one.name)}" for one in computed), *actions]
    actions += [action for one in computed for action in _again(one, one, actual)]
    again = [statement for one in computed for statement in _indexes_again(one, actual)]
    # Times without a zone are UTC here.
    settings = ["SET LOCAL TimeZone TO 'UTC';"] if to_zone else []
    kind = MODIFIER.sub("", live.type).removesuffix("[]")
    if is_text(column.type) and (kind in TIMES or kind.startswith("interval")):
        settings += ["SET LOCAL TimeZone TO 'UTC';", "SET LOCAL DateStyle TO 'ISO';", "SET LOCAL IntervalStyle TO 'postgres';"]
    if kind in ("real", "double precision") and (is_text(column.type) or column.type == "double precision"):
        settings.append("SET LOCAL extra_float_digits TO 1;")  # The text of a value has all its digits.
    changes = [*settings, f"ALTER TABLE {quote(live.table)} {', '.join(actions)};", *again]
    # PostgreSQL discards the column's statistics.
    analyze = [f"ANALYZE {quote(live.table)} ({quote(live.name)});"] if live.type != column.type else []
    return changes, analyze


def add(thing: Constraint, live: Constraint | None = None) -> str:
    """Return the cure that adds a constraint, in the statement that drops `live`, which has its place."""
    if isinstance(thing, Key):
        identify = f", REPLICA IDENTITY USING INDEX {quote(thing.name)}" if thing.identifies else ""
        return f"{comment(f'Remove duplicates first: {duplicates(thing)}')}\n{_alter(thing, live)} ADD {thing.sql()}{identify};"
    # In two steps, so that the table is not locked against writes while its rows are checked.
    return f"{_add_not_valid(thing, live)}\n{validate(thing)}"


def _add_not_valid(thing: Check | ForeignKey, live: Constraint | None = None) -> str:
    return f"{_alter(thing, live)} ADD {thing.sql()} NOT VALID;"


def duplicates(key: Key) -> str:
    """Return the query for the values of a key that several rows have."""
    columns = ", ".join(map(quote, key.columns))
    return f"SELECT {columns} FROM {quote(key.table)} GROUP BY {columns} HAVING count(*) > 1"


def is_orphan(foreign_key: ForeignKey, *, row: str) -> str:
    """Return the condition for a row, under the alias `row`, that refers to a row which does not exist."""
    columns = zip(foreign_key.columns, foreign_key.target_columns, strict=True)
    same = " AND ".join(f"p.{quote(theirs)} = {row}.{quote(ours)}" for ours, theirs in columns)
    given = " AND ".join(f"{row}.{quote(ours)} IS NOT NULL" for ours in foreign_key.columns)
    return f"{given} AND NOT EXISTS (SELECT FROM {quote(foreign_key.target)} AS p WHERE {same})"


def validate(thing: Check | ForeignKey) -> str:
    """Return the cure that validates a constraint, with the query for the rows that block it."""
    table = quote(thing.table)
    if isinstance(thing, ForeignKey):
        hint = f"Remove orphans first: SELECT * FROM {table} AS c WHERE {is_orphan(thing, row='c')}"
    else:
        hint = f"Fix these rows first: SELECT * FROM {table} WHERE NOT {thing.expression.removeprefix('CHECK ')}"
    return f"{comment(hint)}\nALTER TABLE {table} VALIDATE CONSTRAINT {quote(thing.name)};"


def needs_owner(cure: str) -> bool:
    return OF_OWNER.search(cure) is not None


def uses_trigrams(cure: str) -> bool:
    return TRIGRAMS.search(cure) is not None


def with_trigrams(cure: str, schema: str | None) -> str:
    """Return a cure that finds the operator class of pg_trgm in `schema`, or first creates the extension if that is None."""
    return (
        f"CREATE EXTENSION IF NOT EXISTS pg_trgm;\n{cure}" if schema is None else TRIGRAMS.sub(rf"{quote(schema)}.\g<0>", cure)
    )


def for_partitioned(cure: str) -> str:
    """Return a cure as PostgreSQL accepts it for a partitioned table: it blocks writes, because not even 18 can do this concurrently."""
    cure = re.sub(r"\b(CREATE (?:UNIQUE )?INDEX|DROP INDEX) CONCURRENTLY\b", r"\1", cure)
    return re.sub(r"^(ALTER TABLE .* ADD CONSTRAINT .* FOREIGN KEY .*) NOT VALID;$", r"\1;", cure, flags=re.MULTILINE)


NAME = r'"(?:[^"]|"")+"'
# What PostgreSQL refuses for an inherited column or check, and what it does to the tables that inherit from one too.
REFUSED_IF_INHERITED = re.compile(
    rf"(?:^ALTER TABLE {NAME}|,) (?:ALTER COLUMN ({NAME}) (?:TYPE|DROP NOT NULL|DROP EXPRESSION)|(?:DROP|RENAME) COLUMN ({NAME})|DROP CONSTRAINT ({NAME}))"
)
ALTER_TABLE = re.compile(rf"^ALTER TABLE ({NAME}) .*", re.MULTILINE)
SPREADS = re.compile(
    rf"^ALTER TABLE ({NAME}) (?:(?:ALTER|ADD|DROP|RENAME) COLUMN|(?:DROP CONSTRAINT {NAME}, )?ADD CONSTRAINT {NAME} CHECK|VALIDATE)",
    re.MULTILINE,
)


def unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"')


def refused_if_inherited(cure: str) -> list[tuple[str, str]]:
    """Return the tables, each with the column or constraint, that statements of `cure` could not change if they were inherited."""
    return [
        (unquoted(statement[1]), unquoted("".join(names)))
        for statement in ALTER_TABLE.finditer(cure)
        for names in REFUSED_IF_INHERITED.findall(statement[0])
    ]


def spreads(cure: str) -> list[str]:
    """Return the tables from which statements of `cure` spread to the tables that inherit from them."""
    return [*map(unquoted, dict.fromkeys(SPREADS.findall(cure)))]


def no_inherit(child: str, parent: str) -> str:
    return f"ALTER TABLE {child} NO INHERIT {parent};"


def drop(thing: Object) -> str:
    if (
        isinstance(thing, Index | Key) and thing.identifies
    ):  # Without it, every UPDATE and DELETE of a published table would fail.
        identity = f"ALTER TABLE {quote(thing.table)} REPLICA IDENTITY DEFAULT"
        if isinstance(thing, Key):
            return f"{identity}, DROP CONSTRAINT {quote(thing.name)};"
        return f"{identity};\n{drop(replace(thing, identifies=False))}"
    if isinstance(thing, Index):
        return f"DROP INDEX CONCURRENTLY {quote(thing.name)};"
    return f"ALTER TABLE {quote(thing.table)} DROP CONSTRAINT {quote(thing.name)};"


def rename(thing: Object, name: str) -> str:
    if isinstance(thing, Table):
        return f"ALTER {ALTER_WORDS.get(thing.kind, 'TABLE')} {quote(thing.name)} RENAME TO {quote(name)};"
    if isinstance(thing, Index):
        return f"ALTER INDEX {quote(thing.name)} RENAME TO {quote(name)};"
    return f"ALTER TABLE {quote(thing.table)} RENAME CONSTRAINT {quote(thing.name)} TO {quote(name)};"


def repair_check(thing: Check, live: Check | None) -> str:
    if live is None:
        return add(thing)
    if replace(live, valid=True) == thing:
        return validate(thing)
    return add(thing, live)


def repair_foreign_key(fk: ForeignKey, live: ForeignKey | None) -> str:
    if live is not None and replace(live, valid=True) == fk:
        return validate(fk)
    return add(fk, live)


def repair_index(index: Index, live: Index | None) -> str:
    if live is not None and replace(live, valid=True, ready=True) == index:
        return f"REINDEX INDEX CONCURRENTLY {quote(index.name)};"
    create = f"{index.sql()};"
    if index.identifies:
        create += f"\nALTER TABLE {quote(index.table)} REPLICA IDENTITY USING INDEX {quote(index.name)};"
    if live is None:
        return create
    before, after = _aside(live, index)
    return f"{before}\n{create}\n{after}"
