"""What another role puts where ours is looked for: its code runs as nobody but itself."""

import pytest

from fly2any.database.server import read_home
from fly2any.database.status import verify
from fly2any.postgres.search_path import SearchPathError
from tests.conftest import django

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
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


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
            SearchPathError, match=f"django_migrations belongs to the role {stranger}, which owns none of our tables"
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
