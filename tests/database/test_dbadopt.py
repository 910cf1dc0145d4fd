"""Adoption of databases that Prisma made, by the command, on a real server."""

import contextlib
import json
import re

import psycopg
import pytest

from fly2any.database import contract as contracts
from fly2any.database.adoption import adopt, assess
from fly2any.database.adoption.steps import LOCKS, lock_of
from fly2any.database.watching import Progress
from tests import prisma
from tests.conftest import PROJECT, django, manage, start_manage
from tests.database.sites import KINDS, OURS, adopted, catalog, contents, everything, files, fill, is_as_migrated, plan
from tests.servers import open_transaction, wait_until

GUIDE = PROJECT / "docs" / "reference" / "dbadopt.md"


def test_a_plan_changes_nothing(site):
    before = everything(site)

    text = manage("dbadopt", url=site.url)
    report = plan(site)

    assert (text.returncode, text.stderr) == (0, "")
    assert report["kind"] == ("superset" if before[0].where(lambda thing: thing.table == "trip_0").tables else "exact")
    assert everything(site) == before


def test_an_adopted_database_is_as_a_migrated_one_and_no_row_or_file_changed(site):
    before = everything(site)
    kept = files(site)

    out = adopted(site)

    assert "npx prisma db pull" in out
    assert is_as_migrated(site)
    assert contents(site) == before[1]
    assert files(site) == kept
    foreign = catalog(site).where(lambda thing: thing.table not in OURS)
    assert foreign == before[0].where(lambda thing: thing.table not in OURS)
    assert manage("migrate", "--check", url=site.url).returncode == 0
    assert manage("dbstatus", "--write-check", url=site.url).returncode == 0
    assert plan(site)["kind"] == "ours"
    assert site.execute("SELECT migration, direction FROM fly2any_migration_runs WHERE direction = 'adopted' ORDER BY id") == [
        (f"{app}.0001_initial", "adopted") for app in contracts.PHASE7_APPS
    ]


def test_an_adopted_database_migrates_further_and_back_like_a_fresh_one(exact):
    adopted(exact)

    assert manage("migrate", "travel", "0001", "--yes", "--without-backup", url=exact.url).returncode == 0
    assert manage("dbstatus", url=exact.url).returncode == 1
    assert manage("migrate", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_times_mean_the_same_instants_in_a_database_of_another_time_zone(exact, zone):
    before = contents(exact), files(exact)
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO '{zone}'")

    refused = manage("dbadopt", "--yes", "--repair", url=exact.url)
    [blocker] = plan(exact)["blockers"]
    exact.execute(blocker["cure"])
    result = manage("dbadopt", "--yes", url=exact.url)

    assert (refused.returncode, blocker["code"], blocker["where"]) == (4, "server.time_zone", exact.name)
    assert result.returncode == 0
    assert (contents(exact), files(exact)) == before
    assert manage("dbstatus", url=exact.url).returncode == 0


WRITES = "GRANT INSERT ON users TO {role}"
KOLKATA = "ALTER ROLE {role} SET timezone TO 'Asia/Kolkata'"


@pytest.mark.parametrize(
    ("grants", "blocked"),
    [
        ((WRITES, KOLKATA), True),
        ((WRITES, "ALTER ROLE {role} IN DATABASE {name} SET timezone TO 'Asia/Kolkata'"), True),
        ((WRITES, KOLKATA, "ALTER ROLE {role} IN DATABASE {name} SET timezone TO 'UTC'"), False),
        ((WRITES, KOLKATA, "ALTER ROLE {role} NOLOGIN"), False),
        ((KOLKATA,), False),
    ],
)
def test_the_time_zone_of_the_sites_role_is_looked_at_too(exact, grants, blocked):
    with exact.role(*(grant.replace("{name}", exact.name) for grant in grants)):
        found = plan(exact)["blockers"]
        for blocker in found:
            exact.execute(blocker["cure"])
        cured = plan(exact)

    assert [(blocker["code"], blocker["where"]) for blocker in found] == [("server.time_zone", f"{exact.name}_role")] * blocked
    assert cured["kind"] == "exact"


def test_the_databases_time_zone_is_seen_by_a_role_that_has_its_own(exact):
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO 'America/New_York'")
    with exact.role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}", "ALTER ROLE {role} SET timezone TO 'UTC'") as url:
        codes = [(blocker["code"], blocker["where"]) for blocker in plan(exact, url)["blockers"]]

    assert ("server.time_zone", exact.name) in codes


