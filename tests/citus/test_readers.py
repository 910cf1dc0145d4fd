"""Sizes, retention, erasure and filter choices on a distributed database."""

import json
from dataclasses import replace

from tests.citus.test_migrate import run
from tests.conftest import manage
from tests.database.test_dbstatus_sql import psql

CHOICES = """
from engagement.models import UserActivity
from fly2any.administration.search import values_of
print(values_of(UserActivity, "event_type") == sorted({*UserActivity.objects.values_list("event_type", flat=True)}))
"""


def count(database, table, condition="true"):
    return database.execute(f"SELECT count(*) FROM {table} WHERE {condition}")[0][0]


def sampled(database, *values):
    """The number of columns of shards on all nodes whose planner's statistics hold one of the values."""
    condition = f"concat(most_common_vals::text, histogram_bounds::text) ~ '{'|'.join(values)}'"
    found = f"SELECT count(*) FROM pg_stats WHERE {condition}"
    return sum(int(number) for (number,) in database.execute("SELECT result FROM run_command_on_all_nodes(%s)", [found]))


def test_commands_read_and_remove_rows_in_shards(distributed):
    run(distributed, "dbseed", "--users", "60", "--yes", "--production")
    old = "timestamp < now() - interval '60 days'"
    before, kept = count(distributed, "price_history", old), count(distributed, "price_history", f"NOT {old}")

    for table in ("price_history", "users"):  # Rows of the seed's prepared transactions count twice until then.
        distributed.execute(f"ANALYZE {table}")
    [topic] = json.loads(run(distributed, "dbhealth", "tables", "--format", "json"))["topics"]
    rows = {one["label"].removesuffix(", rows"): one["value"] for one in topic["figures"]}
    assert (rows["price_history"], rows["users"]) == (before + kept, count(distributed, "users"))

    report = json.loads(run(distributed, "dbstatus", "--format", "json"))
    assert {name: report["engine"][name] for name in ("distributed", "reference")} == {"distributed": 10, "reference": 2}
    assert run(distributed, "shell", "-v0", "-c", CHOICES) == "True\n"

    manage("dbmaintain", "weekly", "--trust-clock", url=distributed.url, RETENTION="price_history=60,ai_conversations=60")
    assert before > 0
    assert (count(distributed, "price_history"), count(distributed, "price_history", old)) == (kept, 0)

    [(person, address)] = distributed.execute(
        'SELECT u.id, u.email FROM users AS u JOIN notifications AS n ON n."userId" = u.id WHERE NOT u."isStaff" LIMIT 1'
    )
    distributed.execute("ANALYZE")
    assert sampled(distributed, person, address) > 0
    erased = manage("dbperson", "erase", address, "--yes", url=distributed.url)
    assert (erased.returncode, json.loads(erased.stdout)["unsearched"]) == (0, []), erased.stderr
    assert sampled(distributed, person, address) == 0
    assert [count(distributed, table, f"\"userId\" = '{person}'") for table in ("notifications", "user_activities")] == [0, 0]
    assert count(distributed, "users", f"id = '{person}'") == 0


def test_the_roles_of_dbroles_work_on_each_node_and_see_no_false_finding(distributed):
    printed = manage("dbroles", "--prefix", distributed.name, url=distributed.url)
    assert psql(distributed, printed.stdout)[0] == 0
    distributed.execute(f"ALTER ROLE {distributed.name}_app LOGIN")
    app = replace(distributed, user=f"{distributed.name}_app")
    try:
        app.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now())")
        app.execute("INSERT INTO user_activities (id, \"userId\", \"eventType\") VALUES ('a', 'u', 'view')")
        status = manage("dbstatus", url=app.url)

        assert app.execute("SELECT count(*) FROM user_activities") == [(1,)]
        assert (status.returncode, "distribution." in status.stdout) == (0, False), status.stdout
    finally:
        names = [f"{distributed.name}_{end}" for end in ("app", "read", "migrate")]
        for statement in ("REASSIGN OWNED BY {} TO postgres", "DROP OWNED BY {}", "DROP ROLE {}"):
            for name in names:
                distributed.execute(statement.format(name))


def test_statistics_of_empty_shards_are_listed_with_a_statement_that_removes_them(distributed):
    person = "person-alone-7c1e"
    distributed.execute(f"INSERT INTO users (id, email, \"updatedAt\") VALUES ('{person}', 'alone@example.com', now())")
    distributed.execute(
        'INSERT INTO notifications (id, "userId", type, title, message)'
        f" SELECT 'n' || n, '{person}', 'a', 'b', 'c' FROM generate_series(1, 200) AS n"
    )
    distributed.execute("ANALYZE")
    assert sampled(distributed, person) > 0

    erased = manage("dbperson", "erase", "alone@example.com", "--yes", url=distributed.url)

    statement = 'ALTER TABLE "public"."notifications" ALTER COLUMN "userId" TYPE text'
    [left] = json.loads(erased.stdout)["remaining"]
    assert (erased.returncode, left["table"], left["column"], left["holds"]) == (4, "notifications", "userId", "statistics")
    assert left["reason"].endswith(f"this removes them: {statement}")
    distributed.execute(statement)
    assert sampled(distributed, person) == 0
