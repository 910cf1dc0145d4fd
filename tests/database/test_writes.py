"""Objects that make our writes fail are found, by the catalogue or by a write check."""

import re

import pytest
from django.core.management import call_command
from django.db import Error, connection

from fly2any.database.schema import read_catalog
from fly2any.database.schema.drift import compare
from fly2any.database.schema.expressions_on_server import Live
from fly2any.database.schema.unmanaged import AGREE
from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from tests.conftest import recorded_migrations
from tests.database.mutation import EXPECTED, within

RAISES = """CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this'; END $$"""


def run(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(within(statement))


def found():
    return [(finding.severity, finding.code, finding.where) for finding in verify(connection).findings]


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize("table", [column.table for column in EXPECTED.columns if column.identity])
def test_a_sequence_behind_its_column_is_found_and_its_cure_works(table):
    type_of = {c.name: c.type for c in EXPECTED.columns if c.table == table and not c.nullable and c.default is None}
    made = {
        "timestamp with time zone": "now()",
        "boolean": "false",
        "jsonb": "'{}'",
        "inet": "'::1'",
        "bytea": "'a'",
        "uuid": "gen_random_uuid()",
    }
    values = {name: made.get(type_, "'1'") for name, type_ in type_of.items() if name != "id"}
    names = ", ".join(f'"{name}"' for name in ("id", *values))
    run(
        "SET session_replication_role = replica",
        f'INSERT INTO "{table}" ({names}) VALUES ({", ".join(["900001", *values.values()])})',
        f"SELECT setval(pg_get_serial_sequence('\"{table}\"', 'id'), 900000)",
        "SET session_replication_role = origin",
    )

    (finding,) = compare(EXPECTED, read_catalog(connection, schema="public"), live=Live(connection, "public")).findings

    assert (finding.severity, finding.code, finding.where) == ("error", "column.sequence", f"{table}.id")
    assert (
        finding.message
        == f"The sequence of column id of {table} returns 900001 next, but values up to 900001 are in use: an INSERT that gets one of them fails."
    )
    run(finding.cure)
    assert compare(EXPECTED, read_catalog(connection, schema="public"), live=Live(connection, "public")).findings == ()


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("done", "refusal"),
    [
        ("CREATE TRIGGER theirs BEFORE UPDATE OF \"userId\" ON price_alerts FOR EACH ROW EXECUTE FUNCTION theirs()", "price_alerts: A function or trigger"),
        ("CREATE TRIGGER theirs BEFORE INSERT ON price_alerts FOR EACH ROW WHEN (NEW.\"returnDate\" IS NULL) EXECUTE FUNCTION theirs()", "price_alerts: A function or trigger"),
        ("CREATE CONSTRAINT TRIGGER theirs AFTER DELETE ON ai_messages DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION theirs()", "ai_messages: A function or trigger"),
        ("ALTER TABLE price_alerts ADD theirs text, ADD UNIQUE NULLS NOT DISTINCT (theirs)", "price_alerts: duplicate key value"),
        ("ALTER TABLE price_alerts ADD theirs text GENERATED ALWAYS AS (length(id) / 0) STORED", "price_alerts: division by zero"),
    ],
)  # fmt: skip
def test_the_write_check_tries_every_column_optional_rows_and_deferred_triggers(done, refusal):
    if connection.pg_version < 150000:
        done = done.replace("text, ADD UNIQUE NULLS NOT DISTINCT", "text DEFAULT 'a', ADD UNIQUE")
    run(RAISES, done)

    assert str(check_writes(connection).error).startswith(f"The write check failed at the table {refusal}")


@pytest.mark.slow
@pytest.mark.django_db
def test_the_write_check_fails_at_a_row_that_cannot_be_read():
    run('ALTER TABLE ai_messages ALTER "flightResults" TYPE json')

    said = "The write check failed at the table ai_messages: the row that was written cannot be read: "
    assert str(check_writes(connection).error).startswith(said)