def test_a_million_rows_are_not_rewritten(database):
    database.execute(KINDS["exact"])
    database.execute(prisma.fill("price_history", 1_000_000))
    before = contents(database), files(database)
    (size,) = database.execute("""SELECT pg_relation_size('"price_history_timestamp_idx"')""")[0]
    step, _ = (step for step in plan(database)["steps"] if step["table"] == "price_history")
    assert size <= step["index_bytes"]

    adopted(database)

    assert (contents(database), files(database)) == before
    assert is_as_migrated(database)


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


@pytest.mark.parametrize("table", ["accounts", "notifications", "users", "verification_tokens", "wishlist_items"])
def test_killed_while_it_waits_for_a_table_the_site_works_and_a_second_run_goes_on(exact, table):
    before = contents(exact)
    with open_transaction(exact, f"SELECT FROM {table}"):
        process = start_manage("dbadopt", "--yes", url=exact.url)
        wait_until(
            exact,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE %s",
            [f'ALTER TABLE "{table}"%'],
        )
        process.kill()
        process.communicate()
    assert contents(exact) == before
    exact.execute(
        "BEGIN; " + "".join(prisma.fill(name, 1, first=10_001) for name in ("users", table) if table != "users") + "ROLLBACK"
    )
    assert manage("migrate", url=exact.url).returncode == 2

    adopted(exact)

    assert contents(exact) == before
    assert is_as_migrated(exact)


