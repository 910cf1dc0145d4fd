"""Ways to damage a database, generated from the contract, each with what must be found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from fly2any.database.schema import Check, Column, ForeignKey, Index, Key, Table
from fly2any.database.schema import contract as contracts

CONTRACT = contracts.load()
EXPECTED = contracts.catalog_of(CONTRACT.expected(CONTRACT.migrations))

POINTING = {(key.table, name): key.target for key in EXPECTED.foreign_keys for name in key.columns}
OTHER_TYPE = {
    "text": "character varying(255)",
    "timestamp with time zone": "timestamp(3) without time zone",
    "boolean": "text",
    "integer": "bigint",
    "bigint": "numeric",
    "double precision": "real",
    "jsonb": "json",
    "text[]": "character varying[]",
    "smallint": "integer",
}
OTHER_DEFAULT = {
    "text": "'other'",
    "timestamp with time zone": "clock_timestamp()",
    "boolean": "(1 > 2)",
    "inet": "'203.0.113.1'::inet",
    "integer": "7",
    "bigint": "7",
    "double precision": "7.5",
    "jsonb": "'[]'",
    "text[]": "'{x}'",
    "smallint": "7",
}
# What `migrate` fills: an index is built over rows that the transaction deleted, too.
FILLED = {
    "auth_group",
    "auth_group_permissions",
    "auth_permission",
    "django_content_type",
    "django_migrations",
    "fly2any_migration_runs",
}

TRIGGER_SQL = "CREATE OR REPLACE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"


@dataclass(frozen=True)
class Mutation:
    name: str
    sql: str
    found: frozenset[tuple[str, str]]  # code and where of every finding
    since: int = 0  # the major version of PostgreSQL that can do this damage
    reads: str = ""  # a table that is not damaged and must be whole

    @property
    def table(self) -> str:
        return re.match(r"\w+", self.name)[0]

    @cached_property
    def damages(self) -> frozenset[str]:
        """The tables that are not whole while it lasts."""
        return frozenset([self.table, *(where.partition(".")[0] for _, where in self.found)])


def rounds(all_of_them: Iterable[Mutation]) -> list[list[Mutation]]:
    """Put mutations of different tables together: two readings of the catalogue then serve all of a round."""
    made: list[tuple[list[Mutation], set[str], set[str]]] = []
    for mutation in all_of_them:
        for together, damaged, read in made:  # noqa: B007  Those at which it stops are used below.
            if not (mutation.damages & (damaged | read) or mutation.reads in damaged):
                break
        else:
            together, damaged, read = [], set(), set()
            made.append((together, damaged, read))
        together.append(mutation)
        damaged |= mutation.damages
        read.add(mutation.reads)
    return [together for together, _, _ in made]


def q(name: str) -> str:
    return f'"{name}"'


def columns(names) -> str:
    return ", ".join(map(q, names))


def at(thing) -> str:
    return f"{thing.table}.{thing.name}"


def kind(thing) -> str:
    if isinstance(thing, Key):
        return "primary_key" if thing.primary else "unique"
    return {Check: "check", Index: "index", ForeignKey: "foreign_key"}[type(thing)]


def missing(things) -> set[tuple[str, str]]:
    return {(f"{kind(thing)}.missing", at(thing)) for thing in things}


def hanging_on(column: Column) -> list:
    """What PostgreSQL drops with a column."""
    mine = [
        thing
        for thing in (*EXPECTED.keys, *EXPECTED.checks, *EXPECTED.indexes, *EXPECTED.foreign_keys)
        if thing.table == column.table and (column.name in thing.columns or column.name in expression_of(thing))
    ]
    theirs = [fk for fk in EXPECTED.foreign_keys if fk.target == column.table and column.name in fk.target_columns]
    return [*mine, *theirs]


def mutations() -> Iterator[Mutation]:
    for make, things in (
        (of_table, EXPECTED.tables),
        (of_column, EXPECTED.columns),
        (of_key, EXPECTED.keys),
        (of_check, EXPECTED.checks),
        (of_index, EXPECTED.indexes),
        (of_foreign_key, EXPECTED.foreign_keys),
    ):
        for thing in things:
            yield from map(with_names_of_its_own, make(thing))


def with_names_of_its_own(mutation: Mutation) -> Mutation:
    """What it makes or renames carries its table's name: indexes of two tables cannot have the same."""

    def own(text):
        return re.sub(r"\b(theirs|moved)", rf"\1_{mutation.table}", text)

    return replace(mutation, sql=own(mutation.sql), found=frozenset((code, own(where)) for code, where in mutation.found))