@pytest.mark.django_db
def test_a_check_of_another_role_is_reported_and_its_function_never_runs():
    run(
        "CREATE ROLE theirs",
        "CREATE SCHEMA theirs AUTHORIZATION theirs",
        "CREATE SEQUENCE theirs.ran",
        """CREATE FUNCTION theirs.check(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
           $$ BEGIN PERFORM nextval('theirs.ran'); RAISE 'it ran'; END $$""",
        "ALTER FUNCTION theirs.check OWNER TO theirs",
        "ALTER TABLE users ADD theirs text, ADD CONSTRAINT theirs CHECK (theirs.check('a')) NOT VALID",
        "ALTER TABLE users ADD theirs_b text, ADD CONSTRAINT theirs_b CHECK (theirs.check(theirs_b)) NOT VALID",
    )

    assert [where for _, code, where in found() if code == "check.extra"] == ["users.theirs", "users.theirs_b"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT is_called FROM theirs.ran")
        assert cursor.fetchone() == (False,)


@pytest.mark.django_db
def test_a_trigger_is_a_note_that_says_it_was_not_tried():
    run(RAISES, "CREATE TRIGGER theirs BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION theirs()")

    (finding,) = verify(connection).findings

    assert finding.message == "Trigger theirs of users is unmanaged and was not tried; it may change or reject our writes."


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("place", "severity"),
    [
        ("DATABASE {database}", "error"),
        ("ROLE {role}", "error"),
        ("ROLE {role} IN DATABASE {database}", "error"),
        ("ROLE ALL", "error"),
        ("ROLE writes_of_theirs", "note"),
        ("ROLE reads_of_theirs", None),
    ],
)
def test_a_read_only_default_is_found_wherever_it_is_set(place, severity):
    run("CREATE ROLE writes_of_theirs", "CREATE ROLE reads_of_theirs", "GRANT INSERT ON price_alerts TO writes_of_theirs")
    name = connection.settings_dict["NAME"]
    place = place.format(database=name, role=connection.settings_dict["USER"])

    run(f"ALTER {place} SET default_transaction_read_only TO yes")

    assert found() == ([(severity, "database.read_only", name)] if severity else [])
    for finding in verify(connection).findings:
        assert finding.message.startswith(f"default_transaction_read_only is on ({place}), so every write of ")
        run(finding.cure)
    run(f"ALTER {place} RESET default_transaction_read_only")


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    "made",
    [
        "CREATE SEQUENCE theirs MAXVALUE 2; SELECT setval('theirs', 2);"
        " ALTER TABLE users ADD COLUMN theirs integer DEFAULT nextval('theirs') NOT NULL",
        "CREATE SEQUENCE theirs START 32767; SELECT nextval('theirs');"
        " ALTER TABLE users ADD COLUMN theirs smallint; ALTER TABLE users ALTER theirs SET DEFAULT nextval('theirs')",
        "ALTER TABLE users ADD COLUMN theirs smallint GENERATED BY DEFAULT AS IDENTITY (START 32767);"
        " SELECT nextval('users_theirs_seq')",
        "ALTER TABLE users ADD COLUMN theirs integer GENERATED ALWAYS AS IDENTITY (INCREMENT -1 MINVALUE -1 MAXVALUE 1 START -1);"
        " SELECT nextval('users_theirs_seq')",
    ],
)
def test_an_exhausted_sequence_of_an_unmanaged_column_is_found_and_its_cure_works(made):
    run(made)

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code, finding.where) == ("error", "column.sequence", "users.theirs")
    assert finding.message == "The sequence of the unmanaged column theirs of users is exhausted, so every INSERT fails."
    run(finding.cure.removeprefix(AGREE))
    assert found() == []
    run("INSERT INTO users (id, email, \"updatedAt\") VALUES ('a', 'a@example.com', now())")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("made", "severity", "message"),
    [
        (
            "ALTER TABLE notifications ADD CONSTRAINT theirs CHECK (now() < '2020-01-01'::timestamptz) NOT VALID",
            "error",
            "and refuses every row now.",
        ),
        (
            "ALTER TABLE notifications ADD CONSTRAINT theirs CHECK (now() < '2999-01-01'::timestamptz)",
            "note",
            "and accepts what our INSERT stores now, but depends on the time or the session.",
        ),
        (
            "ALTER TABLE notifications ADD COLUMN theirs integer NOT NULL DEFAULT (current_setting('app.tenant', true))::integer",
            "warning",
            "is NULL in this session, so an INSERT fails where it is NULL.",
        ),
    ],
)
def test_expressions_of_the_time_or_the_session_are_evaluated_now(made, severity, message):
    run(made)

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.where) == (severity, "notifications.theirs")
    assert finding.message.endswith(f"{message}")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "made",
    [
        "ALTER TABLE notifications ADD CONSTRAINT theirs CHECK (1 < 2)",
        "ALTER TABLE notifications ADD COLUMN theirs timestamptz NOT NULL DEFAULT now()",
        "ALTER TABLE notifications ADD COLUMN theirs text NOT NULL DEFAULT (gen_random_uuid())::text",
        "ALTER TABLE notifications ADD COLUMN theirs text NOT NULL DEFAULT current_user",
    ],
)
def test_an_object_that_never_rejects_a_row_is_not_a_finding(made):
    run(made)

    assert found() == []


