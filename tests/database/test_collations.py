"""Collations whose version has changed since the indexes were built."""

import dataclasses

import pytest
from django.contrib.auth import get_user_model
from psycopg.errors import UniqueViolation

from fly2any.database.backup.render import verdict
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.person import Person, find
from fly2any.database.person.people import similar
from fly2any.database.progress import Progress
from fly2any.database.report.collect import collect
from fly2any.database.server import read_server
from fly2any.database.verification import verify
from tests.conftest import django

PROVIDER = {True: "builtin BUILTIN_LOCALE 'C.UTF-8'", False: "icu ICU_LOCALE 'und'"}  # From PostgreSQL 17 on.


def version_of(database):
    return database.execute("SELECT current_setting('server_version_num')::int")[0][0]


@pytest.fixture
def collated(database):
    """A database of a collation that has a version."""
    version, one = version_of(database), dataclasses.replace(database, name=f"{database.name}_collated")
    yield from made(database, one, f"LOCALE_PROVIDER {PROVIDER[version >= 170000]}" if version >= 150000 else "")


@pytest.fixture
def by_bytes(database):
    """A database in the order of bytes, of the C library, which has no version."""
    provider = "LOCALE_PROVIDER libc" if version_of(database) >= 150000 else ""
    yield from made(database, dataclasses.replace(database, name=f"{database.name}_c"), f"{provider} LOCALE 'C'")


def made(database, one, provider):
    database.execute(f"CREATE DATABASE {one.name} TEMPLATE template0 ENCODING 'UTF8' {provider}")
    yield one
    database.execute(f"DROP DATABASE {one.name} WITH (FORCE)")


@pytest.fixture
def turkish(database):
    """A database in which the lower case of I is not i, None where the server has no ICU."""
    if not database.execute("SELECT 1 FROM pg_collation WHERE collname = 'tr-x-icu'") or version_of(database) < 150000:
        yield None
        return
    one = dataclasses.replace(database, name=f"{database.name}_turkish")
    yield from made(database, one, "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C.UTF-8'")


def found(database):
    with django(database) as connection:
        report = collect(connection, verification=verify(connection))
    return [one for one in report.findings if one.code == "server.collation"]


def cure(database, finding):
    for statement in finding.cure.split("\n"):
        if not statement.startswith("--"):
            database.execute(statement)


def test_a_database_whose_collation_has_another_version_is_found_and_cured(collated):
    assert found(collated) == []
    if version_of(collated) < 150000:
        return  # It stores no version of a database's collation.
    collated.execute(f"UPDATE pg_database SET datcollversion = '0.5' WHERE datname = '{collated.name}'")

    [finding] = found(collated)

    assert (finding.severity, finding.where) == ("error", collated.name)
    assert finding.message.startswith(
        f"The indexes of {collated.name} were built with version 0.5 of its collation, and the server now has "
    )
    cure(collated, finding)
    assert found(collated) == []


SUPERUSER = "-- As a superuser, because REFRESH COLLATION VERSION fails where one of the versions is missing:"
RECORD = "UPDATE pg_catalog.pg_database SET datcollversion = pg_catalog.pg_database_collation_actual_version(oid) WHERE datname = pg_catalog.current_database();"


def test_a_database_is_found_whose_library_has_no_versions_any_longer(by_bytes):
    """As after a move from Debian's image to Alpine's, whose library sorts by bytes; here the locale C does."""
    if version_of(by_bytes) < 150000:
        return  # It stores no version of a database's collation.
    by_bytes.execute(f"UPDATE pg_database SET datcollversion = '2.36' WHERE datname = '{by_bytes.name}'")

    [finding] = found(by_bytes)

    assert finding.message == (
        f"The indexes of {by_bytes.name} were built with version 2.36 of its collation, and the server now has none: indexes on text may miss rows and let duplicates in."
    )
    assert finding.cure.split("\n") == [f'REINDEX DATABASE CONCURRENTLY "{by_bytes.name}";', SUPERUSER, RECORD]
    cure(by_bytes, finding)
    assert found(by_bytes) == []


