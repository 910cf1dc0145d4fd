"""Reversals: losses are detected when they happen, whatever the names, even with concurrent writes."""

import threading
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import Group
from django.db import models, transaction
from django.db.migrations import AddField, AlterField, AlterModelTable, CreateModel, Migration, RenameField, RunPython, RunSQL

from fly2any.database.backup.required_backup import require_backup
from fly2any.database.errors import Refusal
from fly2any.database.migration.executor import Executor
from fly2any.database.migration.lazy_state import LazyState
from fly2any.database.migration.losses import Consent, Loss
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.servers import open_transaction, wait_until

NOOP = RunSQL.noop
ROW = "INSERT INTO probe_thing (word) VALUES ('precious')"
IN_Y = "INSERT INTO probe_thing (y) VALUES ('precious')"
TABLES = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 's')"
GO_ON = ", so it was not reversed: take a backup (`manage.py dbbackup --verify`), then run the command again with --yes."


def thing():
    return CreateModel("Thing", [("id", models.AutoField(primary_key=True)), ("word", models.TextField(null=True))])


def with_x():
    return AddField("thing", "x", models.TextField(null=True))


def made():
    return RunSQL("CREATE TABLE probe_thing (id serial, word text)", "DROP TABLE probe_thing")


def back(statement):
    """An operation that does nothing, and runs `statement` in reverse."""
    return RunSQL(NOOP, statement)


def execute(statement):
    return lambda apps, editor: editor.execute(statement)


class Probe:
    """Migrations of one operation each, applied to a database and reversed as `migrate` does."""

    def __init__(self, run, consent, operations, atomic):
        self.executor = Executor(run.connection, run=run, consent=consent)
        self.executor.recorder.ensure_schema()
        self.applied = []
        state = LazyState()
        for number, operation in enumerate(operations, start=1):
            migration = Migration(f"{number:04}", "probe")
            migration.operations, migration.atomic = [operation], atomic
            self.applied.append((state.clone(), migration))
            state = self.executor.apply_migration(state, migration)

    def reverse(self, number=None):
        """Reverse the last migrations, all without `number`."""
        for state, migration in reversed(self.applied[-(number or 0) :]):
            self.executor.unapply_migration(state, migration)


@contextmanager
def probing(database, *operations, atomic=True, **consent):
    with django(database) as connection:
        agreed = Consent(connection, **{"yes": False, "require_backup": None, **consent})
        with migrating(connection.alias, patience=20, progress=Progress()) as run:
            yield Probe(run, agreed, operations, atomic)


def recorded(database):
    return [name for (name,) in database.execute("SELECT name FROM django_migrations WHERE app = 'probe' ORDER BY id")]


def is_there(database):
    """Return whether some table of the database has the word."""
    return any("precious" in str(database.execute(f"SELECT * FROM {table}")) for (table,) in database.execute(TABLES))


