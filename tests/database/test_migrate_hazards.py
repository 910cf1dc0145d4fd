"""Hazards for a run of `migrate` from migrations and servers, each of which ends in one sentence."""

import re
import time

import pytest
from django.conf import settings

from tests.conftest import manage, start_manage
from tests.servers import open_transaction, wait_until


@pytest.mark.slow
def test_pg_trgm_may_be_in_a_schema_outside_the_search_path(database):
    database.execute("CREATE SCHEMA extensions; CREATE EXTENSION pg_trgm SCHEMA extensions")
    url = f"{database.url}&schema=public" if "?" in database.url else f"{database.url}?schema=public"

    migrated = manage("migrate", url=url)

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert manage("dbstatus", url=url).returncode == 0
    assert manage("dbreset", "--yes", "--without-backup", url=url).returncode == 0
    assert manage("migrate", url=url).returncode == 0


@pytest.mark.slow
def test_a_run_stays_in_the_requested_schema(migrated):
    """Also where pg_trgm, which a run must find, is in another that has tables of ours."""
    migrated.execute("INSERT INTO users (id, email, \"updatedAt\") VALUES ('1', 'p@x.de', now()); CREATE SCHEMA b")
    url = f"{migrated.url}&schema=b"

    reset = manage("dbreset", "--yes", url=url)
    gone = manage("migrate", url=f"{migrated.url}&schema=typo")
    built = manage("migrate", url=url)

    assert (reset.returncode, reset.stdout) == (0, "None of our migrations is recorded here: there is nothing to reset.\n")
    assert (gone.returncode, gone.stderr.startswith("The search path names no schema that exists")) == (2, True)
    assert (built.returncode, built.stderr) == (0, "")
    tables = "SELECT count(*) FILTER (WHERE schemaname = 'public') - count(*) FILTER (WHERE schemaname = 'b') FROM pg_tables"
    assert migrated.execute(tables) == [(0,)]
    assert migrated.execute("SELECT id FROM public.users") == [("1",)]
    assert manage("dbstatus", url=url).returncode == 0


@pytest.mark.slow
def test_a_transaction_that_a_migration_began_itself_says_how_long_it_really_waited(migrated, probe):
    inner = "RunPython(lambda apps, editor: editor.execute('ALTER TABLE users ADD COLUMN probe int'), atomic=True)"
    environment = probe(inner, atomic=False)
    with open_transaction(migrated, "SELECT FROM users"):
        result = manage("migrate", "--lock-wait", "60", url=migrated.url, **environment)

    assert result.returncode == 2
    assert re.search(r" did not get a lock within 4\d\d ms, because of pid ", result.stderr)


@pytest.mark.slow
def test_a_prepared_transaction_that_blocks_is_named(own_server, probe):
    server = own_server(migrated=True, max_prepared_transactions="2")
    server.execute("BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'it''s forgotten'")
    server.execute("BEGIN; LOCK TABLE sessions IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'of another table'")
    environment = probe("RunSQL('ALTER TABLE users ADD COLUMN probe int')")

    result = manage("migrate", "--lock-wait", "1", url=server.url(), **environment)

    assert (result.returncode, result.stderr.splitlines()[-1].partition(", because of ")[2]) == (
        2,
        "the prepared transaction it's forgotten: run the command again when that transaction has ended, or end it: ROLLBACK"
        " PREPARED 'it''s forgotten' or COMMIT PREPARED 'it''s forgotten', after asking its owner.",
    )


