"""What runs or is loaded when a session begins, and ends it: it is reported before, and named when no command can connect."""

from dataclasses import replace

import psycopg
import pytest
from django.db import DatabaseError

from fly2any.database.errors import explain
from fly2any.database.findings import Finding
from fly2any.database.health.examine import Reader
from fly2any.database.health.security import TOPICS
from fly2any.database.verification import verify
from tests.conftest import django

GATE = """
    CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
    CREATE EVENT TRIGGER "Gate" ON login EXECUTE FUNCTION gate(); ALTER EVENT TRIGGER "Gate" ENABLE ALWAYS;
"""
RAISES = "RAISE 'password authentication failed for user \"ana\"';"


def has_login_triggers(database):
    with database.connect() as client:
        return client.info.server_version >= 170000


def answer(database):
    """What commands say that cannot connect, "" if they can."""
    try:
        with django(database) as connection:
            connection.ensure_connection()
    except DatabaseError as error:
        return explain(error)
    return ""


def test_a_trigger_that_runs_at_each_login_is_named_in_a_note(migrated):
    known = has_login_triggers(migrated)
    if known:
        migrated.execute(GATE.format(body="NULL;"))

    with django(migrated) as connection:
        found = [(str(one.severity), one.message) for one in verify(connection).findings]
        code = [one.message for one in TOPICS["code"](Reader(connection, "public")) if isinstance(one, Finding)]

    note = ("note", "Event triggers run whenever a session begins: Gate. If one raises an error, no role can connect.")
    runs = "The event trigger runs public.gate(), which postgres owns, as each role that connects, when its session begins."
    assert (found, code) == (([note], [runs]) if known else ([], []))


def test_a_trigger_that_ends_each_session_is_named_and_disabled_as_the_sentence_says(migrated):
    if not has_login_triggers(migrated):
        return
    cure = "Disable the trigger: connect as a superuser with psql and PGOPTIONS='-c event_triggers=off', list event triggers with \\dy"
    said = f'The function gate() of an event trigger ends each session when it begins (password authentication failed for user "ana"). {cure}'
    migrated.execute(GATE.format(body=RAISES))

    before = answer(migrated)
    with psycopg.connect(migrated.url, options="-c event_triggers=off", autocommit=True) as client:
        client.execute('ALTER EVENT TRIGGER "Gate" DISABLE')

    assert (before, answer(migrated)) == (f"{said}, then ALTER EVENT TRIGGER … DISABLE.", "")


@pytest.mark.parametrize("place", ["DATABASE {name}", "ROLE postgres IN DATABASE {name}"])
def test_a_library_that_the_server_lacks_is_named(migrated, place):
    alter = f"ALTER {place.format(name=migrated.name)}"
    migrated.execute(f"{alter} SET session_preload_libraries = 'gone'")

    before = answer(migrated)
    replace(migrated, name="postgres").execute(f"{alter} RESET session_preload_libraries")

    assert before == (
        'The server cannot load the library "gone", which session_preload_libraries or local_preload_libraries names: install it'
        " there, or remove it from the setting: ALTER DATABASE … RESET session_preload_libraries in another database, ALTER ROLE …"
        " RESET, or the server's configuration file."
    )
    assert answer(migrated) == ""
