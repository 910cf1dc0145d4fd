"""Installed extensions, and the files that the server has of them."""

import pytest

from fly2any.database.findings import Finding
from fly2any.database.health.examine import Reader
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import found

pytestmark = pytest.mark.usefixtures("server")


def test_an_outdated_extension_is_found_until_it_is_updated(database):
    database.execute("CREATE EXTENSION pg_trgm VERSION '1.5'")

    assert found(database, "extensions") == [("extensions.outdated", "pg_trgm")]
    database.execute('ALTER EXTENSION "pg_trgm" UPDATE')
    assert found(database, "extensions") == []


def test_an_extension_that_is_newer_than_the_servers_files_is_not_to_be_updated(database):
    database.execute("CREATE EXTENSION pg_trgm; UPDATE pg_extension SET extversion = '99' WHERE extname = 'pg_trgm'")

    with django(database) as connection:
        [finding] = [one for one in TOPICS["extensions"](Reader(connection, "public")) if isinstance(one, Finding)]

    assert (finding.code, finding.is_sql) == ("extensions.outdated", False)
    assert finding.message.startswith("Version 99 is installed, but the server provides 1.")
    assert finding.message.endswith(", and no update script leads to that version.")
    assert finding.cure.startswith("If the server's files are older, install those of 99 or newer again; ")
