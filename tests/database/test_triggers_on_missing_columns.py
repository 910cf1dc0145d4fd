"""Triggers that set or read a column which their table does not have: every write that fires one fails."""

import pytest
from django.db import connection

from fly2any.database.schema.unmanaged import AGREE
from fly2any.database.verification import verify
from fly2any.database.write_check import check_writes
from tests.database.test_writes import run

FUNCTION = "CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ {} $$"
TRIGGER = "CREATE TRIGGER theirs BEFORE {} ON users FOR EACH ROW EXECUTE FUNCTION {}"
SETS = "Trigger theirs of users uses {}, a column that users does not have, so every {} fails."
CASES = {
    "another spelling": ("BEGIN NEW.updated_at = now(); RETURN NEW; END", "UPDATE", "theirs()", ("updated_at", "UPDATE")),
    "a folded name": ("begin new.updatedAt := now(); return new; end;", "UPDATE OR INSERT", "theirs()", ("updatedat", "INSERT and UPDATE")),
    "the second of two": ("BEGIN NEW.name := 'a;b'; NEW.\"Owner\" := current_user; RETURN NEW; END", "INSERT", "theirs()", ("Owner", "INSERT")),
    "moddatetime": ("BEGIN RETURN NEW; END", "UPDATE", "moddatetime(updated_at)", ("updated_at", "UPDATE")),
    "words of a lost column": ("BEGIN RETURN NEW; END", "INSERT OR UPDATE", "tsvector_update_trigger(words, 'pg_catalog.english', name, nom)", ("nom", "INSERT and UPDATE")),
    "words of a column": ("BEGIN RETURN NEW; END", "INSERT OR UPDATE", "tsvector_update_trigger(words, 'pg_catalog.english', name)", None),
    "a column of the table": ("BEGIN NEW.\"updatedAt\" := now(); RETURN NEW; END", "UPDATE", "theirs()", None),
    "only in a branch": ("BEGIN IF TG_TABLE_NAME <> 'users' THEN NEW.updated_at := now(); END IF; RETURN NEW; END", "UPDATE", "theirs()", None),
    "an error that is caught": ("BEGIN NEW.updated_at := now(); RETURN NEW; EXCEPTION WHEN OTHERS THEN RETURN NEW; END", "UPDATE", "theirs()", None),
    "a comment": ("BEGIN -- NEW.updated_at := now();\n RETURN NEW; END", "UPDATE", "theirs()", None),
    "another column": ("BEGIN NEW.updated_at := now(); RETURN NEW; END", "UPDATE OF \"emailVerified\"", "theirs()", None),
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES)
def test_a_trigger_that_sets_a_column_its_table_lacks_is_an_error(case):
    body, event, call, sets = CASES[case]
    run(
        "CREATE EXTENSION IF NOT EXISTS moddatetime",
        "ALTER TABLE users ADD words tsvector",
        FUNCTION.format(body),
        TRIGGER.format(event, call),
    )

    (finding,) = verify(connection).findings

    fails = check_writes(connection).failed
    assert (finding.code, finding.where) == ("trigger.extra", "users.theirs")
    assert (str(finding.severity), finding.message) == (
        ("error", SETS.format(*sets))
        if sets
        else ("note", "Trigger theirs of users is unmanaged and was not tried; it may change or reject our writes.")
    )
    assert fails == ("users" if sets or case == "another column" else "")
    if sets:
        run(finding.cure.removeprefix(AGREE))
        assert verify(connection).findings == ()
        assert check_writes(connection).error is None
