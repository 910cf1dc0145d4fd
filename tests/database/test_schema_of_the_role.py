"""Schemas before ours in the search path: no other role can put a table there before ours, at any time."""

import shutil
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import Error, connection, connections

from fly2any.database.errors import Refusal
from fly2any.database.migration.advisory_locks import MIGRATION_LOCK
from fly2any.database.progress import Progress
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from fly2any.database.server import read_home
from fly2any.database.sql import ask
from tests.conftest import django, manage, start_manage
from tests.servers import PgBouncer

PLANTED = """
    CREATE SCHEMA {schema} AUTHORIZATION {role};
    SET ROLE {role};
    CREATE TABLE {schema}.price_history (LIKE public.price_history INCLUDING ALL);
    GRANT USAGE ON SCHEMA {schema} TO PUBLIC; GRANT ALL ON {schema}.price_history TO PUBLIC;
    INSERT INTO {schema}.price_history (id, origin, destination, "departDate", price, provider, timestamp)
    VALUES ('theirs', 'GRU', 'LIS', '2020-01-01', 1, 'mock', '2020-01-01');
    RESET ROLE
"""


def planted(database, role, schema):
    database.execute(f"GRANT SELECT ON price_history TO {role}")
    database.execute(PLANTED.format(schema=schema, role=role))


def ids(opened):
    with opened.cursor() as cursor:
        cursor.execute("SELECT id FROM price_history")
        return [identity for (identity,) in cursor.fetchall()]


def test_a_schema_that_another_role_names_after_this_one_later_is_not_searched(migrated, other_role_of):
    role = other_role_of(migrated)
    with django(migrated) as opened:
        opened.ensure_connection()
        planted(migrated, role, "postgres")

        assert ids(opened) == []


def test_a_schema_of_the_role_itself_is_searched(database):
    database.execute("CREATE SCHEMA postgres; CREATE TABLE postgres.price_history AS SELECT 'ours' AS id")
    database.execute("CREATE TABLE public.price_history AS SELECT 'of all' AS id")

    with django(database) as opened:
        assert ids(opened) == ["ours"]


@contextmanager
def pooled(server, folder, blocker, mark, **options):
    """A connection through a PgBouncer with one server connection, which its URL names where `mark` is set."""
    one = PgBouncer(folder, server.port, "transaction", size=1)
    place = {"NAME": "fly2any", "HOST": "127.0.0.1", "PORT": str(one.port), "USER": "postgres"}
    settings = {**connection.settings_dict, **place, "POOLER": mark, "POOL": None, "DIRECT": None}
    connections.databases["pooled"] = {**settings, "OPTIONS": {**settings["OPTIONS"], **options}}
    try:
        with blocker.unblock():
            yield connections["pooled"]
            connections["pooled"].close()
    finally:
        one.remove()
        del connections["pooled"], connections.databases["pooled"]


through_a_pooler = pytest.mark.skipif(
    not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), reason="pgbouncer is not installed"
)


@through_a_pooler
@pytest.mark.parametrize("mark", ["PgBouncer", ""])
def test_nor_is_it_behind_a_pooler_whose_next_client_gets_the_servers_own_path(
    own_server, tmp_path, django_db_setup, django_db_blocker, mark
):
    server = own_server()
    server.execute("CREATE TABLE price_history AS SELECT 'ours' AS id")
    with pooled(server, tmp_path, django_db_blocker, mark) as opened:
        opened.ensure_connection()
        server.execute("CREATE SCHEMA postgres; CREATE TABLE postgres.price_history AS SELECT 'theirs' AS id")
        found = ids(opened)
    paths = server.execute("SELECT current_setting('search_path')")

    assert (found, paths) == (["ours"], [('"$user", public',)])


def shadowed(opened):
    """Create a temporary table with the name of ours; return what is read by that name, and the type and the schema that are found."""
    with opened.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE price_history AS SELECT 'temporary' AS id; CREATE TYPE pg_temp.own AS ENUM ()")
        cursor.execute("SELECT current_schema(), to_regtype('own')::text")
        return ids(opened), *cursor.fetchone()


@pytest.mark.parametrize("path", [None, "public", '"$user", public', "pg_temp, public", "public, pg_temp"])
@pytest.mark.parametrize("by", ["the server", "the URL"])
def test_a_temporary_table_does_not_come_before_ours(database, path, by):
    database.execute("CREATE TABLE price_history AS SELECT 'ours' AS id; CREATE TYPE own AS ENUM ()")
    if path and by == "the server":
        database.execute(f"ALTER DATABASE {database.name} SET search_path TO {path}")
    with django(database) as opened:
        if path and by == "the URL":
            opened.settings_dict["OPTIONS"] = {"options": "-c search_path=" + path.replace(" ", "\\ ")}
        assert shadowed(opened) == (["ours"], "public", "own")


