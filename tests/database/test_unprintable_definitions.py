"""Objects that the server cannot print: they stop pg_dump, and must not stop dbstatus."""

import psycopg
import pytest

from fly2any.database.backup.store import store_at
from fly2any.database.backup.take import take
from fly2any.database.errors import Refusal
from fly2any.database.progress import Progress
from fly2any.database.unprintable_definitions import CURE, explain_unprintable
from fly2any.database.verification import verify
from tests.conftest import django

TOO_DEEP = (psycopg.errors.StatementTooComplex, psycopg.errors.SyntaxError)  # The second is the parser's: memory exhausted.
WHY = "stack depth limit exceeded"
EFFECT = "It was not compared, and no backup can be taken."
UNTRIED = (
    "Constraint steep of notifications, CHECK (unprintable()), is unmanaged, and was not tried with what our INSERT stores."
)


def deepest(database, role, statement):
    """Run `statement` as a role with the expression that is nested most deeply of those that the server accepts."""
    with database.connect() as session:
        session.execute(f"SET ROLE {role}")
        fits, fails = 0, 12_000
        while fails - fits > 20:
            middle = (fits + fails) // 2
            try:
                session.execute(f"BEGIN; {statement.format(nested(middle))}; ROLLBACK")
                fits = middle
            except TOO_DEEP:
                fails = middle
                session.execute("ROLLBACK")
        session.execute(statement.format(nested(fits)))


def nested(times):
    return f"{'coalesce(' * times}a{', 2)' * times}"


def read(database):
    with django(database) as connection:
        return [(one.severity, one.code, one.where, one.message) for one in verify(connection).findings]


@pytest.fixture
def other(migrated):
    """A role that may create objects in our schema, and one of its own."""
    with migrated.role("GRANT CREATE ON SCHEMA public TO {role}", "CREATE SCHEMA theirs AUTHORIZATION {role}"):
        yield f"{migrated.name}_role"


@pytest.mark.slow
def test_dbstatus_names_what_it_cannot_print_and_verifies_the_rest(migrated, other):
    migrated.execute("ALTER TABLE users ALTER email DROP NOT NULL; ALTER TABLE notifications ADD a int")
    before = read(migrated)
    deepest(migrated, other, "CREATE TABLE public.zq (a int, CHECK ({} > 0))")
    deepest(migrated, other, "CREATE POLICY deep ON public.zq USING ({} > 0)")
    deepest(migrated, "postgres", "ALTER TABLE notifications ADD CONSTRAINT steep CHECK ({} > 0)")

    found = read(migrated)

    assert set(before) < set(found)
    unprintable = {
        "constraint zq_a_check on table public.zq": other,
        "constraint steep on table public.notifications": "postgres",
        "policy deep on table public.zq": other,
    }
    assert [one for one in found if one not in before] == [
        *(
            (
                "error",
                "object.unprintable",
                what,
                f"The server cannot print the {what}, which belongs to {owner} ({WHY}). {EFFECT}",
            )
            for what, owner in unprintable.items()
        ),
        ("note", "check.extra", "notifications.steep", UNTRIED),
    ]


def test_the_reason_of_pg_dump_is_kept_if_the_server_is_gone(migrated):
    def fail(connection):
        with explain_unprintable(connection):
            migrated.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.connection.info.backend_pid])
            raise Refusal("pg_dump exited with 1: gone")

    with django(migrated) as connection:
        connection.ensure_connection()
        with pytest.raises(Refusal, match=r"^pg_dump exited with 1: gone$"):
            fail(connection)


@pytest.mark.slow
def test_a_backup_that_pg_dump_cannot_take_names_what_it_cannot_print(migrated, other, tmp_path):
    deepest(migrated, other, "CREATE VIEW theirs.d AS SELECT {} AS b FROM (VALUES (1)) AS v (a)")
    deepest(migrated, other, "CREATE FUNCTION theirs.f(a int) RETURNS int BEGIN ATOMIC SELECT {}; END")

    with django(migrated) as connection, pytest.raises(Refusal) as refusal:
        take(connection, store_at(str(tmp_path)), Progress())

    assert str(refusal.value) == (
        f"No backup was taken, because the server cannot print 2 objects: view theirs.d of {other} ({WHY}); function theirs.f(integer) of"
        f" {other} ({WHY}). {CURE}"
    )
