"""Each way around the privileges of a table is created for real, found, and resolved by its cure."""

import dataclasses
import json
import re
import time

import pytest

from fly2any.database.findings import Finding, Severity
from fly2any.database.health.examine import Reader
from fly2any.database.health.security import TOPICS, logs_roles
from fly2any.database.verification import verify
from tests.conftest import django, manage
from tests.database.test_dbhealth import of

pytestmark = pytest.mark.usefixtures("server")
ASKED = ("readers", "ownership", "code")


def asked(database):
    """The findings of these topics, and their figures by label."""
    with django(database) as connection:
        connection.ensure_connection()
        answers = [one for topic in ASKED for one in TOPICS[topic](Reader(connection, "public"))]
    findings = [one for one in answers if isinstance(one, Finding)]
    return findings, {one.label: one.text for one in answers if not isinstance(one, Finding)}


@pytest.fixture
def other_role(migrated):
    """A role without privileges."""
    name = f"{migrated.name}_stranger"
    migrated.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    migrated.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}")


WEAKNESSES = {
    "database": (
        "ALTER DATABASE {db} SET session_replication_role = replica",
        "error",
        "security.replication_role",
        "DATABASE {db}",
    ),
    "role in database": (
        "ALTER ROLE {role} IN DATABASE {db} SET session_replication_role = replica",
        *("error", "security.replication_role", "ROLE {role} IN DATABASE {db}"),
    ),
    "definer": (
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT password FROM public.users LIMIT 1'",
        *("warning", "security.definer", "public.f()"),
    ),
    "definer, parsed body": (
        "CREATE FUNCTION f(t text) RETURNS text LANGUAGE sql SECURITY DEFINER RETURN (SELECT password FROM users WHERE email = t)",
        *("warning", "security.definer", "public.f(text)"),
    ),
    "view": (
        "CREATE VIEW v AS SELECT password FROM users; GRANT SELECT ON v TO {role}",
        "warning",
        "security.view",
        "public.v",
    ),
    "whole row": (
        "CREATE VIEW v AS SELECT u FROM users AS u; GRANT SELECT ON v TO {role}",
        "warning",
        "security.view",
        "public.v",
    ),
    "view of a view": (
        "CREATE VIEW inner_view AS SELECT password AS p FROM users; CREATE VIEW v AS SELECT p FROM inner_view; GRANT SELECT ON v TO {role}",
        *("warning", "security.view", "public.v"),
    ),
    "materialized view": (
        "CREATE MATERIALIZED VIEW v AS SELECT access_token FROM accounts; GRANT SELECT ON v TO PUBLIC",
        *("warning", "security.view", "public.v"),
    ),
    "column": ("GRANT SELECT (password), UPDATE (password) ON users TO {role}", "warning", "security.column", "users.password"),
    "owner": ("ALTER TABLE accounts OWNER TO {role}", "error", "security.owner", "accounts"),
    "owner of users": ("ALTER TABLE users OWNER TO {role}", "error", "security.owner", "users"),
    "event trigger": (
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; ALTER FUNCTION f() OWNER TO {role};"
        " CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
        *("warning", "security.event_trigger", "e"),
    ),
    "superuser's event trigger": (
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        " CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
        *("note", "security.event_trigger", "e"),
    ),
    "publication": ("CREATE PUBLICATION p FOR ALL TABLES", "warning", "security.publication", "p"),
    "default privileges": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
        *("warning", "security.default_privileges", "{role}"),
    ),
    "create": ("GRANT CREATE ON SCHEMA public TO {role}", "warning", "security.create", "SCHEMA public"),
    "trigger": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER t BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION f()",
        *("note", "security.trigger", "sessions.t"),
    ),
}
BY_HAND = {
    "security.event_trigger": "DROP EVENT TRIGGER e",
    "security.publication": "DROP PUBLICATION p",
    "security.trigger": "DROP TRIGGER t ON sessions",
}


def test_a_healthy_database_has_no_finding(migrated, other_role):
    findings, figures = asked(migrated)

    assert findings == []
    assert other_role not in figures["roles that read secrets"]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("made", WEAKNESSES)
def test_a_weakness_is_found_and_resolved_by_its_cure(migrated, other_role, made):
    statements, severity, code, where = WEAKNESSES[made]
    names = {"role": other_role, "db": migrated.name}
    migrated.execute(statements.format(**names))

    findings, _ = asked(migrated)
    for one in findings:
        migrated.execute(one.cure if one.is_sql else BY_HAND[code])
    after, _ = asked(migrated)

    assert [(str(one.severity), one.code, one.where) for one in findings] == [(severity, code, where.format(**names))]
    assert after == []


