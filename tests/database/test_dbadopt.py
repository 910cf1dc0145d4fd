"""Adoption of databases that Prisma made, by the command, on a real server."""

import json
import re

import psycopg
import pytest

from fly2any.database import contract as contracts
from fly2any.database.adoption import assess
from fly2any.database.adoption.steps import LOCKS, lock_of
from fly2any.database.catalog import read_catalog
from fly2any.database.contract import catalog_of
from tests import prisma
from tests.conftest import PROJECT, django, manage, start_manage
from tests.database.test_migrate import open_transaction, wait_until

ROWS = 50
FINAL = catalog_of(version for version in contracts.load().versions if version.until is None)
OURS = {table.name for table in FINAL.tables}
KINDS = {"exact": prisma.exact(), "superset": prisma.superset()}
GUIDE = PROJECT / "docs" / "reference" / "dbadopt.md"


@pytest.fixture(params=KINDS)
def site(request, database):
    """A database as the site uses it."""
    return fill(database, KINDS[request.param])


@pytest.fixture
def exact(database):
    return fill(database, KINDS["exact"])


def fill(database, made):
    database.execute(made)
    database.execute("\n".join(prisma.fill(table, ROWS) for table in prisma.PHASE7))
    return database


def catalog(database):
    with django(database) as opened:
        return read_catalog(opened, schema="public")


def contents(database):
    """The rows of each table of Phase 7, as a number of rows and a sum of their hashes, times as instants."""
    found = {}
    there = set(
        database.execute("SELECT attrelid::regclass::text, attname FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped")
    )
    for name, table in prisma.PHASE7.items():
        columns = ", ".join(
            f"""COALESCE({f'extract(epoch FROM "{c["name"]}")' if c["type"].startswith("timestamp") else f'"{c["name"]}"'}::text, 'NULL')"""
            for c in table["columns"]
            if (name, c["name"]) in there
        )
        statement = f"SELECT count(*), sum(hashtextextended(concat_ws('|', {columns}), 0)::numeric) FROM \"{name}\""
        (found[name],) = database.execute(statement)
    return found


def files(database):
    """The file of each table of Phase 7: another one when it was rewritten."""
    return dict(
        database.execute(
            "SELECT relname::text, pg_relation_filenode(oid) FROM pg_class WHERE relname = ANY (%s)", [list(prisma.PHASE7)]
        )
    )


