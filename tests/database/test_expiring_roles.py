"""Roles whose passwords expire, or whose limit of connections is reached."""

import dataclasses
from contextlib import ExitStack, closing

import pytest

from fly2any.database.findings import Finding, Severity
from fly2any.database.health.examine import Reader
from fly2any.database.health.sessions import describe_expiring
from fly2any.database.health.topics import TOPICS
from tests.conftest import django
from tests.database.test_dbhealth import found

pytestmark = pytest.mark.usefixtures("server")


def test_roles_of_ours_whose_password_expires_are_found(migrated):
    roles = {"past": "-1 day", "soon": "13 days", "later": "15 days", "of_others": "1 day", "group": "1 day", "boss": "1 day"}
    names = {one: f"{migrated.name}_{one}" for one in roles}
    for one, name in names.items():
        kind = {"group": "NOLOGIN", "boss": "LOGIN SUPERUSER"}.get(one, "LOGIN")
        migrated.execute(f"CREATE ROLE {name} {kind}")
        [(until,)] = migrated.execute("SELECT (now() + %s::interval)::text", [roles[one]])
        migrated.execute(f"ALTER ROLE {name} VALID UNTIL '{until}'")
        if one != "of_others":
            migrated.execute(f"GRANT SELECT ON users TO {name}")
    try:
        with django(migrated) as connection:
            seen = [one for one in TOPICS["connections"](Reader(connection, "public")) if isinstance(one, Finding)]
    finally:
        for name in names.values():
            migrated.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")

    assert [(one.severity, one.code, one.where) for one in seen] == [
        (Severity.ERROR, "connections.role_expires", names["past"]),
        (Severity.WARNING, "connections.role_expires", names["soon"]),
    ]
    assert seen[0].cure == (
        f'ALTER ROLE "{names["past"]}" VALID UNTIL \'infinity\'; or, if it is no longer used: ALTER ROLE "{names["past"]}" NOLOGIN;'
    )


def test_roles_that_a_program_creates_for_a_short_time_are_one_note(migrated):
    names = [f"{migrated.name}_v{number}" for number in range(3)]
    for number, name in enumerate(names):
        [(until,)] = migrated.execute("SELECT (now() + make_interval(hours => %s))::text", [number - 1])
        migrated.execute(f"CREATE ROLE {name} LOGIN VALID UNTIL '{until}'; GRANT SELECT ON users TO {name}")
    try:
        with django(migrated) as connection:
            seen = [one for one in TOPICS["connections"](Reader(connection, "public")) if isinstance(one, Finding)]
    finally:
        for name in names:
            migrated.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")

    assert [(one.severity, one.code, one.where, one.message) for one in seen] == [
        (
            *(Severity.NOTE, "connections.role_expires", "roles"),
            "Of the passwords of 3 roles that may read users, 2 have expired, and the other expires within 14 days.",
        )
    ]


@pytest.mark.parametrize(
    ("expired", "said"),
    [
        (0, "The passwords of 4 roles that may read users expire within 14 days."),
        (1, "Of the passwords of 4 roles that may read users, 1 has expired, and the others expire within 14 days."),
        (4, "The passwords of 4 roles that may read users have expired."),
    ],
)
def test_passwords_that_have_expired_are_told_from_those_that_will(expired, said):
    assert describe_expiring(4, expired, "14 days") == said


def test_the_limit_of_a_role_that_writes_is_found_by_another_role(migrated):
    """Which has no limit itself: the role that has reached its limit could not connect to find that."""
    writer, reader = f"{migrated.name}_writer", f"{migrated.name}_reader"
    migrated.execute(f"CREATE ROLE {writer} LOGIN CONNECTION LIMIT 2; CREATE ROLE {reader} LOGIN CONNECTION LIMIT 2")
    migrated.execute(f"GRANT SELECT, INSERT ON price_alerts TO {writer}; GRANT SELECT ON price_alerts TO {reader}")
    try:
        before = found(migrated, "connections")
        migrated.execute(f"ALTER ROLE {writer} CONNECTION LIMIT 0; ALTER ROLE {reader} CONNECTION LIMIT 0")
        with django(migrated) as connection:
            [shut_out] = [one for one in TOPICS["connections"](Reader(connection, "public")) if isinstance(one, Finding)]
        migrated.execute(f"ALTER ROLE {writer} NOLOGIN")
        of_group = found(migrated, "connections")
        migrated.execute(f"ALTER ROLE {writer} LOGIN CONNECTION LIMIT 2; ALTER ROLE {reader} CONNECTION LIMIT 2")
        with ExitStack() as sessions:
            for role in (writer, writer, reader, reader):
                sessions.enter_context(closing(dataclasses.replace(migrated, user=role).connect()))
            used_up = found(migrated, "connections")
    finally:
        migrated.execute(f"DROP OWNED BY {writer}, {reader}; DROP ROLE {writer}, {reader}")

    assert (before, of_group, used_up) == ([], [], [("connections.near_limit", f"role {writer}")])
    assert shut_out == Finding(
        *(Severity.WARNING, "connections.near_limit", f"role {writer}"),
        f"No connection of the role {writer} is allowed (CONNECTION LIMIT 0), except those of superusers.",
        f'To allow its connections again: ALTER ROLE "{writer}" CONNECTION LIMIT -1;',
    )