def of_table(table: Table) -> Iterator[Mutation]:
    def damage(name, sql, *found, **options):
        return Mutation(f"{table.name}: {name}", sql, frozenset(found), **options)

    t = q(table.name)
    fks = [fk for fk in EXPECTED.foreign_keys if table.name in (fk.table, fk.target)]
    yield damage("dropped", f"DROP TABLE {t} CASCADE", ("table.missing", table.name), *missing(fks))
    yield damage("renamed", f"ALTER TABLE {t} RENAME TO moved", ("table.renamed", table.name))
    yield damage("row security", f"ALTER TABLE {t} ENABLE ROW LEVEL SECURITY", ("table.different", table.name))
    yield damage(
        "a trigger",
        f"{TRIGGER_SQL}; CREATE TRIGGER theirs BEFORE INSERT ON {t} EXECUTE FUNCTION theirs()",
        ("trigger.extra", f"{table.name}.theirs"),
    )
    yield damage(
        "a rule", f"CREATE RULE theirs AS ON DELETE TO {t} DO INSTEAD NOTHING", ("trigger.extra", f"{table.name}.theirs")
    )
    if not any(fk.target == table.name for fk in fks):
        yield damage("unlogged", f"ALTER TABLE {t} SET UNLOGGED", ("table.weaker", table.name))
    yield damage(
        "replaced by a view",
        f"DROP TABLE {t} CASCADE; CREATE VIEW {t} AS SELECT 1 AS one",
        ("table.different", table.name),
        *missing(fks),
    )
    first = next(column.name for column in EXPECTED.columns if column.table == table.name and not column.nullable)
    keyed = {key.columns for key in EXPECTED.keys if key.table == table.name}
    yield damage(
        "a foreign column in the way", f"ALTER TABLE {t} ADD theirs text NOT NULL", ("column.extra", f"{table.name}.theirs")
    )
    yield damage(
        "a foreign check in the way",
        f"ALTER TABLE {t} ADD CONSTRAINT theirs CHECK ({q(first)}::text <> 'true') NOT VALID",
        ("check.extra", f"{table.name}.theirs"),
    )
    spare = [
        column.name
        for column in EXPECTED.columns
        if column.table == table.name and (column.name,) not in keyed and "json" not in column.type
    ]
    if table.name == "user_activities":  # The trail that is to survive its user.
        sql = f'ALTER TABLE {t} ADD CONSTRAINT theirs FOREIGN KEY ("userId") REFERENCES users ON DELETE CASCADE'
        yield damage("a foreign foreign key in the way", sql, ("foreign_key.extra", "user_activities.theirs"), reads="users")
    for column in spare[:1]:
        sql = f"CREATE UNIQUE INDEX theirs ON {t} ({q(column)})"
        yield damage("a foreign unique index in the way", sql, ("unique.extra", f"{table.name}.theirs"))
        sql = f"ALTER TABLE {t} ADD CONSTRAINT theirs UNIQUE ({q(column)})"
        sql = f"ALTER TABLE {t} ADD CONSTRAINT theirs EXCLUDE USING btree ({q(column)} WITH =)"
        yield damage("a foreign exclusion in the way", sql, ("check.extra", f"{table.name}.theirs"))
        sql = f"ALTER TABLE {t} ADD CONSTRAINT theirs UNIQUE ({q(column)})"
        yield damage("a foreign unique constraint in the way", sql, ("unique.extra", f"{table.name}.theirs"))
    yield damage(
        "a foreign invalid index",
        f"CREATE INDEX theirs ON {t} ({q(first)}); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass",
        ("index.extra", f"{table.name}.theirs"),
    )
    primary = next(key for key in EXPECTED.keys if key.table == table.name and key.primary)
    yield from of_writes(table, primary, first)
    yield damage(
        "what is foreign and harmless",
        f"""CREATE TABLE theirs (id text PRIMARY KEY, ours {column_type(table.name, primary.columns[0])} REFERENCES {t} ON DELETE SET NULL);
            ALTER TABLE {t} ADD theirs_a text UNIQUE, ADD theirs_b int NOT NULL DEFAULT 0 CHECK (theirs_b >= 0);
            CREATE INDEX theirs_idx ON {t} (theirs_b); CREATE INDEX theirs_too_idx ON {t} ({q(first)});
            CREATE UNIQUE INDEX theirs_wider_idx ON {t} ({columns(primary.columns)}, theirs_b);
            CREATE TYPE theirs_type AS ENUM ('a')""",
    )


