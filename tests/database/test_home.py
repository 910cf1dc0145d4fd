"""If another schema comes first in the search path, every command still uses the schema of the tables."""

import json

import pytest

from tests.conftest import manage


@pytest.fixture
def behind(migrated):
    migrated.execute(f"CREATE SCHEMA app; ALTER DATABASE {migrated.name} SET search_path TO app, public")
    migrated.execute(
        "INSERT INTO users (id, email, \"updatedAt\") SELECT i, i || '@x.de', now() FROM generate_series(1, 3) AS i;"
        "INSERT INTO verification_tokens (identifier, token, expires) VALUES ('1@x.de', 't', now());"
        "INSERT INTO user_activities (id, \"userId\", \"eventType\") VALUES ('a', '1', 'viewed');"
    )
    return migrated


def test_a_person_is_exported_and_erased_whole(behind):
    behind.execute("ANALYZE")  # As autovacuum may do: 1 is also the id of a row of other tables.
    exported = manage("dbperson", "export", "1@x.de", url=behind.url)
    erased = manage("dbperson", "erase", "1@x.de", "--yes", url=behind.url)

    held = {name: len(rows) for name, rows in json.loads(exported.stdout)["tables"].items() if rows}
    assert held == {"users": 1, "verification_tokens": 1, "user_activities": 1}
    assert (erased.returncode, json.loads(erased.stdout)["remaining"]) == (0, [])
    left = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM verification_tokens), (SELECT count(*) FROM user_activities)"
    assert behind.execute(left) == [(2, 0, 0)]


def test_a_person_in_a_table_of_another_schema_is_refused(behind):
    behind.execute("ALTER TABLE users SET SCHEMA app")

    erased = manage("dbperson", "erase", "1@x.de", "--yes", url=behind.url)

    assert (erased.returncode, erased.stderr) == (
        2,
        "The table users is not in the schema public, where our migrations are recorded: correct ?schema= in POSTGRES_URL.\n",
    )
    assert behind.execute("SELECT count(*) FROM users") == [(3,)]


