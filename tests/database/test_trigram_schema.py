"""Cures that create a trigram index find the operator class of pg_trgm wherever the extension is."""

import pytest
from django.db import connection

from fly2any.database.verification import verify
from tests.database.test_writes import run

MISSING = ["users.users_email_trgm_idx", "users.users_words_trgm_idx"]


def indexes():
    return list(verify(connection).findings)


def cure(findings):
    for finding in findings:
        run(finding.cure.replace(" CONCURRENTLY", ""))


@pytest.mark.django_db
@pytest.mark.parametrize("schema", ["public", "extensions", "Odd one"])
def test_a_missing_trigram_index_is_created_with_the_operator_class_of_its_schema(schema):
    run("DROP INDEX users_words_trgm_idx, users_email_trgm_idx")
    if schema != "public":
        run(f'CREATE SCHEMA "{schema}"', f'ALTER EXTENSION pg_trgm SET SCHEMA "{schema}"')

    findings = indexes()

    assert [(one.code, one.where) for one in findings] == [("index.missing", where) for where in MISSING]
    operators = "gin_trgm_ops" if schema == "public" else f'"{schema}".gin_trgm_ops'
    assert (
        findings[0].cure == f'CREATE INDEX CONCURRENTLY "users_email_trgm_idx" ON "users" USING gin (upper(email) {operators});'
    )
    cure(findings)
    assert indexes() == []


@pytest.mark.django_db
def test_a_missing_extension_is_named_and_created():
    run("DROP EXTENSION pg_trgm CASCADE")

    findings = indexes()

    assert [(one.code, one.where, one.message) for one in findings] == [
        (
            "index.missing",
            where,
            f"Index {where[6:]} of users is missing. The extension pg_trgm, which its cure needs, is missing too.",
        )
        for where in MISSING
    ]
    cure(findings)
    assert indexes() == []


@pytest.mark.django_db
def test_a_role_that_may_not_create_the_extension_gets_the_cures_as_comments():
    run("DROP EXTENSION pg_trgm CASCADE", "CREATE ROLE site", "SET ROLE site")

    findings = [one for one in indexes() if one.code == "index.missing"]

    first = "The owner of the database, or a superuser, must run it"
    assert [(one.where, one.cure.splitlines()[:2], one.loses) for one in findings] == [
        (where, [f"-- {first}", "CREATE EXTENSION IF NOT EXISTS pg_trgm;"], f"t{first[1:]}") for where in MISSING
    ]


@pytest.mark.django_db
def test_a_column_whose_trigram_indexes_went_with_it_gets_them_again():
    run(
        "CREATE SCHEMA extensions; ALTER EXTENSION pg_trgm SET SCHEMA extensions; ALTER TABLE users ALTER email TYPE varchar(90)"
    )
    run("DROP INDEX users_email_trgm_idx")

    cure(indexes())

    assert indexes() == []