@pytest.mark.django_db
@pytest.mark.parametrize("start", [5, -10])
def test_a_decreasing_identity_sequence_is_found_before_it_collides_or_is_exhausted(start):
    run(
        f"ALTER SEQUENCE django_migrations_id_seq INCREMENT -1 MINVALUE -10 START {start} RESTART WITH {start}",
        "SELECT nextval('django_migrations_id_seq')",
    )

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code, finding.where) == ("error", "column.sequence", "django_migrations.id")
    run(finding.cure)
    assert [one.message for one in verify(connection).findings] == (
        []
        if start > 0
        else [
            f"The sequence of column id of django_migrations returns -9 next, but values up to {recorded_migrations()} are in use: an INSERT that gets one of them fails."
        ]
    )


@pytest.mark.django_db
@pytest.mark.parametrize(("value", "digits"), [("0", "15 significant digits"), ("-15", "1 significant digit")])
def test_a_default_that_rounds_prices_is_found_and_its_cure_works(value, digits):
    name = connection.settings_dict["NAME"]
    run(f"ALTER DATABASE {name} SET extra_float_digits TO {value}")

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code, finding.where) == ("warning", "database.float_digits", f"DATABASE {name}")
    assert finding.message == (
        f"Sessions of DATABASE {name} begin with extra_float_digits = {value}: clients read a price rounded to {digits}."
    )
    run(finding.cure)
    assert found() == []


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("setting", "value", "code", "does"),
    [
        ("default_transaction_isolation", "serializable", "database.isolation", "concurrent writes may fail with serialization errors (40001)."),
        ("default_transaction_isolation", "read committed", None, ""),
        ("temp_file_limit", "0", "database.temp_files", "a sort or an index build that does not fit into memory fails."),
        ("temp_file_limit", "1GB", None, ""),
        ("enable_bitmapscan", "off", "database.plans", "queries that an index serves read whole tables."),
        ("enable_indexscan", "0", "database.plans", "queries that an index serves read whole tables."),
        ("enable_indexscan", "on", None, ""),
        ("role", "pg_monitor", "database.role", "that role may not write here, although the role that connects may."),
        ("role", "pg_write_all_data", None, ""),
        ("role", "none", None, ""),
        ("default_tablespace", "pg_default", None, ""),
        ("default_tablespace", "nowhere", None, ""),  # PostgreSQL ignores a tablespace that does not exist.
        ("default_table_access_method", "heap", None, ""),
        ("default_table_access_method", "theirs", "database.access_method", "migrations create tables that may lack keys, or fail if the server has no such method."),
    ],
)  # fmt: skip
def test_a_default_that_breaks_reads_or_writes_is_found_and_its_cure_works(setting, value, code, does):
    name = connection.settings_dict["NAME"]
    if value == "theirs":
        run("CREATE ACCESS METHOD theirs TYPE TABLE HANDLER heap_tableam_handler")
    run(f"ALTER DATABASE {name} SET {setting} TO '{value}'")

    findings = verify(connection).findings

    assert [(one.severity, one.code, one.where) for one in findings] == [("warning", code, f"DATABASE {name}")] * bool(code)
    for finding in findings:
        assert finding.message == f"Sessions of DATABASE {name} begin with {setting} = {value}: {does}"
        run(finding.cure)
    assert found() == []


