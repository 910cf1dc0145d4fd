"""Tables of ours that their owner partitioned, and other relations in the place of one."""

from contextlib import closing, suppress

import pytest
from django.db import connection
from psycopg.errors import QueryCanceled

from fly2any.database.report.collect import collect
from fly2any.database.report.script import status_as_sql
from fly2any.database.schema.unmanaged_findings import AGREE
from fly2any.database.verification import verify
from tests.conftest import django, manage
from tests.database.sites import plan
from tests.database.test_writes import run
from tests.servers import open_transaction

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
def test_an_index_that_a_partition_lacks_is_found_until_it_is_attached():
    """As after an interrupted build of an index, partition by partition."""
    indexes = definitions()
    run(PARTITION)
    run(";".join(indexes))
    run(
        'DROP INDEX "price_history_timestamp_idx"; CREATE INDEX "price_history_timestamp_idx" ON ONLY price_history ("timestamp")',
        "ALTER TABLE price_history DROP CONSTRAINT price_history_pkey",
        'ALTER TABLE ONLY price_history ADD CONSTRAINT price_history_pkey PRIMARY KEY (id, "timestamp")',
    )
    invalid = "is invalid: at least one partition has no valid index that is attached to it"

    findings = {one.where: one for one in verify(connection).findings if one.message != KEY}

    assert {where: (one.severity, one.code, one.message, one.is_sql) for where, one in findings.items()} == {
        "price_history.price_history_pkey": (
            "error", "primary_key.weaker", f"Primary key price_history_pkey of price_history {invalid}, so duplicates can be stored.", False,
        ),
        "price_history.price_history_timestamp_idx": (
            "error", "index.weaker", f"Index price_history_timestamp_idx of price_history {invalid}.", False,
        ),
    }  # fmt: skip
    assert findings["price_history.price_history_timestamp_idx"].cure.endswith(
        'then for each: ALTER INDEX "price_history_timestamp_idx" ATTACH PARTITION …;'
    )
    run(
        'CREATE INDEX t ON price_history_d ("timestamp"); ALTER INDEX price_history_timestamp_idx ATTACH PARTITION t',
        'ALTER TABLE price_history_d ADD CONSTRAINT k PRIMARY KEY (id, "timestamp"); ALTER INDEX price_history_pkey ATTACH PARTITION k',
    )
    assert found() == [("warning", "primary_key.weaker", "price_history.price_history_pkey")]


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


RANGE = """
    ALTER TABLE price_history RENAME TO price_history_old;
    CREATE TABLE price_history (LIKE price_history_old INCLUDING DEFAULTS) PARTITION BY RANGE ("timestamp");
    DROP TABLE price_history_old;
    ALTER TABLE price_history ADD CONSTRAINT price_history_pkey PRIMARY KEY (id, "timestamp");
"""


def partition(name, begin, end):
    days = f"date_trunc('day', now()) + '{begin} days', date_trunc('day', now()) + '{end} days'"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {days}")
        bounds = [f"'{moment}'" for moment in cursor.fetchone()]
    return f"CREATE TABLE {name} PARTITION OF price_history FOR VALUES FROM ({bounds[0]}) TO ({bounds[1]})"


def of_partitions():
    """The findings about partitions, without their cures."""
    findings = verify(connection).findings
    return [(one.severity, one.code, one.where, one.message) for one in findings if one.code != "primary_key.weaker"]


@pytest.mark.django_db
def test_rows_that_no_partition_takes_are_found_before_inserts_fail():
    indexes = definitions()
    run(RANGE)
    run(";".join(indexes))
    gap = ("table.partition", "price_history")
    now = ("error", *gap, "No partition of price_history takes the rows that are inserted now, so every INSERT fails.")
    soon = ("warning", *gap, "No partition of price_history takes the rows of 7 days from now: INSERTs will fail.")

    empty = of_partitions()
    run(partition("price_history_past", -2, 0))
    ended = of_partitions()
    run("CREATE SCHEMA parts", partition("parts.price_history_now", 0, 3))
    nearly = of_partitions()
    run(partition("price_history_next", 3, 30))
    enough = of_partitions()
    run(
        "DROP TABLE parts.price_history_now, price_history_next",
        "CREATE TABLE price_history_d PARTITION OF price_history DEFAULT",
    )

    assert (empty, ended, nearly, enough, of_partitions()) == ([now], [now], [soon], [], [])


