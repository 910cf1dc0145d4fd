"""A person in a database in which other roles have tables, types, triggers and rules: none of their code runs as the erasure's role."""

import io
import json
import time
import tracemalloc
from contextlib import contextmanager

import pytest
from psycopg.errors import LockNotAvailable

from fly2any.database.errors import Refusal
from fly2any.database.person import Stream, erase, export, find, plan
from fly2any.database.progress import Progress
from tests.conftest import django
from tests.database.other_roles import other_role
from tests.database.people import ANA, BOB, EMAIL, erased, exported, planned, refused


def says(result, kind=""):
    """The body of a function that reports the role it runs as."""
    return f"LANGUAGE plpgsql {kind} AS $$ BEGIN RAISE WARNING 'ran as %', current_user; RETURN {result}; END $$"


@contextmanager
def heard(database):
    """A connection, and the messages of the code that it ran."""
    with django(database) as connection:
        connection.ensure_connection()
        said = []
        connection.connection.add_notice_handler(lambda diag: said.append(diag.message_primary))
        yield connection, said


def test_no_code_of_another_role_runs_as_ours(two):
    statements = (
        "CREATE TYPE mal.pair AS (a text)",
        "CREATE FUNCTION mal.as_text(mal.pair) RETURNS text " + says("'x'"),
        "CREATE CAST (mal.pair AS text) WITH FUNCTION mal.as_text(mal.pair)",
        "CREATE TABLE mal.pairs (c mal.pair)",
        f"INSERT INTO mal.pairs VALUES (ROW('{EMAIL}'))",
        "CREATE FUNCTION mal.constant(int) RETURNS int " + says("1", "IMMUTABLE"),
        "CREATE TABLE mal.planned (a text)",
        "CREATE INDEX ON mal.planned ((mal.constant(1))) WHERE mal.constant(2) = 1",
        f"INSERT INTO mal.planned VALUES ('{EMAIL}')",
        "CREATE TYPE mal.kind AS ENUM ('k')",
        "CREATE TABLE mal.child (u text REFERENCES users ON DELETE CASCADE, id int PRIMARY KEY)",
        "CREATE TABLE mal.below (child int REFERENCES mal.child ON DELETE CASCADE, note text)",
        f"INSERT INTO mal.child VALUES ('{ANA}', 1), ('{BOB}', 2), (NULL, 3)",
        "INSERT INTO mal.below VALUES (1, 'a\tb\\\\c'), (1, NULL), (1, NULL), (2, 'x')",
    )
    with other_role(two, *statements), heard(two) as (connection, said):
        two.execute(f"ALTER TABLE users ADD kind mal.kind DEFAULT 'k'; GRANT USAGE ON SCHEMA mal TO {two.user}")
        said.clear()
        person = find(connection, EMAIL)
        foreseen = plan(connection, person)
        given = json.loads("".join(export(connection, person)))["tables"]
        assert said == []
        paper = io.StringIO()
        erase(connection, person, Stream(paper))
        certificate = json.loads(paper.getvalue())
        two.execute("ALTER TABLE users DROP kind; DROP CAST (mal.pair AS text)")

    assert said == []
    assert foreseen.removed == certificate["removed"] == {"users": 1, "mal.child": 1, "mal.below": 3}
    assert given["mal.child"] == [{"u": ANA, "id": "1"}]
    assert sorted(given["mal.below"], key=str) == [{"child": "1", "note": "a\tb\\\\c"}, *([{"child": "1", "note": None}] * 2)]
    assert [(one["table"], one["column"], one["holds"], one["rows"]) for one in certificate["remaining"]] == [
        ("mal.pairs", "c", "address", 1),
        ("mal.planned", "a", "address", 1),
    ]
    assert [one.table for one in foreseen.remaining] == ["mal.pairs", "mal.planned"]
    assert certificate["unsearched"] == []


