"""Queries of the statistics are planned again only where that runs no code of another role."""

import pytest

from fly2any.database.health.examine import Figure, Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django, start_server
from tests.database.test_dbhealth import of

pytestmark = pytest.mark.usefixtures("server")
CAUGHT = "FUNCTION {}.caught() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE WARNING 'ran as %', current_user; RETURN '7'; END $$"
# What a role has that owns the schema mal, what the current role ran, and why this is not planned again.
NOT_PLANNED = {
    "a function in its schema": ("", "SELECT name FROM users WHERE id = mal.caught()", "it names the schema mal"),
    "its table": ("CREATE TABLE mal.users (id text)", "SELECT name FROM users JOIN mal . users AS m USING (id)", "it names the schema mal"),
    "a function in ours": (
        "RESET ROLE; GRANT CREATE ON SCHEMA public TO other; SET ROLE other; CREATE " + CAUGHT.format("public"),
        "SELECT name FROM users WHERE id = caught()", "the role other may create objects in the schema public",
    ),
    "a function in ours, once": (
        "ALTER FUNCTION mal.caught() RENAME TO once; RESET ROLE; ALTER FUNCTION mal.once() SET SCHEMA public",
        "SELECT name FROM users WHERE id = once()", "function public.once() belongs to the role other",
    ),
    "an index of ours": (
        "RESET ROLE; CREATE INDEX made ON users (name) WHERE mal.caught() = '7'", "SELECT name FROM users", "index public.made uses code of the role other",
    ),
    "a view of ours": (
        "CREATE TABLE mal.t (id text); RESET ROLE; CREATE VIEW v AS SELECT id FROM mal.t", "SELECT name FROM users JOIN v USING (id)",
        "table mal.t belongs to the role other",
    ),
    "an inheriting table": (
        "RESET ROLE; CREATE TABLE mal.more () INHERITS (users); ALTER TABLE mal.more OWNER TO other", "SELECT name FROM users",
        "table mal.more belongs to the role other",
    ),
    "its type": (
        "CREATE TYPE mal.kind AS ENUM ('k'); RESET ROLE; ALTER TABLE users ADD kind mal.kind", "SELECT name FROM users", "type mal.kind belongs to the role other",
    ),
    "a comment": ("", "SELECT name FROM users WHERE id = mal/**/.caught()", "it has a comment or an escaped name"),
    "the comment that stands for more values": ("", "SELECT name FROM users WHERE id = mal/*, ... */.caught()", "it names the schema mal"),
}  # fmt: skip


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("counting"), shared_preload_libraries="pg_stat_statements")
    server.execute(
        "CREATE EXTENSION pg_stat_statements; CREATE ROLE other; CREATE TABLE users (id text PRIMARY KEY, name text)"
    )
    yield server
    server.remove()


@pytest.mark.parametrize("case", NOT_PLANNED)
def test_a_query_that_could_run_code_of_another_role_is_not_planned(counting, case):
    made, query, reason = NOT_PLANNED[case]
    counting.execute("CREATE SCHEMA mal AUTHORIZATION other")
    try:
        counting.execute(f"SET ROLE other; CREATE {CAUGHT.format('mal')}; {made}")
        with of(counting).connect() as client:
            client.execute("SELECT pg_stat_statements_reset()")
            client.execute(query)
        with django(of(counting)) as connection:
            connection.ensure_connection()
            said = []
            connection.connection.add_notice_handler(lambda diag: said.append(diag.message_primary))
            figures = [one.text for one in TOPICS["queries"](Reader(connection, "public"), shown=50) if isinstance(one, Figure)]
            is_planned = connection.pg_version >= 160000
    finally:
        counting.execute("DROP OWNED BY other CASCADE; REVOKE CREATE ON SCHEMA public FROM other; DROP VIEW IF EXISTS v")

    wanted = f"on accounts.User, not planned, because {reason}" if is_planned else "on accounts.User"
    assert ([text for text in figures if text.endswith(wanted)] != [], said) == (True, [])


def test_a_list_of_values_is_planned(counting):
    counting.execute("INSERT INTO users SELECT i, i FROM generate_series(1, 10000) AS i")
    counting.execute("ANALYZE users")
    with of(counting).connect() as client:
        client.execute("SELECT pg_stat_statements_reset()")
        client.execute("SELECT name FROM users WHERE id IN ('1', '2', '3') AND name = ANY (ARRAY['a', 'b', 'c'])")
    with django(of(counting)) as connection:
        connection.ensure_connection()
        figures = [one.text for one in TOPICS["queries"](Reader(connection, "public"), shown=50) if isinstance(one, Figure)]
        planned = ", by users_pkey" * (connection.pg_version >= 160000)

    assert [text.partition("on accounts.User")[2] for text in figures if "accounts.User" in text] == [planned]