def of_writes(table: Table, primary: Key, required: str) -> Iterator[Mutation]:
    """Unmanaged objects that make an INSERT, UPDATE or DELETE of ours fail, and their harmless siblings."""
    t, here, key = q(table.name), f"{table.name}.theirs", q(primary.columns[0])
    type_ = column_type(table.name, primary.columns[0])
    for name, sql, *found in (
        ("a check of NULL, not validated", "ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs IS NOT NULL) NOT VALID", ("check.extra", f"{here}_c")),
        ("a check of a default", "ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c CHECK (theirs > 1) NOT VALID", ("check.extra", f"{here}_c")),
        ("a check that mixes columns", f"ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs IS NOT NULL OR {key}::text <> 'a')", ("check.extra", f"{here}_c")),
        ("a check of an update", f"ADD theirs text, ADD CONSTRAINT theirs_c CHECK (theirs IS NULL OR theirs <> {key}::text)", ("check.extra", f"{here}_c")),
        ("a default of NULL", "ADD theirs text NOT NULL DEFAULT nullif('a', 'a')", ("column.extra", here)),
        ("a default that raises", "ADD theirs int, ALTER theirs SET DEFAULT 1 / 0", ("column.extra", here)),
        ("a generated column that raises", f"ADD theirs int GENERATED ALWAYS AS (length({key}::text) / 0) STORED", ("column.extra", here)),
        ("a generated column that may be NULL", f"ADD theirs text GENERATED ALWAYS AS (nullif({key}::text, 'a')) STORED NOT NULL", ("column.extra", here)),
        ("one NULL for all", "ADD theirs text, ADD CONSTRAINT theirs_c UNIQUE NULLS NOT DISTINCT (theirs)", ("unique.extra", f"{here}_c")),
        ("one default for all", "ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c UNIQUE (theirs)", ("unique.extra", f"{here}_c")),
        ("rows without identity", f"REPLICA IDENTITY NOTHING; CREATE PUBLICATION theirs FOR TABLE {t}", ("table.unidentified", table.name)),
        ("a default that is refused", "ADD theirs int DEFAULT 1, ADD CONSTRAINT theirs_c FOREIGN KEY (theirs) REFERENCES theirs_to", ("foreign_key.extra", f"{here}_c")),
        ("a domain", "ADD theirs theirs_required", ("column.extra", here)),
        ("a domain of a domain", "ADD theirs theirs_long", ("column.extra", here)),
    ):  # fmt: skip
        made = "CREATE TABLE theirs_to (id int PRIMARY KEY); CREATE DOMAIN theirs_required AS text NOT NULL;"
        made += " CREATE DOMAIN theirs_default AS text DEFAULT ''; CREATE DOMAIN theirs_long AS theirs_default CHECK (length(VALUE) > 1);"
        yield Mutation(f"{table.name}: {name}", f"{made} ALTER TABLE {t} {sql}", frozenset(found))
    other = next((c.name for c in EXPECTED.columns if c.table == table.name and c.name not in primary.columns), "")
    for name, sql, *found, since in (
        ("kept by a table that cascades", f"CREATE TABLE theirs (id int PRIMARY KEY, ours {type_} REFERENCES {t} ON DELETE CASCADE);"
         " CREATE TABLE theirs_b (a int REFERENCES theirs)", ("foreign_key.restricts", "theirs_b.theirs_b_a_fkey"), 0),
        ("kept by NOT NULL", f"CREATE TABLE theirs (ours {type_} NOT NULL REFERENCES {t} ON DELETE SET NULL)", ("foreign_key.restricts", "theirs.theirs_ours_fkey"), 0),
        ("published in part", f"CREATE PUBLICATION theirs FOR TABLE {t} ({q(other)})", ("table.unidentified", table.name), 15),
        ("published by a filter", f"CREATE PUBLICATION theirs FOR TABLE {t} WHERE ({q(other)} IS NOT NULL)", ("table.unidentified", table.name), 15),
        ("published whole", f"CREATE PUBLICATION theirs FOR TABLE {t} WHERE ({key} IS NOT NULL)", 15),
        ("an index that may raise", f"CREATE INDEX theirs ON {t} ((10 / length({key}::text)))", ("index.extra", here), 0),
    ):  # fmt: skip
        if other or not name.startswith("published"):
            yield Mutation(f"{table.name}: {name}", sql, frozenset(found), since)
    if table.name not in FILLED:
        sql = f"CREATE INDEX theirs ON {t} ((length({key}::text) / 0))"
        yield Mutation(f"{table.name}: an index that raises", sql, frozenset([("index.extra", here)]))
    yield Mutation(
        f"{table.name}: a NOT NULL that is not validated",
        f"ALTER TABLE {t} ADD theirs text, ADD CONSTRAINT theirs_n NOT NULL theirs NOT VALID",
        frozenset([("column.extra", here)]),
        since=18,
    )
    yield Mutation(
        f"{table.name}: kept by a key of another table",
        f"CREATE TABLE theirs (ours {type_} REFERENCES {t} ON DELETE RESTRICT)",
        frozenset([("foreign_key.restricts", "theirs.theirs_ours_fkey")]),
    )
    yield Mutation(
        f"{table.name}: the same, said otherwise",
        f"""ALTER TABLE {t} ADD CONSTRAINT theirs_a CHECK ({q(required)} IS NOT NULL), ADD theirs_b text,
                ADD CONSTRAINT theirs_c CHECK (theirs_b IS NULL OR length(theirs_b) > 2), ADD theirs_d text UNIQUE,
                ADD CONSTRAINT theirs_e CHECK ({q(required)} IS NOT NULL AND (theirs_b IS NULL OR true)), ADD theirs_g uuid UNIQUE DEFAULT gen_random_uuid();
            CREATE UNIQUE INDEX theirs_h ON {t} ({key}, lower(theirs_b));
            CREATE UNIQUE INDEX theirs_i ON {t} ({q(required)}) WHERE theirs_b IS NOT NULL;
            CREATE UNIQUE INDEX theirs_j ON {t} (lower(theirs_b))""",
        frozenset(),
    )
    flags = [column.name for column in EXPECTED.columns if column.table == table.name and column.type == "boolean"]
    checks = [f"{q(name)} IN (true, false)" for name in flags] + [
        f"{q(name)} IS NOT FALSE OR {q(name)} IS FALSE" for name in flags
    ]
    checks += [
        f"length({key}::text) >= 0",
        f"octet_length('a' || {key}::text) > -1",
        f"{q(required)} IS NULL OR {q(required)} IS NOT NULL",
    ]
    added = ", ".join(f"ADD CHECK ({check})" for check in checks)
    yield Mutation(
        f"{table.name}: what refuses nothing",
        f"""ALTER TABLE {t} {added}, ADD CONSTRAINT theirs_x EXCLUDE USING btree ({key} WITH =);
            CREATE UNIQUE INDEX theirs_a ON {t} (({key}::text || '')); CREATE UNIQUE INDEX theirs_b ON {t} (reverse('a' || {key}::text));
            CREATE UNIQUE INDEX theirs_c ON {t} (coalesce({key}::text, '-')); CREATE UNIQUE INDEX theirs_d ON {t} (({key}::varchar));
            CREATE UNIQUE INDEX theirs_e ON {t} ({q(required)}) WHERE {key} IS NULL""",
        frozenset(),
    )
    for name, expression in (("cut", f"left({key}::text, 3)"), ("cut by its type", f"({key}::text)::varchar(3)"), ("of two columns", f"({key}::text || {key}::text)")):  # fmt: skip
        sql = f"CREATE UNIQUE INDEX theirs ON {t} (({expression}))"
        notes = [("index.extra", here)] if "varchar" in expression else []
        yield Mutation(f"{table.name}: a unique index of a key {name}", sql, frozenset([("unique.extra", here), *notes]))


