"""Reversals that delete rows: planned, refused, and run only with consent."""

import re
from datetime import UTC, datetime

import pytest
from django.db.migrations.executor import MigrationExecutor

from fly2any.database.backup.required_backup import require_backup
from fly2any.database.errors import Refusal
from fly2any.database.migration.losses import Consent, Loss, guard, read_losses
from tests.conftest import django, manage
from tests.database.taken import keep
from tests.database.test_clocks import backup


def losses(database, *targets):
    with django(database) as connection:
        executor = MigrationExecutor(connection)
        return read_losses(connection, executor.loader, executor.migration_plan(list(targets)))


def tables(database):
    return database.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")[0][0]


@pytest.mark.slow
def test_tables_with_rows_are_dropped_only_with_consent_and_a_verified_backup(filled, place):
    before = tables(filled)
    back = ("migrate", "travel", "zero")

    refused = manage(*back, url=filled.url)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Reversing ")
    assert "table price_history (" in refused.stderr
    assert refused.stderr.endswith(
        ", so nothing was changed: take a backup (`manage.py dbbackup --verify`), then run the command again with --yes.\n"
    )
    without = manage(*back, "--yes", url=filled.url, BACKUP_LOCATION=place)
    assert (without.returncode, without.stdout, without.stderr) == (
        2,
        "",
        "A verified backup newer than 26 h is required before rows are deleted or overwritten, but there is none: run `manage.py dbbackup --verify`, or add --without-backup.\n",
    )
    assert tables(filled) == before

    done = manage(*back, "--yes", "--without-backup", url=filled.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert filled.execute("SELECT to_regclass('price_history')") == [(None,)]
    assert manage("migrate", url=filled.url).returncode == 0


def test_the_plan_counts_the_rows_of_dropped_tables_and_columns(migrated):
    migrated.execute("""INSERT INTO users (id, email, "updatedAt") VALUES ('a', 'a', now()), ('b', 'b', now())""")
    migrated.execute("""INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "targetPrice", "currentPrice", "updatedAt")
                        VALUES ('p', 'a', 'x', 'y', 'z', 1, 2, now())""")

    found = losses(migrated, ("travel", None))
    assert [(loss.table, loss.column, loss.rows) for loss in found if loss.table == "price_alerts"] == [("price_alerts", "", 1)]
    assert all(loss.backwards for loss in found)
    staff = [loss for loss in losses(migrated, ("accounts", "0001_initial")) if loss.table == "users"]
    assert Loss("users", "isStaff", 2, migration=staff[0].migration, backwards=True) in staff
    assert "lastLoginAt" not in {loss.column for loss in staff}


@pytest.mark.slow
def test_empty_tables_and_columns_are_dropped_without_consent(migrated):
    assert losses(migrated, ("travel", None)) == []
    migrated.execute("DELETE FROM auth_group_permissions; DELETE FROM auth_group")  # The rows that reversals of roles delete.
    assert manage("migrate", "travel", "zero", url=migrated.url).returncode == 0


def test_rows_that_a_policy_hides_from_the_owner_count(migrated):
    migrated.execute(
        """INSERT INTO price_history (id, origin, destination, "departDate", price, provider) VALUES ('a', 'a', 'b', 'c', 1, 'p')"""
    )
    owner = f"{migrated.name}_owner"
    migrated.execute(f"CREATE ROLE {owner} LOGIN; ALTER TABLE price_history OWNER TO {owner}")
    migrated.execute("ALTER TABLE price_history ENABLE ROW LEVEL SECURITY; ALTER TABLE price_history FORCE ROW LEVEL SECURITY")
    migrated.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {owner}")
    try:
        with django(migrated) as connection:
            connection.settings_dict = {**connection.settings_dict, "USER": owner}
            executor = MigrationExecutor(connection)
            with pytest.raises(Exception, match="row-level security"):
                read_losses(connection, executor.loader, executor.migration_plan([("travel", None)]))
    finally:
        migrated.execute(f"REASSIGN OWNED BY {owner} TO CURRENT_USER; DROP OWNED BY {owner}; DROP ROLE {owner}")


CREATES = (
    """migrations.CreateModel("Thing", [("id", models.AutoField(primary_key=True)), ("word", models.TextField(null=True))])"""
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "lost"),
    [
        (CREATES, "table probe_thing (2 rows)"),
        (f"migrations.SeparateDatabaseAndState([{CREATES}], [{CREATES}])", "table probe_thing (2 rows)"),
        ("RunSQL('CREATE TABLE probe_thing (word text)', 'DROP TABLE probe_thing')", "table probe_thing (2 rows)"),
        ("RunSQL('CREATE TABLE probe_thing (word text)', 'DROP TABLE Probe_Thing;')", "table probe_thing (2 rows)"),
    ],
    ids=["model", "separate", "sql", "unquoted"],
)
def test_a_migration_of_any_kind_is_not_reversed_over_rows(migrated, probe, operation, lost):
    environment = probe(operation)
    assert manage("migrate", "-v0", url=migrated.url, **environment).returncode == 0
    migrated.execute("INSERT INTO probe_thing (word) VALUES ('a'), (NULL)")

    refused = manage("migrate", "probe", "zero", url=migrated.url, **environment)
    assert refused.returncode == 2
    assert re.match(
        rf"Reversing probe\.0001_step would drop {re.escape(lost)}, so (nothing was changed|it was not reversed): ",
        refused.stderr,
    )

    faked = manage("migrate", "probe", "zero", "--fake", url=migrated.url, **environment)
    assert (faked.returncode, faked.stderr) == (0, "")
    assert migrated.execute("SELECT count(*) FROM probe_thing") == [(2,)]


@pytest.mark.slow
def test_objects_dropped_by_an_applied_migration_are_reported(migrated, probe):
    probe(CREATES)
    environment = probe('migrations.RemoveField("thing", "word")')
    assert manage("migrate", "probe", "0001", "-v0", url=migrated.url, **environment).returncode == 0
    migrated.execute("INSERT INTO probe_thing (word) VALUES ('a'), (NULL)")

    result = manage("migrate", "-v0", url=migrated.url, **environment)

    assert (result.returncode, result.stderr) == (0, "probe.0002_step drops the column probe_thing.word (1 row).\n")


def test_a_read_only_database_with_nothing_pending_is_reported(migrated):
    migrated.execute(f"ALTER DATABASE {migrated.name} SET default_transaction_read_only TO on")

    result = manage("migrate", url=migrated.url)

    assert (result.returncode, result.stderr) == (
        0,
        "The database is read-only (a standby, or default_transaction_read_only is on), but there was nothing to do.\n",
    )


def test_it_is_refused_before_anything_is_reversed(filled):
    with django(filled) as connection:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan([("travel", None)])
        with pytest.raises(Refusal, match=r"^Reversing \d migrations from .* to travel\.0001_initial would drop "):
            guard(connection, executor.loader, plan, consent=Consent(connection, yes=False, require_backup=None), say=print)
        guard(connection, executor.loader, plan, consent=Consent(connection, yes=True, require_backup=None), say=print)


def test_a_verified_backup_with_a_changed_file_does_not_count(database, settings, tmp_path):
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path / "b"), "expected": True}
    with django(database) as connection:
        good = backup(connection, datetime.now(UTC))
        keep(tmp_path / "b", good)
        require_backup(connection)

        for content, what in (
            ("", "but there is none: run"),
            ("y", f"the newest cannot be used ({good.file} is damaged (its SHA-256 differs)"),
        ):
            (tmp_path / "b" / good.file).write_text(content)
            with pytest.raises(Refusal, match=re.escape(what)):
                require_backup(connection)
