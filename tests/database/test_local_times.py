"""Times without a zone that the database itself wrote are local times: no cure reads them as UTC unread."""

import pytest

from fly2any.database.verification import verify
from tests.conftest import django

LOCAL = """
    ALTER TABLE price_history ALTER "timestamp" DROP DEFAULT, ALTER "timestamp" TYPE timestamp(3) USING "timestamp" AT TIME ZONE 'UTC';
    ALTER TABLE price_history ALTER "timestamp" SET DEFAULT CURRENT_TIMESTAMP
"""
READS = (
    "it reads the times as UTC, but those that the database wrote (by a default or a trigger) may be in {}:"
    " if they are, name that zone in the statement"
)


@pytest.mark.parametrize(
    ("setting", "zones"),
    [
        ("SELECT 1", ""),
        ("ALTER DATABASE {database} SET timezone TO 'Etc/UTC'", ""),
        ("ALTER DATABASE {database} SET timezone TO 'utc'", ""),
        ("ALTER DATABASE {database} SET timezone TO 'Europe/Berlin'", "Europe/Berlin"),
        ("GRANT INSERT ON price_history TO {role}; ALTER ROLE {role} SET timezone TO 'America/Sao_Paulo'", "America/Sao_Paulo"),
        (
            "ALTER ROLE ALL IN DATABASE {database} SET timezone TO 'Europe/Berlin'; GRANT INSERT ON price_history TO {role};"
            " ALTER ROLE {role} SET timezone TO 'utc'; ALTER ROLE CURRENT_USER IN DATABASE {database} SET timezone TO 'utc'",
            "",
        ),
        ("GRANT SELECT ON price_history TO {role}; ALTER ROLE {role} SET timezone TO 'America/Sao_Paulo'", ""),
    ],
    ids=[
        "UTC",
        "UTC by another name",
        "UTC in lower case",
        "the database's",
        "a writer's",
        "one that each role overrides",
        "a reader's",
    ],
)
def test_local_times_are_not_read_as_utc_unread(migrated, setting, zones):
    role = f"{migrated.name}_site"
    migrated.execute(f"CREATE ROLE {role} LOGIN")
    try:
        migrated.execute(f"{LOCAL}; {setting.format(database=migrated.name, role=role)}")
        with django(migrated) as connection:
            found = verify(connection).findings
    finally:
        migrated.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    [finding] = [one for one in found if one.code == "column.different"]
    assert zones or "server.time_zone" not in {one.code for one in found}
    assert (finding.where, finding.loses) == ("price_history.timestamp", READS.format(zones) if zones else "")
    assert finding.cure.startswith("DO $$ BEGIN\nSET LOCAL TimeZone TO 'UTC';\nALTER TABLE ")
