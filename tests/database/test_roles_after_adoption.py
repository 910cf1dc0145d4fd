"""End to end: the owner adopts a Prisma database, creates the roles, and each role does its work."""

import dataclasses
import time

import psycopg
import pytest

from fly2any.database.roles import roles_sql
from tests import prisma
from tests.conftest import django, manage
from tests.database.sites import OURS, fill
from tests.prisma import PHASE7
from tests.writer import Writer

ENDS = ("migrate", "app", "read")
OF_PRISMA = """
    CREATE VIEW trips AS SELECT * FROM trip_1;
    CREATE MATERIALIZED VIEW trips_counted AS SELECT count(*) FROM trip_1;
    CREATE SEQUENCE invoices;
    CREATE TABLE numbered (id serial PRIMARY KEY);
    CREATE SCHEMA reports; CREATE TABLE reports.days (day date PRIMARY KEY)
"""
ADMIN = """
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from accounts.models import User
user = User.objects.create_superuser(email="staff@example.com", password="A-long-enough-1")
client = Client(SERVER_NAME="localhost")
client.force_login(user)
admin.autodiscover()
for model in admin.site._registry:
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    print(client.get(page, secure=True).status_code)
"""


class Role(dataclasses.make_dataclass("Named", ["database", "name"])):
    """A role of the database, as the site's code connects."""

    @property
    def url(self):
        return self.database.url.replace(f"//{self.database.user}", f"//{self.name}", 1)

    def connect(self, **options):
        return dataclasses.replace(self.database, user=self.name).connect(**options)

    def execute(self, statement):
        with self.connect() as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None


@pytest.fixture
def roles(database):
    """A database of the site's own role, and its roles by name."""
    made = {end: Role(database, f"{database.name}_{end}") for end in ("site", *ENDS)}
    database.execute(f"CREATE ROLE {made['site'].name} LOGIN; ALTER DATABASE {database.name} OWNER TO {made['site'].name}")
    database.execute(f"ALTER SCHEMA public OWNER TO {made['site'].name}")
    yield made
    database.execute(
        f"ALTER DATABASE {database.name} OWNER TO CURRENT_USER; REASSIGN OWNED BY {made['site'].name} TO CURRENT_USER"
    )
    for end in ENDS:
        if database.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{made[end].name}'"):
            database.execute(f"REASSIGN OWNED BY {made[end].name} TO CURRENT_USER; DROP OWNED BY {made[end].name}")
    database.execute(f"DROP OWNED BY {made['site'].name}")
    for role in made.values():
        database.execute(f"DROP ROLE IF EXISTS {role.name}")


def roles_of(database):
    """Return what `dbroles` prints to a superuser."""
    with django(database) as connection:
        return roles_sql(connection, sorted(OURS), prefix=database.name)