@pytest.mark.slow
def test_a_roles_setting_is_found_and_resolved_by_its_cure(own_server):
    """On a server of its own, because it concerns every database there."""
    server = own_server(migrated=True)
    server.execute("CREATE ROLE stranger LOGIN; ALTER ROLE stranger SET session_replication_role = 'replica'")

    def reported():
        found = json.loads(manage("dbstatus", "--security", "--format", "json", url=server.url()).stdout)["findings"]
        return [one for one in found if one["code"] == "security.replication_role"]

    [finding] = reported()
    server.execute(finding["cure"])

    assert (finding["severity"], finding["where"]) == ("error", "ROLE stranger")
    assert reported() == []


def test_a_comparison_says_where_no_foreign_key_is_checked(migrated):
    separator = "&" if "?" in migrated.url else "?"
    asked_for = manage("dbstatus", url=f"{migrated.url}{separator}options=-csession_replication_role%3Dreplica")
    migrated.execute(f"ALTER DATABASE {migrated.name} SET session_replication_role TO replica")
    with django(migrated) as connection:
        of_database = [one for one in verify(connection).findings if one.code == "security.replication_role"]

    says = f"Sessions of DATABASE {migrated.name} begin with session_replication_role = replica: no trigger runs, and no foreign key is checked."
    assert asked_for.returncode == 4
    assert says.replace(f"Sessions of DATABASE {migrated.name}", "Sessions with the options of the URL") in " ".join(
        asked_for.stdout.split()
    )
    assert "security.replication_role at CLIENT" in asked_for.stdout
    assert [(one.severity, one.where, one.message) for one in of_database] == [("error", f"DATABASE {migrated.name}", says)]
    migrated.execute(of_database[0].cure)
    with django(migrated) as connection:
        assert verify(connection).findings == ()


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "harmless",
    [
        "CREATE VIEW v AS SELECT id, email FROM users; GRANT SELECT ON v TO {role}",
        "CREATE VIEW v AS SELECT password FROM users",
        "GRANT SELECT ON users TO {role}; CREATE VIEW v AS SELECT password FROM users; GRANT SELECT ON v TO {role}",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT password FROM public.users'",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT password FROM public.users';"
        " REVOKE ALL ON FUNCTION f() FROM PUBLIC",
        "ALTER ROLE {role} SET session_replication_role = origin",
        "ALTER ROLE {role} SET session_replication_role = local",
        "CREATE PUBLICATION p FOR TABLE airports",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO postgres",
        "GRANT SELECT (id, email) ON users TO {role}",
    ],
)
def test_harmless_privileges_are_not_found(migrated, other_role, harmless):
    migrated.execute(harmless.replace("airports", "price_alerts").format(role=other_role))

    assert asked(migrated)[0] == []


def test_a_table_of_a_role_that_is_not_trusted_is_described(migrated, other_role):
    migrated.execute(f"ALTER TABLE accounts OWNER TO {other_role}")

    assert [one.message for one in asked(migrated)[0]] == [
        f"Table accounts belongs to {other_role}, which is not trusted: that role can read and change its rows, and add triggers to it."
    ]


def test_a_function_with_its_owners_privileges_is_described_with_the_tables_that_it_reads(migrated):
    body = "SELECT u.password FROM public.users AS u JOIN public.accounts AS a ON true LIMIT 1"
    migrated.execute(f"CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER AS '{body}'")

    assert [one.message for one in asked(migrated)[0]] == [
        "The function runs as its owner postgres (SECURITY DEFINER) and reads accounts, users; PUBLIC may call it without the"
        " privilege to read their secrets."
    ]


def test_everyone_who_can_read_a_secret_is_listed(migrated, other_role):
    middle = f"{migrated.name}_middle"
    migrated.execute(f"CREATE ROLE {middle}; GRANT {middle} TO {other_role}; ALTER ROLE {other_role} NOINHERIT")
    try:
        for grant, tables in (
            ("GRANT SELECT (password) ON users TO {}", "users"),
            ("GRANT SELECT ON accounts TO {}", "accounts, users"),
        ):
            migrated.execute(grant.format(middle))
            assert f"{other_role} ({tables})" in asked(migrated)[1]["roles that read secrets"].split("; ")
    finally:
        migrated.execute(f"DROP OWNED BY {middle}; DROP ROLE {middle}")


