"""Defaults of sessions that make statements of the site fail or change what they write: each is found where it is set."""

import psycopg
import pytest
from django.db import connection

from fly2any.database.verification import verify
from tests.database.test_writes import found, run

FAST = {
    "lock_timeout": "each statement that waits for a lock fails at once",
    "statement_timeout": "statements that take longer fail",
    "transaction_timeout": "the server ends the connection of a transaction that takes longer",
    "idle_in_transaction_session_timeout": "the server ends the connection of a transaction that waits longer for its client",
}
IDLE = "the server ends connections that a pool still holds, and their next statement fails"
NULLS = "NULL in an array that a client sends is stored as the text NULL"
READS = "a client that sets no encoding cannot read every text, and what it writes is misread if it sends UTF-8"


@pytest.mark.sampled(16)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("setting", "value", "code", "does"),
    [
        *((setting, value, "database.timeout", does) for setting, does in FAST.items() for value in ("1ms", "99")),
        *((setting, value, "", "") for setting in FAST for value in ("0", "100", "2s", "1min", "0.5s")),
        ("lock_timeout", "0.05s", "database.timeout", FAST["lock_timeout"]),
        *(("idle_session_timeout", value, "database.timeout", IDLE) for value in ("2s", "2000", "900ms", "9.5s", "0.5s")),
        *(("idle_session_timeout", value, "", "") for value in ("0", "10s", "10000", "5min")),
        ("array_nulls", "off", "database.array_nulls", NULLS),
        ("array_nulls", "on", "", ""),
        ("client_encoding", "LATIN1", "database.encoding", READS),
        ("client_encoding", "SQL_ASCII", "database.encoding", READS),
        ("client_encoding", "utf8", "", ""),
        ("client_encoding", "UTF-8", "", ""),
    ],
)  # fmt: skip
def test_a_default_is_found_and_its_cure_works(setting, value, code, does):
    if setting == "transaction_timeout" and connection.pg_version < 170000:
        return
    name = connection.settings_dict["NAME"]
    run(f"ALTER DATABASE {name} SET {setting} TO '{value}'")

    findings = verify(connection).findings

    assert [(str(one.severity), one.code, one.where, one.message) for one in findings] == [
        ("warning", code, f"DATABASE {name}", f"Sessions of DATABASE {name} begin with {setting} = {value}: {does}.")
    ] * bool(code)
    for finding in findings:
        run(finding.cure)
    assert found() == []


@pytest.mark.django_db
@pytest.mark.parametrize("writes", [True, False])
def test_a_default_of_another_role_is_found_if_it_may_write(writes):
    run(
        "CREATE ROLE site",
        f"GRANT {'INSERT' if writes else 'SELECT'} ON ALL TABLES IN SCHEMA public TO site",
        "ALTER ROLE site SET lock_timeout TO '1ms'",
    )

    assert [(one.code, one.where, one.cure) for one in verify(connection).findings] == [
        ("database.timeout", "ROLE site", "ALTER ROLE site RESET lock_timeout;")
    ] * writes


