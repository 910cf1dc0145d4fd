"""What another role puts where ours is looked for: its code runs as nobody but itself."""

import io
import json
import threading
import time
from datetime import UTC, date, datetime

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import Error, transaction
from django.db.migrations.recorder import MigrationRecorder
from psycopg.errors import InsufficientPrivilege, LockNotAvailable

from fly2any.database.adoption import adopt, assess
from fly2any.database.backup.store import store_at
from fly2any.database.errors import Refusal
from fly2any.database.health.examine import examine
from fly2any.database.health.security import TOPICS as SECURITY
from fly2any.database.migration import journal
from fly2any.database.migration.run import migrating
from fly2any.database.progress import Progress
from fly2any.database.retention.archive import Archives
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import count, sweep
from fly2any.database.schema.strangers import refuse_before_writes, refuse_strangers
from fly2any.database.seed import seed
from fly2any.database.server import read_home
from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from fly2any.postgres.search_path import SearchPathError
from tests.conftest import django, manage
from tests.database.old_rows import CASES, put, swept
from tests.servers import open_transaction

HARMLESS = "CREATE FUNCTION public.caught() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'a' $$"
ARMED = """
    CREATE OR REPLACE FUNCTION public.caught() RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN RAISE 'hijacked as %', current_user; END $$
"""
PLANTED = f"""
    {HARMLESS};
    ALTER FUNCTION public.caught() OWNER TO {{role}}; GRANT CREATE ON SCHEMA public TO {{role}};
"""
PRISMAS = """
    SELECT public.caught() AS id, public.caught()::varchar AS migration_name, now() AS started_at, now() AS finished_at,
           NULL::timestamptz AS rolled_back_at
"""
OURS = "SELECT 1::bigint AS id, public.caught()::varchar AS app, public.caught()::varchar AS name, now() AS applied"
WATCHED = "CREATE TABLE {name} (id text, migration_name text, started_at timestamptz, finished_at timestamptz, rolled_back_at timestamptz)"


@pytest.fixture
def stranger_of():
    """A function that makes a role that may create in a database's schema public, and nothing else, and returns its name."""
    made = []

    def make(database):
        role = f"{database.name}_stranger"
        made.append((database, role))
        database.execute(f"CREATE ROLE {role}; {PLANTED.format(role=role)}")
        return role

    yield make
    for database, role in made:
        database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.fixture
def stranger(stranger_of, database):
    return stranger_of(database)


def untrusted(database):
    with django(database) as opened:
        found = verify(opened).findings
    return [(one.severity.value, one.where, one.message) for one in found if one.code == "migrations.untrusted"]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("view", f"CREATE VIEW _prisma_migrations AS {PRISMAS}"),
        ("table", f"{WATCHED.format(name='_prisma_migrations')}; CREATE INDEX ON _prisma_migrations ((id || public.caught()))"),
    ],
)
def test_a_record_of_prismas_that_another_role_made_is_said_and_not_read(migrated, stranger_of, kind, made):
    role = stranger_of(migrated)
    migrated.execute(f"{made}; ALTER TABLE _prisma_migrations OWNER TO {role}; {ARMED}")

    assert untrusted(migrated) == [
        (
            "warning",
            "_prisma_migrations",
            f"The {kind} _prisma_migrations belongs to the role {role}, whose code would run with the privileges of the role that reads it: it was not read.",
        )
    ]


def test_a_record_of_ours_that_another_role_made_is_said_and_not_read(database, stranger):
    database.execute(f"CREATE VIEW django_migrations AS {OURS}; ALTER VIEW django_migrations OWNER TO {stranger}; {ARMED}")

    assert [where for _, where, _ in untrusted(database)] == ["django_migrations"]
    with (
        django(database) as opened,
        pytest.raises(
            SearchPathError, match=f"django_migrations belongs to the role {stranger}, which may be another tenant's"
        ),
    ):
        read_home(opened)


def test_a_schema_of_this_roles_name_that_another_role_made_is_refused(database, stranger):
    database.execute(f"CREATE SCHEMA {database.user} AUTHORIZATION {stranger}")

    with django(database) as opened, pytest.raises(SearchPathError) as refused:
        opened.ensure_connection()

    assert str(refused.value) == (
        f'The schema "{database.user}" belongs to the role {stranger}, and {database.user} searches it because of its name: run'
        f' ALTER ROLE "{database.user}" IN DATABASE "{database.name}" SET search_path TO "public";'
        f' or ALTER SCHEMA "{database.user}" OWNER TO "{database.user}"; if it is meant to be there.'
    )