def test_a_person_in_a_database_without_migrations_is_refused(database):
    shown = manage("dbperson", "export", "1@x.de", url=database.url)

    assert (shown.returncode, shown.stderr) == (
        2,
        "The table users is not in the schema public, and no migrations are recorded there: run `manage.py migrate`, or correct"
        " ?schema= in POSTGRES_URL.\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("made", ["TABLE app.{} (id int)", "VIEW app.{} AS SELECT 1", "SEQUENCE app.{}"])
def test_a_relation_that_hides_a_table_is_an_error(behind, made):
    def reported():
        found = json.loads(manage("dbstatus", "--format", "json", url=behind.url).stdout)["findings"]
        return [(one["severity"], one["message"], one["cure"]) for one in found if one["code"] == "server.schema"]

    cure = "Add ?schema=public to POSTGRES_URL"
    beside = "The tables are in the schema public, but new ones would be created in app, which comes first in the search path."
    behind.execute("CREATE TABLE app.legacy (id int); CREATE TABLE public.legacy (id int); CREATE TABLE app.flights (id int)")
    assert reported() == [("warning", beside, f"{cure}, or remove the schema app if nothing is in it.")]

    for name in ("users", "sessions", "users_groups", "ai_messages"):
        behind.execute(f"CREATE {made.format(name)}")
        if name == "users":
            message = "The tables are in the schema public, but app.users comes first in the search path: the site reads and writes there."
            assert reported() == [("error", message, f"{cure}.")]

    come = "app.ai_messages, app.sessions, app.users and 1 more come first in the search path: the site reads and writes there."
    assert reported() == [("error", f"The tables are in the schema public, but {come}", f"{cure}.")]
    assert manage("dbstatus", "--write-check", url=f"{behind.url}&schema=public").returncode == 0


@pytest.mark.parametrize("theirs", ["django_migrations", "django_migrations, auth_user"])
def test_the_ledger_of_another_project_before_ours_is_not_taken_for_ours(behind, theirs):
    behind.execute("CREATE TABLE app.django_migrations (LIKE public.django_migrations INCLUDING ALL)")
    if "," in theirs:
        behind.execute(
            "CREATE TABLE app.auth_user (id int); INSERT INTO app.django_migrations VALUES (1, 'auth', '0001_initial', now())"
        )

    status = manage("dbstatus", "--format", "json", url=behind.url)
    migrated = manage("migrate", url=behind.url)

    found = json.loads(status.stdout)
    assert [(one["severity"], one["code"]) for one in found["findings"]] == [("warning", "server.schema")]
    assert found["migrations"]["pending"] == []
    said = "Nothing was changed. app.django_migrations comes before public.django_migrations in the search path"
    assert (migrated.returncode, migrated.stdout, migrated.stderr.startswith(said)) == (2, "", True)
    assert behind.execute("SELECT to_regclass('app.users')") == [(None,)]


def test_health_maintenance_and_roles_cover_our_tables(behind):
    health = json.loads(manage("dbhealth", "tables", "--format", "json", url=behind.url).stdout)
    maintained = json.loads(manage("dbmaintain", "monthly", "--format", "json", url=behind.url).stdout)
    roles = manage("dbroles", url=behind.url).stdout

    [tables] = health["topics"]
    assert tables["figures"][0]["label"] == "tables"
    assert tables["figures"][0]["value"] > 18
    assert "users" in [*maintained["vacuumed"], *maintained["analysed"]]
    assert 'ALTER TABLE "public"."users" OWNER TO "fly2any_migrate";\n' in roles


@pytest.mark.slow
def test_it_is_ready(behind):
    question = "from django.test import Client; print(Client().get('/health/ready').content.decode())"

    answer = manage("shell", "-c", question, url=behind.url)

    assert json.loads(answer.stdout.splitlines()[-1]) == {"status": "ok", "database": "ok", "migrations": "ok"}


def test_the_first_page_shows_when_rows_were_added(behind):
    behind.execute(
        'INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "currentPrice", "targetPrice", "updatedAt", "createdAt")'
        " SELECT i, '1', 'AAA', 'BBB', now(), 1, 1, now(), now() - make_interval(hours => i) FROM generate_series(1, 100) AS i; ANALYZE price_alerts"
    )
    question = """
from fly2any.administration import dashboard
from travel.models import PriceAlert
print(len(dashboard._histograms({PriceAlert: "created_at"})["price_alerts"]))
"""

    assert manage("shell", "-c", question, url=behind.url).stdout.splitlines()[-1] == "100"


@pytest.mark.parametrize("place", ["ROLE {role} IN DATABASE {name}", "ROLE {role}", "DATABASE {name}"])
def test_a_search_path_that_leads_nowhere_is_reset_where_it_is_set(migrated, place):
    with migrated.role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}") as url:
        place = place.format(role=f"{migrated.name}_role", name=migrated.name)
        migrated.execute(f"ALTER {place} SET search_path = 'public, extensions'")

        [error] = schema_errors(url)
        elsewhere = schema_errors(f"{url}&schema=nowhere")
        migrated.execute(error["cure"].partition("or: ")[2])

        message = (
            f'No schema in the search path ("public, extensions", as ALTER {place} sets it) exists, so no table can be found.'
        )
        cure = f"Correct ?schema= in POSTGRES_URL, create the schema, or: ALTER {place} RESET search_path;"
        assert (error["message"], error["cure"]) == (message, cure)
        assert [one["message"] for one in elsewhere] == ["No schema in the search path exists, so no table can be found."]
        assert schema_errors(url) == []


def schema_errors(url):
    found = json.loads(manage("dbstatus", "--format", "json", url=url).stdout)["findings"]
    return [one for one in found if one["code"] == "server.schema"]
