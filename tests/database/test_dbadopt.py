"""Adoption of databases that Prisma made, by the command, on a real server."""

import contextlib
import json
import re

import psycopg
import pytest

from fly2any.database.adoption import adopt, assess
from fly2any.database.adoption.steps import LOCKS, lock_of
from fly2any.database.progress import Progress
from fly2any.database.schema import contract as contracts
from tests import prisma
from tests.conftest import PROJECT, django, manage
from tests.database.sites import KINDS, OURS, adopted, catalog, contents, everything, files, is_as_migrated, plan

GUIDE = PROJECT / "docs" / "reference" / "dbadopt.md"


@pytest.mark.slow
def test_a_plan_changes_nothing(site):
    before = everything(site)

    text = manage("dbadopt", url=site.url)
    report = plan(site)

    assert (text.returncode, text.stderr) == (0, "")
    assert report["kind"] == ("superset" if before[0].where(lambda thing: thing.table == "trip_0").tables else "exact")
    assert everything(site) == before


def test_an_adopted_database_equals_a_migrated_one_and_no_row_or_file_changes(site):
    before = everything(site)
    kept = files(site)

    out = adopted(site)

    assert "npx prisma db pull" in out
    assert is_as_migrated(site)
    assert contents(site) == before[1]
    assert files(site) == kept
    unmanaged = catalog(site).where(lambda thing: thing.table not in OURS)
    assert unmanaged == before[0].where(lambda thing: thing.table not in OURS)
    assert manage("migrate", "--check", url=site.url).returncode == 0
    assert manage("dbstatus", "--write-check", url=site.url).returncode == 0
    assert plan(site)["kind"] == "ours"
    assert site.execute("SELECT migration, direction FROM fly2any_migration_runs WHERE direction = 'adopted' ORDER BY id") == [
        (f"{app}.0001_initial", "adopted") for app in contracts.PHASE7_APPS
    ]


