"""Rows that neither COPY nor pg_dump can read, because a value or a row may have at most 1 GB as text."""

import pytest
from django.db import InternalError
from psycopg.errors import lookup

from fly2any.database.backup import row_hashes
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.other_roles import other_role


def refusal(database, place):
    with django(database) as connection, pytest.raises(Refusal) as refused:
        take(connection, Folder(place), Progress())
    return str(refused.value)


def described(place, owner, reason, sizes):
    return (
        f"PostgreSQL cannot write a row of {place} of {owner} as text ({reason}), so pg_dump cannot read it either: in text form, a value or"
        " a row can have at most 1 GB, bytea takes twice its size, and the server needs that much memory."
        f" As {owner}, run SELECT ctid, {sizes} AS bytes FROM ONLY {place} ORDER BY bytes DESC LIMIT 5; Then shorten or delete the largest."
    )


@pytest.mark.slow
def test_a_row_that_is_too_large_is_named_with_its_table_its_owner_and_the_cure(migrated, place):
    large = (
        """INSERT INTO mal.b SELECT 2, 'x', string_agg(decode(repeat('00', 1000000), 'hex'), '') FROM generate_series(1, 560)"""
    )
    with other_role(migrated, 'CREATE TABLE mal.b (id int, "a b" text, c bytea)', large) as role:
        found = refusal(migrated, place)
        query = found.partition(", run ")[2].partition(" Then ")[0]
        with migrated.connect() as owner:
            owner.execute(f"SET ROLE {role}")
            assert owner.execute(query).fetchall() == [("(0,1)", 560_000_001)]

    assert found == described(
        '"mal"."b"',
        role,
        "invalid memory alloc request size 1120000003",
        'COALESCE(octet_length("a b"), 0) + COALESCE(octet_length(c), 0)',
    ) + (
        f' If {role} does not, as a superuser: \\copy "mal"."b" TO \'FILE\' (FORMAT binary) saves the rows (if necessary, column by column),'
        f' DROP TABLE "mal"."b" CASCADE; removes them, and ALTER ROLE "{role}" NOLOGIN; prevents the role from signing in.'
    )


@pytest.mark.parametrize(
    ("state", "reason"), [("XX000", "invalid memory alloc request size 9"), ("54000", "no room"), ("53200", "no room")]
)
def test_the_rows_of_trusted_roles_are_not_to_be_dropped(migrated, place, monkeypatch, state, reason):
    def fail(copy):
        raise lookup(state)(reason)

    monkeypatch.setattr(row_hashes, "rows_of", fail)
    migrated.execute("CREATE SCHEMA a; CREATE TABLE a.first (id int, data jsonb)")

    assert refusal(migrated, place) == described('"a"."first"', "postgres", reason, "COALESCE(pg_column_size(data), 0)")


def test_another_internal_error_is_not_taken_for_a_large_row(migrated, place, monkeypatch):
    def fail(copy):
        raise lookup("XX000")("cache lookup failed for type 4242")

    monkeypatch.setattr(row_hashes, "rows_of", fail)

    with pytest.raises(InternalError, match="cache lookup failed"):
        refusal(migrated, place)