def test_killed_in_the_middle_of_a_concurrent_build_a_second_run_goes_on(exact):
    before = contents(exact)
    invalid = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('verification_tokens_pkey') AND NOT indisvalid"
    with open_transaction(exact, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM push_subscriptions LIMIT 0"):
        # An old snapshot, though of a table that this run has passed.
        process = start_manage("dbadopt", "--yes", "--lock-wait", "60", url=exact.url)
        wait_until(
            exact,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE %s",
            ['ALTER TABLE "push%'],
        )
    with open_transaction(exact, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1"):
        (builder,) = wait_until(exact, "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()")
        wait_until(exact, invalid)
        process.kill()
        process.communicate()
        exact.execute("SELECT pg_terminate_backend(%s, 10000)", [builder])
    assert exact.execute(invalid) == [(1,)]

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 0
    assert (
        result.stderr == "The index verification_tokens_pkey was left invalid by an earlier build: dropped, and built anew.\n"
    )
    assert contents(exact) == before
    assert is_as_migrated(exact)


MAY_BE_NULL = 'ALTER TABLE wishlist_items ALTER "flightData" DROP NOT NULL'
IS_NOT_NULL = """SELECT attnotnull FROM pg_attribute WHERE attrelid = 'wishlist_items'::regclass AND attname = 'flightData'"""


def test_where_the_site_stores_hotels_too_flight_data_stays_nullable_and_is_no_drift(database):
    fill(database, KINDS["superset"])
    hotel = """
        INSERT INTO wishlist_items (id, "userId", "productType", "hotelData", "updatedAt")
        VALUES (%s, 'users 1', 'hotel', '{}', now())
    """

    notes = plan(database)["notes"]
    adopted(database)
    database.execute(hotel, ["hotel 1"])
    status = json.loads(manage("dbstatus", "--write-check", "--format", "json", url=database.url).stdout)

    assert notes == ["wishlist_items.flightData stays nullable: the table has productType, so the site stores rows without it."]
    assert (database.execute(IS_NOT_NULL), status["exit_code"], status["findings"]) == ([(False,)], 0, [])
    assert [(g["columns"]["found"], g["columns"]["expected"]) for g in status["groups"] if g["name"] == "Phase 7 in all"] == [
        (188, 188)
    ]


def test_flight_data_that_an_earlier_adoption_made_not_null_is_noted_with_its_cure(database):
    fill(database, KINDS["superset"])
    database.execute('ALTER TABLE wishlist_items ALTER "flightData" SET NOT NULL')
    adopted(database)

    found = json.loads(manage("dbstatus", "--format", "json", url=database.url).stdout)["findings"]
    database.execute(found[0]["cure"])

    assert [(f["severity"], f["code"], f["where"]) for f in found] == [
        ("note", "column.different", "wishlist_items.flightData")
    ]
    assert database.execute(IS_NOT_NULL) == [(False,)]


def test_nulls_in_flight_data_stay_and_are_said(exact):
    exact.execute(MAY_BE_NULL)
    exact.execute("""UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 7'""")

    assert plan(exact)["notes"] == [
        "wishlist_items.flightData holds NULLs, so it stays as it is; `dbstatus` says so, and exits 0."
    ]
    adopted(exact)

    status = manage("dbstatus", url=exact.url)
    assert status.returncode == 0
    assert "NOTE    column.weaker at wishlist_items.flightData" in status.stdout
    assert exact.execute("SELECT conname FROM pg_constraint WHERE conname LIKE 'adopting%'") == []


def test_flight_data_without_nulls_is_made_not_null(exact):
    exact.execute(MAY_BE_NULL)

    adopted(exact)

    status = manage("dbstatus", url=exact.url)
    assert "column.weaker" not in status.stdout
    assert exact.execute(IS_NOT_NULL) == [(True,)]


@pytest.mark.parametrize(("made", "kind"), [("", "empty"), ("CREATE TABLE theirs (id int)", "empty")])
def test_where_none_of_our_tables_is_there_is_nothing_to_adopt(database, made, kind):
    if made:
        database.execute(made)

    result = manage("dbadopt", "--yes", url=database.url)

    assert plan(database)["kind"] == kind
    assert (result.returncode, result.stderr) == (0, "")
    assert "nothing to adopt; run `manage.py migrate`" in result.stdout
    assert database.execute("SELECT to_regclass('django_migrations')") == [(None,)]


def test_the_planner_knows_the_time_columns_afterwards_also_of_a_run_that_was_killed(exact):
    columns = "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public' AND attname IN ('createdAt', 'timestamp') ORDER BY 1, 2"
    exact.execute("ANALYZE")
    before = exact.execute(columns)
    exact.execute(
        "SET TimeZone TO 'UTC'; ALTER TABLE users ALTER \"createdAt\" TYPE timestamptz"
    )  # As by a run that was killed.

    adopted(exact)

    assert len(before) > 10
    assert exact.execute(columns) == before


def test_a_role_that_owns_nothing_is_told_so_and_changes_nothing(exact):
    exact.execute(f"DROP ROLE IF EXISTS {exact.name}_reader")
    exact.execute(f"CREATE ROLE {exact.name}_reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {exact.name}_reader")
    url = exact.url.replace(f"//{exact.user}@", f"//{exact.name}_reader@")
    try:
        result = manage("dbadopt", "--yes", url=url)
        assert (result.returncode, result.stderr) == (4, "")
        assert "adopt.not_owner at fresh_" in result.stdout
        assert f"does not own 18 of the tables, accounts among them, which {exact.user} does." in result.stdout
        assert exact.execute("SELECT to_regclass('django_migrations')") == [(None,)]
    finally:
        exact.execute(f"DROP OWNED BY {exact.name}_reader; DROP ROLE {exact.name}_reader")


def test_two_adoptions_at_once_one_adopts_and_both_succeed(exact):
    processes = [start_manage("dbadopt", "--yes", url=exact.url) for _ in range(2)]
    ends = [(process.communicate(timeout=120), process.returncode)[1] for process in processes]

    assert ends == [0, 0]
    assert is_as_migrated(exact)


@pytest.mark.parametrize("end_idle", [False, True])
def test_a_client_with_prepared_statements_fails_until_its_connection_is_ended(exact, end_idle):
    """psycopg never prepares anew; its pool looks at a connection before it gives it away."""
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


def test_idle_connections_are_ended_after_the_steps_that_change_a_type_and_no_others(exact):
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
    assert [step for step, was in ended if was] == [step for step in retyped if step in dict(ended)]
    assert (len(ended), len(retyped)) == (len(assessment.steps) - 1, 17)
    (number,) = re.fullmatch(r"Ended (\d+) idle connections of other clients\.", "\n".join(said)).groups()
    assert int(number) >= len(retyped)  # One that this test has just closed may still be there.


def test_a_default_of_the_current_time_is_noted_and_adopted(exact):
    exact.execute('ALTER TABLE users ALTER "updatedAt" SET DEFAULT CURRENT_TIMESTAMP')
    sentence = (
        "Column updatedAt of users has the default CURRENT_TIMESTAMP, and should have none; it is harmless: only an insert"
        " without a value uses it."
    )

    notes = plan(exact)["notes"]
    adopted(exact)
    status = json.loads(manage("dbstatus", "--format", "json", url=exact.url).stdout)

    assert notes == [sentence]
    assert (status["exit_code"], [(f["severity"], f["code"], f["message"]) for f in status["findings"]]) == (
        0,
        [("note", "default.extra", sentence)],
    )


ROLLED_BACK = """
    INSERT INTO _prisma_migrations (id, checksum, finished_at, rolled_back_at, migration_name)
    VALUES ('z', 'z', now(), now(), '2027_rolled_back')
"""


def test_a_migration_of_prismas_that_finished_and_was_rolled_back_is_not_applied(exact):
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
    assert f"  Prisma's own record: 1 applied, the last {prisma.MIGRATION}.\n" in text
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


def test_what_prisma_drops_after_the_adoption_is_said_to_be_its_doing(exact):
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


def test_killed_after_the_record_a_second_run_goes_on_with_the_migrations(exact):
    snapshot = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM _prisma_migrations")
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND wait_event = 'virtualxid' AND datname = current_database()"
    )
    with open_transaction(exact, *snapshot) as first:
        process = start_manage("dbadopt", "--yes", url=exact.url)
        wait_until(exact, waiting, ["CREATE UNIQUE INDEX CONCURRENTLY %"])
        # The build has noted whom it waits for: a snapshot from now on holds up the next build only.
        with open_transaction(exact, *snapshot):
            first.execute("COMMIT")
            wait_until(exact, waiting, ['CREATE INDEX CONCURRENTLY "accounts%'])
            process.kill()
            process.communicate()
            exact.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_progress_create_index WHERE datname = current_database()"
            )
    report = plan(exact)
    assert report["kind"] == "ours"
    assert "migration accounts.0003_account_user_index" in [step["what"] for step in report["migrations"]]

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 0, result.stdout + result.stderr
    assert is_as_migrated(exact)


