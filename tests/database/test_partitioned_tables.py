"""Tables of ours that their owner partitioned, and other relations in the place of one."""

import pytest
from django.db import connection

from fly2any.database.report.collect import collect
from fly2any.database.report.script import status_as_sql
from fly2any.database.schema.obstacles import AGREE
from fly2any.database.verification import verify
from tests.conftest import manage
from tests.database.sites import plan
from tests.database.test_writes import run

PARTITION = """
    ALTER TABLE price_history RENAME TO price_history_old;
    CREATE TABLE price_history (LIKE price_history_old INCLUDING DEFAULTS) PARTITION BY RANGE ("timestamp");
    DROP TABLE price_history_old;
    CREATE TABLE price_history_d PARTITION OF price_history DEFAULT;
    ALTER TABLE price_history ADD CONSTRAINT price_history_pkey PRIMARY KEY (id, "timestamp");
    INSERT INTO price_history (id, origin, destination, price, provider, "departDate")
    SELECT 'p' || i, 'MIA', 'GRU', 1, 'amadeus', '2027-01-01' FROM generate_series(1, 3) AS i;
"""
KEY = (
    'Primary key price_history_pkey of price_history is PRIMARY KEY ("id", "timestamp"), not PRIMARY KEY ("id"), because a key of a'
    " partitioned table must contain the partition key: several rows can have the same id."
)


def definitions():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_indexdef(i.indexrelid) FROM pg_index AS i WHERE indrelid = 'price_history'::regclass AND NOT indisprimary ORDER BY 1"
        )
        return [definition for (definition,) in cursor.fetchall()]


def found():
    return [(finding.severity, finding.code, finding.where) for finding in verify(connection).findings]


@pytest.mark.django_db
def test_a_partitioned_table_differs_only_by_its_key():
    indexes = definitions()
    run(PARTITION)
    run(";".join(indexes))

    [finding] = verify(connection).findings

    assert (finding.severity, finding.code, finding.message) == ("warning", "primary_key.weaker", KEY)
    assert not finding.is_sql


@pytest.mark.django_db
def test_the_cures_of_a_partitioned_table_work_and_keep_its_rows():
    indexes = definitions()
    run(PARTITION)
    run(
        "ALTER TABLE price_history DROP CONSTRAINT price_history_pkey, ALTER provider DROP NOT NULL, ALTER currency DROP DEFAULT"
    )
    names = sorted(definition.split()[2].strip('"') for definition in indexes)
    missing = [("error", "index.missing", f"price_history.{name}") for name in names]

    first = found()
    for finding in verify(connection).findings:
        run(finding.cure)

    assert first == [
        ("error", "column.weaker", "price_history.provider"),
        ("error", "default.missing", "price_history.currency"),
        ("error", "primary_key.missing", "price_history.price_history_pkey"),
        *missing,
    ]
    assert found() == [("warning", "primary_key.weaker", "price_history.price_history_pkey")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM price_history")
        assert cursor.fetchall() == [(3,)]


@pytest.mark.django_db
def test_the_script_comments_out_an_empty_table_in_the_place_of_a_view():
    run("DROP TABLE price_history CASCADE; CREATE VIEW price_history AS SELECT 'a' AS id")

    script = status_as_sql(collect(connection, verification=verify(connection)))

    lines = script.splitlines()
    [begin] = [number for number, line in enumerate(lines) if "table.different at price_history" in line]
    assert lines[begin + 1] == "-- Commented out: the new table is empty, and the rows of the view are no longer read."
    assert lines[begin + 2 : begin + 4] == ["-- DO $$ BEGIN", '-- ALTER VIEW "price_history" RENAME TO "price_history_old";']
    assert lines[begin + 4].startswith('-- CREATE TABLE "price_history" (')


@pytest.mark.slow
def test_a_partitioned_table_is_not_adopted(exact):
    exact.execute(
        """
        ALTER TABLE price_history RENAME TO price_history_old;
        CREATE TABLE price_history (LIKE price_history_old INCLUDING DEFAULTS) PARTITION BY RANGE ("timestamp");
        DROP TABLE price_history_old; CREATE TABLE price_history_d PARTITION OF price_history DEFAULT
        """
    )

    blockers = plan(exact)["blockers"]

    assert [(one["code"], one["where"], one["message"]) for one in blockers] == [
        (
            "table.different", "price_history",
            "price_history is a partitioned table, which cannot be adopted: PostgreSQL cannot change the type of a column of its partition key.",
        )
    ]  # fmt: skip
    assert manage("dbadopt", "--yes", url=exact.url).returncode == 4


@pytest.mark.django_db
@pytest.mark.parametrize("action", ["", "ON DELETE SET NULL", "ON DELETE CASCADE ON UPDATE CASCADE"])
def test_a_foreign_key_to_the_wider_key_is_found_where_it_keeps_rows(action):
    indexes = definitions()
    run(PARTITION)
    run(";".join(indexes))
    run(
        f'CREATE TABLE theirs (id text, at timestamptz, FOREIGN KEY (id, at) REFERENCES price_history (id, "timestamp") {action})'
    )
    weaker = ("warning", "primary_key.weaker", "price_history.price_history_pkey")
    restricts = [] if action else [("warning", "foreign_key.restricts", "theirs.theirs_id_at_fkey")]

    before = found()
    for finding in verify(connection).findings:
        if finding.code == "foreign_key.restricts":
            run(finding.cure.removeprefix(AGREE))

    assert (sorted(before), found()) == (sorted([*restricts, weaker]), [weaker])
