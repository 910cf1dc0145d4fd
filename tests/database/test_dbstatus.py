"""dbstatus as a user runs it, and its report."""

import io
import json
import re
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test.utils import CaptureQueriesContext

from fly2any.database.findings import CODES
from fly2any.database.health.wraparound import wraparound
from fly2any.database.report.collect import URGENT, collect
from fly2any.database.schema import contract as contracts
from fly2any.database.schema.contract import Contract
from fly2any.database.server import flush_statistics
from fly2any.database.sql import snapshot
from fly2any.database.verification import Count, Group, verify
from tests.conftest import NO_SERVER, PROJECT, manage
from tests.database.mutation import EXPECTED
from tests.database.mutations import mutations

CONTRACT = contracts.load()
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "dbstatus.md"


def run(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


def dbstatus(*arguments):
    """The exit code and what was printed."""
    out = io.StringIO()
    with pytest.raises(SystemExit) as end:
        call_command("dbstatus", *arguments, stdout=out)
    return end.value.code, out.getvalue()


def found(report):
    return [(finding.code, finding.where) for finding in report.findings]


@pytest.mark.django_db
def test_a_migrated_database_is_complete_and_the_guides_figures_add_up():
    report = verify(connection)

    assert collect(connection, verification=report).exit_code == 0
    assert found(report) == []
    assert report.groups[:6] == (
        Group("accounts", Count(5, 5), Count(52, 52), Count(6, 6), Count(3, 3)),
        Group("travel", Count(5, 5), Count(62, 62), Count(8, 8), Count(3, 3)),
        Group("engagement", Count(6, 6), Count(53, 53), Count(12, 12), Count(5, 5)),
        Group("without the AI group", Count(16, 16), Count(167, 167), Count(26, 26), Count(11, 11)),
        Group("ai_consultant", Count(2, 2), Count(21, 21), Count(7, 7), Count(2, 2)),
        Group("Phase 7, total", Count(18, 18), Count(188, 188), Count(33, 33), Count(13, 13)),
    )
    assert report.groups[6].name == "added since"
    assert report.groups[6].columns.found == report.groups[6].columns.expected >= 10
    assert all(
        count.found == count.expected for group in report.groups for count in (group.tables, group.indexes, group.foreign_keys)
    )


@pytest.mark.django_db
def test_a_dropped_index_is_named_with_its_cure_and_exit_code_4():
    run('DROP INDEX "price_alerts_active_idx"')

    code, text = dbstatus()

    assert code == 4
    assert "  travel                    5/5       62/62       7/8            3/3\n" in text
    assert text.endswith(
        "Findings\n"
        "  ERROR   index.missing at price_alerts.price_alerts_active_idx\n"
        "          Index price_alerts_active_idx of price_alerts is missing.\n"
        '          cure: CREATE INDEX CONCURRENTLY "price_alerts_active_idx" ON "price_alerts" USING btree ("active");\n'
        f"\n{text.splitlines()[0]} (exit code 4)\n"
    )


@pytest.mark.django_db
def test_transaction_ids_that_are_nearly_used_up_are_found_and_do_not_stop_a_release(monkeypatch):
    monkeypatch.setitem(URGENT, "wraparound", partial(wraparound, near=10))

    code, text = dbstatus()
    released, _ = dbstatus("--release")

    assert (code, released) == (4, 0)
    assert "  ERROR   wraparound.near at transaction IDs\n          The oldest transaction ID in the database " in text


PRISMAS_LEDGER = """CREATE TABLE _prisma_migrations (id text PRIMARY KEY, migration_name text NOT NULL, started_at timestamptz NOT NULL,
                    finished_at timestamptz, rolled_back_at timestamptz)"""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("with_indexes", "ledger", "questions"), [(False, "", 10), (True, "", 11), (False, PRISMAS_LEDGER, 12)]
)
def test_the_number_of_queries_does_not_grow_with_the_database(with_indexes, ledger, questions):
    """Server, leftovers, catalogue, sequences, untrusted code and extension, migrations, runs, the lock holder and permissions."""
    run(ledger or "SELECT")
    for number in range(30):
        run(
            f"CREATE TABLE theirs_{number} (id int PRIMARY KEY, a text UNIQUE, b int REFERENCES theirs_{number}); CREATE INDEX ON theirs_{number} (b)"
        )

    with CaptureQueriesContext(
        connection,
    ) as queries:
        verify(connection, with_indexes=with_indexes)

    asked = [query["sql"] for query in queries if re.match(r"\s*(SELECT|WITH)", query["sql"])]
    assert len(asked) == questions
    assert not [query["sql"] for query in queries if re.match(r"\s*(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)", query["sql"])]