def everything(database):
    relations = database.execute(
        "SELECT oid, relname, relfilenode, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    )
    return catalog(database), contents(database), relations


def plan(database, *options):
    result = manage("dbadopt", "--format", "json", *options, url=database.url)
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert report["exit_code"] == result.returncode
    return report


def adopted(database, *options):
    result = manage("dbadopt", "--yes", *options, url=database.url)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    return result.stdout


def is_as_migrated(database):
    status = manage("dbstatus", url=database.url)
    assert status.returncode == 0, status.stdout
    mine = catalog(database).where(lambda thing: thing.table in OURS)
    ours = [{(c.table, c.name) for c in kind} for kind in (FINAL.columns, FINAL.indexes)]
    assert set(mine.columns) - set(FINAL.columns) == {c for c in mine.columns if (c.table, c.name) not in ours[0]}
    assert set(FINAL) <= set(mine)
    return True


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

    assert manage("migrate", "travel", "0001", url=exact.url).returncode == 0
    assert manage("dbstatus", url=exact.url).returncode == 1
    assert manage("migrate", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_times_mean_the_same_instants_in_a_database_of_another_time_zone(exact, zone):
    before = contents(exact), files(exact)
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO '{zone}'")

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 0
    assert (contents(exact), files(exact)) == before
    assert "server.time_zone" in manage("dbstatus", url=exact.url).stdout


def test_a_million_rows_are_not_rewritten(database):
    database.execute(KINDS["exact"])
    database.execute(prisma.fill("price_history", 1_000_000))
    before = contents(database), files(database)
    (size,) = database.execute("""SELECT pg_relation_size('"price_history_timestamp_idx"')""")[0]
    (step,) = (step for step in plan(database)["steps"] if step["table"] == "price_history")
    assert size <= step["index_bytes"]

    adopted(database)

    assert (contents(database), files(database)) == before
    assert is_as_migrated(database)


def test_the_locks_of_the_plan_are_those_that_are_taken(site):
    held = """
        SELECT c.relname::text, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        WHERE l.pid = pg_backend_pid() AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    """
    modes = {"RowExclusiveLock": "ROW EXCLUSIVE", "ShareUpdateExclusiveLock": "SHARE UPDATE EXCLUSIVE",
             "ShareRowExclusiveLock": "SHARE ROW EXCLUSIVE", "AccessExclusiveLock": "ACCESS EXCLUSIVE"}  # fmt: skip
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
                    if mode in modes:
                        strongest[table] = max(strongest.get(table, ""), modes[mode], key=LOCKS.index)
                client.execute("COMMIT")

                assert strongest == {step.table: max(map(lock_of, statements), key=LOCKS.index)}, statements


@pytest.mark.parametrize("table", ["accounts", "notifications", "users", "verification_tokens", "wishlist_items"])
def test_killed_while_it_waits_for_a_table_the_site_works_and_a_second_run_goes_on(exact, table):
    before = contents(exact)
    with open_transaction(exact, f"SELECT FROM {table}"):
        process = start_manage("dbadopt", "--yes", url=exact.url)
        wait_until(
            exact,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
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
        exact_pid = None
        try:
            wait_until(
                exact, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER TABLE \"push%%'"
            )
        finally:
            pass
    with open_transaction(exact, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT 1"):
        (exact_pid,) = wait_until(exact, "SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()")
        wait_until(exact, invalid)
        process.kill()
        process.communicate()
        exact.execute("SELECT pg_terminate_backend(%s, 10000)", [exact_pid])
    assert exact.execute(invalid) == [(1,)]

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 0
    assert (
        result.stderr == "The index verification_tokens_pkey was left invalid by an earlier build: dropped, and built anew.\n"
    )
    assert contents(exact) == before
    assert is_as_migrated(exact)


def test_nulls_in_flight_data_stay_and_are_said(database):
    fill(database, KINDS["superset"])
    database.execute("""UPDATE wishlist_items SET "flightData" = NULL WHERE id = 'wishlist_items 7'""")

    assert plan(database)["notes"] == [
        "wishlist_items.flightData holds NULLs, so it stays as it is; `dbstatus` says so, and exits 0."
    ]
    adopted(database)

    status = manage("dbstatus", url=database.url)
    assert status.returncode == 0
    assert "NOTE    column.weaker at wishlist_items.flightData" in status.stdout
    assert database.execute("SELECT conname FROM pg_constraint WHERE conname LIKE 'adopting%'") == []


def test_flight_data_without_nulls_is_made_not_null(database):
    fill(database, KINDS["superset"])

    adopted(database)

    status = manage("dbstatus", url=database.url)
    assert "column.weaker" not in status.stdout
    assert database.execute(
        "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'wishlist_items'::regclass AND attname = 'flightData'"
    ) == [(True,)]


FK = '"price_alerts_userId_fkey"'
DUPLICATES = "UPDATE push_subscriptions SET endpoint = 'same' WHERE id IN ('push_subscriptions 3', 'push_subscriptions 5')"
DRIFTS = {
    # What was done, (code, place), rows in the way with their ids, and whether --repair mends it.
    "nullable": ("ALTER TABLE users ALTER email DROP NOT NULL", ("column.weaker", "users.email"), (0, []), True),
    "nulls": (
        "ALTER TABLE users ALTER email DROP NOT NULL; UPDATE users SET email = NULL WHERE id = 'users 9'",
        ("column.weaker", "users.email"), (1, ["users 9"]), False,
    ),
    "default": ('ALTER TABLE saved_searches ALTER "searchCount" DROP DEFAULT', ("default.missing", "saved_searches.searchCount"), None, True),
    "index": ('DROP INDEX "price_alerts_active_idx"', ("index.missing", "price_alerts.price_alerts_active_idx"), None, True),
    "invalid index": (
        """UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"price_alerts_active_idx"'::regclass""",
        ("index.weaker", "price_alerts.price_alerts_active_idx"), None, True,
    ),
    "renamed index": (
        'ALTER INDEX "price_alerts_active_idx" RENAME TO other', ("index.renamed", "price_alerts.price_alerts_active_idx"), None, True,
    ),
    "foreign key": (
        f"ALTER TABLE price_alerts DROP CONSTRAINT {FK}", ("foreign_key.missing", "price_alerts.price_alerts_userId_fkey"), (0, []), True,
    ),
    "orphans": (
        f"""ALTER TABLE price_alerts DROP CONSTRAINT {FK}; UPDATE price_alerts SET "userId" = 'nobody' WHERE id LIKE '%7'""",
        ("foreign_key.missing", "price_alerts.price_alerts_userId_fkey"),
        (5, ["price_alerts 17", "price_alerts 27", "price_alerts 37", "price_alerts 47", "price_alerts 7"]), False,
    ),
    "unique": (
        'DROP INDEX "push_subscriptions_endpoint_key"', ("unique.missing", "push_subscriptions.push_subscriptions_endpoint_key"), (0, []), True,
    ),
    "duplicates": (
        f'DROP INDEX "push_subscriptions_endpoint_key"; {DUPLICATES}', ("unique.missing", "push_subscriptions.push_subscriptions_endpoint_key"),
        (2, ["push_subscriptions 3", "push_subscriptions 5"]), False,
    ),
    "duplicate e-mails": (
        "DROP INDEX users_email_key; UPDATE users SET email = 'same' WHERE id IN ('users 1', 'users 2')",
        ("unique.missing", "users.users_email_key"), (2, ["users 1", "users 2"]), False,
    ),
    "type": ("ALTER TABLE saved_searches ALTER filters TYPE text", ("column.different", "saved_searches.filters"), None, False),
    "column": ('ALTER TABLE price_alerts DROP "departDate"', ("column.missing", "price_alerts.departDate"), None, False),
    "view": ('CREATE VIEW v AS SELECT "createdAt" FROM users', ("adopt.in_use", "users.createdAt"), None, False),
    "expression": (
        """CREATE INDEX by_day ON users (date_trunc('day', "createdAt"))""", ("adopt.computed", "users.by_day"), None, False,
    ),
    "name": ('ALTER TABLE users ADD "isStaff" integer', ("adopt.name_taken", "accounts.0002_staff"), None, False),
    "failed": (
        "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', '2026_failed')",
        ("adopt.prisma_failed", "2026_failed"), None, False,
    ),
    "in the way": ("ALTER TABLE users ADD theirs int NOT NULL DEFAULT 1; ALTER TABLE users ALTER theirs DROP DEFAULT",
                   ("column.extra", "users.theirs"), None, False),
}  # fmt: skip


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_refused_with_its_rows_and_repaired_where_nothing_is_lost(exact, drift):
    done, found, rows, mended = DRIFTS[drift]
    exact.execute(done)
    before = everything(exact)

    report = plan(exact)

    assert report["kind"] == "drifted"
    (blocker,) = report["blockers"]
    assert (blocker["code"], blocker["where"]) == found
    assert (None if rows is None else (blocker["rows"], blocker["ids"])) == rows
    if rows and rows[0]:
        assert [row[0] for row in exact.execute(blocker["query"].rstrip(";") + " ORDER BY 1")][:5] == rows[1]
    assert bool(blocker["repairs"]) is mended
    refused = manage("dbadopt", "--yes", url=exact.url)
    assert (refused.returncode, refused.stderr) == (4, "")
    assert everything(exact) == before
    repaired = manage("dbadopt", "--yes", "--repair", url=exact.url)
    assert (repaired.returncode, repaired.stderr) == (0 if mended else 4, "")
    assert contents(exact) == before[1] if "default" not in drift else True
    assert is_as_migrated(exact) if mended else everything(exact) == before


def test_all_that_is_in_the_way_is_said_at_once(exact):
    exact.execute('DROP TABLE price_alerts; CREATE TABLE price_alerts (id text PRIMARY KEY, "isActive" boolean)')
    exact.execute("""DROP TABLE saved_searches; CREATE TABLE saved_searches (id text PRIMARY KEY, "searchParams" jsonb)""")
    exact.execute(
        "DROP TABLE user_sessions; ALTER TABLE users ALTER email DROP NOT NULL; UPDATE users SET email = NULL WHERE id = 'users 1'"
    )
    before = catalog(exact)

    report = plan(exact)
    result = manage("dbadopt", url=exact.url)
    refused = manage("dbadopt", "--yes", "--repair", url=exact.url)

    found = {(blocker["code"], blocker["where"]) for blocker in report["blockers"]}
    assert {
        ("table.missing", "user_sessions"),
        ("column.weaker", "users.email"),
        ("column.missing", "price_alerts.departDate"),
        ("column.renamed", "saved_searches.filters"),
        ("index.missing", "price_alerts.price_alerts_active_idx"),
    } <= found
    assert all(f"{code} at {where}" in result.stdout for code, where in found)
    assert (refused.returncode, refused.stderr) == (4, "")
    assert catalog(exact).columns == before.columns


@pytest.mark.parametrize(("made", "kind"), [("", "empty"), ("CREATE TABLE theirs (id int)", "empty")])
def test_where_none_of_our_tables_is_there_is_nothing_to_adopt(database, made, kind):
    if made:
        database.execute(made)

    result = manage("dbadopt", "--yes", url=database.url)

    assert plan(database)["kind"] == kind
    assert (result.returncode, result.stderr) == (0, "")
    assert "nothing to adopt; run `manage.py migrate`" in result.stdout
    assert database.execute("SELECT to_regclass('django_migrations')") == [(None,)]


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
        adopted(exact, *(["--end-idle"] if end_idle else []))
        ask()
        ask()

    expected = [] if end_idle else [(statement, "cached plan must not change result type") for statement in statements] * 2
    assert errors == expected


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