@pytest.mark.slow
def test_an_adopted_database_migrates_further_and_back_like_a_fresh_one(exact):
    adopted(exact)

    assert manage("migrate", "travel", "0001", "--yes", "--without-backup", url=exact.url).returncode == 0
    assert manage("dbstatus", url=exact.url).returncode == 1
    assert manage("migrate", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_a_large_table_is_not_rewritten(database):
    database.execute(KINDS["exact"])
    database.execute(prisma.fill("price_history", 200_000))
    before = contents(database), files(database)
    (size,) = database.execute("""SELECT pg_relation_size('"price_history_timestamp_idx"')""")[0]
    step, _ = (step for step in plan(database)["steps"] if step["table"] == "price_history")
    assert size <= step["index_bytes"]

    adopted(database)

    assert (contents(database), files(database)) == before
    assert is_as_migrated(database)


@pytest.mark.slow
def test_the_locks_of_the_plan_are_those_that_are_taken(site):
    held = """
        SELECT c.relname::text, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    """
    with django(site) as opened:
        steps = assess(opened).steps
    assert len(steps) >= 23
    with site.connect() as client:
        for step in steps:
            for statements in step.transactions:
                if " CONCURRENTLY " in statements[0]:
                    client.execute(statements[0])
                    continue
                client.execute("BEGIN")
                for statement in statements:
                    client.execute(statement)
                strongest = {}
                for table, mode in client.execute(held).fetchall():
                    if mode not in ("AccessShareLock", "RowShareLock"):
                        lock = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
                        strongest[table] = max(strongest.get(table, ""), lock, key=LOCKS.index)
                client.execute("COMMIT")

                assert strongest == {step.table: max(map(lock_of, statements), key=LOCKS.index)}, statements


@pytest.mark.parametrize(("made", "kind"), [("", "empty"), ("CREATE TABLE theirs (id int)", "empty")])
def test_without_our_tables_there_is_nothing_to_adopt(database, made, kind):
    if made:
        database.execute(made)

    result = manage("dbadopt", "--yes", url=database.url)

    assert plan(database)["kind"] == kind
    assert (result.returncode, result.stderr) == (0, "")
    assert "nothing to adopt; run `manage.py migrate`" in result.stdout
    assert database.execute("SELECT to_regclass('django_migrations')") == [(None,)]


@pytest.mark.slow
def test_a_role_without_ownership_is_refused_and_changes_nothing(exact):
    exact.execute(f"DROP ROLE IF EXISTS {exact.name}_reader")
    exact.execute(f"CREATE ROLE {exact.name}_reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {exact.name}_reader")
    url = exact.url.replace(f"//{exact.user}@", f"//{exact.name}_reader@")
    try:
        result = manage("dbadopt", "--yes", url=url)
        assert (result.returncode, result.stderr) == (4, "")
        assert "adopt.not_owner at fresh_" in result.stdout
        assert f"does not own 18 of the tables: accounts, for example, belongs to {exact.user}." in result.stdout
        assert exact.execute("SELECT to_regclass('django_migrations')") == [(None,)]
    finally:
        exact.execute(f"DROP OWNED BY {exact.name}_reader; DROP ROLE {exact.name}_reader")


@pytest.mark.slow
@pytest.mark.parametrize("end_idle", [False, True])
def test_a_client_with_prepared_statements_fails_until_its_connection_is_ended(exact, end_idle):
    """psycopg does not prepare again; its pool checks a connection before use."""
    from psycopg_pool import ConnectionPool

    statements = [f"SELECT * FROM {table}" for table in ("users", "notifications", "price_history")]
    options = {"prepare_threshold": 0, "autocommit": True, "application_name": "the site"}
    errors = []
    url = exact.url
    with ConnectionPool(url, kwargs=options, min_size=1, max_size=1, check=ConnectionPool.check_connection) as pool:

        def ask():
            for statement in statements:
                with pool.connection() as client:
                    try:
                        client.execute(statement)
                    except psycopg.Error as error:
                        errors.append((statement, error.diag.message_primary))

        ask()
        ask()
        assert manage("dbadopt", "--yes", *(["--end-idle"] if end_idle else []), url=exact.url).returncode == 0
        ask()
        ask()

    expected = [] if end_idle else [(statement, "cached plan must not change result type") for statement in statements] * 2
    assert errors == expected


@pytest.mark.slow
def test_idle_connections_are_ended_once_after_the_last_step_that_changes_a_type(exact):
    clients, ended, said = [], [], []

    def done(step, seconds):
        """Looks whether the client that was there since the step before was ended after that."""
        if clients:
            before, client = clients[-1]
            with contextlib.suppress(psycopg.OperationalError), client:
                client.execute("SELECT 1")
                ended.append((before, False))
            if client.broken:
                ended.append((before, True))
        clients.append((step, exact.connect(application_name="the site")))

    progress = Progress()
    progress.say = said.append
    with django(exact) as opened:
        assessment = adopt(opened.alias, patience=60, progress=progress, repair=False, end_idle=True, done=done)
    clients[-1][1].close()

    retyped = [step for step in assessment.steps if any(" TYPE " in statement for statement in step.statements)]
    assert [step for step, was in ended if was] == retyped[-1:]
    assert (len(ended), len(retyped)) == (len(assessment.steps) - 1, 17)
    (number,) = re.fullmatch(r"Ended (\d+) idle connections? of other clients\.", "\n".join(said)).groups()
    assert int(number) in (1, 2)  # One that this test has just closed may still be there.


ROLLED_BACK = """
    INSERT INTO _prisma_migrations (id, checksum, finished_at, rolled_back_at, migration_name)
    VALUES ('z', 'z', now(), now(), '2027_rolled_back')
"""


@pytest.mark.slow
def test_a_prisma_migration_that_finished_and_was_rolled_back_is_not_applied(exact):
    exact.execute(ROLLED_BACK)

    report, text = plan(exact), manage("dbadopt", url=exact.url).stdout
    adopted(exact)
    exact.execute(ROLLED_BACK.replace("'z'", "'y'"))
    exact.execute('DROP INDEX "notifications_userId_createdAt_idx"')
    status = json.loads(manage("dbstatus", "--format", "json", url=exact.url).stdout)

    assert [(m["name"], m["applied"], m["failed"]) for m in report["prisma"]] == [
        (prisma.MIGRATION, True, False),
        ("2027_rolled_back", False, False),
    ]
    assert f"  Prisma's ledger: 1 applied, the last {prisma.MIGRATION}.\n" in text
    assert [finding["code"] for finding in status["findings"]] == ["index.missing"]


@pytest.mark.parametrize("mended", [True, False])
def test_json_has_the_documented_shape(exact, mended):
    exact.execute('DROP INDEX "price_alerts_active_idx"')
    if not mended:
        exact.execute("ALTER TABLE users ALTER email DROP NOT NULL; UPDATE users SET email = NULL WHERE id = 'users 9'")

    report = plan(exact)

    shown = json.loads(re.search(r"```json\n(.*?)```", GUIDE.read_text(), re.S)[1])
    assert report.keys() == shown.keys()
    for name in ("steps", "blockers", "prisma", "migrations"):
        assert report[name][0].keys() == shown[name][0].keys()


@pytest.mark.slow
def test_drops_by_prisma_after_the_adoption_are_attributed_to_it(exact):
    adopted(exact)
    ran = "INSERT INTO _prisma_migrations (id, checksum, finished_at, migration_name) VALUES ('z', 'z', now(), '2027_more')"
    exact.execute(ran)
    assert manage("dbstatus", url=exact.url).returncode == 0
    exact.execute('DROP INDEX "notifications_userId_createdAt_idx"')

    report = json.loads(manage("dbstatus", "--format", "json", url=exact.url).stdout)

    assert [(finding["code"], finding["where"]) for finding in report["findings"]] == [
        ("migrations.by_prisma", "2027_more"),
        ("index.missing", "notifications.notifications_userId_createdAt_idx"),
    ]


@pytest.mark.slow
def test_it_adopts_the_schema_that_the_url_names(database):
    database.execute('CREATE SCHEMA "My site"; SET search_path TO "My site"; ' + KINDS["exact"])
    url = f"{database.url}&schema=My%20site"

    assert manage("dbadopt", "--yes", url=url).returncode == 0
    assert manage("dbstatus", url=url).returncode == 0
    assert database.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]


def test_only_a_missing_schema_is_reported(exact):
    for command in (("dbadopt",), ("dbadopt", "--yes"), ("dbhealth",), ("dbroles",)):
        result = manage(*command, url=f"{exact.url}&schema=nowhere")
        assert (result.returncode, result.stdout, result.stderr) == (
            2,
            "",
            "The search path names no schema that exists: correct ?schema= in POSTGRES_URL, or create the schema.\n",
        ), command
