"""Backups and archives where the settings of the database or the role give values another text form."""

import dataclasses
from decimal import Decimal

import pytest
from django.db import transaction

from fly2any.database.backup import tools
from fly2any.database.backup.restore import restore_into
from fly2any.database.backup.row_hashes import PINNED, pin, read_contents
from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.test_dbhealth import of

OTHER = {
    "datestyle": "German", "intervalstyle": "sql_standard", "timezone": "'Asia/Tokyo'", "array_nulls": "off", "extra_float_digits": "0",
    "bytea_output": "escape", "xmlbinary": "hex", "quote_all_identifiers": "on",
}  # fmt: skip


def test_hashes_do_not_depend_on_the_settings_of_the_database(database):
    """PostgreSQL spells some of their names with capital letters: IntervalStyle."""
    database.execute("CREATE TABLE t AS SELECT interval '1 day 02:00' AS i, timestamptz '2026-12-01 02:00+00' AS t")

    def read():
        with django(database) as connection, transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            contents = read_contents(connection, lambda table, percent: None)
            pin(cursor, PINNED)
            return contents, {name: cursor.execute(f"SHOW {name}").fetchone()[0] for name in PINNED}

    usual, _ = read()
    for name, value in OTHER.items():
        database.execute(f"ALTER DATABASE {database.name} SET {name} TO {value}")

    assert read() == (usual, PINNED | {"datestyle": "ISO, DMY"})


@pytest.mark.slow
def test_null_in_an_array_is_restored_where_the_server_reads_it_as_text(own_server, place):
    database = of(own_server(migrated=True, array_nulls="off"))
    database.execute("SET array_nulls TO on; CREATE TABLE stops AS SELECT '{BER,NULL}'::text[] AS codes")
    with django(database) as connection:
        store = store_at(place)
        manifest = take(connection, store, Progress())
        restore_into(connection, "restored", store, manifest, Progress())

    assert dataclasses.replace(database, name="restored").execute("SELECT codes FROM stops") == [(["BER", None],)]


@pytest.mark.slow
def test_amounts_are_dumped_and_restored_as_in_the_locale_c(migrated, place, monkeypatch):
    """Whose form every server reads; few machines have another locale for a test."""
    reached, options = tools.reached, []
    monkeypatch.setattr(tools, "reached", lambda connection, chosen: options.append(chosen) or reached(connection, chosen))
    with django(migrated) as connection:
        store = store_at(place)
        without = take(connection, store, Progress())
        migrated.execute(
            "CREATE DOMAIN price AS money; CREATE DOMAIN total AS price; CREATE TYPE item AS (total total);"
            " CREATE TABLE invoices AS SELECT ARRAY[ROW(1234.56::numeric::money)::item] AS lines"
        )
        manifest = take(connection, store, Progress())
        restore_into(connection, f"{migrated.name}_new", store, manifest, Progress())
    restored = dataclasses.replace(migrated, name=f"{migrated.name}_new").execute(
        "SELECT (lines[1]).total::numeric FROM invoices"
    )
    migrated.execute(f"DROP DATABASE {migrated.name}_new")

    assert (without.portable_amounts, manifest.portable_amounts, options) == (False, True, [False, True, True])
    assert restored == [(Decimal("1234.56"),)]


def test_texts_that_are_no_utf_8_are_hashed_where_the_database_does_not_check_them(database):
    other = dataclasses.replace(database, name=f"{database.name}_ascii")
    database.execute(f"CREATE DATABASE {other.name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    texts = "DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT convert_from('{}', 'SQL_ASCII') AS name"
    database.execute("CREATE TABLE t AS SELECT 'é' AS name")
    other.execute(texts.format(r"\xc3a9"))

    def read(database):
        with django(database) as connection, transaction.atomic(using=connection.alias):
            return read_contents(connection, lambda table, percent: None)['"public"."t"']

    same = read(other) == read(database)
    other.execute(texts.format(r"\xe9ff"))
    rows = read(other).rows
    database.execute(f"DROP DATABASE {other.name}")

    assert (same, rows) == (True, 1)