@pytest.mark.django_db
def test_pending_migrations_are_pending_and_not_drift():
    run(
        """DROP TABLE users_groups, users_user_permissions;
           ALTER TABLE users DROP "isStaff", DROP "isSuperuser", DROP "isActive"; DROP TABLE django_admin_log;
           DROP INDEX "accounts_userId_idx", "sessions_userId_idx", "users_createdAt_idx", users_email_trgm_idx, users_words_trgm_idx """
    )
    apart = ("accounts.", "admin.", "administration.0007")  # The last one needs those of the admin.
    pending = [name for name in CONTRACT.migrations if name.startswith(apart) and name != "accounts.0001_initial"]
    for name in pending:
        MigrationRecorder(connection).migration_qs.filter(app=name.split(".")[0], name=name.split(".")[1]).delete()

    code, text = dbstatus()
    report = verify(connection)

    assert code == 1
    assert list(report.migrations.pending) == pending
    assert found(report) == []
    assert "    accounts.0002_staff: would create 2 tables, 9 columns, 6 indexes, 4 foreign keys\n" in text
    assert "  none: the database matches the migrations so far\n" in text


@pytest.mark.django_db
def test_pending_and_damaged_exits_with_5():
    MigrationRecorder(connection).migration_qs.filter(app="administration").latest("name").delete()
    run('DROP INDEX "price_alerts_active_idx"')

    assert dbstatus()[0] == 5


@pytest.mark.django_db
def test_a_migration_that_the_code_does_not_know_is_a_finding():
    MigrationRecorder(connection).record_applied("travel", "0099_from_another_branch")

    report = verify(connection)

    assert report.migrations.unknown == ("travel.0099_from_another_branch",)
    assert found(report) == [("migrations.unknown", "travel.0099_from_another_branch")]
    assert collect(connection, verification=report).exit_code == 4


@pytest.mark.django_db
def test_a_squashed_migration_is_applied_by_its_name_or_by_all_that_it_replaces():
    passkeys = MigrationRecorder(connection).migration_qs.filter(app="django_otp_webauthn")
    passkeys.filter(name__contains="squashed").delete()
    assert dbstatus()[0] == 0

    passkeys.filter(name="0002_timestamps").delete()
    assert verify(connection).migrations.pending == (
        "django_otp_webauthn.0001_squashed_0003_webauthncredential_hash_binary_to_hex",
    )


@pytest.mark.django_db
def test_tables_that_no_migration_made_are_not_to_be_migrated():
    run("DROP TABLE django_migrations")

    report = verify(connection)

    assert ("migrations.unrecorded", "accounts.0001_initial") in found(report)
    assert collect(connection, verification=report).exit_code == 5
    assert report.migrations.pending == CONTRACT.migrations


@pytest.mark.slow
@pytest.mark.django_db
def test_an_empty_database_has_pending_migrations_and_no_finding(own_server):
    server = own_server()

    result = manage("dbstatus", "--format", "json", url=server.url())

    assert (result.returncode, result.stderr) == (1, "")
    report = json.loads(result.stdout)
    assert report["findings"] == []
    assert [migration["name"] for migration in report["migrations"]["pending"]] == list(CONTRACT.migrations)
    assert report["groups"][5] == {
        "name": "Phase 7, total",
        "tables": {"found": 0, "expected": 18},
        "columns": {"found": 0, "expected": 188},
        "indexes": {"found": 0, "expected": 33},
        "foreign_keys": {"found": 0, "expected": 13},
    }


