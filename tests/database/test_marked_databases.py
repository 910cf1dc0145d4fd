"""Databases that commands create beside another: marked, listed, and dropped only by their mark."""

import dataclasses
import json
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from django.db.utils import ProgrammingError

from fly2any.database.backup import restore
from fly2any.database.errors import Refusal
from fly2any.database.marked_databases import DATABASES_SQL, MARK, drop_leftovers, read_leftovers, refuse_during_restore
from fly2any.database.progress import Progress
from fly2any.database.report.collect import collect
from fly2any.database.report.text import status_as_text
from fly2any.database.scratch import scratch_database
from fly2any.database.sql import fetch_all
from fly2any.database.verification import verify
from tests.conftest import django
from tests.database.taken import databases

LONG_AGO = datetime.now(UTC) - timedelta(days=3)


@pytest.fixture
def beside(database):
    """A function that makes a database beside, with the comment of a mark; all are dropped in the end."""

    def make(name, purpose="scratch", made=LONG_AGO, /, **facts):
        name = name if name.startswith("fly2any_") else f"{database.name}{name}"
        database.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        made_for.append(name)
        if purpose:
            text = MARK + json.dumps({"purpose": purpose, "name": name, "of": database.name, "made": made.isoformat()} | facts)
            database.execute(f"COMMENT ON DATABASE \"{name}\" IS '{text}'")
        return name

    made_for = []
    yield make
    for name in made_for:
        database.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def test_only_marked_old_and_unused_databases_are_dropped(database, beside):
    goes = beside("_a")
    stays = {
        beside("_of_another", of="another"),
        beside("_renamed", name="else"),
        beside("_young", "scratch", datetime.now(UTC)),
        beside("_before", "before"),
        beside("_restored_20200101T000000", None),
    }
    unmarked = beside(f"fly2any_scratch_20200101T000000_{database.name[-6:]}", None)
    used = beside("_used")

    with database.connect(), django(database) as connection, django(_named(database, used)) as session:
        session.ensure_connection()
        dropped = drop_leftovers(connection, "scratch")
        there = {name for (name,) in database.execute("SELECT datname FROM pg_database")}

    assert dropped == [goes]
    assert stays | {unmarked, used} <= there


def test_leftovers_of_the_owner_of_the_database_are_dropped_by_a_role_that_may_act_as_it(database, beside):
    """A restore creates them for that owner."""
    owner, stranger = f"{database.name}_owner", f"{database.name}_stranger"
    database.execute(f"CREATE ROLE {owner} CREATEDB; CREATE ROLE {stranger}; ALTER DATABASE {database.name} OWNER TO {owner}")
    goes, theirs = beside("_a"), beside("_b")
    database.execute(f"ALTER DATABASE {goes} OWNER TO {owner}; ALTER DATABASE {theirs} OWNER TO {stranger}")
    try:
        with django(database) as connection:
            assert drop_leftovers(connection, "scratch") == [goes]
    finally:
        database.execute(f"ALTER DATABASE {database.name} OWNER TO postgres; DROP ROLE {owner}")
        database.execute(f"ALTER DATABASE {theirs} OWNER TO postgres; DROP ROLE {stranger}")


def _named(database, name):
    return dataclasses.replace(database, name=name)


def test_dbstatus_lists_remaining_findings_with_their_cures(database, beside):
    killed, before = beside("_killed", "restore"), beside("_old", "before")
    named = beside("_before_20200101T000000000000", None)
    beside("_young", "scratch", datetime.now(UTC))

    with django(database) as connection:
        found = [one for one in verify(connection).findings if one.code == "server.leftover"]

    when = f"{LONG_AGO:%Y-%m-%d %H:%M} UTC"
    assert sorted((one.where, str(one.severity), one.message, one.cure) for one in found) == sorted(
        [
            (killed, "warning", f"Left by a restore that did not finish, created {when}.", f'DROP DATABASE "{killed}";'),
            (before, "note", f"The database that a restore replaced, kept since {when}.", f'DROP DATABASE "{before}";'),
            (
                named, "note", f"The name {named} looks like one that a restore creates, but no comment marks it as such.",
                f'Check what it holds. If it is not needed: DROP DATABASE "{named}";',
            ),
        ]
    )  # fmt: skip


