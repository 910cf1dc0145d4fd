"""Unlogged tables are logged in the order that their foreign keys allow."""

from graphlib import TopologicalSorter

import pytest
from django.db import connection

from tests.database.mutation import EXPECTED
from tests.database.test_moved_tables import drift
from tests.database.test_mutations import EMPTY_SQL
from tests.database.test_writes import run

REFERRING = {
    table.name: {fk.table for fk in EXPECTED.foreign_keys if fk.target == table.name} - {table.name}
    for table in EXPECTED.tables
}
LAST_FIRST = [*TopologicalSorter(REFERRING).static_order()]


@pytest.mark.django_db
def test_all_tables_are_logged_again_by_the_cures_in_their_order():
    run(EMPTY_SQL, *(f'ALTER TABLE "{name}" SET UNLOGGED' for name in LAST_FIRST))

    findings = drift()

    assert {(one.code, one.where) for one in findings} == {("table.weaker", name) for name in LAST_FIRST}
    run(*(one.cure for one in findings))
    assert drift() == ()


@pytest.mark.django_db
def test_unmanaged_tables_that_ours_refer_to_are_logged_first_once_their_owner_agrees():
    run(
        "CREATE UNLOGGED TABLE top (id int PRIMARY KEY REFERENCES top); CREATE UNLOGGED TABLE middle (id int PRIMARY KEY REFERENCES top)",
        "CREATE UNLOGGED TABLE apart (id int REFERENCES top)",
        "ALTER TABLE price_history SET UNLOGGED; ALTER TABLE price_history ADD theirs int REFERENCES middle, ADD theirs_too int REFERENCES top",
    )

    (finding,) = drift()

    assert (finding.code, finding.where) == ("table.weaker", "price_history")
    assert finding.loses == "ask the owner of top, middle first, because a logged table can refer only to logged tables"
    assert finding.cure.splitlines() == [f'ALTER TABLE "{name}" SET LOGGED;' for name in ("top", "middle", "price_history")]
    run(finding.cure)
    assert drift() == ()


@pytest.mark.django_db
def test_a_sequence_that_a_crash_sets_back_is_logged_again():
    if connection.pg_version < 150000:
        pytest.skip("Unlogged sequences are new in PostgreSQL 15.")
    run("ALTER SEQUENCE auth_group_id_seq SET UNLOGGED")

    (finding,) = drift()

    assert (finding.severity, finding.code, finding.where) == ("error", "table.weaker", "auth_group.id")
    assert finding.message == (
        "The sequence of column id of auth_group is UNLOGGED: a crash sets it back to a value that is in use, and INSERTs fail."
    )
    run(finding.cure)
    assert drift() == ()
