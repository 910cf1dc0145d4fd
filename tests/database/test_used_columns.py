"""PostgreSQL refuses to change the type of a column, or to drop a key, that other objects use: the cure names them."""

import pytest
from django.db import Error, connection, transaction

from fly2any.database.verification import verify
from tests.database.mutation import EXPECTED, within

FIRST = "first save the definition of what uses the column and drop it; create it again afterwards: "
TRIGGER = """
    CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER theirs BEFORE UPDATE OF name ON users FOR EACH ROW EXECUTE FUNCTION theirs()
"""


def run(*statements):
    with connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(within(sql))


@pytest.mark.sampled(3)
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("made", "blocker", "drop"),
    [
        ("CREATE VIEW theirs AS SELECT name FROM users", "view public.theirs", "DROP VIEW theirs"),
        ("CREATE RULE theirs AS ON DELETE TO users WHERE old.name = 'a' DO ALSO NOTHING", "rule theirs on table public.users", "DROP RULE theirs ON users"),
        (TRIGGER, "trigger theirs on table public.users", "DROP TRIGGER theirs ON users"),
        ("CREATE POLICY theirs ON users USING (name <> '')", "policy theirs on table public.users", "DROP POLICY theirs ON users"),
        ("CREATE PUBLICATION theirs FOR TABLE users WHERE (id <> '' AND name <> '') WITH (publish = 'insert')",
         "publication of table public.users in publication theirs", "DROP PUBLICATION theirs"),
        ("CREATE FUNCTION theirs() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT name FROM users LIMIT 1; END", "function public.theirs()", "DROP FUNCTION theirs"),
        ("CREATE TABLE theirs (id int, one users)", "column one of table public.theirs", "ALTER TABLE theirs DROP one"),
        ("CREATE TABLE theirs (id int, several users[])", "column several of table public.theirs", "ALTER TABLE theirs DROP several"),
    ],
)  # fmt: skip
def test_the_cure_of_a_column_names_what_must_be_dropped_first(made, blocker, drop):
    if "WHERE (" in made and connection.pg_version < 150000:
        pytest.skip("Row filters of publications are new in PostgreSQL 15.")
    run("ALTER TABLE users ALTER name TYPE varchar(200)")
    run(made)

    (finding,) = (one for one in verify(connection).findings if one.severity == "error")

    assert finding.loses == FIRST + blocker
    assert finding.cure.splitlines()[0] == f"-- F{FIRST[1:]}{blocker}"
    with pytest.raises(Error, match=r"cannot alter (type of a column used|table .users. because column)"), transaction.atomic():
        run(finding.cure)
    run(drop)
    run(finding.cure)
    assert [one for one in verify(connection).findings if one.severity == "error"] == []


ENUM = """
    CREATE TYPE priority AS ENUM ('low', 'medium', 'high', 'urgent');
    ALTER TABLE notifications ALTER priority DROP DEFAULT, ALTER priority TYPE priority USING priority::priority;
    ALTER TABLE notifications ALTER priority SET DEFAULT 'medium';
    CREATE INDEX notif_urgent ON notifications ("userId") WHERE priority = 'urgent'; CREATE INDEX plain ON notifications (priority);
    ALTER TABLE notifications ADD CONSTRAINT prio_check CHECK (priority <> 'low' OR title <> 'x'), ADD CHECK (priority IS NOT NULL)
"""


@pytest.mark.django_db
def test_a_check_and_an_index_that_compare_the_column_block_its_type():
    run(ENUM)

    [finding] = [one for one in verify(connection).findings if one.code == "column.different"]

    named = "constraint prio_check on table notifications, index notif_urgent"
    assert (finding.loses, finding.cure.splitlines()[0]) == (FIRST + named, f"-- F{FIRST[1:]}{named}")
    with pytest.raises(Error, match=r"operator does not exist: text [<=]+ priority"), transaction.atomic():
        run(finding.cure)
    run("ALTER TABLE notifications DROP CONSTRAINT prio_check; DROP INDEX notif_urgent")
    run(finding.cure)
    assert [one for one in verify(connection).findings if one.code == "column.different"] == []


@pytest.mark.django_db
def test_a_check_and_an_index_that_the_new_type_has_too_do_not_block_it():
    run("CREATE FUNCTION slug(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1)")
    run("ALTER TABLE users ALTER name TYPE varchar(200), ADD CHECK (name <> 'x'); CREATE INDEX theirs ON users (slug(name))")
    run('ALTER TABLE price_alerts ALTER "notificationCount" TYPE numeric, ADD CHECK ("notificationCount" < 9)')

    found = {one.where: one for one in verify(connection).findings if one.code == "column.different"}

    assert {place: FIRST in one.loses for place, one in found.items()} == {
        "users.name": False, "price_alerts.notificationCount": False
    }  # fmt: skip
    run(*(one.cure for one in found.values()))