def column_type(table: str, name: str) -> str | None:
    """The type of a column, None of an expression."""
    return next((column.type for column in EXPECTED.columns if (column.table, column.name) == (table, name)), None)


def of_column(column: Column) -> Iterator[Mutation]:
    def damage(name, sql, *found, **options):
        return Mutation(f"{at(column)}: {name}", sql, frozenset(found), **options)

    alter = f"ALTER TABLE {q(column.table)} ALTER {q(column.name)}"
    primary = any(key.primary and column.name in key.columns for key in EXPECTED.keys if key.table == column.table)
    hanging = hanging_on(column)
    yield damage(
        "dropped",
        f"ALTER TABLE {q(column.table)} DROP {q(column.name)} CASCADE",
        ("column.missing", at(column)),
        *missing(hanging),
    )
    named = {(f"{kind(thing)}.different", at(thing)) for thing in hanging if column.name in expression_of(thing)}
    if column.table not in (
        "django_content_type",
        "axes_accessattempt",
        "axes_accesslog",
    ):  # A migration dropped a column there: a rename cannot be told from a drop.
        sql = f"ALTER TABLE {q(column.table)} RENAME {q(column.name)} TO moved"
        yield damage("renamed", sql, ("column.renamed", at(column)), *named)
    type_ = column.type if column.type in OTHER_TYPE else "character varying"
    if not column.identity and not named:
        other = OTHER_TYPE.get(column.type, "text")
        if column.type == "bigint" and (column.table, column.name) in POINTING:
            other = "integer"  # No foreign key goes from numeric to bigint.
        yield damage(
            f"{type_} made {other}",
            f"{alter} DROP DEFAULT; {alter} TYPE {other} USING {q(column.name)}::{other}"
            + (f"; {alter} SET DEFAULT {default_for(column, other)}" if column.default else ""),
            ("column.different", at(column)),
            reads=POINTING.get((column.table, column.name), ""),
        )
    if column.type.startswith(("text", "character")):
        yield damage("collation", f'{alter} TYPE {column.type} COLLATE "C"', ("column.different", at(column)))
    if column.nullable:
        yield damage("made NOT NULL", f"{alter} SET NOT NULL", ("column.different", at(column)))
    elif not primary and not column.identity:
        yield damage("made nullable", f"{alter} DROP NOT NULL", ("column.weaker", at(column)))
        yield damage(
            "NOT NULL not validated",
            f"{alter} DROP NOT NULL; ALTER TABLE {q(column.table)} ADD CONSTRAINT nn NOT NULL {q(column.name)} NOT VALID",
            ("column.weaker", at(column)),
            since=18,
        )
    if not column.nullable and not column.identity:
        sql = f"{alter} DROP NOT NULL; ALTER TABLE {q(column.table)} ADD CONSTRAINT nn NOT NULL {q(column.name)}"
        if not primary:
            yield damage("NOT NULL of another name", sql, since=18)
    elif column.nullable:
        sql = f"ALTER TABLE {q(column.table)} ADD CONSTRAINT nn NOT NULL {q(column.name)} NOT VALID"
        yield damage("made NOT NULL, not validated", sql, ("column.different", at(column)), since=18)
    if column.nullable and column.default is None and not hanging:
        drop = f"ALTER TABLE {q(column.table)} DROP {q(column.name)}; ALTER TABLE {q(column.table)} ADD {q(column.name)} {column.type}"
        made = f"{drop} GENERATED ALWAYS AS (NULL::{column.type})"
        yield damage("made generated", f"{made} STORED", ("column.different", at(column)))
        yield damage("made generated when it is read", f"{made} VIRTUAL", ("column.different", at(column)), since=18)
    if column.identity:
        yield damage("identity dropped", f"{alter} DROP IDENTITY", ("column.different", at(column)))
        yield damage("identity always", f"{alter} SET GENERATED ALWAYS", ("column.different", at(column)))
        return
    if column.default is None:
        yield damage(
            "given a default",
            f"{alter} SET DEFAULT {OTHER_DEFAULT.get(column.type, quote_default)}",
            ("default.extra", at(column)),
        )
    else:
        same = {"CURRENT_TIMESTAMP": "now()"}.get(column.default, f"({column.default}::{column.type})::{column.type}")
        yield damage("default said otherwise", f"{alter} SET DEFAULT {same}")
        yield damage("default dropped", f"{alter} DROP DEFAULT", ("default.missing", at(column)))
        other = "true" if column.default == "false" else OTHER_DEFAULT[column.type]
        yield damage("default changed", f"{alter} SET DEFAULT {other}", ("default.different", at(column)))