def test_a_search_path_that_puts_pg_catalog_last_is_refused(database):
    database.execute(f"ALTER DATABASE {database.name} SET search_path TO public, pg_catalog")

    with django(database) as opened, pytest.raises(SearchPathError) as refused:
        opened.ensure_connection()

    assert str(refused.value) == (
        f"The search path of {database.user} is public, pg_catalog: what another role creates there would be taken for PostgreSQL's own;"
        " leave pg_catalog out of it, which is then searched first, where it is set (ALTER DATABASE, ALTER ROLE or the URL)."
    )


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


def migrates(connection, folder):
    with migrating(connection.alias, patience=1, progress=Progress()) as run:
        journal.ensure(run.connection)
        with journal.recorded(run.connection, "travel.0001_initial", "faked"):
            pass


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


@pytest.mark.parametrize("command", ACTS)
def test_no_trigger_of_another_role_runs_as_the_role_that_writes(migrated, stranger_of, tmp_path, command):
    act, table, trigger = ACTS[command]
    role = stranger_of(migrated)
    migrated.execute("INSERT INTO verification_tokens (identifier, token, expires) VALUES ('a', 'b', '2026-01-01')")
    migrated.execute(RUNS.format(role=role) + trigger.format(table=table))

    with django(migrated) as connection, pytest.raises(Refusal) as refused:
        act(connection, tmp_path)

    assert str(refused.value).endswith(
        f"Nothing was changed. Trigger zz of {table} runs code of the role {role} with the privileges of the role that writes to"
        f" {table}. {cure(role, table)}"
    )


def test_no_trigger_of_another_role_runs_while_archived_rows_are_put_back(migrated, stranger_of, tmp_path):
    role = stranger_of(migrated)
    put(migrated, "price_history", "old", CASES["price_history"][0])
    swept(migrated, "price_history", tmp_path)
    migrated.execute(RUNS.format(role=role) + EVERY_ROW.format(table="price_history"))

    with django(migrated) as connection:
        archives = Archives(store_at(str(tmp_path)), migrated.name)
        [name] = [path.stem for path in tmp_path.glob("*.json")]
        with pytest.raises(Refusal, match=rf"^Nothing was changed\. Trigger zz of price_history runs code of the role {role} "):
            archives.load(connection, name, Progress())


def test_no_trigger_is_added_to_what_foreign_keys_lead_to_while_rows_are_deleted(migrated, stranger_of):
    role = stranger_of(migrated)
    migrated.execute(
        "CREATE SCHEMA site; CREATE TABLE site.bookings (id int PRIMARY KEY, buyer text REFERENCES users ON DELETE CASCADE);"
        "CREATE TABLE site.bills (booking int REFERENCES site.bookings ON DELETE CASCADE);"
        f"GRANT USAGE ON SCHEMA site TO {role}; GRANT TRIGGER ON sessions, site.bookings, site.bills TO {role};"
        f"CREATE FUNCTION public.ran() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'; ALTER FUNCTION public.ran() OWNER TO {role}"
    )

    with django(migrated) as connection, transaction.atomic(using=connection.alias):
        refuse_strangers(connection, ["users"], deletes=True)
        for table in ("sessions", "site.bookings", "site.bills"):
            with migrated.connect() as client:
                client.execute(f"SET lock_timeout = '100ms'; SET ROLE {role}")
                with pytest.raises(LockNotAvailable):
                    client.execute(f"CREATE TRIGGER zz BEFORE DELETE ON {table} EXECUTE FUNCTION public.ran()")


def test_inspectdb_reads_no_view_of_another_role(migrated, stranger_of):
    role = stranger_of(migrated)
    migrated.execute(f"{ARMED}; CREATE VIEW trap AS SELECT public.caught() AS c; ALTER VIEW trap OWNER TO {role}")
    migrated.execute(f"CREATE TABLE planted (a text); ALTER TABLE planted OWNER TO {role}")
    out = io.StringIO()

    with django(migrated) as connection:
        call_command("inspectdb", "users", "trap", "planted", include_views=True, database=connection.alias, stdout=out)

    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("class ") and "Meta" not in line] == ["class Users(models.Model):"]
    assert lines[-2:] == [f"# Not read, as code of another role could run: '{name}'" for name in ("trap", "planted")]


def test_before_a_command_of_djangos_writes_it_is_asked_whose_code_would_run(migrated, stranger_of):
    role = stranger_of(migrated)
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
def test_no_trigger_of_another_role_runs_in_a_command_of_djangos(migrated, stranger_of, words, table):
    role = stranger_of(migrated)
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
        " make the owner of the table the owner of what it calls."
    )


def test_a_trigger_of_another_role_is_found_and_one_of_the_owner_is_not(migrated, stranger_of):
    role = stranger_of(migrated)
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