CHILD = "CREATE TABLE mal.child (u text DEFAULT NULL REFERENCES users ON DELETE {})"


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("action", "code", "reason"),
    [
        ("CASCADE", "CREATE TRIGGER seen AFTER DELETE ON mal.child EXECUTE FUNCTION mal.seen()", "it has a trigger"),
        (
            "CASCADE",
            "CREATE CONSTRAINT TRIGGER seen AFTER DELETE ON mal.child INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mal.seen()",
            "it has a trigger",
        ),
        ("CASCADE", "CREATE RULE ruled AS ON DELETE TO mal.child DO ALSO SELECT mal.asked('')", "it has a rule"),
        (
            "RESTRICT",
            "CREATE INDEX ON mal.child (u) WHERE mal.asked('x')",
            "it has an index with an expression, a condition, or an operator class or collation that is not PostgreSQL's own",
        ),
        ("SET NULL", "ALTER TABLE mal.child ADD CHECK (mal.asked(u))", "it has a check"),
        ("SET DEFAULT", "ALTER TABLE mal.child ALTER u SET DEFAULT mal.asked('')", "it has a foreign key with SET DEFAULT"),
    ],
)
def test_a_table_of_another_role_with_code_stops_the_erasure(two, action, code, reason):
    statements = (
        CHILD.format(action),
        "CREATE FUNCTION mal.seen() RETURNS trigger " + says("NULL"),
        "CREATE FUNCTION mal.asked(text) RETURNS bool " + says("true", "IMMUTABLE"),
        *([f"INSERT INTO mal.child VALUES ('{ANA}')"] if action == "CASCADE" else []),
        code,
    )
    with other_role(two, *statements) as role:
        assert exported(two)["users"][0]["id"] == ANA
        assert refused(two) == (
            f"Nothing was changed. Table mal.child, which foreign keys connect with users, may run code of the role {role} with the"
            f" privileges of the role that writes to users, because {reason}. Ask its owner to remove what makes the table run code (the reason above), or drop the foreign key."
        )
        with heard(two) as (connection, said), pytest.raises(Refusal):
            erase(connection, find(connection, EMAIL), Stream(io.StringIO()))
    assert said == []


@pytest.mark.parametrize("emptied", ["DELETE FROM", "TRUNCATE"])
def test_no_code_runs_where_the_statistics_of_another_roles_empty_table_hold_the_address(two, monkeypatch, emptied):
    monkeypatch.setattr("fly2any.database.person.statistics.CLEAR_SQL", "SELECT %s, %s")  # As before PostgreSQL 18.
    statements = (
        "CREATE FUNCTION mal.constant(text) RETURNS text " + says("$1", "IMMUTABLE"),
        "CREATE TABLE mal.news (email text)",
        f"INSERT INTO mal.news SELECT '{EMAIL}' FROM generate_series(1, 50)",
        "ANALYZE mal.news",
        f"{emptied} mal.news",
        "CREATE STATISTICS mal.st ON (mal.constant('x') || email) FROM mal.news",
    )
    with other_role(two, *statements) as role, heard(two) as (connection, said):
        certificate = erase(connection, find(connection, EMAIL), Stream(io.StringIO()))

    assert {*said} <= {f"ran as {role}"}  # ANALYZE runs it as the owner.
    [remains] = [place for place in certificate.remaining if (place.table, place.column) == ("mal.news", "email")]
    cures = {  # A table with an empty file has no rows, which no query on it has to tell.
        "DELETE FROM": 'ANALYZE "mal"."news"',
        "TRUNCATE": "ANALYZE keeps them while a table or a shard has no rows, but its owner can remove them:"
        ' ALTER TABLE "mal"."news" ALTER COLUMN email TYPE text',
    }
    assert remains.reason == f"the planner's statistics may still hold sampled values: {cures[emptied]}"


def test_another_roles_index_does_not_hold_up_an_erasure(two, monkeypatch):
    monkeypatch.setattr("fly2any.database.person.statistics.LONGEST_ANALYZE", 200)
    statements = (
        "CREATE FUNCTION mal.slow(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " IF current_setting('mal.quick', true) IS NULL THEN PERFORM pg_sleep(60); END IF; RETURN $1; END $$",
        "SET mal.quick = '1'",
        "CREATE TABLE mal.news (email text)",
        f"INSERT INTO mal.news SELECT '{EMAIL}' FROM generate_series(1, 50)",
        "CREATE INDEX ON mal.news (mal.slow(email))",
    )
    with other_role(two, *statements) as role:
        two.execute(f"SET SESSION AUTHORIZATION {role}; SET mal.quick = '1'; ANALYZE mal.news")
        begun = time.monotonic()
        erased(two)

    assert time.monotonic() - begun < 30


