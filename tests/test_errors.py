"""The guide's five troubleshooting cases, each from a real server, answered as docs/reference/errors.md says."""

import json
import re
import socket
import time

import pytest
from django.db import Error, NotSupportedError, OperationalError

from fly2any.database.errors import CAUSES, FUNCTION_FAILED, UNNAMED_FUNCTION_FAILED, explain, is_lost, named_function
from fly2any.database.write_check import check_writes
from fly2any.postgres.search_path import SearchPathError
from tests import prisma
from tests.conftest import PROJECT, django, manage
from tests.servers import free_port

PAGE = (PROJECT / "docs" / "reference" / "errors.md").read_text()


def sentence_of(case):
    """The sentence of the page for a case, as a pattern."""
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| *{case}*")]
    return re.escape(row.split(" | ")[2].removesuffix(" |")).replace("…", ".*")


def already_exists(database, own_server):
    database.execute(prisma.exact())
    return manage("migrate", url=database.url)


def tls_required(database, own_server):
    server = own_server()
    server.hba("hostssl all all 127.0.0.1/32 trust")
    return manage("migrate", url=server.url(parameters="?sslmode=disable"))


def permission_denied(database, own_server):
    with database.role() as url:
        return manage("migrate", url=url)


def timeout(database, own_server):
    with socket.socket() as silent:  # It accepts connections and never responds.
        silent.bind(("127.0.0.1", free_port()))
        silent.listen()
        port = silent.getsockname()[1]
        return manage("migrate", url=f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=2")


def lock_timeout(database, own_server):
    with database.connect(application_name="the other") as other:
        other.execute("SELECT pg_advisory_lock(72707369)")
        return manage("migrate", "--lock-wait", "1", url=database.url)


CASES = {
    "relation already exists": already_exists,
    "SSL connection required": tls_required,
    "permission denied": permission_denied,
    "connection timeout": timeout,
    "migration lock timeout": lock_timeout,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES)
def test_the_guides_five_cases_are_answered_with_cause_and_cure(database, own_server, case):
    result = CASES[case](database, own_server)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert re.fullmatch(sentence_of(case), result.stderr.splitlines()[-1]), result.stderr


def test_every_sentence_is_on_the_page():
    sentences = [*(cause.sentence for cause in CAUSES), FUNCTION_FAILED, UNNAMED_FUNCTION_FAILED]
    said = {re.sub(r"\{\w+\}", "…", sentence).replace("|", "/") for sentence in sentences}

    assert {sentence for sentence in said if f"| {sentence} |" not in PAGE} == set()


def test_every_sqlstate_is_in_the_row_of_its_sentence():
    rows = dict(re.findall(r"^\| (.*) \| (.*) \|$", PAGE, re.M))
    known = {(re.sub(r"\{\w+\}", "…", cause.sentence), state) for cause in CAUSES for state in cause.sqlstates.split()}

    assert {(sentence, state) for sentence, state in known if f"`{state}`" not in rows[sentence]} == set()


def test_an_error_of_django_is_not_attributed_to_the_database():
    error = NotSupportedError(
        "The AddIndexConcurrently operation cannot be executed inside a transaction (set atomic = False)."
    )

    assert explain(error) == (
        "The AddIndexConcurrently operation cannot be executed inside a transaction (set atomic = False)"
        " (NotSupportedError of Django; --traceback shows where)."
    )


def test_a_node_of_citus_is_not_mistaken_for_the_server():
    error = OperationalError(
        "connection to the remote node app@10.0.0.2:5432 failed with the following error: Connection refused\n\tIs the server running?"
    )

    assert explain(error) == (
        "The node 10.0.0.2:5432 of Citus does not answer: start it, or repair its network (`manage.py dbstatus` shows the nodes)."
    )


def test_a_cause_is_reported_once():
    sentences = [cause.sentence for cause in CAUSES if cause.sqlstates]

    assert len(sentences) == len(set(sentences))


LEFTOVER = """
    CREATE FUNCTION repack_trigger() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO repack.log_16384 VALUES (NEW.id); RETURN NEW; END $$;
    CREATE TRIGGER repack_trigger AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION repack_trigger();
"""
FAILURES = {
    "missing schema": (LEFTOVER, "repack_trigger()", 'relation "repack.log_16384" does not exist'),
    "missing table": (LEFTOVER.replace("repack.log", "log"), "repack_trigger()", 'relation "log_16384" does not exist'),
    "missing column": (
        "CREATE TABLE log_16384 (); " + LEFTOVER.replace("repack.log_16384", "log_16384 (pk)"),
        "repack_trigger()",
        'column "pk" of relation "log_16384" does not exist',
    ),
    "exception": (LEFTOVER.replace("INSERT INTO repack.log_16384 VALUES (NEW.id)", "RAISE 'request timed out'"), "repack_trigger()", "A function or trigger of the database raised SQLSTATE P0001"),
    "syntax": (
        "SET check_function_bodies = off; " + LEFTOVER.replace("INSERT INTO repack.log_16384 VALUES (NEW.id)", "END IF"),
        '"repack_trigger"', 'syntax error at or near "IF"',
    ),
    "check": (
        """CREATE FUNCTION "Is it"(text, double precision) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN $2 / 0 > 1; END $$;
           ALTER TABLE users ADD CHECK ("Is it"(id, 1))""",
        '"Is it"(text,double precision)', "division by zero",
    ),
    "default": (
        """CREATE FUNCTION theirs() RETURNS int LANGUAGE sql VOLATILE SECURITY DEFINER AS $$ SELECT 1 / 0 $$;
           ALTER TABLE users ADD theirs int DEFAULT theirs()""",
        '"theirs"', "division by zero",
    ),
}  # fmt: skip


def refusal(database):
    """The sentence for the write check's error."""
    with django(database) as connection:
        return explain(check_writes(connection).error)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_function_that_fails_is_named(migrated, failure):
    made, function, reason = FAILURES[failure]
    migrated.execute(made)

    assert refusal(migrated) == FUNCTION_FAILED.format(
        function=function, line=f"The write check failed at the table users: {reason}"
    )


@pytest.mark.parametrize(
    ("context", "function"),
    [
        ('SQL statement "INSERT INTO log VALUES (f(1))"\nPL/pgSQL function audit.record() line 1 at SQL statement', "audit.record()"),
        ("SQL-Anweisung »SELECT 1 FROM f(1)«\nPL/pgSQL-Funktion bad() Zeile 1 bei SQL-Anweisung", "bad()"),
        ("fonction PL/pgSQL \"Is it\"(text,integer), ligne 1 à RETURN", '"Is it"(text,integer)'),
        ("función PL/pgSQL bad() en la línea 1 en asignación", "bad()"),
        ("PL/pgSQL関数bad()の1行目 - SQL文", "bad()"),
        ("Kompilierung der PL/pgSQL-Funktion »bad« nahe Zeile 1", '"bad"'),
        ("SQL-Funktion »theirs« Anweisung 1", '"theirs"'),
        ("fonction SQL « theirs », instruction 1", '"theirs"'),
        ("instruction SQL « SELECT f(1) »", None),
        ('SQL statement "SELECT 1"\nPL/pgSQL function inline_code_block line 1 at PERFORM', None),
        ("PL/pgSQL-Funktion inline_code_block Zeile 1 bei PERFORM", None),
        ("COPY users, line 1, column id", None),
    ],
)  # fmt: skip
def test_a_function_is_named_in_each_language_of_the_server(context, function):
    assert named_function(context) == function


def test_a_function_in_c_that_fails_is_not_taken_for_a_missing_migration(migrated):
    statement = "SELECT 1 FROM missing"
    migrated.execute(f"ALTER TABLE users ADD theirs text DEFAULT query_to_xml('{statement}', true, true, '')::text")

    assert refusal(migrated) == UNNAMED_FUNCTION_FAILED.format(
        line='The write check failed at the table users: relation "missing" does not exist'
    )


def test_the_servers_hint_follows_its_message(migrated):
    migrated.execute("ALTER TABLE users REPLICA IDENTITY NOTHING; CREATE PUBLICATION theirs FOR TABLE users")

    assert refusal(migrated) == (
        "The database refused (OperationalError, SQLSTATE 55000): The write check failed at the table users:"
        ' cannot update table "users" because it does not have a replica identity and publishes updates.'
        " To enable updating the table, set REPLICA IDENTITY using ALTER TABLE (--traceback shows where)."
    )


@pytest.mark.parametrize(
    ("statement", "start"),
    [
        ("DO $$ BEGIN PERFORM * FROM missing; END $$", "A table is missing ("),
        ("SELECT waits()", "The statement was cancelled ("),
    ],
)
def test_an_error_that_no_function_causes_keeps_its_cure(database, statement, start):
    database.execute("CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); END $$")

    with django(database) as connection, connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 100")
        with pytest.raises(Error) as raised:
            cursor.execute(statement)

    assert explain(raised.value).startswith(start)


def test_the_definition_of_a_function_that_failed_is_read_as_the_sentence_says(migrated):
    migrated.execute(LEFTOVER)

    result = manage("dbstatus", "--write-check", url=migrated.url)

    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert "trigger.extra at users.repack_trigger" in result.stdout
    read = re.search(r"read its definition with (.*) in `manage.py dbshell`", result.stderr)[1]
    assert "log_16384" in manage("dbshell", "--", "-c", read, url=migrated.url).stdout


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (
            "SELECT pg_read_file('nothing')",
            'The server lacks a file (could not open file "nothing" for reading: No such file or directory): ',
        ),
        ("GRANT SELECT ON pg_class TO nobody_here", 'The database refused (ProgrammingError, SQLSTATE 42704): role "nobody_here" does not exist '),
        ("SET TimeZone TO 'nowhere'", "The database refused (DataError, SQLSTATE 22023): invalid value for parameter "),
    ],
)  # fmt: skip
def test_a_failed_statement_is_not_taken_for_a_failed_connection(database, statement, sentence):
    with django(database) as connection, connection.cursor() as cursor, pytest.raises(Error) as raised:
        cursor.execute(statement)

    assert explain(raised.value).startswith(sentence)


