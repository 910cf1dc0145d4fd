"""Triggers of other roles: their code runs in no statement of ours."""

import dataclasses
import io
import json
import threading
import time
from datetime import UTC, date, datetime

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import transaction
from django.db.migrations.recorder import MigrationRecorder
from psycopg.errors import InsufficientPrivilege, LockNotAvailable

from fly2any.database.adoption import adopt, assess
from fly2any.database.backup.store import store_at
from fly2any.database.errors import Refusal
from fly2any.database.migration import journal
from fly2any.database.migration.executor import Executor
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from fly2any.database.schema.untrusted_code import read_untrusted_code, refuse_untrusted_code
from fly2any.database.schema.write_refusals import refuse_before_writes
from fly2any.database.seed import seed
from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from tests.conftest import django, manage
from tests.database.old_rows import CASES, put, swept
from tests.database.other_roles import migrates
from tests.servers import open_transaction

RUNS = """
    CREATE FUNCTION public.ran() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
    CREATE FUNCTION public.asked(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
    ALTER FUNCTION public.ran() OWNER TO {role}; ALTER FUNCTION public.asked(text) OWNER TO {role};
    GRANT TRIGGER ON ALL TABLES IN SCHEMA public TO {role}; SET ROLE {role};
"""
EVERY_ROW = "CREATE TRIGGER zz BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION public.ran()"
TRUNCATED = "CREATE TRIGGER zz BEFORE TRUNCATE ON {table} EXECUTE FUNCTION public.ran()"
WHEN = """
    CREATE TRIGGER zz BEFORE UPDATE ON {table} FOR EACH ROW WHEN (public.asked(OLD::text))
    EXECUTE FUNCTION suppress_redundant_updates_trigger()
"""


def sweeps(connection, folder):
    now = datetime.now(UTC)
    sweep(
        connection, RULES["verification_tokens"], before=now, archives=None, deadline=time.monotonic() + 60, progress=Progress()
    )


def loads(connection, folder):
    place = folder / "rows.json"
    place.write_text(json.dumps([{"model": "auth.group", "fields": {"name": "group"}}]))
    call_command("loaddata", str(place), database=connection.alias, verbosity=0)