def test_a_database_with_a_trigger_of_another_role_is_not_adopted(exact, stranger_of):
    role = stranger_of(exact)
    exact.execute(RUNS.format(role=role) + EVERY_ROW.format(table="verification_tokens"))

    with django(exact) as connection:
        blockers = [one.finding.where for one in assess(connection).blockers if one.finding.code == "tables.untrusted"]
        with pytest.raises(Refusal, match=f"Trigger zz of verification_tokens runs code of the role {role}"):
            adopt(
                connection.alias, patience=1, progress=Progress(), repair=True, end_idle=False, done=lambda step, seconds: None
            )

    assert blockers == ["verification_tokens"]


def test_nor_does_one_on_a_table_of_the_site_that_a_foreign_keys_action_deletes_from(migrated, stranger_of):
    role = stranger_of(migrated)
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
            Refusal, match=r"^Nothing was changed\. Trigger zz ON site\.seat, whose foreign key leads to users, runs"
        ):
            check_writes(connection)
        sweeps(connection, None)  # It deletes other rows.
    migrated.execute("DROP SCHEMA site CASCADE")

    assert found == [
        (
            "users",
            f"Trigger zz ON site.seat, whose foreign key leads to users, runs code of the role {role} with the privileges of the role"
            " that writes to users.",
        )
    ]


def test_before_postgresql_18_nor_does_one_of_a_table_whose_foreign_key_refers_to_ours(migrated, stranger_of):
    role = stranger_of(migrated)
    migrated.execute(
        f"GRANT REFERENCES ON users TO {role};{RUNS.format(role=role)}"
        "CREATE TABLE public.theirs (u text REFERENCES users ON DELETE CASCADE);"
        "CREATE TRIGGER zz AFTER DELETE ON public.theirs EXECUTE FUNCTION public.ran()"
    )

    with django(migrated) as connection:
        found = [one.where for one in verify(connection).findings if one.code == "tables.untrusted"]
        assert found == (["users"] if connection.pg_version < 180000 else [])
        with pytest.raises(Refusal if connection.pg_version < 180000 else Error):
            check_writes(connection)


SQUATTED = f"""
    CREATE SCHEMA app; CREATE TABLE app.price_alerts (id text); SET ROLE {{role}};
    CREATE TABLE public.users (id text); CREATE TABLE public.price_alerts (id text);
    CREATE TABLE public.django_migrations (id bigint, app varchar(255), name varchar(255), applied timestamptz);
    CREATE INDEX ON public.django_migrations ((app || public.caught())); {ARMED}
"""


@pytest.mark.parametrize("path", ["public", "app, public"])
def test_who_creates_users_first_is_not_trusted_where_others_may_create_tables_too(database, stranger_of, path):
    role = stranger_of(database)
    database.execute(f"GRANT CREATE ON SCHEMA public TO PUBLIC; {SQUATTED.format(role=role)}")
    database.execute(f"ALTER DATABASE {database.name} SET search_path TO {path}")

    with django(database) as connection:
        with pytest.raises(SearchPathError, match=f"django_migrations belongs to the role {role}"):
            read_home(connection)
        report = verify(connection)
        assert report.server.schema == path.partition(",")[0]
        assert [one.where for one in report.findings if one.code == "tables.untrusted"] == (
            ["django_migrations"] if path == "public" else []
        )


