import hashlib
from datetime import date

import pytest
from django.db import connection

from accounts.models import User
from fly2any.database.errors import Refusal
from fly2any.database.schema import contract as contracts
from fly2any.database.seed import DEMO_DOMAIN, seed
from tests.conftest import NO_SERVER, manage
from tests.servers import wait_until

TABLES = sorted(v.object.name for v in contracts.load().versions if v.is_phase7 and type(v.object).__name__ == "Table")
DAY = date(2026, 5, 1)


def content(table):
    """A hash of a table's rows, whatever their order."""
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT t::text FROM "{table}" AS t')
        return hashlib.sha256("\n".join(sorted(row[0] for row in cursor)).encode()).hexdigest()


def contents():
    return {table: content(table) for table in TABLES}


def rows(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


@pytest.mark.django_db
def test_all_18_tables_get_rows_and_a_second_run_adds_none():
    added = seed(connection, users=60, seed=1, until=DAY)
    first = contents()

    again = seed(connection, users=60, seed=1, until=DAY)

    assert sorted(added) == TABLES
    assert {table for table, number in added.items() if not number} == set()
    assert again == dict.fromkeys(again, 0)
    assert contents() == first


@pytest.mark.slow
@pytest.mark.django_db
def test_the_same_seed_gives_the_same_rows_and_another_seed_different_ones():
    seed(connection, users=40, seed=5, until=DAY)
    first = contents()
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")

    seed(connection, users=40, seed=5, until=DAY)
    assert contents() == first

    added = seed(connection, users=40, seed=6, until=DAY)
    assert added["users"] == 40


@pytest.mark.django_db
def test_a_manually_recreated_object_stays():
    seed(connection, users=20, seed=1, until=DAY)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE user_preferences SET id = 'mine'  WHERE id = (SELECT min(id) FROM user_preferences)")

    assert sum(seed(connection, users=20, seed=1, until=DAY).values()) == 0


@pytest.mark.django_db
def test_a_larger_number_of_users_adds_to_a_smaller_one():
    seed(connection, users=20, seed=1, until=DAY)

    assert seed(connection, users=30, seed=1, until=date(2026, 5, 2))["users"] == 10


@pytest.mark.django_db
def test_the_demo_data_is_realistic():
    seed(connection, users=300, seed=1, until=DAY)

    assert rows("SELECT count(*) FROM users WHERE id !~ '^c[0-9a-z]{24}$'") == [(0,)]
    assert (
        rows(
            "SELECT count(*) FROM ai_messages WHERE role = 'assistant' AND \"consultantName\" = 'Sarah Chen' AND \"consultantEmoji\" = '✈️'"
        )[0][0]
        > 0
    )
    assert rows('SELECT count(DISTINCT "consultantTeam") FROM ai_messages') == [(12,)]
    assert rows("SELECT count(*) FROM price_history WHERE origin = destination OR length(origin) <> 3 OR price <= 0") == [(0,)]
    assert rows("SELECT count(*) FROM price_monitor_logs WHERE errors IS NULL") == [(0,)]
    assert rows("SELECT count(*) FROM price_monitor_logs WHERE errors = 'null'")[0][0] > 0
    assert rows("SELECT count(*) FROM ai_messages WHERE content ~ '^v1:[0-9a-f]+:[0-9a-f]+:[0-9a-f]+$'")[0][0] > 0
    ((late, early),) = rows(
        """SELECT avg(price) FILTER (WHERE lead < 7), avg(price) FILTER (WHERE lead > 60)
           FROM (SELECT price, "departDate"::date - timestamp::date AS lead FROM price_history) AS p"""
    )
    assert late > 1.3 * early
    assert rows(f"SELECT count(*) FROM users WHERE \"createdAt\" > '{DAY}'") == [(0,)]


@pytest.mark.django_db
def test_seeding_beside_real_users_requires_yes():
    seed(connection, users=5, seed=1, until=DAY)
    User.objects.create_user("ana@example.com")
    before = contents()

    with pytest.raises(Refusal, match=r"^This database holds users who are not demo data, so nothing was added: give --yes "):
        seed(connection, users=10, seed=1, until=DAY)

    assert contents() == before
    assert seed(connection, users=10, seed=1, until=DAY, among_real_users=True)["users"] == 5


@pytest.mark.slow
def test_the_command_reports_what_it_added_and_shows_the_password_once(own_server):
    server = own_server(migrated=True)

    first = manage("dbseed", "--production", "--users", "10", "--admin", url=server.url())
    second = manage("dbseed", "--production", "--users", "10", "--admin", url=server.url())
    server.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('x', 'real@example.com', now())")
    third = manage("dbseed", "--production", "--users", "20", url=server.url())

    assert (first.returncode, first.stderr) == (0, "")
    assert "  users                         10 rows added\n" in first.stdout
    assert f"Sign in as admin{DEMO_DOMAIN} with the password " in first.stdout
    for role in ("support", "operations"):
        assert f"{role}{DEMO_DOMAIN} was created with the role {role}. New password: " in first.stdout
    assert second.stdout.endswith(
        "0 rows added in total.\n"
        + "".join(
            f"{role}{DEMO_DOMAIN} exists; `manage.py changepassword {role}{DEMO_DOMAIN}` sets another password.\n"
            for role in ("admin", "support", "operations")
        )
    )
    assert (third.returncode, third.stdout) == (2, "")
    assert third.stderr == (
        "This database holds users who are not demo data, so nothing was added: give --yes (make admin SEED=--yes) to add demo data anyway.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--users", "-1"],
        ["--users", "many"],
        ["--users", "1e9"],
        ["--until", "tomorrow"],
        ["--until", "2200-01-01"],
        ["--seed", "x"],
    ],
)
def test_a_wrong_option_exits_with_2_and_one_line(arguments):
    result = manage("dbseed", *arguments, url=NO_SERVER)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("manage.py dbseed: error: argument ")


@pytest.mark.parametrize("host", ["db.example.com", "localhost", "127.0.0.1"])
def test_production_is_seeded_only_if_it_is_named(host):
    result = manage("dbseed", url=f"postgresql://u:secret@{host}/fly2any")

    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        f"Database fly2any at {host} is in production (DEBUG is off):"
        " give --production to add demo data to it, or set DEBUG=true if it is a development database.\n",
    )


@pytest.mark.slow
def test_a_production_database_on_a_socket_stays_empty_without_the_option(migrated):
    refused = manage("dbseed", "--users", "1", url=migrated.url)
    rows = migrated.execute("SELECT count(*) FROM users")
    filled = manage("dbseed", "--users", "1", url=migrated.url, DEBUG="true")

    assert (refused.returncode, rows, filled.returncode) == (2, [(0,)], 0)


def test_the_statistics_count_each_row_once(migrated):
    result = manage("dbseed", "--production", "--users", "30", "--until", "2026-05-01", url=migrated.url)

    assert result.returncode == 0, result.stderr
    counted = migrated.execute("SELECT count(*) FROM notifications")
    wait_until(migrated, "SELECT 1 FROM pg_stat_user_tables WHERE relname = 'notifications' AND n_live_tup > 0")
    assert migrated.execute("SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'notifications'") == counted