def test_a_database_whose_removal_was_interrupted_is_no_way_back(database, beside):
    before, running = beside("_old", "before"), beside("_new", "restore", datetime.now(UTC))
    for name in (before, running):
        database.execute(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'")

    with django(database) as connection:
        found = [one for one in verify(connection).findings if one.code == "server.leftover"]
        refuse_during_restore(connection)

    message = "Its removal was interrupted: no client can connect to it, and it may have lost data."
    assert sorted((one.where, str(one.severity), one.message, one.cure) for one in found) == sorted(
        (name, "warning", message, f'DROP DATABASE "{name}";') for name in (before, running)
    )


def test_only_what_may_be_a_mark_is_read_of_a_comment(database, beside):
    marked, long = beside("_marked", "before"), beside("_long", "before")
    theirs = beside("_restored_20200101T000000", None)
    for name, text in ((long, MARK + " " * 3000), (theirs, "x" * 100_000)):
        database.execute(f"COMMENT ON DATABASE {name} IS '{text}'")

    with django(database) as connection:
        read = {row[0]: row[1] for row in fetch_all(connection, DATABASES_SQL) if row[0].startswith(database.name)}
        assert [one.name for one in read_leftovers(connection)] == [marked, theirs]

    assert (read[marked].startswith(MARK), read[long], read[theirs]) == (True, None, None)


def test_a_scratch_database_is_marked_and_dropped(database):
    with django(database) as connection, scratch_database(connection) as scratch:
        name = scratch.settings_dict["NAME"]
        [(text,)] = database.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [name])
        facts = json.loads(text.removeprefix(MARK))

    assert (facts["purpose"], facts["name"], facts["of"]) == ("scratch", name, database.name)
    assert database.execute("SELECT datname FROM pg_database WHERE datname = %s", [name]) == []


def test_a_database_that_another_client_creates_meanwhile_is_not_dropped(database, beside, monkeypatch):
    create = restore.create
    monkeypatch.setattr(restore, "opened", lambda *_: nullcontext("no file"))
    monkeypatch.setattr(restore, "require_restorable", lambda *_: None)
    monkeypatch.setattr(restore, "require_owners", lambda *_, **__: None)
    monkeypatch.setattr(restore, "require_extensions", lambda *_, **options: None)
    monkeypatch.setattr(restore, "require_disk_space", lambda *_: None)
    monkeypatch.setattr(restore, "create", lambda connection, name: (beside("_theirs", None), create(connection, name)))

    with django(database) as connection, pytest.raises(ProgrammingError, match="already exists"):
        restore.restore_into(connection, f"{database.name}_theirs", None, None, Progress())

    assert f"{database.name}_theirs" in databases(database)


def test_a_database_name_with_line_breaks_forges_no_line_of_a_report(database, beside):
    name = beside("_x\n  ERROR   table.missing at users\nx")

    with django(database) as connection:
        lines = status_as_text(collect(connection, verification=verify(connection))).splitlines()

    assert [line for line in lines if line.startswith("  ERROR   table.missing")] == []
    shown = name.replace("\n", "\\u000a")
    assert f"  WARNING server.leftover at {shown}" in lines


def test_a_comment_by_any_role_stops_nothing(database, beside):
    comments = ["[" * 2000, json.dumps({"purpose": ["scratch"]}), "9" * 5000]
    names = [beside(f"_{number}", None) for number in range(len(comments))]
    for name, comment in zip(names, comments, strict=True):
        database.execute(f"COMMENT ON DATABASE \"{name}\" IS '{MARK}{comment}'")
    dates = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
    names += [beside(f"_of_{made[:4]}", made=made) for made in dates]

    with django(database) as connection:
        assert drop_leftovers(connection, "scratch") == []
        assert [one.where for one in verify(connection).findings if one.code == "server.leftover"] == []


def test_a_role_that_may_not_create_databases_gets_no_scratch_database(database):
    role = f"{database.name}_role"
    with (
        database.role(),
        django(dataclasses.replace(database, user=role)) as connection,
        pytest.raises(Refusal) as refused,
        scratch_database(connection),
    ):
        pass

    assert str(refused.value) == (
        f'The role {role} may not create databases, as this command must: as a superuser, run ALTER ROLE "{role}" CREATEDB;'
    )
