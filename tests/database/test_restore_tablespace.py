"""The tablespace of the database itself, which may be on a disk of its own."""

import dataclasses
import re
from datetime import UTC, datetime

import pytest

from fly2any.database.backup.disk_space import note, require_disk_space
from fly2any.database.backup.not_dumped import read_attached
from fly2any.database.backup.properties import create
from fly2any.database.backup.tablespaces import describe_unusable
from fly2any.database.database_identity import read_origin
from fly2any.database.errors import Refusal
from tests.conftest import django
from tests.database.taken import databases, described

PLACE = "SELECT t.spcname::text FROM pg_database AS d JOIN pg_tablespace AS t ON t.oid = d.dattablespace WHERE d.datname = %s"


@pytest.fixture
def placed(database):
    """A database in a tablespace in the server's own folder, and a role that may create databases."""
    outside, tablespace, role = dataclasses.replace(database, name="postgres"), f"{database.name} disk", f"{database.name}_role"
    with outside.connect() as client:
        client.execute("SET allow_in_place_tablespaces = on")
        client.execute(f"CREATE TABLESPACE \"{tablespace}\" LOCATION ''")
    outside.execute(f'ALTER DATABASE {database.name} SET TABLESPACE "{tablespace}"')
    outside.execute(f"CREATE ROLE {role} LOGIN CREATEDB")
    yield tablespace, role
    for name in databases(database) - {database.name}:
        outside.execute(f"DROP DATABASE {name}")
    outside.execute(f"ALTER DATABASE {database.name} SET TABLESPACE pg_default")
    outside.execute(f'DROP TABLESPACE "{tablespace}"')
    outside.execute(f"DROP ROLE {role}")


def test_a_database_is_restored_into_the_tablespace_of_the_one_in_use_if_the_role_may(database, placed):
    tablespace, role = placed
    found = []
    for number, (user, statement) in enumerate(
        [("postgres", "SELECT 1"), (role, "SELECT 1"), (role, f'GRANT CREATE ON TABLESPACE "{tablespace}" TO {role}')]
    ):
        database.execute(statement)
        name = f"{database.name}_{number}"
        with django(dataclasses.replace(database, user=user)) as connection:
            create(connection, name)
            found.append((database.execute(PLACE, [name])[0][0], describe_unusable(connection)))

    sentence = (
        f"This role may create nothing in {tablespace}, the tablespace of the database in use, so the restored database is in pg_default, on the"
        f' disk of the data directory. To prevent it, as a superuser, before the restore: GRANT CREATE ON TABLESPACE "{tablespace}" TO'
        f' "{role}";'
    )
    assert found == [(tablespace, ""), ("pg_default", sentence), (tablespace, "")]


def test_the_disk_of_the_tablespace_is_checked(database, placed):
    tablespace, role = placed
    with django(database) as connection:
        manifest = described(read_origin(connection), datetime.now(UTC), size=2**60)
        found = note(connection, manifest)
        elsewhere = read_attached(connection).notes()
        with pytest.raises(Refusal) as refused:
            require_disk_space(connection, manifest)
    with django(dataclasses.replace(database, user=role)) as connection:
        by_default = note(connection, manifest)

    assert elsewhere == []  # It holds the whole database.
    assert f"takes about 1,048,576.0 TB on the disk of the tablespace {tablespace}, in addition to the one in use." in found
    assert "takes about 1,048,576.0 TB on the server's disk, in addition to the one in use." in by_default
    assert re.search(
        rf" on the disk of the tablespace {tablespace}, and only .* make room in /.*/pg_tblspc/\d+\. ", str(refused.value)
    )