CASES = {  # The operations, a row, and the losses of their reversal, from the last one on.
    "another column": (
        lambda: [thing(), with_x(), AlterField("thing", "x", models.TextField(null=True, db_column="y"))],
        IN_Y,
        "probe.0002 would drop column probe_thing.x (1 row)",
    ),
    "a column that SQL renamed": (
        lambda: [
            thing(),
            with_x(),
            RunSQL("ALTER TABLE probe_thing RENAME x TO y", "ALTER TABLE probe_thing RENAME y TO x", [RenameField("thing", "x", "y")]),
        ],
        IN_Y,
        "probe.0002 would drop column probe_thing.x (1 row)",
    ),
    "a table that SQL renamed": (
        lambda: [
            thing(),
            RunSQL("ALTER TABLE probe_thing RENAME TO other", "ALTER TABLE other RENAME TO probe_thing", [AlterModelTable("thing", "other")]),
        ],
        ROW.replace("probe_thing", "other"),
        "probe.0001 would drop table probe_thing (1 row)",
    ),
    "a quoted column": (
        lambda: [made(), back('ALTER TABLE probe_thing DROP "word"')],
        ROW,
        "probe.0002 would drop column probe_thing.word (1 row)",
    ),
    "in a block": (
        lambda: [made(), back("DO $$ BEGIN EXECUTE 'dr' || 'op table probe_thing'; COMMENT ON SCHEMA public IS 'COMMIT'; END $$")],
        ROW,
        "probe.0002 would drop table probe_thing (1 row)",
    ),
    "with its schema": (
        lambda: [RunSQL("CREATE SCHEMA s; CREATE TABLE s.t (word text)", "DROP SCHEMA s CASCADE")],
        "INSERT INTO s.t VALUES ('precious')",
        "probe.0001 would drop table s.t (1 row)",
    ),
    "with its type": (
        lambda: [RunSQL("CREATE DOMAIN d AS text; CREATE TABLE probe_thing (word d)", "DROP DOMAIN d CASCADE; DROP TABLE probe_thing")],
        ROW,
        "probe.0001 would drop table probe_thing (1 row)",
    ),
    "emptied and filled": (
        lambda: [made(), back("TRUNCATE probe_thing; INSERT INTO probe_thing (word) VALUES (1)")],
        ROW,
        "probe.0002 would rewrite or empty table probe_thing (1 row)",
    ),
    "deleted": (
        lambda: [made(), back("DO $$ BEGIN DELETE/**/FROM probe_thing; END $$")],
        ROW,
        "probe.0002 would delete rows of table probe_thing (1 row)",
    ),
    "changed": (
        lambda: [made(), RunPython(RunPython.noop, execute("UPDATE probe_thing SET word = NULL"))],
        ROW,
        "probe.0002 would change rows of table probe_thing (1 row)",
    ),
    "cut": (
        lambda: [made(), back("ALTER TABLE probe_thing ALTER word TYPE varchar(3) USING word::varchar(3)")],
        ROW,
        "probe.0002 would rewrite or empty table probe_thing (1 row)",
    ),
    "in a transaction of its own": (
        lambda: [made(), back("/* a */ DROP TABLE probe_thing; COMMIT")],
        ROW,
        "probe.0002 begins or ends a transaction itself, which hides what it drops",
    ),
}  # fmt: skip


@pytest.mark.sampled(13)
@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
@pytest.mark.parametrize("case", CASES)
def test_no_row_is_deleted_by_a_reversal_without_consent(database, case, atomic):
    operations, row, takes = CASES[case]
    with probing(database, *operations(), atomic=atomic) as probe:
        database.execute(row)

        with pytest.raises(Refusal) as refused:
            probe.reverse()

    assert str(refused.value) == f"Reversing {takes}{GO_ON}"
    assert is_there(database)
    assert recorded(database)[-1] == takes.split()[0].removeprefix("probe.")


def test_a_procedure_that_commits_is_not_called_without_consent(database):
    made_too = RunSQL("CREATE PROCEDURE gone() LANGUAGE plpgsql AS 'BEGIN DROP TABLE probe_thing; COMMIT; END'", NOOP)
    with probing(database, made(), made_too, back("CALL gone()"), atomic=False) as probe:
        database.execute(ROW)

        with pytest.raises(Refusal) as refused:
            probe.reverse()

    assert str(refused.value) == f"Reversing probe.0003 runs SQL outside a transaction, which hides what it drops{GO_ON}"
    assert is_there(database)


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_a_reversal_that_deletes_no_row_needs_no_consent(database, atomic):
    several = "TRUNCATE probe_thing; DELETE FROM probe_thing; CREATE TABLE more (); DROP TABLE more"
    with probing(database, thing(), with_x(), back(several), back("TRUNCATE probe_thing"), atomic=atomic) as probe:
        probe.reverse()

    assert recorded(database) == []
    assert database.execute("SELECT to_regclass('probe_thing')") == [(None,)]


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_rows_that_the_server_does_not_count_are_not_deleted_without_consent(database, atomic):
    database.execute(f'ALTER DATABASE "{database.name}" SET track_counts TO off')
    with probing(database, made(), back("DELETE FROM probe_thing"), atomic=atomic) as probe:
        database.execute(ROW)

        with pytest.raises(Refusal) as refused:
            probe.reverse(1)

    assert str(refused.value) == (
        f"Reversing probe.0002 hides the rows that it deletes or changes, because track_counts is off (turn it on){GO_ON}"
    )
    assert is_there(database)


def test_rows_that_the_server_does_not_count_are_deleted_with_consent(database):
    database.execute(f'ALTER DATABASE "{database.name}" SET track_counts TO off')
    with probing(database, made(), back("DELETE FROM probe_thing"), yes=True) as probe:
        database.execute(ROW)
        probe.reverse(1)

    assert not is_there(database)


