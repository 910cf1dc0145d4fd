"""Databases as the site leaves them, and the facts that an adoption must not change."""

import json
from dataclasses import replace

from fly2any.database.schema import contract as contracts
from fly2any.database.schema import read_catalog
from fly2any.database.schema.contract import MAY_BE_NULL, catalog_of
from tests import prisma
from tests.conftest import django, manage

ROWS = 50
FINAL = catalog_of(version for version in contracts.load().versions if version.until is None)
OURS = {table.name for table in FINAL.tables}
KINDS = {"exact": prisma.exact(), "superset": prisma.superset()}


def fill(database, made):
    database.execute(made)
    database.execute("\n".join(prisma.fill(table, ROWS) for table in prisma.PHASE7))
    return database


def catalog(database):
    with django(database) as opened:
        return read_catalog(opened, schema="public")


def contents(database):
    """The rows of each table of Phase 7, as a number of rows and a sum of their hashes, times as instants."""
    found = {}
    there = set(
        database.execute("SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped")
    )
    for name, table in prisma.PHASE7.items():
        columns = ", ".join(
            f"""COALESCE({f'extract(epoch FROM "{c["name"]}")' if c["type"].startswith("timestamp") else f'"{c["name"]}"'}::text, 'NULL')"""
            for c in table["columns"]
            if (name, c["name"]) in there
        )
        statement = f"SELECT count(*), sum(hashtextextended(concat_ws('|', {columns}), 0)::numeric) FROM \"{name}\""
        (found[name],) = database.execute(statement)
    return found


def files(database):
    """The file of each table of Phase 7: another one when it was rewritten."""
    return dict(
        database.execute(
            "SELECT relname::text, pg_relation_filenode(oid) FROM pg_class WHERE relname = ANY (%s)", [list(prisma.PHASE7)]
        )
    )


def everything(database):
    relations = database.execute(
        "SELECT oid, relname, relfilenode, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    )
    return catalog(database), contents(database), relations


def plan(database, url=None):
    result = manage("dbadopt", "--format", "json", url=url or database.url)
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["exit_code"] == result.returncode
    return report


def adopted(database, *options):
    # A timeout below deadlock_timeout would not cancel an autovacuum.
    result = manage("dbadopt", "--yes", *options, url=database.url, LOCK_TIMEOUT="")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    return result.stdout


def is_as_migrated(database):
    status = manage("dbstatus", url=database.url)
    assert status.returncode == 0, status.stdout
    mine = catalog(database).where(lambda thing: thing.table in OURS)
    accepted = left_out(mine)
    mine = replace(
        mine, columns=tuple(replace(c, nullable=False) if (c.table, c.name) in accepted else c for c in mine.columns)
    )
    ours = {(c.table, c.name) for c in FINAL.columns}
    assert set(mine.columns) - set(FINAL.columns) == {c for c in mine.columns if (c.table, c.name) not in ours}
    assert set(FINAL) <= set(mine)
    return True


def left_out(catalog):
    """The columns that the site's inserts omit in its later schema."""
    there = {(column.table, column.name) for column in catalog.columns}
    return {place for place, sign in MAY_BE_NULL.items() if (place[0], sign) in there}
