"""The mutation matrix: every kind of damage to every object is found, by the right code, and its cure works."""

import pytest
from django.db import ProgrammingError, connection, transaction

from fly2any.database.catalog import read_catalog
from fly2any.database.drift import compare
from fly2any.database.findings import Severity
from fly2any.database.foreign import AGREE
from tests.database.mutations import EXPECTED, Mutation, mutations

MUTATIONS = tuple(mutations())
# What `migrate` fills: damage such as a new NOT NULL column needs empty tables.
EMPTY_SQL = """
    DELETE FROM auth_group; DELETE FROM auth_permission; DELETE FROM django_content_type; DELETE FROM django_migrations;
    DELETE FROM fly2any_migration_runs; SET CONSTRAINTS ALL IMMEDIATE
"""


def drift():
    return compare(EXPECTED, read_catalog(connection, schema="public")).findings


def run(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.django_db
def test_the_undamaged_database_has_no_finding():
    assert drift() == ()


@pytest.mark.django_db
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_damage_is_found_and_its_cure_works(mutation: Mutation):
    if connection.pg_version < mutation.since * 10_000:
        with pytest.raises(ProgrammingError), transaction.atomic():
            run(mutation.sql)  # This version of PostgreSQL has no such damage.
        return
    run(EMPTY_SQL)
    run(mutation.sql)

    found = drift()

    assert {(finding.code, finding.where) for finding in found} == mutation.found
    assert len(found) == len(mutation.found)
    for finding in found:
        cure = finding.cure.removeprefix(AGREE)
        if finding.is_sql or cure != finding.cure:
            run(cure.replace(" CONCURRENTLY", ""))
    assert [finding for finding in drift() if finding.severity is not Severity.NOTE] == []