def test_a_row_that_somebody_keeps_is_waited_for_and_its_keeper_named(exact):
    with open_transaction(exact, "SELECT FROM verification_tokens WHERE identifier = 'identifier 3' FOR UPDATE") as client:
        # The row alone: the table's own conversion comes first, and needs it all.
        client.execute("COMMIT")
        exact.execute(
            "ALTER TABLE verification_tokens ADD COLUMN id text, ALTER COLUMN id SET DEFAULT gen_random_uuid()::text, ALTER COLUMN expires TYPE timestamptz"
        )
        for name in ("verification_tokens_identifier_token_key", "verification_tokens_token_key"):
            exact.execute(f"ALTER TABLE verification_tokens ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
        client.execute("BEGIN; SELECT FROM verification_tokens WHERE identifier = 'identifier 3' FOR UPDATE")
        result = manage("dbadopt", "--yes", "--lock-wait", "1", url=exact.url)
        pid = client.info.backend_pid

    assert result.returncode == 2
    assert f"because of pid {pid} (the site" in result.stderr
    assert manage("dbadopt", "--yes", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


def test_a_check_that_a_killed_run_left_is_dropped_though_nulls_came(exact):
    exact.execute(MAY_BE_NULL)
    exact.execute("""UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 7'""")
    exact.execute(
        """ALTER TABLE wishlist_items ADD CONSTRAINT "adopting_not_null_flightData" CHECK ("flightData" IS NOT NULL) NOT VALID"""
    )

    adopted(exact)

    assert exact.execute("SELECT conname FROM pg_constraint WHERE conname LIKE 'adopting%'") == []
    assert manage("dbstatus", url=exact.url).returncode == 0


def test_it_adopts_the_schema_that_the_url_names(database):
    database.execute('CREATE SCHEMA "My site"; SET search_path TO "My site"; ' + KINDS["exact"])
    url = f"{database.url}&schema=My%20site"

    assert manage("dbadopt", "--yes", url=url).returncode == 0
    assert manage("dbstatus", url=url).returncode == 0
    assert database.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]


def test_a_schema_that_is_not_there_is_said_and_nothing_else(exact):
    for command in (("dbadopt",), ("dbadopt", "--yes"), ("dbhealth",), ("dbroles",)):
        result = manage(*command, url=f"{exact.url}&schema=nowhere")
        assert (result.returncode, result.stdout, result.stderr) == (
            2,
            "",
            "The search path names no schema that exists: correct ?schema= in POSTGRES_URL, or create the schema.\n",
        ), command
