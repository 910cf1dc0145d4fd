"""While a restore is about to replace the database, no command of ours, Django's or a package's writes to the old one."""

import io
import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.core.management import call_command

from fly2any.database.backup import restore
from fly2any.database.backup.restore import restore_over
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.management.utility import Utility
from fly2any.database.marked_databases import MARK, refuse_during_restore
from fly2any.database.migration.advisory_locks import MAINTENANCE_LOCK, MIGRATION_LOCK, NAMES, wait_for_writers
from fly2any.database.progress import Progress
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.people import EMAIL
from tests.database.taken import databases, rows
from tests.servers import open_transaction

CONSENT = {"yes": True, "without_backup": True}
WRITERS = [
    (["migrate"], {"verbosity": 0}),
    (["dbadopt"], {"yes": True}),
    (["dbreset"], CONSENT),
    (["dbmaintain", "weekly"], {}),
    (["dbrestore", "an archive"], {"archive": True}),
    (["dbseed"], {"users": 1, "production": True, "yes": True}),
    (["dbperson", "erase", EMAIL], {"yes": True}),
    (["dbstaff", "new@example.com"], {"role": "administrator"}),
    (["dbstaff", "chief@example.com"], {"remove": True}),
    (["createsuperuser"], {"interactive": False, "email": "new@example.com"}),
    (["flush"], CONSENT),
    (["loaddata"], {}),
    (["remove_stale_contenttypes"], {"interactive": False}),
]


@pytest.fixture
def restored(two):
    """A database beside that of a test, marked as a restore does."""
    name = f"{two.name}_restored_1"
    facts = {"purpose": "restore", "name": name, "of": two.name, "made": datetime.now(UTC).isoformat()}
    two.execute(f"CREATE DATABASE {name}")
    two.execute(f"COMMENT ON DATABASE {name} IS '{MARK}{json.dumps(facts)}'")
    yield name
    for name in databases(two) - {two.name}:
        two.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_no_command_writes_to_a_database_that_a_restore_is_to_replace(two, restored, tmp_path, monkeypatch):
    monkeypatch.setitem(settings.RETENTION, "archive", str(tmp_path))
    moment = "2026-01-01T00:00:00Z"
    file = tmp_path / "users.json"
    fields = {"email": "new@example.com", "created_at": moment, "updated_at": moment}
    file.write_text(json.dumps([{"model": "accounts.user", "pk": "new", "fields": fields}]))
    two.execute(
        """INSERT INTO users (id, email, "isStaff", "isSuperuser", "updatedAt")
           SELECT n, n || '@example.com', true, true, now() FROM unnest(ARRAY['chief', 'other']) AS n"""
    )
    two.execute("INSERT INTO django_content_type (app_label, model) VALUES ('accounts', 'stale')")
    before = rows(two)

    said = {}
    for words, options in WRITERS:
        words = [*words, str(file)] if words == ["loaddata"] else words
        with django(two) as connection:
            command = Utility(["manage.py"]).fetch_command(words[0])
            with pytest.raises(Refusal) as refused:
                call_command(command, *words[1:], database=connection.alias, stdout=io.StringIO(), **options)
        said[words[0]] = str(refused.value)

    sentence = (
        f"Nothing was changed. A restore of this database is running, into {restored}, and will replace it: try again"
        f' when it is done. If none is running: DROP DATABASE "{restored}";'
    )
    assert said == dict.fromkeys(said, sentence)
    assert rows(two) == before


@pytest.mark.parametrize(("ahead", "refused"), [(timedelta(minutes=4), True), (timedelta(days=2), False)])
def test_a_mark_dated_in_the_future_by_a_killed_restore_stops_no_command(two, restored, ahead, refused):
    facts = {"purpose": "restore", "name": restored, "of": two.name, "made": (datetime.now(UTC) + ahead).isoformat()}
    two.execute(f"COMMENT ON DATABASE {restored} IS '{MARK}{json.dumps(facts)}'")

    with django(two) as connection:
        with pytest.raises(Refusal, match="A restore of this database is running") if refused else nullcontext():
            refuse_during_restore(connection)
        found = [finding for finding in verify(connection).findings if finding.code == "server.leftover"]

    assert [(finding.where, finding.cure) for finding in found] == (
        [] if refused else [(restored, f'DROP DATABASE "{restored}";')]
    )
    assert all("UTC (in the future, so a clock was wrong)." in finding.message for finding in found)


@pytest.mark.parametrize("lock", [MIGRATION_LOCK, MAINTENANCE_LOCK])
def test_a_restore_waits_for_commands_that_began_before_it(two, restored, lock):
    sessions = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with django(two) as connection:
        with (
            open_transaction(two, f"SELECT pg_advisory_lock({lock})"),
            pytest.raises(Refusal, match=rf"^The {NAMES[lock]} lock is still held by pid \d+ .* after 0 s: run the command"),
        ):
            wait_for_writers(connection, patience=0, say=lambda sentence: None)
        wait_for_writers(connection, patience=9, say=lambda sentence: None)
        assert two.execute(sessions) == [(0,)]


@pytest.mark.slow
def test_a_restore_that_waits_too_long_for_a_writer_replaces_nothing(two, restored, tmp_path, monkeypatch):
    two.execute(f"COMMENT ON DATABASE {restored} IS NULL")
    monkeypatch.setattr(restore, "PATIENCE", 0)
    with django(two) as connection:
        store = store_at(str(tmp_path))
        manifest = take(connection, store, Progress())
        with (
            open_transaction(two, f"SELECT pg_advisory_lock({MAINTENANCE_LOCK})"),
            pytest.raises(Refusal, match=r"^The maintenance lock is still held by pid \d+ "),
        ):
            restore_over(connection, store, manifest, Progress(), empty=False)
        assert databases(two) == {two.name, restored}
        kept = restore_over(connection, store, manifest, Progress(), empty=False)

    assert databases(two) == {two.name, restored, kept.name}
