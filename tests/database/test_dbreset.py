"""dbreset on a real server."""

import contextlib
import os
import pty
import re

import pytest

from tests.conftest import manage, start_manage
from tests.database.sites import OURS
from tests.prisma import PHASE7
from tests.servers import open_transaction


def tables(database):
    return {
        name
        for (name,) in database.execute(
            "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace"
        )
    }


def test_without_yes_it_shows_the_plan_and_changes_nothing(migrated):
    migrated.execute("""INSERT INTO users (id, email, "updatedAt") VALUES ('a', 'a', now()); ANALYZE users""")
    before = tables(migrated)

    result = manage("dbreset", url=migrated.url)

    assert (result.returncode, result.stderr) == (0, "")
    assert re.match(r"Would reverse: travel\.\d{4}_\w+, travel\.\d{4}_\w+, ", result.stdout)
    listed = dict(re.findall(r"^  (\w+) +(\d+ rows?)$", result.stdout, re.M))
    assert (listed["users"], "fly2any_notes" in listed, "fly2any_accesses" in listed) == ("1 row", True, False)
    assert len({len(line.partition(" row")[0]) for line in result.stdout.splitlines() if line.startswith("  ")}) == 1
    assert tables(migrated) == before
    assert migrated.execute("SELECT count(*) FROM users") == [(1,)]


@pytest.mark.slow
def test_the_four_apps_are_removed_and_everything_else_stays(migrated):
    migrated.execute("CREATE TABLE theirs (id int PRIMARY KEY); INSERT INTO theirs VALUES (1)")
    before = tables(migrated)

    result = manage("dbreset", "--yes", url=migrated.url)

    assert (result.returncode, result.stderr) == (0, "")
    on_users = {"users_groups", "users_user_permissions", "django_admin_log", "fly2any_notes"}
    on_users |= {"otp_totp_totpdevice", "otp_static_staticdevice", "otp_static_statictoken"}
    on_users |= {f"django_otp_webauthn_webauthn{name}" for name in ("attestation", "credential", "userhandle")}
    gone = {*PHASE7, *on_users}
    assert tables(migrated) == before - gone
    assert {*re.findall(r"^  (\w+)", result.stdout, re.M)} == gone
    assert gone <= OURS
    assert migrated.execute("SELECT count(*) FROM auth_permission")[0][0] > 0
    assert migrated.execute("SELECT * FROM theirs") == [(1,)]
    assert migrated.execute("SELECT DISTINCT app FROM django_migrations ORDER BY app") == [
        ("administration",),
        ("auth",),
        ("axes",),
        ("contenttypes",),
        ("sessions",),
    ]
    assert (
        manage("dbreset", "--yes", url=migrated.url).stdout
        == "None of our migrations is recorded here: there is nothing to reset.\n"
    )
    assert manage("migrate", url=migrated.url).returncode == 0
    assert manage("dbstatus", url=migrated.url).returncode == 0


@pytest.mark.slow
def test_a_terminal_shows_each_migration_that_is_reversed(migrated):
    terminal, theirs = pty.openpty()
    process = start_manage("dbreset", "--yes", url=migrated.url, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # The process has ended.
        while True:
            shown += os.read(terminal, 4096)
    out = process.communicate(timeout=60)[0]

    reversed_ones = out.partition("\n")[0].removeprefix("Reversed: ").split(", ")
    assert re.findall(r"Reversing ([\w.]+)\r\n", shown.decode()) == reversed_ones


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (
            "CREATE TABLE trips (id int, owner text CONSTRAINT trips_fk REFERENCES users)",
            "  users: foreign key trips_fk of trips\n",
        ),
        (
            "CREATE SCHEMA other; CREATE TABLE other.trips (o text CONSTRAINT f REFERENCES users)",
            "  users: foreign key f of other.trips\n",
        ),
        ("CREATE VIEW emails AS SELECT email FROM users", "  users: view or rule: view emails\n"),
        ("CREATE TABLE old_users () INHERITS (users)", "  users: table that inherits: old_users\n"),
        ("CREATE TABLE snapshots (id int, u users)", "  users: column u of table snapshots\n"),
        ("CREATE TABLE snapshots (id int, u users[])", "  users: column u of table snapshots\n"),
        (
            "CREATE FUNCTION all_users() RETURNS SETOF users LANGUAGE sql AS 'SELECT * FROM users'",
            "  users: function all_users()\n",
        ),
        (
            "CREATE TABLE docs (id int); CREATE POLICY theirs ON docs USING (EXISTS (SELECT FROM users))",
            "  users: policy theirs on table docs\n",
        ),
        (
            "CREATE FUNCTION n() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM price_history; END",
            "  price_history: function n()\n",
        ),
    ],
)
def test_a_reset_is_refused_if_unmanaged_objects_depend_on_our_tables(migrated, made, shown):
    migrated.execute(made)
    before = tables(migrated)

    plan = manage("dbreset", url=migrated.url)
    result = manage("dbreset", "--yes", url=migrated.url)

    assert (plan.returncode, result.returncode, result.stderr) == (4, 4, "")
    assert shown in result.stdout
    assert plan.stdout == result.stdout
    assert tables(migrated) == before


