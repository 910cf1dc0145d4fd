"""The mutation matrix: every kind of damage to every object is found, by the right code, and its cure works."""

from dataclasses import replace
from pprint import pformat

import pytest
from django.db import DatabaseError, OperationalError, ProgrammingError, connection, transaction

from fly2any.database.findings import Severity
from fly2any.database.schema import Column, read_catalog
from fly2any.database.schema.drift import compare
from fly2any.database.schema.expressions_on_server import Live
from fly2any.database.schema.unmanaged import AGREE
from tests.database.mutation import EXPECTED, Mutation, within
from tests.database.mutations import mutations, rounds

# Each table is damaged in each round's way in the end.
ROUNDS = [pytest.param(together, id=f"{len(together)} damages") for together in rounds(mutations())]
# Tables that `migrate` fills: damage such as a new NOT NULL column needs empty tables.
EMPTY_SQL = """
    DELETE FROM auth_group; DELETE FROM auth_permission; DELETE FROM django_content_type; DELETE FROM django_migrations;
    DELETE FROM fly2any_migration_runs; SET CONSTRAINTS ALL IMMEDIATE
"""


def drift(expected=EXPECTED):
    return compare(expected, read_catalog(connection, schema="public"), live=Live(connection, "public")).findings


def run(sql):
    with connection.cursor() as cursor:
        cursor.execute(within(sql))


@pytest.mark.django_db
def test_the_undamaged_database_has_no_finding():
    assert drift() == ()


@pytest.mark.django_db
@pytest.mark.sampled(20)
@pytest.mark.parametrize("together", ROUNDS)
def test_damage_is_found_and_its_cures_work(together: list[Mutation], record_property):
    record_property("damages", len(together))
    run(EMPTY_SQL)
    for mutation in filter(is_too_new, together):
        with pytest.raises(ProgrammingError), transaction.atomic():
            run(mutation.sql)
    possible = [mutation for mutation in together if not is_too_new(mutation)]

    wrong = what_is_wrong(possible)

    if wrong:
        alone = {mutation.name: wrong for mutation in possible if (wrong := what_is_wrong([mutation]))}
        pytest.fail(pformat(alone or {f"none alone, but together {[mutation.name for mutation in possible]}": wrong}))


def is_too_new(mutation):
    """Whether this version of PostgreSQL has no such damage."""
    return connection.pg_version < mutation.since * 10_000


def what_is_wrong(together):
    """Apply the damages of `together`, compare the findings, cure, compare again and roll back; return the deviations."""
    expected = sorted(place for mutation in together for place in mutation.found)
    try:
        with transaction.atomic():
            for mutation in together:
                run(mutation.sql)
            findings = drift()
            for finding in findings:
                cure = finding.cure.removeprefix(AGREE)
                if finding.is_sql or cure != finding.cure:
                    run(cure)
            left = [finding for finding in drift() if finding.severity is not Severity.NOTE]
            transaction.set_rollback(True)
    except DatabaseError as error:
        return str(error)
    found = sorted((finding.code, finding.where) for finding in findings)
    return {} if (found, left) == (expected, []) else {"expected": expected, "found": found, "left after the cures": left}


@pytest.mark.django_db
def test_rows_without_identity_are_found_where_their_schema_is_published():
    sql = "CREATE PUBLICATION theirs FOR TABLES IN SCHEMA public; ALTER TABLE wishlist_items REPLICA IDENTITY NOTHING"
    damage = Mutation("wishlist_items", sql, frozenset({("table.unidentified", "wishlist_items")}), since=15)

    assert is_too_new(damage) or what_is_wrong([damage]) == {}


@pytest.mark.django_db
def test_rows_without_identity_are_found_where_the_table_is_a_partition_of_a_published_one():
    run(
        "CREATE TABLE theirs (LIKE price_history) PARTITION BY LIST (id); ALTER TABLE theirs ATTACH PARTITION price_history DEFAULT;"
        " ALTER TABLE price_history REPLICA IDENTITY NOTHING; CREATE PUBLICATION theirs FOR TABLE theirs"
    )

    assert ("table.unidentified", "price_history") in [(finding.code, finding.where) for finding in drift()]
    with pytest.raises(OperationalError, match="does not have a replica identity"):
        run("UPDATE price_history SET price = 1")


