"""dbdistribute on a cluster: its plan is carried out, resumed and reversed, and loses neither rows nor privileges."""

import json

from django.core.management import call_command

from fly2any.database.distribution import steps
from fly2any.database.distribution.plan import read_plan
from fly2any.database.facts import Placement
from fly2any.database.schema.contract import load
from tests.conftest import django, manage, start_manage
from tests.servers import open_transaction, wait_until

PLANNED = {one.table: one.placement for one in read_plan() if one.placement is not Placement.LOCAL}
KINDS = {("h", "s"): Placement.DISTRIBUTED, ("n", "t"): Placement.REFERENCE}
# Of all tables but the shards, whose names end with a number.
PRIVILEGES = """
    SELECT c.relname, a.attname, p.privilege_type, p.grantee::regrole::text
    FROM pg_class AS c
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attacl IS NOT NULL
    CROSS JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(a.attacl)) AS p
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'S') AND c.relname !~ '_[0-9]{6,}$' AND p.grantee <> c.relowner
    ORDER BY 1, 2, 3, 4
"""
SEQUENCES = """
    SELECT c.relname, a.attname, a.attidentity, pg_sequence_last_value(pg_get_serial_sequence(c.relname, a.attname)::regclass)
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND a.attidentity <> '' AND c.relname !~ '_[0-9]{6,}$' ORDER BY 1, 2
"""
# What the coordinator still has of tables whose rows are on other nodes: invisible rows, and their sampled values.
LEFT_HERE = """
    SELECT relname FROM pg_class WHERE relname = ANY (%s) AND pg_relation_size(oid) > 0
    UNION SELECT tablename FROM pg_stats WHERE tablename = ANY (%s) AND schemaname = 'public' ORDER BY 1
"""
PRICES = """
    INSERT INTO price_history (id, origin, destination, "departDate", price, provider)
    SELECT 'p' || n, 'JFK', repeat('x', 100), '2026-01-01', n, 'mock' FROM generate_series(1, %s) AS n
"""


def placed(database):
    """The tables that Citus spread over the nodes, each with its placement."""
    found = database.execute("SELECT logicalrelid::text, partmethod::text, repmodel::text FROM pg_dist_partition")
    return {table: KINDS[kind] for table, *letters in found if (kind := tuple(letters)) in KINDS}


def state(database):
    tables = sorted({version.object.table for version in load().versions})
    hashes = [database.execute(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t") for table in tables]
    return dict(zip(tables, hashes, strict=True)), database.execute(SEQUENCES), database.execute(PRIVILEGES)


def test_distributing_and_undoing_it_lose_no_row_no_value_of_a_sequence_and_no_privilege(cluster):
    role = f"{cluster.name}_app"
    cluster.execute(f"CREATE ROLE {role}")
    try:
        cluster.execute(f"""
            GRANT SELECT (id, email) ON users TO {role}; GRANT SELECT ON fly2any_notes, price_history TO {role};
            GRANT USAGE ON SEQUENCE fly2any_notes_id_seq TO {role}; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}
        """)
        assert manage("dbseed", "--users", "30", "--yes", "--production", url=cluster.url).returncode == 0
        before = state(cluster)

        done = manage("dbdistribute", "--yes", url=cluster.url)

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("\nAll tables are placed as planned.\n")
        assert placed(cluster) == PLANNED
        assert cluster.execute(LEFT_HERE, [[*PLANNED], [*PLANNED]]) == []
        assert state(cluster) == before
        assert manage("dbstatus", url=cluster.url).returncode == 0

        undone = manage("dbdistribute", "--undo", "--yes", url=cluster.url)

        assert (undone.returncode, undone.stderr) == (0, "")
        assert undone.stdout.endswith("\nAll tables are plain tables of this server again.\n")
        assert cluster.execute("SELECT count(*) FROM pg_dist_partition") == [(0,)]
        assert state(cluster) == before
        assert manage("dbstatus", url=cluster.url).returncode == 0
    finally:
        cluster.execute(f"DROP OWNED BY {role}")
        cluster.execute(f"DROP ROLE {role}")


def test_a_run_that_was_killed_is_resumed(cluster):
    cluster.execute(PRICES, [200_000])

    with open_transaction(cluster, "LOCK TABLE price_history IN ROW EXCLUSIVE MODE"):  # As an INSERT of the site does.
        killed = start_manage("dbdistribute", "--yes", url=cluster.url)
        wait_until(
            cluster, "SELECT 1 FROM pg_dist_partition WHERE logicalrelid = 'recent_searches'::regclass AND partmethod = 'h'"
        )
        killed.kill()
        killed.communicate()
    assert placed(cluster) != PLANNED

    resumed = manage("dbdistribute", "--yes", url=cluster.url)

    assert (resumed.returncode, placed(cluster)) == (0, PLANNED)
    assert cluster.execute("SELECT count(*), count(DISTINCT id) FROM price_history") == [(200_000, 200_000)]


def test_a_large_table_is_distributed_while_the_site_writes_to_it(cluster, server, monkeypatch):
    monkeypatch.setattr(steps, "ONLINE", 8 * 1024**2)
    cluster.execute(PRICES, [50_000])
    cluster.execute("ANALYZE")

    plan = json.loads(manage("dbdistribute", "--format", "json", url=cluster.url).stdout)
    with django(cluster) as connection:
        call_command("dbdistribute", "--yes", database=connection.alias)

    assert {one["table"]: one["rows"] for one in plan["tables"]}["price_history"] == 50_000
    assert placed(cluster) == PLANNED
    assert cluster.execute("SELECT count(*), count(DISTINCT id) FROM price_history") == [(50_000, 50_000)]


def test_a_lock_of_the_site_ends_the_run_with_one_sentence(cluster):
    with open_transaction(cluster, "LOCK TABLE users IN ROW EXCLUSIVE MODE"):
        refused = manage("dbdistribute", "--yes", "--lock-wait", "1", url=cluster.url)

    assert refused.returncode == 2
    assert "users was locked by other sessions for 1 s: run the command again when the database is less busy;" in refused.stderr
    assert placed(cluster) == {}


def test_what_citus_would_refuse_halfway_is_refused_before(cluster):
    cluster.execute("CREATE TABLE likes (id text REFERENCES price_history (id) ON DELETE CASCADE)")

    refused = manage("dbdistribute", "--yes", url=cluster.url)

    assert refused.returncode == 2
    assert refused.stderr == (
        "Citus cannot distribute our tables, because the foreign key likes_id_fkey of public.likes references public.price_history: drop it, then"
        " run the command again.\n"
    )
    assert placed(cluster) == {}


def test_a_schema_that_differs_is_refused(cluster):
    cluster.execute("ALTER TABLE users ALTER COLUMN bio SET NOT NULL")

    refused = manage("dbdistribute", url=cluster.url)

    assert refused.returncode == 2
    assert refused.stderr.startswith("The schema differs from the contract (column.different at users.bio): fix the findings")


def test_pending_migrations_are_refused(cluster):
    assert manage("migrate", "travel", "0004", url=cluster.url).returncode == 0

    refused = manage("dbdistribute", url=cluster.url)

    assert refused.stderr == "Migrations are pending: run `manage.py migrate`, then run the command again.\n"
    assert refused.returncode == 2
