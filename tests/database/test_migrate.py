"""`migrate` on a database in use: each run is a separate process on a real server."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fly2any.database.schema.contract import load
from tests.conftest import PROJECT, manage, recorded_migrations, start_manage
from tests.servers import OwnServer, open_transaction, recorded, runs, wait_until

# On an empty database, and on one that lacks only the last two migrations, where a round takes a fifth of the time.
ROUNDS = {"database": 3, "migrated": 17 if os.environ.get("CI") else 3}
UNDO_SQL = """
    DROP TABLE IF EXISTS probe_runs; DELETE FROM django_migrations WHERE app = 'probe';
    DELETE FROM fly2any_migration_runs WHERE migration LIKE 'probe.%'
"""


# For each line that it reads, starts eight runs at once, and prints how many of them failed.
RACE = """
    import io, os, sys, django
    django.setup()
    from django.core.management import call_command
    from django.db import connection
    call_command("migrate", plan=True, stdout=io.StringIO())  # So that no run imports anything.
    connection.close()
    for _ in sys.stdin:
        children = []
        for _ in range(8):
            pid = os.fork()
            if not pid:
                try:
                    call_command("migrate", verbosity=0)
                except BaseException as error:
                    sys.stderr.write(f"{type(error).__name__}: {error}\\n")
                    os._exit(1)
                os._exit(0)
            children.append(pid)
        print(sum(os.waitpid(pid, 0)[1] != 0 for pid in children), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("begins", ROUNDS)
def test_of_eight_runs_at_once_one_applies_and_all_succeed(request, tmp_path, begins, probe):
    database = request.getfixturevalue(begins)
    environment = probe('RunSQL("CREATE TABLE probe_runs (id int)")')
    probe('RunPython(lambda apps, editor: (time.sleep(0.1), editor.execute("INSERT INTO probe_runs VALUES (1)")))')
    environment |= {"POSTGRES_URL": database.url, "SECRET_KEY": "x", "ALLOWED_HOSTS": "x"}

    errors = (tmp_path / "errors").open("w+")
    with errors, subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RACE)],
        env={**os.environ, **environment, "PYTHONPATH": f"{environment['PYTHONPATH']}:{PROJECT}"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
    ) as race:  # fmt: skip
        for number in range(ROUNDS[begins]):
            database.execute(UNDO_SQL if begins == "migrated" else "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            race.stdin.write("\n")

            assert (number, race.stdout.readline()) == (number, "0\n"), Path(errors.name).read_text()
            assert database.execute("SELECT count(*) FROM probe_runs") == [(1,)]
            assert database.execute(
                "SELECT max(n) FROM (SELECT count(*) AS n FROM fly2any_migration_runs GROUP BY migration) AS c"
            ) == [(1,)]


@pytest.mark.slow
def test_of_eight_processes_at_once_one_applies_and_all_exit_with_0(database):
    processes = [start_manage("migrate", url=database.url) for _ in range(8)]
    ends = [(process.communicate(timeout=120), process.returncode)[1] for process in processes]

    assert ends == [0] * 8
    assert database.execute("SELECT count(*), count(DISTINCT (app, name)) FROM django_migrations") == [
        (recorded_migrations(),) * 2
    ]


@pytest.mark.slow
def test_a_lost_connection_is_one_sentence_and_rolls_back(migrated, probe):
    environment = probe("RunSQL('CREATE TABLE probe (id int)'), RunSQL('SELECT pg_sleep(60)')")
    process = start_manage("migrate", url=migrated.url, **environment)
    (pid,) = wait_until(
        migrated,
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)' AND datname = current_database() AND pid <> pg_backend_pid()",
    )
    migrated.execute("SELECT pg_terminate_backend(%s)", [pid])
    _, err = process.communicate(timeout=60)

    sentence = (
        "The server ended the connection: it was shut down or restarted, or the session was terminated."
        " Uncommitted changes are rolled back. If the answer to a COMMIT was lost, its changes may be stored: check before you try again."
    )
    assert (process.returncode, err) == (2, sentence + "\n")
    assert migrated.execute("SELECT to_regclass('probe')") == [(None,)]
    assert runs(migrated, "probe") == [("probe.0001_step", "forwards", True, sentence)]


@pytest.mark.slow
def test_a_killed_run_on_a_fresh_database_is_resumed(database):
    for step in (3, 14, 20, 26):  # Migrations that exist when it is killed.
        process = start_manage("migrate", url=database.url)
        while process.poll() is None:
            applied = database.execute("SELECT to_regclass('django_migrations')") != [(None,)] and database.execute(
                "SELECT count(*) FROM django_migrations"
            )
            if applied and applied[0][0] >= step:
                process.kill()
        process.communicate()

    assert manage("migrate", url=database.url).returncode == 0
    assert manage("dbstatus", url=database.url).returncode == 0


