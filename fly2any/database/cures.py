"""SQL that cures a difference: each function returns statements, one a line, each ending in ";".

What an ordinary migration would do too carefully for one statement is done so here: indexes CONCURRENTLY, foreign keys
and checks NOT VALID first.
"""

from __future__ import annotations

from dataclasses import replace

from .catalog import Check, Column, ForeignKey, Index, Key, Object, quote


def retype(column: Column, live: Column, alter: str) -> str:
    words = [f"{alter} TYPE {column.type}"]
    if live.collation != column.collation:
        words.append(
            f"COLLATE {quote(column.collation) if column.collation else 'pg_catalog.default'}".replace(".default", '."default"')
        )
    without_zone = live.type.startswith("timestamp") and live.type.endswith("without time zone")
    if column.type == "timestamp with time zone" and without_zone and column.collation == live.collation:
        # With the session in UTC and no USING, PostgreSQL keeps the table as it is and reads its values as UTC.
        statements = ["SET TimeZone TO 'UTC';", f"{words[0]};"]
    else:
        if live.type != column.type:
            words.append(f"USING {quote(column.name)}::{column.type}")
        statements = [f"{' '.join(words)};"]
    if live.default is not None:
        # A default is not converted by USING: it goes before, and comes back after.
        statements.insert(0, f"{alter} DROP DEFAULT;")
        if column.default is not None:
            statements.append(f"{alter} SET DEFAULT {column.default};")
    return "\n".join(statements)


def add(thing: Key | Check | ForeignKey) -> str:
    alter = f"ALTER TABLE {quote(thing.table)}"
    if isinstance(thing, Key):
        return f"{alter} ADD {thing.sql()};"
    # In two steps, so that the table is not locked against writes while its rows are checked.
    return f"{alter} ADD {thing.sql()} NOT VALID;\n{alter} VALIDATE CONSTRAINT {quote(thing.name)};"


def drop(thing: Object) -> str:
    if isinstance(thing, Index):
        return f"DROP INDEX CONCURRENTLY {quote(thing.name)};\n"
    return f"ALTER TABLE {quote(thing.table)} DROP CONSTRAINT {quote(thing.name)};\n"


def rename(thing: Object, name: str) -> str:
    if isinstance(thing, Index):
        return f"ALTER INDEX {quote(thing.name)} RENAME TO {quote(name)};"
    return f"ALTER TABLE {quote(thing.table)} RENAME CONSTRAINT {quote(thing.name)} TO {quote(name)};"


def mend_check(thing: Check, live: Check | None) -> str:
    if live is None:
        return add(thing)
    if replace(live, valid=True) == thing:
        return f"ALTER TABLE {quote(thing.table)} VALIDATE CONSTRAINT {quote(thing.name)};"
    return drop(live) + add(thing)


def mend_foreign_key(fk: ForeignKey, live: ForeignKey | None) -> str:
    if live is not None and replace(live, valid=True) == fk:
        return f"ALTER TABLE {quote(fk.table)} VALIDATE CONSTRAINT {quote(fk.name)};"
    return (drop(live) if live is not None else "") + add(fk)


def mend_index(index: Index, live: Index | None) -> str:
    if live is None:
        return f"{index.sql()};"
    if replace(live, valid=True, ready=True) == index:
        return f"REINDEX INDEX CONCURRENTLY {quote(index.name)};"
    return drop(live) + f"{index.sql()};"
