"""Collations whose version has changed since the indexes were built."""

import dataclasses

import pytest

from fly2any.database.backup.render import verdict
from fly2any.database.backup.store import Folder
from fly2any.database.backup.take import take
from fly2any.database.backup.trial_restore import check
from fly2any.database.progress import Progress
from fly2any.database.report.collect import collect
from fly2any.database.verification import verify
from tests.conftest import django

PROVIDER = {True: "builtin BUILTIN_LOCALE 'C.UTF-8'", False: "icu ICU_LOCALE 'und'"}  # From PostgreSQL 17 on.


@pytest.fixture
def collated(database):
    """A database of a collation that has a version."""
    [(version,)] = database.execute("SELECT current_setting('server_version_num')::int")
    one = dataclasses.replace(database, name=f"{database.name}_collated")
    provider = f"LOCALE_PROVIDER {PROVIDER[version >= 170000]}" if version >= 150000 else ""
    database.execute(f"CREATE DATABASE {one.name} TEMPLATE template0 ENCODING 'UTF8' {provider}")
    yield one
    database.execute(f"DROP DATABASE {one.name} WITH (FORCE)")


def found(database):
    with django(database) as connection:
        report = collect(connection, verification=verify(connection))
    return [one for one in report.findings if one.code == "server.collation"]


def cure(database, finding):
    for statement in finding.cure.split("\n"):
        database.execute(statement)


def test_a_database_whose_collation_has_another_version_is_found_and_cured(collated):
    assert found(collated) == []
    if collated.execute("SELECT current_setting('server_version_num')::int < 150000") == [(True,)]:
        return  # It stores no version of a database's collation.
    collated.execute(f"UPDATE pg_database SET datcollversion = '0.5' WHERE datname = '{collated.name}'")

    [finding] = found(collated)

    assert (finding.severity, finding.where) == ("error", collated.name)
    assert finding.message.startswith("Its indexes were built with version 0.5 of its collation, and the server now has ")
    cure(collated, finding)
    assert found(collated) == []


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
        f' Run in the database: REINDEX DATABASE CONCURRENTLY "{collated.name}"; ALTER DATABASE "{collated.name}" REFRESH COLLATION VERSION;'
        " Then take another backup."
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