@pytest.mark.django_db
@pytest.mark.parametrize("published", ["TABLE users", "ALL TABLES"])
def test_a_generated_column_that_is_not_published_is_found_where_it_identifies_rows(published):
    """From PostgreSQL 18 on, every UPDATE and DELETE then fails."""
    run(
        "ALTER TABLE users ADD theirs text GENERATED ALWAYS AS (id || 'a') STORED, REPLICA IDENTITY FULL;"
        f" CREATE PUBLICATION theirs FOR {published}"
    )

    found = [finding for finding in drift() if finding.code == "table.unidentified"]
    for finding in found:
        with pytest.raises(ProgrammingError, match="cannot update"), transaction.atomic():
            run("UPDATE users SET name = 'x'")
        run(finding.cure)
    run("UPDATE users SET name = 'x'")

    assert [finding.where for finding in found] == (["users"] if connection.pg_version >= 180000 else [])
    assert [finding for finding in drift() if finding.code == "table.unidentified"] == []


COMPUTED = Column("price_alerts", "computed", "text", generated="upper(origin)")
WITH_COMPUTED = replace(EXPECTED, columns=tuple(sorted((*EXPECTED.columns, COMPUTED), key=lambda c: (c.table, c.name))))
PLAIN = "ALTER TABLE price_alerts ALTER computed DROP EXPRESSION"
AGAIN = "ALTER TABLE price_alerts DROP computed, ADD computed text"


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("SELECT 1", []),
        ("ALTER TABLE price_alerts DROP origin CASCADE", [("column.missing", "origin"), ("column.missing", "computed"), ("index.missing", "price_alerts_route_createdAt_idx")]),
        ("ALTER TABLE price_alerts DROP computed", [("column.missing", "computed")]),
        (PLAIN, [("column.different", "computed")]),
        (f"{AGAIN} GENERATED ALWAYS AS (lower(origin)) STORED", [("column.different", "computed")]),
        (f"{AGAIN} GENERATED ALWAYS AS (upper(origin)) VIRTUAL", [("column.different", "computed")]),
        (f"{AGAIN} GENERATED ALWAYS AS (CASE WHEN true THEN upper(origin) END) STORED", []),
        (f"{AGAIN} COLLATE \"C\" GENERATED ALWAYS AS (upper(origin)) STORED", [("column.different", "computed")]),
        ("ALTER TABLE price_alerts ALTER computed SET NOT NULL", [("column.different", "computed")]),
        ("ALTER TABLE price_alerts DROP computed; ALTER TABLE price_alerts ALTER origin TYPE varchar(9), ADD computed text GENERATED ALWAYS AS (upper(origin)) STORED",
         [("column.different", "origin")]),
    ],
)  # fmt: skip
def test_a_generated_field_in_a_model_of_ours_is_compared_and_cured(damage, found):
    add = f"ALTER TABLE price_alerts ADD {COMPUTED.sql()}; CREATE INDEX theirs ON price_alerts USING hash (computed) WHERE computed <> ''"
    run(f"{EMPTY_SQL}; {add}")
    if " VIRTUAL" in damage and connection.pg_version < 180000:
        with pytest.raises(ProgrammingError), transaction.atomic():
            run(damage)
        return
    run(damage)

    findings = drift(WITH_COMPUTED)
    assert [(finding.code, finding.where.removeprefix("price_alerts.")) for finding in findings] == found
    for finding in findings:
        run(finding.cure)

    assert drift(WITH_COMPUTED) == ()
    if damage in ("SELECT 1", PLAIN) or "SET NOT NULL" in damage:
        assert [index.name for index in read_catalog(connection, schema="public").indexes if index.name == "theirs"] == [
            "theirs"
        ]