@pytest.mark.django_db
def test_rows_that_a_list_of_partitions_leaves_out_are_found():
    indexes = definitions()
    run(RANGE.replace('RANGE ("timestamp")', "LIST (currency)").replace('(id, "timestamp")', "(id, currency)"))
    run(";".join(indexes))
    run("CREATE TABLE price_history_usd PARTITION OF price_history FOR VALUES IN ('USD')")

    message = "No partition of price_history takes some rows that the contract allows, such as currency = 'a'."
    assert of_partitions() == [("warning", "table.partition", "price_history", message)]
    run("CREATE TABLE price_history_d PARTITION OF price_history DEFAULT")
    assert of_partitions() == []


@pytest.mark.django_db
def test_what_only_a_partition_has_is_found_and_the_cures_work():
    indexes = definitions()
    run(PARTITION)
    run(";".join(indexes), "DELETE FROM price_history")
    run(
        "ALTER TABLE price_history_d SET UNLOGGED",
        "ALTER TABLE price_history_d ADD CONSTRAINT c CHECK (price < 0) NOT VALID",
        "ALTER TABLE price_history_d ADD CONSTRAINT harmless CHECK (currency IS NOT NULL)",
        'ALTER TABLE price_history_d ALTER COLUMN "returnDate" SET NOT NULL',
        "CREATE UNIQUE INDEX u ON price_history_d (origin, destination, \"departDate\", price) WHERE provider <> 'amadeus'",
        "CREATE UNIQUE INDEX ids ON price_history_d (id)",
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this'; END $$",
        "CREATE TRIGGER t BEFORE INSERT ON price_history_d FOR EACH ROW EXECUTE FUNCTION theirs()",
    )

    findings = [one for one in verify(connection).findings if one.code != "primary_key.weaker"]
    for finding in findings:
        if finding.severity != "note":
            run(finding.cure.removeprefix(AGREE))

    part = "price_history_d, a partition of price_history,"
    allows = "is unmanaged, and refuses rows that the contract allows"
    trigger = (
        "note",
        "trigger.extra",
        "price_history_d.t",
        f"Trigger t of {part} is unmanaged and was not tried; it may change or reject our writes.",
    )
    assert [(one.severity, one.code, one.where, one.message) for one in findings] == [
        ("error", "table.weaker", "price_history_d", "Partition price_history_d of price_history is UNLOGGED: a crash empties it."),
        ("warning", "unique.extra", "price_history_d.u", f"Unique index u of {part} {allows}."),
        ("warning", "check.extra", "price_history_d.c", f"Constraint c of {part} CHECK ((price < (0)::double precision)), {allows}, such as price = 1."),
        ("warning", "check.extra", "price_history_d.returnDate", f"NOT NULL of column returnDate of {part} {allows}, such as returnDate is NULL."),
        trigger,
    ]  # fmt: skip
    assert of_partitions() == [trigger]


@pytest.mark.django_db
def test_a_check_that_says_what_the_bound_says_is_not_found():
    indexes = definitions()
    run(RANGE)
    run(";".join(indexes))
    run(partition("price_history_now", -1, 30))
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_partition_constraintdef('price_history_now'::regclass)")
        [bound] = cursor.fetchone()
    run(f"ALTER TABLE price_history_now ADD CONSTRAINT attached CHECK ({bound})")

    assert of_partitions() == []


@pytest.mark.slow
def test_a_partition_whose_detachment_was_interrupted_is_found(migrated):
    migrated.execute("""
        ALTER TABLE price_history RENAME TO was;
        CREATE TABLE price_history (LIKE was INCLUDING DEFAULTS) PARTITION BY RANGE ("timestamp");
        CREATE TABLE now PARTITION OF price_history FOR VALUES FROM (MINVALUE) TO ('2100-01-01');
        CREATE TABLE later PARTITION OF price_history FOR VALUES FROM ('2100-01-01') TO (MAXVALUE)""")

    def seen():
        with django(migrated) as connection:
            return [one for one in verify(connection).findings if one.code == "table.partition"]

    before = seen()
    with open_transaction(migrated, "SELECT FROM price_history"), closing(migrated.connect()) as client:
        client.execute("SET statement_timeout TO '500ms'")
        with suppress(QueryCanceled):
            client.execute("ALTER TABLE price_history DETACH PARTITION later CONCURRENTLY")
    [finding] = seen()
    migrated.execute(finding.cure.partition("; ")[0])

    assert (before, seen(), str(finding.severity), finding.where) == ([], [], "warning", "later")
    assert finding.cure == 'ALTER TABLE "price_history" DETACH PARTITION later FINALIZE; if it is to stay, attach it again.'