@through_a_pooler
@pytest.mark.parametrize("mark", ["PgBouncer", ""])
@pytest.mark.parametrize("options", [{}, {"options": "-c search_path=public"}])
def test_nor_does_it_behind_a_pooler(own_server, tmp_path, django_db_setup, django_db_blocker, mark, options):
    server = own_server()
    server.execute("CREATE TABLE price_history AS SELECT 'ours' AS id; CREATE TYPE own AS ENUM ()")
    if options:
        server.execute("ALTER DATABASE fly2any SET search_path TO public")
    with pooled(server, tmp_path, django_db_blocker, mark, **options) as opened:
        assert shadowed(opened) == (["ours"], "public", "own")


def test_no_temporary_table_is_created_where_no_schema_of_the_path_exists(database):
    database.execute(f"ALTER DATABASE {database.name} SET search_path TO nowhere")
    with django(database) as opened, opened.cursor() as cursor, pytest.raises(Error, match="no schema has been selected"):
        cursor.execute("CREATE TABLE t ()")


def sign_in_as(database, role, schema):
    """Plant our marking tables in a schema of another role, with rows of its own."""
    database.execute(f"""GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
                         SET ROLE {role}; CREATE TABLE {schema}.users (LIKE public.users INCLUDING ALL);
                         CREATE TABLE {schema}.django_migrations (LIKE public.django_migrations INCLUDING ALL); RESET ROLE;
                         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO PUBLIC; GRANT USAGE ON SCHEMA {schema} TO PUBLIC""")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("owned", [True, False], ids=["its own", "one in which it may create"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_schema_in_which_another_role_creates_comes_after_ours(migrated, other_role_of, owned, when):
    role = other_role_of(migrated)
    migrated.execute(
        f"CREATE SCHEMA theirs {'AUTHORIZATION ' + role if owned else ''}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    migrated.execute(
        f"GRANT CREATE, USAGE ON SCHEMA theirs TO {role}; ALTER DATABASE {migrated.name} SET search_path TO theirs, public"
    )
    plant = PLANTED.replace("CREATE SCHEMA {schema} AUTHORIZATION {role};", "").format(schema="theirs", role=role)
    options = {"archives": None, "deadline": time.monotonic() + 60, "progress": Progress()}
    with django(migrated) as opened:
        if when == "after":
            opened.ensure_connection()
        sign_in_as(migrated, role, "theirs")
        migrated.execute(plant)

        seen = ids(opened), read_home(opened)[0]
        swept = sweep(opened, RULES["price_history"], before=datetime.now(UTC) - timedelta(days=1), **options)

    assert (seen, swept.removed) == (([], "public"), 0)
    assert migrated.execute("SELECT count(*) FROM theirs.price_history") == [(1,)]


def test_a_schema_of_the_path_that_does_not_exist_yet_is_not_searched_later(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(f"ALTER DATABASE {migrated.name} SET search_path TO old_app, public")
    with django(migrated) as opened:
        opened.ensure_connection()
        planted(migrated, role, "old_app")

        assert ids(opened) == []


def test_a_schema_of_this_roles_name_that_another_role_owns_stops_no_connection_and_is_not_searched(migrated, other_role_of):
    planted(migrated, other_role_of(migrated), migrated.user)

    with django(migrated) as opened:
        assert (ids(opened), ask(opened, "SHOW search_path")) == ([], "public, pg_temp")
    assert manage("dbstatus", url=migrated.url).returncode == 0


def test_a_run_that_waited_for_the_migration_lock_searches_no_schema_made_meanwhile(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(
        "DELETE FROM django_migrations WHERE app = 'engagement' AND name = (SELECT max(name) FROM django_migrations WHERE app = 'engagement')"
    )
    recorded = migrated.execute("SELECT count(*) FROM django_migrations")[0][0]
    with migrated.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        run = start_manage("migrate", "--fake", url=migrated.url)
        waits = run.stderr.readline()
        migrated.execute(f"CREATE SCHEMA {migrated.user} AUTHORIZATION {role}")
        sign_in_as(migrated, role, migrated.user)
    out, err = run.communicate(timeout=120)

    assert (waits.startswith("Waiting for the migration lock"), run.returncode, err) == (True, 0, ""), out
    assert migrated.execute("SELECT count(*) FROM public.django_migrations") == [(recorded + 1,)]
    assert migrated.execute(f"SELECT count(*) FROM {migrated.user}.django_migrations") == [(0,)]


def test_nothing_is_removed_where_another_schema_comes_first_in_the_path(migrated):
    migrated.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.price_history (LIKE public.price_history INCLUDING ALL)")
    migrated.execute(f"ALTER DATABASE {migrated.name} SET search_path TO theirs, public")
    options = {"archives": None, "deadline": time.monotonic() + 60, "progress": Progress()}

    with django(migrated) as opened, pytest.raises(Refusal) as refused:
        sweep(opened, RULES["price_history"], before=datetime.now(UTC) - timedelta(days=1), **options)

    assert str(refused.value) == (
        "Nothing was changed. theirs.price_history comes before public.price_history in the search path: remove its schema from the"
        " path, or name ours in POSTGRES_URL (?schema=)."
    )