@pytest.mark.django_db
def test_unmanaged_objects_are_listed_on_request_and_are_not_findings():
    run("CREATE TABLE theirs (id int PRIMARY KEY); ALTER TABLE users ADD points int NOT NULL DEFAULT 0")

    code, text = dbstatus("--verbosity", "2")

    assert code == 0
    assert "Unmanaged, left alone\n  tables: theirs\n  columns: users.points\n\n" in text
    assert "theirs" not in dbstatus()[1]


@pytest.mark.django_db
def test_json_has_the_documented_shape():
    run('DROP INDEX "price_alerts_active_idx"; ANALYZE accounts')  # Its rows, the first, could be unknown otherwise.

    code, text = dbstatus("--format", "json", "--indexes", "--tables", "--write-check")
    report = json.loads(text)

    assert code == report["exit_code"] == 4
    assert shape(report) == shape(json.loads(re.search(r"```json\n(.*?)```", GUIDE.read_text(), re.S)[1]))
    assert report["findings"] == [
        {
            "severity": "error",
            "code": "index.missing",
            "where": "price_alerts.price_alerts_active_idx",
            "message": "Index price_alerts_active_idx of price_alerts is missing.",
            "cure": 'CREATE INDEX CONCURRENTLY "price_alerts_active_idx" ON "price_alerts" USING btree ("active");',
        }
    ]