def test_a_prisma_database_is_left_alone(database):
    database.execute("CREATE TABLE users (id text)")

    result = manage("dbreset", "--yes", url=database.url)

    assert (result.returncode, result.stdout) == (0, "None of our migrations is recorded here: there is nothing to reset.\n")
    assert tables(database) == {"users"}


def test_dependent_objects_are_found_even_if_another_schema_comes_first(migrated):
    migrated.execute(
        f"CREATE VIEW v AS SELECT email FROM users; CREATE SCHEMA app; ALTER DATABASE {migrated.name} SET search_path TO app, public"
    )

    result = manage("dbreset", "--yes", url=migrated.url)

    assert (result.returncode, "  users: view or rule: view v\n" in result.stdout) == (4, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [([], "^Another transaction holds a lock "), (["--yes"], " did not get a lock within .*, because of pid ")],
    ids=str,
)
def test_a_locked_table_is_not_waited_for_forever(migrated, words, said):
    with open_transaction(migrated, "LOCK TABLE users"):
        result = manage("dbreset", *words, "--lock-wait", "1", url=migrated.url)

    assert (result.returncode, re.search(said, result.stderr) is not None) == (2, True)
    assert "users" in tables(migrated)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE price_history",
        "ALTER TABLE price_history RENAME TO prices",
        "CREATE SCHEMA attic; ALTER TABLE price_history SET SCHEMA attic",
        'ALTER TABLE users DROP COLUMN "isStaff"',
    ],
)
def test_a_reset_that_cannot_be_completed_is_not_started(migrated, damage):
    migrated.execute(damage)
    before = tables(migrated)

    result = manage("dbreset", "--yes", "--without-backup", url=migrated.url)

    assert (result.returncode, "so they cannot be reversed: fix the findings of `manage.py dbstatus`" in result.stderr) == (
        2,
        True,
    )
    assert tables(migrated) == before


@pytest.mark.slow
def test_the_server_refuses_unforeseen_dependencies(migrated):
    migrated.execute(
        "CREATE SEQUENCE theirs; CREATE TABLE uses (id int DEFAULT nextval('theirs')); ALTER SEQUENCE theirs OWNED BY users.\"createdAt\""
    )
    before = tables(migrated)

    result = manage("dbreset", "--yes", url=migrated.url)

    assert result.returncode == 2
    assert result.stderr.startswith("Another object depends on the dropped one (")
    assert "users" in tables(migrated)
    assert manage("migrate", url=migrated.url).returncode == 0
    assert tables(migrated) == before


@pytest.mark.slow
def test_rows_are_not_deleted_while_the_key_does_not_decrypt_the_backup(migrated, tmp_path):
    import pyrage

    keys = [pyrage.x25519.Identity.generate() for _ in range(2)]
    for number, key in enumerate(keys):
        (tmp_path / f"key{number}").write_text(f"{key}\n")
    place = {"url": migrated.url, "BACKUP_LOCATION": str(tmp_path / "backups")}
    right, wrong = ({**place, "BACKUP_IDENTITY_FILE": str(tmp_path / f"key{number}")} for number in range(2))
    manage("dbseed", "--production", "--users", "5", "--seed", "1", "--until", "2026-05-01", url=migrated.url)
    assert manage("dbbackup", "--verify", **right, BACKUP_RECIPIENT=str(keys[0].to_public())).returncode == 0

    (work := tmp_path / "work").mkdir()
    refused = manage("dbreset", "--yes", **wrong, TMPDIR=str(work))
    assert (refused.returncode, refused.stderr) == (
        2,
        "A verified backup is required before rows are deleted or overwritten, but the newest cannot be used (The key in BACKUP_IDENTITY_FILE does not decrypt this backup:"
        " use the key for which it was encrypted): run `manage.py dbbackup --verify`, or add --without-backup.\n",
    )
    assert migrated.execute("SELECT count(*) FROM users") == [(5,)]
    assert os.listdir(work) == []
    assert manage("dbreset", "--yes", **right).returncode == 0


@pytest.mark.slow
def test_rows_are_deleted_only_with_a_verified_backup_or_explicit_consent(migrated, tmp_path):
    place = {"BACKUP_LOCATION": str(tmp_path / "backups")}
    manage("dbseed", "--production", "--users", "5", "--seed", "1", "--until", "2026-05-01", url=migrated.url)

    refused = manage("dbreset", "--yes", url=migrated.url, **place)
    assert (refused.returncode, refused.stderr) == (
        2,
        "A verified backup newer than 26 h is required before rows are deleted or overwritten, but there is none: run `manage.py dbbackup --verify`, or add --without-backup.\n",
    )
    assert migrated.execute("SELECT count(*) FROM users") == [(5,)]
    manage("dbbackup", "--verify", url=migrated.url, **place)
    old = manage("dbreset", "--yes", url=migrated.url, BACKUP_MAX_AGE="0", **place)
    assert (old.returncode, "but the newest is " in old.stderr) == (2, True)
    assert manage("dbreset", "--yes", url=migrated.url, **place).returncode == 0

    manage("migrate", url=migrated.url)
    manage("dbseed", "--production", "--users", "5", "--seed", "1", "--until", "2026-05-01", url=migrated.url)
    assert manage("dbreset", "--yes", "--without-backup", url=migrated.url).returncode == 0
