"""Schemas before ours in the search path: "$user" keeps the meaning that it had when a connection was opened."""

import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections

from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.database.retention.rules import RULES
from fly2any.database.retention.sweep import sweep
from tests.conftest import django
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


@pytest.mark.skipif(not shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"), reason="pgbouncer is not installed")
@pytest.mark.parametrize("mark", ["PgBouncer", ""])
def test_nor_is_it_behind_a_pooler_whose_next_client_gets_the_servers_own_path(
    own_server, tmp_path, django_db_setup, django_db_blocker, mark
):
    server = own_server()
    server.execute("CREATE TABLE price_history AS SELECT 'ours' AS id")
    one = PgBouncer(tmp_path, server.port, "transaction", size=1)
    place = {"NAME": "fly2any", "HOST": "127.0.0.1", "PORT": str(one.port), "USER": "postgres"}
    connections.databases["pooled"] = {**connection.settings_dict, **place, "POOLER": mark, "POOL": None, "DIRECT": None}
    try:
        with django_db_blocker.unblock():
            opened = connections["pooled"]
            opened.ensure_connection()
            server.execute("CREATE SCHEMA postgres; CREATE TABLE postgres.price_history AS SELECT 'theirs' AS id")
            found = ids(opened)
            opened.close()
        paths = server.execute("SELECT current_setting('search_path')")
    finally:
        one.remove()
        del connections["pooled"], connections.databases["pooled"]

    assert (found, paths) == (["ours"], [('"$user", public',)])


def test_nothing_is_removed_where_another_roles_table_comes_first_in_the_path(migrated, other_role_of):
    role = other_role_of(migrated)
    migrated.execute(f"ALTER DATABASE {migrated.name} SET search_path TO theirs, public")
    planted(migrated, role, "theirs")
    options = {"archives": None, "deadline": time.monotonic() + 60, "progress": Progress()}

    with django(migrated) as opened, pytest.raises(Refusal) as refused:
        sweep(opened, RULES["price_history"], before=datetime.now(UTC) - timedelta(days=1), **options)

    assert str(refused.value) == (
        "Nothing was changed. theirs.price_history comes before public.price_history in the search path: remove its schema from the"
        " path, or name ours in POSTGRES_URL (?schema=)."
    )
    assert migrated.execute("SELECT count(*) FROM theirs.price_history") == [(1,)]