@pytest.mark.slow
def test_a_migration_that_cannot_be_recorded_leaves_nothing(database):
    assert manage("migrate", "contenttypes", url=database.url).returncode == 0
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON django_migrations FOR EACH ROW WHEN (NEW.app = 'accounts') EXECUTE FUNCTION refuse()"
    )
    refused = manage("migrate", url=database.url)
    left = database.execute("SELECT to_regclass('accounts')")  # Its foreign key is SQL that Django defers.
    database.execute("DROP FUNCTION refuse CASCADE")

    assert (refused.returncode, "accounts.0001_initial... OK" in refused.stdout, left) == (2, False, [(None,)])
    assert manage("migrate", url=database.url).returncode == 0


@pytest.mark.slow
def test_a_run_that_loses_its_connection_does_not_continue_without_the_lock(migrated, probe):
    environment = probe("RunPython(lambda apps, editor: editor.connection.close())", atomic=False)
    probe("RunSQL('CREATE TABLE probe (id int)')")

    result = manage("migrate", url=migrated.url, **environment)

    assert (result.returncode, result.stderr) == (
        2,
        "The connection was replaced during the run, so the migration lock is lost: run the command again.\n",
    )
    assert migrated.execute("SELECT to_regclass('probe')") == [(None,)]


@pytest.mark.slow
def test_an_interrupt_at_any_moment_ends_the_run(migrated, probe):
    """A thread watches the statements; it must not keep the process alive."""
    environment = probe("RunPython(lambda apps, editor: [editor.execute('SELECT 1') for _ in range(100_000)])")
    for _ in range(6):
        process = start_manage("migrate", url=migrated.url, **environment)
        wait_until(
            migrated,
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1' AND xact_start IS NOT NULL",
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

        assert process.returncode == 143
    assert recorded(migrated, "probe") == []


@pytest.mark.slow
def test_committed_operations_of_a_non_atomic_migration_are_not_run_again(migrated, probe):
    environment = probe(
        "RunSQL('CREATE TABLE probe (id int)'), RunSQL('INSERT INTO probe VALUES (1)'),"
        "RunPython(lambda apps, editor: editor.execute('LOCK TABLE users'), atomic=True)",
        atomic=False,
    )
    with open_transaction(migrated, "SELECT FROM users") as client:
        result = manage("migrate", url=migrated.url, **environment)
        pid = client.info.backend_pid

    assert result.returncode == 2
    assert result.stderr.startswith("probe.0001_step did not get a lock")
    assert f"because of pid {pid} (the site" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert migrated.execute("SELECT count(*) FROM probe") == [(1,)]


def test_existing_objects_of_a_recorded_database_are_not_sent_to_adoption(migrated):
    migrated.execute("DELETE FROM django_migrations WHERE app = 'sessions' OR (app = 'engagement' AND name >= '0004')")

    result = manage("migrate", url=migrated.url)

    assert result.returncode == 2
    assert result.stderr == (
        "sessions.0001_initial is not recorded, but its objects already exist (django_session). If the record is lost,"
        " run `manage.py migrate --fake sessions 0001_initial`. Drop them only if another tool created them and nothing uses them: their data"
        " is lost.\n"
    )


def test_a_role_that_may_create_nothing_finds_that_nothing_is_pending(migrated):
    migrated.execute("DROP TABLE fly2any_migration_runs")
    with migrated.role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}") as url:
        result = manage("migrate", "--verbosity", "0", url=url)

    assert (result.returncode, result.stderr) == (0, "")


def test_a_role_that_may_read_no_journal_gets_its_report(migrated):
    with migrated.role("GRANT SELECT ON django_migrations TO {role}") as url:
        result = manage("dbstatus", url=url)

    assert (result.returncode, result.stderr) == (0, "")
    assert f"  applied      {recorded_migrations()}" in result.stdout


def test_the_direct_url_must_lead_to_the_same_database(migrated, database):
    result = manage("migrate", url=migrated.url, DIRECT_URL=database.url)

    assert result.returncode == 2
    assert re.fullmatch(
        rf"DIRECT_URL points to the database {database.name} \(number \d+\), schema public, of the server that started at [-0-9 :.]+,"
        rf" and POSTGRES_URL to {migrated.name} \(number \d+\), schema public, of the server that started at [-0-9 :.]+:"
        r" correct one of them\.\n",
        result.stderr,
    )
    assert database.execute("SELECT to_regclass('django_migrations')") == [(None,)]


@pytest.mark.slow
def test_the_direct_url_of_another_server_is_refused_though_the_database_has_the_same_name_and_number(
    own_server, tmp_path_factory
):
    one, other = own_server(), OwnServer(tmp_path_factory.mktemp("server"), {})
    number = "SELECT oid FROM pg_database WHERE datname = current_database()"
    try:
        assert one.execute(number) == other.start().create_database().execute(number)

        result = manage("migrate", url=one.url(), DIRECT_URL=other.url())

        assert (result.returncode, result.stderr.startswith("DIRECT_URL points to the database fly2any (number ")) == (2, True)
        assert other.execute("SELECT to_regclass('django_migrations')") == [(None,)]
    finally:
        other.remove()