def test_the_owner_of_the_tables_is_trusted_where_no_other_role_may_create_any(migrated, stranger_of):
    role = stranger_of(migrated)
    tables = [name for (name,) in migrated.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    migrated.execute("; ".join(f'ALTER TABLE "{name}" OWNER TO {role}' for name in tables))
    with django(migrated) as connection:
        assert read_home(connection) == ("public", True)
        migrated.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        with pytest.raises(SearchPathError, match=f"django_migrations belongs to the role {role}"):
            read_home(connection)
        migrated.execute(f"GRANT CREATE ON DATABASE {migrated.name} TO {role}")
        assert read_home(connection) == ("public", True)


def test_a_first_migrate_writes_to_no_journal_that_another_role_made(database, stranger_of):
    role = stranger_of(database)
    database.execute(
        f"SET ROLE {role}; CREATE TABLE public.fly2any_migration_runs (id bigint GENERATED BY DEFAULT AS IDENTITY, migration text,"
        " direction text, started timestamptz, finished timestamptz, error text, person text, code text, x text DEFAULT"
        f" public.caught()); {ARMED}"
    )

    with django(database) as connection, pytest.raises(Refusal) as refused:
        migrates(connection, None)

    assert str(refused.value) == (
        "Nothing was changed. Table fly2any_migration_runs, of another owner than the schema's, runs code of the role"
        f" {role} with the privileges of the role that writes to fly2any_migration_runs. If the site created them: GRANT CREATE ON"
        f' DATABASE {database.name} TO "{role}"; otherwise drop them, or make the site\'s role their owner. REVOKE CREATE ON SCHEMA'
        ' "public" FROM PUBLIC keeps other roles from creating any.'
    )


@pytest.mark.parametrize("command", ["dbadopt", "migrate --check", "migrate --plan", "showmigrations", "dbreset"])
def test_no_command_reads_a_record_of_migrations_that_another_role_made(exact, stranger_of, command):
    role = stranger_of(exact)
    exact.execute(
        f"SET ROLE {role}; CREATE TABLE public.django_migrations (id bigint, app varchar(255), name varchar(255), applied timestamptz);"
        f" CREATE INDEX ON public.django_migrations ((app || public.caught())); {ARMED}"
    )

    with django(exact) as connection, pytest.raises((SystemExit, SearchPathError)) as stopped:
        call_command(*command.split(), database=connection.alias, stdout=(out := io.StringIO()), stderr=out)

    if command == "dbadopt":
        assert stopped.value.code == 4
        assert "migrations.untrusted" in out.getvalue()
    else:
        assert str(stopped.value).startswith(f"django_migrations belongs to the role {role}, which may be another tenant's")


def test_an_adoption_reads_no_table_that_another_role_made(exact, stranger_of):
    role = stranger_of(exact)
    exact.execute(
        f'DROP TABLE recent_searches; SET ROLE {role}; CREATE TABLE public.recent_searches (id text, "airportCode" int);'
        f" CREATE INDEX ON public.recent_searches ((id || public.caught())); {ARMED}"
    )

    exact.execute(ARMED.replace("RAISE 'hijacked as %', current_user", "RAISE WARNING 'hijacked'; RETURN 'a'"))
    said = []
    with django(exact) as connection:
        connection.ensure_connection()
        connection.connection.add_notice_handler(lambda diag: said.append(diag.message_primary))
        blockers = assess(connection).blockers
        with pytest.raises(Refusal, match="Table recent_searches, of another owner than the schema's"):
            adopt(connection.alias, patience=1, progress=Progress(), repair=True, end_idle=False, done=print)

    assert said == []
    assert [one.finding.where for one in blockers if one.finding.code == "tables.untrusted"] == ["recent_searches"]
    assert {one.rows for one in blockers if one.finding.where.startswith("recent_searches")} == {None}


READERS = {
    "dbreset": lambda connection: call_command("dbreset", database=connection.alias),
    "flush": lambda connection: call_command("flush", database=connection.alias),
    "dbseed": lambda connection: seed(connection, users=1, seed=1, until=date(2026, 5, 1)),
    "dbmaintain --dry-run": lambda connection: count(connection, RULES["recent_searches"], datetime.now(UTC)),
}


@pytest.mark.parametrize("command", READERS)
def test_no_command_counts_rows_of_a_table_that_another_role_made(migrated, stranger_of, command):
    role = stranger_of(migrated)
    migrated.execute(
        f"CREATE INDEX ON recent_searches ((id || public.caught())); ALTER TABLE recent_searches OWNER TO {role}; {ARMED}"
    )

    with (
        django(migrated) as connection,
        pytest.raises(Refusal, match="Table recent_searches, of another owner than the schema's"),
    ):
        READERS[command](connection)


def test_passwords_in_a_table_that_another_role_made_are_not_looked_at(database, stranger_of):
    role = stranger_of(database)
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO PUBLIC; SET ROLE {role}; CREATE TABLE public.users (id text, password text);"
        f" CREATE INDEX ON public.users ((id || public.caught())); {ARMED}"
    )

    with django(database) as connection:
        (topic,) = examine(connection, {"passwords": SECURITY["passwords"]})

    assert (topic.trouble, [figure.label for figure in topic.figures]) == ("", ["roles' passwords"])


def test_a_run_of_migrations_lets_no_other_role_add_triggers(migrated, stranger_of):
    role = stranger_of(migrated)
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


def test_a_table_that_a_migration_makes_lets_no_other_role_create_triggers(database, stranger_of):
    role = stranger_of(database)
    database.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}, PUBLIC")

    with django(database) as connection:
        MigrationRecorder(connection).ensure_schema()

    may = f"SELECT has_table_privilege('{role}', 'django_migrations', 'TRIGGER'), has_table_privilege('{role}', 'django_migrations', 'SELECT')"
    assert database.execute(may) == [(False, True)]
