"""The three roles for migrations, for the site and the admin, and for reading: each has only the privileges it needs."""

import psycopg
import pytest
from django.contrib import admin

from fly2any.database.errors import Refusal
from fly2any.database.health import security
from fly2any.database.health.examine import examine
from fly2any.database.roles import SECRETS, roles_sql
from fly2any.database.schema.untrusted_code import our_tables
from fly2any.postgres.search_path import SearchPathError
from tests.conftest import django, manage


def forget(database, *ends):
    """Drop the roles, and give their objects back."""
    for end in ends:
        role = f"{database.name}_{end}"
        database.execute(f"REASSIGN OWNED BY {role} TO postgres")
        database.execute(f"DROP OWNED BY {role}")
    for end in ends:
        database.execute(f"DROP ROLE {database.name}_{end}")


@pytest.fixture
def roles(migrated):
    """URLs of the three roles, by name."""
    printed = manage("dbroles", "--prefix", migrated.name, url=migrated.url)
    assert (printed.returncode, printed.stderr) == (0, "")
    migrated.execute(printed.stdout)
    with django(migrated) as connection:
        migrated.execute(roles_sql(connection, our_tables(), prefix=migrated.name))  # Run again, it updates the grants.
    ends = ("migrate", "app", "read")
    yield {end: migrated.url.replace("//postgres", f"//{migrated.name}_{end}") for end in ends}
    forget(migrated, *ends)


@pytest.mark.slow
def test_the_migrate_role_migrates(roles):
    results = [
        manage("migrate", "engagement", "0002", "--yes", "--without-backup", url=roles["migrate"]),
        manage("migrate", url=roles["migrate"]),
        manage("dbstatus", "--write-check", url=roles["migrate"]),
    ]

    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 3


@pytest.mark.slow
def test_a_superuser_resets_what_the_migrate_role_owns(migrated, roles):
    """Halfway, the table users is gone, whose owner is trusted."""
    result = manage("dbreset", "--yes", "--without-backup", url=migrated.url)
    gone = migrated.execute("SELECT to_regclass('users'), to_regclass('price_alerts')")
    again = manage("migrate", "-v0", url=migrated.url)

    assert (result.returncode, result.stderr) == (0, "")
    assert gone == [(None, None)]
    assert (again.returncode, again.stderr) == (0, "")
    assert manage("migrate", "--check", url=roles["migrate"]).returncode == 0


@pytest.mark.slow
def test_a_missing_table_of_users_is_named_where_the_migrate_role_owns_the_rest(migrated, roles):
    migrated.execute("DROP TABLE users CASCADE")

    result = manage("dbstatus", url=migrated.url)

    assert result.returncode == 4
    assert "table.missing at users" in result.stdout
    assert "untrusted" not in result.stdout