def test_rows_are_deleted_with_consent(database):
    with probing(database, thing(), with_x(), yes=True) as probe:
        database.execute(ROW)
        probe.reverse()

    assert recorded(database) == []
    assert not is_there(database)


def test_consent_without_a_backup_is_not_enough(database, settings, tmp_path):
    settings.BACKUPS = {**settings.BACKUPS, "location": str(tmp_path / "backups")}
    with probing(database, thing(), yes=True, require_backup=require_backup) as probe:
        database.execute(ROW)
        with pytest.raises(
            Refusal,
            match="A verified backup newer than 26 h is required before rows are deleted or overwritten, but there is none",
        ):
            probe.reverse()

    assert is_there(database)


def test_rows_that_are_committed_while_a_reversal_waits_for_them_stay(database):
    with probing(database, thing()) as probe, open_transaction(database, ROW) as site:

        def commit():
            wait_until(
                database,
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^DROP TABLE' AND datname = current_database()",
            )
            site.execute("COMMIT")

        thread = threading.Thread(target=commit)
        thread.start()
        with pytest.raises(Refusal) as refused:
            probe.reverse()
        thread.join()

    assert str(refused.value) == f"Reversing probe.0001 would drop table probe_thing (1 row){GO_ON}"
    assert database.execute("SELECT word FROM probe_thing") == [("precious",)]
    assert database.execute("SELECT direction, error FROM fly2any_migration_runs ORDER BY id DESC LIMIT 1") == [
        ("backwards", str(refused.value))
    ]


def test_the_backup_is_read_once_before_a_transaction_that_holds_locks(database):
    seen = []

    def refuse(connection):
        seen.append(connection.in_atomic_block)
        raise Refusal("no backup")

    with probing(database, back("START TRANSACTION"), yes=True, require_backup=refuse) as probe:
        with pytest.raises(Refusal, match=r"^no backup$"):
            probe.reverse(1)
        with pytest.raises(Refusal, match=r"^no backup$"):
            probe.reverse(1)

    assert (seen, recorded(database)) == ([False], ["0001"])


def test_a_reset_counts_rows_committed_before_a_table_is_dropped(database):
    with probing(database, thing(), yes=True, is_reset=True) as probe:
        probe.executor.consent.given = True
        database.execute(ROW)
        probe.reverse()

    assert probe.executor.consent.lost == [Loss("probe_thing", "", 1)]


def test_drops_by_other_sessions_do_not_count_for_the_reversal(database):
    def drop(apps, editor):
        database.execute("DROP TABLE theirs")

    database.execute("CREATE TABLE theirs AS SELECT 1 AS one")
    with probing(database, RunPython(RunPython.noop, drop)) as probe:
        probe.reverse()

    assert recorded(database) == []


@pytest.mark.parametrize("atomic", [True, False])
def test_a_step_that_deletes_rows_runs_no_code_of_another_roles_table(migrated, other_role_of, atomic):
    def clear(apps, editor):
        with transaction.atomic(using=editor.connection.alias):
            Group._base_manager.using(editor.connection.alias).filter(name="old")._raw_delete(editor.connection.alias)

    role = other_role_of(migrated)
    with probing(migrated, RunPython(RunPython.noop, clear), atomic=atomic, yes=True) as probe:
        migrated.execute(
            f"GRANT REFERENCES ON auth_group TO {role}; GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role};"
            "CREATE TABLE theirs (g int REFERENCES auth_group ON DELETE CASCADE, CHECK (g > 0))"
        )
        with pytest.raises(
            Refusal, match=r"^Nothing was changed\. Table public\.theirs, which foreign keys connect with auth_group"
        ):
            probe.reverse()


def test_another_roles_table_is_not_read(database):
    """An index of it may call any function."""
    role = f"{database.name}_other"
    with probing(database, RunSQL("CREATE SCHEMA s", "DROP SCHEMA s CASCADE")) as probe:
        database.execute(f"CREATE ROLE {role}; CREATE TABLE s.t (); ALTER TABLE s.t OWNER TO {role}")
        try:
            with pytest.raises(Refusal) as refused:
                probe.reverse()
        finally:
            database.execute(f"DROP TABLE s.t; DROP ROLE {role}")

    assert str(refused.value) == f"Reversing probe.0001 would drop table s.t (rows that cannot be counted){GO_ON}"