quote_default = "'other'"


def default_for(column: Column, type_: str) -> str:
    return f"({column.default})::{type_}"


def expression_of(thing) -> str:
    """What names columns without being one: a condition, or an expression that an index has in a column's place."""
    computed = " ".join(name for name in getattr(thing, "columns", ()) if "(" in name)
    return getattr(thing, "predicate", None) or getattr(thing, "expression", None) or computed


def of_key(key: Key) -> Iterator[Mutation]:
    what = kind(key)
    here = at(key)
    fks = [fk for fk in EXPECTED.foreign_keys if fk.target == key.table and fk.target_columns == key.columns]
    alter, name = f"ALTER TABLE {q(key.table)}", q(key.name)
    drop = f"{alter} DROP CONSTRAINT {name} CASCADE"
    again = "".join(f"; ALTER TABLE {q(fk.table)} ADD {fk.sql()}" for fk in fks)
    word = "PRIMARY KEY" if key.primary else "UNIQUE"

    def damage(title, sql, *found, **options):
        return Mutation(f"{here}: {title}", sql, frozenset(found), **options)

    yield damage("dropped", drop, (f"{what}.missing", here), *missing(fks))
    yield damage("renamed", f"{alter} RENAME CONSTRAINT {name} TO moved", (f"{what}.renamed", here))
    yield damage(
        "index invalid",
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass",
        (f"{what}.weaker", here),
    )
    if not fks:
        yield damage(
            "deferrable",
            f"{drop}; {alter} ADD CONSTRAINT {name} {word} ({columns(key.columns)}) DEFERRABLE",
            (f"{what}.different", here),
        )
        if not key.primary:
            sql = f"{drop}; {alter} ADD CONSTRAINT {name} UNIQUE ({columns(key.columns)}) DEFERRABLE INITIALLY DEFERRED"
            yield damage("deferred", sql, (f"{what}.different", here))
        wider = next(
            column.name
            for column in EXPECTED.columns
            if column.table == key.table
            and column.name not in key.columns
            and not column.nullable
            and "json" not in column.type
        )
        yield damage(
            "wider",
            f"{drop}; {alter} ADD CONSTRAINT {name} {word} ({columns([*key.columns, wider])})",
            (f"{what}.weaker", here),
        )
    if len(key.columns) > 1:
        yield damage(
            "other order",
            f"{drop}; {alter} ADD CONSTRAINT {name} {word} ({columns(key.columns[::-1])})",
            (f"{what}.different", here),
        )
    yield damage(
        "a unique index instead",
        f"{drop}; CREATE UNIQUE INDEX {name} ON {q(key.table)} ({columns(key.columns)})",
        (f"{what}.different", here),
        *missing(fks),
    )
    yield damage(
        "an index instead",
        f"{drop}; CREATE INDEX {name} ON {q(key.table)} ({columns(key.columns)})",
        (f"{what}.missing", here),
        *missing(fks),
    )
    yield damage(
        "with a column included",
        f"{drop}; {alter} ADD CONSTRAINT {name} {word} ({columns(key.columns)}) INCLUDE ({q(included(key))}){again}",
        (f"{what}.different", here),
    )
    if not key.primary:
        yield damage(
            "NULLS NOT DISTINCT",
            f"{drop}; {alter} ADD CONSTRAINT {name} UNIQUE NULLS NOT DISTINCT ({columns(key.columns)}){again}",
            (f"{what}.different", here),
            since=15,
        )


