"""The effect of our migrations on tables in use: the linter's verdict, and the locks they actually take."""

import json
import re
import threading

import pytest
from django.db import transaction
from django.db.migrations.executor import MigrationExecutor

from fly2any.database.schema.contract import PHASE7_APPS
from tests.conftest import PROJECT, django, fresh, made_once
from tests.lint_migrations import lint, squawk, statements
from tests.servers import open_transaction, wait_until

OURS = [
    (folder.name, path.stem)
    for folder in (*(PROJECT / app for app in PHASE7_APPS), PROJECT / "fly2any" / "administration")
    for path in sorted((folder / "migrations").glob("0*.py"))
    if path.stem != "0001_initial"
]
PAGE = PROJECT / "docs" / "reference" / "migrations.md"
# From the weakest to the strongest.
MODES = (
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
HELD = """
    SELECT c.relname::text, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
    WHERE l.pid = %s AND l.granted AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%s)
"""


def strongest(database_or_client, pid, tables):
    locks = {}
    for table, mode in database_or_client.execute(HELD, [pid, tables]):
        if mode != "AccessShareLock":  # The lock that every reader takes.
            locks[table] = max(locks.get(table, MODES[0]), mode, key=MODES.index)
    return locks


def migrate_and_watch(folder):
    """Apply every migration to an empty database, and write what each of ours locked and rewrote to a file."""
    for database in fresh("template0"):
        with django(database) as opened:
            executor = MigrationExecutor(opened)
            plan, state = executor.migration_plan(executor.loader.graph.leaf_nodes()), None
            for migration, _ in plan:
                app, name = migration.app_label, migration.name
                if ours := (app, name) in OURS:
                    if name.endswith("_roles"):  # Which app's makes the groups depends on the order; each may lock them.
                        database.execute("TRUNCATE auth_group, auth_permission, django_content_type CASCADE")
                    locks, rewritten = locks_of(database, opened, app, name)
                    (folder / f"{app}.{name}").write_text(json.dumps([locks, sorted(rewritten)]))
                state = executor.migrate([(app, name)], plan=[(migration, False)], state=state, fake=ours)


def locks_of(database, opened, app, name):
    """The strongest lock that a migration takes on each table that is there before it, and the tables that it rewrites."""
    files = dict(
        database.execute(
            "SELECT relname::text, relfilenode FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    )
    todo = [line for line in statements(app, name).splitlines() if line and not line.startswith(("--", "BEGIN", "COMMIT"))]
    if not todo:  # Python, or nothing at all.
        with transaction.atomic(using=opened.alias), opened.cursor() as cursor:
            MigrationExecutor(opened).migrate([(app, name)])
            tables = files.keys() - {"django_migrations", "fly2any_migration_runs"}  # The tables that record every migration.
            return strongest(cursor, opened.connection.info.backend_pid, list(tables)), set()
    with database.connect() as client:
        pid = client.info.backend_pid
        if " CONCURRENTLY " in todo[0]:
            (statement,) = todo
            with open_transaction(database, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SELECT FROM users"):
                thread = threading.Thread(target=client.execute, args=[statement])
                thread.start()
                wait_until(database, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [pid])
                found = strongest(database, pid, list(files))
            thread.join()
        else:
            client.execute("BEGIN")
            for statement in todo:
                client.execute(statement)
            found = strongest(client, pid, list(files))
            client.execute("COMMIT")
    after = dict(database.execute("SELECT relname::text, relfilenode FROM pg_class WHERE relname = ANY (%s)", [list(files)]))
    return found, {table for table in files if files[table] != after[table]}


@pytest.mark.slow
@pytest.mark.parametrize(("app", "name"), OURS)
@pytest.mark.usefixtures("server")
def test_the_page_says_which_locks_a_migration_takes_and_none_rewrites_a_table(app, name):
    found, rewritten = json.loads((made_once("locks", migrate_and_watch) / f"{app}.{name}").read_text())

    words = {table: re.sub(r"(?<!^)(?=[A-Z])", " ", mode.removesuffix("Lock")).upper() for table, mode in found.items()}
    row = re.search(rf"^\| `{app}\.{name}` \| ([^|]+) \|", PAGE.read_text(), re.M)
    assert row, f"{PAGE.name} has no row for {app}.{name}: it takes {words or 'none'}"
    said = row[1]
    assert said == (", ".join(f"`{table}`: {mode}" for table, mode in sorted(words.items())) or "none")
    assert rewritten == []


@pytest.mark.skipif(not squawk(), reason="squawk is not installed: pip install -r requirements-dev.txt")
@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("CREATE INDEX i ON users (email);", "require-concurrent-index-creation"),
        ("ALTER TABLE users ADD COLUMN c int NOT NULL;", "adding-required-field"),
        ("ALTER TABLE users ALTER COLUMN email TYPE varchar(10);", "changing-column-type"),
        ("ALTER TABLE users ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES t (id);", "adding-foreign-key-constraint"),
        ("ALTER TABLE users ALTER COLUMN name SET NOT NULL;", "adding-not-nullable-field"),
        ("ALTER TABLE users RENAME COLUMN name TO n;", "renaming-column"),
        ("DROP TABLE users;", "ban-drop-table"),
        ("ALTER TABLE users ADD CONSTRAINT u UNIQUE (email);", "disallowed-unique-constraint"),
        ("VACUUM FULL users;", "stops the site for as long as it takes: VACUUM FULL"),
        ("LOCK TABLE users;", "stops the site for as long as it takes: LOCK TABLE"),
        ("LOCK users;", "stops the site for as long as it takes: LOCK users"),
        ("VACUUM (VERBOSE, FULL) users;", "stops the site for as long as it takes: VACUUM (VERBOSE, FULL) users"),
        ("UPDATE users SET name = ';x';", "stops the site for as long as it takes: UPDATE users SET name ="),
        ("UPDATE users SET name = (SELECT 'x' WHERE true);", "stops the site for as long as it takes: UPDATE users"),
    ],
)
def test_the_linter_rejects_migrations_that_would_block_the_site(sql, rule):
    assert rule in lint(sql)


@pytest.mark.skipif(not squawk(), reason="squawk is not installed: pip install -r requirements-dev.txt")
def test_the_linter_accepts_what_our_way_of_migrating_makes_safe():
    assert (
        lint(
            'CREATE INDEX CONCURRENTLY "i" ON "users" ("email"); ALTER TABLE users ADD COLUMN c boolean DEFAULT false NOT NULL;'
            "-- TRUNCATE users;\nGRANT SELECT, UPDATE ON users TO r; UPDATE users SET name = 'a;b' WHERE id = 'x';"
        )
        == ""
    )