def test_a_role_that_may_not_create_temporary_tables_is_told_the_privilege(database):
    name = database.name
    database.execute(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC; CREATE ROLE "{name}_r"')
    said = f'The role may not create temporary tables in the database "{name}": grant it TEMPORARY on the database, and run the command again.'

    with django(database) as connection, connection.cursor() as cursor:
        cursor.execute(f'SET ROLE "{name}_r"')
        with pytest.raises(Error) as raised:
            cursor.execute("CREATE TEMPORARY TABLE t ()")
        cursor.execute(f'RESET ROLE; GRANT TEMPORARY ON DATABASE "{name}" TO "{name}_r"; SET ROLE "{name}_r"')
        cursor.execute("CREATE TEMPORARY TABLE t ()")
        cursor.execute("DROP TABLE t")  # The server drops it only some time after the session has ended.
    assert explain(raised.value) == said
    database.execute(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM "{name}_r"; DROP ROLE "{name}_r"')


def test_a_replica_that_does_not_answer_is_named_by_its_own_place(database):
    with socket.socket() as silent:  # It accepts connections and never responds.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        url = f"postgresql://u@127.0.0.1:{port}/d?connect_timeout=2"
        result = manage("dbhealth", "replication", "--format", "json", url=database.url, POSTGRES_REPLICA_URL=url)

    [found] = [one["message"] for one in json.loads(result.stdout)["findings"] if one["code"] == "replication.unreachable"]
    assert found == (
        f"The replica does not answer: The server at 127.0.0.1, port {port} did not answer in time: check that it is running and that"
        " no firewall blocks this machine's address."
    )


def test_a_lost_connection_is_not_said_to_have_changed_nothing():
    error = OperationalError("consuming input failed: server closed the connection unexpectedly\n\tThis probably means …")

    assert explain(error) == (
        "The connection was lost: the server stopped or restarted, or the network failed. Uncommitted changes are rolled back."
        " If the answer to a COMMIT was lost, its changes may be stored: check before you try again."
    )


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
        ("SET idle_in_transaction_session_timeout = 1; BEGIN; SELECT pg_sleep(0)", True),
        ("SET statement_timeout = 1; SELECT pg_sleep(1)", False),
        ("SELECT 1/0", False),
    ],
)
def test_a_connection_is_lost_if_the_server_ended_it(database, statement, lost):
    def run():
        with connection.cursor() as cursor:
            cursor.execute(statement)
            time.sleep(0.1)
            cursor.execute("SELECT 1")
            cursor.execute("SELECT 1")

    with django(database) as connection, pytest.raises(Error) as raised:
        run()

    assert is_lost(raised.value) is lost


def test_a_connection_that_would_run_another_roles_code_is_not_lost():
    """A new connection would not help: it is refused again."""
    assert is_lost(SearchPathError("django_migrations belongs to another role")) is False


def test_a_migration_that_cannot_be_recorded_names_the_cure_of_the_sequence(migrated):
    """As after a restore of rows without the positions of sequences."""
    migrated.execute("DELETE FROM django_migrations WHERE (app, name) = ('travel', '0005_alert_route_index')")
    migrated.execute('DROP INDEX "price_alerts_route_createdAt_idx"; ALTER TABLE django_migrations ALTER id RESTART WITH 3')

    failed = manage("migrate", url=migrated.url)
    cures = manage("dbstatus", "--sql", url=migrated.url).stdout

    assert failed.returncode == 2
    assert failed.stderr.endswith(
        'The sequence of django_migrations returned a value that is in use (duplicate key value violates unique constraint "django_migrations_pkey"):'
        " `manage.py dbstatus --sql` prints the cure.\n"
    )
    migrated.execute(re.search(r"^SELECT pg_catalog\.setval\(.*$", cures, re.M)[0])
    assert manage("migrate", url=migrated.url).returncode == 0