def test_members_of_the_owner_of_users_are_named_with_the_cure(migrated, other_role):
    owner, between = f"{other_role}_owner", f"{other_role}_group"
    migrated.execute(f"CREATE ROLE {owner}; CREATE ROLE {between}; ALTER TABLE users OWNER TO {owner}")
    try:
        migrated.execute(f"GRANT {owner} TO {between}; GRANT {between} TO {other_role}; ALTER ROLE {other_role} NOINHERIT")
        indirect = [one for one in asked(migrated)[0] if one.code == "security.member"]
        migrated.execute(f"GRANT {owner} TO {other_role}")
        direct = [one for one in asked(migrated)[0] if one.code == "security.member"]
        migrated.execute(f"REVOKE {between} FROM {other_role}; {direct[0].cure.partition(': ')[2]}")
        resolved = [one for one in asked(migrated)[0] if one.code == "security.member"]
    finally:
        migrated.execute(
            f"REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}; DROP ROLE {between}"
        )

    assert [(one.severity, one.where, one.cure) for one in indirect + direct] == [
        ("note", other_role, f"If it does not need this, revoke the membership by which it can become {owner}."),
        ("note", other_role, f'If it does not need this: REVOKE "{owner}" FROM "{other_role}";'),
    ]
    assert direct[0].message == (
        f"Role {other_role} is a member of {owner}, which owns users, so it can do all that the owner can, such as drop tables and triggers."
    )
    assert resolved == []


def test_a_client_that_is_connected_as_an_owner_or_superuser_is_noted(migrated, other_role):
    """Such as the site, whose role the variables of this process do not show."""
    reader = f"{migrated.name}_reader"
    migrated.execute(f"ALTER TABLE users OWNER TO {other_role}; ALTER ROLE {other_role} CREATEROLE; CREATE ROLE {reader} LOGIN")
    migrated.execute(f"GRANT pg_read_all_data TO {reader}")

    def noted(user):
        with django(dataclasses.replace(migrated, user=user)) as connection:
            connection.ensure_connection()
            connection.settings_dict = {**connection.settings_dict, "EMBEDDED": None}
            answers = TOPICS["privileges"](Reader(connection, "public"))
            return [(one.severity, one.where, one.message) for one in answers if getattr(one, "code", "") == "security.session"]

    connect = [dataclasses.replace(migrated, user=user).connect() for user in (other_role, other_role, reader)]
    try:
        found = noted(reader)
        unlisted = noted(other_role)
        with migrated.connect():
            of_superuser = noted(other_role)
    finally:
        for client in connect:
            client.close()
        migrated.execute(f"ALTER ROLE {other_role} NOCREATEROLE; DROP OWNED BY {reader}; DROP ROLE {reader}")

    message = "Another client is connected as this role, which is the owner of 1 table and has, or can acquire, CREATEROLE."
    assert (found, unlisted) == ([(Severity.NOTE, other_role, message)], [])
    [(_, where, message)] = of_superuser
    assert (where, re.sub(r"\d+ tables", "… tables", message)) == (
        "postgres",
        "Another client is connected as this role, which is the owner of … tables and has, or can acquire, SUPERUSER, CREATEROLE,"
        " BYPASSRLS, REPLICATION.",
    )


@pytest.mark.slow
def test_a_thousand_roles_are_asked_in_time(own_server):
    """A program such as Vault creates them; a statement of a topic may take 5 s."""
    server = own_server(migrated=True)
    server.execute("DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE 'CREATE ROLE token' || i || ' LOGIN'; END LOOP; END $$")
    server.execute(
        "GRANT SELECT ON users TO token1; CREATE ROLE readers; GRANT SELECT ON sessions TO readers; GRANT readers TO token1, token2"
    )

    began = time.monotonic()
    findings, figures = asked(of(server))

    assert (findings, figures["roles that read secrets"]) == ([], "token1 (sessions, users); token2 (sessions)")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ("on", True), ("yes", True), ("all", True), ("receipt, AUTHENTICATION", True), ("authorization", True),
        ("off", False), ("", False), ("no", False), ("0", False), ("false", False), ("receipt,setup_durations", False),
    ],
)  # fmt: skip
def test_a_list_of_what_is_logged_of_connections_must_include_their_roles(value, logged):
    assert logs_roles(value) is logged