def test_foreign_keys_of_other_roles_tables_restrict_and_clear_like_ours(two):
    statements = (
        "CREATE TABLE mal.parts (u text REFERENCES users ON DELETE SET NULL, body text, at int)",
        f"INSERT INTO mal.parts VALUES ('{ANA}', 'of {EMAIL}', 1), ('{BOB}', '', 2)",
    )
    with other_role(two, *statements) as role:
        certificate = erased(two)
        two.execute('INSERT INTO users (id, email, "updatedAt") VALUES (%s, %s, now())', [ANA, EMAIL])
        two.execute(
            f"SET ROLE {role}; CREATE TABLE mal.invoices (u text REFERENCES users ON DELETE RESTRICT);"
            f"INSERT INTO mal.invoices VALUES ('{ANA}')"
        )
        sentence = refused(two)

    assert [(one["table"], one["action"], one["rows"]) for one in certificate["changed"]] == [("mal.parts", "SET NULL", 1)]
    assert [(one["table"], one["column"], one["reason"]) for one in certificate["remaining"]] == [
        ("mal.parts", "body", "the foreign key parts_u_fkey keeps the row (ON DELETE SET NULL)")
    ]
    assert sentence == (
        "Nothing was changed. The foreign key invoices_u_fkey of mal.invoices (ON DELETE RESTRICT) prevents the erasure because of 1 row:"
        " remove or change it first."
    )


@pytest.mark.slow
def test_large_rows_of_other_roles_are_not_held_in_memory(two):
    large = "repeat('x', 1000000) || n"
    statements = (
        f"CREATE TABLE mal.news AS SELECT '{EMAIL} ' || {large} AS body FROM generate_series(1, 30) n",
        "CREATE TABLE mal.child (u text REFERENCES users ON DELETE CASCADE, note text)",
        f"INSERT INTO mal.child SELECT '{ANA}', '{EMAIL} ' || {large} FROM generate_series(1, 30) n",
        "INSERT INTO mal.child SELECT * FROM mal.child WHERE note ~ '[12]$'",
    )
    with other_role(two, *statements), django(two) as connection:
        person = find(connection, EMAIL)
        plan(connection, person)
        tracemalloc.start()
        foreseen = plan(connection, person)
        given = [json.loads(text.lstrip(",\n"))["note"][-3:] for text in export(connection, person) if '"note"' in text]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        certificate = erase(connection, person, Stream(io.StringIO()))

    assert foreseen.removed == certificate.removed == {"users": 1, "mal.child": 36}
    assert [(place.table, place.holds, place.rows) for place in foreseen.remaining] == [("mal.news", "address", 30)]
    assert [(place.table, place.holds, place.rows) for place in certificate.remaining] == [("mal.news", "address", 30)]
    assert (len(given), len(set(given))) == (36, 30)
    assert peak < 20_000_000


def test_rows_of_other_roles_that_would_take_too_much_memory_are_refused(two, monkeypatch):
    monkeypatch.setattr("fly2any.database.person.copied.MOST_HELD", 2000)
    statements = (
        "CREATE TABLE mal.child (u text REFERENCES users ON DELETE CASCADE)",
        f"INSERT INTO mal.child SELECT '{ANA}' FROM generate_series(1, 10)",
    )
    with other_role(two, *statements) as role:
        assert refused(two) == (
            "Nothing was changed. The rows that refer by the foreign key child_u_fkey cannot be counted: mal.child belongs to the role"
            f" {role}, and its rows take more than 2.0 kB of memory: ask its owner to delete them, or drop the foreign key."
        )