@pytest.mark.slow
def test_after_adoption_each_role_does_its_work(database, roles, tmp_path):
    site, migrate, app, read = roles["site"], roles["migrate"], roles["app"], roles["read"]
    fill(site, prisma.superset())
    site.execute(OF_PRISMA)
    adopted = manage("dbadopt", "--yes", url=site.url)
    assert (adopted.returncode, adopted.stderr) == (0, "")
    sql = roles_of(database)
    database.execute(sql)
    database.execute(roles_of(database))  # Again, of what it made.
    database.execute(f"ALTER ROLE {migrate.name} CREATEDB")

    night = manage("dbbackup", "--verify", "--prune", url=migrate.url, BACKUP_LOCATION=str(tmp_path / "backups"))
    assert (night.returncode, night.stderr) == (0, ""), night.stdout

    with Writer(dataclasses.replace(database, user=app.name)) as writer:
        deadline = time.monotonic() + 60
        while not writer.rounds and not writer.errors and time.monotonic() < deadline:
            time.sleep(0.02)
    assert (writer.errors, writer.rounds > 0) == ([], True)
    app.execute("""INSERT INTO trip_1 (id, "userId") VALUES ('t', 'users 1')""")
    app.execute("UPDATE trip_1 SET status = 'BOOKED'")
    assert app.execute("SELECT id, status::text FROM trips") == [("t", "BOOKED")]
    assert app.execute("SELECT count FROM trips_counted") == [(0,)]
    assert app.execute("INSERT INTO numbered DEFAULT VALUES RETURNING nextval('invoices')") == [(1,)]
    assert app.execute("SELECT migration_name FROM _prisma_migrations") == [(prisma.MIGRATION,)]
    app.execute("DELETE FROM trip_1")
    for statement in (
        "DELETE FROM _prisma_migrations",
        "TRUNCATE trip_1",
        "ALTER TABLE trip_1 ADD COLUMN c int",
        "SELECT * FROM reports.days",
        "UPDATE fly2any_accesses SET staff_id = 'x'",
        "DELETE FROM django_migrations",
        "SELECT nextval('fly2any_migration_runs_id_seq')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement)

    pages = manage("shell", "-v", "0", "-c", ADMIN, url=app.url, SECOND_FACTOR="false")
    assert (len(pages.stdout.split()) > 18, set(pages.stdout.split())) == (True, {"200"}), pages.stderr

    for table in PHASE7:
        assert read.execute(f'SELECT count("{PHASE7[table]["columns"][0]["name"]}") FROM "{table}"')[0][0] >= 0
    for statement in ("SELECT password FROM users", "SELECT * FROM trip_1", "SELECT * FROM _prisma_migrations"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            read.execute(statement)
    found = manage("dbstatus", "--security", "--format", "json", url=app.url).stdout
    assert "security.role" not in found
    assert "security.public" not in found


def test_objects_that_the_site_creates_later_are_usable_and_backed_up(database, roles):
    site, migrate, app = roles["site"], roles["migrate"], roles["app"]
    site.execute("CREATE TABLE trips (id serial PRIMARY KEY)")
    database.execute(roles_of(database))

    site.execute("CREATE TABLE guests (id serial PRIMARY KEY); CREATE SCHEMA later; CREATE TABLE later.days (id serial)")
    migrate.execute("CREATE TABLE ours (id serial PRIMARY KEY)")

    assert app.execute("INSERT INTO guests DEFAULT VALUES RETURNING id") == [(1,)]
    assert app.execute("INSERT INTO ours DEFAULT VALUES RETURNING id") == [(1,)]
    assert migrate.execute("SELECT count(*), (SELECT last_value FROM guests_id_seq) FROM guests") == [(1, 1)]
    assert migrate.execute("SELECT count(*), (SELECT last_value FROM later.days_id_seq) FROM later.days") == [(0, 1)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SELECT * FROM later.days")


def test_privileges_that_this_role_cannot_grant_are_named_and_the_rest_succeeds(database, roles):
    site, app = roles["site"], roles["app"]
    site.execute("CREATE TABLE trips (id int)")
    database.execute('CREATE TABLE "of\nothers" (id int); CREATE SCHEMA others; CREATE TABLE others.days (day date)')
    database.execute('ALTER TABLE "of\nothers" ENABLE ROW LEVEL SECURITY')
    database.execute(f"ALTER ROLE {site.name} CREATEROLE")

    with django(dataclasses.replace(database, user=site.name)) as connection:
        connection.settings_dict["USER"] = site.name
        sql = roles_sql(connection, [], prefix=database.name)

    place, theirs = '"public"."of\n-- others"', f'"{database.user}"'
    left_out = f"-- Left out: only a member of {theirs} may run it:"
    assert f'{left_out} GRANT SELECT, INSERT, UPDATE, DELETE ON {place} TO "{app.name}";\n' in sql
    assert f'{left_out} GRANT USAGE ON SCHEMA "others" TO "{roles["migrate"].name}";\n' in sql
    assert f"-- {place} has row-level security: " in sql
    site.execute(sql)
    assert app.execute("SELECT * FROM trips") == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute('SELECT * FROM "of\nothers"')


def test_no_name_ends_a_comment_or_the_quotes_of_what_is_printed(database, roles):
    hostile = "x\"; CREATE TABLE taken (); --\n; CREATE TABLE taken (); --\r; CREATE TABLE taken (); --'$do$"
    quoted = '"' + hostile.replace('"', '""')[:50] + '"'
    roles["site"].execute(f"CREATE TABLE {quoted} (id int)")
    database.execute(f"CREATE ROLE {quoted}")
    try:
        database.execute(f"ALTER TABLE {quoted} OWNER TO {quoted}")
        database.execute(roles_of(database))
        with django(database) as connection:
            odd = roles_sql(connection, [], prefix="$do$\n; CREATE TABLE taken (); --$do$")
        database.execute(odd)
        assert database.execute("SELECT pg_catalog.to_regclass('taken')") == [(None,)]
    finally:
        for (role,) in database.execute("SELECT quote_ident(rolname) FROM pg_roles WHERE rolname LIKE '%CREATE TABLE%'"):
            database.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}")
