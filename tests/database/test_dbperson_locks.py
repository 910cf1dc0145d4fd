"""The locks that a search for a person holds."""

import io

import pytest

from fly2any.database.person import Stream, erase, find, plan
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.other_roles import other_role
from tests.database.people import EMAIL


class Counting(Progress):
    """Counts, when the search comes to a table, the locks on tables of a schema."""

    def __init__(self, database, schema):
        self.database, self.schema, self.most, self.shown = database, schema, 0, 0

    def show(self, what, percent):
        if what.startswith("searching"):
            held = "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation WHERE c.relnamespace = %s::text::regnamespace"
            [(locks,)] = self.database.execute(held, [self.schema])
            self.most, self.shown = max(self.most, locks), self.shown + what.startswith(f"searching {self.schema}.")


@pytest.mark.slow
def test_a_search_does_not_keep_the_locks_of_the_tables_that_it_searched(two):
    """Any role can create tables until their locks fill the lock table of the server."""
    two.execute(
        f"CREATE SCHEMA ours; CREATE TABLE ours.a AS SELECT '{EMAIL}'::text AS a; CREATE TABLE ours.b AS TABLE ours.a; CREATE TABLE ours.c AS TABLE ours.a"
    )
    theirs = Counting(two, "mal")
    ours = Counting(two, "ours")
    with (
        other_role(two, *(f"CREATE TABLE mal.t{number} AS SELECT 'x'::text AS a" for number in range(5))),
        django(two) as connection,
    ):
        plan(connection, find(connection, EMAIL), progress=theirs)
        erase(connection, find(connection, EMAIL), Stream(io.StringIO()), progress=ours)

    assert (theirs.shown, theirs.most, ours.shown, ours.most) == (5, 0, 3, 0)