def included(thing) -> str:
    return next(column.name for column in EXPECTED.columns if column.table == thing.table and column.name not in thing.columns)


def of_check(check: Check) -> Iterator[Mutation]:
    here, alter, name = at(check), f"ALTER TABLE {q(check.table)}", q(check.name)
    drop = f"{alter} DROP CONSTRAINT {name}"
    for title, sql, code in (
        ("dropped", drop, "missing"),
        ("renamed", f"{alter} RENAME CONSTRAINT {name} TO moved", "renamed"),
        ("other", f"{drop}; {alter} ADD CONSTRAINT {name} CHECK ({q(check.columns[0])} IS NOT NULL)", "different"),
        ("not validated", f"{drop}; {alter} ADD {check.sql()} NOT VALID", "weaker"),
    ):
        yield Mutation(f"{here}: {title}", sql, frozenset([(f"check.{code}", here)]))
    sql = f"{drop}; {alter} ADD {check.sql()} NOT ENFORCED"
    yield Mutation(f"{here}: not enforced", sql, frozenset([("check.weaker", here)]), since=18)


def of_index(index: Index) -> Iterator[Mutation]:
    here, name = at(index), q(index.name)
    drop = f"DROP INDEX {name}"

    def again(**changes):
        return f"{drop}; {replace(index, **changes).sql().replace(' CONCURRENTLY', '')}"

    def damage(title, sql, code):
        return Mutation(f"{here}: {title}", sql, frozenset([(f"index.{code}", here)]))

    place = f"WHERE indexrelid = '{name}'::regclass"
    computed = [place for place, column in enumerate(index.columns) if "(" in column]
    if computed or index.predicate:
        said = tuple(
            f"(CASE WHEN true THEN {column} END)" if place in computed else column for place, column in enumerate(index.columns)
        )
        sql = again(columns=said, predicate=index.predicate and f"NOT (NOT ({index.predicate}))")
        yield Mutation(f"{here}: said otherwise", sql, frozenset())
    if index.predicate == "(active AND (NOT triggered))":
        yield Mutation(f"{here}: in another order", again(predicate="NOT triggered AND active"), frozenset())
        yield damage("fewer rows", again(predicate="active AND NOT triggered AND active IS NOT NULL AND id <> ''"), "different")
        yield damage("other rows", again(predicate="active AND triggered"), "different")
    yield damage("dropped", drop, "missing")
    yield damage("renamed", f"ALTER INDEX {name} RENAME TO moved", "renamed")
    yield damage("invalid", f"UPDATE pg_index SET indisvalid = false {place}", "weaker")
    yield damage("not ready", f"UPDATE pg_index SET indisready = false {place}", "weaker")
    if index.method == "gin":
        yield damage("of another column", again(columns=("upper(id)",)), "different")
        return
    kind = column_type(index.table, index.columns[0])
    first = q(index.columns[0]) if kind else index.columns[0]
    yield damage("partial", again(predicate=f"{first} IS NOT NULL"), "different" if index.predicate else "weaker")
    yield damage("unique", again(unique=True), "different")
    yield damage(
        "other order of rows",
        again(options=("DESC" if "DESC" not in index.options[0] else "", *index.options[1:])),
        "different",
    )
    yield damage("with a column included", again(include=(included(index),)), "different")
    yield damage(
        "other columns",
        again(columns=(included_key(index), *index.columns[1:]), options=("",) * len(index.columns)),
        "different",
    )
    if len(index.columns) > 1:
        yield damage("other order of columns", again(columns=index.columns[::-1], options=index.options[::-1]), "different")
    elif index.method == "btree":
        yield damage("other method", again(method="hash", options=("",)), "different")
    if kind == "text" and not index.options[0]:
        yield damage("other operator class", again(options=("text_pattern_ops", *index.options[1:])), "different")
        yield damage("other collation", again(options=('COLLATE "C"', *index.options[1:])), "different")


