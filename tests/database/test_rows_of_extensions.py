"""Rows of tables that an extension registered for dumps, such as the jobs of pg_cron."""

import dataclasses

import pytest

from fly2any.database.backup import render
from fly2any.database.backup.restore import compare
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.backup.toc_entries import entries_in, of_schemas
from fly2any.database.backup.trial_restore import Failure, TrialResult, decide
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django

# An extension that no server has, with a schema, a table and a sequence.
INSTALLED = """
    CREATE EXTENSION hstore; CREATE SCHEMA cron; CREATE TABLE cron.job (id int PRIMARY KEY, command text); CREATE SEQUENCE cron.numbers;
    CREATE TABLE cron.some (id int); INSERT INTO cron.job VALUES (1, 'x');
    ALTER EXTENSION hstore ADD SCHEMA cron; ALTER EXTENSION hstore ADD TABLE cron.job; ALTER EXTENSION hstore ADD SEQUENCE cron.numbers;
    ALTER EXTENSION hstore ADD TABLE cron.some;
    UPDATE pg_extension SET extname = 'pg_cron', extcondition = ARRAY['', '', 'WHERE id > 1'],
        extconfig = ARRAY['cron.job', 'cron.numbers', 'cron.some']::regclass[]::oid[] WHERE extname = 'hstore'
"""
EXTENSION = Failure("EXTENSION pg_cron", "0A000", 7)
ROWS = Failure("TABLE DATA job", "3F000", 8, (99,), "rows of cron.job")


@pytest.mark.slow
def test_rows_of_an_extension_that_the_verification_cannot_create_are_named_and_not_tried(taken):
    manifest = taken(INSTALLED)

    left_out = (
        "EXTENSION pg_cron (0A000)",
        "COMMENT EXTENSION pg_cron (42704)",
        "rows of cron.job",
        "rows of cron.some",
        "value of cron.numbers",
    )
    assert (manifest.state, manifest.verdict.reason, manifest.verdict.left_out) == ("good", "", left_out)
    assert ", the rows of every restored table hashed and compared, " in render.verdict(manifest)


@pytest.mark.slow
def test_a_restore_compares_the_rows_of_an_extension(migrated, place):
    migrated.execute(INSTALLED)
    with django(migrated) as connection:
        manifest = take(connection, Folder(place), Progress())
        rest = {name: content for name, content in manifest.tables.items() if name != '"cron"."job"'}
        older = dataclasses.replace(manifest, tables=rest, registered={})
        results = []
        for change in (
            "SELECT 1",
            "ALTER TABLE cron.job ADD of_a_newer_version int",
            "INSERT INTO cron.some VALUES (1)",
            "UPDATE cron.job SET command = 'y'",
            "DELETE FROM cron.job",
        ):
            migrated.execute(change)
            results.append((compare(connection, manifest, Progress()), compare(connection, older, Progress())))

    assert manifest.tables['"cron"."job"'].rows == 1
    assert (set(manifest.extensions), {name: one.columns for name, one in manifest.registered.items()}) == (
        {"pg_cron", "pg_trgm"},
        {'"cron"."job"': ("command", "id"), '"cron"."numbers"': (), '"cron"."some"': ()},
    )
    assert results == [
        ("", ""),
        ("", ""),
        ("", ""),
        ('"cron"."job" has different rows', ""),
        ('"cron"."job" has 0 rows instead of 1', ""),
    ]


def test_a_backup_is_refused_if_this_role_cannot_read_rows_of_an_extension(migrated, place):
    migrated.execute(INSTALLED)
    with migrated.role(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}"
    ) as url:
        role = url.partition("//")[2].partition("@")[0].partition(":")[0]
        with (
            django(dataclasses.replace(migrated, user=role)) as connection,
            pytest.raises(Refusal, match=r"cannot read 3 tables and sequences, so no backup was taken: cron\.job of "),
        ):
            take(connection, Folder(place), Progress())


def test_privileges_on_the_schema_of_an_extension_are_restored_after_the_extension():
    listing = (
        "3; 3079 17317 EXTENSION - pg_cron \n10; 0 0 ACL - SCHEMA cron postgres\n;\tdepends on: 8\n"
        "11; 0 0 ACL - SCHEMA public postgres\n;\tdepends on: 9\n12; 2615 5 SCHEMA - crm postgres\n"
        "13; 0 0 ACL - SCHEMA crm postgres\n;\tdepends on: 12\n14; 0 0 ACL crm TABLE notes postgres\n;\tdepends on: 12\n"
    )

    assert of_schemas(tuple(entries_in(listing))) == {11, 12, 13}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (TrialResult((EXTENSION, ROWS), (), ()), ("", "good")),
        (TrialResult((ROWS,), (), ()), ("rows of cron.job (3F000) could not be restored here", "unverified")),
        # Another version of the extension may lack a column or have the row already.
        (
            TrialResult((EXTENSION, dataclasses.replace(ROWS, state="23505")), (), ()),
            ("rows of cron.job (23505) could not be restored here; EXTENSION pg_cron (0A000) was left out", "unverified"),
        ),
        (
            TrialResult((), (), ('"cron"."job" has different rows',), extensions=("pg_cron",)),
            ('"cron"."job" has different rows; the extension pg_cron may be another version here', "unverified"),
        ),
    ],
)
def test_rows_of_an_extension_never_make_a_backup_bad(found, expected):
    assert decide(found, readable=True, unlike=(), by_copy=True, untrusted=()) == expected