def shape(value):
    """The keys and kinds of a JSON value; a list has the shape of its first entry, an empty one any."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return ["…"] if not value else [shape(value[0])] if isinstance(value[0], dict) else ["…"]
    return "text or null" if value is None or isinstance(value, str) else type(value).__name__


@pytest.mark.django_db
def test_indexes_are_listed_with_their_size_and_use():
    run("SET enable_seqscan = off; SELECT * FROM price_alerts WHERE active")
    flush_statistics(connection)
    code, text = dbstatus("--indexes")

    assert code == 0
    lines = text.splitlines()
    (place,) = [n for n, line in enumerate(lines) if line.startswith("  price_alerts.price_alerts_active_idx: ")]
    recorded = connection.pg_version >= 160_000
    last = r", (never used|last \d{4}-\d\d-\d\d \d\d:\d\d UTC)" if recorded else ""
    assert re.fullmatch(rf"  price_alerts\.price_alerts_active_idx: \d+(\.\d)? k?B, [\d,]+ scans?{last}", lines[place])
    assert ("Indexes" if recorded else "Indexes (their last use is recorded from PostgreSQL 16 on)") in lines
    assert lines[place + 1] == "      CREATE INDEX price_alerts_active_idx ON public.price_alerts USING btree (active)"
    assert len([line for line in lines if line.startswith("      CREATE ")]) == len(EXPECTED.indexes) + len(EXPECTED.keys)


@pytest.mark.slow
@pytest.mark.django_db
def test_the_write_check_writes_to_every_table_and_leaves_nothing():
    code, text = dbstatus("--write-check")

    assert code == 0
    assert text.splitlines()[-3:-1] == [
        "Write check: a row created, read, updated and deleted in each of 18 tables, and rolled back.",
        "",
    ]
    tables = {table.name for table in EXPECTED.tables}
    for version in CONTRACT.expected(CONTRACT.migrations):
        if version.is_phase7 and version.object.name in tables:
            with connection.cursor() as cursor:
                cursor.execute(f'SELECT count(*) FROM "{version.object.name}"')
                assert cursor.fetchone() == (0,)


@pytest.mark.slow
def test_the_write_check_names_the_table_that_rejects_a_write(url, own_server):
    server = own_server(migrated=True)
    server.execute("ALTER TABLE wishlist_items ADD CONSTRAINT never CHECK (false)")

    result = manage("dbstatus", "--write-check", url=server.url())

    assert result.returncode == 2
    assert "check.extra at wishlist_items.never" in result.stdout
    assert result.stderr.startswith("The database refused (IntegrityError")
    assert "The write check failed at the table wishlist_items" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "xml"],
        ["--database", "other"],
        ["--wait", "soon"],
        ["--wait", "nan"],
        ["--wait", "-1"],
        ["--no-such-option"],
    ],
)
def test_a_wrong_option_exits_with_2_and_one_line(arguments):
    result = manage("dbstatus", *arguments, url=NO_SERVER)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("manage.py dbstatus: error: ")


@pytest.mark.django_db
def test_a_missing_ledger_row_makes_none_of_our_objects_unmanaged():
    MigrationRecorder(connection).migration_qs.filter(app="accounts", name="0001_initial").delete()

    report = verify(connection)

    assert [f for f in report.findings if f.code.endswith(".extra")] == []
    assert {code for code, _ in found(report)} == {"migrations.out_of_order"}


@pytest.mark.django_db
@pytest.mark.parametrize("applied", [False, True])
def test_a_migration_unknown_to_the_contract_is_reported(applied):
    """The contract as it was before travel.0002, and that migration pending or applied."""
    name = "travel.0002_monitor_queue_index"
    old = Contract(tuple(m for m in CONTRACT.migrations if m != name), tuple(v for v in CONTRACT.versions if v.since != name))
    run('DROP INDEX "price_alerts_active_idx"')
    if not applied:
        MigrationRecorder(connection).migration_qs.filter(app="travel", name=name.split(".")[1]).delete()
        run('DROP INDEX "price_alerts_lastChecked_idx"')

    report = verify(connection, contract=old)

    stale = ("contract.stale", "contract.json")
    assert found(report) == [stale] if applied else [stale, ("index.missing", "price_alerts.price_alerts_active_idx")]
    assert collect(connection, verification=report).exit_code == (4 if applied else 5)


SCHEMA = {"table", "column", "default", "primary_key", "unique", "check", "index", "trigger", "rule", "foreign_key"}


def test_every_code_has_a_test_that_produces_it():
    """Those of the schema by the mutation matrix, which has no rows and no other role; the others by the tests that name them."""
    by_mutation = {code for mutation in mutations() for code, _ in mutation.found} | {
        "column.sequence",
        "table.function",
        "table.moved",
        "table.owner",
    }
    by_name = set(
        re.findall(
            r"\b(?:migrations|server|contract|adopt|backup|maintenance|health|security|waiver|connections|locks|transactions|queries|indexes|tables|sequences|database|cache|replication|wraparound|settings|extensions|permissions|grants|object|distribution)\.[a-z_]+",
            " ".join(
                path.read_text() for folder in ("database", "citus") for path in (PROJECT / "tests" / folder).glob("*.py")
            ),
        )
    )

    assert by_mutation == {code for code in CODES if code.partition(".")[0] in SCHEMA}
    assert CODES - by_mutation <= by_name


def test_the_report_is_read_in_one_read_only_snapshot_with_a_lock_timeout(server):
    with snapshot(connection), connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('lock_timeout')"
        )
        assert cursor.fetchone() == ("repeatable read", "on", f"{settings.LOCK_TIMEOUT}ms")


@pytest.mark.django_db
def test_the_remains_of_an_interrupted_migration_are_reported_with_their_cure():
    MigrationRecorder(connection).migration_qs.filter(app="engagement", name__gte="0004").delete()
    run("""UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"login_history_timestamp_idx"'::regclass""")

    left = ["0004_login_timestamp_index", "0007_device_address_index", "0008_login_address_index"]
    findings = verify(connection).findings

    assert [(one.code, one.where) for one in findings] == [("migrations.unrecorded", f"engagement.{name}") for name in left]
    assert {one.cure for one in findings} == {
        "Run `manage.py migrate`: an index as defined is kept, an invalid one is rebuilt."
    }
