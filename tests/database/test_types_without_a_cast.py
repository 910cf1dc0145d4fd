"""Columns whose type PostgreSQL casts to no type of ours: their cures convert the values, and what builds on them waits."""

import pytest
from django.db import connection

from fly2any.database.sql import ask
from fly2any.database.verification import verify
from tests.database.test_writes import run

PERSON = "INSERT INTO users (id, email, \"isStaff\", \"createdAt\", \"updatedAt\") VALUES ('a', 'a@example.com', true, '2026-11-30 12:00:00.123+00', now())"
STAFF = 'ALTER TABLE users ALTER "isStaff" DROP DEFAULT; DROP INDEX users_staff_idx; ALTER TABLE users ALTER "isStaff" TYPE {} USING "isStaff"::int'
TIME = 'ALTER TABLE users ALTER "createdAt" DROP DEFAULT, ALTER "createdAt" TYPE {} USING extract(epoch FROM "createdAt")'
LIST = 'ALTER TABLE user_preferences ALTER "preferredAirlines" TYPE jsonb USING to_jsonb("preferredAirlines")'
PHONE = "ALTER TABLE users ALTER phone TYPE {} USING {}"
BECOMES = "SELECT phone::text = '{}' FROM users"
CASES = {
    "a number for a boolean": (STAFF.format("smallint"), 'SELECT "isStaff"::text FROM users', {"default.missing", "index.missing"}),
    "milliseconds": (TIME.format("bigint") + " * 1000", 'SELECT "createdAt" = \'2026-11-30 12:00:00.123+00\' FROM users', {"default.missing"}),
    "seconds": (TIME.format("integer"), "SELECT \"createdAt\" = '2026-11-30 12:00:00+00' FROM users", {"default.missing"}),
    "JSON for a list": (LIST, 'SELECT "preferredAirlines" = ARRAY[\'TP\', \'S 4\'] FROM user_preferences', set()),
    "a date for a text": (PHONE.format("date", "'2027-04-25'"), BECOMES.format("2027-04-25"), set()),
    "a time for a text": (PHONE.format("timestamptz(3)", "'2027-04-25 00:00+00'"), BECOMES.format("2027-04-25 00:00:00+00"), set()),
    "bytes for a text": (PHONE.format("bytea", "convert_to('ã', 'UTF8')"), BECOMES.format("ã"), set()),
    "JSON for a text": (PHONE.format("jsonb", "to_jsonb('ã'::text)"), BECOMES.format("ã"), set()),
    "a list for a text": (PHONE.format("text[]", "'{ã}'"), BECOMES.format("{ã}"), set()),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES)
def test_values_are_converted_and_what_needs_their_type_is_commented_out(case):
    damage, value, waiting = CASES[case]
    run(
        PERSON,
        "INSERT INTO user_preferences (id, \"userId\", \"preferredAirlines\", \"updatedAt\") VALUES ('p', 'a', '{TP,S 4}', now())",
    )
    expected = ask(connection, value)
    run("SET CONSTRAINTS ALL IMMEDIATE", damage)

    findings = verify(connection).findings
    type_, *others = [one for one in findings if one.loses]
    run("SET LOCAL DateStyle TO 'SQL, DMY'", "SET LOCAL TimeZone TO 'America/Sao_Paulo'")
    run(*(one.cure for one in findings if not one.loses))
    run(type_.cure, *(one.cure for one in others))
    run("SET LOCAL TimeZone TO 'UTC'")

    assert (type_.code, "rounded" in type_.loses) == ("column.different", False)
    assert {(one.code, one.loses) for one in others} == {
        (code, f"it needs the type of {type_.where} first") for code in waiting
    }
    assert verify(connection).findings == ()
    assert ask(connection, value) in (expected, True)


@pytest.mark.django_db
@pytest.mark.parametrize(("given", "value"), [("inet", "10.0.0.1"), ("double precision", "0.30000000000000004")])
def test_other_values_are_written_in_full_and_without_additions(given, value):
    """PostgreSQL's cast of an address to text adds /32."""
    run(PERSON, "SET CONSTRAINTS ALL IMMEDIATE", PHONE.format(given, f"'{value}'"), "SET LOCAL extra_float_digits TO 0")

    [one] = verify(connection).findings
    run(one.cure)

    assert (one.code, one.loses, verify(connection).findings) == ("column.different", "", ())
    assert ask(connection, "SELECT phone FROM users") == value