@pytest.mark.django_db
def test_a_default_tablespace_in_which_the_role_may_create_nothing_is_found():
    name = connection.settings_dict["NAME"]
    run("CREATE ROLE site", f"ALTER DATABASE {name} SET default_tablespace TO pg_global", "SET SESSION AUTHORIZATION site")
    try:
        found = {one.code: one.message for one in verify(connection).findings}
    finally:
        run("RESET SESSION AUTHORIZATION")

    assert found["database.tablespace"] == (
        f"Sessions of DATABASE {name} begin with default_tablespace = pg_global: this role may create nothing in that tablespace, so migrations fail."
    )


@pytest.mark.django_db
def test_an_exhausted_sequence_is_found_and_the_cure_works():
    # Transactional, as setval is not.
    run(
        "ALTER SEQUENCE django_migrations_id_seq MAXVALUE 1000000 RESTART WITH 1000000",
        "SELECT nextval('django_migrations_id_seq')",
    )

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code, finding.where) == ("error", "column.sequence", "django_migrations.id")
    assert finding.message == "The sequence of column id of django_migrations is exhausted: an INSERT fails."
    run(finding.cure)
    assert found() == []


@pytest.mark.django_db
@pytest.mark.parametrize("table", ["auth_permission", "django_admin_log"], ids=["with rows", "without"])
def test_a_sequence_at_the_limit_of_its_column_continues_after_the_values_in_use(table):
    run(f"SELECT setval('{table}_id_seq', 2147483647)")

    (finding,) = verify(connection).findings

    assert (finding.severity, finding.code) == ("error", "column.sequence")
    run(finding.cure)
    assert found() == []


@pytest.mark.django_db
def test_a_sequence_and_values_at_the_limit_of_their_column_have_no_cure_in_sql():
    run(
        "INSERT INTO auth_group (id, name) VALUES (2147483647, 'last')",
        "SELECT setval('auth_group_id_seq', 2147483647)",
    )

    (finding,) = verify(connection).findings
    run("SELECT setval('auth_group_id_seq', 1000)")  # No rollback does this.

    assert (finding.code, finding.where, finding.is_sql) == ("column.sequence", "auth_group.id", False)
    assert finding.cure == "Change its column to bigint in a migration, and the sequence with it."


@pytest.mark.django_db
def test_a_write_check_reports_what_it_tried(capsys):
    run(
        "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "CREATE TRIGGER theirs BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION theirs()",
        "CREATE TRIGGER theirs BEFORE INSERT ON auth_group FOR EACH ROW EXECUTE FUNCTION theirs()",
    )

    with pytest.raises(SystemExit) as end:
        call_command("dbstatus", "--write-check")

    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert "Trigger theirs of users is unmanaged and refused nothing in the write check; it may change" in printed
    assert "Trigger theirs of auth_group is unmanaged and was not tried; it may change" in printed


@pytest.mark.django_db
def test_a_failed_write_check_reports_what_it_tried(capsys):
    run(
        RAISES,
        "CREATE FUNCTION passes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "CREATE TRIGGER a BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION passes()",
        "CREATE TRIGGER b BEFORE INSERT ON price_alerts FOR EACH ROW EXECUTE FUNCTION passes()",
        "CREATE TRIGGER c BEFORE INSERT ON price_alerts FOR EACH ROW EXECUTE FUNCTION theirs()",
        "CREATE TRIGGER d BEFORE INSERT ON ai_messages FOR EACH ROW EXECUTE FUNCTION passes()",
    )

    with pytest.raises(Error, match=r"^The write check failed at the table price_alerts: A function or trigger"):
        call_command("dbstatus", "--write-check")

    assert re.findall(r"Trigger (\w) of \w+ is unmanaged and (.*?);", capsys.readouterr().out) == [
        ("d", "was not tried"),
        ("b", "was tried in the write check, which failed at this table"),
        ("c", "refused a row in the write check"),
        ("a", "refused nothing in the write check"),
    ]
