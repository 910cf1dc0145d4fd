"""Blockers of an adoption are reported with their rows, and repaired if nothing is lost."""

import json
import re

import pytest

from tests.conftest import manage
from tests.database.sites import catalog, contents, everything, is_as_migrated, plan

FK = '"price_alerts_userId_fkey"'
DUPLICATES = "UPDATE push_subscriptions SET endpoint = 'same' WHERE id IN ('push_subscriptions 3', 'push_subscriptions 5')"
DRIFTS = {
    # The damage, (code, place), the blocking rows with their ids, and whether --repair fixes it.
    "nullable": ("ALTER TABLE users ALTER email DROP NOT NULL", ("column.weaker", "users.email"), (0, []), True),
    "nulls": (
        "ALTER TABLE users ALTER email DROP NOT NULL; UPDATE users SET email = NULL WHERE id = 'users 9'",
        ("column.weaker", "users.email"), (1, ["users 9"]), False,
    ),
    "default": ('ALTER TABLE saved_searches ALTER "searchCount" DROP DEFAULT', ("default.missing", "saved_searches.searchCount"), None, True),
    "another default": (
        "ALTER TABLE price_alerts ALTER currency SET DEFAULT 'EUR'", ("default.different", "price_alerts.currency"), None, False,
    ),
    "index": ('DROP INDEX "price_alerts_active_idx"', ("index.missing", "price_alerts.price_alerts_active_idx"), None, True),
    "invalid index": (
        """UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"notifications_userId_read_idx"'::regclass""",
        ("index.weaker", "notifications.notifications_userId_read_idx"), None, True,
    ),
    "renamed index": (
        'ALTER INDEX "user_sessions_userId_idx" RENAME TO other', ("index.renamed", "user_sessions.user_sessions_userId_idx"), None, True,
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
    "a unique index of another name": (
        "ALTER INDEX user_sessions_token_key RENAME TO theirs", ("unique.different", "user_sessions.user_sessions_token_key"), None, True,
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
    "generated": (
        """ALTER TABLE notifications ADD theirs timestamp GENERATED ALWAYS AS (date_trunc('day', "createdAt")) STORED""",
        ("adopt.in_use", "notifications.createdAt"), None, False,
    ),
    "expression": (
        """CREATE INDEX by_day ON users (date_trunc('day', "createdAt"))""", ("adopt.computed", "users.by_day"), None, False,
    ),
    "a failed build": (
        'CREATE UNIQUE INDEX theirs ON login_history (id, "timestamp"); UPDATE pg_index SET indisvalid = false WHERE indexrelid = \'theirs\'::regclass',
        ("adopt.computed", "login_history.theirs"), None, False,
    ),
    "operator class": (
        'CREATE INDEX by_range ON login_history USING brin ("timestamp" timestamp_minmax_multi_ops)', ("adopt.computed", "login_history.by_range"), None, False,
    ),
    "inherited from": (
        'CREATE TABLE base ("createdAt" timestamp(3) NOT NULL); ALTER TABLE ai_messages INHERIT base', ("adopt.in_use", "ai_messages.createdAt"), None, False,
    ),
    "pointed at": (
        'CREATE UNIQUE INDEX ON push_subscriptions ("createdAt"); CREATE TABLE points (t timestamp(3) REFERENCES push_subscriptions ("createdAt"))',
        ("adopt.in_use", "push_subscriptions.createdAt"), None, False,
    ),
    "a type's name": ("CREATE TYPE auth_group AS ENUM ('a')", ("adopt.name_taken", "auth_group"), None, False),
    "name": ('ALTER TABLE users ADD "isStaff" integer', ("adopt.name_taken", "accounts.0002_staff"), None, False),
    "failed": (
        "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', '2026_failed')",
        ("adopt.prisma_failed", "2026_failed"), None, False,
    ),
    "a key of another default": (
        "ALTER TABLE verification_tokens ADD id text NOT NULL DEFAULT md5(random()::text) PRIMARY KEY",
        ("default.different", "verification_tokens.id"), None, False,
    ),
    "inheriting": ("CREATE TABLE old () INHERITS (price_monitor_logs)", ("adopt.in_use", "price_monitor_logs.executionTime"), None, False),
    "check": (
        """ALTER TABLE user_activities ADD CONSTRAINT theirs CHECK ("createdAt" < timestamp '2100-01-01')""",
        ("adopt.in_use", "user_activities.createdAt"), None, False,
    ),
    "row type": ("CREATE TABLE other (u recent_searches)", ("adopt.in_use", "recent_searches.viewedAt"), None, False),
    "a name of the adoption": ("CREATE SEQUENCE verification_tokens_pkey", ("adopt.name_taken", "verification_tokens_pkey"), None, False),
    "a name of a later index": (
        'CREATE INDEX "accounts_userId_idx" ON _prisma_migrations (id)', ("adopt.name_taken", "accounts_userId_idx"), None, False,
    ),
    "the journal's name": ("CREATE TABLE fly2any_migration_runs (a int)", ("adopt.name_taken", "fly2any_migration_runs"), None, False),
    "published": ("CREATE PUBLICATION theirs FOR TABLE verification_tokens", ("adopt.in_use", "verification_tokens"), None, False),
    "a unique index of its name": (
        "DROP INDEX users_email_key; CREATE UNIQUE INDEX users_email_key ON users (email) WHERE email <> ''",
        ("unique.missing", "users.users_email_key"), (0, []), False,
    ),
    "a check of a unique index's name": (
        'ALTER INDEX "user_preferences_userId_key" RENAME TO moved;'
        ' ALTER TABLE user_preferences ADD CONSTRAINT "user_preferences_userId_key" CHECK (id = id)',
        ("unique.different", "user_preferences.user_preferences_userId_key"), None, False,
    ),
    "in the way": ("ALTER TABLE users ADD theirs int NOT NULL DEFAULT 1; ALTER TABLE users ALTER theirs DROP DEFAULT",
                   ("column.extra", "users.theirs"), None, False),
}  # fmt: skip


# Drift that cannot exist in one database with the other unrepaired kinds.
APART = ("a unique index of its name", "a name of the adoption", "published")
TOGETHER = {
    "mended": [drift for drift, (*_, mended) in DRIFTS.items() if mended],
    "not mended": [drift for drift, (*_, mended) in DRIFTS.items() if not mended and drift not in APART],
    "not mended either": [*APART],
}


@pytest.mark.slow
@pytest.mark.parametrize("drifts", TOGETHER.values(), ids=TOGETHER)
def test_drift_is_refused_with_its_rows_and_repaired_where_nothing_is_lost(exact, drifts):
    for drift in drifts:
        exact.execute(DRIFTS[drift][0])
    expected = {found: (rows, mended) for _, found, rows, mended in map(DRIFTS.get, drifts)}
    all_mended = all(mended for _, mended in expected.values())
    before = everything(exact)

    report = plan(exact)

    assert report["kind"] == "drifted"
    blockers = {(blocker["code"], blocker["where"]): blocker for blocker in report["blockers"]}
    assert sorted((blocker["code"], blocker["where"]) for blocker in report["blockers"]) == sorted(expected)
    for found, blocker in blockers.items():
        rows, mended = expected[found]
        assert (None if rows is None else (blocker["rows"], blocker["ids"])) == rows, found
        if rows and rows[0]:
            assert [row[0] for row in exact.execute(blocker["query"].rstrip(";") + " ORDER BY 1")][:5] == rows[1]
        assert bool(blocker["repairs"]) is mended, found
    refused = manage("dbadopt", "--yes", url=exact.url)
    assert (refused.returncode, refused.stderr) == (4, "")
    assert everything(exact) == before
    repaired = manage("dbadopt", "--yes", "--repair", url=exact.url)
    assert (repaired.returncode, repaired.stderr) == (0 if all_mended else 4, "")
    assert contents(exact) == before[1]
    assert is_as_migrated(exact) if all_mended else everything(exact) == before


@pytest.mark.slow
def test_all_blockers_are_reported_at_once(exact):
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("done", "said"),
    [
        (
            'ALTER TABLE accounts DROP CONSTRAINT "accounts_userId_fkey"; ALTER TABLE accounts ALTER "userId" TYPE integer USING 1',
            {("column.different", "accounts.userId"), ("foreign_key.missing", "accounts.accounts_userId_fkey")},
        ),
        (
            "ALTER TABLE wishlist_items RENAME TO w; CREATE MATERIALIZED VIEW wishlist_items AS SELECT * FROM w WITH NO DATA",
            {("table.different", "wishlist_items")},
        ),
        (
            "ALTER TABLE _prisma_migrations DROP rolled_back_at; DROP INDEX users_email_key",
            {("unique.missing", "users.users_email_key")},
        ),
    ],
)
def test_rows_that_cannot_be_counted_are_reported(exact, done, said):
    exact.execute(done)

    report = plan(exact)

    assert said <= {(blocker["code"], blocker["where"]) for blocker in report["blockers"]}


@pytest.mark.slow
def test_a_cure_of_a_time_column_keeps_its_instants(exact):
    exact.execute('CREATE DOMAIN moment AS timestamp(3); ALTER TABLE login_history ALTER "timestamp" TYPE moment')
    exact.execute(f"ALTER DATABASE {exact.name} SET timezone TO 'America/New_York'")
    utc = 'SELECT id, "timestamp"::text FROM login_history ORDER BY id'
    before = exact.execute(utc)

    blocker, zone = plan(exact)["blockers"]
    exact.execute(blocker["cure"])
    exact.execute(zone["cure"])

    assert (blocker["code"], blocker["where"]) == ("column.different", "login_history.timestamp")
    after = exact.execute("SELECT id, (\"timestamp\" AT TIME ZONE 'UTC')::text FROM login_history ORDER BY id")
    assert (len(after), after) == (len(before), before)
    assert plan(exact)["kind"] == "exact"


@pytest.mark.slow
def test_objects_in_use_are_printed_with_their_definitions(exact):
    exact.execute('CREATE VIEW theirs AS SELECT "createdAt" FROM users')

    [blocker] = plan(exact)["blockers"]

    assert blocker["message"] == "Column createdAt of users is used by view theirs, so the adoption does not change its type."
    ask, question, then = blocker["cure"].split("`")
    assert (ask, then) == (
        "Ask the owner of view theirs first, then save its definition (the output of ",
        "), drop it before the adoption, and create it again afterwards.",
    )
    [(definition,)] = exact.execute(question)
    assert re.fullmatch(r'\s*SELECT (users\.)?"createdAt"\s+FROM users;', definition)


@pytest.mark.slow
def test_a_generated_column_is_named_once_with_its_expression(exact):
    exact.execute("""ALTER TABLE users ADD theirs timestamp GENERATED ALWAYS AS (date_trunc('day', "createdAt")) STORED""")

    [blocker] = plan(exact)["blockers"]

    assert blocker["message"] == (
        "Column createdAt of users is used by generated column theirs of table users, so the adoption does not change its type."
    )
    question = blocker["cure"].partition("`")[2].partition("`")[0]
    assert exact.execute(question) == [("date_trunc('day'::text, \"createdAt\")",)]


@pytest.mark.slow
def test_values_that_cannot_be_converted_are_counted(exact):
    exact.execute('ALTER TABLE price_alerts ALTER "currentPrice" TYPE text')
    exact.execute("UPDATE price_alerts SET \"currentPrice\" = 'abc' WHERE id = 'price_alerts 3'")

    [blocker] = plan(exact)["blockers"]

    [(can_ask,)] = exact.execute("SELECT current_setting('server_version_num')::int >= 160000")
    found = (1, ["price_alerts 3"]) if can_ask else (None, [])
    assert (blocker["code"], (blocker["rows"], blocker["ids"])) == ("column.different", found)


@pytest.mark.slow
def test_an_unreadable_ledger_of_prisma_is_a_blocker(exact):
    with exact.role("GRANT ALL ON SCHEMA public TO {role}") as url:
        [unreadable] = [blocker for blocker in plan(exact, url)["blockers"] if blocker["code"] == "adopt.prisma_unreadable"]
        exact.execute(unreadable["cure"])
        assert "adopt.prisma_unreadable" not in {blocker["code"] for blocker in plan(exact, url)["blockers"]}
        exact.execute("DROP TABLE _prisma_migrations")
        assert any("`prisma db push` keeps none" in note for note in plan(exact, url)["notes"])


@pytest.mark.slow
def test_an_extension_that_this_role_cannot_create_is_a_blocker(exact):
    exact.execute(f"REVOKE ALL ON DATABASE {exact.name} FROM PUBLIC")
    with exact.role(f"GRANT CONNECT ON DATABASE {exact.name} TO {{role}}") as url:
        codes = {blocker["code"] for blocker in plan(exact, url)["blockers"]}
        exact.execute("CREATE EXTENSION pg_trgm")
        assert (
            "adopt.extension" in codes,
            "adopt.extension" in {blocker["code"] for blocker in plan(exact, url)["blockers"]},
        ) == (True, False)


@pytest.mark.slow
def test_other_unmanaged_objects_are_listed_and_functions_over_times_named(exact):
    exact.execute(
        "CREATE TYPE mood AS ENUM ('ok'); CREATE PUBLICATION news FOR TABLE users; GRANT SELECT ON users TO pg_monitor"
    )
    exact.execute(
        "CREATE FUNCTION since() RETURNS TABLE (a timestamp) LANGUAGE plpgsql AS 'BEGIN RETURN QUERY SELECT \"createdAt\" FROM users; END'"
    )

    report = plan(exact)

    assert {kind: report["foreign"][kind] for kind in ("types", "functions", "publications", "grants")} == {
        "types": ["mood"], "functions": ["since"], "publications": ["news of users"], "grants": ["pg_monitor on users"],
    }  # fmt: skip
    assert any(
        note.startswith("The function since() names users and timestamps without time zone, ") for note in report["notes"]
    )


@pytest.mark.slow
def test_a_trigger_that_undoes_every_update_is_reported_in_one_sentence(exact):
    exact.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    exact.execute("CREATE TRIGGER no BEFORE UPDATE ON verification_tokens FOR EACH ROW EXECUTE FUNCTION no()")

    result = manage("dbadopt", "--yes", url=exact.url)

    assert result.returncode == 2
    assert result.stderr.startswith("The rows of verification_tokens cannot be filled (")
    exact.execute("DROP TRIGGER no ON verification_tokens")
    assert manage("dbadopt", "--yes", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_tables_behind_another_schema_of_the_search_path_are_found_and_not_rebuilt(exact):
    exact.execute(f"CREATE SCHEMA app; ALTER DATABASE {exact.name} SET search_path TO app, public")

    migrate = manage("migrate", url=exact.url)
    report = plan(exact)

    assert (migrate.returncode, "dbadopt" in migrate.stderr) == (2, True)
    assert [(blocker["code"], blocker["where"]) for blocker in report["blockers"]] == [("server.schema", exact.name)]
    assert exact.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace") == [(0,)]


@pytest.mark.slow
def test_the_search_path_of_another_role_is_no_blocker(exact):
    with exact.role("GRANT INSERT ON ALL TABLES IN SCHEMA public TO {role}", "ALTER ROLE {role} SET search_path TO app"):
        found = json.loads(manage("dbstatus", "--format", "json", url=exact.url).stdout)["findings"]
        blockers = plan(exact)["blockers"]

    assert [(one["severity"], one["code"]) for one in found if one["code"] == "server.schema"] == [("note", "server.schema")]
    assert blockers == []


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["datestyle TO 'German'", "quote_all_identifiers TO on"])
def test_settings_of_a_role_or_database_change_nothing(exact, setting):
    exact.execute(f"ALTER DATABASE {exact.name} SET {setting}")

    assert plan(exact)["kind"] == "exact"
    assert manage("dbadopt", "--yes", url=exact.url).returncode == 0
    assert is_as_migrated(exact)


@pytest.mark.slow
def test_names_of_any_script_are_shown_on_any_terminal(exact):
    exact.execute('CREATE TABLE "täble✈" (id int)')

    result = manage("dbadopt", url=exact.url, PYTHONIOENCODING="ascii")

    assert (result.returncode, result.stderr) == (0, "")
    assert "tables: t\\xe4ble\\u2708" in result.stdout
