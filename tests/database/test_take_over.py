"""Objects of another program on our tables can be taken over by the migration that dbstatus writes."""

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from fly2any.database.errors import Refusal
from fly2any.database.schema import contract as contracts
from fly2any.database.schema.contract import Version
from fly2any.database.schema.unmanaged_findings import AGREE
from fly2any.database.verification import verify
from fly2any.postgres.take_over import TakeOver
from tests.conftest import PROJECT
from tests.database.test_writes import run

KEPT = [
    ("users", "valid_user_email", "ALTER TABLE users ADD CONSTRAINT valid_user_email CHECK (email ~~ '%@%' AND name <> 'it''s \\ \"x\"')"),
    ("users", "One name", 'ALTER TABLE users ADD CONSTRAINT "One name" UNIQUE (name) DEFERRABLE'),
    ("price_alerts", "one_trip", "CREATE UNIQUE INDEX one_trip ON price_alerts (lower(origin), destination DESC) WHERE active"),
    ("user_activities", "their_user", 'ALTER TABLE user_activities ADD CONSTRAINT their_user FOREIGN KEY ("userId") REFERENCES users ON DELETE CASCADE'),
]  # fmt: skip


@pytest.mark.slow
def test_an_object_taken_over_is_ours_here_and_in_a_new_database(migrated, database, tmp_path):
    project = shutil.copytree(
        PROJECT, tmp_path / "project", ignore=shutil.ignore_patterns(".git", ".venv", ".fly2any", "__pycache__", ".*_cache")
    )

    def manage(*arguments, url=migrated.url):
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "POSTGRES_", "DATABASE_"))
        }
        told = {"POSTGRES_URL": url, "SECRET_KEY": "only for tests", "ALLOWED_HOSTS": "localhost"}
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=project, env={**clean, **told}, capture_output=True, text=True, timeout=120)

    for _, _, made in KEPT:
        migrated.execute(made)
    page = (project / "docs/reference/dbstatus.md").read_text()
    assert "python manage.py dbstatus --take-over users.valid_user_email\npython manage.py dbcontract\n" in page
    for table, name, _ in KEPT:
        written = manage("dbstatus", "--take-over", f"{table}.{name}")
        assert written.returncode == 0, written.stderr
        again = manage("dbstatus", "--take-over", f"{table}.{name}")
        assert (again.returncode, f"takes over {table}.{name}: run `manage.py dbcontract`" in again.stderr) == (2, True)
    objects = "SELECT oid::bigint FROM pg_class WHERE relname IN ('One name', 'one_trip') UNION SELECT oid::bigint FROM pg_constraint WHERE conname = ANY (%s) ORDER BY 1"
    before = migrated.execute(objects, [[name for _, name, _ in KEPT]])

    assert manage("dbcontract").returncode == 0
    assert [manage("migrate", url=url).returncode for url in (migrated.url, database.url)] == [0, 0]

    for url in (migrated.url, database.url):
        status = manage("dbstatus", "--sql", url=url)
        assert (status.returncode, status.stdout) == (0, "-- Nothing to cure in the database.\n")
    assert manage("makemigrations", "--check").returncode == 0
    assert migrated.execute(objects, [[name for _, name, _ in KEPT]]) == before
    assert manage("migrate", "accounts", "0011_roles", "--yes", "--without-backup").returncode == 0
    assert manage("migrate").returncode == 0
    migrated.execute("ALTER TABLE users DROP CONSTRAINT valid_user_email")
    assert "check.missing at users.valid_user_email" in manage("dbstatus").stdout