LOOKALIKES = """
    CREATE FUNCTION public.{0}({1}) RETURNS {2} LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught'; END $$;
"""
PLANTED = {
    "a number for a boolean": LOOKALIKES.format("caught", "smallint, integer", "bool")
    + "CREATE OPERATOR public.<> (LEFTARG = smallint, RIGHTARG = integer, FUNCTION = public.caught)",
    "milliseconds": LOOKALIKES.format("caught", "bigint, numeric", "numeric")
    + "CREATE OPERATOR public./ (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = public.caught);"
    + LOOKALIKES.format("to_timestamp", "numeric", "timestamptz"),
    "seconds": LOOKALIKES.format("to_timestamp", "integer", "timestamptz"),
    "JSON for a list": LOOKALIKES.format("to_jsonb", "text[]", "jsonb"),
}


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize("case", PLANTED)
def test_the_conversion_calls_nothing_but_postgresqls_own(case):
    run(
        PERSON,
        "INSERT INTO user_preferences (id, \"userId\", \"preferredAirlines\", \"updatedAt\") VALUES ('p', 'a', '{TP,S 4}', now())",
        "SET CONSTRAINTS ALL IMMEDIATE",
        CASES[case][0],
        PLANTED[case],
    )

    [type_] = [one for one in verify(connection).findings if one.code == "column.different"]
    run(type_.cure)

    assert "column.different" not in {one.code for one in verify(connection).findings}


SEARCH = """INSERT INTO ai_conversations (id, "sessionId", metadata, "searchHistory", "updatedAt")
            VALUES ('c', 's', '{}', '[{"to": "FCO"}]', now())"""
HISTORY = 'ALTER TABLE ai_conversations ALTER "searchHistory" TYPE {} USING ARRAY["searchHistory" -> 0]::{}'


@pytest.mark.sampled(2)
@pytest.mark.django_db
@pytest.mark.parametrize("type_", ["jsonb[]", "json[]", "varchar[]", "varchar(99)[]"])
def test_an_array_becomes_an_array_of_json(type_):
    """As Prisma's `Json[]`."""
    run(SEARCH, "SET CONSTRAINTS ALL IMMEDIATE", HISTORY.format(type_, type_))

    (one,) = verify(connection).findings
    run(one.cure)

    assert (one.code, one.loses, verify(connection).findings) == ("column.different", "each list becomes an array of JSON", ())
    item = '\'{"to": "FCO"}\'::jsonb'
    item = item if type_.startswith("json") else f"to_jsonb({item}::text)"
    assert ask(connection, f'SELECT "searchHistory" = jsonb_build_array({item}) FROM ai_conversations')


@pytest.mark.django_db
def test_what_a_text_loses_as_json_is_named():
    run('ALTER TABLE user_activities ALTER "eventData" TYPE text')

    (one,) = verify(connection).findings

    assert one.loses == (
        "jsonb keeps neither the order of the keys of an object nor a key that occurs twice, and a value that is not JSON stops the"
        " statement"
    )


MESSAGE = """
    INSERT INTO ai_conversations (id, "sessionId", metadata, "searchHistory", "updatedAt") VALUES ('c', 's', '{}', '[]', now());
    INSERT INTO ai_messages (id, "conversationId", role, content, timestamp) VALUES ('m', 'c', 'user', 'Rome?', 1790000000123);
    INSERT INTO accounts (id, "userId", type, provider, "providerAccountId", expires_at) VALUES ('g', 'a', 'oauth', 'google', '7', 1790000000);
    SET CONSTRAINTS ALL IMMEDIATE
"""


@pytest.mark.django_db
@pytest.mark.parametrize("zone", ["with", "without"])
def test_times_in_place_of_numbers_become_numbers_again(zone):
    as_time = {"with": "to_timestamp({})", "without": "to_timestamp({}) AT TIME ZONE 'UTC'"}[zone]
    run(
        PERSON,
        MESSAGE,
        f"ALTER TABLE ai_messages ALTER timestamp TYPE timestamp(3) {zone} time zone USING {as_time.format('timestamp / 1000.0')}",
        f"ALTER TABLE accounts ALTER expires_at TYPE timestamp {zone} time zone USING {as_time.format('expires_at')}",
    )

    findings = [one for one in verify(connection).findings if one.code == "column.different"]

    assert {one.where: one.loses for one in findings} == {
        "accounts.expires_at": "the times become seconds since 1970",
        "ai_messages.timestamp": "the times become milliseconds since 1970",
    }
    run(*(one.cure for one in findings))
    assert ask(connection, "SELECT timestamp FROM ai_messages") == 1790000000123
    assert ask(connection, "SELECT expires_at FROM accounts") == 1790000000
    assert verify(connection).findings == ()