def test_a_database_is_found_whose_indexes_were_built_without_versions(collated):
    """As after a move from Alpine's image to Debian's. The builtin provider, from PostgreSQL 17 on, always sorts in the same order."""
    if (version := version_of(collated)) < 150000:
        return
    collated.execute(f"UPDATE pg_database SET datcollversion = NULL WHERE datname = '{collated.name}'")
    if version >= 170000:
        assert found(collated) == []
        return
    [(now,)] = collated.execute(
        "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()"
    )

    [finding] = found(collated)

    assert finding.message == (
        f"The indexes of {collated.name} were built with an unknown version of its collation (Alpine's images record none), and the server now has {now}:"
        " indexes on text may miss rows and let duplicates in."
    )
    assert finding.cure.split("\n") == [f'REINDEX DATABASE CONCURRENTLY "{collated.name}";', SUPERUSER, RECORD]
    cure(collated, finding)
    assert found(collated) == []


def test_the_cure_rebuilds_exclusion_constraints_too(by_bytes):
    """REINDEX … CONCURRENTLY skips them with a warning."""
    if version_of(by_bytes) < 150000:
        return
    by_bytes.execute(
        'CREATE SCHEMA theirs; CREATE TABLE theirs.codes (code text, CONSTRAINT "No twice" EXCLUDE USING btree (code WITH =));'
        f"UPDATE pg_database SET datcollversion = '2.36' WHERE datname = '{by_bytes.name}'"
    )
    file = "SELECT pg_relation_filenode('theirs.\"No twice\"')"
    before = by_bytes.execute(file)

    [finding] = found(by_bytes)
    cure(by_bytes, finding)

    assert finding.cure.split("\n")[1:3] == [
        "-- It skips exclusion constraints; these block writes to their tables while they are rebuilt:",
        'REINDEX INDEX theirs."No twice";',
    ]
    assert by_bytes.execute(file) != before
    assert found(by_bytes) == []


@pytest.mark.slow
def test_the_verification_of_a_backup_names_a_collation_of_another_version(collated, place):
    collated.execute(
        f"CREATE TABLE price_alerts (id text); UPDATE pg_database SET datcollversion = '0.5' WHERE datname = '{collated.name}'"
    )
    with django(collated) as connection:
        manifest = check(connection, Folder(place), take(connection, Folder(place), Progress()), Progress())

    assert (manifest.state, manifest.findings[1:]) == ("good", (f"server.collation at {collated.name}",))
    assert verdict(manifest).splitlines()[1] == (
        f"Collation of {collated.name}: the indexes were built with a different version of it, so the backup may hold duplicates and orphans."
        " Run the cure that `manage.py dbstatus` prints, then take another backup."
    )


def test_a_collation_is_found_only_where_a_column_or_an_index_of_ours_uses_it(database):
    (name,), *_ = database.execute(
        "SELECT quote_ident(collname) FROM pg_collation WHERE collversion IS NOT NULL AND collname IN ('pg_c_utf8', 'und-x-icu')"
    )
    database.execute(f"CREATE COLLATION named FROM {name}")
    database.execute("UPDATE pg_collation SET collversion = '0.5' WHERE collname = 'named'")
    database.execute("CREATE TABLE t (a text)")
    assert found(database) == []
    database.execute("CREATE INDEX ON t (a COLLATE named)")

    [finding] = found(database)

    assert (finding.severity, finding.where) == ("error", "public.named")
    cure(database, finding)
    assert found(database) == []


