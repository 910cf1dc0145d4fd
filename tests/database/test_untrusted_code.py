"""Objects that another role plants where ours are looked up: their code never runs as another role."""

import io
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from django.core.management import call_command

from fly2any.database.adoption import adopt, assess
from fly2any.database.errors import Refusal
from fly2any.database.health.examine import examine
from fly2any.database.health.security import TOPICS as SECURITY
from fly2any.database.progress import Progress
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import count
from fly2any.database.seed import seed
from fly2any.database.server import read_home
from fly2any.database.verification import verify
from fly2any.postgres.search_path import SearchPathError
from tests.conftest import django, manage
from tests.database.other_roles import migrates

ARMED = """
    CREATE OR REPLACE FUNCTION public.caught() RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN RAISE 'hijacked as %', current_user; END $$
"""
PRISMAS = """
    SELECT public.caught() AS id, public.caught()::varchar AS migration_name, now() AS started_at, now() AS finished_at,
           NULL::timestamptz AS rolled_back_at
"""
OURS = "SELECT 1::bigint AS id, public.caught()::varchar AS app, public.caught()::varchar AS name, now() AS applied"
WATCHED = "CREATE TABLE {name} (id text, migration_name text, started_at timestamptz, finished_at timestamptz, rolled_back_at timestamptz)"


@pytest.fixture
def other_role(other_role_of, database):
    return other_role_of(database)


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
def test_prismas_ledger_created_by_another_role_is_reported_and_not_read(migrated, other_role_of, kind, made):
    role = other_role_of(migrated)
    migrated.execute(f"{made}; ALTER TABLE _prisma_migrations OWNER TO {role}; {ARMED}")

    assert untrusted(migrated) == [
        (
            "warning",
            "_prisma_migrations",
            f"The {kind} _prisma_migrations belongs to the role {role}, whose code would run with the privileges of the role that reads it: it was not read.",
        )
    ]


def test_our_ledger_created_by_another_role_is_reported_and_not_read(database, other_role):
    database.execute(f"CREATE VIEW django_migrations AS {OURS}; ALTER VIEW django_migrations OWNER TO {other_role}; {ARMED}")

    assert [where for _, where, _ in untrusted(database)] == ["django_migrations"]
    with (
        django(database) as opened,
        pytest.raises(
            SearchPathError, match=f"django_migrations belongs to the role {other_role}, which may be another tenant's"
        ),
    ):
        read_home(opened)


PLANTED = """
    CREATE TABLE public.django_migrations (id bigint GENERATED ALWAYS AS IDENTITY, app text, name text, applied timestamptz);
    GRANT ALL ON public.django_migrations TO PUBLIC
"""


@pytest.mark.parametrize("made", [PLANTED, f"CREATE TABLE public.users (id text); {PLANTED}"], ids=["record", "people too"])
def test_the_first_run_writes_no_record_that_another_role_created(database, other_role, made):
    """Its triggers would run as the role that migrates: a role that has a schema of its own here may have created it."""
    database.execute(f"GRANT CREATE ON DATABASE {database.name} TO {other_role}; SET ROLE {other_role}; {made}")

    run = manage("migrate", url=database.url)

    assert (run.returncode, f"django_migrations belongs to the role {other_role}" in run.stderr) == (2, True)
    assert database.execute("SELECT count(*) FROM django_migrations") == [(0,)]


@pytest.mark.parametrize("grantee", ["{role}", "PUBLIC"])
def test_an_adoption_writes_no_record_that_another_role_created(exact, other_role_of, grantee):
    role = other_role_of(exact)
    exact.execute(
        f"GRANT CREATE ON SCHEMA public TO {grantee.format(role=role)}; GRANT CREATE ON DATABASE {exact.name} TO {role}"
    )
    exact.execute(f"SET ROLE {role}; {PLANTED}")

    run = manage("dbadopt", "--yes", url=exact.url)

    assert (run.returncode, f"django_migrations belongs to the role {role}" in run.stderr) == (2, True)
    assert exact.execute("SELECT count(*) FROM django_migrations") == [(0,)]


def test_a_record_that_a_member_gave_to_a_predefined_role_is_not_read(database):
    database.execute(f"{PLANTED}; ALTER TABLE django_migrations OWNER TO pg_read_all_data")
    with (
        database.role("GRANT pg_read_all_data TO {role}"),
        django(replace(database, user=f"{database.name}_role")) as connection,
        pytest.raises(SearchPathError, match="django_migrations belongs to the role pg_read_all_data"),
    ):
        read_home(connection)


def test_a_search_path_that_puts_pg_catalog_last_is_refused(database):
    database.execute(f"ALTER DATABASE {database.name} SET search_path TO public, pg_catalog")

    with django(database) as opened, pytest.raises(SearchPathError) as refused:
        opened.ensure_connection()

    assert str(refused.value) == (
        f"The search path of {database.user} is public, pg_catalog: objects that another role creates there would take precedence over PostgreSQL's own;"
        " remove pg_catalog, which is then searched first, where the path is set (ALTER DATABASE, ALTER ROLE or the URL)."
    )


