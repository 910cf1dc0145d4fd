"""A trigger that sets an unmanaged column before each INSERT: what its default would violate is a note until a write check tries it."""

import re

import pytest
from django.core.management import call_command
from django.db import connection

from fly2any.database.verification import verify
from tests.database.test_writes import run

FUNCTION = "CREATE FUNCTION {0}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {1} RETURN NEW; END $$"
TRIGGER = "CREATE TRIGGER {0} BEFORE INSERT ON {1} FOR EACH ROW EXECUTE FUNCTION {0}({2})"
LACKS = "Column theirs of users is unmanaged, NOT NULL and without a default, so every INSERT fails"


def of_columns():
    codes = ("column.extra", "unique.extra", "check.extra", "foreign_key.extra")
    return [(str(one.severity), one.where, one.message) for one in verify(connection).findings if one.code in codes]


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "arguments", "fills"),
    [
        ("NEW.theirs := coalesce(NEW.theirs, 'main');", "", True),
        ("IF NEW.theirs IS NULL THEN NEW.theirs = 'main'; END IF;", "", True),
        ('SELECT a, b INTO STRICT NEW."theirs", NEW.phone FROM (VALUES (1, 2)) AS v (a, b);', "", True),
        ("NEW := jsonb_populate_record(NEW, jsonb_build_object(TG_ARGV[0], 'main'));", "'theirs'", True),
        ("SELECT a, b INTO NEW.phone, NEW.theirs FROM (VALUES (1, 2)) AS v (a, b);", "", True),
        (
            "/* Once: */ -- NEW.theirs := 1;\n/* BEGIN NEW.theirs = 2;\n */ NEW.phone := 1; INSERT INTO log VALUES (1, NEW.theirs);",
            "",
            False,
        ),
        ("IF NEW.theirs = 'main' THEN RAISE 'not here'; END IF;", "", False),
        ('NEW."Theirs" := 1;', "", False),
        ("NEW.phone := 'theirs';", "", False),
    ],
)
def test_a_required_column_that_a_trigger_sets_is_a_note(body, arguments, fills):
    run("ALTER TABLE users ADD theirs text NOT NULL", FUNCTION.format("fill", body), TRIGGER.format("fill", "users", arguments))

    assert of_columns() == (
        [("note", "users.theirs", f"{LACKS}, unless the trigger fill sets theirs; it was not tried.")]
        if fills
        else [("error", "users.theirs", f"{LACKS}.")]
    )


@pytest.mark.django_db
@pytest.mark.parametrize(("source", "severity"), [('TD["new"]["theirs"] = 1', "note"), ('TD["new"]["theirs_id"] = 1', "error")])
def test_a_column_that_a_trigger_in_another_language_names_may_be_set(source, severity):
    run("ALTER TABLE users ADD theirs text NOT NULL", FUNCTION.format("fill", ""), TRIGGER.format("fill", "users", ""))
    run(
        "UPDATE pg_proc SET prolang = (SELECT oid FROM pg_language WHERE lanname = 'sql'),"  # No other is installed.
        f" prosrc = '{source}' WHERE proname = 'fill'"
    )

    assert [(found, where) for found, where, _ in of_columns()] == [(severity, "users.theirs")]


@pytest.mark.slow
@pytest.mark.django_db
def test_keys_and_checks_of_columns_that_triggers_set_are_notes_and_a_write_check_tries_them(capsys):
    run(
        "CREATE TABLE tenants (id text PRIMARY KEY); INSERT INTO tenants VALUES ('main')",
        "ALTER TABLE users ADD words tsvector NOT NULL, ADD ref text NOT NULL DEFAULT '' UNIQUE CHECK (ref <> '')",
        "ALTER TABLE price_alerts ADD tenant text NOT NULL DEFAULT '' REFERENCES tenants",
        "CREATE TRIGGER words BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger(words, 'pg_catalog.simple', email)",
        FUNCTION.format("fill", "NEW.ref := gen_random_uuid();"), TRIGGER.format("fill", "users", ""),
        FUNCTION.format("own", "NEW.tenant := 'main';"), TRIGGER.format("own", "price_alerts", ""),
    )  # fmt: skip

    found = of_columns()
    with pytest.raises(SystemExit) as end:
        call_command("dbstatus", "--write-check")

    places = ["price_alerts.price_alerts_tenant_fkey", "users.users_ref_check", "users.users_ref_key", "users.words"]
    assert sorted((severity, where) for severity, where, _ in found) == [("note", where) for where in places]
    assert end.value.code == 0
    said = re.findall(r"unless the trigger (\w+) sets \w+; it refused nothing in the write check", capsys.readouterr().out)
    assert sorted(said) == ["fill", "fill", "own", "words"]


@pytest.mark.slow
@pytest.mark.django_db
def test_an_error_that_the_write_check_refutes_becomes_a_note(capsys):
    """The source of the function does not name the column."""
    run(
        "ALTER TABLE users ADD theirs text NOT NULL",
        FUNCTION.format("fill", "NEW := jsonb_populate_record(NEW, '{\"theirs\": 1}');"),
        TRIGGER.format("fill", "users", ""),
    )

    before = of_columns()
    with pytest.raises(SystemExit) as end:
        call_command("dbstatus", "--write-check")

    assert before == [("error", "users.theirs", f"{LACKS}.")]
    assert end.value.code == 0
    assert f"{LACKS}; but the write check inserted rows, so a trigger may set other values." in capsys.readouterr().out


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["ALTER TABLE users DISABLE TRIGGER fill", "ALTER TABLE users ENABLE REPLICA TRIGGER fill"])
def test_a_trigger_that_does_not_run_sets_nothing(change):
    run(
        "ALTER TABLE users ADD theirs text NOT NULL",
        FUNCTION.format("fill", "NEW.theirs := 1;"),
        TRIGGER.format("fill", "users", ""),
    )
    run(change)

    assert of_columns() == [("error", "users.theirs", f"{LACKS}.")]
