"""The findings about tables that autovacuum does not reach, or reaches too late."""

import pytest

from fly2any.database.findings import Finding, Severity
from fly2any.database.health.examine import Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import found

pytestmark = pytest.mark.usefixtures("server")
OFF = "Autovacuum is off for it (autovacuum_enabled): dead rows are not removed."


TOAST_OFF = "Autovacuum is off for its TOAST table (toast.autovacuum_enabled): dead rows are not removed."


THRESHOLD = "Autovacuum waits for 60,000 dead rows in it (limit 50,000), because of autovacuum_vacuum_threshold."


@pytest.mark.parametrize(
    ("options", "message", "reset"),
    [
        ("autovacuum_enabled = off", OFF, "autovacuum_enabled"),
        ("toast.autovacuum_enabled = 0", TOAST_OFF, "toast.autovacuum_enabled"),
        (
            "autovacuum_enabled = no, toast.autovacuum_enabled = false",
            f"{OFF} {TOAST_OFF}",
            "autovacuum_enabled, toast.autovacuum_enabled",
        ),
        ("autovacuum_vacuum_threshold = 60000, autovacuum_vacuum_scale_factor = 0", THRESHOLD, "autovacuum_vacuum_threshold"),
    ],
)
def test_a_table_without_autovacuum_is_found_and_its_cure_works(migrated, options, message, reset):
    migrated.execute(f"ALTER TABLE users SET ({options})")

    with django(migrated) as connection:
        [finding] = [one for one in TOPICS["tables"](Reader(connection, "public")) if isinstance(one, Finding)]

    assert finding == Finding(
        Severity.WARNING, "tables.not_vacuumed", "users", message, f"ALTER TABLE users RESET ({reset});", is_sql=True
    )
    migrated.execute(finding.cure)
    assert found(migrated, "tables") == []


def test_autovacuum_is_too_late_if_more_rows_may_be_dead_than_the_table_has(migrated):
    migrated.execute("ALTER TABLE users SET (autovacuum_vacuum_scale_factor = 2)")
    assert found(migrated, "tables") == []

    migrated.execute("UPDATE pg_class SET reltuples = 100000 WHERE relname = 'users'")

    assert ("tables.not_vacuumed", "users") in found(migrated, "tables")


@pytest.mark.parametrize(
    "options",
    [
        "autovacuum_enabled = on, toast.autovacuum_enabled = true, fillfactor = 90",
        "autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.01",
        "autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0.5",
    ],
)
def test_other_options_of_autovacuum_raise_no_alarm(migrated, options):
    migrated.execute(f"ALTER TABLE users SET ({options}); CREATE TABLE theirs () WITH (autovacuum_enabled = off)")

    assert found(migrated, "tables") == []


def test_autovacuum_has_a_maximum_in_postgresql_18(migrated):
    if migrated.execute("SHOW server_version_num")[0][0] < "180000":
        return
    migrated.execute("ALTER TABLE users SET (autovacuum_vacuum_threshold = 60000, autovacuum_vacuum_max_threshold = 1000)")
    assert found(migrated, "tables") == []

    migrated.execute("ALTER TABLE users SET (autovacuum_vacuum_max_threshold = -1)")

    with django(migrated) as connection:
        [finding] = [one for one in TOPICS["tables"](Reader(connection, "public")) if isinstance(one, Finding)]
    assert finding.cure == "ALTER TABLE users RESET (autovacuum_vacuum_max_threshold, autovacuum_vacuum_threshold);"


def test_partitions_without_autovacuum_are_found(migrated):
    migrated.execute(
        "DROP TABLE wishlist_items; CREATE TABLE wishlist_items (id text) PARTITION BY LIST (id); CREATE SCHEMA old"
    )
    migrated.execute("CREATE TABLE one PARTITION OF wishlist_items DEFAULT WITH (autovacuum_enabled = off)")
    migrated.execute("CREATE TABLE old.one PARTITION OF wishlist_items FOR VALUES IN ('a') WITH (autovacuum_enabled = off)")

    with django(migrated) as connection:
        seen = [one for one in TOPICS["tables"](Reader(connection, "public")) if isinstance(one, Finding)]

    assert [(one.where, one.cure) for one in seen] == [
        ("old.one", "ALTER TABLE old.one RESET (autovacuum_enabled);"),
        ("one", "ALTER TABLE one RESET (autovacuum_enabled);"),
    ]
