"""A trigger that sends rows by NOTIFY refuses those of 8,000 bytes or more, and the note on it says so."""

import pytest
from django.db import connection

from fly2any.database.verification import verify
from tests.database.test_writes import run


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("payload", "sends_rows"),
    [
        ("json_build_object('op', TG_OP, 'row', row_to_json(NEW))::text", True),
        ("left(to_jsonb(NEW)::text, 7900)", False),
        ("NEW.id", False),
    ],
)
def test_a_trigger_that_sends_rows_by_notify_is_known_to_refuse_long_ones(payload, sends_rows):
    run(
        f"CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('rows', {payload}); RETURN NEW; END $$",
        "CREATE TRIGGER theirs AFTER INSERT ON ai_messages FOR EACH ROW EXECUTE FUNCTION theirs()",
    )

    (finding,) = verify(connection).findings

    reason = ": NOTIFY, by which it sends rows, refuses 8,000 bytes or more, as in rows with long texts." if sends_rows else "."
    assert (str(finding.severity), finding.message) == (
        "note",
        f"Trigger theirs of ai_messages is unmanaged and was not tried; it may change or reject our writes{reason}",
    )
