"""What tables store: partitions count for their table, and what cannot be measured is not known."""

import pytest

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.indexes import indexes
from fly2any.database.health.tables import tables
from fly2any.database.maintenance.run import Refreshed, maintain
from fly2any.database.progress import Progress
from fly2any.database.schema.relation_kinds import Kind
from fly2any.database.schema.sizes_and_use import read_estimates, read_extents, read_index_use
from fly2any.database.units import size
from tests.conftest import django
from tests.database.test_dbhealth import found
from tests.database.test_health_privileges import asked
from tests.servers import REPORTED_SQL, wait_until

pytestmark = pytest.mark.usefixtures("server")

PARTITIONED = """
    CREATE TABLE visits (id int, day date NOT NULL) PARTITION BY RANGE (day);
    CREATE INDEX visits_id ON visits (id);
    CREATE SCHEMA parts;
    CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE parts.visits_new PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO (MAXVALUE) PARTITION BY LIST (id);
    CREATE TABLE parts.visits_one PARTITION OF parts.visits_new FOR VALUES IN (1);
    CREATE TABLE parts.visits_rest PARTITION OF parts.visits_new DEFAULT;
    INSERT INTO visits SELECT n, DATE '2024-12-01' + n FROM generate_series(1, 3000) AS n
"""
STORED_SQL = """
    SELECT sum(pg_total_relation_size(part))::bigint, sum(pg_relation_size(part))::bigint
    FROM unnest('{visits_old, parts.visits_one, parts.visits_rest}'::regclass[]) AS part
"""


def test_the_partitions_of_a_table_are_added_up(database):
    database.execute(PARTITIONED)
    wait_until(database, REPORTED_SQL, [3000])
    database.execute("ANALYZE")
    [(stored, heap)] = database.execute(STORED_SQL)

    with django(database) as connection:
        extents = read_extents(connection, schema="public")
        estimates = read_estimates(connection, ["visits", "missing"])
        indexes = read_index_use(connection, schema="public")

    visits = extents["visits"]
    assert [*extents] == ["visits"]
    assert (visits.kind, visits.estimate, visits.rows, visits.bytes, visits.heap) == (
        Kind.PARTITIONED,
        3000,
        3000,
        stored,
        heap,
    )
    assert {name: (one.estimate, one.bytes) for name, one in estimates.items()} == {"visits": (3000, None)}
    assert [(use.table, use.name) for use in indexes] == [("visits", "visits_id")]
    assert (indexes[0].bytes or 0) > 2 * 8192