def test_inspectdb_reads_no_view_of_another_role(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(f"{ARMED}; CREATE VIEW trap AS SELECT public.caught() AS c; ALTER VIEW trap OWNER TO {role}")
    migrated.execute(f"CREATE TABLE planted (a text); ALTER TABLE planted OWNER TO {role}")
    out = io.StringIO()

    with django(migrated) as connection:
        call_command("inspectdb", "users", "trap", "planted", include_views=True, database=connection.alias, stdout=out)

    lines = out.getvalue().splitlines()
    assert [line for line in lines if line.startswith("class ") and "Meta" not in line] == ["class Users(models.Model):"]
    assert lines[-2:] == [f"# Not read, because that could run another role's code: '{name}'" for name in ("trap", "planted")]


SQUATTED = f"""
    CREATE SCHEMA app; CREATE TABLE app.price_alerts (id text); SET ROLE {{role}};
    CREATE TABLE public.users (id text); CREATE TABLE public.price_alerts (id text);
    CREATE TABLE public.django_migrations (id bigint, app varchar(255), name varchar(255), applied timestamptz);
    CREATE INDEX ON public.django_migrations ((app || public.caught())); {ARMED}
"""


@pytest.mark.parametrize("path", ["public", "app, public"])
def test_the_creator_of_users_is_not_trusted_if_others_may_create_tables(database, other_role_of, path):
    role = other_role_of(database)
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


# What an administrator does for the site's role, and a second application's role never has.
GIVEN = {
    "database": "ALTER DATABASE {name} OWNER TO {role}",
    "grant": "GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT CREATE ON SCHEMA public TO {role} WITH GRANT OPTION",
}


@pytest.mark.parametrize("given", GIVEN)
def test_the_owner_of_the_tables_is_trusted_if_it_may_let_others_create_tables(migrated, other_role_of, given):
    role = other_role_of(migrated)
    migrated.give_tables(role)
    migrated.execute(f"GRANT CREATE ON SCHEMA public TO {role}; GRANT CREATE ON DATABASE {migrated.name} TO {role}")
    with django(migrated) as connection:
        with pytest.raises(SearchPathError) as refused:
            read_home(connection)
        migrated.execute(GIVEN[given].format(role=role, name=migrated.name))
        assert read_home(connection) == ("public", True)
    migrated.execute(f"ALTER DATABASE {migrated.name} OWNER TO postgres")

    assert str(refused.value) == (
        f"django_migrations belongs to the role {role}, which may be another tenant's, so it is not read. If it is the ledger, give it to"
        f" the owner of the other tables (ALTER TABLE django_migrations OWNER TO …); if all of them belong to {role}: GRANT CREATE ON"
        f' SCHEMA "public" TO "{role}" WITH GRANT OPTION; otherwise drop it.'
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "made", ["", f"SET ROLE {{role}}; {PLANTED}; RESET ROLE".replace("public.", "app.")], ids=["empty", "record"]
)
@pytest.mark.parametrize("chosen", ["&schema=app", ""])
def test_no_schema_that_another_role_created_is_used(database, other_role, made, chosen):
    """Its owner may drop each table in it, and could create the migration ledger with a trigger first."""
    database.execute(
        f"CREATE SCHEMA app AUTHORIZATION {other_role}; GRANT ALL ON SCHEMA app TO PUBLIC; {made.format(role=other_role)}"
    )
    database.execute(f"ALTER DATABASE {database.name} SET search_path TO app, public")

    run = manage("migrate", url=database.url + chosen)
    status = manage("dbstatus", url=database.url + chosen)

    message = f"The schema app belongs to the role {other_role}, which may be another tenant's and may drop each table in it."
    assert (run.returncode, run.stderr.startswith(message)) == (2, True)
    assert message in status.stdout + status.stderr
    assert database.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relname = 'users'") == [
        (0,)
    ]


def test_a_first_migrate_writes_to_no_journal_created_by_another_role(database, other_role_of):
    role = other_role_of(database)
    database.execute(
        f"SET ROLE {role}; CREATE TABLE public.fly2any_migration_runs (id bigint GENERATED BY DEFAULT AS IDENTITY, migration text,"
        " direction text, started timestamptz, finished timestamptz, error text, person text, code text, x text DEFAULT"
        f" public.caught()); {ARMED}"
    )

    with django(database) as connection, pytest.raises(Refusal) as refused:
        migrates(connection, None)

    assert str(refused.value) == (
        "Nothing was changed. Table fly2any_migration_runs, whose owner is not trusted, runs code of the role"
        f" {role} with the privileges of the role that writes to fly2any_migration_runs. If the site created it: GRANT CREATE ON"
        f' SCHEMA "public" TO "{role}" WITH GRANT OPTION; otherwise copy its rows with COPY, and drop it. REVOKE CREATE ON'
        ' SCHEMA "public" FROM PUBLIC keeps other roles from creating any.'
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("command", ["dbadopt", "migrate --check", "migrate --plan", "showmigrations", "dbreset"])
def test_no_command_reads_a_record_of_migrations_created_by_another_role(exact, other_role_of, command):
    role = other_role_of(exact)
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


def test_an_adoption_reads_no_table_created_by_another_role(exact, other_role_of):
    role = other_role_of(exact)
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
        with pytest.raises(Refusal, match="Table recent_searches, whose owner is not trusted"):
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
def test_no_command_counts_rows_of_a_table_created_by_another_role(migrated, other_role_of, command):
    role = other_role_of(migrated)
    migrated.execute(
        f"CREATE INDEX ON recent_searches ((id || public.caught())); ALTER TABLE recent_searches OWNER TO {role}; {ARMED}"
    )

    with (
        django(migrated) as connection,
        pytest.raises(Refusal, match="Table recent_searches, whose owner is not trusted"),
    ):
        READERS[command](connection)


def test_passwords_in_another_roles_table_are_not_read(database, other_role_of):
    role = other_role_of(database)
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO PUBLIC; SET ROLE {role}; CREATE TABLE public.users (id text, password text);"
        f" CREATE INDEX ON public.users ((id || public.caught())); {ARMED}"
    )

    with django(database) as connection:
        (topic,) = examine(connection, {"passwords": SECURITY["passwords"]})

    assert (topic.trouble, [figure.label for figure in topic.figures]) == ("", ["roles' passwords"])
