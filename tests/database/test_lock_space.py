"""Backups of many tables: the lock tables of the server, and of the one on which a backup is verified."""

import pytest

from tests.conftest import manage

MANY = """
    DO $$ BEGIN FOR number IN 1..{} LOOP EXECUTE 'CREATE TABLE many.t' || number || ' ()'; IF number % 50 = 0 THEN COMMIT; END IF; END LOOP; END $$
"""


@pytest.mark.slow
@pytest.mark.parametrize(("tables", "needed"), [(700, 128), (1300, 192)], ids=["for pg_dump", "for the first lock of each"])
def test_a_backup_names_the_setting_and_who_owns_the_tables(own_server, tmp_path, tables, needed):
    server = own_server(max_locks_per_transaction="10", max_connections="20")
    server.execute("CREATE SCHEMA many")
    server.execute(MANY.format(tables))

    taken = manage("dbbackup", url=server.url(), BACKUP_LOCATION=str(tmp_path / "backups"))

    assert (taken.returncode, taken.stderr) == (
        2,
        f"The server's lock table is too small for a backup, which locks each of the {tables:,} tables twice; the role postgres owns"
        f" {tables:,} of them. Drop those that are not needed, or, as a superuser: ALTER SYSTEM SET max_locks_per_transaction = {needed};"
        " and restart the server. Then run the command again.\n",
    )


@pytest.mark.slow
def test_a_backup_of_many_tables_is_verified(own_server, tmp_path):
    """The comparison locks all of them on the server of the trial restore."""
    server = own_server(migrated=True, max_locks_per_transaction="256")
    server.execute("CREATE SCHEMA many")
    server.execute(MANY.format(6000))

    taken = manage("dbbackup", "--verify", url=server.url(), BACKUP_LOCATION=str(tmp_path / "backups"))

    assert (taken.returncode, taken.stderr) == (0, "")
    assert "Verdict   verified: restored on PostgreSQL " in taken.stdout