TOKYO = "ALTER ROLE site SET timezone TO 'Asia/Tokyo'"
OURS = "ALTER ROLE CURRENT_USER IN DATABASE {} SET timezone TO 'UTC'"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("statements", "place"),
    [
        ([TOKYO], "ROLE site"),
        (["ALTER ROLE site IN DATABASE {} SET timezone TO 'Asia/Tokyo'"], "ROLE site IN DATABASE {}"),
        ([TOKYO, "ALTER ROLE site IN DATABASE {} SET timezone TO 'Etc/UTC'"], ""),
        (["ALTER DATABASE {} SET timezone TO 'Asia/Tokyo'", OURS], "DATABASE {}"),
        (["ALTER DATABASE {} SET timezone TO 'Asia/Tokyo'", OURS, "ALTER ROLE site SET timezone TO 'utc'"], ""),
        ([TOKYO, "REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM site"], ""),
        ([TOKYO, "ALTER ROLE site SUPERUSER"], ""),  # A person who reads times in psql.
    ],
)
def test_the_time_zone_of_another_role_that_writes_is_found(statements, place):
    name = connection.settings_dict["NAME"]
    run("CREATE ROLE site LOGIN", "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO site")
    run(*(statement.format(name) for statement in statements))

    found = [one for one in verify(connection).findings if one.code == "server.time_zone"]

    effect = "they read and write times in this zone, but the guide asks for UTC"
    assert [(one.where, one.message, one.cure) for one in found] == [
        (
            place.format(name),
            f"Sessions of {place.format(name)} begin with timezone = Asia/Tokyo: {effect}.",
            f"ALTER {place.format(name)} SET timezone TO 'UTC';",
        )
    ] * bool(place)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("statements", "hidden"),
    [
        ([OURS], True),
        (["ALTER ROLE CURRENT_USER SET timezone TO 'UTC'"], True),
        ([], False),
        ([OURS, "ALTER DATABASE {} SET timezone TO 'UTC'"], False),
        ([OURS, "ALTER ROLE site SET timezone TO 'Etc/UTC'"], False),
        ([OURS, "REVOKE INSERT, UPDATE ON ALL TABLES IN SCHEMA public FROM site"], False),
    ],
)
def test_the_zone_of_the_server_is_not_taken_for_that_of_our_role(statements, hidden):
    name = connection.settings_dict["NAME"]
    run("CREATE ROLE site LOGIN", "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO site")
    run(*(statement.format(name) for statement in statements))

    found = [one for one in verify(connection).findings if one.code == "server.time_zone"]

    assert [(str(one.severity), one.where, one.message) for one in found] == [
        (
            *("warning", name),
            "The time zone of the server is not known, because this role or the options of the URL set one:"
            " if it is not UTC, sessions of other roles or clients read and write times in it.",
        )
    ] * hidden
    run(*(one.cure for one in found))
    assert [one for one in verify(connection).findings if one.code == "server.time_zone"] == []


LOST = "ALTER ROLE site SET search_path TO app"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ([LOST], {"ROLE site": 'ROLE site IN DATABASE "{}" SET search_path TO "app", "public";'}),
        (
            ['ALTER ROLE site IN DATABASE {} SET search_path TO app, "$user"'],
            {"ROLE site IN DATABASE {}": 'ROLE site IN DATABASE {} SET search_path TO "app", "$user", "public";'},
        ),
        ([LOST, "ALTER ROLE site IN DATABASE {} SET search_path TO app, public"], {}),
        (['ALTER ROLE site SET search_path TO "$user", "public"'], {}),
        ([LOST, "REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM site"], {}),
        ([LOST, "ALTER ROLE site NOLOGIN"], {}),
    ],
)
def test_the_path_of_another_role_that_writes_is_noted_if_it_leads_to_no_table_of_ours(settings, places):
    run("CREATE ROLE site LOGIN; GRANT INSERT ON ALL TABLES IN SCHEMA public TO site")
    name = connection.settings_dict["NAME"]
    run(*(setting.format(name) for setting in settings))

    findings = verify(connection).findings

    assert [(str(one.severity), one.code, one.where, one.cure) for one in findings] == [
        ("note", "server.schema", place.format(name), f"ALTER {cure.format(name)}") for place, cure in places.items()
    ]
    for one in findings:
        assert one.message.startswith(f"Sessions of {one.where} begin with search_path = app")
        assert one.message.endswith(": unless the client sets another path, it finds none of our tables.")
        run(one.cure)
    assert found() == []


def test_arrays_and_texts_differ_as_the_findings_say(migrated):
    migrated.execute(
        f"ALTER DATABASE {migrated.name} SET array_nulls TO off; ALTER DATABASE {migrated.name} SET client_encoding TO 'LATIN1'"
    )

    with migrated.connect() as client:
        nulls = client.execute("SELECT '{NULL}'::text[]").fetchone()
        with pytest.raises(psycopg.errors.UntranslatableCharacter):
            client.execute("SELECT U&'\\0142'")

    assert nulls == (["NULL"],)
