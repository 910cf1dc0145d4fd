"""The commit of an erasure: its certificate is correct, whatever happens."""

import io
import json

import pytest
from django.db import Error

from fly2any.database.errors import Refusal
from fly2any.database.person import File, Stream, erase, find
from fly2any.database.person.transactions import reading, writing
from tests.conftest import django
from tests.database.people import EMAIL


def test_the_commit_is_on_the_disk_before_the_certificate_says_committed(two):
    two.execute(f"ALTER DATABASE {two.name} SET synchronous_commit = off")
    seen = []

    class Watched(Stream):
        def keep(self, certificate):
            super().keep(certificate)
            with connection.cursor() as cursor:
                cursor.execute("SHOW synchronous_commit")
                seen.append(cursor.fetchone())

    with django(two) as connection:
        erase(connection, find(connection, EMAIL), Watched(io.StringIO()))
        with connection.cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            seen.append(cursor.fetchone())

    assert seen == [("on",), ("off",)]


def test_a_commit_that_fails_leaves_no_certificate(two, tmp_path):
    two.execute(
        "CREATE TABLE late (at text);"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO late VALUES (OLD.id); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();"
        "CREATE CONSTRAINT TRIGGER later AFTER DELETE ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION later();"
    )
    with django(two) as connection:
        person = find(connection, EMAIL)
        with pytest.raises(Error):
            erase(connection, person, File(tmp_path / "certificate.json"))

    assert list(tmp_path.iterdir()) == []
    assert two.execute("SELECT count(*) FROM users") == [(2,)]


def test_a_connection_that_is_cut_during_the_commit_leaves_a_pending_certificate(two, tmp_path):
    path = tmp_path / "certificate.json"

    class Cut(File):
        def keep(self, certificate):
            super().keep(certificate)
            two.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'erasing'")

    with django(two) as connection:
        person = find(connection, EMAIL)
        with connection.cursor() as cursor:
            cursor.execute("SET application_name = 'erasing'")
        with pytest.raises(Refusal, match="To see whether the erasure was committed, run SELECT pg_xact_status"):
            erase(connection, person, Cut(path))

    assert json.loads(path.read_text())["state"] == "pending"
    assert two.execute("SELECT count(*) FROM users") == [(2,)]


@pytest.mark.parametrize("transaction", [reading, writing])
def test_no_limit_of_the_role_ends_a_transaction_that_reads_the_whole_database(two, transaction):
    limit = "SELECT setting FROM pg_settings WHERE name = 'transaction_timeout'"
    known = two.execute(limit) != []  # From PostgreSQL 17 on.
    if known:
        two.execute(f"ALTER DATABASE {two.name} SET transaction_timeout = '1min'")
    with django(two) as connection, transaction(connection), connection.cursor() as cursor:
        cursor.execute(limit)
        assert cursor.fetchall() == ([("0",)] if known else [])
