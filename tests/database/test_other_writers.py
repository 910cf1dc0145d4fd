"""A role that may write our tables, such as the site's, but cannot connect or use the schema, is a note for the role that migrates."""

import json

import pytest

from tests.conftest import manage

pytestmark = pytest.mark.usefixtures("server")

WRITES = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"


def notes(database, role):
    """The findings at `role`."""
    found = json.loads(manage("dbstatus", "--format", "json", url=database.url).stdout)["findings"]
    return [(one["severity"], one["code"], one["message"], one["cure"]) for one in found if one["where"] == role]


def test_a_role_that_may_write_and_is_shut_out_is_noted(migrated):
    role = f"{migrated.name}_role"
    with migrated.role(WRITES):
        before = notes(migrated, role)
        migrated.execute(f"REVOKE CONNECT ON DATABASE {migrated.name} FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        [(severity, code, message, cure)] = notes(migrated, role)
        migrated.execute(cure)
        after = notes(migrated, role)

    assert (before, after) == ([], [])
    assert (severity, code, message, cure) == (
        *("note", "server.privileges"),
        f"The role {role} may write our tables, but lacks CONNECT on the database {migrated.name} and USAGE on the schema public,"
        " so each of its queries fails.",
        f'GRANT CONNECT ON DATABASE "{migrated.name}" TO "{role}";\nGRANT USAGE ON SCHEMA "public" TO "{role}";',
    )


def test_a_role_that_only_reads_may_lack_them(migrated):
    with migrated.role("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"):
        migrated.execute(f"REVOKE CONNECT ON DATABASE {migrated.name} FROM PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC")

        assert notes(migrated, f"{migrated.name}_role") == []