def test_large_values_of_other_roles_tables_are_searched_as_those_of_ours(two, monkeypatch):
    for module in ("copied", "conditions"):
        monkeypatch.setattr(f"fly2any.database.person.{module}.LARGE", 60)
    monkeypatch.setattr("fly2any.database.person.copied.PIECE", 16)
    values = [
        f"{'x' * 60} {EMAIL.upper()}\\t{ANA}",
        f"{'x' * 60}{EMAIL}",
        f"{'x' * 60} {EMAIL.replace('@', '&#64;')}",
        f"x{EMAIL}",
        "x" * 90,
    ]
    table = "CREATE TABLE {}.large AS SELECT v AS a, convert_to(v, 'UTF8') AS b, ARRAY[v] AS c FROM unnest(ARRAY[{}]) AS v"
    listed = ", ".join(f"E'{value}'" for value in values)
    two.execute(table.format("public", listed))
    with other_role(two, table.format("mal", listed)):
        found = [(place.table, place.column, place.holds, place.rows) for place in planned(two).remaining]

    of_ours = [("large", *rest) for table, *rest in found if table == "large"]
    assert of_ours == [("large", *rest) for table, *rest in found if table == "mal.large"]
    assert [rest for _, *rest in of_ours] == [
        [column, *rest] for column in "abc" for rest in (["address", 2], ["similar", 1], ["id", 1])
    ]


def test_tables_that_need_a_roles_code_are_reported(two):
    two.execute("ALTER TABLE users ADD number numeric UNIQUE")
    with other_role(two, "CREATE TABLE mal.child (n numeric REFERENCES users (number) ON DELETE CASCADE)") as role:
        assert refused(two) == (
            "Nothing was changed. The rows that refer by the foreign key child_n_fkey cannot be counted: mal.child belongs to the role"
            f" {role}, so it is only read by COPY, and n of the type numeric cannot be compared as text: change the types of the"
            " columns, or drop the foreign key."
        )
        two.execute(
            f"DROP TABLE mal.child; SET ROLE {role}; CREATE TABLE mal.made (a text, b text GENERATED ALWAYS AS (a || '') STORED);"
            f"INSERT INTO mal.made VALUES ('{EMAIL}')"
        )
        certificate = erased(two)

    assert certificate["unsearched"] == [{"place": "mal.made.b", "reason": f"a generated column of a table of the role {role}"}]
    assert [(one["column"], one["rows"]) for one in certificate["remaining"]] == [("a", 1)]


def test_a_generated_key_of_another_roles_table_is_refused_in_one_sentence(two):
    tables = (
        "CREATE TABLE mal.orders (u text REFERENCES users ON DELETE CASCADE, code text GENERATED ALWAYS AS (lower(u)) STORED UNIQUE)",
        f"INSERT INTO mal.orders VALUES ('{ANA}')",
        "CREATE TABLE {}.lines (code text REFERENCES mal.orders (code) ON DELETE CASCADE)",
    )
    for schema in ("mal", "public"):
        with other_role(two, *tables[:2]) as role:
            if schema == "mal":
                two.execute(f"SET ROLE {role}; {tables[2].format(schema)}")
            else:
                two.execute(tables[2].format(schema))
            for act in (planned, exported):
                with pytest.raises(Refusal) as refusal:
                    act(two)
                assert str(refusal.value) == (
                    "Nothing was changed. The rows that refer by the foreign key lines_code_fkey cannot be counted: mal.orders belongs to the"
                    f" role {role}, so it is only read by COPY, which does not write the generated column code: make it an ordinary column,"
                    " or drop the foreign key."
                )
            two.execute(f"DROP TABLE {schema}.lines")


@pytest.mark.parametrize(
    "taken",
    [
        "CREATE TRIGGER seen BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION mal.seen()",
        "CREATE TRIGGER seen BEFORE DELETE ON users FOR EACH ROW WHEN (mal.asked(OLD.id))"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "RESET ROLE; ALTER TABLE user_activities OWNER TO {role}",
    ],
)
def test_a_table_of_ours_that_runs_another_roles_code_is_refused(two, taken):
    functions = (
        "CREATE FUNCTION mal.seen() RETURNS trigger " + says("OLD"),
        "CREATE FUNCTION mal.asked(text) RETURNS bool " + says("true"),
    )
    with other_role(two, *functions) as role:
        two.execute(f"GRANT TRIGGER ON users TO {role}; SET ROLE {role}; {taken.format(role=role)}")
        if "activities" in taken:
            for act in (planned, exported):
                with pytest.raises(Refusal) as refusal:
                    act(two)
                assert str(refusal.value) == (
                    f"The role {role} owns user_activities, its schema or code that it uses, and its code would run as {two.user}:"
                    " follow the cure of tables.untrusted (`manage.py dbstatus`), or make the owner of users the owner of the schema."
                )
            with pytest.raises(
                Refusal, match=r"^Nothing was changed\. Table user_activities, whose owner is not trusted, runs code of"
            ):
                erased(two)
        else:  # Reading runs no trigger.
            assert exported(two)["users"][0]["id"] == ANA
            assert refused(two).startswith(
                f"Nothing was changed. Trigger seen of users runs code of the role {role} with the privileges"
            )
        two.execute(f"DROP TRIGGER IF EXISTS seen ON users; ALTER TABLE user_activities OWNER TO {two.user}")