@pytest.mark.django_db
def test_a_view_of_a_generated_column_blocks_the_type_of_its_base():
    run("ALTER TABLE users ALTER name TYPE varchar(200), ADD theirs text GENERATED ALWAYS AS (lower(name)) STORED")
    run("CREATE VIEW theirs_v AS SELECT theirs FROM users")

    (finding,) = verify(connection).findings

    assert finding.loses == f"{FIRST}view public.theirs_v"
    run("DROP VIEW theirs_v")
    run(finding.cure)
    assert verify(connection).findings == ()


@pytest.mark.django_db
def test_a_view_blocks_the_cure_of_a_virtual_column():
    if connection.pg_version < 180000:
        pytest.skip("Virtual generated columns are new in PostgreSQL 18.")
    run("ALTER TABLE users DROP name, ADD name text GENERATED ALWAYS AS ('a'::text) VIRTUAL")
    run("CREATE VIEW theirs AS SELECT name FROM users")

    (finding,) = (one for one in verify(connection).findings if one.code == "column.different")

    assert finding.loses == f"{FIRST}view public.theirs"
    run("DROP VIEW theirs")
    run(finding.cure)
    assert [one for one in verify(connection).findings if one.code == "column.different"] == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("key", "made", "blocker", "drop"),
    [
        ("users_email_key", "CREATE TABLE theirs.theirs (a text REFERENCES users (email))",
         "constraint theirs_a_fkey on table theirs.theirs", "DROP TABLE theirs.theirs"),
        ("auth_permission_pkey", "CREATE VIEW theirs AS SELECT id, name FROM auth_permission GROUP BY id", "view public.theirs", "DROP VIEW theirs"),
    ],
)  # fmt: skip
def test_the_cure_of_a_key_names_what_must_be_dropped_first(key, made, blocker, drop):
    ours = next(one for one in EXPECTED.keys if one.name == key)
    columns, word = ", ".join(ours.columns), "PRIMARY KEY" if ours.primary else "UNIQUE"
    run(f"ALTER TABLE {ours.table} DROP CONSTRAINT {key} CASCADE, ADD CONSTRAINT {key} {word} ({columns}) INCLUDE (name)")
    run(f"CREATE SCHEMA theirs; {made}")

    (finding,) = (one for one in verify(connection).findings if one.where == f"{ours.table}.{key}")

    assert finding.loses == f"{FIRST.replace('column', 'key')}{blocker}"
    assert finding.cure.splitlines()[0] == f"-- F{finding.loses[1:]}"
    with pytest.raises(Error, match=f"cannot drop constraint {key} on table {ours.table}"), transaction.atomic():
        run(finding.cure)
    run(drop)
    run(finding.cure)
    assert [one for one in verify(connection).findings if one.where == f"{ours.table}.{key}"] == []


REFERRED = (
    "ALTER TABLE users DROP CONSTRAINT users_email_key, ADD CONSTRAINT users_email_key UNIQUE (email) INCLUDE (name), ALTER name TYPE varchar(99);"
    " CREATE TABLE theirs (a text REFERENCES users (email) ON DELETE CASCADE ON UPDATE CASCADE)"
)


@pytest.mark.django_db
def test_foreign_keys_to_a_key_that_includes_a_column_are_created_again_with_its_type():
    run(
        f"{REFERRED}; INSERT INTO users (id, email, \"updatedAt\") VALUES ('u', 'u@example.com', now()); INSERT INTO theirs VALUES ('u@example.com')"
    )
    run("SET CONSTRAINTS ALL IMMEDIATE")

    findings = verify(connection).findings

    assert [(one.code, one.where, one.loses) for one in findings] == [
        ("column.different", "users.name", ""), ("unique.different", "users.users_email_key", "")
    ]  # fmt: skip
    with pytest.raises(Error, match="because other objects depend on"), transaction.atomic():
        run("ALTER TABLE users ALTER name TYPE text")
    for finding in findings:
        run(finding.cure)
    assert verify(connection).findings == ()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'theirs'::regclass AND contype = 'f'"
        )
        assert cursor.fetchall() == [("FOREIGN KEY (a) REFERENCES users(email) ON UPDATE CASCADE ON DELETE CASCADE",)]


@pytest.mark.django_db
def test_a_foreign_key_of_another_schema_to_a_key_that_includes_a_column_is_named():
    run(f"CREATE SCHEMA theirs; {REFERRED.replace('TABLE theirs', 'TABLE theirs.theirs')}")

    finding, _ = verify(connection).findings

    assert finding.loses == f"{FIRST}constraint theirs_a_fkey on table theirs.theirs"