def test_the_app_role_writes_rows_and_cannot_change_the_schema(migrated, roles):
    status = manage("dbstatus", "--write-check", url=roles["app"])
    seeded = manage("dbseed", "--production", "--users", "5", "--seed", "1", "--until", "2026-05-01", url=roles["app"])

    assert (status.returncode, "each of 18 tables" in status.stdout, status.stderr) == (0, True, ""), status.stdout
    assert seeded.returncode == 0, seeded.stderr
    with psycopg.connect(roles["app"], autocommit=True) as app:
        access = "INSERT INTO fly2any_accesses (staff_id, staff_email, action, \"table\") VALUES ('s', 'e', 'opened', 't')"
        app.execute(access)
        for statement in (
            "UPDATE fly2any_accesses SET staff_id = 'x'",
            "DELETE FROM fly2any_accesses",
            "TRUNCATE fly2any_accesses",
            "DELETE FROM django_migrations",
            "INSERT INTO django_migrations (app, name, applied) VALUES ('a', 'b', now())",
            "UPDATE fly2any_migration_runs SET person = 'x'",
            "CREATE TABLE t ()",
            "DROP TABLE users",
            "ALTER TABLE users ADD COLUMN c int",
            "TRUNCATE users CASCADE",
            "CREATE INDEX ON users (name)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(statement)
    assert migrated.execute("SELECT count(*) FROM fly2any_accesses") == [(1,)]


def test_the_read_role_sees_no_secret_and_changes_nothing(migrated, roles):
    with psycopg.connect(roles["read"], autocommit=True) as reader:
        assert reader.execute("SELECT count(*) FROM price_history").fetchone() == (0,)
        assert reader.execute("SELECT id, email FROM users").fetchall() == []
        for table, columns in SECRETS.items():
            for column in columns:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute(f'SELECT "{column}" FROM "{table}"')
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute("DELETE FROM users")
        reader.execute("SET default_transaction_read_only TO off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("DELETE FROM users")


def test_the_read_role_reads_no_column_that_the_site_added(migrated):
    migrated.execute('ALTER TABLE users ADD "resetToken" text; ALTER TABLE price_history ADD "note" text')

    lines = manage("dbroles", "--prefix", migrated.name, url=migrated.url).stdout.splitlines()

    read = f'"{migrated.name}_read"'
    about = [line for line in lines if '"public"."price_history"' in line and read in line and "GRANT" in line]
    assert [line.partition(', "timestamp"')[2] or line for line in about] == [
        f') ON "public"."price_history" TO {read};',
        f'-- Columns that no migration built; if they hold no secrets: GRANT SELECT ("note") ON "public"."price_history" TO {read};',
    ]
    assert [line[:2] for line in lines if '"resetToken"' in line] == ["--"]


def test_the_current_owner_of_the_tables_keeps_its_access(migrated):
    owner = f"{migrated.name}_site"
    migrated.execute(f"CREATE ROLE {owner} LOGIN; ALTER DATABASE {migrated.name} OWNER TO {owner}")
    migrated.give_tables(owner)
    sql = manage("dbroles", "--prefix", migrated.name, url=migrated.url).stdout
    migrated.execute(sql)
    try:
        with psycopg.connect(migrated.url.replace("//postgres", f"//{owner}"), autocommit=True) as site:
            site.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('1', 'a@example.com', now())")
            site.execute("DELETE FROM users")
        assert f'-- REVOKE "{migrated.name}_migrate" FROM "{owner}";' in sql
    finally:
        forget(migrated, "site", "migrate", "app", "read")


def test_the_read_role_cannot_read_the_fields_that_the_admin_keeps_secret():
    secret = {
        (model._meta.db_table, model._meta.get_field(name).column)
        for model, page in admin.site._registry.items()
        for name in getattr(page, "secrets", ())
    }

    assert secret <= {(table, column) for table, columns in SECRETS.items() for column in columns}


@pytest.mark.parametrize("prefix", ["", "pg_mine", "x" * 51])
def test_a_prefix_that_begins_no_role_is_refused(migrated, prefix):
    result = manage("dbroles", "--prefix", prefix, url=migrated.url)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_odd_names_are_quoted(migrated):
    sql = manage("dbroles", "--prefix", """a"b'; DROP TABLE users; --""", url=migrated.url).stdout

    assert """CREATE ROLE "a""b'; DROP TABLE users; --_app" LOGIN;""" in sql


LEDGER = """CREATE TABLE _prisma_migrations (id text PRIMARY KEY, migration_name text NOT NULL, started_at timestamptz NOT NULL DEFAULT now(),
            finished_at timestamptz, rolled_back_at timestamptz)"""
OF_APP = """
    SELECT c.relname::text, array_agg(a.privilege_type ORDER BY a.privilege_type) FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE a.grantee = %s::regrole AND c.relname IN
        ('_prisma_migrations', 'django_migrations', 'fly2any_migration_runs', 'fly2any_migration_runs_id_seq', 'fly2any_accesses')
    GROUP BY 1 ORDER BY 1
"""
RIGHT = [
    ("_prisma_migrations", ["SELECT"]),
    ("django_migrations", ["SELECT"]),
    ("fly2any_accesses", ["INSERT", "SELECT"]),
    ("fly2any_migration_runs", ["SELECT"]),
    ("fly2any_migration_runs_id_seq", ["SELECT"]),
]


def migrates(database):
    return database.url.replace("//postgres", f"//{database.name}_migrate")


@pytest.fixture
def early(database):
    """A database whose roles were made while it was empty; the role that migrates then made Prisma's ledger."""
    with django(database) as connection:
        database.execute(roles_sql(connection, [], prefix=database.name))
    with psycopg.connect(migrates(database), autocommit=True) as migrate:
        migrate.execute(LEDGER)
    yield database
    forget(database, "migrate", "app", "read")


def of_app(database):
    return database.execute(OF_APP, [f"{database.name}_app"])


@pytest.mark.slow
def test_a_run_leaves_no_ledger_that_the_app_may_write(early):
    assert of_app(early) == [("_prisma_migrations", ["DELETE", "INSERT", "SELECT", "UPDATE"])]

    assert manage("migrate", "-v0", url=migrates(early)).returncode == 0

    assert of_app(early) == RIGHT


def test_a_ledger_that_the_app_may_write_is_found_and_its_cure_works(early):
    early.execute("CREATE TABLE users ()")

    def found():
        with django(early) as connection:
            (privileges,) = examine(connection, {"privileges": security.privileges})
        assert privileges.trouble == ""
        return [finding for finding in privileges.findings if finding.code == "security.ledger"]

    [one] = found()
    early.execute(one.cure)

    assert (one.where, one.message) == (
        "_prisma_migrations",
        f"The role {early.name}_app has DELETE, INSERT, UPDATE on _prisma_migrations through default privileges, so the role can change the records in it.",
    )
    assert found() == []


def test_dbroles_revokes_what_default_privileges_granted(early):
    with django(early) as connection:
        printed = roles_sql(connection, [], prefix=early.name)
    early.execute(printed)

    assert of_app(early) == [("_prisma_migrations", ["SELECT"])]


def test_an_existing_role_gets_nothing_unless_the_owner_granted_it_connect(migrated):
    theirs = f"{migrated.name}_migrate"
    migrated.execute(f"CREATE ROLE {theirs} LOGIN PASSWORD 'known to whoever made it'")
    try:
        with django(migrated) as connection:
            with pytest.raises(Refusal) as refused:
                roles_sql(connection, our_tables(), prefix=migrated.name)
            migrated.execute(f"GRANT CONNECT ON DATABASE {migrated.name} TO {theirs}")
            sql = roles_sql(connection, our_tables(), prefix=migrated.name)
    finally:
        forget(migrated, "migrate")

    assert str(refused.value) == (
        f"The role {theirs} exists, but no earlier run granted it CONNECT on this database: any role with CREATEROLE may have created it, be a member of"
        " it or know its password, or another database uses it. Choose other names with --prefix; or, if it is yours, GRANT CONNECT ON"
        f' DATABASE "{migrated.name}" TO "{theirs}"; and run the command again.'
    )
    assert [end for end in ("migrate", "app", "read") if f'CREATE ROLE "{migrated.name}_{end}" LOGIN;\n' in sql] == [
        "app",
        "read",
    ]
    assert f'OWNER TO "{theirs}";' in sql


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_role_that_created_a_table_with_one_of_our_names_gets_no_privileges(migrated, database, other_role_of, is_empty):
    chosen = database if is_empty else migrated
    role = other_role_of(chosen)
    table = "django_migrations" if is_empty else "fly2any_notes"
    chosen.execute(
        f"DROP TABLE IF EXISTS {table}; SET ROLE {role}; CREATE TABLE public.{table} (id bigint, app text, name text)"
    )

    with django(chosen) as connection, pytest.raises((Refusal, SearchPathError)) as refusal:
        roles_sql(connection, our_tables(), prefix=chosen.name)

    if is_empty:
        assert str(refusal.value).startswith(f"django_migrations belongs to the role {role}, which may be another tenant's")
        return
    assert str(refusal.value) == (
        f"The table {table} belongs to the role {role}, which would become a member of {chosen.name}_migrate, the owner of all tables."
        f' If it is the site\'s role: GRANT CREATE ON SCHEMA "public" TO "{role}" WITH GRANT OPTION; otherwise drop the table. To keep that'
        f' role from creating another: REVOKE CREATE ON SCHEMA "public" FROM PUBLIC, "{role}";'
    )
