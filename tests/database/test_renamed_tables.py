"""A table of ours that was renamed, and differs otherwise too: it is renamed back, and no empty one is created beside it."""

import pytest
from django.db import connection

from fly2any.database.schema import read_catalog
from fly2any.database.schema.drift import compare
from fly2any.database.schema.expressions_on_server import Live
from tests.database.mutation import EXPECTED
from tests.database.test_writes import run

SAVED = """
    INSERT INTO users (id, email, "updatedAt") VALUES ('a', 'a@example.com', now());
    INSERT INTO wishlist_items (id, "userId", "flightData", "updatedAt") VALUES ('w', 'a', '{}', now());
    SET CONSTRAINTS ALL IMMEDIATE
"""
RENAME = 'ALTER TABLE wishlist_items RENAME TO "WishlistItem"'
DAMAGES = {
    "one more column": (f'{RENAME}; ALTER TABLE "WishlistItem" ADD priority int', "all", []),
    "a renamed column": (
        f'{RENAME}; ALTER TABLE "WishlistItem" RENAME "targetPrice" TO target_price',
        "at least half of",
        [("column.renamed", "wishlist_items.targetPrice")],
    ),
    "another type": (
        f'{RENAME}; ALTER TABLE "WishlistItem" ALTER notes TYPE varchar(500)',
        "at least half of",
        [("column.different", "wishlist_items.notes")],
    ),
    "a copy": (f"CREATE TABLE wishlist_backup (LIKE wishlist_items); {RENAME}", "all", []),
}


def drift():
    return compare(EXPECTED, read_catalog(connection, schema="public"), live=Live(connection, "public")).findings


@pytest.mark.sampled(2)
@pytest.mark.django_db
@pytest.mark.parametrize("case", DAMAGES)
def test_a_table_that_was_renamed_and_changed_is_renamed_back(case):
    damage, has, more = DAMAGES[case]
    run(SAVED, damage)

    first, *others = findings = drift()

    assert [(one.code, one.where) for one in findings] == [("table.renamed", "wishlist_items"), *more]
    assert first.message == (
        f"Table wishlist_items is missing, and WishlistItem has {has} its columns: it was probably renamed."
    )
    assert (first.loses, len(others)) == ("it may belong to another program; check its values first", len(more))
    run(*(one.cure for one in findings))
    assert drift() == ()
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM wishlist_items")
        assert cursor.fetchall() == [("w",)]


MAY_BE = {
    "without its keys": ("CREATE TABLE theirs AS SELECT * FROM wishlist_items; ALTER TABLE theirs DROP notes", "theirs"),
    "in another schema": (
        "CREATE SCHEMA attic; CREATE TABLE attic.wishlist_items AS SELECT * FROM wishlist_items; ALTER TABLE attic.wishlist_items ALTER notes TYPE varchar",
        "attic.wishlist_items",
    ),
}


@pytest.mark.django_db
@pytest.mark.parametrize("case", MAY_BE)
def test_no_table_is_created_unread_where_another_may_be_it(case):
    copied, name = MAY_BE[case]
    run(SAVED, copied, "DROP TABLE public.wishlist_items")

    missing, fk = drift()

    assert (missing.code, missing.message, missing.loses) == (
        "table.missing",
        f"Table wishlist_items is missing, unless {name} is the same table, renamed or moved: check the rows, then rename or move it back;"
        " otherwise restore the table from a backup, or create it empty.",
        f"{name} may be the same table, and wishlist_items would be empty",
    )
    assert (fk.code, fk.loses) == ("foreign_key.missing", "it needs the table wishlist_items first")
    run(missing.cure, fk.cure)
    assert drift() == ()


@pytest.mark.django_db
def test_a_table_that_shares_only_usual_columns_is_not_taken_for_a_missing_one():
    run('CREATE TABLE trips (id text, "userId" text, title text, "createdAt" timestamptz); DROP TABLE sessions')

    [missing] = [one for one in drift() if one.code == "table.missing"]

    assert (missing.message, missing.loses) == (
        "Table sessions is missing, with its rows: restore it from a backup, or create it empty.",
        "",
    )


@pytest.mark.django_db
def test_three_tables_that_may_be_a_missing_one_are_named():
    run(*(f"CREATE TABLE copy_{n} AS SELECT * FROM wishlist_items" for n in range(5)), "DROP TABLE wishlist_items")

    [missing] = [one for one in drift() if one.code == "table.missing"]

    assert missing.loses == "copy_0, copy_1, copy_2 or one of 2 more may be the same table, and wishlist_items would be empty"