@pytest.mark.slow
@pytest.mark.parametrize("comment", ["/* list of\nsessions */ ", "-- a list\n  "], ids=["block", "line"])
def test_a_comment_before_a_concurrent_build_changes_nothing(migrated, probe, comment):
    environment = probe(
        f"RunSQL({comment + 'CREATE INDEX CONCURRENTLY IF NOT EXISTS zz_idx ON sessions (expires)'!r})", atomic=False
    )
    with open_transaction(migrated, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users"):
        process = start_manage("migrate", url=migrated.url, **environment)
        wait_until(
            migrated,
            "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%%'",
        )
        time.sleep(settings.LOCK_TIMEOUT / 1000 + 1)
    _, err = process.communicate(timeout=60)

    assert (process.returncode, err.count("\n")) == (0, 1), err  # The session that it waited for.
    assert migrated.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'zz_idx'::regclass") == [(True,)]


@pytest.mark.slow
def test_settings_of_a_migration_end_with_it(migrated, probe):
    probe("RunSQL('SET lock_timeout = 0')")
    environment = probe("RunSQL('ALTER TABLE users ADD COLUMN probe int')")
    with open_transaction(migrated, "SELECT FROM users"):
        begun = time.monotonic()
        result = manage("migrate", "--lock-wait", "1", url=migrated.url, **environment)
        took = time.monotonic() - begun

    assert (result.returncode, re.search(r"did not get a lock within \d+ m?s", result.stderr) is not None) == (2, True)
    assert took < 30


@pytest.mark.slow
def test_a_migration_that_releases_the_lock_ends_the_run(migrated, probe):
    probe("RunSQL('DISCARD ALL')", atomic=False)
    environment = probe("RunSQL('CREATE TABLE probe_two ()')")

    result = manage("migrate", url=migrated.url, **environment)

    assert (result.returncode, result.stderr) == (
        2,
        "A migration released the migration lock (it runs DISCARD ALL or pg_advisory_unlock_all), so another run may have begun:"
        " remove that statement, and run the command again.\n",
    )
    assert migrated.execute("SELECT to_regclass('probe_two')") == [(None,)]


@pytest.mark.slow
def test_a_half_applied_migration_that_is_not_atomic_is_reported_with_its_cure(migrated, probe):
    environment = probe("RunSQL('CREATE TABLE probe_one ()'), migrations.RunPython(lambda apps, editor: 1 / 0)", atomic=False)
    first = manage("migrate", url=migrated.url, **environment)
    second = manage("migrate", url=migrated.url, **environment)

    assert first.returncode == 1
    assert second.returncode == 2
    assert re.fullmatch(
        r"probe\.(\w+) is not atomic, and an object that it creates already exists \(relation \"probe_one\" already exists\), perhaps from an"
        r" interrupted run: drop the object and run the command again, or, if everything the migration creates exists, run `manage\.py migrate --fake probe \1`\.\n",
        second.stderr,
    )


@pytest.mark.slow
def test_a_role_with_idle_timeouts_can_migrate(own_server, probe):
    server = own_server()
    server.execute(
        "ALTER ROLE postgres SET idle_in_transaction_session_timeout = '500ms'; ALTER ROLE postgres SET idle_session_timeout = '500ms'"
    )
    environment = probe("RunPython(lambda apps, editor: time.sleep(1.5))")

    result = manage("migrate", url=server.url(), **environment)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_a_change_of_a_model_is_retried_as_a_whole_and_reported_once(migrated, probe):
    environment = probe("migrations.CreateModel('thing', [('id', models.BigAutoField(primary_key=True))])")
    assert manage("migrate", url=migrated.url, **environment).returncode == 0
    probe("migrations.AddField('thing', 'probe', models.IntegerField(null=True))")
    with open_transaction(migrated, "SELECT FROM probe_thing"):
        process = start_manage("migrate", url=migrated.url, **environment)
        wait_until(
            migrated,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%probe%%' AND datname = current_database()",
        )
        time.sleep(settings.LOCK_TIMEOUT / 1000 + 1)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out.count("Applying ")) == (0, 1), err
    assert "retrying in " in err


@pytest.mark.slow
def test_a_lost_record_is_rewritten(migrated):
    migrated.execute("DELETE FROM django_migrations")
    said = "All tables match our migrations, but none is recorded: the rows of django_migrations are lost."

    answers = [manage(*words, url=migrated.url) for words in (["migrate"], ["dbadopt"], ["dbadopt", "--yes"])]
    faked = manage("migrate", "--fake", url=migrated.url)

    assert [(answer.returncode, answer.stderr.startswith(said)) for answer in answers] == [(2, True)] * 3
    assert (faked.returncode, manage("dbstatus", url=migrated.url).returncode) == (0, 0)


def test_a_record_that_this_role_may_not_read_is_not_called_lost(migrated):
    with migrated.role(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", "REVOKE ALL ON django_migrations FROM {role}"
    ) as url:
        plan = manage("dbadopt", url=url)

    assert "are lost" not in plan.stderr + plan.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("RunPython(lambda apps, editor: None)", "is not reversible: make it reversible"),
        ("RunSQL('SELECT 1')", "is not reversible: make it reversible"),
    ],
)
def test_an_irreversible_migration_is_reported_in_one_sentence(migrated, probe, operation, said):
    environment = probe(operation)
    assert manage("migrate", url=migrated.url, **environment).returncode == 0

    result = manage("migrate", "probe", "zero", url=migrated.url, **environment)

    assert (result.returncode, said in result.stderr, result.stderr.count("\n")) == (2, True, 1)