@pytest.mark.django_db
def test_the_migration_is_written_with_the_objects_own_name(monkeypatch, tmp_path):
    run(KEPT[0][2])
    out = io.StringIO()
    monkeypatch.setattr(apps.get_app_config("accounts"), "path", tmp_path)
    with pytest.raises(Refusal, match=r"^Cannot write .* \(No such file or directory\): run the command in a checkout"):
        call_command("dbstatus", "--take-over", "users.valid_user_email")
    (tmp_path / "migrations").mkdir()

    call_command("dbstatus", "--take-over", "users.valid_user_email", stdout=out)

    ((_, last),) = MigrationLoader(None).graph.leaf_nodes("accounts")
    (path,) = (tmp_path / "migrations").iterdir()
    assert path.name == f"{int(last[:4]) + 1:04}_take_over_valid_user_email.py"
    assert out.getvalue() == f"Wrote {path}. Now run `manage.py dbcontract` and `manage.py migrate`.\n"
    assert (
        path.read_text().replace(last, "LAST")
        == '''"""Takes over valid_user_email of users, which another program created: it is created if it does not exist."""

from django.db import migrations

from fly2any.postgres.take_over import TakeOver


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('accounts', 'LAST'),
    ]

    operations = [
        TakeOver(
            'users',
            'valid_user_email',
            [
                'ALTER TABLE "users" ADD CONSTRAINT "valid_user_email" CHECK (((email ~~ \\'%@%\\'::text) AND (name <> \\'it\\'\\'s \\\\ "x"\\'::text))) NOT VALID',
                'ALTER TABLE "users" VALIDATE CONSTRAINT "valid_user_email"',
            ],
        ),
    ]
'''
    )


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("place", "made", "why"),
    [
        ("users.nothing", "SELECT 1", "There is no unmanaged constraint or index at users.nothing"),
        ("users.theirs_c", "ALTER TABLE users ADD theirs int, ADD CONSTRAINT theirs_c CHECK (theirs > 1)", "it needs the unmanaged column theirs"),
        ("auth_group.theirs_c", "ALTER TABLE auth_group ADD CONSTRAINT theirs_c CHECK (name <> '')", "auth_group is not a table of this project"),
        ("users.theirs_c", "CREATE FUNCTION theirs(text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true'; ALTER TABLE users ADD CONSTRAINT theirs_c CHECK (theirs(email))", "it calls a function"),
        ("users.theirs_c", "CREATE TABLE theirs (id text PRIMARY KEY); ALTER TABLE users ADD CONSTRAINT theirs_c FOREIGN KEY (name) REFERENCES theirs", "it refers to theirs"),
        ("users.theirs_c", "CREATE EXTENSION btree_gist; ALTER TABLE users ADD CONSTRAINT theirs_c EXCLUDE USING gist (name WITH =)", "it needs the operator class public.gist_text_ops for access method gist, which no migration creates"),
        ("users.theirs_c", "CREATE COLLATION theirs (locale = 'C'); ALTER TABLE users ADD CONSTRAINT theirs_c CHECK (name COLLATE theirs > 'a')", "it needs the collation public.theirs"),
        ("users.theirs_i", "CREATE TEXT SEARCH CONFIGURATION theirs (COPY = simple); CREATE INDEX theirs_i ON users USING gin (to_tsvector('theirs', name))", "it needs the text search configuration public.theirs"),
    ],
)  # fmt: skip
def test_an_object_that_no_new_database_could_have_is_refused(place, made, why):
    run(made)

    with pytest.raises(Refusal, match=why):
        call_command("dbstatus", "--take-over", place)


CHECK = TakeOver(
    "users",
    "named",
    ["ALTER TABLE users ADD CONSTRAINT named CHECK (name <> '') NOT VALID", "ALTER TABLE users VALIDATE CONSTRAINT named"],
)
INDEX = TakeOver("users", "named", ["CREATE INDEX CONCURRENTLY named ON users (image)"])


@pytest.mark.parametrize(
    ("operation", "before", "done"),
    [
        (CHECK, "", [*CHECK.sql]),
        (CHECK, f"{CHECK.sql[0]}", [CHECK.sql[1]]),
        (CHECK, "; ".join(CHECK.sql), []),
        (INDEX, "", [*INDEX.sql]),
        (INDEX, "CREATE INDEX named ON users (image); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'named'::regclass", [*INDEX.sql]),
        (INDEX, "CREATE INDEX named ON users (image)", []),
    ],
)  # fmt: skip
@pytest.mark.django_db
def test_an_interrupted_run_is_finished_by_the_next(operation, before, done):
    if before:
        run(before)

    ran = []

    class Editor(connection.SchemaEditorClass):
        def execute(self, sql, params=()):
            ran.append(sql)

    operation.database_forwards("accounts", Editor(connection), None, None)

    assert ran == done


@pytest.mark.django_db
def test_the_write_check_fails_at_no_check_that_was_taken_over(monkeypatch, capsys):
    run("ALTER TABLE users ADD CONSTRAINT valid_user_email CHECK (email ~ '^[^@ ]+@[^@ ]+\\.[a-z]+$')")
    run("ALTER TABLE price_history ADD CONSTRAINT airports CHECK (origin IN ('FCO', 'OSL'))")
    kept = [Version(check, "accounts.0001_initial") for check in verify(connection).unmanaged.checks]
    contract = contracts.load()
    monkeypatch.setattr(contracts, "load", lambda: replace(contract, versions=(*contract.versions, *kept)))

    with pytest.raises(SystemExit) as end:
        call_command("dbstatus", "--write-check")

    assert (end.value.code, capsys.readouterr().out.splitlines()[-4:-2]) == (0, [
        "Write check: a row created, read, updated and deleted in each of 17 tables, and rolled back.",
        "Not tried, because the sample row violates a check of the contract: price_history (airports).",
    ])  # fmt: skip


@pytest.mark.django_db
def test_a_check_that_refuses_every_row_is_not_to_be_kept():
    run("ALTER TABLE sessions ADD theirs text, ADD CONSTRAINT closed CHECK (theirs IS NOT NULL) NOT VALID")

    [one] = [finding for finding in verify(connection).findings if finding.code == "check.extra"]

    assert (str(one.severity), one.where, one.cure) == (
        *("error", "sessions.closed"),
        f'{AGREE}ALTER TABLE "sessions" DROP CONSTRAINT "closed";',
    )
