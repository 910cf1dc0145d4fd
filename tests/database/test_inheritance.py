"""Cures of tables of ours that inherit from unmanaged tables, or that unmanaged tables inherit from."""

import pytest
from django.db import Error, connection, transaction

from fly2any.database.report.collect import collect
from fly2any.database.report.script import status_as_sql
from fly2any.database.schema.unmanaged_findings import AGREE
from fly2any.database.verification import verify
from tests.database.test_moved_tables import drift
from tests.database.test_writes import run

BELOW = "CREATE TABLE theirs (LIKE price_history); ALTER TABLE price_history INHERIT theirs; {}"
ABOVE = "CREATE TABLE theirs () INHERITS (price_history); {}"
SEPARATED = 'ALTER TABLE "price_history" NO INHERIT public.theirs;'
ASK = "price_history would no longer inherit from public.theirs: ask the owner first"
SPREADS = "it changes public.theirs too: follow the cure of table.inherited first"


def cured():
    for finding in drift():
        run(finding.cure.removeprefix(AGREE))
    return drift()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("ALTER TABLE theirs ALTER provider TYPE varchar(99)", "column.different"),
        ("ALTER TABLE theirs RENAME provider TO supplier", "column.renamed"),
        ("ALTER TABLE theirs ADD extra int NOT NULL", "column.extra"),
        ("ALTER TABLE theirs ADD CONSTRAINT theirs_c CHECK (provider <> 'x')", "check.extra"),
    ],
)
def test_a_column_or_check_that_is_inherited_is_cured_once_the_table_no_longer_inherits(damage, code):
    run(BELOW.format(damage))

    (finding,) = drift()

    statement = finding.cure.removeprefix(AGREE).partition("\n")[2]
    assert (finding.code, finding.cure) == (code, f"{AGREE if code.endswith('extra') else ''}{SEPARATED}\n{statement}")
    assert finding.loses == ("" if code.endswith("extra") else ASK)
    if code != "column.extra" or connection.pg_version >= 180000:
        with pytest.raises(Error, match="inherited"), transaction.atomic():
            run(statement)
    assert cured() == ()


@pytest.mark.django_db
def test_what_postgresql_allows_in_a_table_that_inherits_is_run():
    run(BELOW.format("ALTER TABLE price_history ALTER provider SET DEFAULT 'mock'"))

    (finding,) = drift()

    assert (finding.code, finding.loses, finding.cure) == (
        "default.extra", "", 'ALTER TABLE "price_history" ALTER COLUMN "provider" DROP DEFAULT;'
    )  # fmt: skip


@pytest.mark.django_db
def test_a_partition_is_detached_before_its_column_is_changed():
    run(
        "ALTER TABLE price_history ALTER provider TYPE varchar(99); CREATE TABLE theirs (LIKE price_history) PARTITION BY LIST (id)",
        "ALTER TABLE theirs ATTACH PARTITION price_history DEFAULT",
    )

    loses = {one.code: one.loses for one in drift()}

    assert (
        loses["column.different"] == "PostgreSQL refuses it in a partition of theirs: follow the cure of table.partition first"
    )
    assert cured() == ()


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE price_history ALTER provider TYPE varchar(99)",
        "ALTER TABLE price_history ALTER provider DROP NOT NULL",
        "ALTER TABLE price_history DROP provider",
        "ALTER TABLE price_history RENAME provider TO supplier",
    ],
)
def test_no_cure_that_spreads_to_unmanaged_tables_is_run(damage):
    run(ABOVE.format(damage))

    inherited, finding = drift()

    assert (inherited.code, finding.loses) == ("table.inherited", SPREADS)
    lines = status_as_sql(collect(connection, verification=verify(connection))).splitlines()
    assert [line for line in lines if line.startswith("ALTER")] == []
    columns = "SELECT attname, atttypid, attnotnull FROM pg_attribute WHERE attrelid = 'theirs'::regclass AND attnum > 0 ORDER BY attnum"
    with connection.cursor() as cursor:
        cursor.execute(columns)
        before = cursor.fetchall()
    assert cured() == ()
    with connection.cursor() as cursor:
        cursor.execute(columns)
        assert cursor.fetchall() == before
