"""What PostgreSQL evaluates in each of our INSERTs: a default or a check that raises an error there, or cannot be tried, is reported."""

import pytest
from django.db import connection

from fly2any.database.schema.expressions import calls_nothing, is_literal, without_new_values
from fly2any.database.verification import verify
from tests.database.test_writes import run

RAISES = "raises an error, so every INSERT fails."
NOW = "raises an error in this session, so every INSERT fails."
UNTRIED = "Column theirs of users is unmanaged and was not tried: an INSERT fails where its default"
FUNCTION = "CREATE FUNCTION theirs_f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$"


def of_theirs():
    return [(one.severity, one.message) for one in verify(connection).findings if one.where.startswith("users.theirs")]


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("type_", "default", "severity", "end"),
    [
        ("text", "current_setting('app.tenant')", "error", f"current_setting('app.tenant'::text) {NOW}"),
        ("int", "current_setting('app.tenant')::int", "error", NOW),
        ("int", "length(current_setting('app.tenant'))", "error", NOW),
        ("int", "nextval('theirs_lost'::text)", "error", RAISES),
        ("int", "nextval('users'::text)", "error", RAISES),
        ("text", "repeat('a', 2000000000)", "error", RAISES),
        ("varchar(2)", "'abc'", "error", f"'abc'::character varying {RAISES}"),
        ("smallint", "100000", "error", RAISES),
        ("text", "theirs_f()", "note", f"{UNTRIED} theirs_f() raises an error."),
        ("text", "setseed(2)", "note", "raises an error."),
        ("int", "('users'::text)::regclass::oid::int", "note", "raises an error."),
        ("theirs_domain", None, "note", "raises an error."),
    ],
)
def test_a_default_that_fails_or_was_not_tried_is_reported(type_, default, severity, end):
    run(FUNCTION, "CREATE DOMAIN theirs_domain AS text DEFAULT theirs_f()")
    run(f"ALTER TABLE users ADD theirs {type_ if default else 'text'}")
    run(f"ALTER TABLE users ALTER theirs {f'SET DEFAULT {default}' if default else f'TYPE {type_}'}")

    ((said, message),) = of_theirs()

    assert (said, message[-len(end) :]) == (severity, end)


@pytest.mark.django_db
def test_a_required_column_whose_default_was_not_tried_may_also_be_null():
    run(FUNCTION.replace("RAISE 'it ran'", "RETURN 'a'"), "ALTER TABLE users ADD theirs text NOT NULL DEFAULT theirs_f()")

    assert of_theirs() == [("note", f"{UNTRIED} theirs_f() is NULL or raises an error.")]


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("type_", "default"),
    [
        ("text NOT NULL", "'a'"),
        ("varchar(2) NOT NULL", "'ab'"),
        ("numeric(3,1)", "12.5"),
        ("theirs_mood NOT NULL", "'b'"),
        ("theirs_mood[] NOT NULL", "ARRAY[]::theirs_mood[]"),
        ("theirs_mood[] NOT NULL", "ARRAY['a'::theirs_mood, 'b'::theirs_mood]"),
        ("theirs_mood[] NOT NULL", "'{a}'"),
        ("int NOT NULL", "nextval('theirs_seq')"),
        ("text NOT NULL", "'T-' || lpad(nextval('theirs_seq'::text)::text, 6, '0')"),
        ("uuid NOT NULL", "gen_random_uuid()"),
        ("float8 NOT NULL", "random() * 10"),
        ("timestamp NOT NULL", "clock_timestamp() + interval '1 day'"),
        ("text NOT NULL", "md5(random()::text || 'nextval(''x'')')"),
        ("text", "current_setting('app.tenant', true)"),
        ("text", "NULL::text"),
    ],
)
def test_a_default_that_can_be_stored_is_no_finding(type_, default):
    run("CREATE TYPE theirs_mood AS ENUM ('a', 'b')", "CREATE SEQUENCE theirs_seq")
    run(f"ALTER TABLE users ADD theirs {type_.removesuffix(' NOT NULL')} DEFAULT {default}")
    if "NOT NULL" in type_:
        run("ALTER TABLE users ALTER theirs SET NOT NULL")

    assert of_theirs() == []


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("check", "severity"),
    [
        ("theirs = current_setting('app.x')", "error"),
        ("theirs < current_setting('app.x')", "error"),
        ("theirs IS NULL OR theirs = current_setting('app.x')", "note"),
        ("theirs = current_setting('app.x', true)", "note"),
        ("theirs::timestamptz > now()", "note"),
        ("theirs = theirs_f()", "note"),
        ("email = current_setting('app.x')", "error"),
    ],
)
def test_a_check_that_raises_an_error_beside_null_is_found(check, severity):
    run(FUNCTION, f"ALTER TABLE users ADD theirs text, ADD CONSTRAINT theirs_check CHECK ({check}) NOT VALID")

    assert [said for said, _ in of_theirs()] == [severity]


@pytest.mark.django_db
@pytest.mark.parametrize("writes", [True, False])
def test_a_setting_of_other_sessions_is_not_judged_by_a_role_that_does_not_insert(writes):
    run("ALTER TABLE users ADD theirs text, ALTER theirs SET DEFAULT current_setting('app.tenant')", "CREATE ROLE monitor")
    run("GRANT USAGE ON SCHEMA public TO monitor", *["GRANT INSERT ON users TO monitor"] * writes, "SET LOCAL ROLE monitor")

    ((said, message),) = of_theirs()

    assert (said, UNTRIED in message) == (("error", False) if writes else ("note", True))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("predicate", "severity"), [("theirs IS NOT NULL", None), ("theirs IS NOT NULL AND (NOT (theirs IS NULL))", None), ("theirs IS NULL", "error")]
)  # fmt: skip
def test_a_unique_index_that_no_row_of_ours_enters_is_no_finding(predicate, severity):
    run("CREATE FUNCTION theirs_i(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'x'; END $$")
    run(f"ALTER TABLE users ADD theirs text; CREATE UNIQUE INDEX theirs_x ON users (theirs_i(theirs)) WHERE {predicate}")

    found = [one.severity for one in verify(connection).findings if one.code == "unique.extra"]

    assert found == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("condition", "none"), [('("a(b" IS NOT NULL)', True), ("(f(a) IS NULL)", False), ("(a = 'x'::text)", False), ("(a OPERATOR(x.=) b)", False)]
)  # fmt: skip
def test_a_condition_that_runs_no_function_is_recognised(condition, none):
    assert calls_nothing(condition) is none


@pytest.mark.parametrize(
    ("default", "type_", "literal"),
    [
        ("'it''s'::text", "text", True),
        ("'a'::other.mood", "other.mood", True),
        ("ARRAY[]::\"Role\"[]", "\"Role\"[]", True),
        ("'abc'::character varying", "character varying(2)", False),
        ("100000", "smallint", False),
        ("f('a'::text)", "text", False),
        ("('a'::text)::mood", "mood", False),
    ],
)  # fmt: skip
def test_a_literal_is_recognised(default, type_, literal):
    assert is_literal(default, type_) is literal


def test_functions_of_new_values_are_replaced_outside_texts():
    expression = "(('random()'::text || random()) || nextval('s'::regclass)) || nextval(('it''s'::text)::regclass)"

    assert without_new_values(expression) == (
        "(('random()'::text || 0.5::double precision) || 1::bigint) || 1::bigint",
        {"it's"},
    )