def test_what_a_view_and_a_foreign_table_store_is_not_known(database):
    database.execute(
        "CREATE VIEW seen AS SELECT 1 AS one; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one; CREATE TABLE empty ()"
    )
    database.execute("CREATE FOREIGN DATA WRAPPER far; CREATE SERVER there FOREIGN DATA WRAPPER far")
    database.execute("CREATE FOREIGN TABLE away (id int) SERVER there; CREATE TABLE mixed (id int) PARTITION BY LIST (id)")
    database.execute("CREATE FOREIGN TABLE mixed_away PARTITION OF mixed DEFAULT SERVER there")

    wait_until(database, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'kept' AND n_live_tup = 1")
    size = database.execute("SELECT pg_total_relation_size('kept')")[0][0]  # PostgreSQL 15 and later begin a visibility map.
    with django(database) as connection:
        extents = read_extents(connection, schema="public")

    assert {name: (one.kind, one.rows, one.dead, one.bytes) for name, one in extents.items()} == {
        "away": (Kind.FOREIGN, None, None, None),
        "empty": (Kind.PLAIN, 0, 0, 0),
        "kept": (Kind.VIEW, 1, 0, size),
        "mixed": (Kind.PARTITIONED, None, None, None),
        "seen": (Kind.VIEW, None, None, None),
    }


def test_the_health_of_a_partitioned_table_is_that_of_its_partitions(database):
    database.execute(PARTITIONED)
    database.execute("CREATE INDEX visits_again ON visits (id)")
    database.execute("INSERT INTO visits SELECT n, '2024-06-01' FROM generate_series(1, 60000) AS n; ANALYZE visits_old")

    with django(database) as connection:
        connection.ensure_connection()
        labels = [one.label for one in tables(Reader(connection, "public")) if isinstance(one, Figure)]

    assert labels == ["tables", "visits", "visits, rows", "visits, dead rows"]
    assert found(database, "tables") == [("tables.not_analysed", "visits")]
    assert found(database, "indexes") == [("indexes.redundant", "visits.visits_id")]


def test_a_partition_may_have_an_index_of_its_own(database):
    database.execute(PARTITIONED)
    database.execute("CREATE INDEX visits_old_day ON visits_old (day); CREATE INDEX visits_old_again ON visits_old (day)")

    assert found(database, "indexes") == [("indexes.redundant", "visits_old.visits_old_day")]


def test_an_invalid_index_of_a_partitioned_table_is_attached_to_its_partitions(database):
    database.execute("CREATE TABLE visits (day date) PARTITION BY RANGE (day); CREATE TABLE old PARTITION OF visits DEFAULT")
    database.execute("CREATE INDEX visits_day ON ONLY visits (day); CREATE INDEX old_day ON old (day)")

    with django(database) as connection:
        connection.ensure_connection()
        [finding] = [one for one in indexes(Reader(connection, "public")) if isinstance(one, Finding)]
    statement = finding.cure.rpartition("then for each: ")[2]
    assert (finding.where, statement) == ("visits.visits_day", 'ALTER INDEX "visits_day" ATTACH PARTITION …;')

    database.execute(statement.replace("…", "old_day"))
    assert found(database, "indexes") == []


def test_maintenance_vacuums_a_partitioned_table_as_a_whole(database):
    database.execute(PARTITIONED)
    database.execute("DELETE FROM visits WHERE id < 1000")
    wait_until(database, "SELECT 1 FROM pg_stat_user_tables GROUP BY relid HAVING sum(n_dead_tup) > 0")

    with django(database) as connection:
        refreshed = maintain(connection, "monthly", seconds=600, progress=Progress()).refreshed
        wait_until(
            database,
            "SELECT 1 FROM pg_stat_user_tables WHERE relname IN ('visits_old', 'visits_one', 'visits_rest')"
            " HAVING bool_and(last_vacuum IS NOT NULL AND last_analyze IS NOT NULL)",
        )
        visits = read_extents(connection, schema="public")["visits"]

    assert refreshed == Refreshed(["visits"], [])
    assert (visits.estimate, visits.vacuumed is not None, visits.analysed is not None) == (2001, True, True)


def test_an_index_over_an_unknown_number_of_rows_is_not_bloated(database):
    database.execute(f"{PARTITIONED}; ANALYZE; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w")
    database.execute("CREATE FOREIGN TABLE far PARTITION OF visits FOR VALUES FROM ('2023-01-01') TO ('2024-01-01') SERVER s")

    assert found(database, "indexes", large=1) == []


# A session that counts nothing leaves rows and statistics as pg_upgrade and a crash do.
UNCOUNTED = """
    SET track_counts = off; CREATE TABLE {name} (id int, word text) WITH (autovacuum_enabled = off);
    INSERT INTO {name} SELECT n, repeat('x', 500) FROM generate_series(1, {rows}) AS n
"""


def test_a_large_table_without_statistics_is_found_until_it_is_analysed(database):
    database.execute(UNCOUNTED.format(name="archived", rows=30_000))
    database.execute(UNCOUNTED.format(name="small", rows=10_000))
    [(stored,)] = database.execute("SELECT pg_relation_size('archived')")

    figures, findings = asked(database, "tables")
    rows = {name: extent.rows for name, extent in extents_of(database).items()}

    assert stored > 10 * 2**20
    assert [(str(one.severity), one.code, one.where, one.message, one.cure, one.is_sql) for one in findings] == [
        (
            *("warning", "tables.not_analysed", "archived"),
            f"Table archived stores {size(stored)} (limit 10.0 MB) and has no statistics, as after pg_upgrade, so query plans rely on guesses.",
            *('ANALYZE "archived";', True),
        )
    ]
    assert [text.partition(", ")[2] for text, _ in (figures["archived"], figures["small"])] == ["rows not known, 0 dead"] * 2
    assert "archived, rows" not in figures
    assert rows == {"archived": None, "small": None}
    database.execute(findings[0].cure)
    figures, findings = asked(database, "tables")
    assert (figures["archived, rows"], findings) == (("~30,000", 30_000), [])


def test_an_empty_table_without_statistics_has_no_rows(database):
    database.execute("CREATE TABLE empty (id int)")

    assert (asked(database, "tables")[0]["empty"], extents_of(database)["empty"].rows) == (("0 B, ~0 rows, 0 dead", 0), 0)


def extents_of(database):
    with django(database) as connection:
        return read_extents(connection, schema="public")
