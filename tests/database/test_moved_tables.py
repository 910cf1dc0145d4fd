"""Tables of ours that are in another schema are named, not created empty."""

import pytest
from django.db import connection

from fly2any.database.report.collect import collect
from fly2any.database.report.script import status_as_sql
from fly2any.database.schema import read_catalog
from fly2any.database.schema.drift import compare
from fly2any.database.schema.expressions_on_server import Live
from fly2any.database.verification import verify
from tests.database.mutation import EXPECTED
from tests.database.test_writes import run

SCHEMAS = 'CREATE SCHEMA attic; CREATE SCHEMA "far away"'
COMPARED = "it was probably moved. Its columns, keys and foreign keys are compared once it is back."


def drift():
    return compare(EXPECTED, read_catalog(connection, schema="public"), live=Live(connection, "public")).findings


@pytest.mark.sampled(6)
@pytest.mark.django_db
@pytest.mark.parametrize("table", [table.name for table in EXPECTED.tables])
def test_a_table_in_another_schema_is_found_and_its_cure_moves_it_back(table):
    run(SCHEMAS, f'ALTER TABLE "{table}" SET SCHEMA "far away"')

    (finding,) = drift()

    assert (finding.severity, finding.code, finding.where) == ("error", "table.moved", table)
    assert finding.message == (
        f"Table {table} is missing, and the schema far away has a table of this name with all its columns: {COMPARED}"
    )
    assert finding.cure == f'ALTER TABLE "far away".{table} SET SCHEMA "public";'
    run(finding.cure)
    assert drift() == ()


@pytest.mark.django_db
def test_a_script_only_comments_on_a_table_in_another_schema():
    run(SCHEMAS, "ALTER TABLE users SET SCHEMA attic")

    lines = status_as_sql(collect(connection, verification=verify(connection))).splitlines()

    assert '-- ALTER TABLE attic.users SET SCHEMA "public";' in lines
    assert [line for line in lines if line.startswith(("CREATE", "ALTER"))] == []


@pytest.mark.django_db
def test_each_table_of_the_name_is_named():
    run(SCHEMAS, 'ALTER TABLE users SET SCHEMA attic; CREATE TABLE "far away".users (LIKE attic.users)')

    (finding,) = drift()

    assert finding.message == (
        f"Table users is missing, and the schemas far away and attic each have a table of this name with all its columns: {COMPARED}"
    )
    assert finding.cure.splitlines() == [
        'ALTER TABLE "far away".users SET SCHEMA "public";', "-- Or:", 'ALTER TABLE attic.users SET SCHEMA "public";'
    ]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("table", ["price_history", "django_content_type"])
def test_copies_in_many_schemas_are_not_taken_for_the_table(table):
    """As those of django-tenants."""
    for number in range(1, 6):
        run(f"CREATE SCHEMA t{number}; CREATE TABLE t{number}.{table} (LIKE {table})")
    run(f"DROP TABLE {table} CASCADE")

    found = next(one for one in drift() if one.where == table)

    names = f"t1.{table}, t2.{table}, t3.{table} or one of 2 more"
    assert (found.code, found.loses) == ("table.missing", f"{names} may be the same table, and {table} would be empty")
    assert found.message.startswith(f"Table {table} is missing, unless {names} is the same table, renamed or moved: ")
    assert (found.cure.startswith(f'CREATE TABLE "{table}"'), "t1" in found.cure) == (True, False)


@pytest.mark.django_db
def test_a_view_in_its_place_and_what_has_its_names_are_renamed_first():
    run(SCHEMAS, "ALTER TABLE price_history SET SCHEMA attic; CREATE VIEW price_history AS SELECT * FROM attic.price_history")
    run("CREATE SEQUENCE price_history_pkey")

    (finding,) = drift()

    assert finding.message == (
        f"Table price_history is a view, not a table, and the schema attic has a table of this name with all its columns: {COMPARED}"
    )
    run(finding.cure)
    assert drift() == ()


@pytest.mark.django_db
def test_a_table_that_was_renamed_behind_a_view_is_found_and_renamed_back():
    run("ALTER TABLE users RENAME TO users_v1; CREATE VIEW users AS SELECT * FROM users_v1", 'DROP INDEX "users_createdAt_idx"')

    different, missing = drift()

    assert (different.severity, different.code, different.where, different.loses != "") == (
        "error",
        "table.different",
        "users",
        True,
    )
    assert different.message == "Table users is a view, not a table, and users_v1 has all its columns: it was probably renamed."
    assert (missing.code, missing.where) == ("index.missing", "users.users_createdAt_idx")
    run(different.cure, missing.cure.replace(" CONCURRENTLY", ""))
    assert drift() == ()


@pytest.mark.django_db
def test_a_view_is_not_taken_for_a_table_that_was_renamed():
    run(
        "CREATE TABLE kept AS TABLE price_history; CREATE VIEW ours AS TABLE kept; ALTER TABLE kept ADD more int",
        "DROP TABLE price_history",
    )

    assert "table.renamed" not in {one.code for one in drift()}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE attic.wishlist_items (id text, notes text)",
        "CREATE TABLE attic.wishlist_items (LIKE wishlist_items); ALTER TABLE attic.wishlist_items ALTER id TYPE uuid USING NULL",
        "CREATE VIEW attic.wishlist_items AS SELECT * FROM price_alerts",
        "CREATE TABLE attic.wishlist_items (LIKE wishlist_items); CREATE ROLE theirs; ALTER TABLE attic.wishlist_items OWNER TO theirs",
        "CREATE TEMP TABLE wishlist_items (LIKE wishlist_items)",
    ],
    ids=["fewer columns", "other types", "a view", "another role's", "a temporary table"],
)
def test_another_table_of_the_name_is_not_taken_for_it(made):
    run(SCHEMAS, made, "DROP TABLE public.wishlist_items")

    assert {(finding.code, finding.where) for finding in drift()} == {
        ("table.missing", "wishlist_items"), ("foreign_key.missing", "wishlist_items.wishlist_items_userId_fkey")
    }  # fmt: skip
