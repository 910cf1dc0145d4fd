"""Backups of a server that reads damaged pages without an error."""

import pytest

from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from tests.conftest import django


def refusal(database, place, url_options=None):
    """Return the sentence with which a backup is refused, and the number of files that were stored."""
    store = store_at(place)
    with django(database) as connection:
        if url_options:
            connection.settings_dict["OPTIONS"] = {**connection.settings_dict["OPTIONS"], "options": url_options}
            connection.close()
        with pytest.raises(Refusal) as refused:
            take(connection, store, Progress())
    return str(refused.value), len(store.names())


@pytest.mark.parametrize(
    ("name", "where"), [("zero_damaged_pages", "DATABASE {0}"), ("ignore_checksum_failure", "ROLE {1} IN DATABASE {0}")]
)
def test_no_backup_is_taken_where_damaged_pages_are_read_without_an_error(migrated, place, name, where):
    where = where.format(migrated.name, migrated.user)
    migrated.execute(f"ALTER {where} SET {name} = on")

    refused, stored = refusal(migrated, place)
    [cure] = [part for part in refused.split(". ") if "run ALTER" in part]
    statement, _, _ = cure.removeprefix("As a superuser, run ").partition(";")
    migrated.execute(statement)
    with django(migrated) as connection:
        taken = take(connection, store_at(place), Progress())

    assert (refused, stored) == (
        f"{name} is on, so PostgreSQL reads damaged pages without an error, and a backup would lack their rows: no backup was taken. As"
        f" a superuser, run ALTER {where} RESET {name}; Then run the command again.",
        0,
    )
    assert taken.tables


def test_options_of_the_connection_that_hide_damaged_pages_are_named(migrated, place):
    assert refusal(migrated, place, "-c zero_damaged_pages=on -c ignore_checksum_failure=on") == (
        "ignore_checksum_failure and zero_damaged_pages are on, so PostgreSQL reads damaged pages without an error, and a backup would"
        " lack their rows: no backup was taken. Remove ignore_checksum_failure from the options of POSTGRES_URL."
        " Remove zero_damaged_pages from the options of POSTGRES_URL. Then run the command again.",
        0,
    )