@pytest.mark.parametrize("event", ["FOR EACH ROW", "FOR EACH STATEMENT"])
def test_a_trigger_of_another_role_on_a_table_of_the_site_does_not_run_as_its_owner(two, event):
    two.execute("CREATE SCHEMA site; CREATE TABLE site.bookings (u text REFERENCES users ON DELETE CASCADE)")
    two.execute("CREATE TABLE site.places (u text REFERENCES users)")
    planted = "CREATE TRIGGER seen BEFORE DELETE ON site.{} {} EXECUTE FUNCTION mal.seen()"
    with other_role(two, "CREATE FUNCTION mal.seen() RETURNS trigger " + says("OLD")) as role:
        two.execute(
            f"GRANT USAGE ON SCHEMA site TO {role}; GRANT TRIGGER ON ALL TABLES IN SCHEMA site TO {role}; SET ROLE {role};"
            + planted.format("bookings", event)
        )
        assert refused(two).startswith(
            f"Nothing was changed. Trigger seen ON site.bookings, whose foreign key references users, runs code of the role {role} with"
            " the privileges of the role that writes to users. DROP TRIGGER seen ON site.bookings; REVOKE TRIGGER ON"
        )
        two.execute("DROP TRIGGER seen ON site.bookings")
        two.execute(f"SET ROLE {role}; {planted.format('places', event)}")  # NO ACTION runs no trigger.
        with heard(two) as (connection, said):
            erase(connection, find(connection, EMAIL), Stream(io.StringIO()))
        assert said == []
        two.execute("DROP SCHEMA site CASCADE")


def test_no_trigger_is_added_to_what_an_erasure_writes_to_while_it_runs(two):
    two.execute("CREATE TABLE bookings (u text REFERENCES users ON DELETE CASCADE)")
    add = "SET lock_timeout = '100ms'; CREATE TRIGGER seen BEFORE DELETE ON {} EXECUTE FUNCTION suppress_redundant_updates_trigger()"

    class Watching(Progress):
        refused = 0

        def show(self, what, percent):
            for table in ("bookings", "users", "django_session", "accounts") if not self.refused else ():
                with pytest.raises(LockNotAvailable):
                    two.execute(add.format(table))
                self.refused += 1

    watching = Watching()
    with django(two) as connection:
        erase(connection, find(connection, EMAIL), Stream(io.StringIO()), progress=watching)

    assert watching.refused == 4


def test_a_table_in_the_schema_of_another_role_is_read_as_that_roles(two):
    """The owner of the schema may replace the table at any time."""
    with other_role(two, "CREATE TYPE mal.kind AS ENUM ('k')"):
        two.execute(f"CREATE TABLE mal.ours (a text, k mal.kind); INSERT INTO mal.ours VALUES ('{EMAIL}', 'k')")
        with heard(two) as (connection, _), connection.execute_wrapper(_no_select_of("mal")):
            certificate = plan(connection, find(connection, EMAIL))
        two.execute("DROP TABLE mal.ours")
    assert [(one.table, one.column) for one in certificate.remaining] == [("mal.ours", "a")]


def _no_select_of(schema):
    def execute(run, sql, *rest):
        assert f'"{schema}".' not in sql or sql.startswith("PREPARE ")  # A statement that is never executed or planned.
        return run(sql, *rest)

    return execute