ACTS = {
    "migrate": (migrates, "fly2any_migration_runs", EVERY_ROW),
    "migrate, a condition": (migrates, "fly2any_migration_runs", WHEN),
    "dbstatus --write-check": (lambda connection, folder: check_writes(connection), "price_alerts", EVERY_ROW),
    "dbmaintain": (sweeps, "verification_tokens", EVERY_ROW),
    "dbseed": (lambda connection, folder: seed(connection, users=1, seed=1, until=date(2026, 5, 1)), "users", EVERY_ROW),
    "loaddata": (loads, "auth_group", EVERY_ROW),
    "flush": (
        lambda connection, folder: call_command(
            "flush", database=connection.alias, yes=True, without_backup=True, verbosity=0, stdout=io.StringIO()
        ),
        "auth_group",
        TRUNCATED,
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("command", ACTS)
def test_no_trigger_of_another_role_runs_as_the_role_that_writes(migrated, other_role_of, tmp_path, command):
    act, table, trigger = ACTS[command]
    role = other_role_of(migrated)
    migrated.execute("INSERT INTO verification_tokens (identifier, token, expires) VALUES ('a', 'b', '2026-01-01')")
    migrated.execute(RUNS.format(role=role) + trigger.format(table=table))

    with django(migrated) as connection, pytest.raises(Refusal) as refused:
        act(connection, tmp_path)

    assert str(refused.value).endswith(
        f"Nothing was changed. Trigger zz of {table} runs code of the role {role} with the privileges of the role that writes to"
        f" {table}. {cure(role, table)}"
    )


def test_no_trigger_of_another_role_runs_while_archived_rows_are_put_back(migrated, other_role_of, tmp_path):
    role = other_role_of(migrated)
    put(migrated, "price_history", "old", CASES["price_history"][0])
    swept(migrated, "price_history", tmp_path)
    migrated.execute(RUNS.format(role=role) + EVERY_ROW.format(table="price_history"))

    with django(migrated) as connection:
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        [name] = [path.stem for path in tmp_path.glob("*.json")]
        with pytest.raises(Refusal, match=rf"^Nothing was changed\. Trigger zz of price_history runs code of the role {role} "):
            archives.load(connection, name, Progress())


def test_no_trigger_is_added_to_what_foreign_keys_lead_to_while_rows_are_deleted(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(
        "CREATE SCHEMA site; CREATE TABLE site.bookings (id int PRIMARY KEY, buyer text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE site.bills (booking int REFERENCES site.bookings ON DELETE CASCADE);"
        f"GRANT USAGE ON SCHEMA site TO {role}; GRANT TRIGGER ON sessions, site.bookings, site.bills TO {role};"
        f"CREATE FUNCTION public.ran() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'; ALTER FUNCTION public.ran() OWNER TO {role}"
    )

    with django(migrated) as connection, transaction.atomic(using=connection.alias):
        refuse_untrusted_code(connection, ["users"], deletes=True)
        for table in ("sessions", "site.bookings", "site.bills"):
            with migrated.connect() as client:
                client.execute(f"SET lock_timeout = '100ms'; SET ROLE {role}")
                with pytest.raises(LockNotAvailable):
                    client.execute(f"CREATE TRIGGER zz BEFORE DELETE ON {table} EXECUTE FUNCTION public.ran()")


def test_djangos_commands_check_for_untrusted_code_before_they_write(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(RUNS.format(role=role) + EVERY_ROW.format(table="auth_group"))

    with django(migrated) as connection:
        refuse_before_writes(connection)
        groups = Group.objects.using(connection.alias)
        assert groups.count() == 3
        with pytest.raises(Refusal, match=rf"^Nothing was changed\. Trigger zz of auth_group runs code of the role {role} "):
            groups.create(name="another")


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (["createsuperuser", "--noinput", "--email", "a@example.com"], "users"),
        (["dbstaff", "a@example.com", "--role", "support"], "users_groups"),
        (["clearsessions"], "django_session"),
    ],
)
def test_no_trigger_of_another_role_runs_in_a_command_of_djangos(migrated, other_role_of, words, table):
    role = other_role_of(migrated)
    trigger = f"CREATE TRIGGER zz BEFORE INSERT OR DELETE ON {table} EXECUTE FUNCTION public.ran()"
    migrated.execute(RUNS.format(role=role) + trigger)

    refused = manage(*words, url=migrated.url)

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"Nothing was changed. Trigger zz of {table} runs code of the role {role} with the privileges of the role that writes to"
        f" {table}. {cure(role, table)}\n"
    )


def cure(role, table):
    return (
        f'DROP TRIGGER "zz" ON "public"."{table}"; REVOKE TRIGGER ON "public"."{table}" FROM "{role}", PUBLIC; or, if it is needed,'
        " let the owner of the table create it again, with copies of all functions that it calls, once you have read them."
    )


def test_a_trigger_of_another_role_is_found_and_one_of_the_owner_is_not(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(
        "CREATE FUNCTION public.own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER own BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION public.own();"
        + RUNS.format(role=role)
        + WHEN.format(table="users")
    )

    with django(migrated) as connection:
        found = verify(connection).findings

    assert [(one.severity.value, one.where, one.message, one.cure) for one in found if one.code == "tables.untrusted"] == [
        (
            "error",
            "users",
            f"Trigger zz of users runs code of the role {role} with the privileges of the role that writes to users.",
            cure(role, "users"),
        )
    ]


@pytest.mark.slow
def test_a_database_with_a_trigger_of_another_role_is_not_adopted(exact, other_role_of):
    role = other_role_of(exact)
    exact.execute(RUNS.format(role=role) + EVERY_ROW.format(table="verification_tokens"))

    with django(exact) as connection:
        blockers = [one.finding.where for one in assess(connection).blockers if one.finding.code == "tables.untrusted"]
        with pytest.raises(Refusal, match=f"Trigger zz of verification_tokens runs code of the role {role}"):
            adopt(
                connection.alias, patience=1, progress=Progress(), repair=True, end_idle=False, done=lambda step, seconds: None
            )

    assert blockers == ["verification_tokens"]


@pytest.mark.slow
def test_rows_are_not_filled_once_another_role_has_added_a_trigger(exact, other_role_of):
    role = other_role_of(exact)
    exact.execute(RUNS.format(role=role) + "RESET ROLE; INSERT INTO verification_tokens VALUES ('a', 'b', now())")

    def done(step, seconds):
        if step.table == "verification_tokens" and step.what.startswith("the column id"):
            exact.execute(EVERY_ROW.format(table="verification_tokens"))

    with (
        django(exact) as connection,
        pytest.raises(Refusal, match=f"Trigger zz of verification_tokens runs code of the role {role}"),
    ):
        adopt(connection.alias, patience=1, progress=Progress(), repair=True, end_idle=False, done=done)

    assert exact.execute("SELECT count(*) FROM verification_tokens WHERE id IS NULL") == exact.execute(
        "SELECT count(*) FROM verification_tokens"
    )


def test_a_trigger_on_a_site_table_reached_by_a_foreign_key_does_not_run(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(
        "CREATE SCHEMA site; CREATE TABLE site.bookings (id int PRIMARY KEY, u text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE site.seats (id int REFERENCES site.bookings ON DELETE CASCADE) PARTITION BY LIST (id);"
        f"CREATE TABLE site.seat PARTITION OF site.seats DEFAULT; GRANT USAGE ON SCHEMA site TO {role}; GRANT TRIGGER ON site.seat TO {role};"
        + RUNS.format(role=role)
        + "CREATE TRIGGER zz BEFORE DELETE ON site.seat EXECUTE FUNCTION public.ran()"
    )

    with django(migrated) as connection:
        found = [(one.where, one.message) for one in verify(connection).findings if one.code == "tables.untrusted"]
        with pytest.raises(
            Refusal, match=r"^Nothing was changed\. Trigger zz ON site\.seat, whose foreign key references users, runs"
        ):
            check_writes(connection)
        sweeps(connection, None)  # It deletes other rows.
    migrated.execute("DROP SCHEMA site CASCADE")

    assert found == [
        (
            "users",
            f"Trigger zz ON site.seat, whose foreign key references users, runs code of the role {role} with the privileges of the role"
            " that writes to users.",
        )
    ]


def test_a_trigger_that_a_partition_has_from_its_table_does_not_run(migrated, other_role_of):
    """Before PostgreSQL 15, the copies in partitions are marked as internal."""
    role = other_role_of(migrated)
    migrated.execute(
        "CREATE SCHEMA site; CREATE TABLE site.seats (u text, n int) PARTITION BY LIST (n);"
        "CREATE TABLE site.seat PARTITION OF site.seats (FOREIGN KEY (u) REFERENCES users ON DELETE CASCADE) DEFAULT;"
        f"GRANT USAGE ON SCHEMA site TO {role}; GRANT TRIGGER ON site.seats, site.seat TO {role};"
        + RUNS.format(role=role)
        + "CREATE TRIGGER zz AFTER DELETE ON site.seats FOR EACH ROW EXECUTE FUNCTION public.ran();"
        "CREATE CONSTRAINT TRIGGER yy AFTER DELETE ON site.seats INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.ran()"
    )

    with django(migrated) as connection:
        found = [one.what for one in read_untrusted_code(connection, schema="public", tables=["users"])]
    migrated.execute("DROP SCHEMA site CASCADE")

    assert found == [f"Trigger {name} ON site.seat, whose foreign key references users," for name in ("yy", "zz")]


@pytest.mark.parametrize("command", ["dbstatus --write-check", "dbmaintain", "loaddata"])
def test_no_trigger_of_a_table_that_refers_to_ours_runs(migrated, other_role_of, tmp_path, command):
    act, table, _ = ACTS[command]
    role = other_role_of(migrated)
    columns = {
        "price_alerts": "users (id)",
        "verification_tokens": "verification_tokens (token)",
        "auth_group": "auth_group (name)",
    }
    migrated.execute(
        f"GRANT REFERENCES ON ALL TABLES IN SCHEMA public TO {role};{RUNS.format(role=role)}"
        f"CREATE TABLE public.theirs (u text REFERENCES {columns[table]} ON DELETE CASCADE ON UPDATE CASCADE);"
        "CREATE CONSTRAINT TRIGGER zz AFTER DELETE OR UPDATE ON public.theirs INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.ran()"
    )

    with django(migrated) as connection:
        found = [one.where for one in verify(connection).findings if one.code == "tables.untrusted"]
        with pytest.raises(Refusal) as refused:
            act(connection, tmp_path)

    where = columns[table].partition(" ")[0]
    assert found == [where]
    assert (
        f"Nothing was changed. Table public.theirs, which foreign keys connect with {where}, may run code of the role {role} with the"
        f" privileges of the role that writes to {where}, because it has a trigger. Ask its owner to remove what makes the table run code (the reason above), or drop the foreign key."
    ) in str(refused.value)


def test_a_run_of_migrations_lets_no_other_role_add_triggers(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(RUNS.format(role=role) + "RESET ROLE; DROP TABLE fly2any_migration_runs")
    migrated.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}, PUBLIC")

    with (
        django(migrated) as connection,
        open_transaction(migrated, f"SET ROLE {role}; {EVERY_ROW.format(table='django_migrations')}") as open_,
    ):
        thread = threading.Thread(target=lambda: (time.sleep(0.5), open_.execute("COMMIT")))
        thread.start()
        with pytest.raises(Refusal, match=r"^Nothing was changed\. Trigger zz of django_migrations runs code"):
            migrates(connection, None)
        thread.join()
    migrated.execute("DROP TRIGGER zz ON django_migrations")
    with django(migrated) as connection:
        migrates(connection, None)

    for table in ("django_migrations", "fly2any_migration_runs", "users"):
        with pytest.raises(InsufficientPrivilege):
            migrated.execute(f"SET ROLE {role}; {EVERY_ROW.format(table=table).replace('zz', 'late')}")


@pytest.mark.parametrize("table", ["fly2any_migration_runs", "django_migrations"])
def test_the_records_of_a_run_run_no_trigger_that_was_added_after_its_start(migrated, other_role_of, table):
    """The role that migrates cannot revoke TRIGGER if it does not own the tables."""
    stranger = other_role_of(migrated)
    migrated.execute(RUNS.format(role=stranger))
    grants = ("SELECT, INSERT, UPDATE, DELETE ON ALL TABLES", "USAGE ON ALL SEQUENCES")
    with migrated.role(*(f"GRANT {grant} IN SCHEMA public TO {{role}}" for grant in grants)):
        site = dataclasses.replace(migrated, user=f"{migrated.name}_role")
        with django(site) as connection, migrating(connection.alias, patience=1, progress=Progress()) as run:
            record = Executor(connection, run=run).recorder
            migrated.execute(f"SET ROLE {stranger}; {EVERY_ROW.format(table=table)}")
            writes = {
                "fly2any_migration_runs": [journal.recorded(connection, "a.b", "forwards").__enter__],
                "django_migrations": [lambda: record.record_applied("a", "b"), lambda: record.record_unapplied("a", "b")],
            }[table]
            for write in writes:
                with pytest.raises(
                    Refusal, match=rf"^Nothing was changed\. Trigger zz of {table} runs code of the role {stranger}"
                ):
                    write()
            migrated.execute(f"DROP TRIGGER zz ON {table}")
            with pytest.raises(Refusal, match="Trigger zz"), journal.recorded(connection, "a.b", "forwards"):
                migrated.execute(f"SET ROLE {stranger}; {EVERY_ROW.format(table='fly2any_migration_runs')}")

    assert migrated.execute("SELECT migration, finished FROM fly2any_migration_runs ORDER BY id DESC LIMIT 1") == [
        ("a.b", None)
    ]


def test_a_table_created_by_a_migration_lets_no_other_role_create_triggers(database, other_role_of):
    role = other_role_of(database)
    database.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}, PUBLIC")

    with django(database) as connection:
        MigrationRecorder(connection).ensure_schema()

    may = f"SELECT has_table_privilege('{role}', 'django_migrations', 'TRIGGER'), has_table_privilege('{role}', 'django_migrations', 'SELECT')"
    assert database.execute(may) == [(False, True)]
