"""Damages to keys, checks, indexes and foreign keys, each with the expected findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fly2any.database.schema import Check, ForeignKey, Index, Key
from tests.database.mutation import EXPECTED, Mutation, at, column_type, columns, included, kind, missing, q


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
    yield damage("dropped, and its name taken", f"{drop}; CREATE SEQUENCE {name}", "missing")
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
    far = f"CREATE SCHEMA IF NOT EXISTS far; CREATE TABLE IF NOT EXISTS far.{q(fk.target)} (LIKE {q(fk.target)} INCLUDING INDEXES)"
    yield damage("elsewhere", f"{far}; {again(target=f'far.{q(fk.target)}', elsewhere=True)}", "different")
    for event in ("on_delete", "on_update"):
        for action in ("NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT", "CASCADE"):
            if action != getattr(fk, event):
                yield damage(f"{event} {action}", again(**{event: action}), "different")
    yield Mutation(f"{here}: twice", f"{alter} ADD {replace(fk, name='theirs').sql()}", frozenset(), reads=fk.target)
    for event in ("on_delete", "on_update"):  # Made after ours: it finds no row that ours has left.
        if getattr(fk, event) != "NO ACTION":
            sql = f"{alter} ADD {replace(fk, name='theirs', deferrable=False, **{event: 'RESTRICT'}).sql()}"
            yield Mutation(f"{here}: twice, {event} RESTRICT", sql, frozenset(), reads=fk.target)
            sql = f"{alter} ADD {replace(fk, name='theirs', deferrable=False, **{event: 'NO ACTION'}).sql()}"
            sql += f"; {drop}; {alter} ADD {fk.sql()}"
            found = frozenset([("foreign_key.extra", f"{fk.table}.theirs")])
            yield Mutation(f"{here}: before ours, {event} NO ACTION", sql, found, reads=fk.target)
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