@pytest.mark.parametrize("missing", ["recorded", "actual"])
def test_another_collation_of_a_missing_version_is_found_and_cured(database, missing):
    (name,), *_ = database.execute(
        "SELECT quote_ident(collname) FROM pg_collation WHERE collversion IS NOT NULL AND collname IN ('pg_c_utf8', 'und-x-icu')"
    )
    source, version = (name, "NULL") if missing == "recorded" else ('"C"', "'2.36'")
    database.execute(f"CREATE COLLATION named FROM {source}; CREATE TABLE t (a text COLLATE named)")
    assert found(database) == []
    database.execute(f"UPDATE pg_collation SET collversion = {version} WHERE collname = 'named'")
    if missing == "recorded" and name == "pg_c_utf8":  # The builtin provider.
        assert found(database) == []
        return

    [finding] = found(database)

    assert finding.cure.split("\n") == [
        f'REINDEX DATABASE CONCURRENTLY "{database.name}";',
        "-- As a superuser, because REFRESH VERSION fails where one of the versions is missing:",
        "UPDATE pg_catalog.pg_collation SET collversion = pg_catalog.pg_collation_actual_version(oid) WHERE oid = 'public.named'::regcollation;",
    ]
    cure(database, finding)
    assert found(database) == []


def test_the_cure_finds_the_duplicates_that_an_index_let_in_and_works_without_them(migrated):
    """As where text sorts in another order: two rows have one address, and the rebuild of its index would fail."""
    if version_of(migrated) < 150000:
        return  # It stores no version of a database's collation.
    ignored = "UPDATE pg_index SET indisready = {0}, indisvalid = {0} WHERE indexrelid = 'users_email_key'::regclass"
    migrated.execute(ignored.format("false"))
    for identity in ("a", "b"):
        migrated.execute(f"INSERT INTO users (id, email, \"updatedAt\") VALUES ('{identity}', 'a@example.com', now())")
    migrated.execute(ignored.format("true"))
    migrated.execute(f"UPDATE pg_database SET datcollversion = '0.5' WHERE datname = '{migrated.name}'")

    [finding] = found(migrated)

    lines = finding.cure.split("\n")
    place = lines.index(f'REINDEX DATABASE CONCURRENTLY "{migrated.name}";')
    off, *queries = [line.partition(": ")[2] for line in lines[:place]]
    assert lines[0].startswith("-- Read the tables, not their indexes: SET enable_indexscan TO off; ")
    assert {line.partition(": ")[0] for line in lines[1:place]} == {"-- Remove duplicates first"}
    with migrated.connect() as client:
        client.execute(off)
        rows = [row for query in queries for row in client.execute(query)]
    assert rows == [("a@example.com",)]
    with pytest.raises(UniqueViolation):
        cure(migrated, finding)
    assert found(migrated) == [finding]
    migrated.execute(f"{off} DELETE FROM users WHERE id = 'b'")
    cure(migrated, finding)
    assert found(migrated) == []


def test_addresses_are_compared_without_the_locale_which_a_note_names_if_its_i_has_another_case(database, turkish):
    with django(database) as connection:
        assert [one.code for one in read_server(connection).findings()] == []
    if turkish is None:
        return
    turkish.execute('CREATE TABLE users (id text, email text, "isStaff" bool DEFAULT false, "isSuperuser" bool DEFAULT false)')
    for identity, email in (("1", "bill.irwin@example.com"), ("2", "BILL.IRWIN@example.com"), ("3", "ibis@example.com")):
        turkish.execute("INSERT INTO users (id, email) VALUES (%s, %s)", [identity, email])

    with django(turkish) as connection:
        people = [find(connection, email) for email in ("bill.irwin@example.com", "Ibis@example.com")]
        [finding] = [one for one in read_server(connection).findings() if one.code == "server.letters"]
        alike = (
            get_user_model()
            .objects.using(connection.alias)
            .filter(similar("email", "IBIS@example.com"))
            .values_list("pk", flat=True)
        )
        assert [*alike] == ["3"]

    assert people == [Person("1", "bill.irwin@example.com", has_twin=True), Person("3", "ibis@example.com")]
    assert (finding.severity, finding.message.partition(":")[0]) == (
        "note",
        "In the locale of the database, lower('I') is ı, not i",
    )