def included_key(index: Index) -> str:
    return next(
        column.name
        for column in EXPECTED.columns
        if column.table == index.table and column.name not in index.columns and "json" not in column.type
    )


def of_foreign_key(fk: ForeignKey) -> Iterator[Mutation]:
    here, alter, name = at(fk), f"ALTER TABLE {q(fk.table)}", q(fk.name)
    drop = f"{alter} DROP CONSTRAINT {name}"

    def again(suffix="", **changes):
        return f"{drop}; {alter} ADD {replace(fk, **changes).sql()}{suffix}"

    def damage(title, sql, code, **options):
        return Mutation(f"{here}: {title}", sql, frozenset([(f"foreign_key.{code}", here)]), reads=fk.target, **options)

    yield damage("dropped", drop, "missing")
    yield damage("renamed", f"{alter} RENAME CONSTRAINT {name} TO moved", "renamed")
    for event in ("on_delete", "on_update"):
        for action in ("NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT", "CASCADE"):
            if action != getattr(fk, event):
                yield damage(f"{event} {action}", again(**{event: action}), "different")
    yield Mutation(f"{here}: twice", f"{alter} ADD {replace(fk, name='theirs').sql()}", frozenset(), reads=fk.target)
    yield damage("deferrable", again(deferrable=not fk.deferrable, deferred=False), "different")
    yield damage("other deferral", again(deferrable=True, deferred=not fk.deferred), "different")
    yield damage("not validated", again(" NOT VALID"), "weaker")
    touched = [other for other in EXPECTED.foreign_keys if fk.table in (other.table, other.target)]
    yield Mutation(
        f"{here}: triggers disabled",
        f"{alter} DISABLE TRIGGER ALL",
        frozenset(("foreign_key.weaker", at(other)) for other in touched),
    )
    yield damage("not enforced", again(" NOT ENFORCED"), "weaker", since=18)
    yield damage(
        "a target of the same name elsewhere",
        f"CREATE SCHEMA theirs; CREATE TABLE theirs.{q(fk.target)} (LIKE {q(fk.target)} INCLUDING ALL);"
        f" {again().replace(f'REFERENCES {q(fk.target)}', f'REFERENCES theirs.{q(fk.target)}')}",
        "different",
    )
    yield damage(
        "another target",
        f"CREATE TABLE theirs (LIKE {q(fk.target)} INCLUDING ALL); {again(target='theirs')}",
        "different",
    )
