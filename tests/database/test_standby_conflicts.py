"""Commands on a standby that replays a change of the primary, which conflicts with what they read."""

import re

import pytest
from django.db import Error

from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.backup.tools import Running
from fly2any.database.errors import OF_STANDBYS, Refusal, explain
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.test_dbhealth import of
from tests.database.test_health_privileges import asked
from tests.servers import wait_until

# What pg_dump 18 prints on a standby.
CANCELLED = """\
pg_dump: error: Dumping the contents of table "users" failed: PQgetResult() failed.
pg_dump: detail: Error message from server: ERROR:  canceling statement due to conflict with recovery
DETAIL:  User was holding a relation lock for too long.
pg_dump: detail: Command was: COPY public.users (id) TO stdout;
"""


class Altering(Progress):
    """Changes a table on the primary as soon as the rows of a backup of its standby are read."""

    def __init__(self, primary, standby):
        self.primary, self.standby, self.is_altered = primary, standby, False

    def show(self, what, percent):
        if not self.is_altered:
            self.is_altered = True
            self.primary.execute("ALTER TABLE users ADD COLUMN added text")
            wait_until(of(self.standby), "SELECT 1 FROM pg_attribute WHERE attname = 'added'")


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_backup_that_a_standby_cancels_names_its_settings(own_server, tmp_path_factory, place):
    primary = own_server()
    primary.execute("CREATE TABLE users (id int)")
    standby = primary.standby(tmp_path_factory.mktemp("standby"))
    try:
        standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0")
        standby.execute("SELECT pg_reload_conf()")
        primary.execute("INSERT INTO users VALUES (1)")
        wait_until(of(standby), "SELECT 1 FROM users")
        with django(of(standby)) as connection, pytest.raises((Error, Refusal)) as raised:
            take(connection, store_at(place), Altering(primary, standby))
        figures, _ = asked(of(standby), "replication")
    finally:
        standby.remove()

    assert explain(raised.value) == OF_STANDBYS.sentence
    assert figures["queries cancelled by replay"][1] > 0


def test_a_pg_dump_that_a_standby_cancels_names_its_settings(tmp_path):
    (tmp_path / "pg_dump").write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{CANCELLED}END\nexit 1\n")
    (tmp_path / "pg_dump").chmod(0o700)

    with (
        Running(tmp_path / "pg_dump", [], {}, lambda line: None) as dump,
        pytest.raises(Refusal, match=re.escape(OF_STANDBYS.sentence)),
    ):
        dump.finish()