@pytest.mark.slow
def test_the_direct_url_takes_the_schema_of_the_pooled_url(database):
    database.execute("CREATE SCHEMA site")

    assert manage("migrate", url=f"{database.url}&schema=site", DIRECT_URL=database.url).returncode == 0
    assert database.execute("SELECT to_regclass('public.users'), to_regclass('site.users')::text") == [(None, "site.users")]


def test_the_journal_records_every_run(migrated):
    assert manage("migrate", "engagement", "0005", "--yes", "--without-backup", url=migrated.url).returncode == 0

    name = migrated.execute(
        "SELECT migration, direction, error, person, code FROM fly2any_migration_runs ORDER BY id DESC LIMIT 1"
    )
    status = manage("dbstatus", url=migrated.url)

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True).stdout.strip()
    assert name[0][:3] == ("engagement.0006_roles", "backwards", None)
    assert name[0][3].count("@") == 1
    assert name[0][4] == (commit or "unknown")
    back = [name for name in load().migrations if name.startswith("engagement.") and name > "engagement.0006"]
    assert migrated.execute("SELECT count(*) FROM fly2any_migration_runs") == [(len(load().migrations) + len(back),)]
    assert re.search(
        rf"last run     engagement\.0006_roles backwards on .* UTC by .+@.+, code {commit or 'unknown'}\n",
        status.stdout,
    )


@pytest.mark.slow
def test_dbstatus_reports_a_current_run(migrated, probe):
    environment = probe("RunSQL('SELECT pg_sleep(60)')")
    process = start_manage("migrate", url=migrated.url, **environment)
    wait_until(
        migrated,
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)' AND datname = current_database() AND pid <> pg_backend_pid()",
    )

    status = manage("dbstatus", url=migrated.url, **environment)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert re.search(r"  running      the migration lock is held by pid \d+ \(fly2any,", status.stdout)
    assert "migrations.failed" not in status.stdout


def test_a_prisma_database_is_not_faked_either(database):
    database.execute("CREATE TABLE users (id text)")

    result = manage("migrate", "--fake", url=database.url)

    assert (result.returncode, "dbadopt" in result.stderr) == (2, True)
    assert database.execute("SELECT to_regclass('django_migrations')") == [(None,)]


def test_fake_initial_is_refused(database):
    result = manage("migrate", "--fake-initial", url=database.url)

    assert (result.returncode, result.stderr) == (
        2,
        "--fake-initial checks only the names of tables: run `manage.py dbadopt`, which compares their definitions.\n",
    )


@pytest.mark.parametrize(
    "made", ["CREATE TABLE users (id text)", "CREATE TABLE ai_messages (); CREATE TABLE django_migrations ()"]
)
def test_tables_of_ours_without_a_record_are_to_be_adopted(database, made):
    database.execute(made.partition(";")[0])

    result = manage("migrate", url=database.url)

    assert result.returncode == 2
    assert re.fullmatch(
        r"\w+\.0001_initial is not recorded, but its objects already exist \(\w+\): another tool created this database\."
        r" Adopt it with `manage\.py dbadopt`, which shows its plan and changes nothing without --yes\.\n",
        result.stderr,
    )
    assert database.execute("SELECT to_regclass('django_migrations'), to_regclass('fly2any_migration_runs')") == [(None, None)]


def test_a_non_atomic_migration_of_ours_does_one_thing():
    """After a kill between two, the next run could not know which is done."""
    for path in PROJECT.glob("*/migrations/0*.py"):
        text = path.read_text()
        if "atomic = False" in text:
            operations = re.search(r"operations = \[\n(.*)\n    \]", text, re.S)[1]
            assert len(re.findall(r"^        \w", operations, re.M)) == 1, Path(path).name


@pytest.mark.slow
def test_models_are_checked_before_a_migration_and_pages_are_not(migrated, probe, tmp_path):
    environment = probe("RunSQL('SELECT 1')")
    settings = tmp_path / "probe_settings.py"
    settings.write_text(settings.read_text() + 'ROOT_URLCONF = "nowhere"\nTEMPLATES = []\n')

    migrated_so = manage("migrate", url=migrated.url, **environment)
    checked = manage("check", url=migrated.url, **environment)
    (tmp_path / "probe" / "models.py").write_text(
        'from django.db import models\n\nclass Odd(models.Model):\n    class Meta:\n        managed, ordering = False, ["nothing"]\n'
    )
    refused = manage("migrate", url=migrated.url, **environment)

    assert (migrated_so.returncode, migrated_so.stderr) == (0, "")
    assert checked.returncode == 1
    assert (refused.returncode, "probe.Odd: (models.E015)" in refused.stderr) == (1, True)
